"""File descriptors that a step may close by mistake, because it runs in the same process."""

from __future__ import annotations

import errno
import os


class Descriptor:
    """A descriptor, and the file that was open under it when this was made."""

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        """Remember which file is open there now.

        Raises:
            OSError: No file is open there.
        """
        self.number = number
        found = os.fstat(number)
        self._identity = found.st_ino, found.st_dev

    def is_at(self, number: int) -> bool:
        """Whether the same file is open under this number."""
        try:
            found = os.fstat(number)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == self._identity

    def is_whole(self) -> bool:
        """Whether the descriptor is still open, for the same file."""
        try:  # not `is_at`: a worker asks four of these after each task
            found = os.fstat(self.number)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == self._identity

    def check(self) -> None:
        """Refuse a descriptor that was closed or reused.

        Raises:
            OSError: It was closed or reused.
        """
        if not self.is_whole():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
