"""Turns reports of workers, and their exits, into facts for the runs concerned."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.conditions import SureTimer
from asyncflow._support.tracebacks import with_final_line
from asyncflow.errors import (
    PoolError,
    StoreError,
    TaskCancelledError,
    TaskTimeoutError,
    WorkerDiedError,
)
from asyncflow.scheduling.broken_work import description_of
from asyncflow.scheduling.facts import Lost
from asyncflow.scheduling.plain_reports import PlainReports
from asyncflow.scheduling.run_services import BACKLOG_BYTES
from asyncflow.scheduling.task_stopper import Stopper
from asyncflow.workers.messages import (
    AttemptKey,
    Blocked,
    CardsChanged,
    Failed,
    Garbled,
    GaveBack,
    Logged,
    NotStored,
    Opened,
    Started,
    Stopping,
    Storing,
    Succeeded,
    Warned,
    Yielded,
)
from asyncflow.workers.report_stream import Reports, WholeAttempts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from asyncflow.errors import AsyncflowError
    from asyncflow.scheduling.assigned_tasks import AssignedTask
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import AllWorkers, WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.interface import WorkerLink
    from asyncflow.workers.messages import ReportMessage

_STOPPED: Final = {"SystemExit", "asyncio.exceptions.CancelledError"}  # what a stopped step raises
_SPARE_SECONDS: Final = 1.0  # that spare workers stay: the next task that yields items needs one
_DEAD_STARTS: Final = 3  # workers in a row that end before they report anything


def _loss(
    slot: WorkerSlot,
    assigned: AssignedTask,
    now: float,
    how: str = "",
    traceback: str = "",
    unstored: str = "",
) -> Lost:
    """The fact about an attempt that was stopped, or whose worker is gone."""
    worker = slot.worker
    error: type[AsyncflowError]
    if assigned.timed_out:
        error, why = TaskTimeoutError, assigned.why_late
    elif assigned.stopped:
        error, why = TaskCancelledError, assigned.stopped
    elif unstored:
        error, why = StoreError, unstored
    elif worker.stop_reason:
        error, why = WorkerDiedError, f"the worker that it shared was killed: {worker.stop_reason}"
    else:
        error, why = WorkerDiedError, f"the worker {how}"
    retry = assigned.source.graph[assigned.step].options.get("retry")
    on = retry["on"] if isinstance(retry, dict) else ()
    lineage = {f"{each.__module__}.{each.__qualname__}" for each in error.__mro__}
    name = f"{error.__module__}.{error.__qualname__}"
    may_retry = not on or bool(lineage & set(on))
    began = max(assigned.since, slot.imported.get(assigned.key.run, 0.0))
    text = with_final_line(traceback, name, why)
    return Lost(assigned.key, name, why, may_retry, now - began, text)


def _was_stopped(assigned: AssignedTask, report: Failed) -> bool:
    """Whether a task has failed because it was stopped, and not by itself.

    A worker that knows that the task's time was over says so in its report.
    """
    if assigned.importing:
        return True
    stopped = assigned.timed_out or bool(assigned.stopped)
    return stopped and report.exception_type in _STOPPED


class ReportRouter:
    """Passes reports of workers on to the runs concerned."""

    def __init__(
        self,
        slots: AllWorkers,
        runs: Mapping[int, TaskSource],
        assigner: TaskAssigner,
        loop: asyncio.AbstractEventLoop,
        *,
        grace_seconds: float,
        import_seconds: float,
        on_broken: Callable[[PoolError], None],
    ) -> None:
        """Work for a dispatcher.

        Args:
            slots: The workers.
            runs: The running runs, by number.
            assigner: Is told when a worker no longer has a task.
            loop: The engine's event loop.
            grace_seconds: How long a task has to end once it was asked to.
            import_seconds: How long a flow may be imported; 0 for no limit.
            on_broken: Called when workers cannot even begin a task.
        """
        self._slots, self._runs, self._assigner, self._loop = slots, runs, assigner, loop
        self._import_seconds, self._work = import_seconds, assigner.work
        self._on_broken = on_broken
        self._dead_starts = 0
        self._plain = PlainReports(assigner, loop, self._on_free)
        self._spares_leave: SureTimer | None = None
        self.stopper = Stopper(
            partial(SureTimer, loop),
            grace_seconds,
            has=lambda slot, attempt: slot.find(attempt) is not None,
            disown=self._disown,
        )
        """Stops tasks; the outcome comes in as reports."""

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        """Pass the reports of a worker on to the runs concerned."""
        slot = self._slots.of(worker)
        if slot is None:
            return
        work = self._work
        before, work.slot, work.reports = (work.slot, work.reports), slot, reports
        parts = reports.parts if isinstance(reports, Reports) else reports
        try:
            if slot.silent:
                self._plain.made_room = True
            self._on_heard(slot, parts[0])
            self._pass_all_on(slot, parts)
        except BaseException as error:
            work.give_up(description_of(error))
            raise
        work.slot, work.reports = before
        if self._plain.made_room:
            self._plain.made_room = False
            self._assigner.dispatch()

    def _pass_all_on(
        self, slot: WorkerSlot, reports: Sequence[ReportMessage | WholeAttempts]
    ) -> None:
        at = 0
        while at < len(reports):
            after = self._plain.pass_on(slot, reports, at)
            if after == at:
                self._pass_on(slot, reports[at])
                self._plain.made_room = True  # perhaps
                after += 1
            at = after

    def _pass_on(self, slot: WorkerSlot, report: ReportMessage | WholeAttempts) -> None:
        match report:
            case WholeAttempts():
                self._pass_all_on(slot, report.reports())
            case Started():
                self._on_started(slot, report)
            case Opened():
                self._on_opened(slot, report.run)
            case Succeeded() | Failed() | NotStored():
                self._on_ended(slot, report)
            case Logged() | CardsChanged():
                self._on_told(slot, report)
            case Yielded() | Blocked() | Stopping() | Storing():
                self._on_heard_of(slot, report)
            case GaveBack():
                self._on_given_back(slot, report)
            case Garbled():
                self._work.give_up_worker(slot, report.by)
            case Warned():
                log.warning(report.event, pid=slot.worker.pid, **report.facts)
            case _:
                pass

    def _on_heard(self, slot: WorkerSlot, report: ReportMessage | WholeAttempts) -> None:
        if not isinstance(report, GaveBack):  # only the executor knows what was taken back
            slot.silent = 0
            self._assigner.on_heard()

    # --- a task begins ---

    def _on_started(self, slot: WorkerSlot, report: Started) -> None:
        slot.blocker = None
        self._dead_starts = 0
        run = report.key.run
        slot.note_begun(run)
        assigned = slot.task(report.key)
        is_over = assigned is None  # its values are being stored
        assigned = assigned or slot.stored(report.key)
        if assigned is not None:
            assigned.started = True
            assigned.since = self._loop.time()
            if is_over:
                pass
            elif run in slot.imported:
                self._begin_time_limit(slot, assigned)
            elif self._import_seconds and not assigned.stopped:
                warn = partial(self._warn_of_import, slot, assigned)
                self.stopper.import_limit(slot, assigned, self._import_seconds, warn)
            assigned.source.on_started((report.key.task,), slot.worker.pid, slot.worker.node)
            assigned.source.tell(report)

    def _on_opened(self, slot: WorkerSlot, run: int) -> None:
        """A worker has imported the flow: the time of the tasks that waited for it begins."""
        slot.imported[run] = self._loop.time()
        for assigned in slot.begun_of(run):
            self._begin_time_limit(slot, assigned)

    def _begin_time_limit(self, slot: WorkerSlot, assigned: AssignedTask) -> None:
        if assigned.stopped or assigned.timed_out:  # its grace has begun already
            return
        assigned.stop_timer()  # that of its import
        if assigned.timeout:
            self.stopper.time_limit(slot, assigned, assigned.timeout)

    @staticmethod
    def _warn_of_import(slot: WorkerSlot, assigned: AssignedTask, seconds: float) -> None:
        """Warn that a flow's import takes long, in the library's log and in the task's."""
        task = f"{assigned.source.pathspec}/{assigned.step}/{assigned.key.task}"
        facts = {"task": task, "seconds": round(seconds, 1), "pid": slot.worker.pid}
        log.warning("importing a flow takes long", **facts)
        text = (
            f"This worker has imported the flow for {seconds:.1f} s. Where it stands: "
            f"py-spy dump --pid {slot.worker.pid}\n"
        )
        assigned.source.tell(Logged(assigned.key, 1, text.encode()))

    # --- while it runs ---

    def _on_heard_of(
        self, slot: WorkerSlot, report: Yielded | Blocked | Stopping | Storing
    ) -> None:
        if isinstance(report, Yielded):
            self._on_yielded(slot, report)
        elif isinstance(report, Storing):
            self._on_storing(slot, report)
        else:
            self._on_loop_heard(slot, report)

    def _on_loop_heard(self, slot: WorkerSlot, report: Blocked | Stopping) -> None:
        """Handle a report that a worker's event loop is blocked, or turns again."""
        assigned = slot.find(report.key)
        slot.blocker = None
        if isinstance(report, Blocked):
            if report.where:
                slot.blocker = report.key
                slot.worker.take_back()  # other workers can run them
            if report.where and assigned is not None:
                self._warn_of_blocking(slot, assigned, report)
        elif assigned is not None:
            self.stopper.heard(slot, assigned)

    @staticmethod
    def _warn_of_blocking(slot: WorkerSlot, assigned: AssignedTask, report: Blocked) -> None:
        """Warn that an async step blocks its loop, in the library's log and in the task's."""
        held = f"{report.seconds:.1f} s"
        log.warning(
            "an async step blocks its event loop",
            task=f"{assigned.source.pathspec}/{assigned.step}/{assigned.key.task}",
            seconds=round(report.seconds, 1),
            line=report.where,
            pid=slot.worker.pid,
        )
        text = (
            f"This async step has blocked its event loop for {held}, and with it all tasks of this "
            f"worker: {report.where}\nAwait it, or have it run in a thread: "
            f"await asyncio.to_thread(...)\n"
        )
        if assigned.key not in slot.abandoned_attempts:
            assigned.source.tell(Logged(assigned.key, 1, text.encode()))

    def _on_told(self, slot: WorkerSlot, report: Logged | CardsChanged) -> None:
        source = self._runs.get(report.key.run)
        if source is None or report.key in slot.abandoned_attempts:
            return
        source.tell(report)
        if source.backlog_bytes > BACKLOG_BYTES and slot.paused_for is None:
            slot.paused_for = source
            slot.worker.pause()

    def _on_yielded(self, slot: WorkerSlot, report: Yielded) -> None:
        assigned = slot.task(report.key)
        if assigned is not None and not assigned.yields:
            self._assigner.on_yields(slot, assigned)
        assigned = assigned or slot.stored(report.key)  # it may have ended meanwhile
        if assigned is not None:
            assigned.source.tell(report)

    def resume_paused_workers(self, source: TaskSource) -> None:
        """A run's journal has caught up: hear again of the workers that were paused for it."""
        for slot in self._slots:
            if slot.paused_for is source:
                slot.paused_for = None
                slot.worker.resume()

    def _on_given_back(self, slot: WorkerSlot, report: GaveBack) -> None:
        """A task was taken back, or its worker returns it: it has not begun there."""
        assigned = slot.task(report.key)
        if assigned is not None:
            self._assigner.give_back(slot, assigned)

    # --- a task ends ---

    def _on_storing(self, slot: WorkerSlot, report: Storing) -> None:
        """A step has ended: its worker is free for others, and no limit on its time counts."""
        slot.blocker = None
        assigned = slot.task(report.key)
        if assigned is not None:
            assigned.stop_timer()
            slot.note_begun(report.key.run)  # that it has begun may be told with its end
            slot.store(assigned, report.size)
            self._on_free(slot)

    def _on_ended(self, slot: WorkerSlot, report: Succeeded | Failed | NotStored) -> None:
        slot.blocker = None
        abandoned = slot.abandoned_attempts.pop(report.key, None)
        if abandoned is not None:
            abandoned.stop_timer()
            if slot.isolated:
                slot.retire()
            return
        assigned = slot.task(report.key) or slot.stored(report.key)
        if assigned is None:
            return
        assigned.stop_timer()
        was_there = report.key in slot.tasks
        self._assigner.release(assigned)
        slot.remove(assigned)
        if was_there:
            self._on_free(slot)
        assigned.source.tell(self._end_of(slot, assigned, report))

    def _end_of(
        self, slot: WorkerSlot, assigned: AssignedTask, report: Succeeded | Failed | NotStored
    ) -> Succeeded | Failed | Lost:
        """What a run is told of the end of an attempt."""
        now = self._loop.time()
        if isinstance(report, NotStored):
            return _loss(slot, assigned, now, unstored=report.why)
        if isinstance(report, Succeeded) or report.outcome is not None:
            return report
        if _was_stopped(assigned, report):
            return _loss(slot, assigned, now, traceback=report.traceback)
        return report

    def _on_free(self, slot: WorkerSlot) -> None:
        """A step has ended there: let the worker end if it is not to have another task."""
        slot.stuck = False
        if slot.isolated or (slot.worker.stop_reason and not slot.tasks):
            slot.retire()  # also a worker that has survived a kill, because its place is needed
        elif not slot.tasks and self._slots.is_spare(slot):
            self._keep_spares_for_now()

    def _keep_spares_for_now(self) -> None:
        if self._spares_leave is None:
            self._spares_leave = SureTimer(self._loop, _SPARE_SECONDS, self._retire_spares)

    def _retire_spares(self) -> None:
        for slot in self._slots:
            if slot.idle and not slot.worker.stop_reason and self._slots.is_spare(slot):
                slot.retire()
        if self._spares_leave is not None:
            self._spares_leave.cancel()
            self._spares_leave = None

    def _disown(self, slot: WorkerSlot, attempt: AttemptKey) -> None:
        """Count an attempt as ended, although its worker may still run it."""
        assigned = slot.task(attempt)
        if assigned is None:
            return
        work = self._work
        before, work.slot = work.slot, slot
        try:
            slot.abandoned_attempts[attempt] = assigned
            self._assigner.release(assigned)
            slot.remove(assigned)
            assigned.source.tell(_loss(slot, assigned, self._loop.time()))
        except BaseException as error:
            assigned.source.give_up(description_of(error))
            work.give_up(description_of(error))
            raise
        work.slot = before
        self._assigner.dispatch()

    # --- a worker ends ---

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        """Handle the exit of a worker: each task that it had begun has lost one attempt."""
        work = self._work
        before, work.slot = work.slot, self._slots.of(worker) or work.slot
        slot: WorkerSlot | None = None
        try:
            slot = self._slots.remove(worker)
            if slot is not None:
                self._on_gone(slot, how)
        except BaseException as error:
            work.give_up(description_of(error))
            raise
        work.slot = before
        if slot is not None:
            self._assigner.dispatch()

    def _on_gone(self, slot: WorkerSlot, how: str) -> None:
        worker = slot.worker
        if not worker.stop_reason:
            log.info("a worker is gone", pid=worker.pid, how=how, tasks=len(slot.tasks))
        for abandoned in slot.abandoned_attempts.values():
            abandoned.stop_timer()
        for assigned in slot.all_tasks():
            assigned.stop_timer()
            if assigned.started:
                self._assigner.release(assigned)
                assigned.source.tell(_loss(slot, assigned, self._loop.time(), how))
            else:
                self._assigner.take_back(assigned)
        blameless = slot.has_begun or worker.stop_reason or worker.ended_with_others
        if slot.used and not blameless:
            self._count_dead_start(how)

    def _count_dead_start(self, how: str) -> None:
        self._dead_starts += 1
        if self._dead_starts >= _DEAD_STARTS:
            self._dead_starts = 0
            message = f"workers end before they take a task: the last one {how}"
            self._on_broken(PoolError(message))

    def __repr__(self) -> str:
        return f"<ReportRouter of {len(self._slots)} workers, {len(self._runs)} runs>"
