"""Encodes a foreach list so that task *i* can read item *i* without the other items.

    items     the bytes of each item, encoded by itself; those with out-of-band buffers begin at a
              multiple of 64. Behind each item is its short text: its length in one byte, and
              so many bytes of UTF-8
    code      the code of the classes from the flow's own file that items use, once for all: a
              pickled dict from digest to code; absent where there is none
    table     32 bytes for each item:
                u64  where its bytes begin
                u64  how many there are, and in the top 8 bits the item's own encoding
                16   blake3 of these two and the bytes, truncated
    trailer   64 bytes:
                4    `AFI1`
                u8   0 for a list, 1 for a tuple
                u8   1 if items have texts behind them, else 0, as in lists of earlier versions
                2    zero
                u64  count
                u64  where the code begins
                u64  how many bytes that is
                16   blake3 of the code, truncated
                16   blake3 of the trailer up to here, truncated

Integers are little-endian, and places count from the beginning of the whole. Table and count come
last so that items can be written while a generator is still yielding. With the trailer known, an
item costs two reads (its entry, its bytes) and one small hash.
"""

from __future__ import annotations

import pickle
import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from asyncflow._quick_classes import NamedTuple
from asyncflow.codec.classes import CodeMissingError, adopt_code
from asyncflow.codec.encoded import (
    ALIGNMENT,
    NOT_SHORT,
    batches,
    decode_value,
    encode_value,
    short_copy,
)
from asyncflow.codec.pickles import PROTOCOL
from asyncflow.codec.short_text import ShortTexts
from asyncflow.values import ITEM_DIGEST_BYTES, MOST_ITEM_CHARACTERS, Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import IO

    from asyncflow.codec.encoded import Encoded
    from asyncflow.codec.pickles import Chunk

_MAGIC: Final = b"AFI1"
_PLACE: Final = struct.Struct("<QQ")
_TRAILER: Final = struct.Struct("<4sBB2xQQQ16s")
_DIGEST_BYTES: Final = 16  # 2**64 tries for two items that look the same
_ENTRY: Final = struct.Struct("<QQ16s")
ENTRY_BYTES: Final = _ENTRY.size
TRAILER_BYTES: Final = _TRAILER.size + _DIGEST_BYTES
_LENGTH_BITS: Final = 56
_LENGTH_MASK: Final = (1 << _LENGTH_BITS) - 1
_KINDS: Final = (list, tuple)
_LAST_ENCODING: Final = int(max(Encoding))
_TABLE_BYTES: Final = 4 << 20  # of the table in memory: 131,072 items
_TABLE_PIECE_BYTES: Final = 1 << 20
MOST_TEXT_BYTES: Final = 255
"""The longest text behind an item."""
_JOINED_BYTES: Final = 4096  # up to here copying an item costs less than a second call of the hash
_PICKLED: Final = int(Encoding.PICKLE) << _LENGTH_BITS
_PLAIN_TEXT: Final = MOST_ITEM_CHARACTERS - 2  # up to here the text of a short item is its `repr`
_SHORT_AT_ONCE: Final = 256  # a megabyte at most, and a few KB as a rule
_LENGTHS: Final = tuple(bytes([length]) for length in range(MOST_TEXT_BYTES + 1))


class DamagedError(ValueError):
    """The bytes are not those of a foreach list."""


class Entry(NamedTuple):
    """The place of one item, and its digest."""

    offset: int
    size: int
    encoding: int
    prefix: bytes
    digest: bytes

    @classmethod
    def parse(cls, table: bytes, end: int, at: int = 0) -> Entry:
        """Read an entry of the table, which begins at `at`; `end` is where the items end.

        Raises:
            DamagedError: It cannot be one.
        """
        if len(table) < at + ENTRY_BYTES:
            raise DamagedError("the table of items is cut short")
        offset, packed, digest = _ENTRY.unpack_from(table, at)
        size, encoding = packed & _LENGTH_MASK, packed >> _LENGTH_BITS
        if offset + size > end or encoding > _LAST_ENCODING:
            raise DamagedError("the table of items points nowhere")
        return _new_entry((offset, size, encoding, table[at : at + _PLACE.size], digest))

    @classmethod
    def parse_all(cls, table: bytes, end: int) -> list[Entry]:
        """Read all entries of a part of the table, as `parse` reads one; each takes half the time.

        Raises:
            DamagedError: One of them cannot be one.
        """
        entries = []
        for at, (offset, packed, digest) in enumerate(_ENTRY.iter_unpack(table)):
            size, encoding = packed & _LENGTH_MASK, packed >> _LENGTH_BITS
            if offset + size > end or encoding > _LAST_ENCODING:
                raise DamagedError("the table of items points nowhere")
            prefix = table[at * ENTRY_BYTES : at * ENTRY_BYTES + _PLACE.size]
            entries.append(_new_entry((offset, size, encoding, prefix, digest)))
        return entries

    def check(self, data: Chunk) -> None:
        """Compare an item's bytes with its digest.

        Raises:
            DamagedError: They are not what was written.
        """
        if len(data) < _JOINED_BYTES:
            digest = blake3(self.prefix + data).digest(_DIGEST_BYTES)
        else:
            hasher = blake3(self.prefix)
            hasher.update(data)
            digest = hasher.digest(_DIGEST_BYTES)
        if digest != self.digest:
            raise DamagedError("the bytes of an item are not those that were written")


_new_entry: Final = partial(tuple.__new__, Entry)  # half the time of a call of the class


class Trailer(NamedTuple):
    """The end of a foreach list, which describes the whole."""

    kind: type[list[Any] | tuple[Any, ...]]
    length: int
    table: int
    code: int
    code_size: int
    code_digest: bytes
    has_texts: bool

    @classmethod
    def parse(cls, data: bytes, size: int) -> Trailer:
        """Read the last `TRAILER_BYTES` of `size` bytes.

        Raises:
            DamagedError: They are not a trailer.
        """
        head, digest = bytes(data[: _TRAILER.size]), bytes(data[_TRAILER.size :])
        if len(data) != TRAILER_BYTES or blake3(head).digest(_DIGEST_BYTES) != digest:
            raise DamagedError("the end of the list is not what was written")
        magic, kind, texts, count, code, code_size, code_digest = _TRAILER.unpack(head)
        table = size - TRAILER_BYTES - count * ENTRY_BYTES
        if magic != _MAGIC or kind >= len(_KINDS) or table < code + code_size:
            raise DamagedError("the end of the list is of another kind")
        return cls(_KINDS[kind], count, table, code, code_size, code_digest, bool(texts))

    def entry(self, index: int) -> int:
        """Where the entry of an item lies."""
        return self.table + index * ENTRY_BYTES

    def text_place(self, entry: Entry) -> tuple[int, int]:
        """Where the text of an item lies, and the most bytes that it takes."""
        begin = entry.offset + entry.size
        return begin, min(1 + MOST_TEXT_BYTES, self.code - begin) if self.has_texts else 0

    def adopt_code(self, section: Chunk) -> None:
        """Add the code section that the items share to the code that is known.

        Raises:
            DamagedError: It is not what was written.
        """
        if blake3(section).digest(_DIGEST_BYTES) != self.code_digest:
            raise DamagedError("the code of the items' classes is not what was written")
        adopt_code(pickle.loads(section))


def text_in(data: Chunk) -> str:
    """The text that these bytes begin with, see `Trailer.text_place`."""
    found = bytes(data[: 1 + data[0]]) if data else b""
    return found[1:].decode("utf-8", "replace")


def item_digest(encoded: Encoded) -> bytes:
    """What tells an item from another one, wherever in a list it is: `ITEM_DIGEST_BYTES`."""
    hasher = blake3(bytes([encoded.encoding]))
    for batch in batches(encoded.chunks):
        for piece in batch:
            hasher.update(piece)
    return hasher.digest(ITEM_DIGEST_BYTES)


class ItemsEncoder:
    """Encodes the items of a list one by one.

    Write everything that `add` and `finish` yield, in that order and without gaps. The table of
    many items waits in a file without a name, so that memory does not grow with their number.
    """

    def __init__(self, kind: type = list, name: str = "") -> None:
        self._kind = _KINDS.index(tuple) if kind is tuple else 0
        self._name = name
        self._table = bytearray()
        self._file: IO[bytes] | None = None  # the table's beginning
        self._code: dict[bytes, bytes] = {}
        self._texts = ShortTexts()
        self.count = 0
        """How many items there are so far."""
        self.size = 0
        """How many bytes there are so far."""

    def add(self, item: object) -> Iterator[list[bytes]]:
        """Encode one more item, in batches; take all batches before the next item.

        Raises:
            ArtifactPickleError: The item cannot be pickled.
        """
        return self.add_encoded(self.encode(item), self.text_of(item))

    def add_all(self, items: Iterable[object]) -> Iterator[list[bytes]]:
        """Encode more items, in batches; take all batches.

        The bytes are those that `add` makes of each. Short ones, see `is_short`, take a third of
        the time or less.

        Raises:
            ArtifactPickleError: An item cannot be pickled.
        """
        short: list[object] = []
        for item in items:
            one = short_copy(item)
            if one is not NOT_SHORT:
                short.append(one)
                if len(short) < _SHORT_AT_ONCE:
                    continue
            if short:
                yield self._add_short(short)
                short = []
            if one is NOT_SHORT:
                yield from self.add(item)
        if short:
            yield self._add_short(short)

    def _add_short(self, items: Sequence[object]) -> list[bytes]:
        """Add short items; the bytes of each with its text. Half of the time is the hash's."""
        size, table, found = self.size, self._table, []
        for item in items:
            data, text = pickle.dumps(item, PROTOCOL), repr(item)
            if len(text) <= _PLAIN_TEXT and text.isascii() and " at 0x" not in text:
                behind = _LENGTHS[len(text)] + text.encode()
            else:  # it is to be cut, or cleaned
                behind = self.text_of(item)
            prefix = _PLACE.pack(size, len(data) | _PICKLED)
            table += prefix + blake3(prefix + data).digest(_DIGEST_BYTES)
            both = data + behind
            found.append(both)
            size += len(both)
        self.size = size
        self.count += len(found)
        if len(table) >= _TABLE_BYTES:
            self._put_aside()
        return found

    def _enter(self, prefix: bytes, digest: bytes, size: int) -> None:
        """Note an item in the table."""
        self._table += prefix + digest
        if len(self._table) >= _TABLE_BYTES:
            self._put_aside()
        self.size += size
        self.count += 1

    def encode(self, item: object) -> Encoded:
        """Encode the next item, without adding it.

        Raises:
            ArtifactPickleError: The item cannot be pickled.
        """
        name = f"{self._name}[{self.count}]" if self._name else ""
        return encode_value(item, name, self._code)

    def text_of(self, item: object) -> bytes:
        """The short text of an item, as it is stored behind it."""
        text = self._texts.of(item).encode("utf-8", "backslashreplace")
        if len(text) > MOST_TEXT_BYTES:
            text = text[:MOST_TEXT_BYTES].decode("utf-8", "ignore").encode()
        return _LENGTHS[len(text)] + text

    def part(self) -> ItemsEncoder:
        """An encoder for a part of the same items, encoded by this one."""
        part = ItemsEncoder(_KINDS[self._kind], self._name)
        part._code, part._texts = self._code, self._texts
        return part

    def add_encoded(self, encoded: Encoded, text: bytes) -> Iterator[list[bytes]]:
        """Add one more item that is encoded already; take all batches before the next item.

        `text` is what `text_of` returned for it.
        """
        if encoded.encoding is Encoding.BUFFERS and self.size % ALIGNMENT:
            gap = -self.size % ALIGNMENT
            yield [bytes(gap)]
            self.size += gap
        prefix = _PLACE.pack(self.size, encoded.size | encoded.encoding << _LENGTH_BITS)
        hasher = blake3(prefix)
        for batch in batches(encoded.chunks):
            for piece in batch:
                hasher.update(piece)
            yield batch
        yield [text]
        self._enter(prefix, hasher.digest(_DIGEST_BYTES), encoded.size + len(text))

    def _put_aside(self) -> None:
        """Move the table to a file."""
        if self._file is None:
            from tempfile import TemporaryFile  # few lists are so long

            self._file = TemporaryFile()  # noqa: SIM115 - it ends with the encoder
        self._file.write(self._table)
        self._table.clear()

    def finish(self) -> Iterator[bytes]:
        """The bytes that follow the last item."""
        code = pickle.dumps(self._code, 5) if self._code else b""
        code_digest = blake3(code).digest(_DIGEST_BYTES)
        place = self.count, self.size, len(code), code_digest
        head = _TRAILER.pack(_MAGIC, self._kind, 1, *place)
        self.size += len(code) + self.count * ENTRY_BYTES + TRAILER_BYTES
        yield code
        if self._file is not None:
            self._file.seek(0)
            while piece := self._file.read(_TABLE_PIECE_BYTES):
                yield piece
            self._file.close()
        yield bytes(self._table)
        yield head + blake3(head).digest(_DIGEST_BYTES)

    @property
    def type_name(self) -> str:
        """The type of the list when it is read."""
        return _KINDS[self._kind].__name__


def decode_items(data: memoryview) -> list[object] | tuple[object, ...]:
    """Decode the whole list, whose bytes have been checked already.

    Raises:
        DamagedError: The bytes are no foreach list.
    """
    trailer = Trailer.parse(bytes(data[-TRAILER_BYTES:]), len(data))
    if trailer.code_size:
        trailer.adopt_code(data[trailer.code : trailer.code + trailer.code_size])
    table = bytes(data[trailer.table : trailer.entry(trailer.length)])
    items = []
    for at in range(0, len(table), ENTRY_BYTES):
        entry = Entry.parse(table[at : at + ENTRY_BYTES], trailer.code)
        items.append(decode_value(entry.encoding, data[entry.offset : entry.offset + entry.size]))
    return trailer.kind(items)


__all__ = [
    "ENTRY_BYTES",
    "TRAILER_BYTES",
    "CodeMissingError",
    "DamagedError",
    "Entry",
    "ItemsEncoder",
    "Trailer",
    "decode_items",
    "item_digest",
    "text_in",
]
