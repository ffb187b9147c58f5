"""Arrays and tables of pyarrow in the tree of a pickle: types, and arrays of buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.client.previews.arrow_values import ArrowArray, ArrowType
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pickle_opcodes import Made, Named, Node, Several, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.stored_bytes import StoredBytes

_FIELDS: Final = 7  # of an array: type, length, nulls, offset, buffers, children, dictionary
_WORK: Final = 2  # for one type or array, in names that are looked at
_MOST_CHUNKS: Final = 1_000
_MOST_DEPTH: Final = 20  # of arrays and types within each other
_MOST_PARTS: Final = 1_000  # of one type
_MOST_KINDS: Final = 128  # of a union: their numbers are below that
_DECIMAL_SIZES: Final = {"decimal32": 4, "decimal64": 8, "decimal128": 16, "decimal256": 32}
_UUID_BYTES: Final = 16


def arrow_table(node: Made, limits: PreviewLimits) -> tuple[list[Column], int] | None:
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
        column = arrow_column(array, limits)
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


def arrow_column(node: Node, limits: PreviewLimits) -> Column | None:
    """An array, or one in chunks; None if the node makes none, or one of an unknown type."""
    if _is(node, "chunked_array") and node.arguments and isinstance(node.arguments[0], Several):
        chunks = [_array_of(each, limits) for each in node.arguments[0].items[:_MOST_CHUNKS]]
        return column_of_chunks([each for each in chunks if each is not None], len(chunks))
    array = _array_of(node, limits)
    return None if array is None else column_of_chunks([array], 1)


def column_of_chunks(chunks: Sequence[ArrowArray], count: int) -> Column | None:
    """A column that lies in so many arrays; None if one of these is not known, or there is none."""
    if not chunks or len(chunks) != count:
        return None

    def texts(wanted: int) -> list[str]:
        found: list[str] = []
        for chunk in chunks:
            missing = min(wanted - len(found), chunk.length)
            if missing <= 0 and len(found) >= wanted:
                break
            new = chunk.texts(0, missing)
            found += new
            if len(new) < missing:  # what follows would stand in the wrong rows
                break
        return found

    return Column("", chunks[0].type.name, sum(each.length for each in chunks), texts)


def _array_of(node: Node, limits: PreviewLimits) -> ArrowArray | None:
    if not (_is(node, "_restore_array") and node.arguments):
        return None
    return _restored(node.arguments[0], limits, _MOST_DEPTH)


def _restored(node: Node, limits: PreviewLimits, depth: int) -> ArrowArray | None:
    """An array from what pyarrow reduces it to."""
    if not isinstance(node, Several) or len(node.items) != _FIELDS or depth <= 0:
        return None
    kind, length, _, offset, buffers, children, dictionary = node.items
    if not (type(length) is int and type(offset) is int and isinstance(buffers, Several)):
        return None
    limits.count(_WORK + len(buffers.items))
    parts = [_buffer(each) for each in buffers.items]
    inner = children.items[:_MOST_PARTS] if isinstance(children, Several) else []
    return ArrowArray(
        _type_of(kind, _MOST_DEPTH, limits),
        max(length, 0),
        offset,
        parts[0] if parts else None,
        parts[1:],
        [_restored(each, limits, depth - 1) for each in inner],
        _restored(dictionary, limits, depth - 1),
        limits,
    )


def _buffer(node: Node) -> StoredBytes | None:
    if _is(node, "py_buffer") and node.arguments:
        return bytes_of(node.arguments[0])
    return bytes_of(node)


# --- types --------------------------------------------------------------------------------------


def _type_of(node: Node, depth: int, limits: PreviewLimits) -> ArrowType:
    """The type that a node makes; `?` if it makes none."""
    limits.count(_WORK)
    if not isinstance(node, Made) or not isinstance(node.function, Named) or depth <= 0:
        return ArrowType(node.name[:60] if isinstance(node, Named) else "?")
    name, given = node.function.name, node.arguments
    if name == "type_for_alias" and given and isinstance(given[0], str):
        return _by_alias(given[0])
    make = _MAKERS.get(name)
    found = make(name, given, depth - 1, limits) if make is not None else None
    return ArrowType(name[:60]) if found is None else found


def _by_alias(alias: str) -> ArrowType:
    kind, _, unit = alias[:60].partition("[")
    if kind in {"date32", "date64"}:
        return ArrowType(kind)
    return ArrowType(kind, unit=unit.rstrip("]"))


def _field_type(node: Node, depth: int, limits: PreviewLimits) -> tuple[str, ArrowType]:
    if _is(node, "field") and len(node.arguments) > 1:
        name = node.arguments[0]
        return name if isinstance(name, str) else "", _type_of(node.arguments[1], depth, limits)
    return "", _type_of(node, depth, limits)


def _word(node: Node) -> str:
    """A short text; `?` for anything else, whose text can be longer than memory."""
    return node[:9] if isinstance(node, str) else "?"


def _timestamp(kind: str, given: Sequence[Node], *_: object) -> ArrowType | None:
    unit, zone = [*given[:2], None, None][:2]
    return ArrowType(kind, unit=_word(unit), zone=zone if isinstance(zone, str) else "")


def _fixed_bytes(_kind: str, given: Sequence[Node], *_: object) -> ArrowType | None:
    size = given[0] if given else None
    return ArrowType("fixed_size_binary", size=size) if type(size) is int else None


def _decimal(kind: str, given: Sequence[Node], *_: object) -> ArrowType | None:
    precision, scale = [*given[:2], None, None][:2]
    if type(precision) is not int or type(scale) is not int:
        return None
    return ArrowType(kind, precision=precision, scale=scale, size=_DECIMAL_SIZES[kind])


def _list(kind: str, given: Sequence[Node], depth: int, limits: PreviewLimits) -> ArrowType | None:
    if not given:
        return None
    fields = (_field_type(given[0], depth, limits),)
    size = given[1] if len(given) > 1 else -1
    if kind == "list_" and type(size) is int and size >= 0:
        return ArrowType("fixed_size_list", size=size, fields=fields)
    return ArrowType(kind.rstrip("_"), fields=fields)


def _of_fields(
    kind: str, given: Sequence[Node], depth: int, limits: PreviewLimits
) -> ArrowType | None:
    first = given[0] if given else None
    parts = first.items if kind == "struct" and isinstance(first, Several) else given
    most = 2 if kind == "dictionary" else _MOST_PARTS  # indices and values
    fields = tuple(_field_type(each, depth, limits) for each in parts[:most])
    return ArrowType(kind.rstrip("_"), fields=fields)


def _union(
    _kind: str, given: Sequence[Node], depth: int, limits: PreviewLimits
) -> ArrowType | None:
    if len(given) < 3 or not (isinstance(given[0], Several) and isinstance(given[2], Several)):  # noqa: PLR2004 - fields, mode and numbers
        return None
    fields = tuple(_field_type(each, depth, limits) for each in given[0].items[:_MOST_PARTS])
    ids = tuple(each for each in given[2].items[:_MOST_KINDS] if type(each) is int)
    return ArrowType(f"{_word(given[1])}_union", fields=fields, type_ids=ids)


def _stored_as(
    _kind: str, given: Sequence[Node], depth: int, limits: PreviewLimits
) -> ArrowType | None:
    return _type_of(given[0], depth, limits) if given else None


_MAKERS: Final[dict[str, Callable[[str, Sequence[Node], int, PreviewLimits], ArrowType | None]]] = {
    "timestamp": _timestamp,
    "binary": _fixed_bytes,
    **dict.fromkeys(_DECIMAL_SIZES, _decimal),
    **dict.fromkeys(("list_", "large_list", "list_view", "large_list_view"), _list),
    **dict.fromkeys(("struct", "map_", "run_end_encoded", "dictionary"), _of_fields),
    "union": _union,
    "json_": _stored_as,
    "opaque": _stored_as,
    "uuid": lambda *_: ArrowType("fixed_size_binary", size=_UUID_BYTES),
    "bool8": lambda *_: ArrowType("int8"),
}
