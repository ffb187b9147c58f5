"""Records are framed as the journal's format says, one by one or many at once, and read back."""

from __future__ import annotations

import struct
import zlib
from itertools import accumulate
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import JournalError
from asyncflow.store import frames
from asyncflow.store.frames import (
    MAX_RECORD_BYTES,
    add_frames,
    frame,
    frame_size,
    payload_at,
    prefix,
    whole_records,
)

AT: Final = 8
"""Where the records of a journal begin."""
LENGTHS: Final = st.one_of(st.integers(0, 40), st.sampled_from([4095, 4096, 70_000]))
RECORDS: Final = st.lists(st.tuples(LENGTHS, st.binary(min_size=1, max_size=3))).map(
    lambda drawn: [(filling * length)[:length] for length, filling in drawn]
)


@pytest.fixture(autouse=True)
def _no_length_was_met(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(frames, "_seeds", {})


def framed(payload: bytes) -> bytes:
    """A record as the format says: its length, the CRC-32 of that and of the payload, and that."""
    length = struct.pack("<I", len(payload))
    return length + struct.pack("<I", zlib.crc32(length + payload)) + payload


@given(RECORDS)
def test_frames_are_as_the_format_says(records):
    """Also the second one of a length; whether one is made at a time, or all at once."""
    expected = [framed(record) for record in records]
    assert [frame(record) for record in records] == expected
    made = [b"before"]
    places = add_frames(made, records, AT)
    assert b"".join(made) == b"before" + b"".join(expected)
    assert places == list(accumulate(map(len, expected), initial=AT))


def test_frames_that_are_made_at_once_need_not_be_of_lengths_that_were_met():
    """The first of a length, the second, and one that is too long to be kept."""
    records, made = [b"one", b"two", b"x" * 5000, b"y" * 5000], list[bytes]()
    assert add_frames(made, iter(records), 0) == [0, 11, 22, 5030, 10_038]
    assert b"".join(made) == b"".join(map(framed, records))


@given(RECORDS, st.integers(0, 2**40))
def test_frames_are_read_back(records, at):
    """With the place of each, and where the next one begins."""
    data, sizes = b"".join(map(framed, records)), [8 + len(record) for record in records]
    *places, after = accumulate(sizes, initial=at)
    assert whole_records(data, at) == (places, records, after)
    for place, record in zip(places, records, strict=True):
        assert payload_at(data, place - at) == record
        assert frame_size(data[place - at :]) == 8 + len(record)


def test_what_is_cut_is_left_wherever_that_is():
    """The whole records before it are read, and what follows them comes with the next bytes."""
    records = [b"first", b"", b"third"]
    data = b"".join(map(framed, records))
    ends = [0, 13, 21, 34]
    for cut in range(len(data)):
        whole = sum(end <= cut for end in ends) - 1
        read = whole_records(data[:cut], AT)
        assert read == ([AT + end for end in ends[:whole]], records[:whole], AT + ends[whole])
        rest = whole_records(data[read.after - AT :], read.after)
        assert read.payloads + rest.payloads == records
        assert payload_at(data[:cut], 21) is None
        assert frame_size(data[:cut]) == (8 if cut < 8 else 13)


def test_a_record_that_is_shorter_than_its_length_is_left_even_if_its_checksum_is_right():
    """A checksum of 32 bits may be that of what is there so far."""
    length = struct.pack("<I", 10)
    cut = length + struct.pack("<I", zlib.crc32(length + b"part")) + b"part"
    assert whole_records(framed(b"first") + cut, AT) == ([AT], [b"first"], AT + 13)
    assert payload_at(cut, 0) is None


def test_what_is_damaged_is_left_whichever_bit_it_is():
    """Neither that record nor one behind it is read as if it were whole and right."""
    records = [b"first", b"the second", b"third"]
    data = b"".join(map(framed, records))
    for bit in range(8 * 13, 8 * 31):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        assert whole_records(bytes(spoilt), AT) == ([AT], records[:1], AT + 13)
        assert payload_at(bytes(spoilt), 13) is None
        assert payload_at(bytes(spoilt), 31) == b"third"


@pytest.mark.parametrize("make", [prefix, frame, lambda record: add_frames([], [record], AT)])
def test_a_record_of_more_than_a_gibibyte_is_refused(make):
    """Nothing is written of it: a reader takes such a length for damage."""
    assert MAX_RECORD_BYTES == 2**30
    with pytest.raises(JournalError, match="an event of 1073741825 bytes is too large"):
        make(bytes(2**30 + 1))  # no memory is touched


def test_what_is_kept_of_lengths_is_bounded():
    """A process that frames or reads a million lengths does not remember a million."""
    records = [bytes(length) for length in range(4000, 4200)]
    made: list[bytes] = []
    add_frames(made, records, AT)
    whole_records(b"".join(made), AT)
    assert sorted(frames._seeds) == list(range(4000, 4096))
