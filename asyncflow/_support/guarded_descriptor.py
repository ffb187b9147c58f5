"""File descriptors that a step may close by mistake, because it runs in the same process."""

from __future__ import annotations

import errno
import fcntl
import os
from itertools import cycle, repeat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_GET: Final[int] = getattr(fcntl, "F_GETSIG", -1)  # of Linux
_SET: Final[int] = getattr(fcntl, "F_SETSIG", -1)
_MARKS: Final = range(34, 65)
_marks: Final = cycle(_MARKS)


def _mark(number: int) -> int:
    """Give an open file a mark that other files do not have, and return it; 0 if it cannot be.

    The mark is the signal that the kernel would send if the file had asked for signals, which none
    of ours does. It belongs to the open file, so a copy of the descriptor has it, and no file that
    is opened later. Asking for it takes a quarter of the time of `fstat`.
    """
    try:
        present = fcntl.fcntl(number, _GET)
        if present in _MARKS:
            return present
        mark = next(_marks)
        fcntl.fcntl(number, _SET, mark)
    except OSError:
        return 0
    return mark


class Descriptor:
    """A descriptor, and the file that was open under it when this was made."""

    __slots__ = ("_identity", "_mark", "number")

    def __init__(self, number: int) -> None:
        """Remember which file is open there now.

        Raises:
            OSError: No file is open there.
        """
        self.number = number
        found = os.fstat(number)
        self._identity = found.st_ino, found.st_dev
        self._mark = _mark(number)

    def is_at(self, number: int) -> bool:
        """Whether the same file is open under this number."""
        try:
            if self._mark:
                return fcntl.fcntl(number, _GET) == self._mark
            found = os.fstat(number)
        except OSError:
            return False
        return (found.st_ino, found.st_dev) == self._identity

    def is_whole(self) -> bool:
        """Whether the descriptor is still open, for the same file."""
        try:
            if self._mark and fcntl.fcntl(self.number, _GET) == self._mark:
                return True
        except OSError:
            return False
        return self.is_at(self.number)

    def check(self) -> None:
        """Refuse a descriptor that was closed or reused.

        Raises:
            OSError: It was closed or reused.
        """
        if not self.is_whole():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class Descriptors:
    """Several descriptors that are looked at together, which takes half of the time."""

    __slots__ = ("_each", "_marks", "_numbers")

    def __init__(self, each: Sequence[tuple[int, Descriptor]]) -> None:
        """Each number, and the file that should be open there."""
        self._each = each
        self._numbers = [number for number, _ in each]
        marks = [descriptor._mark for _, descriptor in each]  # noqa: SLF001 - of this module
        self._marks = marks if all(marks) else None

    def with_others(self, others: Iterable[Descriptor]) -> Descriptors:
        """These, and others where they are."""
        return Descriptors([*self._each, *((each.number, each) for each in others)])

    def are_whole(self) -> bool:
        """Whether the same files are open under all of these numbers."""
        try:
            if [*map(fcntl.fcntl, self._numbers, repeat(_GET))] == self._marks:
                return True
        except (OSError, ValueError):
            pass  # one of them is closed, or this system has no marks
        return all(descriptor.is_at(number) for number, descriptor in self._each)
