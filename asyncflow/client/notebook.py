"""Shows flows, runs, steps and tasks in notebooks: small tables, with every text escaped."""

from __future__ import annotations

from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Shown(Protocol):
    """What `show` needs: an id, and a repr that begins with `Kind('pathspec') `."""

    @property
    def id(self) -> str:
        """Its name within its parent."""


_ROWS: Final = 20  # more rows are not read at a glance


def show(view: Shown) -> str:
    """The object's description, and a table of the objects in it."""
    try:
        rows = [_row(part) for part in islice(_parts(view), _ROWS + 1)]
    except (AsyncflowError, OSError):
        rows = []  # the heading says why
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
