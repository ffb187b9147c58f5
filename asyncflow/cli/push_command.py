"""The command that sends to an object store what a program had written and not sent: push."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.stdout_errors import print_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import Sent


def make_push(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def push(store: Path | str | None, *, as_json: bool) -> None:
        from asyncflow._support.settings import Settings
        from asyncflow.errors import StoreError
        from asyncflow.store import open_store

        opened = open_store(Settings.read(store=store).store)
        try:
            sent = opened.send_rest()
        except OSError as error:
            message = f"{opened.location} does not take it: {error.strerror or error}"
            raise StoreError(message) from error
        if as_json:
            click.echo(json.dumps([each._asdict() for each in sent], indent=2))
        else:
            print_lines(_lines(sent))

    return click.Command(
        "push",
        params=[store_option(), json_option()],
        callback=push,
        help=(
            "Send to an object store what programs on this machine had written to the journals of "
            "their runs, and could not send before they were killed. Each program that opens an "
            "engine with that store does the same. A store in a folder needs no such thing."
        ),
        short_help="Send what a killed program has left to an object store.",
    )


def _lines(sent: Sequence[Sent]) -> Iterator[str]:
    from asyncflow.client.words import how_large

    for run in sent:
        yield f"Sent {how_large(run.sent)} of {run.pathspec}"
        if run.dropped:
            yield (
                f"    dropped {how_large(run.dropped)}: somebody else had ended the run before, "
                "by resuming or removing it"
            )
    if not sent:
        yield "Nothing is left to be sent."
