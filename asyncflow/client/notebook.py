"""Shows flows, runs, steps, tasks and artifacts in notebooks: small tables, every text escaped.

The value of an artifact is shown by the notebook's own means: an image, a table. It is loaded for
that, so only where the user has asked for the artifact itself, and only in a notebook.
"""

from __future__ import annotations

import base64
import io
import sys
from html import escape
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from asyncflow._support.notebook import shell
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Shown(Protocol):
    """What `show` needs: an id, and a repr that begins with `Kind('pathspec') `."""

    _COLUMNS: ClassVar[tuple[str, ...]]

    @property
    def id(self) -> str:
        """Its name within its parent."""

    def _cells(self) -> tuple[str, ...]:
        """What a table says of it, in the columns of its parent."""


class Valued(Protocol):
    """What `show_value` needs of an artifact."""

    @property
    def size(self) -> int:
        """Length of the stored value in bytes."""

    @property
    def data(self) -> Any:
        """The value."""


MOST_SHOWN_BYTES: Final = 64 << 20
"""The value of a larger artifact is not loaded to be shown."""
_MOST_TEXT_BYTES: Final = 1 << 16  # of a value that has nothing but a repr
_REPR_CHARACTERS: Final = 2000
_ROWS: Final = 20  # more rows are not read at a glance
_LEFT: Final = " style='text-align: left'"


def show(view: Shown) -> str:
    """The object's description, and a table of the objects in it."""
    try:
        rows = [_row(part) for part in islice(_parts(view), _ROWS + 1)]
    except (AsyncflowError, OSError):
        rows = []  # the heading says why
    return f"<div>{_heading(view)}{_table(view._COLUMNS, rows)}</div>"  # noqa: SLF001 - the views are one family


def show_value(artifact: Valued) -> str:
    """An artifact's description, and in a notebook its value."""
    return f"<div>{_heading(artifact)}{_value(artifact)}</div>"


def _heading(view: object) -> str:
    name, _, said = repr(view).partition(") ")
    return f"<code>{escape(name)})</code> {escape(said)}"


# --- tables -------------------------------------------------------------------------------------


def _parts(view: Any) -> Iterable[Shown]:
    return view if hasattr(view, "__iter__") else ()


def _row(part: Shown) -> tuple[str, ...]:
    """What a table says of an object; of one that cannot be read, the description says why."""
    try:
        return part._cells()  # noqa: SLF001 - the views are one family
    except (AsyncflowError, OSError):
        return part.id, repr(part).partition(") ")[2]


def _table(head: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    # an item is for tasks within a foreach
    kept = [
        at
        for at, name in enumerate(head)
        if name != "item" or any(row[1:2] != ("",) for row in rows)
    ]
    heads = "".join(f"<th{_LEFT}>{head[at]}</th>" for at in kept)
    lines = "".join(
        f"<tr><td{_LEFT}><code>{escape(row[0])}</code></td>"
        + "".join(f"<td{_LEFT}>{escape(row[at])}</td>" for at in kept[1:] if at < len(row))
        + "</tr>"
        for row in rows[:_ROWS]
    )
    more = "<tr><td>…</td></tr>" if len(rows) > _ROWS else ""
    return f"<table><tr>{heads}</tr>{lines}{more}</table>"


# --- values -------------------------------------------------------------------------------------


def _value(artifact: Valued) -> str:
    """The value of an artifact as HTML; empty outside of a notebook."""
    notebook = shell()
    if notebook is None:
        return ""
    if artifact.size > MOST_SHOWN_BYTES:
        return "<p>It is too large to be shown here: use its <code>data</code>.</p>"
    try:
        value = artifact.data
    except (AsyncflowError, OSError) as error:
        return f"<pre>{escape(str(error))}</pre>"
    is_short = artifact.size <= _MOST_TEXT_BYTES
    return _shown(notebook, value) or (f"<pre>{escape(_text(value))}</pre>" if is_short else "")


def _shown(shell: Any, value: Any) -> str:
    """A value as the notebook shows it; empty if it knows no other form than text."""
    wanted = {"text/html", "image/svg+xml", "image/png", "image/jpeg"}
    forms, _ = shell.display_formatter.format(value, include=wanted)
    if "text/html" in forms:
        return str(forms["text/html"])
    figure = _figure(value)
    if figure:
        return _image("image/png", figure)
    for kind in ("image/svg+xml", "image/png", "image/jpeg"):
        if kind in forms:
            return _image(kind, forms[kind])
    return ""


def _figure(value: Any) -> bytes:
    """A figure of matplotlib as a PNG, whether or not the notebook has set that up; else empty."""
    module = sys.modules.get("matplotlib.figure")
    if module is None or not isinstance(value, module.Figure):
        return b""
    out = io.BytesIO()
    value.savefig(out, format="png", bbox_inches="tight")
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(value)  # this copy: else the notebook shows it once more
    return out.getvalue()


def _image(kind: str, content: bytes | str) -> str:
    if isinstance(content, str) and kind != "image/svg+xml":
        encoded = content  # IPython gives images in base64
    else:
        data = content.encode() if isinstance(content, str) else content
        encoded = base64.b64encode(data).decode()
    return f"<p><img src='data:{kind};base64,{escape(encoded, quote=True)}'></p>"


def _text(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001 - the value's own method may raise anything
        return f"its repr has failed: {type(error).__name__}"
    return text if len(text) <= _REPR_CHARACTERS else f"{text[:_REPR_CHARACTERS]} …"
