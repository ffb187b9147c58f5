"""Values in, refs out: how a worker writes its artifacts, and how everybody reads them.

The cost decides where a value is stored; the constants explain it. Everything here waits for the
disk, so call it in a worker or a thread, never on an event loop. Several threads at once may read
with either class; only one at a time may write.
"""

from __future__ import annotations

import pickle
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Self

from blake3 import blake3

from asyncflow.codec import Encoded, ItemsEncoder, decode, digest, encode, text_stream
from asyncflow.codec.encoded import NOT_SHORT, decode_value, short_copy
from asyncflow.codec.items import (
    ENTRY_BYTES,
    TRAILER_BYTES,
    CodeMissingError,
    DamagedError,
    Entry,
    Trailer,
    text_in,
)
from asyncflow.codec.pickles import PROTOCOL
from asyncflow.errors import ArtifactError
from asyncflow.store.change_detection import Loaded
from asyncflow.store.near_items import MOST_BYTES, MOST_ITEMS, NearItems, is_near
from asyncflow.values import ArtifactRef, Encoding, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.codec import Chunk
    from asyncflow.store.near_items import FoundItem
    from asyncflow.store.value_interface import GoOn, LargeValue, Later, ValueSink, ValueSource

INLINE_BYTES: Final = 1024
"""Up to this size a value is stored in its ref.

Measured through a pipe, the journal and a second pipe: 4 µs cheaper than a segment's append, read
and two hashes. It breaks even at 5 KiB where one task follows, and at 1 KiB where five do.
"""

BLOB_BYTES: Final = 256 << 10
"""From this size on a value is a file of its own, which can be mapped and shared between runs.

Measured: creating and renaming a file costs 50 µs (on a bad day 900) above appending. At this
length that is what hashing and writing cost; below, files would cost the most of it.
"""

# Plain numbers: comparing with a member of an enum takes longer than a look-up in a dictionary.
_INLINE, _SEGMENT, _BLOB = int(Place.INLINE), int(Place.SEGMENT), int(Place.BLOB)
_MAPPED = frozenset(
    {int(Encoding.BUFFERS), int(Encoding.ITEMS)}
)  # values in these encodings may use the stored bytes as their memory

_CHECKED_AT_ONCE_BYTES: Final = (
    1 << 20
)  # hashing this many takes as long as handing them to a thread
# For any other encoding, unpickling takes far longer than hashing first.
_CHECKED_LATER: Final = frozenset({int(Encoding.BUFFERS), int(Encoding.BYTES)})

_KEPT_TRAILERS: Final = 256
"""How many trailers of foreach lists a reader keeps; a task needs one per level of nesting."""


def ref_to_short(value: Any) -> ArtifactRef | None:
    """The ref that `ArtifactWriter.put` makes of a short value, see `is_short`.

    None for any other value, and for one that is not stored in its ref. Most artifacts of most
    tasks are short, and `put` takes two to four times as long.
    """
    short = short_copy(value)
    if short is NOT_SHORT:
        return None
    data = pickle.dumps(short, PROTOCOL)
    if len(data) > INLINE_BYTES:
        return None
    return _new_ref((_INLINE, _PICKLE, type(value).__name__, len(data), b"", "", 0, data))


_new_ref: Final = partial(tuple.__new__, ArtifactRef)  # half the time of a call of the class
_PICKLE: Final = int(Encoding.PICKLE)


class ArtifactWriter:
    """Stores the values of one run; a worker has one per run.

    Close the writer at the end.
    """

    def __init__(self, sink: ValueSink) -> None:
        """Create a writer; `sink` takes the bytes."""
        self._sink = sink
        self.sync: Final = sink.sync
        """Call it before a task's report is sent; see `ValueSink.sync`."""

    def __repr__(self) -> str:
        return f"<ArtifactWriter to {self._sink!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def opened(self) -> Sequence[Descriptor]:
        """Its descriptors that are open now, always in the same list."""
        return self._sink.opened

    def close(self) -> None:
        """Close its file; writing another value opens it again."""
        self._sink.close()

    def put(self, value: Any, *, name: str = "", go_on: GoOn | None = None) -> ArtifactRef:
        """Store a value; `name` is the artifact's, for the error.

        For a large value, `go_on` is called before each megabyte; an exception from it is passed
        on, and the value is not stored.

        Raises:
            ArtifactPickleError: It cannot be pickled.
            StoreError: It cannot be written.
        """
        return self.put_encoded(encode(value, name=name), go_on)

    def put_encoded(
        self, encoded: Encoded, go_on: GoOn | None = None, *, once: bool = False
    ) -> ArtifactRef:
        """Store an encoded value; `go_on` is as in `put`.

        With `once`, a small value is stored by its hash too, so that runs which store the same
        value share it.

        Another thread may change its chunks meanwhile. The stored value is still valid: its hash is
        that of the bytes that were written.

        Raises:
            StoreError: It cannot be written.
        """
        encoding, chunks, size, type_name, _ = encoded
        if once or size >= BLOB_BYTES:
            hashed = self._sink.put_large(chunks, size, go_on)
            return ArtifactRef(_BLOB, int(encoding), type_name, size, hashed, "", 0, b"")
        data = b"".join(chunks)
        if size <= INLINE_BYTES:
            return ArtifactRef(_INLINE, int(encoding), type_name, size, b"", "", 0, data)
        hashed = digest(data)
        file, offset = self._sink.append(data)
        return ArtifactRef(_SEGMENT, int(encoding), type_name, size, hashed, file, offset, b"")

    def put_stream(self, pieces: Iterable[bytes], size: int, *, is_text: bool) -> ArtifactRef:
        """Store `bytes`, or the `str` of these bytes in UTF-8, with a few megabytes in memory.

        It is stored as a file of its own, so it should be large.

        Raises:
            StoreError: It cannot be written.
            Exception: What `pieces` raises; then nothing is stored.
        """
        encoding, kind = Encoding.BYTES, "bytes"
        if is_text:
            before, after = text_stream(size)
            pieces, size = chain([before], pieces, [after]), size + len(before) + len(after)
            encoding, kind = Encoding.PICKLE, "str"
        hashed = self._sink.put_large(pieces, size)
        return ArtifactRef(_BLOB, int(encoding), kind, size, hashed, "", 0, b"")

    def put_items(
        self, items: Iterable[Any], *, name: str = "", go_on: GoOn | None = None
    ) -> tuple[int, ArtifactRef]:
        """Store the items of a foreach, each readable by itself; return their number.

        A tuple is read back as a tuple, everything else as a list. Two items that share an object
        no longer share it. A generator never has more than a megabyte and one item in memory.
        If it raises, the exception is passed on, and nothing is stored. `go_on` is as in `put`.

        Raises:
            ArtifactPickleError: An item cannot be pickled; the message names it.
            StoreError: They cannot be written.
        """
        with self.begin_items(ItemsEncoder(type(items), name), go_on) as pending:
            for batch in pending.encoder.add_all(items):
                pending.write(batch)
            return pending.encoder.count, pending.finish()

    def begin_items(self, encoder: ItemsEncoder, go_on: GoOn | None = None) -> PendingItems:
        """Store items that come one after the other; `go_on` is as in `put`.

        Use the result in a `with` block; leaving that before `finish` drops the items.
        """
        return PendingItems(self, self._sink, encoder, go_on)


class PendingItems:
    """The items of a foreach, while they are being stored."""

    def __init__(
        self, writer: ArtifactWriter, sink: ValueSink, encoder: ItemsEncoder, go_on: GoOn | None
    ) -> None:
        """Write what `encoder` makes of the items."""
        self.encoder = encoder
        """Encodes the items; `write` everything that it yields."""
        self._writer, self._sink, self._go_on = writer, sink, go_on
        self._stack = ExitStack()
        self._blob: LargeValue | None = None
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(exc_type, exc, traceback)

    def write(self, batch: Sequence[bytes]) -> None:
        """Take some bytes of the items; no more than a megabyte of them is kept in memory.

        Raises:
            StoreError: They cannot be written.
        """
        self._waiting += batch
        self._waiting_bytes += sum(map(len, batch))
        if self._waiting_bytes >= BLOB_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        if self._go_on is not None:
            self._go_on()
        if self._blob is None:
            self._blob = self._stack.enter_context(self._sink.begin_large())
        self._blob.write_and_hash(self._waiting)
        self._waiting, self._waiting_bytes = [], 0

    def finish(self) -> ArtifactRef:
        """Store the items, to which none is added any more.

        Raises:
            StoreError: They cannot be written.
        """
        encoder = self.encoder
        for piece in encoder.finish():
            if self._blob is not None and self._waiting_bytes >= BLOB_BYTES:
                self._write_out()
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
        if self._blob is None:
            value = Encoded(Encoding.ITEMS, [*self._waiting], encoder.size, encoder.type_name)
            return self._writer.put_encoded(value)
        self._blob.write_and_hash(self._waiting)
        hashed = self._blob.digest
        self._blob.commit(hashed)
        return ArtifactRef(
            place=_BLOB,
            encoding=int(Encoding.ITEMS),
            type_name=encoder.type_name,
            size=encoder.size,
            digest=hashed,
            file="",
            offset=0,
            data=b"",
        )


class ArtifactReader:
    """Reads the values of one flow's runs, from any process, while they run or later.

    `name` in its methods is the artifact's name or pathspec, for the errors.
    """

    def __init__(self, source: ValueSource) -> None:
        self._source = source
        self._trailers: dict[bytes, Trailer] = {}
        self._near: NearItems | None = None
        """The list and the index of the item whose text was read last, its entry, its bytes."""

    def __repr__(self) -> str:
        return f"<ArtifactReader of {self._source!r}>"

    # --- whole values ---------------------------------------------------------------------------

    def load(self, ref: ArtifactRef, name: str = "", later: Later | None = None) -> Loaded:
        """The value that a ref names, checked against its hash.

        With `later`, the check of a large value that refers to its bytes is passed to that, to be
        run afterwards. The caller must treat an exception of the check as one raised here.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
            ArtifactError: It cannot be unpickled here; the cause says why.
        """
        data = self.load_bytes(ref, name, later)
        try:
            value = decode(ref.encoding, data)
        except MemoryError:
            raise
        except Exception as error:
            if later is not None:
                self.load_bytes(ref, name)  # raises if the bytes are damaged
            raise _not_decoded(ref, name, error) from error
        mapped = ref.place == _BLOB and ref.encoding in _MAPPED
        return Loaded(value, ref, memoryview(data) if mapped else None)

    def load_bytes(self, ref: ArtifactRef, name: str = "", later: Later | None = None) -> Chunk:
        """The stored bytes of a value, checked against their hash; the caller may change them.

        They have memory of their own only if the value has buffers; else they may be `bytes`.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        if ref.place == _INLINE:
            return ref.data
        if ref.place == _BLOB:
            if not _is_checked_later(ref.size, ref.encoding):
                later = None
            return self._source.open_large(ref.digest, ref.size, name=name, later=later)
        data = self._read(ref, 0, ref.size, name)
        if blake3(data).digest() != ref.digest:
            raise self._source.corrupt(ref, name, f"from byte {ref.offset} on it has another hash")
        return data

    def verify(self, ref: ArtifactRef, name: str = "") -> None:
        """Read a value's bytes and hash them, even if this process has done so before.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        if ref.place == _BLOB:
            self._source.verify_large(ref.digest, ref.size, name=name)
        else:
            self.load_bytes(ref, name)

    def sha(self, ref: ArtifactRef) -> str:
        """blake3 of a value's stored bytes in hex: equal for equal values, wherever stored."""
        return (ref.digest or digest(ref.data)).hex()

    # --- foreach lists --------------------------------------------------------------------------

    def load_item(
        self, ref: ArtifactRef, index: int, name: str = "", later: Later | None = None
    ) -> Any:
        """One item of a value stored by `put_items`, at the same cost for any length of the list.

        `later` is as in `load`.

        Raises:
            IndexError: There is no such item.
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
            ArtifactError: It cannot be unpickled here; the cause tells why.
        """
        data: Chunk
        try:
            near = self._near  # a small item that was read with its neighbours, if this is one
            if near is None or near.digest != ref.digest or index not in near.found:
                entry, data = self._read_item(ref, self._trailer_for(ref, index, name), index, name)
            else:
                entry, data, _ = near.found[index]
            if later is None or not _is_checked_later(entry.size, entry.encoding):
                later = None
                entry.check(data)
        except DamagedError as error:
            raise self._source.corrupt(ref, f"{name}[{index}]", str(error)) from error
        try:
            item = self._decode_item(ref, entry, data, name)
        except MemoryError:
            raise
        except Exception as error:
            label = f"{name}[{index}]"
            self._check_item(ref, label, entry, data)
            raise _not_decoded(ref, label, error) from error
        if later is not None:
            label = f"{name}[{index}]"
            if entry.encoding in _MAPPED:  # the value may be changed in place
                data = self._read(ref, entry.offset, entry.size, label, entry.encoding)
            later(entry.digest, partial(self._check_item, ref, label, entry, data))
        return item

    def item_text(self, ref: ArtifactRef, index: int, name: str = "") -> str:
        """The short text of one item, without unpickling it; empty in runs of earlier versions.

        Raises:
            IndexError: There is no such item.
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        known = self._near
        if known is not None and known.digest == ref.digest and index in known.found:
            return known.found[index].text
        trailer = self._trailer_for(ref, index, name)
        if not trailer.has_texts:
            return ""
        try:
            near, entry = self._entry_of(ref, trailer, index, name)
        except DamagedError as error:
            raise self._source.corrupt(ref, f"{name}[{index}]", str(error)) from error
        if not (ref.digest and is_near(entry)):
            place, size = trailer.text_place(entry)
            label = f"{name}[{index}]"
            return text_in(self._read(ref, place, size, label, int(Encoding.BYTES)))
        return self._find_near(ref, trailer, near, entry, name, index).text

    def _read_item(
        self, ref: ArtifactRef, trailer: Trailer, index: int, name: str
    ) -> tuple[Entry, Chunk]:
        """The entry of an item, and the item's bytes. Small neighbours are read with them."""
        near, entry = self._entry_of(ref, trailer, index, name)
        if ref.digest and is_near(entry):
            return entry, self._find_near(ref, trailer, near, entry, name, index).data
        label = f"{name}[{index}]"
        return entry, self._read(ref, entry.offset, entry.size, label, entry.encoding)

    def _entry_of(
        self, ref: ArtifactRef, trailer: Trailer, index: int, name: str
    ) -> tuple[NearItems, Entry]:
        """The entry of an item, with those of its neighbours."""
        near = self._near
        if near is not None and near.digest == ref.digest:
            entry = near.entry(index, trailer)
            if entry is not None:
                return near, entry
        size = min(MOST_ITEMS, trailer.length - index) * ENTRY_BYTES
        table = bytes(self._read(ref, trailer.entry(index), size, f"{name}[{index}]"))
        return NearItems(ref.digest, index, table, {}), Entry.parse(table, trailer.code)

    def _find_near(
        self,
        ref: ArtifactRef,
        trailer: Trailer,
        near: NearItems,
        entry: Entry,
        name: str,
        index: int,
    ) -> FoundItem:
        """A small item; it is read with what follows it, unless it was read before."""
        if not near.has_data(entry, trailer):
            size = min(MOST_BYTES, trailer.code - entry.offset)
            label = f"{name}[{index}]"
            data = bytes(self._read(ref, entry.offset, size, label, entry.encoding))
            near = near._replace(found={}, start=entry.offset, data=data)
            self._near = near  # as a whole: several threads may read
        return near.find(index, entry, trailer)

    def _check_item(self, ref: ArtifactRef, label: str, entry: Entry, data: Chunk) -> None:
        try:
            entry.check(data)
        except DamagedError as error:
            raise self._source.corrupt(ref, label, str(error)) from error

    def _decode_item(self, ref: ArtifactRef, entry: Entry, data: Chunk, name: str) -> Any:
        try:
            return decode_value(entry.encoding, data)
        except CodeMissingError:
            trailer = self._trailer(ref, name)
            trailer.adopt_code(self._read(ref, trailer.code, trailer.code_size, ""))
            return decode_value(entry.encoding, data)

    def item_count(self, ref: ArtifactRef, name: str = "") -> int:
        """How many items a value stored by `put_items` has.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        return self._trailer(ref, name).length

    def _trailer_for(self, ref: ArtifactRef, index: int, name: str) -> Trailer:
        """The trailer of a list that should have such an item."""
        trailer = self._trailers.get(ref.digest) or self._trailer(ref, name)
        if not 0 <= index < trailer.length:
            raise IndexError(f"there is no item {index} among {trailer.length}")
        return trailer

    def _trailer(self, ref: ArtifactRef, name: str) -> Trailer:
        trailer = self._trailers.get(ref.digest)
        if trailer is not None:
            return trailer
        data = self._read(ref, ref.size - TRAILER_BYTES, TRAILER_BYTES, name)
        try:
            trailer = Trailer.parse(bytes(data), ref.size)
        except DamagedError as error:
            raise self._source.corrupt(ref, name, str(error)) from error
        if ref.digest:
            if len(self._trailers) >= _KEPT_TRAILERS:
                self._trailers.clear()
            self._trailers[ref.digest] = trailer
        return trailer

    # --- bytes ----------------------------------------------------------------------------------

    def read_range(self, ref: ArtifactRef, offset: int, size: int, name: str = "") -> bytes:
        """A part of a value's stored bytes, for who looks at it without opening it.

        Only its length is checked, not the hash: that is of the whole.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: The file ends before.
        """
        return bytes(self._read(ref, offset, size, name, int(Encoding.BYTES)))

    def _read(
        self, ref: ArtifactRef, offset: int, size: int, name: str, encoding: int | None = None
    ) -> Chunk:
        """A range of a value's bytes; only its length is checked."""
        if ref.place == _INLINE:
            return ref.data[offset : offset + size]
        mapped = (ref.encoding if encoding is None else encoding) in _MAPPED
        return self._source.read(ref, offset, size, name=name, own=mapped)


def _is_checked_later(size: int, encoding: int) -> bool:
    return size >= _CHECKED_AT_ONCE_BYTES and encoding in _CHECKED_LATER


def _not_decoded(ref: ArtifactRef, name: str, error: Exception) -> ArtifactError:
    what = f"artifact {name!r}" if name else "an artifact"
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        why += "; install it, or put the folder that has it on PYTHONPATH"
    return ArtifactError(
        f"{what}, a {ref.type_name}, cannot be opened here: {why}",
        artifact=name.rpartition("/")[2],
        pathspec=name if "/" in name else "",
    )
