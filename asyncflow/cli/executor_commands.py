"""The command about clusters: executor check."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from asyncflow._support.locations import is_url
from asyncflow._support.settings import Settings
from asyncflow.cli.common_options import store_option
from asyncflow.cli.executor_options import executor_of, executor_options
from asyncflow.errors import ClusterError
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.errors import PoolError
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.interface import ExecutorFactory, Kind

_LOOK_SECONDS: Final = 0.05
_PATIENT_SECONDS: Final = 60.0  # for a cluster to give room to one worker


class _Request(NamedTuple):
    """What `@resources` of a step would ask for."""

    cpu: float
    gpu: float
    memory: float


def make_executor(flow: type[FlowSpec] | None, script: str) -> click.Group:  # noqa: ARG001 - as its siblings
    return click.Group(
        "executor",
        commands=[_make_check()],
        help="Look after the clusters on which flows can run.",
        short_help="Check a cluster on which flows can run.",
    )


def _make_check() -> click.Command:
    def check(
        executor: str,
        address: str | None,
        store: str | None,
        cpu: float,
        gpu: float,
        memory: float,
    ) -> None:
        make = executor_of(executor, address, 1)
        if make is None:
            message = "there is nothing to check about this machine: name --executor dask or ray"
            raise click.UsageError(message)
        location = _check_store(str(Settings.read(store=store).store))
        nodes = asyncio.run(_nodes_of(make, location, _Request(cpu, gpu, memory)))
        for name, facts in nodes:
            told = f"Python {facts['python']}, asyncflow {facts['asyncflow']}"
            click.echo(f"{name}: ready, with {told} on {facts['host']}")
        click.echo(f"The store {location} can be used from here and from there.")

    return click.Command(
        "check",
        params=[
            *executor_options(default="dask"),
            store_option(),
            _amount("cpu", 1.0, "CPUs"),
            _amount("gpu", 0.0, "GPUs"),
            _amount("memory", 0.0, "MB of memory"),
        ],
        callback=check,
        help=(
            "Ask a cluster for room for one worker, start an agent there, compare its versions "
            "with those here, and see whether the store can be used from both; it is made if there "
            "is none. Whatever is wrong is said in words, as when a flow is run."
        ),
        short_help="Ask a cluster for room, compare versions, try the store.",
    )


def _amount(name: str, default: float, what: str) -> click.Option:
    return click.Option(
        [f"--{name}"],
        type=click.FloatRange(min=0.0),
        default=default,
        metavar="AMOUNT",
        help=f"How many {what} the worker needs, as @resources({name}=…) of a step would say.",
    )


def _check_store(location: str) -> str:
    """Open or make the store, and see whether it keeps its promises; its whole location.

    Raises:
        StoreError: It cannot be used.
    """
    store = open_store(location, create=True)
    try:
        if is_url(location):
            from asyncflow.store.object_store.object_store import check_conditions

            check_conditions(location)
        return store.location
    finally:
        store.close()


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


async def _nodes_of(
    make: ExecutorFactory, location: str, request: _Request
) -> list[tuple[str, Mapping[str, Any]]]:
    """The nodes that a cluster has given for such a request within a while.

    Raises:
        PoolError: It cannot be used.
    """
    hearing = _Hearing()
    with tempfile.TemporaryDirectory() as scratch:
        executor: Any = make(hearing, size=1, scratch=Path(scratch), store=location)
        try:
            await executor.start()
            kind: Kind = executor.kind_of(*request)
            waited = 0.0
            while not executor.size_of(kind) and hearing.error is None:
                executor.wish({kind: 1})  # again and again: else the request is withdrawn
                await asyncio.sleep(_LOOK_SECONDS)
                waited += _LOOK_SECONDS
                if waited > _PATIENT_SECONDS:
                    message = (
                        f"{executor.cluster} has given no room within {_PATIENT_SECONDS:g} s: all "
                        "of its workers are busy, or it has none"
                    )
                    raise ClusterError(message)
            if hearing.error is not None:
                raise hearing.error
            return list(executor.nodes)
        finally:
            await executor.close()
