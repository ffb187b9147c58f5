"""Indexes of pandas, and arrays of its own types, in the tree of a pickle."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncflow.client.previews.arrays import array_of
from asyncflow.client.previews.arrow_pickles import arrow_column
from asyncflow.client.previews.columns import Column
from asyncflow.client.previews.moments import moment_text
from asyncflow.client.previews.pickle_opcodes import Made, Mapped, Named, Node, Several
from asyncflow.client.previews.value_text import text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.previews.limits import PreviewLimits

__all__ = ["index_columns", "vector"]

_MOST_LEVELS: Final = 100
_MOST_CATEGORIES: Final = 1_000  # that are looked at
_MOST_PARTS: Final = 20  # of an array, such as its values and their type
_WORK: Final = 10  # for one vector, in names that are looked at
_MISSING: Final = "NA"
_MONTHS: Final = 12


def index_columns(node: Node, limits: PreviewLimits) -> list[Column]:
    """The labels of an index, a column for each of its levels; empty if it is not known."""
    if not _is_index(node):
        return []
    kind, data = node.arguments[:2]
    if not isinstance(data, Mapped):
        return []
    limits.count(len(data.pairs))
    if isinstance(kind, Named) and kind.name == "MultiIndex":
        return _levels(data, limits)
    column = _range(data) if isinstance(kind, Named) and kind.name == "RangeIndex" else None
    column = column or vector(data.get("data"), limits)
    name = data.get("name")
    return [] if column is None else [column.named(name if isinstance(name, str) else "")]


def _is_index(node: Node) -> bool:
    return (
        isinstance(node, Made)
        and isinstance(node.function, Named)
        and node.function.module.startswith("pandas.")
        and node.function.name.startswith("_new_")
        and len(node.arguments) >= 2  # noqa: PLR2004 - class and data
    )


def _range(data: Mapped) -> Column | None:
    begin, end, step = (data.get(name) for name in ("start", "stop", "step"))
    if (
        not all(type(each) is int and abs(each) < 1 << 62 for each in (begin, end, step))
        or not step
    ):
        return None
    numbers = range(begin, end, step)
    is_plain = begin == 0 and step == 1
    return Column(
        "", "int64", len(numbers), lambda count: list(map(str, numbers[:count])), is_plain
    )


def _levels(data: Mapped, limits: PreviewLimits) -> list[Column]:
    levels, codes, names = (data.get(name) for name in ("levels", "codes", "names"))
    if not (isinstance(levels, Several) and isinstance(codes, Several)):
        return []
    found = []
    for number, (level, places) in enumerate(zip(levels.items, codes.items, strict=False)):
        column = _coded(vector(places, limits), vector(level, limits), "")
        if column is None or number >= _MOST_LEVELS:
            return []
        named = names.items[number : number + 1] if isinstance(names, Several) else []
        found.append(column.named(named[0] if named and isinstance(named[0], str) else ""))
    return found


def vector(node: Node, limits: PreviewLimits) -> Column | None:
    """A sequence of values, whatever pandas keeps it in; None if it is not known.

    Raises:
        ValueError: It is made of too many others, now or when their texts are asked for.
    """
    limits.count(_WORK)
    column = _vector(node, limits)
    return None if column is None else replace(column, texts=partial(_texts, column, limits))


def _texts(column: Column, limits: PreviewLimits, count: int) -> list[str]:
    limits.count(count)
    return column.texts(count)


def _vector(node: Node, limits: PreviewLimits) -> Column | None:
    array = array_of(node)
    if array is not None:
        if array.objects is not None:
            return Column.of_objects(array.objects)
        return Column("", array.dtype.name, array.size, array.first)
    if _is_index(node):
        columns = index_columns(node, limits)
        return columns[0] if len(columns) == 1 else None
    if not (isinstance(node, Made) and isinstance(node.function, Named)):
        return None
    if node.function.full.startswith("pyarrow."):
        return arrow_column(node, limits)
    return _extension(node, limits)


def _extension(node: Made, limits: PreviewLimits) -> Column | None:
    """An array of an extension type: of texts, of times, of numbers that may be missing."""
    state, first = node.state, node.arguments[0] if node.arguments else None
    given = state.items if isinstance(state, Several) else []
    if isinstance(first, Named) and given:  # an array of NumPy and what it stands for
        backed = _backed(first.name, given, limits)
        if backed is not None:
            return backed
    if len(given) == 1 and isinstance(given[0], Mapped):
        state = given[0]
    if isinstance(state, Mapped):
        return _of_state(state, limits)
    parts = [*given[:_MOST_PARTS], *node.arguments[:_MOST_PARTS]]
    arrays = [each for each in parts if array_of(each) is not None]
    return vector(arrays[0], limits) if arrays else None


def _of_state(state: Mapped, limits: PreviewLimits) -> Column | None:
    limits.count(len(state.pairs))
    if state.get("_mask") is not None:
        return _masked(vector(state.get("_data"), limits), vector(state.get("_mask"), limits))
    if state.get("_left") is not None:
        left, right = (vector(state.get(name), limits) for name in ("_left", "_right"))
        return _intervals(left, right, state.get("_dtype"))
    if state.get("_sparse_index") is not None:
        return _sparse(state, limits)
    for name in ("_pa_array", "_ndarray", "_data"):
        inner = state.get(name)
        if inner is not None:
            return vector(inner, limits)
    return None


def _masked(values: Column | None, mask: Column | None) -> Column | None:
    if values is None or mask is None:
        return None
    name = values.dtype.capitalize().replace("Uint", "UInt").replace("Bool", "boolean")

    def texts(count: int) -> list[str]:
        pairs = zip(values.texts(count), mask.texts(count), strict=False)
        return [_MISSING if gone == "True" else text for text, gone in pairs]

    return Column("", name, values.length, texts)


def _coded(codes: Column | None, values: Column | None, dtype: str) -> Column | None:
    """Values that stand as their places in a list of all there are; -1 if one is missing."""
    if codes is None or values is None:
        return None

    def texts(count: int) -> list[str]:
        places = [int(each) if each.lstrip("-").isdecimal() else -1 for each in codes.texts(count)]
        known = values.texts(min(max(places, default=-1) + 1, values.length, _MOST_CATEGORIES))
        return [
            _MISSING if place < 0 else known[place] if place < len(known) else "…"
            for place in places
        ]

    return Column("", dtype or values.dtype, codes.length, texts)


def _intervals(left: Column | None, right: Column | None, dtype: Node) -> Column | None:
    if left is None or right is None:
        return None
    state = dtype.state if isinstance(dtype, Made) else None
    closed = state.get("closed") if isinstance(state, Mapped) else None
    opening = "[" if closed in {"left", "both"} else "("
    closing = "]" if closed in {"right", "both"} else ")"

    def texts(count: int) -> list[str]:
        pairs = zip(left.texts(count), right.texts(count), strict=False)
        return [f"{opening}{begin}, {end}{closing}" for begin, end in pairs]

    return Column("", f"interval[{left.dtype}]", left.length, texts)


def _sparse(state: Mapped, limits: PreviewLimits) -> Column | None:
    """Values most of which are the same one, and of which only the others are stored."""
    index, dtype = state.get("_sparse_index"), state.get("_dtype")
    values = vector(state.get("_sparse_values"), limits)
    if values is None or not isinstance(index, Made) or len(index.arguments) != 2:  # noqa: PLR2004 - length and places
        return None
    length, places = index.arguments[0], vector(index.arguments[1], limits)
    of_dtype = dtype.state if isinstance(dtype, Made) else None
    if type(length) is not int or places is None or not isinstance(of_dtype, Mapped):
        return None
    fill = text_of(of_dtype.get("_fill_value"), limits)[0]

    def texts(count: int) -> list[str]:
        stored = dict(zip(places.texts(count), values.texts(count), strict=False))
        return [stored.get(str(row), fill) for row in range(min(count, length))]

    return Column("", f"Sparse[{values.dtype}]", max(length, 0), texts)


# --- an array of NumPy that stands for something else -------------------------------------------


def _backed(name: str, given: Sequence[Node], limits: PreviewLimits) -> Column | None:
    """The values of a class that has a dtype and an array."""
    given = given[:_MOST_PARTS]
    arrays = [each for each in given if array_of(each) is not None]
    dtypes = [each for each in given if isinstance(each, Made) and array_of(each) is None]
    inner = vector(arrays[0], limits) if arrays else None
    if inner is None or not dtypes:
        return inner
    dtype = dtypes[0]
    if name == "Categorical" and isinstance(dtype.state, Mapped):
        return _coded(inner, vector(dtype.state.get("categories"), limits), "category")
    if name == "PeriodArray" and dtype.arguments and isinstance(dtype.arguments[0], str):
        return _periods(inner, dtype.arguments[0])
    if isinstance(dtype.function, Named) and dtype.function.name == "DatetimeTZDtype":
        told = dtype.state.get("unit") if isinstance(dtype.state, Mapped) else None
        unit = told if isinstance(told, str) else "ns"
        return Column("", f"datetime64[{unit}, with zone]", inner.length, partial(_in_utc, inner))
    return inner


def _in_utc(moments: Column, count: int) -> list[str]:
    return [text if text == "NaT" else f"{text}+00:00" for text in moments.texts(count)]


def _periods(ordinals: Column, dtype: str) -> Column:
    unit = dtype.removeprefix("period[").removesuffix("]")

    def texts(count: int) -> list[str]:
        return [_period(int(each), unit) for each in ordinals.texts(count)]

    return Column("", dtype, ordinals.length, texts)


def _period(ordinal: int, unit: str) -> str:
    if ordinal == -(1 << 63):
        return "NaT"
    if unit == "M":
        return f"{1970 + ordinal // _MONTHS}-{ordinal % _MONTHS + 1:02}"
    if unit.startswith(("Y", "A")):
        return str(1970 + ordinal)
    if unit.startswith("Q-DEC") or unit == "Q":
        return f"{1970 + ordinal // 4}Q{ordinal % 4 + 1}"
    return moment_text(ordinal, "m" if unit == "min" else unit)
