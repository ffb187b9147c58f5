"""Values of Arrow's arrays as texts, read from the buffers that Arrow's format describes.

Whatever the buffers, offsets and lengths say, a few values are looked at, and of each a few bytes.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Self

from asyncflow.client.previews.moments import (
    date_text,
    duration_text,
    moment_text,
    time_of_day_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.stored_bytes import StoredBytes

__all__ = ["UNKNOWN_TEXT", "ArrowArray", "ArrowType"]

UNKNOWN_TEXT: Final = "…"
"""In place of a value that cannot be read."""

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
}
_TIME_FORMS: Final = {
    "date32": "i",
    "date64": "q",
    "time32": "i",
    "time64": "q",
    "timestamp": "q",
    "duration": "q",
}
_WIDE_INTS: Final = {"int128": True, "uint128": False}
_TEXT_OFFSETS: Final = {"string": "i", "large_string": "q", "binary": "i", "large_binary": "q"}
_LIST_OFFSETS: Final = {"list": "i", "map": "i", "large_list": "q"}
_VIEW_OFFSETS: Final = {"list_view": "i", "large_list_view": "q"}
_VIEW_BYTES: Final = 16
_INLINE_BYTES: Final = 12  # of a view: shorter values are in it
_MOST_TEXT: Final = 100  # bytes of one value
_MOST_ITEMS: Final = 5  # of one value
_MOST_DEPTH: Final = 3  # of values within values
_MOST_RUNS: Final = 10_000
_MOST_SCALE: Final = 100
_DECIMAL_SIZES: Final = frozenset({4, 8, 16, 32})


@dataclass(frozen=True, slots=True)
class ArrowType:
    """The type of an array's values."""

    kind: str
    """As Arrow names it, without parameters: `int64`, `timestamp`, `list`."""
    unit: str = ""
    """Of times: `s`, `ms`, `us` or `ns`."""
    zone: str = ""
    size: int = 0
    """Bytes of a value of a fixed size; items of a `fixed_size_list`."""
    precision: int = 0
    scale: int = 0
    fields: tuple[tuple[str, ArrowType], ...] = ()
    """Names and types of what it is made of; a dictionary's are those of indices and values."""
    type_ids: tuple[int, ...] = ()
    """Of a union: which number stands for which field."""

    @property
    def name(self) -> str:
        """For people, as Arrow writes it: `timestamp[us, tz=UTC]`, `list<int64>`."""
        inner = [each.name for _, each in self.fields[: _MOST_ITEMS + 1]]
        if self.kind == "dictionary" and len(inner) > 1:
            return f"dictionary<{inner[1]}>"
        if self.kind.startswith("decimal"):
            return f"{self.kind}({self.precision}, {self.scale})"
        if inner:
            shown = [*inner[:_MOST_ITEMS], UNKNOWN_TEXT] if len(inner) > _MOST_ITEMS else inner
            size = f"[{self.size}]" if self.kind == "fixed_size_list" else ""
            return f"{self.kind}<{', '.join(shown)}>{size}"[:100]
        if self.kind == "fixed_size_binary":
            return f"fixed_size_binary[{self.size}]"
        zone = f", tz={self.zone[:50]}" if self.zone else ""
        return f"{self.kind}[{self.unit}{zone}]" if self.unit else self.kind[:60]


@dataclass(frozen=True, slots=True)
class ArrowArray:
    """An array of which some values can be read.

    What it says of itself need not be true: a value that does not lie in its buffers is left out.
    """

    type: ArrowType
    length: int
    offset: int
    """Where it begins in its buffers, in values."""
    validity: StoredBytes | None
    """A bit for each value, 0 if there is none; None if all are there."""
    buffers: Sequence[StoredBytes | None]
    children: Sequence[ArrowArray | None]
    dictionary: ArrowArray | None
    limits: PreviewLimits

    def of_type(self, kind: ArrowType) -> Self:
        """The same buffers, of another type."""
        return replace(self, type=kind)

    def texts(self, begin: int, count: int, depth: int = 0) -> list[str]:
        """Some of its values as texts; fewer if the others cannot be read."""
        count = min(count, self.length - begin)
        if begin < 0 or self.offset < 0 or count <= 0:
            return []
        if depth > _MOST_DEPTH or self.limits.is_over:
            return [UNKNOWN_TEXT] * min(count, _MOST_ITEMS)
        at = self.offset + begin
        return [
            "null" if gone else text
            for gone, text in zip(
                self._missing(at, count), self._values(at, count, depth), strict=False
            )
        ]

    def _missing(self, at: int, count: int) -> list[bool]:
        if self.validity is None:
            return [False] * count
        return [bit == 0 for bit in _bits(self.validity, at, count)]

    def _values(self, at: int, count: int, depth: int) -> list[str]:
        """The values from a place in the buffers on, as if all were there."""
        kind = self.type.kind
        read = _OTHERS.get(kind)
        if read is not None:
            return read(self, at, count, depth)
        if kind in _FORMS:
            return [_number(each) for each in self._numbers(0, _FORMS[kind], at, count)]
        if kind in _TIME_FORMS:
            moments = self._whole_numbers(0, _TIME_FORMS[kind], at, count)
            return [_TIMES[kind](each, self.type) for each in moments]
        if kind in _TEXT_OFFSETS:
            return self._texts(_TEXT_OFFSETS[kind], at, count)
        return self._lists(self._ranges(kind, at, count), depth)

    def _ranges(self, kind: str, at: int, count: int) -> list[tuple[int, int]]:
        """Where each list begins in the values, and how many it has."""
        if kind in _LIST_OFFSETS:
            ends = self._whole_numbers(0, _LIST_OFFSETS[kind], at, count + 1)
            return [(begin, end - begin) for begin, end in pairwise(ends)]
        form = _VIEW_OFFSETS.get(kind)
        if form is None:
            return []
        begins, sizes = (self._whole_numbers(which, form, at, count) for which in (0, 1))
        return list(zip(begins, sizes, strict=False))

    def _buffer(self, which: int) -> StoredBytes | None:
        return self.buffers[which] if which < len(self.buffers) else None

    def _numbers(self, which: int, form: str, at: int, count: int) -> list[int | float]:
        data, size = self._buffer(which), struct.calcsize(f"<{form}")
        if data is None:
            return []
        raw = data.read(at * size, count * size)
        return [value for (value,) in struct.iter_unpack(f"<{form}", _whole(raw, size))]

    def _whole_numbers(self, which: int, form: str, at: int, count: int) -> list[int]:
        return [int(each) for each in self._numbers(which, form, at, count)]

    def _texts(self, form: str, at: int, count: int) -> list[str]:
        data = self._buffer(1)
        if data is None:
            return []
        is_text = "string" in self.type.kind
        return [
            _piece(data.read(begin, min(end - begin, _MOST_TEXT)), is_text=is_text)
            for begin, end in pairwise(self._whole_numbers(0, form, at, count + 1))
        ]

    def _lists(self, ranges: Sequence[tuple[int, int]], depth: int) -> list[str]:
        child = self.children[0] if self.children else None
        if child is None:
            return []
        if self.type.kind == "map":
            return [_pairs(child, begin, size, depth) for begin, size in ranges]
        return [_list(child, begin, size, depth) for begin, size in ranges]


def _whole(raw: bytes, size: int) -> bytes:
    return raw[: len(raw) // size * size]


def _bits(data: StoredBytes, at: int, count: int) -> list[int]:
    raw = data.read(at // 8, (at % 8 + count + 7) // 8)
    places = range(at % 8, min(at % 8 + count, 8 * len(raw)))
    return [raw[place // 8] >> place % 8 & 1 for place in places]


def _number(value: float) -> str:
    return f"{value:.6g}" if type(value) is float else str(value)


def _piece(data: bytes, *, is_text: bool) -> str:
    return repr(data.decode("utf-8", "replace") if is_text else data)


def _list(child: ArrowArray, begin: int, size: int, depth: int) -> str:
    return _enclosed("[]", child.texts(begin, min(size, _MOST_ITEMS), depth + 1), size)


def _pairs(child: ArrowArray, begin: int, size: int, depth: int) -> str:
    """A value of a map: `{'a': 1}`."""
    count, at = min(size, _MOST_ITEMS), child.offset + begin
    if begin < 0 or child.offset < 0 or len(child.children) != 2:  # noqa: PLR2004 - keys and values
        return UNKNOWN_TEXT
    keys, values = (
        [] if each is None else each.texts(at, count, depth + 1) for each in child.children
    )
    shown = [f"{key}: {value}" for key, value in zip(keys, values, strict=False)]
    return _enclosed("{}", shown, size)


def _enclosed(marks: str, shown: Sequence[str], count: int) -> str:
    parts = [*shown, UNKNOWN_TEXT] if count > len(shown) else shown
    return f"{marks[0]}{', '.join(parts)}{marks[1]}"


# --- times --------------------------------------------------------------------------------------


_TIMES: Final[dict[str, Callable[[int, ArrowType], str]]] = {
    "date32": lambda value, _: date_text(value),
    "date64": lambda value, _: moment_text(value, "ms"),
    "time32": lambda value, kind: time_of_day_text(value, kind.unit),
    "time64": lambda value, kind: time_of_day_text(value, kind.unit),
    "timestamp": lambda value, kind: moment_text(value, kind.unit, has_zone=bool(kind.zone)),
    "duration": lambda value, kind: duration_text(value, kind.unit),
}


# --- other kinds --------------------------------------------------------------------------------


def _nulls(_array: ArrowArray, _at: int, count: int, _depth: int) -> list[str]:
    return ["null"] * count


def _booleans(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    data = array.buffers[0] if array.buffers else None
    return [] if data is None else [str(bool(bit)) for bit in _bits(data, at, count)]


def _pieces(array: ArrowArray, at: int, count: int, size: int, most: int) -> list[bytes]:
    """Values of a fixed size, of each so many bytes at most."""
    data = array.buffers[0] if array.buffers else None
    if data is None or size <= 0:
        return []
    found = [data.read((at + number) * size, min(size, most)) for number in range(count)]
    return [each for each in found if len(each) == min(size, most)]


def _views(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    """Texts or bytes of which the short ones are in the view itself."""
    views, found = array.buffers[0] if array.buffers else None, list[str]()
    raw = b"" if views is None else views.read(at * _VIEW_BYTES, count * _VIEW_BYTES)
    is_text = array.type.kind == "string_view"
    for length, which, begin in struct.iter_unpack("<i4xii", _whole(raw, _VIEW_BYTES)):
        if length <= _INLINE_BYTES:
            place = len(found) * _VIEW_BYTES + 4
            piece: bytes | None = raw[place : place + max(length, 0)]
        else:
            data = array.buffers[1 + which] if 0 <= which < len(array.buffers) - 1 else None
            piece = None if data is None else data.read(begin, min(length, _MOST_TEXT))
        found.append(UNKNOWN_TEXT if piece is None else _piece(piece, is_text=is_text))
    return found


def _fixed_bytes(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    return [repr(each) for each in _pieces(array, at, count, array.type.size, _MOST_TEXT)]


def _decimals(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    size = array.type.size
    if size not in _DECIMAL_SIZES:
        return []
    found = _pieces(array, at, count, size, size)
    return [_decimal(int.from_bytes(each, "little", signed=True), array.type) for each in found]


def _decimal(value: int, kind: ArrowType) -> str:
    if not 0 <= kind.scale <= _MOST_SCALE:
        return f"{value}E{-kind.scale}"
    digits = tuple(int(each) for each in str(abs(value)))
    return format(Decimal((int(value < 0), digits, -kind.scale)), "f")


def _wide_ints(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    is_signed = _WIDE_INTS[array.type.kind]
    found = _pieces(array, at, count, 16, 16)
    return [str(int.from_bytes(each, "little", signed=is_signed)) for each in found]


def _fixed_lists(array: ArrowArray, at: int, count: int, depth: int) -> list[str]:
    child, size = array.children[0] if array.children else None, array.type.size
    if child is None or size < 0:
        return []
    return [_list(child, (at + number) * size, size, depth) for number in range(count)]


def _structs(array: ArrowArray, at: int, count: int, depth: int) -> list[str]:
    names = [name for name, _ in array.type.fields]
    shown = []
    for name, child in list(zip(names, array.children, strict=False))[:_MOST_ITEMS]:
        texts = [] if child is None else child.texts(at, count, depth + 1)
        shown.append([f"{name[:_MOST_TEXT]!r}: {text}" for text in _filled(texts, count)])
    return [_enclosed("{}", [each[row] for each in shown], len(names)) for row in range(count)]


def _filled(texts: list[str], count: int) -> list[str]:
    return texts + [UNKNOWN_TEXT] * (count - len(texts))


def _dictionary_values(array: ArrowArray, at: int, count: int, depth: int) -> list[str]:
    if not array.type.fields or array.dictionary is None:
        return []
    form = _FORMS.get(array.type.fields[0][1].kind)
    if form is None:
        return []
    data, size = array.buffers[0] if array.buffers else None, struct.calcsize(f"<{form}")
    raw = b"" if data is None else data.read(at * size, count * size)
    places = [int(place) for (place,) in struct.iter_unpack(f"<{form}", _whole(raw, size))]
    return [_only(array.dictionary.texts(place, 1, depth)) for place in places]


def _only(texts: Sequence[str]) -> str:
    return texts[0] if texts else UNKNOWN_TEXT


def _runs(array: ArrowArray, at: int, count: int, depth: int) -> list[str]:
    if len(array.children) != 2:  # noqa: PLR2004 - where each run ends, and its value
        return []
    ends, values = array.children
    form = _FORMS.get(ends.type.kind) if ends is not None else None
    if ends is None or values is None or form is None or not ends.buffers:
        return []
    data, size = ends.buffers[0], struct.calcsize(f"<{form}")
    if data is None or ends.offset < 0:
        return []
    raw = data.read(ends.offset * size, min(ends.length, _MOST_RUNS) * size)
    places = [end for (end,) in struct.iter_unpack(f"<{form}", _whole(raw, size))]
    runs = (bisect_right(places, at + number) for number in range(count))
    return [_only(values.texts(run, 1, depth)) for run in runs]


def _unions(array: ArrowArray, at: int, count: int, depth: int) -> list[str]:
    kinds = array.buffers[0] if array.buffers else None
    if kinds is None:
        return []
    numbers = [kind for (kind,) in struct.iter_unpack("<b", kinds.read(at, count))]
    if array.type.kind == "sparse_union":
        places = list(range(at, at + count))
    else:
        offsets = array.buffers[1] if len(array.buffers) > 1 else None
        raw = b"" if offsets is None else offsets.read(4 * at, 4 * count)
        places = [place for (place,) in struct.iter_unpack("<i", _whole(raw, 4))]
    return [
        _of_union(array, number, place, depth)
        for number, place in zip(numbers, places, strict=False)
    ]


def _of_union(array: ArrowArray, number: int, place: int, depth: int) -> str:
    if number not in array.type.type_ids:
        return UNKNOWN_TEXT
    which = array.type.type_ids.index(number)
    child = array.children[which] if which < len(array.children) else None
    return UNKNOWN_TEXT if child is None else _only(child.texts(place, 1, depth + 1))


def _intervals(array: ArrowArray, at: int, count: int, _depth: int) -> list[str]:
    found = _pieces(array, at, count, 16, 16)
    parts = (struct.unpack("<iiq", each) for each in found)
    return [f"{months} months, {days} days, {rest} ns" for months, days, rest in parts]


_OTHERS: Final[dict[str, Callable[[ArrowArray, int, int, int], list[str]]]] = {
    "null": _nulls,
    "bool": _booleans,
    "string_view": _views,
    "binary_view": _views,
    "fixed_size_binary": _fixed_bytes,
    "decimal32": _decimals,
    "decimal64": _decimals,
    "decimal128": _decimals,
    "decimal256": _decimals,
    "int128": _wide_ints,
    "uint128": _wide_ints,
    "fixed_size_list": _fixed_lists,
    "struct": _structs,
    "dictionary": _dictionary_values,
    "run_end_encoded": _runs,
    "sparse_union": _unions,
    "dense_union": _unions,
    "month_day_nano_interval": _intervals,
}
