"""`asyncflow ui`: the page that shows the runs of a store in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncflow.cli.common_options import store_option

if TYPE_CHECKING:
    from asyncflow.flow.spec import FlowSpec


def make_ui(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def ui(
        store: Path | str | None,
        port: int | None,
        host: str,
        token_file: Path | None,
        *,
        read_only: bool,
    ) -> None:
        from asyncflow._support.settings import Settings
        from asyncflow.page.serving import PORT, PageAddress, serve

        location = str(Settings.read(store=store).store)
        address = PageAddress(host, PORT if port is None else port, token_file)
        serve(location, address, read_only=read_only, announce=_announce)

    return click.Command(
        "ui",
        params=[
            store_option(),
            click.Option(
                ["--port"],
                type=click.IntRange(0, 65535),
                metavar="N",
                help="The port of the page; 8265 if left out, 0 for any that is free.",
            ),
            click.Option(
                ["--host"],
                default="127.0.0.1",
                show_default=True,
                metavar="ADDRESS",
                help="The address to listen at; one that other machines reach needs --token-file.",
            ),
            click.Option(
                ["--token-file"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="A file that you alone can read: the secret that a browser must show once.",
            ),
            click.Option(
                ["--read-only"], is_flag=True, help="Show runs, and change and start none."
            ),
        ],
        callback=ui,
        help=(
            "Serve a page that shows the runs of a store in a browser, live, until Ctrl-C. Open "
            "the address that is printed: its token lets your browser in, and nobody else."
        ),
        short_help="Show runs in a browser.",
    )


def _announce(address: str) -> None:
    click.echo(f"The page is at {address}\nCtrl-C ends it; runs go on.")
