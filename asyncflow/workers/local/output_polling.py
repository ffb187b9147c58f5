"""Looks for what running tasks print, which nothing else tells before they end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._support.timed_call import TimedCall
from asyncflow.workers.local.worker_process import Printed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from asyncflow.workers.local.worker_process import WorkerProcess

POLL_SECONDS: Final = 0.05
"""How late, at most, the output of a running task is seen."""


class OutputPolling:
    """The files that the workers of a pool print to, looked at by the clock."""

    def __init__(self, workers: Callable[[], Iterable[WorkerProcess]]) -> None:
        """Look at none; `workers` returns those that there are."""
        self._workers = workers
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tell: Callable[[WorkerProcess], None] = _no_one
        self._timer: TimedCall | None = None

    def start(self, loop: asyncio.AbstractEventLoop, tell: Callable[[WorkerProcess], None]) -> None:
        """Look on this loop; `tell` is called with workers for which there is something to tell."""
        self._loop, self._tell = loop, tell

    def look_later(self) -> None:
        """Look in a moment, and then again as long as tasks run."""
        if self._timer is None and self._loop is not None:
            due = self._loop.time() + POLL_SECONDS
            self._timer = TimedCall(self._loop, due, self.look)

    def look(self) -> None:
        """Look for new output of running tasks."""
        self._timer = None
        running = [worker for worker in self._workers() if worker.running is not None]
        if running:
            self.look_later()
        for worker in running:
            if worker.untold or worker.paused or worker.running is None:
                continue
            # The sizes first: a worker reports that the next task begins before it prints anything.
            written = worker.output.sizes()
            if worker.output.has_unread(written) and not worker.has_more():
                worker.untold.append(Printed(worker.running, written, is_end=False))
                self._tell(worker)

    def look_if_overdue(self) -> None:
        """Look now if the timer should have rung long ago: its call was lost."""
        if self._timer is None or self._loop is None:
            return
        if self._timer.is_overdue(self._loop.time(), POLL_SECONDS):
            self._timer.cancel()
            self.look()

    def close(self) -> None:
        """Look no more."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<OutputPolling {'runs' if self._timer is not None else 'waits'}>"


def _no_one(_: WorkerProcess) -> None:
    """Tell nothing, before the start."""
