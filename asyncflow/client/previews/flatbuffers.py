"""Reads tables of a flatbuffer, whose offsets and lengths need not be true.

Arrow describes its data in flatbuffers: tables whose fields are found by number, through offsets
that are relative to where they stand. Each read is checked against the end of the bytes.
"""

from __future__ import annotations

import struct
from typing import Any, Final, Self

__all__ = ["FlatTable"]

_MOST_TEXT: Final = 400  # bytes of a text that are looked at


class FlatTable:
    """One table. A field that is not there has its default."""

    __slots__ = ("_at", "_data", "_fields")

    def __init__(self, data: bytes, at: int) -> None:
        """The table at this place.

        Raises:
            ValueError: It does not lie in these bytes; each method raises that too.
        """
        self._data, self._at = data, at
        places = at - _unpack("<i", data, at)
        size = _unpack("<H", data, places)
        fields = data[places + 4 : places + size]
        self._fields = [place for (place,) in struct.iter_unpack("<H", fields[: len(fields) & ~1])]

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

    def tables(self, field: int, most: int) -> list[FlatTable]:
        """Tables that stand in a list, so many at most."""
        begin, count = self._list(field, 4)
        places = (begin + 4 * number for number in range(min(count, most)))
        return [FlatTable(self._data, place + _unpack("<I", self._data, place)) for place in places]

    def rows(self, field: int, form: str) -> list[tuple[Any, ...]]:
        """Structures or numbers that stand in a list, each of this form."""
        size = struct.calcsize(f"<{form}")
        begin, count = self._list(field, size)
        return list(struct.iter_unpack(f"<{form}", self._data[begin : begin + count * size]))

    def _place(self, field: int) -> int | None:
        place = self._fields[field] if field < len(self._fields) else 0
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
