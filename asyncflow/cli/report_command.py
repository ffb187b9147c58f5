"""`asyncflow report`: a run as one HTML file to send."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncflow.cli.common_options import store_option
from asyncflow.cli.look_commands import find, pathspec_argument
from asyncflow.cli.stdout_errors import print_lines, print_output, refuse_terminal

if TYPE_CHECKING:
    from asyncflow.flow.spec import FlowSpec


def make_report(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def report(
        pathspec: str, output: Path | None, max_cards: int, store: Path | str | None
    ) -> None:
        from asyncflow.page.report import report as made

        run = find(pathspec, store)
        if output is None:
            refuse_terminal("a report", "-o report.html")
        html = made(run, most_cards=max_cards)
        if output is None:
            print_output(html, raw=True)
            return
        output.write_text(html, encoding="utf-8")
        print_lines([f"{run.pathspec}: {output}, {len(html.encode()) / 1000:,.0f} KB"])

    return click.Command(
        "report",
        params=[
            pathspec_argument(flow, 2),
            click.Option(
                ["-o", "--output"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="The file to write; if left out, standard output, unless that is a terminal.",
            ),
            click.Option(
                ["--max-cards"],
                type=click.IntRange(0, 10_000),
                default=50,
                show_default=True,
                metavar="N",
                help="The most cards in the file; those of failed tasks come first.",
            ),
            store_option(),
        ],
        callback=report,
        help=(
            "Write a run as one HTML file to send: graph, timeline, steps, failures, results and "
            "cards. It needs no network to be read."
        ),
        short_help="Write a run as one HTML file.",
    )
