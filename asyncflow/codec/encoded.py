"""Encodes one value: as a pickle, as a pickle with its buffers, or `bytes` unchanged.

A value with out-of-band buffers is stored so that each buffer can be used in a mapped file without
a copy, and changed in place. All integers are little-endian:

    header    4    `AFB1`
              u32  count of buffers
              u64  length of the pickle
    table     16 bytes for each buffer: u64 where it begins, u64 its length
    pickle    a protocol 5 stream
    buffers   each at a multiple of 64, zeros in the gaps

The other encodings have no header: the whole is one pickle stream, or the bytes themselves.

Nothing is compressed. gzip handles 0.02 GB/s and the disk 1.3 GB/s, floating point numbers hardly
shrink, and compressed bytes cannot be mapped. A step that stores gigabytes of text can compress
them itself.
"""

from __future__ import annotations

import pickle
import struct
import sys
from datetime import date, datetime, time, timedelta, timezone
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow.codec.pickles import PROTOCOL, dump, type_name
from asyncflow.values import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.codec.pickles import Chunk

ALIGNMENT: Final = 64  # a cache line, and the widest vector there is
BATCH_BYTES: Final = 1 << 20  # fits a processor's cache, from which it is then hashed and written
_BATCH_PIECES: Final = 512  # as many buffers as one `writev` takes on any system
_MAGIC: Final = b"AFB1"
_HEADER: Final = struct.Struct("<4sIQ")
_RANGE: Final = struct.Struct("<QQ")
_STREAM_CHARACTERS: Final = 1 << 16  # from here on pickle.dumps copies a text twice, a pickler once

_COPIED_BYTES: Final = 1 << 20
"""Copied at a time: the interpreter's lock is held for a fraction of a millisecond."""
_FRAMES_BYTES: Final = 1 << 20  # from here on unpickling takes more than some milliseconds

_SMALL_BYTES: Final = 64 << 10
"""Up to here plain values are stored at once on the event loop of async steps.

Measured: to have a thread do it takes 40 µs, more where the machine is busy. A thousand small
dictionaries, about the most that counts as so many bytes, are encoded and hashed in 120.
"""

_SLOT_BYTES: Final = 16  # an object in a container takes as long to pickle as so many plain bytes
_CONTAINERS: Final = frozenset({list, tuple, set, frozenset})
_FLAT: Final = frozenset({str, bytes, bytearray})
_TIMES: Final = frozenset({date, datetime, time, timedelta})
_ZONES: Final = frozenset({type(None), timezone})
_PICKLE: Final = int(Encoding.PICKLE)  # a plain number: comparing with it takes half of the time
_ATOMS: Final = frozenset({bool, float, int, type(None)})
_LARGE: Final = 10**40  # a larger number is not short
_SHORT_CHARACTERS: Final = 1000  # nor is a longer text,
_SHORT_MEMBER: Final = 120  # or one within a container
_FEW_MEMBERS: Final = 6
_FEW_PAIRS: Final = _FEW_MEMBERS // 2
NOT_SHORT: Final = object()
"""What `short_copy` returns for a value that is not short."""


class Encoded(NamedTuple):
    """A value as the bytes to be stored."""

    encoding: Encoding
    chunks: list[Chunk]
    """The bytes in pieces. Pieces other than `bytes` are the value's own memory; see `batches`."""
    size: int
    """The total length of the chunks, in bytes."""
    type_name: str
    is_plain: bool = False
    """Whether the pickle names no class, so that reading it calls no code and makes new objects."""


def batches(chunks: Iterable[Chunk]) -> Iterator[list[bytes]]:
    """Copy the chunks into immutable pieces, about a megabyte at a time.

    A thread that a step has left behind may write to an array while it is stored. Thanks to the
    copy, hash and file get the same bytes.
    """
    batch: list[bytes] = []
    size = 0
    for piece in _pieces(chunks):
        batch.append(piece)
        size += len(piece)
        if size >= BATCH_BYTES or len(batch) >= _BATCH_PIECES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _pieces(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    for chunk in chunks:
        if type(chunk) is bytes:
            yield chunk
        else:
            for at in range(0, len(chunk), BATCH_BYTES):
                yield bytes(memoryview(chunk)[at : at + BATCH_BYTES])


def encode_value(value: Any, name: str = "", code: dict[bytes, bytes] | None = None) -> Encoded:
    """Encode any value; the error names the artifact by `name`.

    If `code` is given, it receives the code of the flow file's classes, which the bytes then do not
    contain.

    Raises:
        ArtifactPickleError: The value cannot be pickled.
    """
    kind = type(value)
    if kind is bytes:
        return Encoded(Encoding.BYTES, [value], len(value), "bytes")
    # Most artifacts are like these, and the general way takes five times as long.
    if kind in _ATOMS or (kind is str and len(value) < _STREAM_CHARACTERS):
        data = pickle.dumps(value, PROTOCOL)
        return Encoded(Encoding.PICKLE, [data], len(data), kind.__name__)
    stream, buffers, is_plain = dump(value, name, code)
    size = len(stream[0]) if len(stream) == 1 else sum(map(len, stream))
    if not buffers:
        return Encoded(Encoding.PICKLE, stream, size, type_name(value), is_plain)
    return _with_buffers(stream, size, buffers, type_name(value))


def short_copy(value: Any) -> Any:
    """A short value, and `NOT_SHORT` for any other; see `is_short`.

    A list or a dict comes as a copy, which stays as it is: a thread that a step has left behind may
    change the value, and an iterator may use one list for all of its items.
    """
    kind = type(value)
    if kind is list or kind is dict:
        if len(value) > _FEW_MEMBERS:
            return NOT_SHORT
        value = value.copy()
    return value if is_short(value) else NOT_SHORT


def is_short(value: Any) -> bool:
    """Whether this is a number, a short text, a truth value or None, or contains a few of them.

    A container is a tuple, a list or a dict. No short value takes more than 4 KB in memory or as
    bytes, and `pickle.dumps` makes the very bytes that `encode_value` makes.
    """
    kind = type(value)
    if kind is str:
        return len(value) <= _SHORT_CHARACTERS
    if kind is int:
        number: int = value
        return -_LARGE < number < _LARGE
    if kind is tuple or kind is list:
        return len(value) <= _FEW_MEMBERS and all(map(_is_short_member, value))
    if kind is dict:
        if len(value) > _FEW_PAIRS:
            return False
        return all(map(_is_short_member, chain(*value.items())))
    return kind in _ATOMS


def _is_short_member(value: object) -> bool:
    if type(value) is str:
        return len(value) <= _SHORT_MEMBER
    if type(value) is int:
        return -_LARGE < value < _LARGE
    return type(value) in _ATOMS


def text_stream(size: int) -> tuple[bytes, bytes]:
    """What stands before and after the UTF-8 bytes of a text so that both are its pickle."""
    opcode = b"X" + struct.pack("<I", size) if size < 1 << 32 else b"\x8d" + struct.pack("<Q", size)
    return pickle.PROTO + bytes([PROTOCOL]) + opcode, pickle.STOP


def is_plain_time(value: Any) -> bool:
    """Whether this is a date or time whose class and time zone are of the standard library.

    A time zone of another class may be mutable, and runs its own code.
    """
    if type(value) not in _TIMES:
        return False
    zone = getattr(value, "tzinfo", None)
    if type(zone) in _ZONES:
        return True
    zoneinfo = sys.modules.get("zoneinfo")  # imported if there is such a zone
    return zoneinfo is not None and type(zone) is zoneinfo.ZoneInfo


def are_small(values: Iterable[Any]) -> bool:
    """Whether these are plain values that can be encoded within some hundred microseconds.

    False for values with code of their own, because that may take any time.
    """
    room, waiting = _SMALL_BYTES, list(values)
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _FLAT:
            room -= len(value)
        elif kind in _CONTAINERS or kind is dict:
            room -= _SLOT_BYTES * len(value)
            if room >= 0:
                waiting += value
                if kind is dict:
                    waiting += value.values()
        elif kind is int:
            room -= value.bit_length() >> 3
        elif kind not in _ATOMS and not is_plain_time(value):
            return False
        if room < 0:
            return False
    return True


def _with_buffers(
    stream: list[Chunk], stream_size: int, buffers: list[memoryview], name: str
) -> Encoded:
    at = _HEADER.size + _RANGE.size * len(buffers) + stream_size
    table, chunks = bytearray(), list(stream)
    for buffer in buffers:
        gap = -at % ALIGNMENT
        if gap:
            chunks.append(bytes(gap))
        chunks.append(buffer)
        table += _RANGE.pack(at + gap, buffer.nbytes)
        at += gap + buffer.nbytes
    chunks.insert(0, _HEADER.pack(_MAGIC, len(buffers), stream_size) + table)
    return Encoded(Encoding.BUFFERS, chunks, at, name)


def decode_value(encoding: int, data: Chunk) -> Any:
    """Decode a value from its bytes.

    Buffers of the value share the memory of `data`, and can be changed if `data` is writable.

    Raises:
        ValueError: These are not the bytes of a value in this encoding.
        Exception: Whatever unpickling raises.
    """
    if encoding == _PICKLE:
        if len(data) < _FRAMES_BYTES:
            return pickle.loads(data)
        return _unpickle(memoryview(data))
    if encoding == Encoding.BYTES:
        return _own_bytes(data)
    view = memoryview(data)
    stream, ranges = parse_buffers(view)
    return _unpickle(view[stream.start : stream.stop], _cut(view, ranges))


def _own_bytes(data: Chunk) -> bytes:
    """A copy, of which other threads wait for no more than a piece."""
    if len(data) <= _COPIED_BYTES:
        return bytes(data)
    with memoryview(data) as view:
        copy = BytesIO()
        for start in range(0, len(view), _COPIED_BYTES):
            copy.write(view[start : start + _COPIED_BYTES])
    return copy.getvalue()  # what was written, and no second copy


def _unpickle(stream: memoryview, buffers: Iterable[memoryview] = ()) -> Any:
    if len(stream) < _FRAMES_BYTES:
        return pickle.loads(stream, buffers=buffers)
    return pickle.Unpickler(_Frames(stream), buffers=buffers).load()


class _Frames:
    """The file from which a C unpickler reads a pickle, one frame of 64 KiB at a time.

    `pickle.loads` holds the interpreter's lock throughout. These methods are Python code, and a
    call of them lets another thread have the lock.
    """

    __slots__ = ("_at", "_stream")

    def __init__(self, stream: memoryview) -> None:
        self._stream, self._at = stream, 0

    def read(self, size: int) -> bytes:
        data = bytes(self._stream[self._at : self._at + size])
        self._at += len(data)
        return data

    def readinto(self, target: memoryview) -> int:
        size = min(len(target), len(self._stream) - self._at)
        for start in range(0, size, _COPIED_BYTES):  # between two, another thread may have the lock
            end = min(start + _COPIED_BYTES, size)
            target[start:end] = self._stream[self._at + start : self._at + end]
        self._at += size
        return size

    def readline(self) -> bytes:  # of protocols before 2
        rest = bytes(self._stream[self._at :])
        line = rest[: rest.find(b"\n") + 1] or rest
        self._at += len(line)
        return line


def _cut(view: memoryview, ranges: list[slice]) -> Iterator[memoryview]:
    return (view[each] for each in ranges)


def parse_buffers(view: memoryview) -> tuple[slice, list[slice]]:
    """The places of the pickle and the buffers in a value with out-of-band buffers.

    Raises:
        ValueError: The bytes are not such a value.
    """
    if len(view) < _HEADER.size:
        raise ValueError("the value is cut short")
    magic, count, stream_size = _HEADER.unpack_from(view)
    start = _HEADER.size + _RANGE.size * count
    if magic != _MAGIC or start + stream_size > len(view):
        raise ValueError("the value does not begin as it should")
    ranges = []
    for at in range(_HEADER.size, start, _RANGE.size):
        offset, size = _RANGE.unpack_from(view, at)
        if offset + size > len(view):
            raise ValueError("a buffer of the value lies outside of it")
        ranges.append(slice(offset, offset + size))
    return slice(start, start + stream_size), ranges
