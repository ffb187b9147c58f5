"""The numbers of orders are the same bytes on every machine."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.workers.packed_numbers import pack_numbers, unpack_numbers

U64 = st.integers(0, 2**64 - 1)


@given(st.lists(U64))
def test_numbers_are_packed_in_eight_bytes_each_with_the_lowest_first(numbers):
    """As the workers of any machine unpack them."""
    packed = pack_numbers(array("Q", numbers))
    assert packed == b"".join(number.to_bytes(8, "little") for number in numbers)
    assert unpack_numbers(packed).tolist() == numbers


def test_a_machine_with_the_other_order_turns_the_bytes_of_each_number(monkeypatch):
    """Its arrays have them the other way round; those that it was given stay as they are."""
    given = array("Q", [1, 2**63, 4711])
    turned = given[:]
    turned.byteswap()
    other = {"little": "big", "big": "little"}[sys.byteorder]
    monkeypatch.setattr(sys, "byteorder", other)
    expected = turned if other == "big" else given
    assert pack_numbers(given) == expected.tobytes()
    assert given.tolist() == [1, 2**63, 4711]
    assert unpack_numbers(expected.tobytes()) == given


@pytest.mark.parametrize("length", [1, 7, 9])
def test_bytes_that_are_no_whole_numbers_are_an_error(length):
    """They are not what was packed."""
    with pytest.raises(ValueError, match="not a multiple of item size"):
        unpack_numbers(bytes(length))
