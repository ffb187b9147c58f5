"""The frames of a journal: each record with its length and its checksum in front.

`asyncflow.store.journal` has the format. Other small files of a run are framed likewise.
"""

from __future__ import annotations

import struct
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final
from zlib import crc32

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX: Final = struct.Struct("<II")
"""Length and checksum."""
_pack_prefix: Final = PREFIX.pack
PREFIX_BYTES: Final = PREFIX.size
MAX_RECORD_BYTES: Final = 1 << 30  # a longer length can only be damage
_MOST_SEEDS: Final = 4096  # nearly all records are shorter
_seeds: Final[dict[int, int]] = {}
"""For each of these lengths that was met: the checksum of its four bytes."""


def prefix(payload: bytes) -> bytes:
    """The payload's length and checksum, which stand before it in the journal.

    Raises:
        JournalError: It is longer than a record may be.
    """
    size = len(payload)
    if size > MAX_RECORD_BYTES:
        message = f"an event of {size} bytes is too large for the journal"
        raise JournalError(message)
    seed = _seeds.get(size)
    if seed is None:
        seed = _seed(size)
    return _pack_prefix(size, crc32(payload, seed))


def add_frames(frames: list[bytes], records: Iterable[bytes], at: int) -> list[int]:
    """Add to `frames` what `prefix` says of each of these records, and the record.

    Returns the offset of each, if the first one's is `at`, and that of what follows.

    Raises:
        JournalError: One is longer than a record may be.
    """
    records = [*records]
    sizes = [*map(len, records)]
    if _seeds.keys() >= set(sizes) and max(sizes, default=0) <= MAX_RECORD_BYTES:
        checksums = map(crc32, records, map(_seeds.__getitem__, sizes))
        prefixes: Iterable[bytes] = map(_pack_prefix, sizes, checksums)
    else:
        prefixes = [*map(prefix, records)]
    frames += chain.from_iterable(zip(prefixes, records, strict=True))
    return [*accumulate(map(PREFIX_BYTES.__add__, sizes), initial=at)]


def _seed(size: int) -> int:
    """The checksum of the four bytes of this length; kept, if many records may have it."""
    seed = crc32(size.to_bytes(4, "little"))
    if size < _MOST_SEEDS:
        _seeds[size] = seed
    return seed


def frame(payload: bytes) -> bytes:
    """The payload with its length and checksum in front, as the journal stores it.

    Raises:
        JournalError: It is longer than a record may be.
    """
    return prefix(payload) + payload


class RecordBatch(NamedTuple):
    """Records that follow each other."""

    places: list[int]
    """The offset of each."""
    payloads: list[bytes]
    after: int
    """Where the next record begins."""


def frame_size(data: bytes) -> int:
    """How long the frame at the beginning of `data` is; that of a prefix, if even that is cut."""
    length: int
    if len(data) < PREFIX_BYTES:
        return PREFIX_BYTES
    length, _ = PREFIX.unpack_from(data)
    return PREFIX_BYTES + length


def payload_at(data: bytes, offset: int) -> bytes | None:
    """The payload of the frame at `offset` of `data`; None if it is not whole and right."""
    begin = offset + PREFIX_BYTES
    if len(data) < begin:
        return None
    length, checksum = PREFIX.unpack_from(data, offset)
    payload = data[begin : begin + length]
    if len(payload) < length or crc32(payload, crc32(data[offset : offset + 4])) != checksum:
        return None
    return payload


def whole_records(data: bytes, at: int) -> RecordBatch:
    """The whole and right records with which `data` begins; that is what lies at `at`."""
    places: list[int] = []
    payloads: list[bytes] = []
    begin, size, unpack_from = 0, len(data), PREFIX.unpack_from
    while (start := begin + PREFIX_BYTES) <= size:
        length, checksum = unpack_from(data, begin)
        payload = data[start : start + length]
        seed = _seeds.get(length)
        if seed is None:
            seed = _seed(length)
        if len(payload) < length or crc32(payload, seed) != checksum:
            break
        places.append(at + begin)
        payloads.append(payload)
        begin = start + length
    return RecordBatch(places, payloads, at + begin)
