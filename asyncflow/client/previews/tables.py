"""Tables of pandas, Polars, Arrow and NumPy in the tree of a pickle: their columns and first rows.

None of these libraries is imported.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.arrays import ArrayNote, array_of
from asyncflow.client.previews.arrow_pickles import arrow_column, arrow_table
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.pandas_tables import pandas_table
from asyncflow.client.previews.pickle_opcodes import Made, Named, PickleTree
from asyncflow.client.previews.polars_tables import polars_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.previews.limits import PreviewLimits

_CELL: Final = 60  # characters of a cell
_MOST_ROWS: Final = 1 << 63


def table_preview(tree: PickleTree, limits: PreviewLimits) -> dict[str, Any] | None:
    """The preview of a table; None if the value is none."""
    node = tree.value
    if not (isinstance(node, Made) and isinstance(node.function, Named)):
        return None
    records = array_of(node, depth=1)
    if records is not None:
        return _records_preview(records, limits)
    name, found = node.function.full, None
    if name.startswith("pyarrow."):
        return _arrow_preview(node, limits)
    if name.startswith("polars."):
        found = polars_table(node, limits)
    elif name.startswith("pandas."):
        found = pandas_table(node, limits)
    if found is None:
        return None
    kind = node.function.name if node.function.name != "_new_Index" else "Index"
    return _shown(f"{name.partition('.')[0]}.{kind}", *found, limits)


def _arrow_preview(node: Made, limits: PreviewLimits) -> dict[str, Any] | None:
    found = arrow_table(node, limits)
    if found is not None:
        return _shown("pyarrow.Table", *found, limits)
    column = arrow_column(node, limits)
    if column is None:
        return None
    kind = (
        "ChunkedArray"
        if isinstance(node.function, Named) and node.function.name == "chunked_array"
        else "Array"
    )
    return _shown(f"pyarrow.{kind}", [column], column.length, limits)


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
    kind: str, columns: Sequence[Column], length: int | None, limits: PreviewLimits
) -> dict[str, Any]:
    """The preview; a length of None is not known, and there are as many rows as can be shown."""
    shown = columns[: limits.columns]
    known = max((each.length for each in shown), default=0) if length is None else length
    if known > _MOST_ROWS:
        raise ValueError("a table cannot have so many rows")
    count = min(known, limits.rows)
    cells = [column.texts(count) for column in shown]
    rows = [[_cut(cell[row]) if row < len(cell) else "…" for cell in cells] for row in range(count)]
    return {
        "kind": "table",
        "type": kind[:200],
        "columns": [{"name": each.name[:200], "dtype": each.dtype[:100]} for each in shown],
        "rows": rows,
        "length": length,
        "columns_count": len(columns),
    }


def _cut(text: str) -> str:
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"
