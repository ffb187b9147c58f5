"""Arrays and tables of Arrow in the tree of a pickle, read from their buffers."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pickle_opcodes import Made, Named, Node, Several, bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.previews.stored_bytes import StoredBytes

_FORMS: Final = {
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "halffloat": "e",
    "float": "f",
    "double": "d",
    "date32": "i",
    "date64": "q",
}
_OFFSETS: Final = {"string": "i", "large_string": "q", "binary": "i", "large_binary": "q"}
_MOST_TEXT: Final = 100  # bytes of one value
_FIELDS: Final = 7  # of an array: type, length, nulls, offset, buffers, children, dictionary
_MOST_CHUNKS: Final = 1_000


def arrow_table(node: Made) -> tuple[list[Column], int] | None:
    """The columns of a table, and its length; None if the node makes none."""
    if not _is(node, "_reconstruct_table", "_reconstruct_record_batch") or len(node.arguments) < 2:  # noqa: PLR2004 - columns and schema
        return None
    arrays, schema = node.arguments[:2]
    if not isinstance(arrays, Several):
        return None
    names = _names(schema)
    columns = []
    for number, array in enumerate(arrays.items):
        name = names[number] if number < len(names) else ""
        column = arrow_column(array)
        columns.append(Column.unknown(name) if column is None else column.named(name))
    return columns, max((each.length for each in columns), default=0)


def _names(schema: Node) -> list[str]:
    if not (
        _is(schema, "schema") and schema.arguments and isinstance(schema.arguments[0], Several)
    ):
        return []
    fields = schema.arguments[0].items
    names = [each.arguments[0] if _is(each, "field") and each.arguments else "" for each in fields]
    return [name if isinstance(name, str) else "" for name in names]


def _is(node: Node, *names: str) -> bool:
    return (
        isinstance(node, Made)
        and isinstance(node.function, Named)
        and node.function.module.startswith("pyarrow")
        and node.function.name in names
    )


def arrow_column(node: Node) -> Column | None:
    """An array, or one in chunks; None if the node makes none, or one of an unknown type."""
    if _is(node, "chunked_array") and node.arguments and isinstance(node.arguments[0], Several):
        chunks = [arrow_column(each) for each in node.arguments[0].items[:_MOST_CHUNKS]]
        known = [each for each in chunks if each is not None]
        if not known or len(known) != len(chunks):
            return None
        return Column("", known[0].dtype, sum(each.length for each in known), _joined(known))
    if not (_is(node, "_restore_array") and node.arguments):
        return None
    first = node.arguments[0]
    if not isinstance(first, Several) or len(first.items) != _FIELDS:
        return None
    kind, length, _, offset, buffers, _, _ = first.items
    if not (type(length) is int and type(offset) is int and isinstance(buffers, Several)):
        return None
    name = _type_name(kind)
    parts = [_buffer(each) for each in buffers.items]
    return Column("", name, max(length, 0), _reader(name, offset, parts, length))


def _joined(chunks: Sequence[Column]) -> Any:
    def texts(count: int) -> list[str]:
        found: list[str] = []
        for chunk in chunks:
            if len(found) >= count:
                break
            found += chunk.texts(min(count - len(found), chunk.length))
        return found

    return texts


def _type_name(node: Node) -> str:
    if isinstance(node, Made) and node.arguments and isinstance(node.arguments[0], str):
        return node.arguments[0][:60]
    if isinstance(node, Made) and isinstance(node.function, Named):
        return node.function.name[:60]
    return "?"


def _buffer(node: Node) -> StoredBytes | None:
    if _is(node, "py_buffer") and node.arguments:
        return bytes_of(node.arguments[0])
    return bytes_of(node)


def _reader(name: str, offset: int, parts: Sequence[StoredBytes | None], length: int) -> Any:
    """What gives the first values as texts."""

    def texts(count: int) -> list[str]:
        count = min(count, length)
        if count <= 0 or offset < 0:
            return []
        missing = _missing(parts[0] if parts else None, offset, count)
        values = _values(name, offset, parts, count)
        return ["null" if gone else text for gone, text in zip(missing, values, strict=False)]

    return texts


def _values(name: str, offset: int, parts: Sequence[StoredBytes | None], count: int) -> list[str]:
    data = parts[1] if len(parts) > 1 else None
    if data is None:
        return []
    if name in _FORMS:
        form = struct.Struct(f"<{_FORMS[name]}")
        raw = data.read(offset * form.size, count * form.size)
        whole = raw[: len(raw) // form.size * form.size]
        return [_number(value) for (value,) in form.iter_unpack(whole)]
    if name == "bool":
        raw = data.read(offset // 8, (offset % 8 + count + 7) // 8)
        bits = range(offset % 8, min(offset % 8 + count, 8 * len(raw)))
        return [str(bool(raw[bit // 8] >> bit % 8 & 1)) for bit in bits]
    if name in _OFFSETS and len(parts) > 2 and parts[2] is not None:  # noqa: PLR2004 - validity, offsets, data
        return _texts(_OFFSETS[name], offset, data, parts[2], count)
    return []


def _texts(form: str, offset: int, places: StoredBytes, data: StoredBytes, count: int) -> list[str]:
    size = struct.calcsize(f"<{form}")
    raw = places.read(offset * size, (count + 1) * size)
    ends = [end for (end,) in struct.iter_unpack(f"<{form}", raw[: len(raw) // size * size])]
    found = []
    for begin, end in pairwise(ends):
        piece = data.read(begin, min(max(end - begin, 0), _MOST_TEXT))
        found.append(repr(piece.decode("utf-8", "replace")))
    return found


def _missing(validity: StoredBytes | None, offset: int, count: int) -> list[bool]:
    if validity is None:
        return [False] * count
    raw = validity.read(offset // 8, (offset % 8 + count + 7) // 8)
    bits = range(offset % 8, offset % 8 + count)
    return [bit // 8 < len(raw) and not raw[bit // 8] >> bit % 8 & 1 for bit in bits]


def _number(value: float) -> str:
    return f"{value:.6g}" if type(value) is float else str(value)
