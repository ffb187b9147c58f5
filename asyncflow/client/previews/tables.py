"""Tables of pandas, Arrow and NumPy in the tree of a pickle: their columns and first rows.

A frame of pandas is pickled as blocks, each an array of some columns; a table of Arrow as arrays of
buffers, which `arrow` reads. Neither library is imported.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.arrays import ArrayNote, array_of
from asyncflow.client.previews.arrow import arrow_column, arrow_table
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pickle_opcodes import Made, Mapped, Named, Node, PickleTree, Several

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.previews.limits import PreviewLimits

_MOST_COLUMNS: Final = 10_000  # whose names are looked at
_CELL: Final = 60  # characters of a cell


def table_preview(tree: PickleTree, limits: PreviewLimits) -> dict[str, Any] | None:
    """The preview of a table; None if the value is none."""
    node = tree.value
    if not (isinstance(node, Made) and isinstance(node.function, Named)):
        return None
    records = array_of(node)
    if records is not None:
        return _records_preview(records, limits)
    name = node.function.full
    if name.startswith("pyarrow."):
        found = arrow_table(node)
        return None if found is None else _shown("pyarrow.Table", found[0], found[1], limits)
    return _pandas_preview(node, node.function.name, limits) if name.startswith("pandas.") else None


def _pandas_preview(node: Made, name: str, limits: PreviewLimits) -> dict[str, Any] | None:
    if name == "DataFrame":
        return _frame_preview(node, limits)
    if name == "Series":
        return _series_preview(node, limits)
    if name == "_new_Index":
        found_index = _vector(node)
        if found_index is not None:
            return _shown("pandas.Index", [found_index.named("")], found_index.length, limits)
    return None


def _records_preview(array: ArrayNote, limits: PreviewLimits) -> dict[str, Any] | None:
    """The preview of a structured array of NumPy; None for any other."""
    if not array.dtype.parts or len(array.shape) != 1:
        return None
    columns = [
        Column(name, dtype.name, array.size, partial(array.field, dtype, begin))
        for name, dtype, begin in array.dtype.parts
    ]
    return _shown("numpy.ndarray", columns, array.size, limits)


def _shown(
    kind: str, columns: Sequence[Column], length: int, limits: PreviewLimits
) -> dict[str, Any]:
    shown = columns[: limits.columns]
    count = min(length, limits.rows)
    cells = [column.texts(count) for column in shown]
    rows = [
        [(cell[row] if row < len(cell) else "…")[:_CELL] for cell in cells] for row in range(count)
    ]
    return {
        "kind": "table",
        "type": kind,
        "columns": [{"name": each.name[:200], "dtype": each.dtype[:100]} for each in shown],
        "rows": rows,
        "length": length,
        "columns_count": len(columns),
    }


# --- pandas -------------------------------------------------------------------------------------


def _frame_preview(node: Made, limits: PreviewLimits) -> dict[str, Any] | None:
    manager = node.state.get("_mgr") if isinstance(node.state, Mapped) else None
    if not isinstance(manager, Made) or len(manager.arguments) != 2:  # noqa: PLR2004 - blocks and axes
        return None
    blocks, axes = manager.arguments
    if not (isinstance(blocks, Several) and isinstance(axes, Several) and len(axes.items) == 2):  # noqa: PLR2004 - columns and rows
        return None
    names, index = (_vector(axis) for axis in axes.items)
    if names is None:
        return None
    texts = names.texts(min(names.length, _MOST_COLUMNS))
    found = {}
    for block in blocks.items:
        for at, column in _columns_of(block):
            if 0 <= at < len(texts):
                found[at] = column.named(_unquoted(texts[at]))
    if not found:
        return None
    columns = [found.get(at) or Column.unknown(_unquoted(text)) for at, text in enumerate(texts)]
    length = index.length if index is not None else max(each.length for each in found.values())
    if index is not None and not index.is_plain:
        columns.insert(0, index.named(""))
    return _shown("pandas.DataFrame", columns, length, limits)


def _series_preview(node: Made, limits: PreviewLimits) -> dict[str, Any] | None:
    manager = node.state.get("_mgr") if isinstance(node.state, Mapped) else None
    name = node.state.get("_name") if isinstance(node.state, Mapped) else None
    if not isinstance(manager, Made) or not isinstance(manager.state, Several):
        return None
    parts = [each for each in manager.state.items if isinstance(each, Several)]
    if len(parts) < 2 or not parts[0].items or not parts[1].items:  # noqa: PLR2004 - axes and blocks
        return None
    index, values = _vector(parts[0].items[0]), _vector(parts[1].items[0])
    if values is None:
        return None
    columns = [values.named(name if isinstance(name, str) else "")]
    if index is not None and not index.is_plain:
        columns.insert(0, index.named(""))
    return _shown("pandas.Series", columns, values.length, limits)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] in "'\"" else text


def _columns_of(block: Node) -> list[tuple[int, Column]]:
    """The columns of a block, each with its place in the frame."""
    if not (isinstance(block, Made) and len(block.arguments) >= 2):  # noqa: PLR2004 - values and places
        return []
    values, placement = block.arguments[:2]
    places = _places(placement)
    array = array_of(values)
    if array is None or len(array.shape) != 2:  # noqa: PLR2004 - columns and rows
        column = _vector(values)
        return [(places[0], column)] if column is not None and places else []
    return [
        (place, _row_of(array, number))
        for number, place in enumerate(places[: array.shape[0]])
        if number < _MOST_COLUMNS
    ]


def _row_of(array: ArrayNote, number: int) -> Column:
    """One column of a block, which is a row of its array."""
    rows, length = array.shape
    begin, step = (number, max(rows, 1)) if array.order == "F" else (number * length, 1)
    if array.objects is not None:
        return Column.of_objects(array.objects[begin : begin + step * length : step])
    return Column("", array.dtype.name, length, lambda count: array.some(begin, step, count))


def _places(node: Node) -> list[int]:
    if isinstance(node, Made) and isinstance(node.function, Named):
        if node.function.full == "builtins.slice" and len(node.arguments) == 3:  # noqa: PLR2004 - from, to, step
            begin, end, step = node.arguments
            if all(type(each) is int for each in (begin, end)) and step in {1, None}:
                return list(range(max(begin, 0), min(end, _MOST_COLUMNS)))
            if all(type(each) is int for each in (begin, end, step)) and step > 0:
                return list(range(max(begin, 0), min(end, _MOST_COLUMNS), step))
        array = array_of(node)
        if array is not None and array.dtype.code in {"i8", "i4"}:
            texts = array.first(min(array.size, _MOST_COLUMNS))
            return [int(each) for each in texts]
    return []


def _vector(node: Node) -> Column | None:
    """A sequence of values in the tree, whatever pandas keeps it in; None if it is not known."""
    array = array_of(node)
    if array is not None:
        if array.objects is not None:
            return Column.of_objects(array.objects)
        return Column("", array.dtype.name, array.size, array.first)
    if not (isinstance(node, Made) and isinstance(node.function, Named)):
        return None
    if node.function.name == "_new_Index" and len(node.arguments) == 2:  # noqa: PLR2004 - class and data
        return _index(*node.arguments)
    if node.function.full.startswith("pyarrow."):
        return arrow_column(node)
    return _extension(node)


def _index(kind: Node, data: Node) -> Column | None:
    if not isinstance(data, Mapped):
        return None
    if isinstance(kind, Named) and kind.name == "RangeIndex":
        begin, end, step = (data.get(name) for name in ("start", "stop", "step"))
        if all(type(each) is int and abs(each) < 1 << 62 for each in (begin, end, step)) and step:
            numbers = range(begin, end, step)
            length = max(len(numbers), 0)
            is_plain = begin == 0 and step == 1
            return Column(
                "", "int64", length, lambda count: list(map(str, numbers[:count])), is_plain
            )
        return None
    return _vector(data.get("data"))


def _extension(node: Made) -> Column | None:
    """An array of an extension type: of texts, of times, of numbers that may be missing."""
    state = node.state
    arguments = node.arguments
    if isinstance(state, Mapped):
        for name in ("_pa_array", "_ndarray", "_data", "_codes"):
            inner = state.get(name)
            if inner is not None:
                return _vector(inner)
    for each in [*(state.items if isinstance(state, Several) else []), *arguments]:
        inner_array = array_of(each)
        if inner_array is not None:
            return _vector(each)
    return None
