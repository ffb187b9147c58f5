"""An append-only file as objects that are created once: pieces, and the chain that they form.

A piece is named `FOLDER/OFFSET`, by the offset in the file at which its bytes begin, as 16 hex
digits. So names sort as the bytes follow each other, and only one writer can own a position: to
append is to be the first who creates the object at the end. All integers are little-endian:

     0  8 bytes   `AFPIECE1`
     8  u64       the offset, as in the name
    16  16 bytes  the writer: random, chosen by whoever appends to the file
    32  u32       crc32 (zlib's) of the 32 bytes before and of all bytes after this number
    36            the bytes of the file from that offset on

A *pack* is a piece with values. Each value has its hash in the ref that names it, so the bytes are
not summed once more: a pack begins with `AFPACKS1`, and its checksum is that of the 32 bytes before
and of the number of bytes after it, as a u64.

A piece without bytes is the *seal*: the file ends there, and nobody can append any more, because
the position is taken. Whoever wants to end the writing of somebody else creates it.

The *chain* are the pieces from offset 0 on that follow each other without a gap, up to the seal if
there is one. Any other piece is not part of the file: a writer that was sealed off may have left
it. The lengths of objects tell where pieces end, so a listing is enough to know the chain.

Nothing here makes a request.
"""

from __future__ import annotations

import re
import struct
from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from asyncflow.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD: Final = struct.Struct("<8sQ16s")
_CHECKSUM: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<Q")
_MAGIC: Final = b"AFPIECE1"
_PACK_MAGIC: Final = b"AFPACKS1"
HEADER_BYTES: Final = _HEAD.size + _CHECKSUM.size
"""How long a piece without bytes is."""
WRITER_BYTES: Final = 16

MOST_BYTES: Final = 8 << 20
"""The most bytes of the file in one piece: what a slow line can send within one request."""

_NAME: Final = re.compile(r"[0-9a-f]{16}")
_MAX_OFFSET: Final = 1 << 62


class Piece(NamedTuple):
    """A part of an append-only file."""

    offset: int
    writer: bytes
    data: bytes

    @property
    def is_seal(self) -> bool:
        """Whether the file ends here for good."""
        return not self.data

    @property
    def end(self) -> int:
        """The offset at which the next piece begins."""
        return self.offset + len(self.data)

    def pack(self) -> bytes:
        """The bytes of its object."""
        head = _HEAD.pack(_MAGIC, self.offset, self.writer)
        return head + _CHECKSUM.pack(crc32(self.data, crc32(head))) + self.data

    @classmethod
    def parse(cls, packed: bytes, offset: int) -> Piece:
        """The piece in the bytes of the object at that offset.

        Raises:
            RecordError: They are not those of a piece that was stored there.
        """
        head, data = packed[: _HEAD.size], packed[HEADER_BYTES:]
        if len(packed) < HEADER_BYTES or not head.startswith((_MAGIC, _PACK_MAGIC)):
            raise RecordError("it is not a piece of a file")
        (checksum,) = _CHECKSUM.unpack_from(packed, _HEAD.size)
        summed = data if head.startswith(_MAGIC) else _LENGTH.pack(len(data))
        if crc32(summed, crc32(head)) != checksum:
            raise RecordError("its bytes are not those that were written")
        _, at, writer = _HEAD.unpack(head)
        if at != offset:
            raise RecordError(f"it is the piece of offset {at}")
        return cls(at, writer, data)


def pack_header(offset: int, writer: bytes, size: int) -> bytes:
    """The first `HEADER_BYTES` of a pack with so many bytes of the file."""
    head = _HEAD.pack(_PACK_MAGIC, offset, writer)
    return head + _CHECKSUM.pack(crc32(_LENGTH.pack(size), crc32(head)))


def name_of(offset: int) -> str:
    """The name of the piece that begins at an offset."""
    return f"{offset:016x}"


def offset_in(name: str) -> int | None:
    """The offset that the last part of an object's name tells; None if it names no piece."""
    last = name.rpartition("/")[2]
    if not _NAME.fullmatch(last):
        return None
    offset = int(last, 16)
    return offset if offset < _MAX_OFFSET else None


class Chain:
    """The pieces that make up a file, as far as they are known. It only grows."""

    def __init__(self) -> None:
        self._starts: array[int] = array("Q")
        self.end = 0
        """The length of the file."""
        self.is_sealed = False
        """Whether that is its length for good."""

    def __repr__(self) -> str:
        sealed = ", sealed" if self.is_sealed else ""
        return f"<Chain of {len(self)} pieces, {self.end} bytes{sealed}>"

    def __len__(self) -> int:
        """How many pieces have bytes of the file."""
        return len(self._starts)

    def add(self, offset: int, size: int) -> bool:
        """Add the piece at an offset with so many bytes; whether it is part of the chain.

        Pieces are added in the order of their offsets. One that is known already changes nothing.
        """
        if self.is_sealed or offset != self.end or size < 0:
            return False
        if size:
            self._starts.append(offset)
            self.end += size
        else:
            self.is_sealed = True
        return True

    def add_listed(self, listed: Iterable[tuple[str, int]]) -> None:
        """Add the pieces of a listing: names in order, and the lengths of the objects."""
        for name, size in listed:
            offset = offset_in(name)
            if offset is not None:
                self.add(offset, size - HEADER_BYTES)

    def bounds(self, number: int) -> tuple[int, int]:
        """The offsets at which a piece begins and ends."""
        after = number + 1
        end = self._starts[after] if after < len(self._starts) else self.end
        return self._starts[number], end

    def find(self, offset: int) -> int:
        """The number of the piece with the byte at an offset.

        Raises:
            IndexError: The file has no such byte.
        """
        if not 0 <= offset < self.end:
            message = f"there is no byte {offset} in a file of {self.end}"
            raise IndexError(message)
        return bisect_right(self._starts, offset) - 1

    def covering(self, offset: int, size: int) -> Iterator[tuple[int, int, int]]:
        """The pieces with a range of the file: number, and from where to where within the piece.

        Where the file ends before the range does, so does this.
        """
        end = min(offset + size, self.end)
        while offset < end:
            number = self.find(offset)
            begin, after = self.bounds(number)
            yield number, offset - begin, min(end, after) - begin
            offset = after
