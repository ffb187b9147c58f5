"""Blobs: large values, each a file named by the blake3 of its bytes.

Equal bytes of different tasks and runs are one file. A finished file becomes a blob by a rename, so
it is whole, and it is never written again: a reader may map it. Its time of modification says when
it was last put, within `TOUCH_SECONDS`, which garbage collections rely on.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from functools import partial
from itertools import chain
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Final, Self

from blake3 import blake3

from asyncflow._support.commit_points import reached
from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow.codec import batches, digest_of
from asyncflow.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactMissingError,
    StoreError,
)
from asyncflow.store.files import (
    copied_pieces,
    explain_write,
    is_no_file,
    open_regular,
    reason_of,
    sync_file,
    write_all,
)
from asyncflow.store.mapped_files import map_file
from asyncflow.store.synced_folders import sync_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow.codec import Chunk
    from asyncflow.store.folders import Folder
    from asyncflow.store.layout import Layout
    from asyncflow.store.value_interface import GoOn, Later

BLOB_MODE: Final = 0o400
"""The mode of a blob, which is read-only."""

TOUCH_SECONDS: Final = 3600
"""A blob that is put again gets a new time of modification once the old one is of this age.

Not each time, because then every process that has verified the file would verify it again. So a
garbage collection must spare files younger than this plus the longest task.
"""

_TOGETHER_BYTES: Final = 8 << 20
"""From here on a blob is written while it is hashed: 54 ms instead of 86 for 256 MiB.

If the blob exists already, the new file is deleted again, before the disk has seen much of it. That
takes no longer than hashing first and comparing.
"""

_STREAMED_BYTES: Final = 1 << 20
"""From here on a blob is written piece by piece as it is hashed: 2.5 ms instead of 3.0 for 4 MiB.

A shorter one fits a processor's cache, and is hashed first: if it exists, it is not written.
"""

_BATCHES_AHEAD: Final = 4  # written and not hashed yet: they should still be in the CPU's cache

_SECOND_LOOK_SECONDS: Final = 0.02
_READ_BYTES: Final = 1 << 16  # a smaller file is read sooner than mapped
"""A garbage collection sets a blob aside for some microseconds; a busy machine may prolong that."""

_VERIFIED_BLOBS: Final = 65_536  # about 20 MB at most, in a process that has seen that many

_Identity = tuple[int, int, int, int, int]


class VerifiedBlobs:
    """The files that this process has hashed or written, and their status at that time."""

    def __init__(self) -> None:
        self._seen: dict[bytes, _Identity] = {}

    def __contains__(self, blob: tuple[bytes, os.stat_result]) -> bool:
        digest, status = blob
        return self._seen.get(digest) == _identity(status)

    def add(self, digest: bytes, status: os.stat_result) -> None:
        """Trust the file with this status until its status changes."""
        if len(self._seen) >= _VERIFIED_BLOBS:
            with suppress(RuntimeError, StopIteration, KeyError):  # another thread was faster
                del self._seen[next(iter(self._seen))]
        self._seen[digest] = _identity(status)

    def clear(self) -> None:
        """Trust no file any more."""
        self._seen.clear()


def _identity(status: os.stat_result) -> _Identity:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


verified: Final = VerifiedBlobs()
"""Shared by the whole process, so that a value read twice is hashed once."""


class BlobStore:
    """Writes and reads the blobs of one store; any number of processes may do so at once."""

    def __init__(self, layout: Layout, *, durable: bool = False) -> None:
        self._layout: Final = layout
        self._durable: Final = durable  # whether a blob is synced before it counts as stored

    def __repr__(self) -> str:
        return f"<BlobStore {self._layout.blobs}>"

    # --- writing --------------------------------------------------------------------------------

    def put(self, chunks: Sequence[bytes], digest: bytes, size: int) -> bool:
        """Store a blob of known digest and length; False if it existed already.

        Whatever happens meanwhile, the blob exists whole or not at all.

        Raises:
            StoreError: It could not be written.
        """
        if self.has(digest, size):
            return False
        with self.writer() as writer:
            writer.write(chunks)
            writer.commit(digest)
        return True

    def put_new(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None = None) -> bytes:
        """Store a blob of known length, and return its digest.

        Another thread may change the chunks meanwhile: the digest is that of the bytes written.
        `go_on` may be called before each batch; an exception from it is passed on.

        Raises:
            StoreError: It could not be written.
        """
        if size < min(_STREAMED_BYTES, _TOGETHER_BYTES):
            own = list(chain.from_iterable(batches(chunks)))
            digest = digest_of(own, size)
            self.put(own, digest, size)
            return digest
        if size < _TOGETHER_BYTES:
            return self._put_in_pieces(chunks, size, go_on)
        with self.writer() as writer:
            failed: StoreError | None = None
            with _Hashing() as hashing:
                for batch in batches(chunks):
                    if go_on is not None:
                        go_on()
                    hashing.add(batch)
                    if failed is None:
                        failed = _write(writer, batch)
            digest = hashing.digest
            if not self.has(digest, size):
                if failed is not None:
                    raise failed
                writer.commit(digest)
        return digest

    def _put_in_pieces(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None) -> bytes:
        hasher = blake3()
        with self.writer() as writer:
            failed: StoreError | None = None
            for piece in copied_pieces(chunks):
                if go_on is not None:
                    go_on()
                hasher.update(piece)
                if failed is None:
                    failed = _write(writer, [piece])
            digest = hasher.digest()
            if not self.has(digest, size):
                if failed is not None:
                    raise failed
                writer.commit(digest)
        return digest

    def has(self, digest: bytes, size: int) -> bool:
        """Whether these bytes are stored; if so, no garbage collection deletes them soon."""
        path = self._layout.blob(digest)
        try:
            status = os.lstat(path)  # a link has another size, so it is replaced
            # A file that a power cut has emptied, or a disk has damaged, is written again.
            if status.st_size != size or not self._is_intact(path, digest, status):
                return False
            if time.time() - status.st_mtime > TOUCH_SECONDS:
                with self._layout.folder("blobs", digest.hex()[:2]) as shard:
                    shard.touch(digest.hex())
                verified.add(digest, os.lstat(path))
            if self._durable:
                self._sync(path)  # its writer may not have synced it
        except OSError:
            return False
        return True

    def _sync(self, path: str) -> None:
        fd = open_regular(path)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_names(self._layout, path)

    def _is_intact(self, path: str, digest: bytes, status: os.stat_result) -> bool:
        if (digest, status) in verified:
            return True
        fd = open_regular(path)
        try:
            return _hash_file(fd, status.st_size) == digest
        finally:
            os.close(fd)

    def writer(self) -> BlobWriter:
        """A writer for a blob whose digest is not known yet; use it in a `with` block."""
        return BlobWriter(self._layout, durable=self._durable)

    # --- reading --------------------------------------------------------------------------------

    def open(
        self, digest: bytes, size: int, *, name: str = "", later: Later | None = None
    ) -> memoryview:
        """The bytes of a blob, mapped copy-on-write and checked; `name` is for the error.

        With `later`, that receives the check, and they are checked when it is called.

        Raises:
            ArtifactMissingError: There is no such file.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        return self._read(digest, size, name, check_again=False, later=later)

    def verify(self, digest: bytes, size: int, *, name: str = "") -> None:
        """Hash a blob, even if this process has done so before.

        Raises:
            ArtifactMissingError: There is no such file.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        self._read(digest, size, name, check_again=True)

    def _read(
        self,
        digest: bytes,
        size: int,
        name: str,
        *,
        check_again: bool,
        later: Later | None = None,
    ) -> memoryview:
        path = self._layout.blob(digest)
        try:
            fd = open_blob(self._layout, digest)
        except FileNotFoundError as error:
            raise missing(name, path) from error
        except OSError as error:
            raise unreadable(name, path, error) from error
        try:
            status = os.fstat(fd)
            if status.st_size != size:
                raise corrupt(name, path, f"it has {status.st_size} bytes instead of {size}")
            data = map_file(fd, 0, size) if size else memoryview(bytearray())
            if check_again or (digest, status) not in verified:
                # Hash this file, even if another takes its place, and without touching pages of
                # `data`.
                own = data if later is None else map_file(fd, 0, size)
                check = partial(_check, own, digest, status, partial(corrupt, name, path))
                if later is None:
                    check()
                else:
                    later(digest, check)
        finally:
            os.close(fd)
        return data


def _write(writer: BlobWriter, batch: Sequence[Chunk]) -> StoreError | None:
    """Write a batch, and return the error if that fails. It does not matter if the blob exists."""
    try:
        writer.write(batch)
    except StoreError as error:
        return error
    return None


def _check(
    data: memoryview,
    digest: bytes,
    status: os.stat_result,
    error: Callable[[str], ArtifactCorruptError],
) -> None:
    if digest_of([data], status.st_size) != digest:
        raise error("its bytes have another hash")
    verified.add(digest, status)


class _Hashing:
    """blake3 of batches added within its `with` block, computed by a thread that ends with it."""

    def __init__(self) -> None:
        self._batches: Queue[list[bytes] | None] = Queue(_BATCHES_AHEAD)
        self._digest = b""
        self._thread = Thread(target=self._run, name="asyncflow-hash", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.put(None)
        self._thread.join()

    def add(self, batch: list[bytes]) -> None:
        """Add a batch; waits while the thread has several to hash."""
        self._batches.put(batch)

    @property
    def digest(self) -> bytes:
        """The digest of all batches, once the block was left.

        Raises:
            StoreError: The thread could not compute it.
        """
        if not self._digest:
            raise StoreError("a value could not be hashed; the log says why")
        return self._digest

    def _run(self) -> None:
        try:
            self._digest = self._hash()
        except BaseException:
            # Take all batches, so that `add` does not wait for ever.
            while self._batches.get() is not None:
                pass
            raise

    def _hash(self) -> bytes:
        hasher = blake3()
        while (batch := self._batches.get()) is not None:
            for piece in batch:
                hasher.update(piece)
        return hasher.digest()


class BlobWriter:
    """A blob in the making: a file without a name of its own until `commit`.

    Leaving its `with` block without a commit deletes the file. After a crash, a garbage collection
    deletes it.
    """

    def __init__(self, layout: Layout, *, durable: bool = False) -> None:
        self._layout: Final = layout
        self._durable: Final = durable
        self._path: Final = layout.new_blob()
        self._name: Final = self._path.rpartition("/")[2]
        self._hasher: Final = blake3()
        self._fd = -1
        self._opened: Descriptor | None = None
        self._new: Folder | None = None  # the path while it is being written
        self.size = 0
        """The number of bytes written so far."""

    def __enter__(self) -> Self:
        try:
            self._create()
        except OSError as error:
            raise StoreError(explain_write(self._path, error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and self._new is not None:
            with suppress(OSError):
                self._new.delete(self._name)
        self._close()

    def _create(self) -> None:
        reached("blob.draft")
        self._new = self._layout.folder("blobs", "new", make=True)
        try:
            # Read-only from the start: that makes it harder to change a blob under its readers.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._fd = self._new.open_file(self._name, flags, BLOB_MODE)
            self._opened = Descriptor(self._fd)
        except OSError:
            self._close()
            raise

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Append the chunks.

        Raises:
            StoreError: They could not be written.
        """
        try:
            self.size += write_all(self._fd, chunks)
        except OSError as error:
            raise StoreError(explain_write(self._path, error)) from error
        reached("blob.written")

    def write_and_hash(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks and add them to `digest`.

        Raises:
            StoreError: They could not be written.
        """
        for chunk in chunks:
            self._hasher.update(chunk)
        self.write(chunks)

    @property
    def digest(self) -> bytes:
        """blake3 of all chunks given to `write_and_hash`."""
        return self._hasher.digest()

    def commit(self, digest: bytes) -> None:
        """Make the file the blob of that digest.

        Raises:
            StoreError: That failed; the blob does not exist.
        """
        path = self._layout.blob(digest)
        reached("blob.rename")
        try:
            self._check_file()
            self._rename(digest.hex())
            status = os.fstat(self._fd)
        except OSError as error:
            raise StoreError(explain_write(path, error)) from error
        verified.add(digest, status)
        self._close()
        reached("blob.renamed")

    def _check_file(self) -> None:
        """Check that everything written is in the file.

        Another thread may have closed the descriptor by mistake, and opened a file of its own under
        the same number.
        """
        if self._opened is None or not self._opened.is_whole():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if os.fstat(self._fd).st_size != self.size:
            raise OSError(errno.EIO, "something else was written to it, or it was cut off")

    def _rename(self, digest: str) -> None:
        """Give the file its name; if durable, return once both survive a power cut.

        A name that is free is given first, because a file system with a journal then writes that
        once for the bytes and the name. A power cut in between may leave a damaged file under the
        name. No event names it yet, and `BlobStore.has` hashes it before the value counts as
        stored.

        Under a name that is taken lies what was damaged, or what another process has stored
        meanwhile. Events may name the latter, so only a file that is synced takes its place.
        """
        if self._new is None:
            raise FileNotFoundError(errno.ENOENT, "it was closed")
        with self._layout.folder("blobs", digest[:2], make=True) as shard:
            if not self._durable:
                self._new.rename(self._name, shard, digest)
                return
            if self._take_free_name(self._new, shard, digest):
                self._sync_or_delete(shard, digest)
            else:
                reached("blob.sync")
                sync_file(self._fd)
                self._new.rename(self._name, shard, digest)
            sync_names(self._layout, f"{shard.path}/{digest}")

    def _take_free_name(self, new: Folder, shard: Folder, digest: str) -> bool:
        """Give the file its name; False if that is taken, or the file system has no hard links."""
        try:
            new.link(self._name, shard, digest)
        except OSError:
            return False
        with suppress(OSError):  # else a garbage collection deletes the first name
            new.delete(self._name)
        return True

    def _sync_or_delete(self, shard: Folder, digest: str) -> None:
        """Sync the file; if the disk refuses its bytes, it must not stay under its name.

        A later sync of it might succeed, although the bytes are lost.
        """
        reached("blob.sync")
        try:
            sync_file(self._fd)
        except OSError:
            with suppress(OSError):
                if os.path.samestat(shard.status(digest), os.fstat(self._fd)):
                    shard.delete(digest)
            raise

    def _close(self) -> None:
        fd, opened = self._fd, self._opened
        if opened is not None and opened.is_whole():
            self._fd, self._opened = -1, None  # never closed twice
            os.close(fd)
        self._fd, self._opened = -1, None
        if self._new is not None:
            self._new.close()
            self._new = None


def open_blob(layout: Layout, digest: bytes) -> int:
    """Open a blob, even one that a garbage collection has set aside and may have left there.

    Raises:
        FileNotFoundError: There is no such blob.
        OSError: It cannot be opened.
    """
    path = layout.blob(digest)
    for place in (path, layout.blob_aside(digest)):
        with suppress(FileNotFoundError):
            return open_regular(place)
    time.sleep(_SECOND_LOOK_SECONDS)  # it was put back between the two attempts
    return open_regular(path)


def _hash_file(fd: int, size: int) -> bytes:
    if size <= _READ_BYTES:
        return digest_of([os.pread(fd, size, 0)], size)
    return digest_of([map_file(fd, 0, size)], size)


def missing(name: str, path: object) -> ArtifactMissingError:
    """The error for a file that is gone."""
    return ArtifactMissingError(
        f"{_called(name)} cannot be read: {path} is gone. Was it deleted, or copied in part? "
        "Resume the run from the step that made it",
        artifact=_artifact(name),
        pathspec=_pathspec(name),
    )


def corrupt(name: str, path: object, reason: str) -> ArtifactCorruptError:
    """The error for a blob whose bytes have changed."""
    return ArtifactCorruptError(
        f"{_called(name)} is damaged: {path}: {reason}. "
        "Restore that file from a copy, or resume the run from the step that made it",
        artifact=_artifact(name),
        pathspec=_pathspec(name),
    )


def unreadable(name: str, path: object, error: OSError) -> ArtifactError:
    """The error for a file that exists and cannot be read."""
    if is_no_file(error):
        return corrupt(name, path, f"it is {error.strerror}")
    return ArtifactError(
        f"{_called(name)} cannot be read: {path}: {reason_of(error)}",
        artifact=_artifact(name),
        pathspec=_pathspec(name),
    )


def _called(name: str) -> str:
    return f"artifact {name!r}" if name else "an artifact"


def _artifact(name: str) -> str:
    return name.rpartition("/")[2]


def _pathspec(name: str) -> str:
    return name if "/" in name else ""
