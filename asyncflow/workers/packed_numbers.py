"""The u64 of orders, such as offsets, as they travel."""

from __future__ import annotations

import sys
from array import array


def pack_numbers(numbers: array[int]) -> bytes:
    """Pack u64, little-endian."""
    return _in_transit(numbers).tobytes()


def unpack_numbers(data: bytes) -> array[int]:
    """The u64 that `pack_numbers` has packed."""
    numbers = array("Q")
    numbers.frombytes(data)
    return _in_transit(numbers)


def _in_transit(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers
