"""Masks over columns of bytes: each byte is 1 where a row is meant, and 0 where it is not.

`bytes.translate` makes a mask of a whole column at once. Masks are joined with & as whole numbers,
in linear time.
"""

from __future__ import annotations

from typing import Final

NONZERO: Final = b"\0" + b"\1" * 255
"""The translation table that turns each byte but 0 into 1."""


def is_byte(wanted: int) -> bytes:
    """The translation table that turns one byte into 1, and all others into 0."""
    return bytes(wanted) + b"\1" + bytes(255 - wanted)


def number_of(mask: bytes | bytearray) -> int:
    """A mask as a whole number."""
    return int.from_bytes(mask, "little")
