"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asyncflow._support.locations import is_url


class StoreType(click.Path):
    """A folder, or a URL. Empty text is refused: `Path` would make it the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("it is empty; name a folder, or leave --store out", param, ctx)
        if is_url(value):
            return value
        return super().convert(value, param, ctx)


def store_option() -> click.Option:
    return click.Option(
        ["--store"],
        type=StoreType(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where runs and artifacts are kept: a folder, or s3://BUCKET/PREFIX; "
        "else ASYNCFLOW_STORE, else .asyncflow.",
    )


def json_option() -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for a program.")
