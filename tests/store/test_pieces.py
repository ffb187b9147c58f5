"""Append-only files as pieces: their form, and the chain, for any order of events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import RecordError
from asyncflow.store.object_store.pieces import (
    HEADER_BYTES,
    Chain,
    Piece,
    name_of,
    offset_in,
    pack_header,
)

OFFSETS = st.integers(0, 2**62 - 1)
WRITERS = st.binary(min_size=16, max_size=16)
LENGTHS = st.lists(st.integers(1, 9), max_size=30)


@given(OFFSETS, WRITERS, st.binary(max_size=100))
def test_a_piece_is_read_back_as_it_was(offset, writer, data):
    """And is the seal if it has no bytes."""
    piece = Piece(offset, writer, data)
    assert Piece.parse(piece.pack(), offset) == piece
    assert piece.is_seal == (not data)
    assert len(piece.pack()) == HEADER_BYTES + len(data)


@given(OFFSETS, WRITERS, st.binary(max_size=100))
def test_a_pack_is_read_back_as_a_piece(offset, writer, data):
    """Its header is as long as that of any piece."""
    header = pack_header(offset, writer, len(data))
    assert len(header) == HEADER_BYTES
    assert Piece.parse(header + data, offset) == Piece(offset, writer, data)


@given(OFFSETS, WRITERS, st.binary(max_size=100), st.data())
def test_a_pack_with_another_header_or_length_is_refused(offset, writer, data, draw):
    """Its other bytes have their hashes in refs."""
    packed = pack_header(offset, writer, len(data)) + data
    at = draw.draw(st.integers(0, HEADER_BYTES - 1))
    flipped = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    shorter = packed[: draw.draw(st.integers(0, len(packed) - 1))]
    for wrong in (flipped, shorter, packed + b"x"):
        with pytest.raises(RecordError):
            Piece.parse(wrong, offset)
    with pytest.raises(RecordError, match="is the piece of offset"):
        Piece.parse(packed, offset + 1)


@given(OFFSETS, WRITERS, st.binary(max_size=100), st.data())
def test_a_changed_piece_is_refused(offset, writer, data, draw):
    """Whichever byte it is, whether it is cut or longer, or at another offset."""
    packed = Piece(offset, writer, data).pack()
    at = draw.draw(st.integers(0, len(packed) - 1))
    flipped = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    for wrong, where in ((flipped, offset), (packed[:at], offset), (packed + b"x", offset)):
        with pytest.raises(RecordError):
            Piece.parse(wrong, where)
    with pytest.raises(RecordError, match="is the piece of offset"):
        Piece.parse(packed, offset + 1)


@given(OFFSETS, OFFSETS)
def test_names_sort_as_the_bytes_follow_each_other(one, other):
    """So a listing tells the chain."""
    assert (name_of(one) < name_of(other)) == (one < other)
    assert offset_in(f"flows/F/17/journal/{name_of(one)}") == one


@pytest.mark.parametrize("name", ["", "journal", "00000000000000g0", "0" * 15, "F" * 16, "f" * 16])
def test_another_name_is_that_of_no_piece(name):
    """Nor is an offset that no file reaches."""
    assert offset_in(f"flows/F/17/journal/{name}") is None


def chained(lengths, *, sealed=False):
    """The names and sizes of a file's pieces, as a listing has them."""
    offset, listed = 0, []
    for length in [*lengths, *([0] if sealed else [])]:
        listed.append((name_of(offset), HEADER_BYTES + length))
        offset += length
    return listed


@given(LENGTHS, st.booleans(), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9))))
def test_the_chain_is_what_follows_without_a_gap(lengths, sealed, others):
    """Whatever else is there: pieces of a writer that was sealed off, or of no writer at all."""
    own = chained(lengths, sealed=sealed)
    taken = {name for name, _ in own}
    end = sum(lengths)
    strays = {
        name_of(offset): HEADER_BYTES + size
        for offset, size in others
        if name_of(offset) not in taken and (sealed or offset != end)
    }
    chain = Chain()
    chain.add_listed(sorted([*own, *strays.items(), ("zz", 5)]))
    assert (chain.end, chain.is_sealed, len(chain)) == (end, sealed, len(lengths))


@given(LENGTHS, st.integers(0, 30), st.integers(0, 300), st.integers(0, 300))
def test_a_range_is_put_together_from_its_pieces(lengths, cut, offset, size):
    """Also if the chain was learnt in two parts; where the file ends, so does the range."""
    data = bytes(range(256)) * 2
    chain = Chain()
    for part in (chained(lengths)[:cut], chained(lengths)[cut:]):
        chain.add_listed(part)
    found = b""
    for number, start, stop in chain.covering(offset, size):
        begin, end = chain.bounds(number)
        found += data[begin:end][start:stop]
    assert found == data[: sum(lengths)][offset : offset + size]


def test_a_piece_shorter_than_its_head_is_part_of_no_chain():
    """Nor is anything behind it."""
    chain = Chain()
    chain.add_listed([(name_of(0), HEADER_BYTES - 1), (name_of(1), 100)])
    assert (chain.end, chain.is_sealed) == (0, False)
    with pytest.raises(IndexError):
        chain.find(0)
