r"""A limit with a name: a file that all engines share. What is held dies with its holder.

```
STORE/limits/NAME    56 bytes
  0  16 bytes  `ASYNCFLOW LIMIT\n`
 16  i64       how many at a time, as `asyncflow limit set` has it; -1 where it says nothing
 24  f64       how many in a second, likewise
 32  u32       crc32 of the 32 bytes before
 36  u32       0
 40  u64       the ticket that was given last
 48  u64       when, at the earliest, the next may begin: microseconds since 1970
```

What is held is a lock on a byte of the file, far behind its end: the kernel gives it up when
whoever holds it dies. Byte 2^32 + i is place i of those that may be taken at a time. Byte 2^48 + t
is held by the engine that waits with ticket t: who comes later lets it go first. Byte 0 is held for
the moment in which a number of the file is read and written. They are locks of an open file
description, so engines in one process keep each other out as well.

Nothing here waits. What an engine does while it may not go on is told in
`asyncflow.scheduling.named_limits`.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import LimitError
from asyncflow.store.folders import Folder
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEADER: Final = b"ASYNCFLOW LIMIT\n"
FILE_BYTES: Final = 56

_SETTING: Final = struct.Struct("<qd")
_CHECKED_BYTES: Final = len(HEADER) + _SETTING.size
_TICKET_AT: Final = 40
_NEXT_AT: Final = 48
_GUARD: Final = 0
_PLACES: Final = 1 << 32
_LINE: Final = 1 << 48
_TICKETS: Final = 1 << 40  # then they begin anew
_LOCK: Final = struct.Struct("hhqqi4x")  # C's `struct flock`
_SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None)
_GET_LOCK: Final = getattr(fcntl, "F_OFD_GETLK", None)
_GUARD_TRIES: Final = 5000  # of a millisecond each
_FAR_SECONDS: Final = 3600.0  # no next beginning is further away, unless a clock was put back


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many at a time, and how many in a second; None for any number."""

    at_once: int | None = None
    per_second: float | None = None

    def or_else(self, other: Bounds) -> Bounds:
        """These, and the other's where these say nothing."""
        return Bounds(
            other.at_once if self.at_once is None else self.at_once,
            other.per_second if self.per_second is None else self.per_second,
        )

    def __str__(self) -> str:
        parts = []
        if self.at_once is not None:
            parts.append(f"{self.at_once} at a time")
        if self.per_second is not None:
            parts.append(f"{self.per_second:g} per second")
        return ", ".join(parts) or "as the steps say"


class LimitFile:
    """The file of one limit, open in one engine."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, folder: Path, name: str, *, make: bool = True, mend: bool = False) -> Self:
        """Open a limit; with `mend` also one whose file is damaged.

        Where there is no file, `make` makes it.

        Raises:
            LimitError: No limit can have that name; its file is not there, cannot be made or read,
                or is damaged; or there are no locks.
        """
        if not LIMIT_NAME.fullmatch(name):
            raise LimitError(f"no limit can be called {name!r}")
        if _SET_LOCK is None:
            message = "named limits need a Linux kernel: nothing else has locks that fit"
            raise LimitError(message)
        path = folder / name
        try:
            with Folder.open(os.fspath(folder.parent), folder.name, make=make) as limits:
                try:
                    return cls._open(limits, path, mend=mend)
                except FileNotFoundError:
                    if not make:
                        raise
                _create(limits, name)
                return cls._open(limits, path, mend=mend)
        except OSError as error:
            message = f"cannot use the limit {name!r}: {error.strerror}: {path}"
            raise LimitError(message) from error

    @classmethod
    def _open(cls, folder: Folder, path: Path, *, mend: bool) -> Self:
        with no_forks():
            file = cls(path, folder.open_file(path.name, os.O_RDWR))
            keep_from_children(file)
        if mend:
            return file
        try:
            file.bounds()
        except LimitError:
            file.close()
            raise
        return file

    # --- what was set ---

    def bounds(self) -> Bounds:
        """What `asyncflow limit set` says.

        Raises:
            LimitError: The file is damaged.
        """
        try:
            data = os.pread(self._descriptor, FILE_BYTES, 0)
        except OSError as error:
            raise self._error(error) from error
        return unpack_bounds(data, self.path)

    def set_bounds(self, bounds: Bounds) -> None:
        """Have every engine of the store keep to these, from within a second on. It may wait.

        Raises:
            LimitError: The file cannot be written.
        """
        for _ in range(_GUARD_TRIES):
            with self._guarded() as alone:
                if alone:
                    self._write_bounds(bounds)
                    os.fsync(self._descriptor)
                    return
            time.sleep(0.001)
        message = f"cannot use the limit {self.path.name!r}: a process that uses it is stopped"
        raise LimitError(message)

    def _write_bounds(self, bounds: Bounds) -> None:
        # Within one page, so that nobody sees half of it and no crash leaves half.
        reached("bounds.set")
        os.pwrite(self._descriptor, pack_bounds(bounds), 0)

    # --- places ---

    def take_place(self, number: int) -> bool:
        """Take this place, if nobody else has it."""
        return self._lock(_PLACES + number)

    def free_place(self, number: int) -> None:
        """Give it back."""
        self._unlock(_PLACES + number)

    # --- the line ---

    def join_line(self) -> int | None:
        """Wait behind those who wait; the ticket, or None if somebody else is just taking one."""
        with self._guarded() as alone:
            if not alone:
                return None
            ticket = (self._number_at(_TICKET_AT) + 1) % _TICKETS
            self._write_number(_TICKET_AT, ticket)
        return ticket if self._lock(_LINE + ticket) else None

    def leave_line(self, ticket: int) -> None:
        """Wait no more."""
        self._unlock(_LINE + ticket)

    def is_preceded(self, ticket: int | None) -> bool:
        """Whether others wait that came earlier; without a ticket, whether others wait."""
        count = _TICKETS if ticket is None else ticket
        return count > 0 and self._find(_LINE, count) is not None

    # --- the rate ---

    def begin_one(self, per_second: float, slack: float, now: float) -> float:
        """Count one that begins at this time, in seconds since 1970; or, how long it has to wait.

        They begin at even distances; `slack` is how many seconds one may be earlier than that.
        """
        with self._guarded() as alone:
            if not alone:
                return 0.001
            distance = 1 / per_second
            due = self._number_at(_NEXT_AT) / 1e6
            if due > now + max(_FAR_SECONDS, distance):
                due = now
            if due - slack > now:
                return due - slack - now
            self._write_number(_NEXT_AT, int((max(now, due) + distance) * 1e6))
            return 0.0

    def undo_one(self, per_second: float) -> None:
        """It did not begin after all."""
        with self._guarded() as alone:
            if alone:
                earlier = self._number_at(_NEXT_AT) - int(1e6 / per_second)
                self._write_number(_NEXT_AT, max(0, earlier))

    # --- looking ---

    def in_use(self) -> int:
        """How many places others than this have."""
        return self._count(_PLACES, _LINE - _PLACES)

    def in_line(self) -> int:
        """How many engines wait."""
        return self._count(_LINE, _TICKETS)

    # --- how it works ---

    def _number_at(self, offset: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, 8, offset), "little")

    def _write_number(self, offset: int, number: int) -> None:
        os.pwrite(self._descriptor, number.to_bytes(8, "little"), offset)

    @contextmanager
    def _guarded(self) -> Iterator[bool]:
        """Alone with the file's numbers, or not: then somebody else is for a moment.

        Raises:
            LimitError: The file cannot be read or written.
        """
        alone = self._lock(_GUARD)
        try:
            yield alone
        except OSError as error:
            raise self._error(error) from error
        finally:
            if alone:
                self._unlock(_GUARD)

    def _lock(self, byte: int) -> bool:
        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._descriptor, _SET_LOCK or 0, wanted)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._error(error) from error
        return True

    def _unlock(self, byte: int) -> None:
        with suppress(OSError):  # a closed file has no locks
            wanted = _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, 1, 0)
            fcntl.fcntl(self._descriptor, _SET_LOCK or 0, wanted)

    def _find(self, start: int, count: int) -> tuple[int, int] | None:
        """One of the ranges of bytes in here that somebody else has locked: start and length."""
        wanted = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
        found = _LOCK.unpack(fcntl.fcntl(self._descriptor, _GET_LOCK or 0, wanted))
        return None if found[0] == fcntl.F_UNLCK else (found[2], found[3])

    def _count(self, start: int, count: int) -> int:
        """How many bytes in here others have locked."""
        ranges, total = [(start, start + count)], 0
        while ranges:
            first, end = ranges.pop()
            if first >= end or (found := self._find(first, end - first)) is None:
                continue
            at, stop = max(first, found[0]), min(end, sum(found))
            total += stop - at
            ranges += [(first, at), (stop, end)]
        return total

    def _error(self, error: OSError) -> LimitError:
        message = f"cannot use the limit {self.path.name!r}: {error.strerror}: {self.path}"
        return LimitError(message)

    def close(self) -> None:
        """Give up all that is held. Harmless when repeated."""
        if self._descriptor >= 0:
            with no_forks():
                os.close(self._descriptor)
                self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LimitFile {self.path.name}>"


def _create(folder: Folder, name: str) -> None:
    """Make the file of a limit, whole at once: any number of processes may do so."""
    reached("limit.create")
    draft = f".{name}.{os.urandom(8).hex()}"
    descriptor = folder.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        os.write(descriptor, pack_bounds(Bounds()))
        reached("limit.link")
        with suppress(FileExistsError):
            folder.link(draft, folder, name)
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            folder.delete(draft)


def pack_bounds(bounds: Bounds) -> bytes:
    """What was set, as a limit's file begins."""
    at_once = -1 if bounds.at_once is None else bounds.at_once
    per_second = -1.0 if bounds.per_second is None else bounds.per_second
    data = HEADER + _SETTING.pack(at_once, per_second)
    return data + crc32(data).to_bytes(8, "little")


def unpack_bounds(data: bytes, path: Path) -> Bounds:
    """What was set, from the bytes of a limit's file.

    Raises:
        LimitError: The file is damaged.
    """
    whole = data[:_CHECKED_BYTES]
    checksum = crc32(whole).to_bytes(4, "little")
    if not whole.startswith(HEADER) or data[_CHECKED_BYTES:][:4] != checksum:
        message = (
            f"{path} is damaged: say again what is to hold with "
            f"`asyncflow limit set {path.name} N`, or `asyncflow limit unset {path.name}`"
        )
        raise LimitError(message)
    at_once, per_second = _SETTING.unpack_from(whole, len(HEADER))
    if at_once > MOST_AT_ONCE or not (
        per_second <= 0 or LEAST_PER_SECOND <= per_second <= MOST_PER_SECOND
    ):
        message = (
            f"{path} says what no limit can be, {at_once} at a time and {per_second:g} per second: "
            f"set it again with `asyncflow limit set {path.name} N`"
        )
        raise LimitError(message)
    return Bounds(at_once if at_once >= 0 else None, per_second if per_second > 0 else None)


DRAFT: Final = re.compile(r"\..+\.[0-9a-f]{16}")
"""How a limit's file is called until it is whole."""


def names_in(folder: Path) -> list[str]:
    """The limits that have a file, by name."""
    try:
        return sorted(path.name for path in folder.iterdir() if LIMIT_NAME.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
