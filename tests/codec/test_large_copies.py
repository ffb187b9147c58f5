"""Large values are copied in pieces: an async worker's other threads wait for one at most."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from asyncflow.codec import encode, encoded
from asyncflow.codec.encoded import decode_value
from asyncflow.values import Encoding

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, MIB - 1, MIB, MIB + 1, 3 * MIB + 17])
@pytest.mark.parametrize("make", [bytes, memoryview, bytearray])
def test_bytes_of_any_length_are_what_they_were(size, make) -> None:
    """Whatever memory they are read from, they are `bytes` of their own."""
    data = os.urandom(size)
    read = decode_value(Encoding.BYTES, make(data))
    assert type(read) is bytes
    assert read == data


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 17])
def test_bytes_within_a_structure_are_what_they_were(size) -> None:
    """Those of a dict, with others before and after them."""
    value = {"before": b"x" * 70_000, "data": os.urandom(size), "after": list(range(1000))}
    found = encode(value)
    assert decode_value(int(found.encoding), b"".join(found.chunks)) == value


class Target(bytearray):
    """Memory that notes how much is copied to it at a time."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.copied: list[int] = []

    def __setitem__(self, key, value) -> None:
        self.copied.append(len(value))
        super().__setitem__(key, value)


def test_an_unpickler_gets_them_in_pieces_of_a_mebibyte() -> None:
    """Between two of them the interpreter may run another thread."""
    data = os.urandom(3 * MIB + 17)
    target = Target(len(data))
    noting: Any = target
    assert encoded._Frames(memoryview(data)).readinto(noting) == len(data)
    assert target.copied == [MIB, MIB, MIB, 17]
    assert bytes(target) == data


def test_a_pickle_that_was_cut_off_is_an_error() -> None:
    """Less than it asks for is what the unpickler gets, as of a file that ends."""
    cut = pickle.dumps({"data": bytes(3 * MIB)})[: 2 * MIB]
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        decode_value(Encoding.PICKLE, cut)
