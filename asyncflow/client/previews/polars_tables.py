"""Frames and series of Polars in the tree of a pickle: their state is a stream of Arrow.

In older versions of Polars, the state of a frame is a list of series, each a stream of one column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.client.previews.arrow_pickles import column_of_chunks
from asyncflow.client.previews.arrow_stream import read_stream
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pickle_opcodes import Made, Named, Node, Several, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.client.previews.arrow_stream import StreamColumn
    from asyncflow.client.previews.arrow_values import ArrowType
    from asyncflow.client.previews.limits import PreviewLimits

__all__ = ["polars_table"]

_NAMES: Final = {
    "halffloat": "f16",
    "float": "f32",
    "double": "f64",
    "string_view": "str",
    "large_string": "str",
    "binary_view": "binary",
    "large_binary": "binary",
    "date32": "date",
    "time64": "time",
}


def polars_table(node: Made, limits: PreviewLimits) -> tuple[list[Column], int | None] | None:
    """The columns of a frame or a series, and its length; None if the node makes neither."""
    if _is(node, "Series") or (_is(node, "DataFrame") and bytes_of(node.state) is not None):
        return _of_stream(node.state, limits)
    if not _is(node, "DataFrame") or not isinstance(node.state, Several):
        return None
    columns, lengths = list[Column](), list[int | None]()
    for each in node.state.items:
        found = _of_stream(each.state, limits) if _is(each, "Series") else None
        columns += [Column.unknown("")] if found is None else found[0]
        lengths += [] if found is None else [found[1]]
    return columns, max((each for each in lengths if each is not None), default=0)


def _is(node: Node, name: str) -> bool:
    return (
        isinstance(node, Made)
        and isinstance(node.function, Named)
        and node.function.module.startswith("polars.")
        and node.function.name == name
    )


def _of_stream(state: Node, limits: PreviewLimits) -> tuple[list[Column], int | None] | None:
    data = bytes_of(state)
    if data is None:
        return None
    table = read_stream(data, limits)
    return [_column(each) for each in table.columns], table.length


def _column(column: StreamColumn) -> Column:
    found = column_of_chunks(column.chunks, len(column.chunks)) if column.is_whole else None
    dtype = _dtype(column.type, column.metadata)
    if found is None:
        return Column(column.name, dtype, 0, lambda _: [])
    return Column(column.name, dtype, found.length, found.texts)


def _dtype(kind: ArrowType, metadata: dict[str, str]) -> str:
    """The type as Polars shows it: `i64`, `datetime[μs]`, `list[str]`."""
    name = kind.kind
    show = _WITH_PARAMETERS.get(name)
    if show is not None:
        return show(kind)[:100]
    if name == "dictionary":
        is_enum = any("ENUM" in key or "ENUM" in value for key, value in metadata.items())
        return "enum" if is_enum else "cat"
    short = name.replace("uint", "u").replace("int", "i") if "int" in name else name
    return _NAMES.get(name, short)


def _moment(kind: ArrowType) -> str:
    zone = f", {kind.zone[:50]}" if kind.zone else ""
    return f"datetime[{kind.unit.replace('us', 'μs')}{zone}]"


def _inner(kind: ArrowType) -> str:
    return _dtype(kind.fields[0][1], {}) if kind.fields else "?"


_WITH_PARAMETERS: Final[dict[str, Callable[[ArrowType], str]]] = {
    "timestamp": _moment,
    "duration": lambda kind: f"duration[{kind.unit.replace('us', 'μs')}]",
    "list": lambda kind: f"list[{_inner(kind)}]",
    "large_list": lambda kind: f"list[{_inner(kind)}]",
    "fixed_size_list": lambda kind: f"array[{_inner(kind)}, {kind.size}]",
    "struct": lambda kind: f"struct[{len(kind.fields)}]",
    "decimal128": lambda kind: f"decimal[{kind.precision},{kind.scale}]",
}
