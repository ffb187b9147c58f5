"""The command that copies runs from one store to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncflow.cli.common_options import StoreType, json_option
from asyncflow.cli.progress_line import ProgressLine
from asyncflow.cli.stdout_errors import print_lines

if TYPE_CHECKING:
    from asyncflow.flow.spec import FlowSpec


def make_copy(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def copy(
        source: Path | str, target: Path | str, runs: tuple[str, ...], *, as_json: bool
    ) -> int:
        from asyncflow.cli import store_text
        from asyncflow.store import open_store
        from asyncflow.store.maintenance.copy_runs import choose_all, copy_runs

        own = flow.__name__ if flow is not None else None
        origin = open_store(source)
        running: list[str] = []
        if runs:
            wanted = [_run(own, each) for each in dict.fromkeys(runs)]
        else:
            wanted, running = choose_all(origin, [own] if own else origin.flows())
        store = open_store(target, create=True)
        try:
            with ProgressLine() as progress:
                copied = copy_runs(
                    origin,
                    store,
                    wanted,
                    on_progress=lambda so_far: progress.show(
                        lambda: f"copying: {store_text.copying_text(so_far)}"
                    ),
                )
        finally:
            store.close()
        if as_json:
            data = {"copied": [each.to_data() for each in copied], "running": running}
            click.echo(json.dumps(data, indent=2))
        else:
            print_lines(store_text.copied_lines(copied, running))
        return 0

    place = StoreType(file_okay=False, path_type=Path)
    return click.Command(
        "copy",
        params=[
            click.Argument(["source"], type=place, metavar="SOURCE"),
            click.Argument(["target"], type=place, metavar="TARGET"),
            click.Argument(["runs"], nargs=-1, metavar="[RUN]..."),
            json_option(),
        ],
        callback=copy,
        help=(
            "Copy runs from one store to another, each as Flow/run, or all of them: with their "
            "values, and with the runs from which they have taken tasks over. A store is a folder, "
            "or s3://BUCKET/PREFIX. What is copied is verified by its hashes, and a run appears in "
            "TARGET when it is complete. A command that was stopped can be repeated. A running run "
            "is refused if it is named, and skipped otherwise."
        ),
        short_help="Copy runs to another store.",
    )


def _run(flow: str | None, given: str) -> tuple[str, str]:
    parts = given.strip("/").split("/")
    if flow is not None and len(parts) == 1:
        parts.insert(0, flow)
    if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a flow and a run
        message = f"{given!r} is not of the form Flow/run"
        raise click.BadParameter(message, param_hint="RUN")
    return parts[0], parts[1]
