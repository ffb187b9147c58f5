"""NumPy arrays and numbers in the tree of a pickle: their shape, type and first values.

NumPy is not imported: a dtype is read from its name, and numbers are unpacked from their bytes.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.moments import duration_text, moment_text
from asyncflow.client.previews.pickle_opcodes import (
    Made,
    Mapped,
    Named,
    Node,
    PickleTree,
    Several,
    bytes_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.stored_bytes import StoredBytes

_FROM_BUFFER: Final = frozenset(
    {"numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"}
)
_RECONSTRUCT: Final = frozenset(
    {"numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct"}
)
_SCALAR: Final = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_FORMS: Final = {
    "b1": "?",
    "i1": "b",
    "u1": "B",
    "i2": "h",
    "u2": "H",
    "i4": "i",
    "u4": "I",
    "i8": "q",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}
_NAMES: Final = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_NOT_A_TIME: Final = -(1 << 63)
_MOST_DIMENSIONS: Final = 64
_MOST_TEXT: Final = 100  # characters of one value
_MOST_FIELDS: Final = 1_000  # of a record
_MOST_FIELD_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class DType:
    """The type of an array's values, as far as it is known."""

    code: str
    """As NumPy writes it: `f8`, `U4`, `M8`, `V20`."""
    order: str = "<"
    unit: str = ""
    """Of times: `ns`."""
    fields: tuple[str, ...] = ()
    parts: tuple[tuple[str, DType, int], ...] = ()
    """Of records: each field with its type and where it begins; empty if one of them is odd."""

    @property
    def name(self) -> str:
        """For people: `float64`, `datetime64[ns]`."""
        kind, size = self.code[:1], self.size
        if self.fields:
            return f"record of {', '.join(self.fields[:20])}"[:300]
        if kind in _NAMES and size:
            return "bool" if kind == "b" else f"{_NAMES[kind]}{8 * size}"
        if kind in "Mm" and size:
            unit = f"[{self.unit}]" if self.unit else ""
            return f"{'datetime64' if kind == 'M' else 'timedelta64'}{unit}"
        return (
            "object"
            if kind == "O"
            else f"{'' if self.order in '=|' else self.order}{self.code}"[:50]
        )

    @property
    def size(self) -> int:
        """The bytes of one value; 0 if that is not known."""
        number = self.code[1:]
        if not (number.isascii() and number.isdecimal() and len(number) < 10):  # noqa: PLR2004 - below 2^31
            return 0
        return int(number) * (4 if self.code[:1] == "U" else 1)

    def texts(self, data: bytes) -> list[str]:
        """The values in these bytes, as texts."""
        if not self.size:
            return []
        count = len(data) // self.size
        kind, order = self.code[:1], ">" if self.order == ">" else "<"
        data = data[: count * self.size]
        if kind in "US":
            return [self._text(data[at : at + self.size]) for at in range(0, len(data), self.size)]
        if kind in "Mm" and self.size == 8:  # noqa: PLR2004 - 64 bits
            return [self._time(each) for each in struct.unpack(f"{order}{count}q", data)]
        if kind == "c" and self.size in {8, 16}:
            half = "f" if self.size == 8 else "d"  # noqa: PLR2004 - two of 32 bits
            values = struct.unpack(f"{order}{2 * count}{half}", data)
            return [repr(complex(*pair)) for pair in zip(values[::2], values[1::2], strict=True)]
        form = _FORMS.get(self.code)
        return (
            [_number(each) for each in struct.unpack(f"{order}{count}{form}", data)] if form else []
        )

    def _text(self, data: bytes) -> str:
        if self.code[:1] == "S":
            return repr(data.rstrip(b"\0")[:_MOST_TEXT])
        coding = "utf-32-be" if self.order == ">" else "utf-32-le"
        return repr(data.decode(coding, "replace").rstrip("\0")[:_MOST_TEXT])

    def _time(self, value: int) -> str:
        if value == _NOT_A_TIME:
            return "NaT"
        if self.code[:1] == "m":
            return duration_text(value, self.unit)
        return moment_text(value, self.unit)


def _number(value: float) -> str:
    return f"{value:.6g}" if type(value) is float else str(value)


@dataclass(frozen=True, slots=True)
class ArrayNote:
    """An array in the tree of a pickle."""

    shape: tuple[int, ...]
    dtype: DType
    order: str
    data: StoredBytes | None
    objects: Sequence[Node] | None = None
    """Of an array of objects: its values."""

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    def first(self, count: int) -> list[str]:
        """Its first values, as they lie in memory, as texts."""
        return self.some(0, 1, count)

    def some(self, begin: int, step: int, count: int) -> list[str]:
        """Every `step`th value as they lie in memory, from `begin` on."""
        size = self.dtype.size
        if self.data is None or not size or count <= 0:
            return []
        if size > _MOST_FIELD_BYTES:
            return self._beginnings(begin, step, min(count, self.size))
        if step == 1:
            return self.dtype.texts(self.data.read(begin * size, count * size))
        data = b"".join(
            self.data.read((begin + number * step) * size, size) for number in range(count)
        )
        return self.dtype.texts(data)

    def _beginnings(self, begin: int, step: int, count: int) -> list[str]:
        """As `some`, for long values: of each only what may be shown is read."""
        size, kind = self.dtype.size, self.dtype.code[:1]
        if self.data is None or kind not in "US":
            return []
        start = replace(self.dtype, code=f"{kind}{_MOST_TEXT}")
        data = (
            self.data.read((begin + number * step) * size, start.size) for number in range(count)
        )
        return start.texts(b"".join(data))

    def field(self, dtype: DType, begin: int, count: int) -> list[str]:
        """The first values of a field of its records, which has this type and begins there."""
        if self.data is None or not 0 < dtype.size <= _MOST_FIELD_BYTES:
            return []
        starts = (number * self.dtype.size + begin for number in range(min(count, self.size)))
        return dtype.texts(b"".join(self.data.read(at, dtype.size) for at in starts))


def array_of(node: Node, depth: int = 0) -> ArrayNote | None:
    """The array that a node makes; None if it makes none. Fields of records are for `depth` 1."""
    if not isinstance(node, Made) or not isinstance(node.function, Named):
        return None
    name = node.function.full
    if name in _FROM_BUFFER and len(node.arguments) == 4:  # noqa: PLR2004 - the buffer, dtype, shape and order
        data, dtype, shape, order = node.arguments
        return _note(_shape_of(shape), dtype_of(dtype, depth), _order_of(order), bytes_of(data))
    if name in _RECONSTRUCT and isinstance(node.state, Several) and len(node.state.items) == 5:  # noqa: PLR2004 - version, shape, dtype, order, bytes
        _, shape, dtype, is_fortran, content = node.state.items
        objects = content.items if isinstance(content, Several) else None
        order = "F" if is_fortran is True else "C"
        return _note(_shape_of(shape), dtype_of(dtype, depth), order, bytes_of(content), objects)
    return None


def _note(
    shape: tuple[int, ...] | None,
    dtype: DType | None,
    order: str,
    data: StoredBytes | None,
    objects: Sequence[Node] | None = None,
) -> ArrayNote | None:
    if shape is None or dtype is None or (data is None and objects is None):
        return None
    return ArrayNote(shape, dtype, order, data, objects)


def _order_of(node: Node) -> str:
    return node if isinstance(node, str) else "C"


def _shape_of(node: Node) -> tuple[int, ...] | None:
    if not isinstance(node, Several) or len(node.items) > _MOST_DIMENSIONS:
        return None
    if not all(type(each) is int and 0 <= each < 1 << 62 for each in node.items):
        return None
    return tuple(node.items)


def dtype_of(node: Node, depth: int = 1) -> DType | None:
    """The dtype that a node makes; None if it makes none. Fields have no fields of their own."""
    if not (isinstance(node, Made) and isinstance(node.function, Named)):
        return None
    code = node.arguments[0] if node.arguments else None
    if node.function.full not in {"numpy.dtype", "numpy._core._multiarray_umath.dtype"} or not (
        isinstance(code, str) and 0 < len(code) < 30  # noqa: PLR2004 - as long as a code may be
    ):
        return None
    state = node.state.items if isinstance(node.state, Several) else []
    order = state[1] if len(state) > 1 and isinstance(state[1], str) else "<"
    names = state[3] if len(state) > 3 and depth else None  # noqa: PLR2004 - the names of fields come fourth
    fields = tuple(names.items[: _MOST_FIELDS + 1]) if isinstance(names, Several) else ()
    unit = state[8] if len(state) > 8 else None  # noqa: PLR2004 - the unit of a time comes ninth
    names_of = tuple(each for each in fields if isinstance(each, str))
    told = state[4] if len(state) > 4 else None  # noqa: PLR2004 - what the fields are comes fifth
    parts = _parts_of(told, names_of, code) if depth else ()
    return DType(code, order[:1], _unit_of(unit), names_of, parts)


def _parts_of(told: Node, names: Sequence[str], code: str) -> tuple[tuple[str, DType, int], ...]:
    """The fields of records: `{name: (dtype, offset)}`; none unless all lie within a record."""
    if not isinstance(told, Mapped) or len(names) > _MOST_FIELDS:
        return ()
    parts, by_name = [], {key: value for key, value in told.pairs if isinstance(key, str)}
    for name in names:
        found = by_name.get(name)
        items = found.items if isinstance(found, Several) else []
        dtype = dtype_of(items[0], depth=0) if items else None
        begin = items[1] if len(items) > 1 else None
        if dtype is None or type(begin) is not int or begin < 0:
            return ()
        if begin + dtype.size > DType(code).size:
            return ()
        parts.append((name, dtype, begin))
    return tuple(parts)


def _unit_of(node: Node) -> str:
    """The unit of a type of times, from its metadata: `({}, (b'ns', 1, 1, 1))`."""
    if isinstance(node, Several) and len(node.items) > 1 and isinstance(node.items[1], Several):
        found = node.items[1].items[:1]
        if found and isinstance(found[0], bytes | str):
            text = found[0].decode("ascii", "replace") if isinstance(found[0], bytes) else found[0]
            return text[:10]
    return ""


def array_preview(tree: PickleTree, limits: PreviewLimits) -> dict[str, Any] | None:
    """The preview of an array or of a number of NumPy; None if the value is neither."""
    node = tree.value
    if (
        isinstance(node, Made)
        and isinstance(node.function, Named)
        and node.function.full in _SCALAR
    ):
        return _scalar_preview(node)
    array = array_of(node, depth=1)
    if array is None:
        return None
    return {
        "kind": "array",
        "type": "numpy.ndarray",
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "text": _values_text(array, limits),
    }


def _scalar_preview(node: Made) -> dict[str, Any] | None:
    dtype = dtype_of(node.arguments[0]) if node.arguments else None
    data = node.arguments[1] if len(node.arguments) > 1 else None
    texts = dtype.texts(data) if dtype is not None and isinstance(data, bytes) else []
    if dtype is None or not texts:
        return None
    name = f"numpy.{dtype.name}"
    return {"kind": "value", "type": name, "text": texts[0], "length": None, "cut": False}


def _values_text(array: ArrayNote, limits: PreviewLimits) -> str:
    if array.objects is not None:
        from asyncflow.client.previews.value_text import text_of

        return text_of(Several("list", list(array.objects)), limits)[0]
    count = min(array.size, limits.items, limits.characters // 4)
    values = array.first(count)
    more = ", …" if array.size > len(values) and values else ""
    return f"[{', '.join(values)}{more}]"[: limits.characters] if values or not array.size else ""
