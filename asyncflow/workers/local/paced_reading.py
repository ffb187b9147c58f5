"""Reads the reports of busy workers a few at a time instead of one by one.

A worker that has many short tasks reports every fifty microseconds. If the event loop were woken
for each report, the engine would spend more time on waking up, on writing its journal and on
looking for what is next than on the reports. So the loop does not watch the socket of such a
worker: it looks there after a moment, and finds what has come meanwhile. Nothing is held back in
the worker, which writes each report to the socket at once; if it dies, they are all there.

A worker is left alone only as long as what it has been sent keeps it busy. One with a single task,
or with long ones, is watched as usual, so its reports are read when they come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._support.timed_call import TimedCall

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from asyncflow.workers.local.worker_process import WorkerProcess

PACE_SECONDS: Final = 0.005
"""The longest time for which the reports of a busy worker are left in its socket."""
_LEAST_SECONDS: Final = 0.0005  # a shorter wait saves nothing
_LEAST_TASKS: Final = 4  # fewer keep no worker busy for long enough
_OVERHEAD_SECONDS: Final = 0.00003  # of a worker for each task, beside its step; rather too little
_MOST_TIMES: Final = 2  # as long as that: more is the time of a machine that is busy with others


class PacedReading:
    """The workers whose reports are looked for by the clock."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_due: Callable[[list[WorkerProcess]], None]
    ) -> None:
        """Pace no worker yet; `on_due` is called with workers whose reports should be read."""
        self._loop, self._on_due = loop, on_due
        self._paced: dict[int, WorkerProcess] = {}  # by token
        self._timer: TimedCall | None = None

    def __contains__(self, worker: WorkerProcess) -> bool:
        return worker.token in self._paced

    def keeps(self, worker: WorkerProcess) -> bool:
        """Whether the worker is busy enough to be left alone for a moment; if so, it is.

        Called whenever all of its reports have been read.
        """
        left, now = len(worker.tasks), self._loop.time()
        ended, worker.ended = worker.ended, 0
        seconds, worker.ended_seconds = worker.ended_seconds, 0.0
        since, worker.read_at = worker.read_at, now
        wait = 0.0
        if left >= _LEAST_TASKS and ended:
            each = seconds / ended + _OVERHEAD_SECONDS
            if worker.token in self._paced:  # it had work all the time
                each = max(each, min((now - since) / ended, _MOST_TIMES * each))
            wait = each * left / 2  # it should have half of its tasks left then
        if wait < _LEAST_SECONDS:
            self._paced.pop(worker.token, None)
            return False
        self._paced[worker.token] = worker
        if self._timer is None:
            due = now + min(wait, PACE_SECONDS)
            self._timer = TimedCall(self._loop, due, self.look)
        return True

    def look(self) -> None:
        """Have the reports of all paced workers read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._paced:
            self._on_due(list(self._paced.values()))

    def is_overdue(self, seconds: float) -> bool:
        """Whether the timer should have rung so long ago, or is missing: its call was lost."""
        if self._timer is None:
            return bool(self._paced)
        return self._timer.is_overdue(self._loop.time(), seconds)

    def drop(self, worker: WorkerProcess) -> None:
        """Pace this worker no longer. Harmless if it is not paced."""
        self._paced.pop(worker.token, None)

    def close(self) -> None:
        """Pace no worker any more."""
        self._paced.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<PacedReading of {len(self._paced)} workers>"
