r"""The journal of a run: one append-only file of checksummed records, and how it is read back.

Format, version 2, all integers little-endian:

    header   20 bytes  `ASYNCFLOW JOURNAL 2\n`
    record   u32 length of the payload
             u32 crc32 (as in zlib) of those four bytes and the payload
             payload: the msgpack of an event, see `asyncflow.events`

In version 1 no manifest changes another one. It is read like version 2, and no longer written.

Records follow each other without gaps. The writer holds an exclusive `flock` on the file from
before its first record until it closes, so that anybody can tell a running run from an interrupted
one. A crash can leave a torn record at the end, but nowhere else: reading stops there. A bad record
with a good one behind it is damage, and an error.

This module does not know what the payloads mean.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow.errors import JournalError
from asyncflow.store.files import (
    SHORTAGES,
    OwnDescriptor,
    explain_write,
    open_regular,
    sync_file,
    sync_folder,
)
from asyncflow.store.frames import (
    MAX_RECORD_BYTES,
    PREFIX,
    PREFIX_BYTES,
    frame_size,
    payload_at,
    whole_records,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.store.folders import Folder
    from asyncflow.store.frames import RecordBatch

HEADER: Final = b"ASYNCFLOW JOURNAL 2\n"
_FIRST_HEADER: Final = b"ASYNCFLOW JOURNAL 1\n"
FIRST_RECORD: Final = len(HEADER)
"""The offset of a journal's first record."""
_FORMAT: Final = 2
_ANY_HEADER: Final = re.compile(rb"ASYNCFLOW JOURNAL (\d+)\n?")
_AHEAD_BYTES: Final = 1 << 15  # some eighty records of a wide join's inputs
_READ_BYTES: Final = 1 << 18  # one read brings some thousand records and costs far below 1 ms
_MAX_OFFSET: Final = 1 << 62  # a larger one can only be damage, and some systems refuse it
_SEARCH_BYTES: Final = 1 << 20  # one step of the search for a good record behind a bad one
_SECTOR_BYTES: Final = 512  # a disk writes a sector whole or not at all
_SHORT_RECORD: Final = re.compile(rb"(?s)(?=(?!\x00\x00)..\x00\x00....)")
"""Where a record below 64 KiB may begin, as nearly every record is. None is empty."""
_SHORT_BYTES: Final = (1 << 16) + PREFIX_BYTES


class JournalWriter:
    """The one writer of a run's journal.

    It has no coroutines: on an event loop, call `write` in a thread. A failed write leaves the
    journal as it was before.
    """

    def __init__(self, path: Path, descriptor: int, size: int) -> None:
        self.path = path
        self.size = size
        """The offset of the next record."""
        self._descriptor = descriptor
        self._durable = False
        # folders up to the store, which may be new and need one sync
        self._folders = list(path.parents[:4])

    @classmethod
    def create(cls, folder: Folder, name: str, *, durable: bool = False) -> Self:
        """Create a journal in a folder; a durable one is synced with every write.

        Raises:
            JournalError: It exists already, or the file cannot be made.
        """
        path = Path(folder.path, name)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND
        reached("journal.create")
        try:
            with no_forks():
                writer = cls(path, folder.open_file(name, flags), 0)
                keep_from_children(writer)
        except OSError as error:
            raise JournalError(
                explain_write(f"the journal {path}", error, doing="begin")
            ) from error
        try:
            _lock(writer._descriptor, path)
            writer.write(HEADER)
        except JournalError:
            writer.close()
            raise
        writer._durable = durable
        return writer

    def write(self, frames: bytes) -> None:
        """Append whole frames.

        Raises:
            JournalError: The disk is full, or the file cannot be written. The journal is unchanged.
                Or it cannot be synced: then the records must not be announced.
        """
        view = memoryview(frames)
        reached("journal.append")
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            try:
                os.ftruncate(self._descriptor, self.size)
            except OSError:
                self.close()  # a record after a torn one would look like damage: write no more
            raise JournalError(explain_write(f"the journal {self.path}", error)) from error
        self.size += len(frames)
        reached("journal.appended")
        if self._durable:
            self.sync()

    def check_in_place(self) -> None:
        """Check that nobody has deleted or moved the file.

        Raises:
            JournalError: The file is no longer in its place.
        """
        try:
            if not os.path.samestat(self.path.stat(), os.fstat(self._descriptor)):
                raise FileNotFoundError(errno.ENOENT, "another file is in its place")
        except OSError as error:
            raise JournalError(explain_write(f"the journal {self.path}", error)) from error

    def sync(self) -> None:
        """Return once everything written survives a power cut.

        Raises:
            JournalError: The disk reports an error, the journal is closed, or its file is gone from
                its place.
        """
        if self._descriptor < 0:
            message = f"cannot sync the journal {self.path}: it is closed"
            raise JournalError(message)
        self.check_in_place()
        reached("journal.sync")
        try:
            sync_file(self._descriptor)
            while self._folders:  # otherwise a power cut could lose the file's name
                sync_folder(self._folders[-1])
                self._folders.pop()
        except OSError as error:
            if error.errno in SHORTAGES and not self._durable:
                return  # the folders could not be opened: the next sync tries again
            raise JournalError(
                explain_write(f"the journal {self.path}", error, doing="sync")
            ) from error
        reached("journal.synced")

    def watch(self, on_ended: Callable[[JournalError], object]) -> None:
        """Does nothing: nobody else can end the run."""

    def deliver(self) -> None:
        """Does nothing: readers find in the file what was written."""

    def close(self) -> None:
        """Release the lock. Harmless when repeated."""
        if self._descriptor >= 0:
            reached("journal.close")
            with no_forks():
                descriptor, self._descriptor = self._descriptor, -1  # never closed twice
                os.close(descriptor)

    def __repr__(self) -> str:
        state = "open" if self._descriptor >= 0 else "closed"
        return f"<JournalWriter {self.path.parent.name} {self.size} bytes, {state}>"


def _lock(descriptor: int, path: Path) -> None:
    """Lock a file that this process has just created.

    It waits, because only `is_being_written` in another process can hold the lock, for a moment.
    Giving up would mean that somebody who looks at a run can stop it from starting.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        message = (
            f"the file system of {path} has no file locks ({error.strerror}); "
            "use a store on a local disk"
        )
        raise JournalError(message) from error


def is_being_written(path: str | Path) -> bool:
    """Whether a process holds the journal's lock, so that its run is running."""
    with no_forks():  # a forked child would keep the lock, and a run could not start
        return _is_locked(path)


def _is_locked(path: str | Path) -> bool:
    try:
        descriptor = open_regular(path)
    except OSError as error:
        # This process can open no file now, so it cannot tell: treat the run as running.
        return error.errno in SHORTAGES
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # no locks here, so nobody can hold one
    finally:
        os.close(descriptor)
    return False


class RecordReader(ABC):
    """Reads the records of a journal, wherever its bytes are.

    Threads may share one: it keeps no position.
    """

    path: str | Path
    """Where the journal is, for messages."""

    @abstractmethod
    def _pread(self, size: int, offset: int, /) -> bytes:
        """So many bytes from an offset on; fewer where the journal ends."""

    @abstractmethod
    def size(self) -> int:
        """Length of the journal in bytes, a torn tail included."""

    def _check_header(self) -> None:
        """Refuse what is no journal of this version.

        Raises:
            JournalError: It does not begin like one.
        """
        header = self._pread(len(HEADER), 0)
        if not (HEADER.startswith(header) or _FIRST_HEADER.startswith(header)):
            raise JournalError(_refusal(self.path, header))

    _ahead: tuple[int, bytes] = 0, b""
    """Where the bytes begin that were read with a record, and these bytes."""
    _torn: tuple[int, int] = 0, 0
    """Where the torn tail that was last searched for records begins and ends. A run that was killed
    is asked a thousand questions for one screen, and each reads on from there."""

    def read_one(self, offset: int, final: int = 0) -> bytes:
        """The payload of the record at `offset`.

        A caller that will read more of the records before offset `final` names that, so that many
        are read at once. It must know that a record begins there: what is behind the last one may
        still be taken away by a write that has failed.

        Raises:
            JournalError: There is no whole record at that offset.
        """
        if not len(HEADER) <= offset < _MAX_OFFSET:
            message = f"{self.path} cannot have a record at byte {offset}"
            raise JournalError(message)
        if final > offset:
            start, ahead = self._ahead
            if not start <= offset < start + len(ahead):
                ahead = self._pread(min(_AHEAD_BYTES, final - offset), offset)
                start, self._ahead = offset, (offset, ahead)
            payload = payload_at(ahead, offset - start)
            if payload is not None:
                return payload
        # Nearly every record fits into one read of a page.
        data = self._pread(4096, offset)
        payload = payload_at(data, 0)
        if payload is None and len(data) >= PREFIX_BYTES:
            length, _ = PREFIX.unpack_from(data)
            if PREFIX_BYTES + length <= _READ_BYTES:
                data = self._pread(PREFIX_BYTES + length, offset)
            else:
                data, _ = self._read_long(offset, data)
            payload = payload_at(data, 0)
        if payload is None:
            message = f"{self.path} is damaged: no whole record at byte {offset}"
            raise JournalError(message)
        return payload

    def read_bytes(self, size: int, offset: int) -> bytes:
        """So many bytes from an offset on, as they stand there.

        Raises:
            JournalError: The journal ends before.
        """
        data = self._pread(size, offset)
        if len(data) < size:
            message = f"{self.path} has no {size} bytes from byte {offset} on"
            raise JournalError(message)
        return data

    def read_from(self, offset: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """Every record from `offset` on: its offset, its payload, and where the next one begins.

        It ends at the end of the file or before a torn tail. A caller that follows a running run
        continues later from that offset.

        Raises:
            JournalError: There is damage before the end.
        """
        at = max(offset, len(HEADER))
        buffer, start = b"", at
        while True:
            payload = payload_at(buffer, at - start)
            if payload is None:
                (buffer, cut_at), start = self._read_record(at), at
                payload = payload_at(buffer, 0)
            if payload is None:
                self._refuse_damage(at, self.size() if cut_at is None else cut_at)
                return
            after = at + PREFIX_BYTES + len(payload)
            yield at, payload, after
            at = after

    def read_batches(self, offset: int = 0) -> Iterator[RecordBatch]:
        """The same records as `read_from`, many at once: as many as one read has brought.

        Raises:
            JournalError: There is damage before the end; the records before it have come.
        """
        at = max(offset, len(HEADER))
        while True:
            data, cut_at = self._read_record(at)
            batch = whole_records(data, at)
            if not batch.payloads:
                self._refuse_damage(at, self.size() if cut_at is None else cut_at)
                return
            yield batch
            at = batch.after

    def _read_record(self, at: int) -> tuple[bytes, int | None]:
        """The bytes from `at` on, with at least its record, if that is whole.

        Then where the file ended, if its record may still be being written. No record that a writer
        adds meanwhile must count as one behind a bad one.
        """
        data = self._pread(_READ_BYTES, at)
        size = frame_size(data)
        if len(data) == _READ_BYTES and _READ_BYTES < size <= PREFIX_BYTES + MAX_RECORD_BYTES:
            data, seen = self._read_long(at, data)
        else:
            seen = len(data)
        is_cut = seen < size <= PREFIX_BYTES + MAX_RECORD_BYTES
        return data, at + seen if is_cut else None

    def _read_long(self, at: int, begin: bytes) -> tuple[bytes, int]:
        """The bytes of a long record which begins so, and how many of them there are.

        The bytes are empty unless they are right. They are checked piece by piece before they are
        read at once, so that a damaged length costs no memory: it can be a gigabyte.
        """
        length: int
        checksum: int
        length, checksum = PREFIX.unpack_from(begin)
        if length > MAX_RECORD_BYTES:
            return b"", len(begin)
        found, seen = self._checksum(at + PREFIX_BYTES, length, crc32(begin[:4]))
        if seen < length or found != checksum:
            return b"", PREFIX_BYTES + seen
        return self._pread(PREFIX_BYTES + length, at), PREFIX_BYTES + length

    def _checksum(self, at: int, size: int, checksum: int) -> tuple[int, int]:
        """A checksum continued over so many bytes from `at` on, and how many there are."""
        seen = 0
        while seen < size:
            piece = self._pread(min(_SEARCH_BYTES, size - seen), at + seen)
            if not piece:
                break
            checksum = crc32(piece, checksum)
            seen += len(piece)
        return checksum, seen

    def _refuse_damage(self, at: int, end: int) -> None:
        """Raise if a good record lies between the bad one at `at` and `end`."""
        if self._torn == (at, end):
            return
        if self._find_record(at + 1, end) is not None:
            message = f"{self.path} is damaged: the record at byte {at} is not what was written"
            raise JournalError(message)
        self._torn = at, end

    def find_record(self, offset: int) -> int | None:
        """The offset of the next whole record from `offset` on that is shorter than 64 KiB."""
        return self._find_record(offset, self.size())

    def _find_record(self, position: int, end: int) -> int | None:
        """The same for a record that lies before `end`."""
        while position < end:
            wanted = min(_SEARCH_BYTES + _SHORT_BYTES, end - position)
            data = self._pread(wanted, position)
            if data.count(0) < len(data):  # a hole has none, and can be large
                for match in _SHORT_RECORD.finditer(data, 0, _SEARCH_BYTES + PREFIX_BYTES):
                    if payload_at(data, match.start()):
                        return position + match.start()
            position += _SEARCH_BYTES
        return None

    def is_torn(self, at: int) -> bool:
        """Whether a crash can explain the bytes from `at` to the end of the file.

        That is so for the beginning of a record, because a process can be killed while it writes.
        It is also so for a record of which all bytes or the last sectors are zeros, which a power
        cut can leave. Anything else was written differently, and may have been announced.
        """
        size = self.size()
        last_sector = max(at, (size - 1) // _SECTOR_BYTES * _SECTOR_BYTES)
        if not any(self._pread(size - last_sector, last_sector)):
            return True
        if size - at < PREFIX_BYTES:
            return True
        length: int
        checksum: int
        length, checksum = PREFIX.unpack(self._pread(PREFIX_BYTES, at))
        rest = size - at - PREFIX_BYTES
        if length <= rest or length > MAX_RECORD_BYTES:
            return False
        # The length itself may be damaged.
        found, _ = self._checksum(at + PREFIX_BYTES, rest, crc32(rest.to_bytes(4, "little")))
        return found != checksum


class JournalReader(RecordReader):
    """Reads a journal in a file, while it is being written or afterwards.

    Threads may share one: it keeps no position. The last reference closes the file.
    """

    def __init__(self, path: str | Path) -> None:
        """Open a journal.

        Raises:
            FileNotFoundError: It does not exist.
            JournalError: The file is not a journal of this version.
        """
        self.path = path
        self._file = OwnDescriptor(open_regular(path))
        self.opened = [Descriptor(self._file.number)]
        """Its descriptor, which other code may close by mistake."""
        try:
            self._check_header()
        except JournalError:
            self.close()
            raise

    def _pread(self, size: int, offset: int) -> bytes:
        return os.pread(self._file.number, size, offset)

    def size(self) -> int:
        """Length of the file in bytes, a torn tail included."""
        return os.fstat(self._file.number).st_size

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refusal(path: str | Path, header: bytes) -> str:
    """Why a file with this beginning is refused."""
    message = f"{path} is not a journal that this version of asyncflow can read"
    found = _ANY_HEADER.fullmatch(header)
    if found is None:
        return message
    return f"{message}: a later one wrote it, in format {int(found[1])}; upgrade asyncflow"


def later_format(path: Path) -> int:
    """The format of a journal that only a later version can read; 0 for any other file, or none."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return 0
    try:
        found = _ANY_HEADER.match(os.pread(descriptor, 2 * len(HEADER), 0))
    finally:
        os.close(descriptor)
    return int(found[1]) if found is not None and int(found[1]) > _FORMAT else 0
