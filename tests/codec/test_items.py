from __future__ import annotations

import struct
import tracemalloc
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import codec
from asyncflow.codec.encoded import NOT_SHORT, is_short, short_copy
from asyncflow.codec.items import (
    ENTRY_BYTES,
    TRAILER_BYTES,
    DamagedError,
    Entry,
    ItemsEncoder,
    Trailer,
    text_in,
)
from asyncflow.errors import ArtifactPickleError
from asyncflow.values import Encoding
from tests.support.items import encode_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def stored(items: Iterable[object]) -> bytes:
    """A list's bytes."""
    encoded = encode_items(items)
    assert encoded.encoding is Encoding.ITEMS
    return b"".join(encoded.chunks)


def item(data: bytes, index: int) -> object:
    """What a reader does who knows the trailer: an entry, its bytes, a hash."""
    trailer = Trailer.parse(data[-TRAILER_BYTES:], len(data))
    at = trailer.entry(index)
    entry = Entry.parse(data[at : at + ENTRY_BYTES], trailer.code)
    part = bytearray(data[entry.offset : entry.offset + entry.size])
    entry.check(part)
    return codec.decode(entry.encoding, part)


def test_each_item_can_be_read_by_itself():
    """An entry of the table is enough to read an item, whatever it is."""
    items = [1, "two", b"three", [4, 5], np.arange(5000), None, b""]
    data = stored(items)
    for index, expected in enumerate(items):
        np.testing.assert_array_equal(item(data, index), expected)


ATOMS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
NUMBERS = [10**50, 10**40, 10**40 - 1, -(10**40)]
SHORT = st.one_of(
    st.lists(ATOMS, max_size=8),
    st.lists(ATOMS, max_size=8).map(tuple),
    st.dictionaries(st.text() | st.integers(), ATOMS, max_size=5),
)
LONG = st.sampled_from(
    ["ä" * 300, "a" * 5000, "\ud800", *NUMBERS, np.arange(10), "<f at 0x7f>", [" at 0x7f"]]
)


@given(st.lists(ATOMS | SHORT | LONG, max_size=20), st.sampled_from([1, 3, 300]))
def test_many_items_become_the_bytes_that_each_becomes(items, times):
    """Those of short values go another way, which shows nowhere."""
    items = items * times
    encoder = ItemsEncoder(list, "items")
    one_by_one = [*chain.from_iterable(chain.from_iterable(map(encoder.add, items)))]
    one_by_one += encoder.finish()
    assert stored(items) == b"".join(one_by_one)


def changed_in_place(item: list[int] | dict[int, int], count: int) -> Iterator[object]:
    """Yield the same object each time, with another content."""
    for number in range(count):
        item[0] = number
        yield item


@pytest.mark.parametrize("item", [[0], {0: 0}], ids=["list", "dict"])
def test_an_iterator_may_use_one_object_for_all_its_items(item):
    """Each item is what the object was when it was yielded."""
    kept = [type(item)(changed) for changed in changed_in_place(item, 600)]
    data = stored(changed_in_place(item, 600))
    assert codec.decode(Encoding.ITEMS, data) == kept


def test_a_short_value_that_changes_meanwhile_is_stored_as_it_was():
    """What is looked at is what is stored, and not what a thread makes of it in between."""
    for value in ([1, 2], {1: 2}):
        copy = short_copy(value)
        assert copy == value
        assert copy is not value


def test_whether_a_large_dict_is_short_takes_no_memory():
    """Its members are not copied to be counted."""
    large = dict.fromkeys(range(10_000))
    tracemalloc.start()
    try:
        assert not is_short(large)
        assert short_copy(large) is NOT_SHORT
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


def test_the_kind_of_the_list_is_kept():
    """A tuple stays a tuple; every other iterable becomes a list."""
    assert codec.decode(Encoding.ITEMS, stored((1, 2))) == (1, 2)
    assert codec.decode(Encoding.ITEMS, stored([1, 2])) == [1, 2]
    assert codec.decode(Encoding.ITEMS, stored({1: "a", 2: "b"})) == [1, 2]
    assert codec.decode(Encoding.ITEMS, stored(n for n in range(3))) == [0, 1, 2]
    assert encode_items((1,)).type_name == "tuple"
    assert encode_items(range(3)).type_name == "list"


def test_a_text_is_read_without_its_item():
    """At one place, of bounded length; a list of an earlier version has none."""
    data = stored(["berlin", "ä" * 500])
    trailer = Trailer.parse(data[-TRAILER_BYTES:], len(data))
    found = []
    for index in range(2):
        at = trailer.entry(index)
        place, size = trailer.text_place(Entry.parse(data[at : at + ENTRY_BYTES], trailer.code))
        found.append(text_in(data[place : place + size]))
    assert found == ["'berlin'", f"'{'ä' * 50}…{'ä' * 25}'"]
    entry = Entry.parse(data[trailer.entry(0) :][:ENTRY_BYTES], trailer.code)
    assert trailer._replace(has_texts=False).text_place(entry)[1] == 0
    assert not text_in(b"")


def test_an_empty_list_has_no_items():
    """Its trailer says so."""
    data = stored([])
    assert Trailer.parse(data, len(data)).length == 0
    assert codec.decode(Encoding.ITEMS, data) == []


def test_a_list_has_the_very_bytes_that_its_format_says():
    """Item by item with its text, the table, the trailer; an array begins at a multiple of 64."""
    items = [7, b"y" * 77, "x" * 5000, np.arange(5000.0)]
    expected, table = b"", b""
    called = [
        *("7", repr(items[1]), f"'{'x' * 50}…{'x' * 25}'"),
        "<ndarray (5000,) float64>",
    ]
    for each, text in zip(items, called, strict=True):
        encoded = codec.encode(each)
        data = b"".join(encoded.chunks)
        if encoded.encoding is Encoding.BUFFERS:
            expected += bytes(-len(expected) % 64)
        place = struct.pack("<QQ", len(expected), len(data) | encoded.encoding << 56)
        table += place + blake3(place + data).digest()[:16]
        expected += data + bytes([len(text.encode())]) + text.encode()
    kind, gap = b"\0\1", bytes(2)
    place = struct.pack("<QQQ", 4, len(expected), 0)
    trailer = b"AFI1" + kind + gap + place + blake3(b"").digest()[:16]
    trailer += blake3(trailer).digest()[:16]
    assert {codec.encode(each).encoding for each in items} > {Encoding.PICKLE}
    assert (len(table), len(trailer)) == (4 * 32, 64)
    assert stored(items) == expected + table + trailer


def test_an_unpicklable_item_is_named():
    """The error tells which of the items it is."""
    with pytest.raises(ArtifactPickleError, match=r"rows\[2\]"):
        encode_items([1, 2, (x for x in "abc")], name="rows")


@pytest.mark.parametrize("items", [[1, "two", b"three"], [np.arange(600.0), 1]])
def test_no_flipped_bit_gives_a_wrong_item(items):
    """Whichever byte is damaged, an item is read right or not at all."""
    data = stored(items)
    refused = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 + at % 255
        for index, expected in enumerate(items):
            try:
                back = item(bytes(damaged), index)
            except DamagedError:
                refused += 1
            else:
                np.testing.assert_array_equal(back, expected)
    assert refused >= len(data) - 64  # the gap before an aligned item is nobody's


def test_items_point_only_into_the_list():
    """An entry that leads elsewhere is refused."""
    with pytest.raises(DamagedError):
        Entry.parse(b"\xff" * ENTRY_BYTES, 100)
    with pytest.raises(DamagedError):
        Entry.parse(b"\0" * (ENTRY_BYTES - 1), 100)
    with pytest.raises(DamagedError):
        Trailer.parse(b"\0" * TRAILER_BYTES, TRAILER_BYTES)
