r"""A named limit: a file that all engines share. The kernel frees what a dead process held.

```
STORE/limits/NAME    56 bytes
  0  16 bytes  `ASYNCFLOW LIMIT\n`
 16  i64       how many at a time, as `asyncflow limit set` says; -1 for unset
 24  f64       how many per second, likewise
 32  u32       crc32 of the 32 bytes before
 36  u32       0
 40  u64       unused; earlier versions count tickets here
 48  u64       the earliest time at which the next may begin: microseconds since 1970
```

An engine holds locks on bytes far behind the end of the file. The kernel releases them when the
process dies. Byte 2^32 + i is place i; a limit of n at a time has n places. Byte 2^48 + t is held
by the engine that waits with ticket t, the moment at which it began to wait in microseconds of the
machine's monotonic clock; engines with later tickets let it go first. Byte 0 is held while the last
number is read and written. `asyncflow.store.byte_locks` describes such locks.

Nothing here waits. `asyncflow.scheduling.named_limits` decides what an engine does while it must
wait.
"""

from __future__ import annotations

import os
import re
import struct
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self
from zlib import crc32

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import LimitError
from asyncflow.store.byte_locks import ByteLocks
from asyncflow.store.folders import Folder
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

HEADER: Final = b"ASYNCFLOW LIMIT\n"
FILE_BYTES: Final = 56

_SETTING: Final = struct.Struct("<qd")
_CHECKED_BYTES: Final = len(HEADER) + _SETTING.size
_NEXT_AT: Final = 48
_GUARD: Final = 0
_PLACES: Final = 1 << 32
_LINE: Final = 1 << 48
_TICKETS: Final = 1 << 60  # more microseconds than a machine runs
_FAR_SECONDS: Final = 3600.0  # if the next start is further away, a clock was set back


class Bounds(NamedTuple):
    """How many at a time, and how many per second; None where that is unset."""

    at_once: int | None = None
    per_second: float | None = None

    def or_else(self, other: Bounds) -> Bounds:
        """These bounds; where one is unset, the other's."""
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


class LimitUse(NamedTuple):
    """What is set of a limit, and how much of it is in use."""

    bounds: Bounds
    in_use: int
    """How many places the tasks of engines have."""
    engines_waiting: int


class LimitFile:
    """The file of one limit, open in one engine; implements `EngineLimit`."""

    look_seconds: Final = 0.02  # how late, at most, a place that another engine freed is noticed

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._locks = ByteLocks(descriptor)

    @classmethod
    def open(cls, folder: Path, name: str, *, make: bool = True, mend: bool = False) -> Self:
        """Open a limit. `make` creates a missing file; `mend` also opens a damaged one.

        Raises:
            LimitError: No limit can have that name; its file is missing, damaged, or cannot be
                created or read; or this system has no byte locks.
        """
        if not LIMIT_NAME.fullmatch(name):
            raise LimitError(f"{name!r} cannot be the name of a limit")
        if not ByteLocks.AVAILABLE:
            message = "named limits need a Linux kernel: others have no locks that fit"
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

    @property
    def name(self) -> str:
        """The limit's name."""
        return self.path.name

    def watch(self, on_news: Callable[[], object]) -> None:
        """Does nothing: nobody tells when a lock is released."""

    # --- what was set ---

    def bounds(self) -> Bounds:
        """The bounds that `asyncflow limit set` has set.

        Raises:
            LimitError: The file is damaged.
        """
        try:
            data = os.pread(self._descriptor, FILE_BYTES, 0)
        except OSError as error:
            raise self._error(error) from error
        return unpack_bounds(data, self.path)

    def set_bounds(self, bounds: Bounds) -> None:
        """Set new bounds; every engine of the store follows them within a second.

        Raises:
            LimitError: The file cannot be written.
        """
        try:
            # They lie within one page, so no reader sees half of them and no crash leaves half.
            reached("bounds.set")
            os.pwrite(self._descriptor, pack_bounds(bounds), 0)
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._error(error) from error

    # --- places ---

    def take_place(self, number: int) -> bool:
        """Take a place; False if somebody else has it."""
        return self._lock(_PLACES + number)

    def take_below(self, at_once: int, taken: Collection[int]) -> int | None:
        """Take the first free place below `at_once`; `taken` are those that this engine has."""
        for place in range(at_once):
            if place not in taken and self.take_place(place):
                return place
        return None

    def free_place(self, number: int, *, unused: bool = False) -> None:
        """Give a place back."""
        del unused
        self._locks.release(_PLACES + number)

    def keep_only(self, places: Collection[int], ticket: int | None) -> None:
        """Give back all places and tickets but these. Harmless if there are no others."""
        kept = sorted(_PLACES + place for place in places)
        kept += [] if ticket is None else [_LINE + ticket]
        first = _PLACES
        for byte in (*kept, _LINE + _TICKETS):
            if byte > first:
                self._locks.release(first, byte - first)
            first = byte + 1

    def lost(self) -> None:
        """None: the kernel takes no lock away."""

    def expect(self, run: int, at_once: int, ready: int) -> None:
        """Does nothing: tickets tell who waits."""

    def let_others(self, run: int) -> None:
        """Does nothing: what no task has is anybody's."""

    # --- the queue of engines ---

    def join_line(self) -> int:
        """Join the queue, and return the ticket.

        Raises:
            LimitError: The file cannot be locked.
        """
        ticket = time.monotonic_ns() // 1000
        while not self._lock(_LINE + ticket):
            ticket += 1
        return ticket

    def leave_line(self, ticket: int) -> None:
        self._locks.release(_LINE + ticket)

    def is_preceded(self, ticket: int | None) -> bool:
        """Whether an engine with an earlier ticket waits; without a ticket, whether any does."""
        count = _TICKETS if ticket is None else ticket
        return count > 0 and self._locks.find_other(_LINE, count) is not None

    # --- the rate ---

    def begin_one(self, per_second: float, slack: float, now: float) -> float:
        """Count one start now, and return 0; or return how many seconds it has to wait.

        Starts are spaced evenly. One may come up to `slack` seconds early. `now` is seconds since
        1970.
        """
        with self._guarded() as alone:
            if not alone:
                return 0.001
            distance = 1 / per_second
            due = _number_at(self._descriptor, _NEXT_AT) / 1e6
            if due > now + max(_FAR_SECONDS, distance):
                due = now
            if due - slack > now:
                return due - slack - now
            _write_number(self._descriptor, _NEXT_AT, int((max(now, due) + distance) * 1e6))
            return 0.0

    def undo_one(self, per_second: float) -> None:
        """Take back a start that was counted but did not happen."""
        with self._guarded() as alone:
            if alone:
                earlier = _number_at(self._descriptor, _NEXT_AT) - int(1e6 / per_second)
                _write_number(self._descriptor, _NEXT_AT, max(0, earlier))

    def hasten(self, per_second: float, now: float) -> None:
        """The rate was changed: the next start comes no later than this one says."""
        with self._guarded() as alone:
            next_at = int((now + 1 / per_second) * 1e6)
            if alone and _number_at(self._descriptor, _NEXT_AT) > next_at:
                _write_number(self._descriptor, _NEXT_AT, next_at)

    # --- looking ---

    def in_use(self) -> int:
        """How many places others have taken."""
        return self._locks.count_others(_PLACES, _LINE - _PLACES)

    def in_line(self) -> int:
        """How many other engines wait."""
        return self._locks.count_others(_LINE, _TICKETS)

    # --- how it works ---

    @contextmanager
    def _guarded(self) -> Iterator[bool]:
        """Lock the numbers of the file; yields False if somebody else has them locked.

        Raises:
            LimitError: The file cannot be read or written.
        """
        try:
            yield self._lock(_GUARD)
        except OSError as error:
            raise self._error(error) from error
        finally:  # also if a signal handler raised before anybody knew; harmless if others have it
            self._locks.release(_GUARD)

    def _lock(self, byte: int) -> bool:
        try:
            return self._locks.take(byte)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> LimitError:
        message = f"cannot use the limit {self.path.name!r}: {error.strerror}: {self.path}"
        return LimitError(message)

    def leave(self, *, wait: bool = True) -> None:
        """Does nothing: `close` releases all."""

    def close(self) -> None:
        """Close the file, which releases all its locks. Harmless when repeated."""
        if self._descriptor >= 0:
            with no_forks():
                descriptor, self._descriptor = self._descriptor, -1  # never closed twice
                os.close(descriptor)
                self._locks = ByteLocks(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LimitFile {self.path.name}>"


class FolderLimits:
    """The limits of a store in a folder; implements `LimitStore`."""

    def __init__(self, folder: Path) -> None:
        """The folder need not exist."""
        self._folder = folder

    def __repr__(self) -> str:
        return f"<FolderLimits {self._folder}>"

    def names(self) -> list[str]:
        """The names of the limits that have a file, sorted."""
        return names_in(self._folder)

    def open(self, name: str, *, grace_seconds: float = 0.0) -> LimitFile:  # noqa: ARG002 - the kernel frees what an engine had
        """Open a limit, which is made if it is missing.

        Raises:
            LimitError: No limit can have that name; its file is damaged, or cannot be made or read.
        """
        return LimitFile.open(self._folder, name)

    def look(self, name: str) -> LimitUse:
        """The bounds of a limit, and how much of it is in use.

        Raises:
            LimitError: There is none with that name, or it cannot be read.
        """
        with LimitFile.open(self._folder, name, make=False) as file:
            return LimitUse(file.bounds(), file.in_use(), file.in_line())

    def set_bounds(self, name: str, bounds: Bounds) -> None:
        """Set new bounds; a missing limit is made, and a damaged one mended.

        Raises:
            LimitError: No limit can have that name, or its file cannot be written.
        """
        with LimitFile.open(self._folder, name, mend=True) as file:
            file.set_bounds(bounds)


def _number_at(descriptor: int, offset: int) -> int:
    return int.from_bytes(os.pread(descriptor, 8, offset), "little")


def _write_number(descriptor: int, offset: int, number: int) -> None:
    os.pwrite(descriptor, number.to_bytes(8, "little"), offset)


def _create(folder: Folder, name: str) -> None:
    """Create the file of a limit in one step; any number of processes may do so at once."""
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
    """The bounds as bytes: how a limit's file begins."""
    at_once = -1 if bounds.at_once is None else bounds.at_once
    per_second = -1.0 if bounds.per_second is None else bounds.per_second
    data = HEADER + _SETTING.pack(at_once, per_second)
    return data + crc32(data).to_bytes(8, "little")


def unpack_bounds(data: bytes, path: Path) -> Bounds:
    """The bounds from the bytes of a limit's file.

    Raises:
        LimitError: The file is damaged.
    """
    whole = data[:_CHECKED_BYTES]
    checksum = crc32(whole).to_bytes(4, "little")
    if not whole.startswith(HEADER) or data[_CHECKED_BYTES:][:4] != checksum:
        message = (
            f"{path} is damaged: set it again with "
            f"`asyncflow limit set {path.name} N`, or `asyncflow limit unset {path.name}`"
        )
        raise LimitError(message)
    at_once, per_second = _SETTING.unpack_from(whole, len(HEADER))
    if at_once > MOST_AT_ONCE or not (
        per_second <= 0 or LEAST_PER_SECOND <= per_second <= MOST_PER_SECOND
    ):
        message = (
            f"{path} has impossible values, {at_once} at a time and {per_second:g} per second: "
            f"set it again with `asyncflow limit set {path.name} N`"
        )
        raise LimitError(message)
    return Bounds(at_once if at_once >= 0 else None, per_second if per_second > 0 else None)


DRAFT: Final = re.compile(r"\..+\.[0-9a-f]{16}")
"""The name of a limit's file until it is complete."""


def names_in(folder: Path) -> list[str]:
    """The names of the limits that have a file, sorted."""
    try:
        return sorted(path.name for path in folder.iterdir() if LIMIT_NAME.fullmatch(path.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
