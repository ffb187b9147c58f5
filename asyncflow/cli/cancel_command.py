"""`asyncflow cancel`: end a run that any process of this machine is running."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from asyncflow.cli.common_options import store_option
from asyncflow.cli.exit_status import FAILED
from asyncflow.cli.look_commands import find, pathspec_argument

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.flow.spec import FlowSpec

_SECONDS: Final = 60.0
"""How long to wait for a run to end: more than the grace that its tasks have."""


def make_cancel(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def cancel(run: str, reason: str, store: Path | None, *, no_wait: bool) -> int:
        from asyncflow.errors import RunNotActiveError

        found = find(run, store)
        began = time.monotonic()
        try:
            ended = found.cancel(reason, seconds=0.0 if no_wait else _SECONDS)
        except RunNotActiveError as error:
            click.echo(f"Error: {error}", err=True)
            return FAILED
        if ended:
            click.echo(f"{found.pathspec} was cancelled ({time.monotonic() - began:.1f} s).")
        elif no_wait:
            click.echo(f"{found.pathspec} is being cancelled.")
        else:
            message = (
                f"Error: {found.pathspec} was told to end, and has not ended in {_SECONDS:g} s: "
                "its tasks take long to stop, or its engine is stopped"
            )
            click.echo(message, err=True)
            return FAILED
        return 0

    return click.Command(
        "cancel",
        params=[
            pathspec_argument(flow, 2, name="run"),
            click.Option(
                ["--reason"],
                default="",
                metavar="TEXT",
                help="Why: it stands in the run's last event.",
            ),
            click.Option(["--no-wait"], is_flag=True, help="Return before the run has ended."),
            store_option(),
        ],
        callback=cancel,
        help=(
            "Cancel a run, whatever process is running it. Its finished tasks are kept, and it can "
            "be resumed. The exit status is 1 if the run has ended already or its engine is gone. "
            "RUN is Flow/run."
        ),
        short_help="Cancel a run of another process.",
    )
