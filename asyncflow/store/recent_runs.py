"""The newest runs of a flow, known without listing all of them.

They stand in the file `newest/FLOW`, behind the flow's last id, which ends within the first 32
bytes. One line has the time at which the folder of the flow was last changed, in nanoseconds, and
the CRC-32 of what stands behind it: a line for each id, the newest first, and the word `all` if the
flow has no other runs. Bytes of value 0 fill the space before it:

    1795771753458576
    0 0 0 1795771753458581234 3632233996
    1795771753458576
    1795771753458001
    all

Whoever makes a run writes this under the lock of the file, after making the run's folder. The list
is used only while the folder has the noted time. Any other change to the folder, by hand as well,
gives it another one: then the runs are listed, until the next start of a run notes them anew.
A command that removes or copies a run cuts the list off besides, under the same lock: a start that
goes on meanwhile would note the folder's new time behind the old list.
Versions before this one rewrite the first line alone, and read no further.
"""

from __future__ import annotations

import os
import re
import zlib
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_BEGINS: Final = 32
_MOST_RUNS: Final = 256
_MOST_BYTES: Final = _BEGINS + (_MOST_RUNS + 3) * 20
_HEAD: Final = re.compile(rb"\0*([0-9]{1,20}) ([0-9]{1,10})\n")


class RecentRuns(NamedTuple):
    """The newest ids of a flow, in descending order."""

    ids: list[int]
    is_all: bool
    """Whether the flow has no others."""

    def with_newest(self, number: int) -> RecentRuns:
        """The same with one more."""
        is_all = self.is_all and len(self.ids) < _MOST_RUNS
        return RecentRuns(sorted((number, *self.ids), reverse=True)[:_MOST_RUNS], is_all)


def recent_of(ids: list[int]) -> RecentRuns:
    """The newest of all ids of a flow."""
    return RecentRuns(sorted(ids, reverse=True)[:_MOST_RUNS], is_all=len(ids) <= _MOST_RUNS)


def read_recent(descriptor: int, changed: Callable[[], int]) -> RecentRuns | None:
    """The list in a file; None if nothing is noted, or the folder has changed since.

    When the folder was last changed is asked after reading, so that no change falls in between.

    Raises:
        OSError: It cannot be read.
    """
    content = os.pread(descriptor, _MOST_BYTES, 0)[_BEGINS:]
    head = _HEAD.match(content)
    if head is None or int(head[1]) != changed():
        return None
    lines = content[head.end() :]
    if zlib.crc32(lines) != int(head[2]):
        return None
    *ids, rest = lines.split(b"\n")
    return RecentRuns([int(each) for each in ids], is_all=rest == b"all")


def write_recent(descriptor: int, recent: RecentRuns, changed: int) -> None:
    """Note the list in the file of a flow, whose folder was last changed at `changed`.

    Raises:
        OSError: It cannot be written.
    """
    lines = b"".join(b"%d\n" % number for number in recent.ids)
    if recent.is_all:
        lines += b"all"
    content = b"%d %d\n" % (changed, zlib.crc32(lines)) + lines
    os.pwrite(descriptor, content, _BEGINS)
    os.ftruncate(descriptor, _BEGINS + len(content))


def forget_recent(descriptor: int) -> None:
    """Have the runs of the flow listed at the next start of one.

    Raises:
        OSError: It cannot be written.
    """
    if os.fstat(descriptor).st_size > _BEGINS:
        os.ftruncate(descriptor, _BEGINS)
