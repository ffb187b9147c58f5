"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click


def store_option() -> click.Option:
    """`--store DIR`."""
    return click.Option(
        ["--store"],
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where runs and artifacts are kept; else ASYNCFLOW_STORE, else .asyncflow.",
    )


def json_option() -> click.Option:
    """`--json`."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for a program.")
