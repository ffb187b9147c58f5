"""The command about clusters: executor check."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow.cli.executor_options import executor_of, executor_options
from asyncflow.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.errors import PoolError
    from asyncflow.flow.spec import FlowSpec

_LOOK_SECONDS: Final = 0.05
_PATIENT_SECONDS: Final = 60.0  # for a cluster to give room to one worker


def make_executor(flow: type[FlowSpec] | None, script: str) -> click.Group:  # noqa: ARG001 - as its siblings
    return click.Group(
        "executor",
        commands=[_make_check()],
        help="Look after the clusters on which flows can run.",
        short_help="Check a cluster on which flows can run.",
    )


def _make_check() -> click.Command:
    def check(executor: str, address: str | None) -> None:
        for name, facts in asyncio.run(_nodes_of(executor, address)):
            told = f"Python {facts['python']}, asyncflow {facts['asyncflow']}"
            click.echo(f"{name}: ready, with {told} on {facts['host']}")

    return click.Command(
        "check",
        params=executor_options(default="dask"),
        callback=check,
        help=(
            "Ask a cluster for room for one worker, start an agent there, and compare its versions "
            "with those here. Whatever is wrong is said in words, as when a flow is run."
        ),
        short_help="Ask a cluster for room, and compare versions.",
    )


class _Hearing:
    """Keeps the first error that an executor tells."""

    def __init__(self) -> None:
        self.error: PoolError | None = None

    def on_refused(self, kind: object, error: PoolError) -> None:
        """A request was refused."""
        del kind
        self.on_broken(error)

    def on_broken(self, error: PoolError) -> None:
        """Nothing can be started."""
        self.error = self.error or error

    def on_room(self) -> None:
        """There is room, which is looked for anyway."""

    on_reports = on_exit = on_stopped = on_continued = lambda *_: None


async def _nodes_of(name: str, address: str | None) -> list[tuple[str, Mapping[str, Any]]]:
    """The nodes that a cluster has given within a while.

    Raises:
        PoolError: It cannot be used.
        click.UsageError: The options do not fit each other.
    """
    make, hearing = executor_of(name, address, 1), _Hearing()
    if make is None:
        message = "there is nothing to check about this machine: name --executor dask or ray"
        raise click.UsageError(message)
    with tempfile.TemporaryDirectory() as scratch:
        executor: Any = make(hearing, size=1, scratch=Path(scratch))
        try:
            await executor.start()
            executor.wish({None: 1})
            waited = 0.0
            while not executor.size and hearing.error is None and waited < _PATIENT_SECONDS:
                await asyncio.sleep(_LOOK_SECONDS)
                waited += _LOOK_SECONDS
            if hearing.error is not None:
                raise hearing.error
            if not executor.size:
                message = (
                    f"{executor.cluster} has given no room within {_PATIENT_SECONDS:g} s: all of "
                    "its workers are busy, or it has none"
                )
                raise ClusterError(message)
            return list(executor.nodes)
        finally:
            await executor.close()
