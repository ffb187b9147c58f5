"""Reads the values of a flow's runs: in the cache of this machine, or into it from the store.

A blob is fetched once for all processes of the machine, and mapped from the cache. A piece of a
segment is fetched whole, because the values beside the one that is read are read soon, too. Of a
very large blob only the blocks are fetched that are read, if somebody wants a range of it, such as
the items of a foreach.
"""

from __future__ import annotations

import errno
import time
from bisect import bisect_right
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncflow.errors import ArtifactCorruptError, ArtifactMissingError, RecordError
from asyncflow.store.blobs import BlobStore, corrupt, missing, unreadable
from asyncflow.store.files import open_file, read_at
from asyncflow.store.object_store.pieces import Chain, Piece, name_of
from asyncflow.store.run_ids import REMOVED
from asyncflow.store.value_files import ValueFilesReader
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.codec import Chunk
    from asyncflow.errors import ArtifactError
    from asyncflow.store.object_store.node_cache import NodeCache
    from asyncflow.store.object_store.objects import Objects
    from asyncflow.store.value_interface import Later
    from asyncflow.values import ArtifactRef

WHOLE_BYTES: Final = 64 << 20
"""A blob up to this size is fetched whole if a range of it is read."""
_BLOCK_BYTES: Final = 4 << 20  # of a larger one are fetched together
_TRIES: Final = 3  # if a connection ends within a blob
_LATE_SECONDS: Final = 5.0
"""How long a value in a journal may be on its way to the store."""
_LATE_PAUSE_SECONDS: Final = 0.2
_KNOWN_FILES: Final = 1024

_BLOB = int(Place.BLOB)


def blob_name(digest: bytes) -> str:
    """The name of a blob in an object store."""
    name = digest.hex()
    return f"blobs/{name[:2]}/{name}"


def aside_name(digest: bytes) -> str:
    """The name of a blob that a garbage collection has set aside."""
    return f"gone/{digest.hex()}"


class CachedValues:
    """Reads the values of one flow's runs; see `ValueSource`. Threads may share one."""

    def __init__(self, cache: NodeCache, objects: Objects, flow: str) -> None:
        """Make no request."""
        self._cache, self._objects = cache, objects
        self._flow: Final = f"flows/{flow}"
        self._files = ValueFilesReader(cache.local, flow)
        self._blobs = BlobStore(cache.local)
        self._known: dict[str, _Known] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<CachedValues of {self._flow} in {self._cache.folder}>"

    # --- large values ---------------------------------------------------------------------------

    def open_large(
        self, digest: bytes, size: int, *, name: str = "", later: Later | None = None
    ) -> memoryview:
        """A blob, mapped copy-on-write from the cache.

        Raises:
            ArtifactMissingError: It does not exist.
            ArtifactCorruptError: Its bytes are not those that were stored.
        """
        self._cache.note_use(digest)
        if later is not None:
            later = partial(self._check_later, later)
        try:
            data = self._files.open_large(digest, size, name=name, later=later)
        except (ArtifactMissingError, ArtifactCorruptError):
            self._fetch_blob(digest, size, name)
            data = self._files.open_large(digest, size, name=name, later=later)
        self._cache.make_room_soon()  # not before: this is in use only now
        return data

    def _check_later(self, later: Later, digest: bytes, check: Callable[[], None]) -> None:
        def checked() -> None:
            try:
                check()
            except ArtifactCorruptError:  # of the copy: the next reader gets another one
                self._cache.drop_blob(digest)
                raise

        later(digest, checked)

    def verify_large(self, digest: bytes, size: int, *, name: str = "") -> None:
        """Hash a large value as it is in the store, whatever the cache has.

        Raises:
            ArtifactMissingError: It does not exist.
            ArtifactCorruptError: Its bytes are not those that were stored.
        """
        file = blob_name(digest)
        with self._reading(file, name), self._blobs.writer() as draft:
            found = self._copy(digest, draft.write_and_hash)
            if draft.digest != digest or found != size:
                raise _DamagedError(file, "its bytes have another hash")

    def _fetch_blob(self, digest: bytes, size: int, name: str) -> None:
        """Have a blob in the cache, whole and checked."""
        file = blob_name(digest)
        with self._reading(file, name), self._cache.fetching(digest.hex()):
            with suppress(ArtifactMissingError, ArtifactCorruptError):
                self._files.open_large(digest, size, name=name)  # somebody else has fetched it
                return
            for rest in range(_TRIES - 1, -1, -1):
                try:
                    with self._blobs.writer() as draft:
                        self._copy(digest, draft.write_and_hash)
                        if draft.digest != digest:
                            raise _DamagedError(file, "its bytes have another hash")
                        draft.commit(digest)
                except OSError as error:
                    if isinstance(error, FileNotFoundError) or not rest:
                        raise
                else:
                    break
        self._cache.note_added(size)

    def _copy(self, digest: bytes, write: Callable[[list[bytes]], None]) -> int:
        """Pass the bytes of a blob on, and return how many they are."""
        objects, size = self._objects, 0
        for chunk in self._stream(objects, digest):
            write([chunk])
            size += len(chunk)
        return size

    @staticmethod
    def _stream(objects: Objects, digest: bytes) -> Iterator[bytes]:
        try:
            yield from objects.stream(blob_name(digest))
        except FileNotFoundError:
            # Set aside by a garbage collection, which has not seen that it is still needed.
            try:
                yield from objects.stream(aside_name(digest))
            except FileNotFoundError:
                yield from objects.stream(blob_name(digest))  # it was just put back

    # --- ranges ---------------------------------------------------------------------------------

    def read(
        self, ref: ArtifactRef, offset: int, size: int, *, name: str = "", own: bool = False
    ) -> Chunk:
        """A range of a value's bytes.

        Raises:
            ArtifactMissingError: What holds it is gone.
            ArtifactCorruptError: There are fewer bytes.
        """
        data = self._read(ref, offset, size, name, own=own)
        self._cache.make_room_soon()
        return data

    def _read(self, ref: ArtifactRef, offset: int, size: int, name: str, *, own: bool) -> Chunk:
        if ref.place != _BLOB:
            data = self._read_known(ref, offset, size)
            if data:
                return bytearray(data) if own else data
        with suppress(ArtifactMissingError, ArtifactCorruptError):
            found = self._files.read(ref, offset, size, name=name, own=own)
            if self._is_there(ref, found):
                return found
        if ref.place != _BLOB:
            data = self._read_pieces(ref, offset, size, name)
        elif ref.size <= WHOLE_BYTES:
            self._fetch_blob(ref.digest, ref.size, name)
            return self._files.read(ref, offset, size, name=name, own=own)
        else:
            data = self._read_blocks(ref, offset, size, name)
        return bytearray(data) if own else data

    @staticmethod
    def _is_there(ref: ArtifactRef, data: Chunk) -> bool:
        """Whether these are bytes of the file, and not a hole in a copy of a journal."""
        return not ref.file.endswith("/journal") or any(data)

    def _read_known(self, ref: ArtifactRef, offset: int, size: int) -> bytes:
        """The range if it is in one piece that this process has read before, else nothing."""
        known = self._known.get(f"{self._flow}/{ref.file}")
        if known is None:
            return b""
        start = ref.offset + offset
        data = self._cached_part(known, start, start + size)
        return data if len(data) == size else b""

    def _read_pieces(self, ref: ArtifactRef, offset: int, size: int, name: str) -> bytes:
        start = ref.offset + offset
        file = f"{self._flow}/{ref.file}"
        until = time.monotonic() + (_LATE_SECONDS if file.endswith("/journal") else 0.0)
        with self._reading(file, name):
            while True:
                try:
                    return self._assemble(self._file(file), start, size)
                except FileNotFoundError:
                    with suppress(FileNotFoundError):
                        removed = f"{self._flow}/{REMOVED}/{ref.file}"
                        return self._assemble(self._file(removed), start, size)
                    if time.monotonic() >= until:
                        raise
                    time.sleep(_LATE_PAUSE_SECONDS)

    def _read_blocks(self, ref: ArtifactRef, offset: int, size: int, name: str) -> bytes:
        file = blob_name(ref.digest)
        start = ref.offset + offset
        with self._reading(file, name):
            return self._assemble(self._file(file, ref.size), start, size)

    def _file(self, file: str, size: int = 0) -> _Known:
        with self._lock:
            known = self._known.get(file)
            if known is None:
                if len(self._known) >= _KNOWN_FILES:
                    self._known.clear()
                known = self._known[file] = _Known(file, size)
            return known

    def _assemble(self, known: _Known, offset: int, size: int) -> bytes:
        """A range of a file of the store, from the pieces that cover it."""
        parts, end = [], offset + size
        while offset < end:
            data = self._part(known, offset, end)
            parts.append(data)
            offset += len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, known: _Known, offset: int, end: int) -> bytes:
        """The bytes from an offset on, as far as one piece has them; at least one."""
        data = self._cached_part(known, offset, end)
        if data:
            return data
        with self._cache.fetching(known.name):
            known.look(self._cache)  # another process may have been faster
            data = self._cached_part(known, offset, end)
            if data:
                return data
            start, piece = self._fetch_piece(known, offset)
            self._cache.keep_piece(known.name, start, piece)
            known.add(start, len(piece))
        return bytes(piece[offset - start : end - start])

    def _cached_part(self, known: _Known, offset: int, end: int) -> bytes:
        found = known.find(offset)
        if found is None:
            return b""
        start, size = found
        try:
            path = self._cache.piece(known.name, start)
            return read_at(path, offset - start, min(end, start + size) - offset)
        except FileNotFoundError:  # it was deleted to make room
            known.forget(start)
            return b""

    def _fetch_piece(self, known: _Known, offset: int) -> tuple[int, bytes]:
        """The piece of a file with the byte at an offset, and where it begins.

        Raises:
            FileNotFoundError: The store has none.
        """
        objects = self._objects
        if known.size:
            start = offset - offset % _BLOCK_BYTES
            length = min(_BLOCK_BYTES, known.size - start)
            data = self._get_block(objects, known.name, start, length)
            if len(data) < length:
                raise FileNotFoundError(errno.ENOENT, "it is shorter than it was", known.name)
            return start, data
        start = known.start_of(offset, objects)
        name = f"{known.name}/{name_of(start)}"
        try:
            return start, Piece.parse(objects.get(name), start).data
        except RecordError as error:
            raise _DamagedError(name, str(error)) from error

    @staticmethod
    def _get_block(objects: Objects, name: str, start: int, length: int) -> bytes:
        try:
            return objects.get_range(name, start, length)
        except FileNotFoundError:
            aside = aside_name(bytes.fromhex(name.rpartition("/")[2]))
            return objects.get_range(aside, start, length)

    # --- errors ---------------------------------------------------------------------------------

    def corrupt(self, ref: ArtifactRef, name: str, reason: str) -> ArtifactError:
        """The error for bytes that have changed; the next read gets them anew."""
        open_file.cache_clear()
        file = blob_name(ref.digest) if ref.place == _BLOB else f"{self._flow}/{ref.file}"
        with self._lock:
            known = self._known.pop(file, None)
        if known is not None:
            self._cache.drop_pieces(file)
        return corrupt(name, self._place(file), reason)

    def _place(self, file: str) -> str:
        return f"{self._objects.location}/{file}"

    @contextmanager
    def _reading(self, file: str, name: str) -> Iterator[None]:
        """Turn errors of the store into those of an artifact."""
        place = self._place(file)
        try:
            yield
        except _DamagedError as error:
            raise corrupt(name, self._place(error.file), error.reason) from error
        except FileNotFoundError as error:
            raise missing(name, place) from error
        except OSError as error:
            raise unreadable(name, place, error) from error


class _DamagedError(Exception):
    """An object is not what was written."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file, self.reason = file, reason


class _Known:
    """What is known of one file of the store: its pieces there, and those in the cache."""

    def __init__(self, name: str, size: int) -> None:
        self.name: Final = name
        self.size: Final = size
        """The length of a blob; 0 for a file that is stored as pieces."""
        self._cached: dict[int, int] = {}  # lengths by start
        self._starts: list[int] = []
        self._chain = Chain()
        self._lock = Lock()

    def find(self, offset: int) -> tuple[int, int] | None:
        """Start and length of the cached piece with the byte at an offset."""
        with self._lock:
            at = bisect_right(self._starts, offset) - 1
            if at < 0:
                return None
            start = self._starts[at]
            size = self._cached[start]
            return (start, size) if offset < start + size else None

    def look(self, cache: NodeCache) -> None:
        """Look which pieces the cache has."""
        found = cache.pieces(self.name)
        with self._lock:
            self._cached = dict(found)
            self._starts = [start for start, _ in found]

    def add(self, start: int, size: int) -> None:
        """The cache has one more piece."""
        with self._lock:
            self._cached[start] = size
            self._starts = sorted(self._cached)

    def forget(self, start: int) -> None:
        """The cache has a piece no more."""
        with self._lock:
            self._cached.pop(start, None)
            self._starts = sorted(self._cached)

    def start_of(self, offset: int, objects: Objects) -> int:
        """Where the piece in the store begins that has the byte at an offset.

        Raises:
            FileNotFoundError: There is none.
        """
        with self._lock:
            chain = self._chain
            if offset >= chain.end:
                last = chain.bounds(len(chain) - 1)[0] if len(chain) else None
                after = "" if last is None else f"{self.name}/{name_of(last)}"
                listed = objects.listed(self.name, after=after)
                chain.add_listed((facts.name, facts.size) for facts in listed)
            if offset >= chain.end:
                raise FileNotFoundError(errno.ENOENT, "it is not there", self.name)
            return chain.bounds(chain.find(offset))[0]
