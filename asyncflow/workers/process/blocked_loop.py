"""Notices when an async step blocks the event loop that it shares, and where.

A thread looks at the stack of the loop's thread a few times a second, without its help: which
callback it is in, and since when. That costs the loop nothing. A loop that is merely busy does not
count as blocked, because each callback is a call of its own. C code that holds the interpreter's
lock stops this thread as well, and is not noticed.
"""

from __future__ import annotations

import linecache
import sys
import threading
import time
from asyncio.events import Handle
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.call_site import is_own
from asyncflow._support.notebook import shown_file
from asyncflow.flow.current import task_in
from asyncflow.workers.process.stop_signals import block_stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from asyncflow.flow.current import TaskContext

_LOOKS: Final = 4  # within the time that should be noticed
_LEAST_SECONDS: Final = 0.01  # between two looks
_AGAIN: Final = 4.0  # a block is reported again when it has lasted this many times as long
_RUN: Final[Any] = Handle._run.__code__  # noqa: SLF001 - a loop calls every callback there


class Watchdog:
    """Watches the event loop of the thread that creates it."""

    def __init__(
        self, seconds: float, tell: Callable[[TaskContext | None, float, str], object]
    ) -> None:
        """Watch for blocks of at least so many seconds.

        `tell` is called in a thread of its own with the task, if one causes the block, the seconds
        so far, and the place: file, line, function and text; empty when the block is over.
        """
        self._tell = tell
        self._seconds = seconds
        self._loop_thread = threading.get_ident()
        self._awake = threading.Event()
        self._call: FrameType | None = None
        self._task: TaskContext | None = None
        self._since = 0.0
        self._due = seconds
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Start watching, because there are tasks. Cheap when repeated."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system cannot start a thread: tasks run unwatched
                return
            self._thread = thread
        if not self._awake.is_set():
            self._awake.set()

    def rest(self) -> None:
        """Stop watching, because there are no tasks."""
        self._awake.clear()

    def _run(self) -> None:
        block_stop_signals()  # if the worker's main thread blocks one, this thread must not take it
        pause = max(self._seconds / _LOOKS, _LEAST_SECONDS)
        while True:
            self._awake.wait()
            time.sleep(pause)
            self._look(time.monotonic())

    def _look(self, now: float) -> None:
        top = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - made for such uses
        call, stack = _callback(top)
        if call is not self._call:
            if self._due > self._seconds:
                self._tell(self._task, now - self._since, "")
            self._call, self._since, self._due = call, now, self._seconds
        elif call is not None and now - self._since >= self._due:
            self._due *= _AGAIN
            self._task = _task_of(call)
            self._tell(self._task, now - self._since, _described(stack, self._task))

    def __repr__(self) -> str:
        return f"<Watchdog {'awake' if self._awake.is_set() else 'asleep'}>"


def _callback(frame: FrameType | None) -> tuple[FrameType | None, list[FrameType]]:
    """The running call of a callback by the loop, and the frames within it, innermost first."""
    stack: list[FrameType] = []
    while frame is not None:
        if frame.f_code is _RUN:
            return frame, stack
        stack.append(frame)
        frame = frame.f_back
    return None, []


def _task_of(call: FrameType) -> TaskContext | None:
    """The task in whose context the callback runs: the step, or something that it started."""
    handle = call.f_locals.get("self")
    context = getattr(handle, "_context", None)
    return task_in(context) if context is not None else None


def _described(stack: list[FrameType], task: TaskContext | None) -> str:
    """The innermost line in the flow's own file, else in any file but ours."""
    file = task.graph[task.step_name].file if task is not None else ""
    own = [frame for frame in stack if shown_file(frame.f_code.co_filename) == file]
    others = [frame for frame in stack if not is_own(frame.f_code.co_filename)]
    if not (own or others):
        return "in asyncflow itself, which reads or writes its artifacts"
    frame = (own or others)[0]
    code, line = frame.f_code, frame.f_lineno
    place = f"{shown_file(code.co_filename)}:{line}, in {code.co_name}"
    text = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    return f"{place}: {text}" if text else place
