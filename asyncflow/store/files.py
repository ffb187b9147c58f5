"""Plain files: writes them whole, and reads pieces of them a hundred thousand times.

Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from asyncflow._support.guarded_descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncflow.codec import Chunk

_PIECE_BYTES: Final = 256 << 10  # copied, hashed and written while a processor has it at hand
_BATCH_CHUNKS: Final = 512  # Linux takes 1,024 buffers in one writev, others fewer
_OPEN_FILES: Final = (
    64  # a worker reads from a few segments over and over, and may open 1,024 files
)


def copied_pieces(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Copies of the chunks, all in the same memory: use each before the next is made.

    As with `batches`, hash and file get the same bytes, whatever writes to the chunks meanwhile.
    """
    memory = memoryview(bytearray(_PIECE_BYTES))
    filled = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            taken = rest[: _PIECE_BYTES - filled]
            memory[filled : filled + len(taken)] = taken
            filled, rest = filled + len(taken), rest[len(taken) :]
            if filled == _PIECE_BYTES:
                yield memory
                filled = 0
    if filled:
        yield memory[:filled]


def write_all(fd: int, chunks: Sequence[Chunk]) -> int:
    """Write the chunks in order, and return the number of bytes.

    Raises:
        OSError: Not everything could be written; the first part may have been.
    """
    if len(chunks) == 1:
        return _write_one(fd, chunks[0])
    total = 0
    for start in range(0, len(chunks), _BATCH_CHUNKS):
        total += _write_batch(fd, chunks[start : start + _BATCH_CHUNKS])
    return total


def _write_one(fd: int, chunk: Chunk) -> int:
    size = len(chunk)
    written = os.write(fd, chunk)
    if written < size:  # a full disk, a signal, or more than 2 GiB
        with memoryview(chunk) as rest:
            while written < size:
                written += os.write(fd, rest[written:])
    return size


def _write_batch(fd: int, chunks: Sequence[Chunk]) -> int:
    total = sum(map(len, chunks))
    written = os.writev(fd, chunks)
    if written == total:
        return total
    for chunk in chunks:
        size = len(chunk)
        if written < size:
            with memoryview(chunk) as whole:
                _write_one(fd, whole[written:])
        written = max(0, written - size)
    return total


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
    """Open a file of a store; refuse anything in its place that is no regular file.

    Opening a pipe could wait for ever, and a device may have no end. A link is followed for
    reading, but not for writing.

    Raises:
        OSError: It cannot be opened; or it is not a regular file, which `is_no_file` recognizes.
    """
    if flags & (os.O_WRONLY | os.O_RDWR):
        flags |= os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    except OSError as error:
        if is_no_file(error):  # a socket, or a pipe that nobody reads from
            error.strerror = _NO_FILE
        raise
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ENXIO, _NO_FILE, os.fspath(path))


_NO_FILE: Final = "not a regular file"


def is_no_file(error: OSError) -> bool:
    """Whether the error says that something other than a regular file is in its place."""
    return error.errno == errno.ENXIO


def read_file(path: str | os.PathLike[str], *, most: int) -> bytes:
    """The bytes of a file of a store, `most` at most.

    The limit protects memory from a wrong file in its place; the checksum then reveals it.

    Raises:
        OSError: It cannot be read, or is not a regular file.
    """
    descriptor = open_regular(path)
    try:
        size = min(most, os.fstat(descriptor).st_size)
        pieces = []
        while size > 0 and (piece := os.read(descriptor, size)):
            pieces.append(piece)
            size -= len(piece)
    finally:
        os.close(descriptor)
    return b"".join(pieces)


def write_file(path: str | os.PathLike[str], data: Chunk, *, sync: bool = False) -> None:
    """Write a file of a store with these bytes; an existing one is replaced.

    With `sync`, its bytes survive a power cut when this returns.

    Raises:
        OSError: It could not be written; the first part may have been.
    """
    descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, [data])
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Return once the names in a folder survive a power cut.

    Raises:
        OSError: The disk reports an error.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


SHORTAGES: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}
)
"""Errors for a lack of resources that may be over a little later."""
_NO_REMEDY: Final = "look the error up in the system's log"
_REMEDIES: Final = {
    errno.ENOSPC: "make room there",
    errno.EFBIG: "make room there",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EACCES: "change its rights",
    errno.EPERM: "change its rights",
    errno.EROFS: "make that file system writable",
    errno.EMFILE: "let this process open more files, as with `ulimit -n 4096`",
    errno.ENFILE: "let the machine open more files",
    errno.EBADF: "something in this process has closed it, perhaps by closing another file twice",
    errno.EIO: "look the disk up in the system's log",
    errno.ENXIO: "put back the file that was there",
    errno.ENOENT: "put back what was deleted or moved",
    errno.ENOTDIR: "put back what was deleted or moved",
    errno.ENOLCK: "it has no file locks: use a local disk",
    errno.ENOTSUP: "it has no file locks: use a local disk",
    errno.ESTALE: "put back what was deleted or moved",
    errno.EREMOTEIO: "make sure that this machine reaches the object store",
    errno.ENAMETOOLONG: "take a shorter name",
    errno.ELOOP: "replace the link by a file or a folder",
}


def reason_of(error: OSError) -> str:
    """Why an operation on a file failed, and what to do about it there."""
    reason = error.strerror or str(error)
    return f"{reason}; {_REMEDIES.get(error.errno or 0, _NO_REMEDY)}"


def explain(path: object, error: OSError, *, doing: str) -> str:
    """Which operation on a file failed, why, and what to do about it there."""
    return f"cannot {doing} {path}: {reason_of(error)}"


def explain_write(path: object, error: OSError, *, doing: str = "write to") -> str:
    """Why an operation on a file failed, and what to do about it."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "make sure that it can be written")
    return (
        f"cannot {doing} {path}: {reason}; {remedy}, or choose another place with --store DIR "
        "or ASYNCFLOW_STORE"
    )


sync_file: Final = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
"""Return once everything written to a descriptor survives a power cut."""


class OwnDescriptor:
    """A descriptor of its owner, which closes it, or the last reference does.

    So a thread that reads is not disturbed when the file leaves a cache, and cannot read from
    another file that got the same number.

    An owner that others hold by a weak reference has one of these in place of a `__del__`: while
    that runs, such a reference still leads to its object, and another thread would take it and
    find its file closed, or another one under its number.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number
        """-1 once it is closed."""

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it. Harmless when repeated."""
        number, self.number = self.number, -1
        if number >= 0:
            close(number)

    def __del__(self, suppress: type[suppress] = suppress) -> None:
        # `suppress` of its own, and what a call raises: modules are empty when a program ends
        with suppress(OSError, AttributeError, TypeError):
            self.close()


class KeptFile(OwnDescriptor):
    """A file that is kept open, in a process whose other code may close it by mistake."""

    __slots__ = ("_opened",)

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self._opened = Descriptor(number)

    def is_whole(self) -> bool:
        """Whether nobody else has closed it, or put another file in its place."""
        return self._opened.is_whole()

    def close(self, close: Callable[[int], None] = os.close) -> None:
        """Close it, unless the number is another file's now. Harmless when repeated."""
        if self.number >= 0 and not self._opened.is_whole():
            self.number = -1
        super().close(close)


@lru_cache(maxsize=_OPEN_FILES)
def open_file(path: str) -> KeptFile:
    """A file, kept open for the next reader: see `kept_file`.

    Raises:
        OSError: The file is not there or cannot be opened.
    """
    return KeptFile(open_regular(path))


def kept_file(path: str) -> KeptFile:
    """A file that is open, perhaps since an earlier call, and stays open for the next one.

    Reading is by position and moves no file pointer, so threads and forked children may share one.

    Raises:
        OSError: The file is not there or cannot be opened.
    """
    file = open_file(path)
    if not file.is_whole():  # a step has closed it
        open_file.cache_clear()
        file = open_file(path)
    return file


def read_at(path: str, offset: int, size: int) -> bytes:
    """A range of a file; shorter if the file ends before its end.

    Raises:
        OSError: The file is not there or cannot be read.
    """
    file = kept_file(path)
    data = os.pread(file.number, size, offset)
    if len(data) == size or not data:
        return data
    return bytes(_read_into(file, offset, size))  # a signal, or more than 2 GiB


def read_writable_at(path: str, offset: int, size: int) -> bytearray:
    """Like `read_at`, into memory that the caller may change.

    Raises:
        OSError: The file is not there or cannot be read.
    """
    return _read_into(kept_file(path), offset, size)


def _read_into(file: OwnDescriptor, offset: int, size: int) -> bytearray:
    data = bytearray(size)
    done = 0
    with memoryview(data) as view:
        while done < size:
            got = os.preadv(file.number, [view[done:]], offset + done)
            if not got:
                break
            done += got
    del data[done:]
    return data
