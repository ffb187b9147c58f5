"""What a task uses of its worker's process, by the kernel's own accounting.

Processor time is that of all threads of the process, and of its children once they are waited for.
The highest memory of a process only ever rises, unless the process sets it back, as Linux lets it:
a worker does so before a task if it has risen since the last time. A task that follows another one
at once begins where that one has ended. So a task costs two system calls, and a few more after one
that has used more memory than those before it.
"""

from __future__ import annotations

import os
import sys
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Final

from asyncflow.workers.messages import UNKNOWN_USAGE, Usage, new_usage

_SET_BACK: Final = "/proc/self/clear_refs"
_PEAK: Final = b"5"  # what to set back, see proc(5)
_UNIT: Final = 1 if sys.platform == "darwin" else 1024  # of `ru_maxrss`, in bytes
_RISE: Final = (1 << 20) // _UNIT  # a smaller one is not worth setting it back


class UsageMeter:
    """Measures one task of this process at a time."""

    __slots__ = (
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
        self._began = 0.0
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
        used = getrusage(RUSAGE_SELF)
        self._began, self._peak = used.ru_utime + used.ru_stime, used.ru_maxrss
        if self._has_risen:
            self._base, self._has_risen = used.ru_maxrss, False

    def end(self) -> Usage:
        """What the task that began last has used; it ends now."""
        used, waited = getrusage(RUSAGE_SELF), getrusage(RUSAGE_CHILDREN)
        now, peak, before = used.ru_utime + used.ru_stime, used.ru_maxrss, self._peak
        children = waited.ru_utime + waited.ru_stime
        seconds = now - self._began + children - self._children
        self._began, self._children, self._peak, self._follows = now, children, peak, True
        self._has_risen = peak > self._base + _RISE
        known = self._can_set_back or peak > before
        seconds = round(seconds, 6) if seconds > 0.0 else 0.0
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
