"""Seats the ready tasks of all runs at the workers, run by run in turn.

A run whose turn it is and for whose task there is no room waits, and nobody who comes after it
takes the room that it waits for: tasks are not put behind others any more, so that a worker is soon
free. So a run of many tasks does not starve one of few.

Which worker has room, `asyncflow.scheduling.placement` tells. What stands behind a task that turns
out to be long is taken back and seated elsewhere.

What is needed of an executor, and of a run, is said in `asyncflow.workers.interface`. Nothing here
waits.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log
from asyncflow._support.conditions import call_again
from asyncflow._support.tracebacks import with_final_line
from asyncflow.errors import (
    LimitError,
    PoolError,
    TaskCancelledError,
    TaskTimeoutError,
    WorkerDiedError,
)
from asyncflow.scheduling.facts import Lost, SpooledOutput
from asyncflow.scheduling.fair_turns import FairTurns
from asyncflow.scheduling.loop_budget import LoopBudget
from asyncflow.scheduling.named_limits import needs_of
from asyncflow.scheduling.placement import (
    ASYNC_DESK_SPARE,
    QUEUED_SECONDS,
    SILENT_POLLS,
    AssignedTask,
    TaskDemand,
    WorkerSlot,
    WorkerSlots,
)
from asyncflow.scheduling.statistics import Meter
from asyncflow.scheduling.task_stopper import Stopper
from asyncflow.store.files import SHORTAGES
from asyncflow.workers.messages import (
    Blocked,
    CloseRun,
    Failed,
    GaveBack,
    Logged,
    Opened,
    Ping,
    Started,
    StartTask,
    Stopping,
    Succeeded,
    Warned,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor as ThreadExecutor

    from asyncflow.errors import AsyncflowError
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.named_limits import Limits, Need
    from asyncflow.workers.interface import Executor
    from asyncflow.workers.messages import ReportMessage

_TASK_OVERHEAD_SECONDS: Final = 0.0001  # what a task costs beside its step
_ASYNC_TASKS: Final = 1000  # of a step at a time, unless `@concurrency` says otherwise
_POLL_SECONDS: Final = 0.05  # how late, at most, a running task's output is seen
_STUCK_SECONDS: Final = 0.1  # a task that runs so long gives up those queued behind it
_PATIENT_SECONDS: Final = 0.5  # that a `def` task waits for a worker of its kind to be free
BACKLOG_BYTES: Final = 1 << 22  # output that may wait for the journal before workers are made to
_STOPPED: Final = {"SystemExit", "asyncio.exceptions.CancelledError"}  # what a stopped step gets
_START_TRIES: Final = 5  # that fail for want of something, where there is no worker at all
_REST_SECONDS: Final = 0.5  # between them
_DEAD_STARTS: Final = 3  # workers in a row that end before they say a word
_STANDING_SECONDS: Final = 2.0  # that a worker stands still before there is a word of it
_KILLED_POLLS: Final = 200  # the same, until it is killed: 10 s at least


def _limit(source: TaskSource, step: str) -> int:
    """How many tasks of the step may run at once."""
    limit: int = source.graph[step].options.get("concurrency", _ASYNC_TASKS)
    return limit


class _Room:
    """What is known of the room at the workers while tasks are seated."""

    __slots__ = ("def_waits", "kept", "shut")

    def __init__(self) -> None:
        self.shut: list[bool] = []  # lines, `async def` or not, whose first waits for room
        self.def_waits = False  # whether a `def` task waits
        self.kept: WorkerSlot | None = None  # an async worker that shall become free for it


class Dispatcher:
    """Seats the ready tasks of all runs at the workers, run by run in turn."""

    def __init__(
        self,
        disk: ThreadExecutor,
        *,
        grace_seconds: float,
        sync_seconds: float,
        blocked_seconds: float = 0.0,
        import_seconds: float = 0.0,
        finish_running: bool = False,
    ) -> None:
        self.disk = disk
        """Threads in which journals are written, and what else is short is done on the disk."""
        self.syncs: ThreadExecutor = disk
        """Threads that wait for the disk to have what was written."""
        self.sync_seconds = sync_seconds
        self.grace_seconds = grace_seconds
        """How long tasks have to end when their run is cancelled."""
        self.finish_running = finish_running
        """Whether a task's failure leaves the others of its run that are running to their end."""
        self.limits: Limits | None = None
        """Those with names; a graph that asks for one is not run without."""
        self._needs: dict[tuple[int, str], tuple[Need, ...]] = {}  # of steps with limits, by run
        self._dispatch_soon = False
        self._blocked_seconds = blocked_seconds
        self._import_seconds = import_seconds
        self.pace = LoopBudget()
        """Shares the event loop between runs and the application."""
        self.meter = Meter()
        """What has come into journals."""
        self._expected: dict[str, dict[str, float]] = {}
        self._desks = WorkerSlots()
        self._runs: dict[int, TaskSource] = {}
        self._turns: FairTurns[TaskSource] = FairTurns()  # of runs that may have ready tasks
        self._loop = asyncio.get_running_loop()
        self._stopper = Stopper(
            self._call_later,
            grace_seconds,
            has=lambda desk, attempt: desk.find(attempt) is not None,
            disown=self._disown,
            take_back=self._take_back,
        )
        self._polling: asyncio.TimerHandle | None = None
        self._dead_starts = 0
        self._failed_starts = 0  # in a row, for want of descriptors or memory
        self._dispatching = False
        self._running: Counter[tuple[int, str]] = Counter()  # seated tasks by run and step
        self._of_run: Counter[int] = Counter()  # seated tasks by run
        self._impatient_at: float | None = None  # when a waiting `def` task may ask for more
        call_again(self)

    def _call_later(
        self, seconds: float, callback: Callable[..., None], *args: Any
    ) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, callback, *args)

    def call_again(self) -> None:
        """Seat what could be seated, and look at workers, should nobody be at it."""
        self._dispatching = False  # nobody calls this from within
        if self._polling is not None and self._polling.when() < self._loop.time() - _POLL_SECONDS:
            self._polling.cancel()
            self._poll()
        self._on_woken()

    @property
    def executor(self) -> Executor | None:
        """Where tasks run; nothing is seated before there is one."""
        return self._desks.executor

    @executor.setter
    def executor(self, executor: Executor) -> None:
        self._desks.executor = executor

    def close(self) -> None:
        """Forget the timers; every run has ended."""
        if self._polling is not None:
            self._polling.cancel()

    # --- runs ---

    def enter(self, source: TaskSource) -> None:
        """A run begins, and may have ready tasks."""
        self._runs[source.number] = source
        for node in source.graph:
            if needs := needs_of(node.options.get("limit")):
                self._needs[source.number, node.name] = needs
        self.dispatch(source)

    def expected(self, flow: str) -> dict[str, float]:
        """How long tasks of a flow's steps take, as its runs in this engine have found so far."""
        return self._expected.setdefault(flow, {})

    def leave(self, source: TaskSource) -> None:
        """A run has ended."""
        number = source.number
        self._runs.pop(number, None)
        for step in source.graph.nodes:
            self._running.pop((number, step), None)
            self._needs.pop((number, step), None)
        self._of_run.pop(number, None)
        if self.limits is not None:
            self.limits.forget(source)
        self._turns.remove(source)
        for desk in self._desks:
            if number in desk.opened:
                desk.opened.discard(number)
                desk.known.discard(number)
                desk.imported.pop(number, None)
                desk.worker.send(CloseRun(number))

    def stop(self, source: TaskSource, reason: str, *, running: bool = True) -> None:
        """Stop every task of a run: those that have not begun are given back, others told to."""
        number = source.number
        for desk in list(self._desks):
            if not any(run == number for run, _ in desk.tasks):
                continue
            self._take_back(desk)
            if not running:
                continue
            for (run, _), assigned in list(desk.tasks.items()):
                if run == number and (assigned.is_async or assigned is desk.at_work()):
                    self._stopper.stop(desk, assigned, reason)

    def _disown(self, desk: WorkerSlot, attempt: tuple[int, int, int]) -> None:
        """Have an attempt count as ended, whether its worker has given it up or not."""
        run, task_id, _ = attempt
        assigned = desk.tasks.get((run, task_id))
        if assigned is None or assigned.attempt != attempt:
            return
        desk.abandoned_attempts[attempt] = desk.tasks.pop((run, task_id))
        self._unseat(assigned)
        desk.load = desk.load - assigned.expected if desk.tasks else 0.0
        assigned.source.tell(self._loss(desk, assigned, ""))
        self.dispatch()

    # --- seating ---

    def dispatch(self, source: TaskSource | None = None) -> None:
        """Give ready tasks to workers as long as one has room; `source` may have new ones."""
        if source is not None and source.number in self._runs:
            self._turns.add(source)
        if self._dispatching or self.executor is None:
            return
        self._dispatching = True
        try:
            self._seat_all()
        except PoolError as error:
            self._on_start_failed(error)
        finally:
            self._dispatching = False

    def _on_start_failed(self, error: PoolError) -> None:
        """Have those workers do it all that are there, and try again in a moment.

        Where there is none, runs that were let in wait for one, unless none can be had for long.
        """
        short = isinstance(error.__cause__, OSError) and error.__cause__.errno in SHORTAGES
        self._failed_starts += 1
        if not short or (self._failed_starts > _START_TRIES and not len(self._desks)):
            self.on_broken(error)
            return
        if self._failed_starts == 1:
            log.warning("a worker cannot be started, which is tried again", why=str(error))
        self._desks.resting = True
        self._call_later(_REST_SECONDS, self._start_again)
        self._dispatch_later()

    def _start_again(self) -> None:
        self._desks.resting = False
        self.dispatch()

    def wake(self, source: TaskSource) -> None:
        """A limit that a run waited for is free, perhaps: it is looked at soon."""
        if source.number not in self._runs:
            return
        self._turns.add(source)
        self._dispatch_later()

    def _dispatch_later(self) -> None:
        if not self._dispatch_soon:
            self._dispatch_soon = True
            self._loop.call_soon(self._on_woken)

    def _on_woken(self) -> None:
        self._dispatch_soon = False
        self.dispatch()

    def _seat_all(self) -> None:
        room = _Room()
        until = self.pace.until()
        while (source := self._turns.next(room.shut)) is not None:
            step = None if source.congested else self._next_step(source)
            if step is None:
                self._turns.remove(source)  # it is added again when something of it has changed
                continue
            is_async = source.graph[step].is_async
            if not self._turns.in_line(source, is_async=is_async):
                continue
            desk = self._desks.find(self._wanted(source, step), room.kept)
            if desk is not None:
                self._seat(desk, source, step)
                if self._loop.time() > until:  # the application may have something to do
                    self._dispatch_later()
                    return
            elif is_async and self._of_run[source.number] >= ASYNC_DESK_SPARE:
                self._turns.remove(source)  # until a task of its own has ended: others have fewer
            else:
                self._wait_for_room(room, is_async=is_async)
        if not room.def_waits:
            self._impatient_at = None
        if self.limits is not None:
            self.limits.settle()

    def _wait_for_room(self, room: _Room, *, is_async: bool) -> None:
        """Who is first in a line waits: nobody behind it takes the room that it waits for."""
        room.shut.append(is_async)
        if not is_async:
            room.def_waits = True
            room.kept = self._desk_to_keep()
        elif not any(desk.is_async for desk in self._desks if desk.tasks):
            room.shut.append(not is_async)  # one of the workers is to become free for it

    def _seat(self, desk: WorkerSlot, source: TaskSource, step: str) -> None:
        needs, grant = self._needs.get((source.number, step)), None
        if needs and self.limits is not None:
            try:
                grant = self.limits.take(source, needs)
            except LimitError as error:
                self._turns.remove(source)
                source.abandon(error)
                return
            if grant is None:
                return  # the run is looked at again at once: other steps of it may begin
        is_async = source.graph[step].is_async
        order = source.take()
        if order is not None:
            self._give(desk, source, order, is_async=is_async).grant = grant
        elif grant is not None:
            grant.release()
        self._turns.served(source)
        if not is_async:
            self._impatient_at = None

    def _desk_to_keep(self) -> WorkerSlot | None:
        """The async worker, if any, that no further task is given to: a `def` task waits for it."""
        busy = [desk for desk in self._desks if desk.tasks and not desk.worker.stop_reason]
        asynchronous = [desk for desk in busy if desk.is_async]
        now = self._loop.time()
        if self._impatient_at is None:
            self._impatient_at = now + _PATIENT_SECONDS
        if not asynchronous or (len(asynchronous) < len(busy) and now < self._impatient_at):
            return None
        return min(asynchronous, key=lambda desk: len(desk.tasks))

    def _next_step(self, source: TaskSource) -> str | None:
        """The step of the run's next task that may begin; steps at their limit let others pass."""
        most = source.max_running_tasks
        if most and self._of_run[source.number] >= most:
            return None
        if self._only_worker_is_at_def():
            self._put_def_first(source)
        shut: set[str] = set()
        while (step := source.next_step()) is not None:
            if self._may_begin(source, step):
                return step
            shut.add(step)
            if not source.postpone(shut):
                return None
        return None

    def _only_worker_is_at_def(self) -> bool:
        assert self.executor is not None  # noqa: S101 - dispatch has looked
        if self.executor.size > 1:
            return False
        return any(desk.tasks and not desk.is_async for desk in self._desks)

    def _put_def_first(self, source: TaskSource) -> None:
        """Have the run's `def` tasks done before its async ones, of which many go at once then.

        A worker that does all by itself would else go to and fro: some `def` tasks, then their
        followers' waiting, then some `def` tasks.
        """
        waiting: set[str] = set()
        while (step := source.next_step()) is not None and source.graph[step].is_async:
            waiting.add(step)
            if not source.postpone(waiting):
                return

    def _wanted(self, source: TaskSource, step: str) -> TaskDemand:
        """What the run's next task, of this step, asks of a desk."""
        node = source.graph[step]
        return TaskDemand(
            is_async=node.is_async,
            isolated="isolate" in node.options,
            limited=(source.number, step) in self._needs,
            expected=source.expected.get(step, 0.0),
            most=_limit(source, step),
            few=self._of_run[source.number] < ASYNC_DESK_SPARE,
        )

    def _may_begin(self, source: TaskSource, step: str) -> bool:
        if self._running[source.number, step] >= _limit(source, step):
            return False
        needs = self._needs.get((source.number, step))
        return not needs or self.limits is None or self.limits.may_take(source, needs)

    def _give(
        self, desk: WorkerSlot, source: TaskSource, order: StartTask, *, is_async: bool
    ) -> AssignedTask:
        expected = source.expected.get(order.step, QUEUED_SECONDS) + _TASK_OVERHEAD_SECONDS
        assigned = AssignedTask(source, order, is_async=is_async, expected=expected)
        desk.tasks[order.run, order.task_id] = assigned
        desk.load += expected
        desk.is_async = is_async
        desk.used = True
        desk.isolated = assigned.isolated
        self._running[order.run, order.step] += 1
        self._of_run[order.run] += 1
        if order.run not in desk.known:
            desk.opened.add(order.run)
            opening = source.opening._replace(blocked_seconds=self._blocked_seconds)
            order = order._replace(opening=opening)
        desk.worker.send(order)
        if self._polling is None:
            self._polling = self._loop.call_later(_POLL_SECONDS, self._poll)
        return assigned

    def _take_back(self, desk: WorkerSlot) -> int:
        """Have back what a worker has not received, for its runs to seat anew."""
        taken = 0
        for _kind, run, _step, task_id, *_ in desk.worker.take_back():
            assigned = desk.tasks.get((run, task_id))
            if assigned is not None:
                self._return(desk, assigned)
                taken += 1
        return taken

    def _on_given_back(self, desk: WorkerSlot, report: GaveBack) -> None:
        """The same for what it has received, and not begun."""
        assigned = desk.tasks.get((report.run, report.task_id))
        if assigned is not None and assigned.attempt[2] == report.attempt:
            self._return(desk, assigned)

    def _return(self, desk: WorkerSlot, assigned: AssignedTask) -> None:
        """A task that a worker has not begun is its run's again."""
        del desk.tasks[assigned.attempt[:2]]
        assigned.stop_timer()  # it may have been told to stop
        self._unseat(assigned)
        desk.load = desk.load - assigned.expected if desk.tasks else 0.0
        assigned.source.give_back(assigned.task_id)

    def _unseat(self, assigned: AssignedTask) -> None:
        """A worker has a task no more: its run may have room for the next."""
        source = assigned.source
        self._running[source.number, assigned.step] -= 1
        self._of_run[source.number] -= 1
        if assigned.grant is not None:
            assigned.grant.release()
        if source.number in self._runs:
            self._turns.add(source)

    # --- what workers say ---

    def on_reports(self, worker: Any, reports: Sequence[ReportMessage]) -> None:
        """Pass on what a worker said to the runs that it is about."""
        desk = self._desks.of(worker)
        if desk is None:
            return
        desk.heard = True
        desk.silent = 0
        self._dead_starts = self._failed_starts = 0
        for report in reports:
            match report:
                case Started():
                    self._on_started(desk, report)
                case Opened():
                    self._on_opened(desk, report.run)
                case Succeeded() | Failed():
                    self._on_ended(desk, report)
                case Logged():
                    self._on_logged(desk, report)
                case Blocked() | Stopping():
                    self._on_loop_heard(desk, report)
                case GaveBack():
                    self._on_given_back(desk, report)
                case Warned():
                    log.warning(report.event, pid=desk.worker.pid, **report.facts)
                case _:
                    pass
        self.dispatch()

    def _on_started(self, desk: WorkerSlot, report: Started) -> None:
        desk.blocker = None
        if report.run in desk.opened:
            desk.known.add(report.run)
        assigned = desk.tasks.get((report.run, report.task_id))
        if assigned is not None:
            assigned.started = True
            assigned.since = self._loop.time()
            if report.run in desk.imported:
                self._limit(desk, assigned)
            elif self._import_seconds and not assigned.stopped:
                warn = partial(self._warn_of_import, desk, assigned)
                self._stopper.import_limit(desk, assigned, self._import_seconds, warn)
            assigned.source.seated(report.task_id, desk.worker.pid)
            assigned.source.tell(report)

    def _on_opened(self, desk: WorkerSlot, run: int) -> None:
        """The flow is imported there: from now on the time of the tasks that wait for it counts."""
        desk.imported[run] = self._loop.time()
        for key, assigned in desk.tasks.items():
            if key[0] == run and assigned.started:
                self._limit(desk, assigned)

    @staticmethod
    def _warn_of_import(desk: WorkerSlot, assigned: AssignedTask, seconds: float) -> None:
        """Say that a flow's import takes long, in the library's log and in the task's."""
        task = f"{assigned.source.pathspec}/{assigned.step}/{assigned.task_id}"
        facts = {"task": task, "seconds": round(seconds, 1), "pid": desk.worker.pid}
        log.warning("importing a flow takes long", **facts)
        text = (
            f"This worker has imported the flow for {seconds:.1f} s. Where it stands: "
            f"py-spy dump --pid {desk.worker.pid}\n"
        )
        assigned.source.tell(Logged(*assigned.attempt, 1, text.encode()))

    def _limit(self, desk: WorkerSlot, assigned: AssignedTask) -> None:
        if assigned.stopped or assigned.timed_out:  # such a one has its grace already
            return
        assigned.stop_timer()  # that of its import
        if assigned.timeout:
            self._stopper.time_limit(desk, assigned, assigned.timeout)

    def _on_loop_heard(self, desk: WorkerSlot, report: Blocked | Stopping) -> None:
        """A worker's event loop turns, or does not."""
        attempt = report.run, report.task_id, report.attempt
        assigned = desk.find(attempt)
        desk.blocker = None
        if isinstance(report, Blocked):
            if report.where:
                desk.blocker = attempt
                self._take_back(desk)  # for others to have
            if report.where and assigned is not None:
                self._warn(desk, assigned, report)
        elif assigned is not None:
            self._stopper.heard(desk, assigned)

    @staticmethod
    def _warn(desk: WorkerSlot, assigned: AssignedTask, report: Blocked) -> None:
        """Say that an async step blocks its loop, in the library's log and in the task's."""
        held = f"{report.seconds:.1f} s"
        log.warning(
            "an async step blocks its event loop",
            task=f"{assigned.source.pathspec}/{assigned.step}/{assigned.task_id}",
            seconds=round(report.seconds, 1),
            line=report.where,
            pid=desk.worker.pid,
        )
        text = (
            f"This async step has blocked its event loop for {held}, and with it all tasks of this "
            f"worker: {report.where}\nAwait it, or have it run in a thread: "
            f"await asyncio.to_thread(...)\n"
        )
        if assigned.attempt not in desk.abandoned_attempts:
            assigned.source.tell(Logged(*assigned.attempt, 1, text.encode()))

    def _on_ended(self, desk: WorkerSlot, report: Succeeded | Failed) -> None:
        desk.blocker = None
        ghost = desk.abandoned_attempts.pop((report.run, report.task_id, report.attempt), None)
        if ghost is not None:
            ghost.stop_timer()
            if desk.isolated:
                desk.retire()
            return
        assigned = desk.tasks.get((report.run, report.task_id))
        if assigned is None:
            return
        if assigned.is_async:  # what is not told apart by context is the oldest task's
            self._pass_output(desk, desk.first() or assigned, report.spooled)
        else:
            self._pass_output(desk, assigned, report.spooled)
        del desk.tasks[report.run, report.task_id]
        assigned.stop_timer()
        self._unseat(assigned)
        desk.stuck = False
        if desk.isolated or (desk.worker.stop_reason and not desk.tasks):
            desk.retire()  # also one that was to end and has outlived it: its place is needed
        desk.load = desk.load - assigned.expected if desk.tasks else 0.0
        ordered = assigned.stopped and getattr(report, "exception_type", "") in _STOPPED
        if isinstance(report, Failed) and not report.manifest and (assigned.timed_out or ordered):
            assigned.source.tell(self._loss(desk, assigned, "", report.traceback))
        else:
            assigned.source.tell(report)

    def _on_logged(self, desk: WorkerSlot, report: Logged) -> None:
        source = self._runs.get(report.run)
        if (
            source is None
            or (report.run, report.task_id, report.attempt) in desk.abandoned_attempts
        ):
            return
        source.tell(report)
        if source.backlog_bytes > BACKLOG_BYTES and not desk.paused and self.executor is not None:
            desk.paused = True
            self.executor.pause(desk.worker)

    def resume_paused_workers(self) -> None:
        """A journal has caught up: hear again of workers that had to wait for it."""
        for desk in self._desks:
            if desk.paused and self.executor is not None:
                desk.paused = False
                self.executor.resume(desk.worker)

    def _pass_output(self, desk: WorkerSlot, assigned: AssignedTask, upto: Sequence[int]) -> None:
        for stream, end in enumerate(upto):
            start = desk.read[stream]
            if end > start:
                desk.read[stream] = end
                spool = desk.worker.spools[stream]
                assigned.source.tell(SpooledOutput(assigned.task_id, stream, spool, start, end))

    def on_exit(self, worker: Any, how: str) -> None:
        """A worker is gone: one attempt of each task that it had begun is lost."""
        desk = self._desks.remove(worker)
        if desk is None:
            return
        if not worker.stop_reason:
            log.info("a worker is gone", pid=worker.pid, how=how, tasks=len(desk.tasks))
        self._take_back(desk)
        first = desk.first()
        if first is not None and first.started:
            self._pass_output(desk, first, desk.worker.spooled())
        for ghost in desk.abandoned_attempts.values():
            ghost.stop_timer()
        for assigned in desk.tasks.values():
            self._unseat(assigned)
            assigned.stop_timer()
            if assigned.started:
                assigned.source.tell(self._loss(desk, assigned, how))
            else:
                assigned.source.give_back(assigned.task_id)
        if desk.used and not (desk.heard or worker.stop_reason):
            self._count_dead_start(how)
        self.dispatch()

    def _loss(
        self, desk: WorkerSlot, assigned: AssignedTask, how: str, traceback: str = ""
    ) -> Lost:
        step, worker = assigned.step, desk.worker
        retry = assigned.source.graph[step].options.get("retry")
        on = retry["on"] if isinstance(retry, dict) else ()
        error: type[AsyncflowError]
        if assigned.timed_out:
            error, why = TaskTimeoutError, assigned.why_late
        elif assigned.stopped:
            error, why = TaskCancelledError, assigned.stopped
        elif worker.stop_reason:
            error, why = (
                WorkerDiedError,
                f"the worker that it shared was killed: {worker.stop_reason}",
            )
        else:
            error, why = WorkerDiedError, f"the worker {how}"
        lineage = {f"{each.__module__}.{each.__qualname__}" for each in error.__mro__}
        name = f"{error.__module__}.{error.__qualname__}"
        may_retry = not on or bool(lineage & set(on))
        began = max(assigned.since, desk.imported.get(assigned.attempt[0], 0.0))
        seconds = self._loop.time() - began
        return Lost(
            assigned.task_id, name, why, may_retry, seconds, with_final_line(traceback, name, why)
        )

    def _count_dead_start(self, how: str) -> None:
        self._dead_starts += 1
        if self._dead_starts >= _DEAD_STARTS:
            self._dead_starts = 0
            message = f"workers end before they take a task: the last one {how}"
            self.on_broken(PoolError(message))

    def on_stopped(self, worker: Any, how: str) -> None:
        """A worker stands still, be it that somebody debugs it: nobody is to wait for a reason.

        What it has not received goes to others. Time limits hold, and it is killed for no other
        reason.
        """
        desk = self._desks.of(worker)
        if desk is None:
            return
        desk.stopped = True
        self._take_back(desk)
        self._call_later(_STANDING_SECONDS, self._warn_of_stop, desk, how)
        self.dispatch()

    def _warn_of_stop(self, desk: WorkerSlot, how: str) -> None:
        """Say it in the library's log, and in that of the task that the worker has had longest."""
        first = desk.first()
        if first is None or not desk.stopped or self._desks.of(desk.worker) is not desk:
            return
        task = f"{first.source.pathspec}/{first.step}/{first.task_id}"
        pid, others = desk.worker.pid, len(desk.tasks) - 1
        log.warning("a worker was stopped, and its tasks stand still", task=task, pid=pid, how=how)
        more = f", and with it {others} more" if others else ""
        text = (
            f"This task stands still{more}: its worker, process {pid}, was stopped {how}. "
            f"To let it go on: kill -CONT {pid}\n"
        )
        first.source.tell(Logged(*first.attempt, 1, text.encode()))

    def on_continued(self, worker: Any) -> None:
        """A worker that stood still goes on."""
        desk = self._desks.of(worker)
        if desk is not None and desk.stopped:
            desk.stopped = False
            log.info("a worker that was stopped goes on", pid=worker.pid)
            self.dispatch()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """What passes within the block, in which all workers stand still, is no time of a task."""
        began = self._loop.time()
        try:
            yield
        finally:
            self._stopper.suspended_seconds += self._loop.time() - began

    def on_broken(self, error: PoolError) -> None:
        """No worker can be started: nothing can go on."""
        for source in list(self._runs.values()):
            source.abandon(error)

    # --- from time to time ---

    def _poll(self) -> None:
        """While tasks run: pass on their output, and free what waits behind a long one.

        Also while a worker has nothing any more and is waited for: to say a word, or to end.
        """
        self._polling = None
        if not any(desk.tasks or desk.silent or desk.worker.stop_reason for desk in self._desks):
            return
        for desk in self._desks:
            first = desk.first()
            if first is not None and first.started:
                self._pass_output_so_far(desk, first)
        self._free_stuck()
        self._end_silent()
        self._polling = self._loop.call_later(_POLL_SECONDS, self._poll)

    def _pass_output_so_far(self, desk: WorkerSlot, first: AssignedTask) -> None:
        # The sizes first: that the next task begins is said before it can print anything.
        written = desk.worker.spooled()
        if not desk.worker.has_more():
            self._pass_output(desk, first, written)
            first.source.flush_partial_lines(first.task_id, desk.worker.spools)

    def _free_stuck(self) -> None:
        """What stands behind a task that takes long is to be run elsewhere, as soon as it can."""
        now, taken = self._loop.time(), 0
        for desk in self._desks:
            first = desk.first()
            if first is None or not first.started or first.is_async:
                continue
            desk.stuck = now - first.since > _STUCK_SECONDS
            if desk.stuck and len(desk.tasks) > 1:
                taken += self._take_back(desk)
        waits = self._impatient_at is not None and now > self._impatient_at
        if taken or waits:
            self.dispatch()

    def _end_silent(self) -> None:
        """Have others do what a worker does not take (it was stopped, say), and kill it in time.

        Looks are counted, not seconds: while this process did not get to hear of anything, no
        worker could have been heard.
        """
        freed = 0
        for desk in list(self._desks):
            first = desk.first()
            idle = bool(desk.worker.stop_reason) if first is None else not first.started
            if desk.paused or not desk.worker.pid or not (idle or desk.silent):
                continue
            desk.silent += 1
            if desk.silent == SILENT_POLLS:
                freed += self._take_back(desk)
                desk.worker.send(Ping())  # it may have nothing left that it would tell of
            elif desk.silent == _KILLED_POLLS:
                desk.worker.kill(signal.SIGKILL, "it took no orders any more")
        if freed:
            self.dispatch()

    @property
    def statistics(self) -> Mapping[str, int]:
        """How many tasks wait and run, and how many workers idle and are busy."""
        busy = sum(bool(desk.tasks) for desk in self._desks)
        return {
            "tasks_waiting": sum(source.ready for source in self._runs.values()),
            "tasks_running": sum(len(desk.tasks) for desk in self._desks),
            "workers_idle": len(self._desks) - busy,
            "workers_busy": busy,
        }

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._runs)} runs, {len(self._desks)} workers>"
