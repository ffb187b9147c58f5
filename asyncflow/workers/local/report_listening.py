"""Whose reports the event loop announces, and whose are read by the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.workers.local.paced_reading import PacedReading

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from asyncflow.workers.local.worker_process import WorkerProcess


class ReportListening:
    """The report sockets of the workers of one pool, on its event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_readable: Callable[[Iterable[WorkerProcess]], None],
    ) -> None:
        """Listen to none yet.

        Args:
            loop: Announces what comes.
            on_readable: Called when sockets of workers have something to read, or when it is time
                to look whether they have.
        """
        self._loop, self._on_readable = loop, on_readable
        self._paced = PacedReading(loop, on_readable)

    def begin(self, worker: WorkerProcess) -> None:
        """Have what comes from a worker announced."""
        self._loop.add_reader(worker.reports, self._on_readable, (worker,))

    def end(self, worker: WorkerProcess) -> None:
        """Be told no more of what comes from it."""
        self._paced.drop(worker)
        self._loop.remove_reader(worker.reports)

    def is_paced(self, worker: WorkerProcess) -> bool:
        """Whether it is read by the clock."""
        return worker in self._paced

    def announce(self, worker: WorkerProcess) -> None:
        """Have what comes from it announced at once, if it is read by the clock."""
        if worker in self._paced:
            self._paced.drop(worker)
            if not (worker.has_exited or worker.silent or worker.paused):
                self.begin(worker)

    def pace(self, worker: WorkerProcess) -> None:
        """Everything of it was read: leave it alone for a moment if it is busy."""
        if worker.paused or worker.untold:
            self.announce(worker)
        elif (was_paced := worker in self._paced) != self._paced.keeps(worker):
            if was_paced:
                self.begin(worker)
            else:
                self._loop.remove_reader(worker.reports)

    def look_if_overdue(self, seconds: float) -> None:
        """Have those read by the clock read, if that should have happened so long ago."""
        if self._paced.is_overdue(seconds):
            self._paced.look()

    def close(self) -> None:
        """Read nobody by the clock any more."""
        self._paced.close()

    def __repr__(self) -> str:
        return f"<ReportListening, {self._paced!r}>"
