"""Locks on single bytes of a file, which the kernel releases when their holder dies.

They are locks of an open file description, which only Linux has: two descriptors of one process,
opened separately, exclude each other as two processes do. The bytes need not exist in the file.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import ClassVar, Final

_FLOCK: Final = struct.Struct("hhqqi4x")  # C's `struct flock`
_SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None)
_GET_LOCK: Final = getattr(fcntl, "F_OFD_GETLK", None)


class ByteLocks:
    """The locks that one open file holds on its bytes. Nothing here waits."""

    AVAILABLE: ClassVar[bool] = _SET_LOCK is not None
    """Whether this system has such locks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def take(self, byte: int) -> bool:
        """Lock a byte; False if another holder has it.

        Raises:
            OSError: The file system has no locks.
        """
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        try:
            fcntl.fcntl(self._descriptor, _SET_LOCK or 0, wanted)
        except BlockingIOError:
            return False
        return True

    def release(self, byte: int, count: int = 1) -> None:
        """Unlock that many bytes. Harmless if they are not locked, or the file is closed."""
        with suppress(OSError, ValueError):  # a closed file has no locks; -1 is a ValueError
            wanted = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, byte, count, 0)
            fcntl.fcntl(self._descriptor, _SET_LOCK or 0, wanted)

    def find_other(self, start: int, count: int) -> tuple[int, int] | None:
        """A range within these bytes that another holder has locked: its start and length."""
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
        found = _FLOCK.unpack(fcntl.fcntl(self._descriptor, _GET_LOCK or 0, wanted))
        return None if found[0] == fcntl.F_UNLCK else (found[2], found[3])

    def count_others(self, start: int, count: int) -> int:
        """How many of these bytes others have locked."""
        ranges, total = [(start, start + count)], 0
        while ranges:
            first, end = ranges.pop()
            if first >= end or (found := self.find_other(first, end - first)) is None:
                continue
            at, stop = max(first, found[0]), min(end, sum(found))
            total += stop - at
            ranges += [(first, at), (stop, end)]
        return total
