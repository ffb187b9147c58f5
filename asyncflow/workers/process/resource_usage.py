"""What a task uses of its worker's process, by the kernel's own accounting.

Processor time is that of all threads of the process, and of its children once they are waited for.
The highest memory of a process only ever rises, unless the process sets it back, as Linux lets it:
a worker does so before a task if it has risen since the last time. A task that follows another one
at once begins where that one has ended.

Memory and children are not asked for after each of many short tasks, but once in a millisecond of
processor time: such a task has no time to use more than a megabyte or so, and the next one that is
asked about has what it missed.
"""

from __future__ import annotations

import os
import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from time import process_time_ns
from typing import Final

from asyncflow.workers.messages import UNKNOWN_USAGE, Usage, new_usage

_SET_BACK: Final = "/proc/self/clear_refs"
_PEAK: Final = b"5"  # what to set back, see proc(5)
_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
_RISE: Final = (1 << 20) // _UNIT  # a smaller one is not worth setting it back
_SHORT_NS: Final = 100_000  # a task that takes less need not be asked about
_STALE_NS: Final = 1_000_000  # but one in each millisecond is


class UsageMeter:
    """Measures one task of this process at a time."""

    __slots__ = (
        "_asked",
        "_base",
        "_began",
        "_can_set_back",
        "_children",
        "_follows",
        "_has_risen",
        "_peak",
    )

    def __init__(self) -> None:
        """Measure nothing yet."""
        self._can_set_back = True
        self._has_risen = True  # what the process has needed before its first task is not known
        self._base = 0  # the peak when it was set back last
        self._began = 0  # the processor time then, in ns
        self._asked = 0  # the processor time when the kernel was asked for more than that
        self._peak = 0  # before the task
        self._children = 0.0
        self._follows = False  # whether a task that begins now follows another one at once

    def note_pause(self) -> None:
        """Note that the next task does not follow the last one at once."""
        self._follows = False

    def note_other_work(self) -> None:
        """Note that the process has done something between two tasks, such as an import."""
        self._has_risen = True
        self._children = _children()

    def begin(self) -> None:
        """A task begins."""
        if self._follows and not self._has_risen:
            return
        if self._has_risen and self._can_set_back:
            self._set_back()
        self._began = self._asked = process_time_ns()
        self._peak = getrusage(RUSAGE_SELF).ru_maxrss
        if self._has_risen:
            self._base, self._has_risen = self._peak, False

    def end(self) -> Usage:
        """What the task that began last has used; it ends now."""
        now = process_time_ns()
        used = now - self._began
        self._began, self._follows = now, True
        if used < _SHORT_NS and now < self._asked + _STALE_NS and self._can_set_back:
            return new_usage((used // 1000 / 1e6, self._peak * _UNIT))
        self._asked = now
        peak, children = getrusage(RUSAGE_SELF).ru_maxrss, _children()
        known = self._can_set_back or peak > self._peak
        seconds = round(used / 1e9 + max(0.0, children - self._children), 6)
        self._children, self._peak = children, peak
        self._has_risen = peak > self._base + _RISE
        return new_usage((seconds, peak * _UNIT if known else None))

    def _set_back(self) -> None:
        try:
            descriptor = os.open(_SET_BACK, os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # not on macOS
            self._can_set_back = False
            return
        try:
            os.write(descriptor, _PEAK)
        except OSError:  # a kernel without it
            self._can_set_back = False
        finally:
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<UsageMeter {'with' if self._can_set_back else 'without'} the memory of each task>"


class NoMeter(UsageMeter):
    """Measures nothing, in a process that does not belong to the tasks alone."""

    __slots__ = ()

    def note_other_work(self) -> None:
        """Do nothing."""

    def begin(self) -> None:
        """Do nothing."""

    def end(self) -> Usage:
        """Say that nothing is known."""
        return UNKNOWN_USAGE


def _children() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
