"""Polls busy workers to find those that are stuck, silent or stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.conditions import call_again
from asyncflow._support.timed_call import TimedCall
from asyncflow.scheduling.placement import SILENT_POLLS
from asyncflow.workers.messages import Logged, Ping

if TYPE_CHECKING:
    import asyncio

    from asyncflow.scheduling.placement import AllWorkers, WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.interface import WorkerLink

_POLL_SECONDS: Final = 0.05
_STANDING_SECONDS: Final = 2.0  # how long a worker is stopped before a warning is logged
_KILLED_POLLS: Final = 200  # polls of silence until a worker is killed: 10 s at least


class WorkerWatch:
    """Polls the workers while one has a task, or is expected to report or to end."""

    def __init__(
        self, slots: AllWorkers, assigner: TaskAssigner, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._slots, self._assigner, self._loop = slots, assigner, loop
        self._polling: TimedCall | None = None
        call_again(self)

    def begin(self) -> None:
        """A worker was sent a task: start to poll, if that does not go on already."""
        if self._polling is None:
            self._poll_later()

    def _poll_later(self) -> None:
        self._polling = TimedCall(self._loop, self._loop.time() + _POLL_SECONDS, self._poll)

    def close(self) -> None:
        """Poll no more."""
        if self._polling is not None:
            self._polling.cancel()

    def call_again(self) -> None:
        """Poll now if a poll is overdue: the call that should do it was lost."""
        polling = self._polling
        if polling is not None and polling.is_overdue(self._loop.time(), _POLL_SECONDS):
            polling.cancel()
            self._poll()

    def _poll(self) -> None:
        self._polling = None
        if not any(slot.tasks or slot.silent or slot.worker.stop_reason for slot in self._slots):
            return
        self._free_stuck()
        self._end_silent()
        self._poll_later()

    def _free_stuck(self) -> None:
        """Take back the tasks that are queued behind a long one, so that other workers run them.

        The same for tasks of a step that took less time when they were sent: more than a hundred
        of them, each a little shorter than a long one, would keep other runs waiting for seconds.
        """
        now = self._loop.time()
        for slot in self._slots:
            first = slot.first()
            if first is None or not first.started or first.is_async:
                continue
            slot.stuck = now - first.since > slot.worker.ahead.patience
            if len(slot.tasks) > 1 and (slot.stuck or slot.has_too_much):
                slot.worker.take_back()
        if self._assigner.has_impatient(now):
            self._assigner.dispatch()

    def _end_silent(self) -> None:
        """Give a silent worker's tasks to others, and destroy the worker if it stays silent.

        A worker that a debugger or SIGSTOP holds would keep tasks that others could run.

        Polls are counted, not seconds: while this process was suspended, it could not have heard
        from any worker. While a node does not answer, its workers are not counted as silent: their
        reports may be on the way, and whether the node is lost is decided elsewhere.
        """
        for slot in self._slots:
            first = slot.first()
            idle = bool(slot.worker.stop_reason) if first is None else not first.started
            if slot.paused_for is not None or not slot.worker.is_up or not (idle or slot.silent):
                continue
            if not slot.worker.is_heard:
                continue
            slot.silent += 1
            if slot.silent == SILENT_POLLS:
                slot.worker.take_back()
                slot.worker.send(Ping())  # it may have nothing left to report
            elif slot.silent == _KILLED_POLLS:
                slot.worker.destroy("it took no orders any more")

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        """A worker was stopped by a signal, perhaps by a debugger: no task waits for it needlessly.

        The tasks that it has not received go to other workers. Time limits still apply; it is
        killed for no other reason.
        """
        slot = self._slots.of(worker)
        if slot is None:
            return
        slot.stopped = True
        slot.worker.take_back()
        self._loop.call_later(_STANDING_SECONDS, self._warn_of_stop, slot, how)

    def _warn_of_stop(self, slot: WorkerSlot, how: str) -> None:
        """Warn in the library's log, and in that of the task that the worker has had longest."""
        first = next((slot.task(key) for key in slot.tasks), None)
        if first is None or not slot.stopped or self._slots.of(slot.worker) is not slot:
            return
        task = f"{first.source.pathspec}/{first.step}/{first.key.task}"
        pid, others = slot.worker.pid, len(slot.tasks) - 1
        log.warning("a worker was stopped, and its tasks stand still", task=task, pid=pid, how=how)
        more = f", and with it {others} more" if others else ""
        text = (
            f"This task stands still{more}: its worker, {slot.worker.name}, was stopped {how}. "
            f"To let it go on: kill -CONT {pid}\n"
        )
        first.source.tell(Logged(first.key, 1, text.encode()))

    def on_continued(self, worker: WorkerLink) -> None:
        """A stopped worker goes on."""
        slot = self._slots.of(worker)
        if slot is not None and slot.stopped:
            slot.stopped = False
            log.info("a worker that was stopped goes on", pid=worker.pid)
            self._assigner.dispatch()

    def __repr__(self) -> str:
        return f"<WorkerWatch of {len(self._slots)} workers>"
