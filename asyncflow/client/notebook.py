"""How notebooks show flows, runs, steps and tasks: small tables, every text escaped."""

from __future__ import annotations

from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Shown(Protocol):
    """What can be shown: it has an id, and a repr that begins `Kind('pathspec') `."""

    @property
    def id(self) -> str:
        """Its name within what holds it."""


_ROWS: Final = 20  # more than that is not read at a glance


def show(view: Shown) -> str:
    """What there is to say of it, and a table of what it holds."""
    try:
        rows = [_row(part) for part in islice(_parts(view), _ROWS + 1)]
    except (AsyncflowError, OSError):
        rows = []  # the heading tells why
    return f"<div>{_heading(view)}{_table(rows)}</div>"


def _heading(view: Shown) -> str:
    name, _, said = repr(view).partition(") ")
    return f"<code>{escape(name)})</code> {escape(said)}"


def _parts(view: Shown) -> Iterable[Shown]:
    return cast("Iterable[Any]", view) if hasattr(view, "__iter__") else ()


def _row(view: Shown) -> tuple[str, str]:
    return view.id, repr(view).partition(") ")[2]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td style='text-align: left'><code>{escape(name)}</code></td>"
        f"<td style='text-align: left'>{escape(said)}</td></tr>"
        for name, said in rows[:_ROWS]
    )
    more = "<tr><td>…</td><td></td></tr>" if len(rows) > _ROWS else ""
    return f"<table>{lines}{more}</table>"
