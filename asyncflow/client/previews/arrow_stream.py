"""Arrow's stream format: a schema, dictionaries and batches of rows, each a message with a body.

Of a message only what describes it is read, and its body where values are shown. What messages say
of lengths and places need not be true. Compressed buffers are not opened, so they cannot grow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from asyncflow.client.previews.arrow_values import ArrowArray, ArrowType
from asyncflow.client.previews.flatbuffers import FlatTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.stored_bytes import StoredBytes

__all__ = ["StreamTable", "read_stream"]

_CONTINUES: Final = 0xFFFFFFFF
_SCHEMA, _DICTIONARY, _ROWS = 1, 2, 3
_MOST_MESSAGES: Final = 10_000
_MOST_FIELDS: Final = 10_000
_MOST_DEPTH: Final = 20
_MOST_METADATA: Final = 20  # pairs of a field that are looked at
_MOST_KINDS: Final = 128  # of a union: their numbers are below that
_UNITS: Final = ("s", "ms", "us", "ns")
_FLOATS: Final = ("halffloat", "float", "double")
_IN_FIXED_FORM: Final = {
    1: "null",
    4: "binary",
    5: "string",
    6: "bool",
    12: "list",
    13: "struct",
    17: "map",
    19: "large_binary",
    20: "large_string",
    21: "large_list",
    22: "run_end_encoded",
    23: "binary_view",
    24: "string_view",
    25: "list_view",
    26: "large_list_view",
}
"""The kinds of types that have no parameters but their fields, by their number in a schema."""
_WITHOUT_BUFFERS: Final = frozenset({"null", "run_end_encoded"})
_WITHOUT_VALIDITY: Final = frozenset({"sparse_union", "dense_union"})
_ONLY_VALIDITY: Final = frozenset({"struct", "fixed_size_list"})
_VIEWS: Final = frozenset({"string_view", "binary_view"})
_TWO_BUFFERS: Final = frozenset(
    {"string", "binary", "large_string", "large_binary", "list_view", "large_list_view"}
    | {"dense_union"}
)
_MONTHS_AND_REST: Final = 2  # the unit of intervals of months, days and nanoseconds
_IS_RAW: Final = -1  # the length of a buffer that is not compressed among some that are


@dataclass(frozen=True, slots=True)
class _Field:
    """A column, or a part of one."""

    name: str
    type: ArrowType
    fields: tuple[_Field, ...]
    dictionary: int | None = None
    """Which dictionary has its values."""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamColumn:
    """A column of a stream."""

    name: str
    type: ArrowType
    metadata: dict[str, str]
    chunks: Sequence[ArrowArray]
    is_whole: bool
    """Whether each batch has it in a form that is known here."""


@dataclass(frozen=True, slots=True)
class StreamTable:
    """What a stream holds."""

    columns: Sequence[StreamColumn]
    length: int | None
    """How many rows; None if there are more batches than were looked at."""


def read_stream(stored: StoredBytes, limits: PreviewLimits) -> StreamTable:
    """The table that a stream holds.

    Raises:
        ValueError: These are not the bytes of a stream.
    """
    fields: tuple[_Field, ...] | None = None
    of_dictionaries: dict[int, _Field] = {}
    dictionaries: dict[int, ArrowArray | None] = {}
    chunks: list[list[ArrowArray | None]] = []
    reader = _Messages(stored, limits)
    length = 0
    for kind, header, body in reader:
        if kind == _SCHEMA and fields is None:
            fields = _Schema(header).fields
            of_dictionaries = dict(_with_dictionaries(fields))
        elif kind == _DICTIONARY:
            number, content = header.number(0, "q"), header.table(1)
            owner, is_more = of_dictionaries.get(number), header.number(2, "B")
            if owner is not None and content is not None and not is_more:
                plain = _Field("", owner.type.fields[1][1], owner.fields)
                dictionaries[number] = _Batch(content, body, dictionaries, limits).array(plain)
        elif kind == _ROWS and fields is not None:
            length += max(header.number(0, "q"), 0)
            if len(chunks) <= limits.rows:
                batch = _Batch(header, body, dictionaries, limits)
                chunks.append([batch.array(each) for each in fields])
    if fields is None:
        raise ValueError("a stream of Arrow has no schema")
    return StreamTable(
        [_column(each, [chunk[at] for chunk in chunks]) for at, each in enumerate(fields)],
        length if reader.is_at_end else None,
    )


def _column(of: _Field, chunks: Sequence[ArrowArray | None]) -> StreamColumn:
    known = [each for each in chunks if each is not None]
    return StreamColumn(of.name, of.type, of.metadata, known, len(known) == len(chunks))


class _Messages:
    """The messages of a stream, in their order: kind, header and body of each."""

    def __init__(self, stored: StoredBytes, limits: PreviewLimits) -> None:
        self._stored, self._limits, self._room = stored, limits, limits.bytes_read
        self.is_at_end = False

    def __iter__(self) -> Iterator[tuple[int, FlatTable, StoredBytes]]:
        at = 0
        for number in range(_MOST_MESSAGES):
            head = self._stored.read(at, 8)
            first, second = struct.unpack("<II", head.ljust(8, b"\0"))
            begin, size = (at + 8, second) if first == _CONTINUES else (at + 4, first)
            if not size:
                self.is_at_end = True
                return
            self._room -= size
            if self._room < 0 or (number and self._limits.is_over):
                return
            message = FlatTable.root(self._stored.read(begin, size))
            header, length = message.table(2), message.number(3, "q")
            if header is None or length < 0:
                raise ValueError("a message of Arrow has no header, or a length below zero")
            yield message.number(1, "B"), header, self._stored.part(begin + size, length)
            at = begin + size + length


# --- the schema ---------------------------------------------------------------------------------


class _Schema:
    """Reads the fields of a schema, so many at most: the same table may stand in many places."""

    def __init__(self, header: FlatTable) -> None:
        if header.number(0, "h"):
            raise ValueError("a stream of Arrow has its numbers in big-endian order")
        self._room = _MOST_FIELDS
        self.fields = self._fields(header, 1, _MOST_DEPTH)

    def _fields(self, table: FlatTable, number: int, depth: int) -> tuple[_Field, ...]:
        return tuple(self._field(each, depth) for each in table.tables(number, _MOST_FIELDS))

    def _field(self, table: FlatTable, depth: int) -> _Field:
        metadata = {each.text(0): each.text(1) for each in table.tables(6, _MOST_METADATA)}
        self._room -= 1 + len(metadata)
        if self._room < 0 or not depth:
            raise ValueError("a schema of Arrow has too many fields")
        children = self._fields(table, 5, depth - 1)
        kind = _type(table.number(2, "B"), table.table(3), children)
        self._room -= len(kind.type_ids)
        encoding, number = table.table(4), None
        if encoding is not None:
            number, index = encoding.number(0, "q"), encoding.table(1)
            of_index = ArrowType("int32") if index is None else _integer(index)
            kind = ArrowType("dictionary", fields=(("", of_index), ("", kind)))
        return _Field(table.text(0), kind, children, number, metadata)


def _with_dictionaries(fields: Sequence[_Field]) -> Iterator[tuple[int, _Field]]:
    for each in fields:
        if each.dictionary is not None:
            yield each.dictionary, each
        yield from _with_dictionaries(each.fields)


def _integer(table: FlatTable) -> ArrowType:
    sign = "" if table.number(1, "B") else "u"
    return ArrowType(f"{sign}int{table.number(0, 'i')}")


def _type(number: int, table: FlatTable | None, children: Sequence[_Field]) -> ArrowType:
    """The type with this number; `?` if it is not known."""
    fields = tuple((each.name, each.type) for each in children)
    if number in _IN_FIXED_FORM:
        return ArrowType(_IN_FIXED_FORM[number], fields=fields)
    make = _WITH_PARAMETERS.get(number)
    found = ArrowType("?") if make is None or table is None else make(table)
    return replace(found, fields=fields)


def _floating(table: FlatTable) -> ArrowType:
    precision = table.number(0, "h")
    return ArrowType(_FLOATS[precision] if 0 <= precision < len(_FLOATS) else "?")


def _decimal(table: FlatTable) -> ArrowType:
    bits, precision = table.number(2, "i", 128), table.number(0, "i")
    return ArrowType(
        f"decimal{bits}", size=bits // 8, precision=precision, scale=table.number(1, "i")
    )


def _interval(table: FlatTable) -> ArrowType:
    return ArrowType("month_day_nano_interval" if table.number(0, "h") == _MONTHS_AND_REST else "?")


def _union(table: FlatTable) -> ArrowType:
    ids = tuple(each for (each,) in islice(table.rows(1, "i"), _MOST_KINDS))
    return ArrowType("dense_union" if table.number(0, "h") else "sparse_union", type_ids=ids)


_WITH_PARAMETERS: Final[dict[int, Callable[[FlatTable], ArrowType]]] = {
    2: _integer,
    3: _floating,
    7: _decimal,
    8: lambda table: ArrowType("date64" if table.number(0, "h", 1) else "date32"),
    9: lambda table: ArrowType(f"time{table.number(1, 'i', 32)}", unit=_unit(table, 1)),
    10: lambda table: ArrowType("timestamp", unit=_unit(table, 0), zone=table.text(1)),
    11: _interval,
    14: _union,
    15: lambda table: ArrowType("fixed_size_binary", size=table.number(0, "i")),
    16: lambda table: ArrowType("fixed_size_list", size=table.number(0, "i")),
    18: lambda table: ArrowType("duration", unit=_unit(table, 1)),
}
"""What makes the types that have parameters, by their number in a schema."""


def _unit(table: FlatTable, default: int) -> str:
    unit = table.number(0, "h", default)
    return _UNITS[unit] if 0 <= unit < len(_UNITS) else "?"


# --- batches ------------------------------------------------------------------------------------


class _Batch:
    """The arrays of a batch, which are taken in the order of the schema."""

    def __init__(
        self,
        header: FlatTable,
        body: StoredBytes,
        dictionaries: dict[int, ArrowArray | None],
        limits: PreviewLimits,
    ) -> None:
        self._body, self._dictionaries, self._limits = body, dict(dictionaries), limits
        self._nodes = header.rows(1, "qq")
        self._buffers = header.rows(2, "qq")
        self._views = header.rows(4, "q")
        self._is_compressed = header.table(3) is not None

    def array(self, of: _Field) -> ArrowArray | None:
        """The next array; None if it is of a form that is not known here.

        Raises:
            ValueError: The batch has fewer arrays or buffers than the schema says.
        """
        kind, fields = of.type, of.fields
        if kind.kind == "dictionary":
            stored_as, fields = kind.fields[0][1].kind, ()
        else:
            stored_as = kind.kind
        if stored_as == "?":
            raise ValueError("a schema of Arrow has a type that is not known here")
        length, _ = self._next(self._nodes)
        has_validity = stored_as not in _WITHOUT_BUFFERS | _WITHOUT_VALIDITY
        validity, is_readable = self._buffer() if has_validity else (None, True)
        buffers = [self._buffer()[0] for _ in range(self._count(stored_as))]
        children = [self.array(each) for each in fields]
        if not is_readable:
            return None
        values = None if of.dictionary is None else self._dictionaries.get(of.dictionary)
        return ArrowArray(
            kind, max(length, 0), 0, validity, buffers, children, values, self._limits
        )

    def _count(self, kind: str) -> int:
        """How many buffers an array of this kind has, besides that of its validity."""
        if kind in _WITHOUT_BUFFERS | _ONLY_VALIDITY:
            return 0
        if kind in _VIEWS:
            return 1 + min(max(self._next(self._views)[0], 0), _MOST_FIELDS)
        return 2 if kind in _TWO_BUFFERS else 1

    def _next(self, rows: Iterator[tuple[int, ...]]) -> tuple[int, ...]:
        row = next(rows, None)
        if row is None:
            raise ValueError("a batch of Arrow has fewer parts than its schema")
        return row

    def _buffer(self) -> tuple[StoredBytes | None, bool]:
        """The next buffer, None if it is empty or compressed; and whether that is not so."""
        offset, length = self._next(self._buffers)
        if offset < 0 or length <= 0:
            return None, True
        if not self._is_compressed:
            return self._body.part(offset, length), True
        head = self._body.read(offset, 8)
        if len(head) == 8 and int.from_bytes(head, "little", signed=True) == _IS_RAW:  # noqa: PLR2004 - the bytes of the length
            return self._body.part(offset + 8, length - 8), True
        return None, False
