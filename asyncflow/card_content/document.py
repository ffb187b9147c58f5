"""The document of a card: its parts, as they are stored.

It is a msgpack map. Images and long specifications of charts are values of their own, which the
document names. docs/reference/cards.md describes it. A document may come from a damaged or hostile
store: `read_document` checks it, and passes on only what it knows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgpack

from asyncflow.card_content.component import MOST_TEXT_BYTES, Part, error_part
from asyncflow.card_content.pictures import MOST_COLUMNS, MOST_ROWS
from asyncflow.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 1
MOST_DOCUMENT_BYTES: Final = 1 << 20
"""The longest document; its images are not counted."""
_MOST_PARTS: Final = 2_000
_MOST_DEPTH: Final = 8
_MOST_EVENTS: Final = 1_000


class Document(NamedTuple):
    """What is stored of a card."""

    type: str
    """The card's type."""
    parts: Sequence[Part]
    """Its components as plain data."""
    title: str = ""
    """What stands above them."""
    html: bytes | str = b""
    """Of a card that is HTML: the name of that, or the HTML itself if it is short."""


def pack_document(document: Document) -> bytes:
    """A document as bytes; parts beyond the largest size are replaced by an error."""
    kept: list[Part] = []
    room = MOST_DOCUMENT_BYTES - (4 << 10)
    for number, part in enumerate(document.parts):
        packed = _packed(part)
        room -= len(packed)
        if room < 0 or number >= _MOST_PARTS:
            left = len(document.parts) - number
            size = f"{MOST_DOCUMENT_BYTES >> 10:,} KB"
            kept.append(error_part(f"{left} components are left out: the card exceeds {size}"))
            break
        kept.append(part)
    fields = {"v": VERSION, "type": document.type, "parts": kept}
    if document.title:
        fields["title"] = document.title
    if document.html:
        fields["html"] = document.html
    return _packed(fields)


def _packed(value: Any) -> bytes:
    return cast("bytes", msgpack.packb(value, unicode_errors="backslashreplace"))


def read_document(data: bytes) -> Document:
    """Undo `pack_document`.

    Raises:
        RecordError: These are not the bytes of a document, or of a later version's.
    """
    if len(data) > MOST_DOCUMENT_BYTES:
        raise RecordError("it is longer than a card may be")
    try:
        fields = msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise RecordError(f"it is not MessagePack: {error}") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("parts"), list):
        raise RecordError("it is no document of a card")
    if fields.get("v") != VERSION:
        raise RecordError("it was written by a later version of asyncflow")
    html = fields.get("html", b"")
    return Document(
        _text(fields.get("type")),
        [_part(each) for each in fields["parts"][: _MOST_PARTS + 1]],
        _text(fields.get("title")),
        html if isinstance(html, str | bytes) else b"",
    )


# --- what a part may have -----------------------------------------------------------------------


def _part(given: object, depth: int = 0) -> Part:
    if not isinstance(given, dict) or depth > _MOST_DEPTH:
        return error_part("This part of the card cannot be read")
    kind = given.get("kind")
    read = _READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        return error_part("This part of the card was written by a later version of asyncflow")
    return {"kind": kind, **read(given, depth + 1)}


def _texts(*names: str) -> Any:
    def read(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
        return {name: _text(given.get(name)) for name in names}

    return read


def _text(given: object) -> str:
    return given[:MOST_TEXT_BYTES] if isinstance(given, str) else ""


def _number(given: object) -> int | float | str:
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        return given
    return _text(given)


def _moment(given: object) -> float | None:
    is_moment = isinstance(given, int | float) and 0 <= given < 1e11  # noqa: PLR2004 - the year 5138
    return float(given) if is_moment else None  # type: ignore[arg-type] # just asked


def _list(given: object, most: int) -> list[Any]:
    return given[:most] if isinstance(given, list) else []


def _group(given: dict[Any, Any], depth: int) -> Part:
    return {"parts": [_part(each, depth) for each in _list(given.get("parts"), _MOST_PARTS)]}


def _table(given: dict[Any, Any], depth: int) -> Part:
    rows = [
        [
            _part(cell, depth) if isinstance(cell, dict) else _number(cell)
            for cell in _list(row, MOST_COLUMNS + 1)
        ]
        for row in _list(given.get("rows"), MOST_ROWS)
    ]
    total, columns = given.get("total"), given.get("columns")
    return {
        "headers": [_text(each) for each in _list(given.get("headers"), MOST_COLUMNS + 1)],
        "rows": rows,
        "total": total if isinstance(total, int) else len(rows),
        "columns": columns if isinstance(columns, int) else 0,
    }


def _named_bytes(given: object) -> bytes | str:
    return given if isinstance(given, bytes | str) else b""


def _image(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
    mime = _text(given.get("mime"))
    return {
        "mime": mime if mime in _MIMES else "image/png",
        "image": _named_bytes(given.get("image")),
        "label": _text(given.get("label")),
    }


_MIMES: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml"})


def _vega(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
    return {"spec": _text(given.get("spec")), "controls": given.get("controls") is True}


def _progress(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
    return {
        "max": _number(given.get("max")),
        "value": _number(given.get("value")),
        **{name: _text(given.get(name)) for name in ("label", "unit", "details")},
    }


def _value(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
    shown = {name: _text(given.get(name)) for name in ("title", "subtitle", "theme", "change")}
    return {**shown, "value": _number(given.get("value"))}


def _data(given: dict[Any, Any], depth: int) -> Part:  # noqa: ARG001 - as the others
    return {
        **{name: _text(given.get(name)) for name in ("text", "title", "height")},
        "folds": given.get("folds") is not False,
        "copies": given.get("copies") is not False,
    }


def _timeline(given: dict[Any, Any], depth: int) -> Part:
    return {
        "title": _text(given.get("title")),
        "total": _number(given.get("total")),
        "finished": given.get("finished") is True,
        "first": _moment(given.get("first")),
        "last": _moment(given.get("last")),
        "events": [
            _event(each, depth)
            for each in _list(given.get("events"), _MOST_EVENTS)
            if isinstance(each, dict)
        ],
    }


def _event(given: dict[Any, Any], depth: int) -> Part:
    return {
        "time": _moment(given.get("time")),
        "theme": _text(given.get("theme")),
        "priority": _text(given.get("priority")),
        "facts": [[_text(each[0]), _number(each[1])] for each in _pairs(given.get("facts"))],
        "payloads": [
            [_text(each[0]), _part(each[1], depth)] for each in _pairs(given.get("payloads"))
        ],
    }


def _pairs(given: object) -> list[list[Any]]:
    return [each for each in _list(given, 100) if isinstance(each, list) and len(each) == 2]  # noqa: PLR2004 - a pair


_READERS: Final[dict[str, Any]] = {
    "text": _texts("text"),
    "markdown": _texts("text"),
    "artifact": _texts("name", "type", "text"),
    "error": _texts("title", "text", "traceback"),
    "code": _texts("text"),
    "group": _group,
    "table": _table,
    "image": _image,
    "vega": _vega,
    "progress": _progress,
    "value": _value,
    "json": _data,
    "yaml": _data,
    "timeline": _timeline,
}
"""What each kind of part may have, by its name."""
