"""Frames, series and indexes of pandas in the tree of a pickle.

A frame is pickled as blocks, each an array of some columns, and as two indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.client.previews.arrays import ArrayNote, array_of
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pandas_columns import index_columns, vector
from asyncflow.client.previews.pickle_opcodes import Made, Mapped, Named, Node, Several

if TYPE_CHECKING:
    from asyncflow.client.previews.limits import PreviewLimits

_WORK: Final = 3  # for one column, in names that are looked at
_MOST_COLUMNS: Final = 10_000  # whose names are looked at


def pandas_table(node: Made, limits: PreviewLimits) -> tuple[list[Column], int] | None:
    """The columns of a frame, a series or an index, and its length; None if it is none of them."""
    name = node.function.name if isinstance(node.function, Named) else ""
    if name == "DataFrame":
        return _frame(node, limits)
    if name == "Series":
        return _series(node, limits)
    columns = index_columns(node, limits)
    return (columns, columns[0].length) if columns else None


def _frame(node: Made, limits: PreviewLimits) -> tuple[list[Column], int] | None:
    manager = node.state.get("_mgr") if isinstance(node.state, Mapped) else None
    if not isinstance(manager, Made) or len(manager.arguments) != 2:  # noqa: PLR2004 - blocks and axes
        return None
    blocks, axes = manager.arguments
    if not (isinstance(blocks, Several) and isinstance(axes, Several) and len(axes.items) == 2):  # noqa: PLR2004 - columns and rows
        return None
    texts = _names(axes.items[0], limits)
    found = {}
    for block in blocks.items:
        for at, column in _columns_of(block, limits):
            if 0 <= at < len(texts):
                found[at] = column.named(texts[at])
    if not found:
        return None
    columns = [found.get(at) or Column.unknown(text) for at, text in enumerate(texts)]
    index = index_columns(axes.items[1], limits)
    length = index[0].length if index else max(each.length for each in found.values())
    return [*(each for each in index if not each.is_plain), *columns], length


def _names(axis: Node, limits: PreviewLimits) -> list[str]:
    """The names of the columns; of several levels they are joined."""
    levels = index_columns(axis, limits)
    texts = [
        [_unquoted(text) for text in level.texts(min(level.length, _MOST_COLUMNS))]
        for level in levels
    ]
    return [", ".join(parts) for parts in zip(*texts, strict=False)]


def _series(node: Made, limits: PreviewLimits) -> tuple[list[Column], int] | None:
    manager = node.state.get("_mgr") if isinstance(node.state, Mapped) else None
    name = node.state.get("_name") if isinstance(node.state, Mapped) else None
    if not isinstance(manager, Made) or not isinstance(manager.state, Several):
        return None
    parts = [each for each in manager.state.items if isinstance(each, Several)]
    if len(parts) < 2 or not parts[0].items or not parts[1].items:  # noqa: PLR2004 - axes and blocks
        return None
    index, values = index_columns(parts[0].items[0], limits), vector(parts[1].items[0], limits)
    if values is None:
        return None
    column = values.named(name if isinstance(name, str) else "")
    return [*(each for each in index if not each.is_plain), column], values.length


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] in "'\"" else text


def _columns_of(block: Node, limits: PreviewLimits) -> list[tuple[int, Column]]:
    """The columns of a block, each with its place in the frame."""
    if not (isinstance(block, Made) and len(block.arguments) >= 2):  # noqa: PLR2004 - values and places
        return []
    values, placement = block.arguments[:2]
    limits.count()
    places = _places(placement, limits)
    array = array_of(values)
    if array is None or len(array.shape) != 2:  # noqa: PLR2004 - columns and rows
        column = vector(values, limits)
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
        places = range(len(array.objects))[begin : begin + step * length : step]
        return Column.of_objects(array.objects, places)
    return Column("", array.dtype.name, length, lambda count: array.some(begin, step, count))


def _places(node: Node, limits: PreviewLimits) -> list[int]:
    if isinstance(node, Made) and isinstance(node.function, Named):
        if node.function.full == "builtins.slice" and len(node.arguments) == 3:  # noqa: PLR2004 - from, to, step
            begin, end, step = node.arguments
            if all(type(each) is int for each in (begin, end)) and step in {1, None}:
                return _counted(range(max(begin, 0), min(end, _MOST_COLUMNS)), limits)
            if all(type(each) is int for each in (begin, end, step)) and step > 0:
                return _counted(range(max(begin, 0), min(end, _MOST_COLUMNS), step), limits)
        array = array_of(node)
        if array is not None and array.dtype.code in {"i8", "i4"}:
            count = min(array.size, _MOST_COLUMNS)
            limits.count(_WORK * count)
            return [int(each) for each in array.first(count)]
    return []


def _counted(places: range, limits: PreviewLimits) -> list[int]:
    limits.count(_WORK * len(places))
    return list(places)
