"""Descriptors that steps can close by mistake, for they run in the same process."""

from __future__ import annotations

import errno
import os


class Descriptor:
    """An open descriptor, and what it stands for."""

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        """Remember what is open there now.

        Raises:
            OSError: Nothing is.
        """
        self.number = number
        found = os.fstat(number)
        self._identity = found.st_ino, found.st_dev

    def is_at(self, number: int) -> bool:
        """Whether the same is open under this number."""
        try:
            found = os.fstat(number)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == self._identity

    def is_whole(self) -> bool:
        """Whether nobody has closed it, or put something else in its place."""
        return self.is_at(self.number)

    def check(self) -> None:
        """Make sure of it.

        Raises:
            OSError: Somebody has.
        """
        if not self.is_whole():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
