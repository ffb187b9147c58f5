"""Reads tables of a flatbuffer, whose offsets and lengths need not be true.

Arrow describes its data in flatbuffers: tables whose fields are found by number, through offsets
that are relative to where they stand. Each read is checked against the end of the bytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FlatTable"]

_MOST_TEXT: Final = 400  # bytes of a text that are looked at


class FlatTable:
    """One table. A field that is not there has its default."""

    __slots__ = ("_at", "_data", "_places", "_size")

    def __init__(self, data: bytes, at: int) -> None:
        """The table at this place.

        Raises:
            ValueError: It does not lie in these bytes; each method raises that too.
        """
        self._data, self._at = data, at
        self._places = at - _unpack("<i", data, at)
        size = _unpack("<H", data, self._places)
        self._size = min(size, len(data) - self._places)

    @classmethod
    def root(cls, data: bytes) -> Self:
        """The table with which a flatbuffer begins."""
        return cls(data, _unpack("<I", data, 0))

    def number(self, field: int, form: str, default: int = 0) -> int:
        """A number of this form, as `struct` names it."""
        place = self._place(field)
        return default if place is None else int(_unpack(f"<{form}", self._data, place))

    def table(self, field: int) -> FlatTable | None:
        """A table; None if there is none."""
        place = self._target(field)
        return None if place is None else FlatTable(self._data, place)

    def text(self, field: int) -> str:
        """A text, or its beginning; empty if there is none."""
        place = self._target(field)
        if place is None:
            return ""
        length = min(_unpack("<I", self._data, place), _MOST_TEXT)
        return self._data[place + 4 : place + 4 + length].decode("utf-8", "replace")

    def tables(self, field: int, most: int) -> Iterator[FlatTable]:
        """Tables that stand in a list, so many at most. Each is made when it is asked for."""
        begin, count = self._list(field, 4)
        for place in range(begin, begin + 4 * min(count, most), 4):
            yield FlatTable(self._data, place + _unpack("<I", self._data, place))

    def rows(self, field: int, form: str) -> Iterator[tuple[Any, ...]]:
        """Structures or numbers of this form that stand in a list; they are read one by one."""
        size = struct.calcsize(f"<{form}")
        begin, count = self._list(field, size)
        return struct.iter_unpack(f"<{form}", memoryview(self._data)[begin : begin + count * size])

    def _place(self, field: int) -> int | None:
        at = 4 + 2 * field
        if at + 2 > self._size:
            return None
        place = _unpack("<H", self._data, self._places + at)
        return self._at + place if place else None

    def _target(self, field: int) -> int | None:
        """Where an offset leads to."""
        place = self._place(field)
        return None if place is None else place + _unpack("<I", self._data, place)

    def _list(self, field: int, size: int) -> tuple[int, int]:
        """Where the items of a list begin, and how many there are."""
        place = self._target(field)
        if place is None:
            return 0, 0
        count, begin = _unpack("<I", self._data, place), place + 4
        if begin + count * size > len(self._data):
            raise ValueError("a list ends behind the end of its message")
        return begin, count


def _unpack(form: str, data: bytes, at: int) -> int:
    if not 0 <= at <= len(data) - struct.calcsize(form):
        raise ValueError("a message has an offset that leads out of it")
    (value,) = struct.unpack_from(form, data, at)
    return int(value)
