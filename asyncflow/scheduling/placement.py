"""The workers as the dispatcher sees them, and which of them has room for a task.

A desk is a worker with the tasks that it was given, in order. A worker has its next tasks at hand
while tasks are short, so that none waits for a round trip, and only the one it is running when
tasks are long or nobody knows yet how long they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncflow._support.tracebacks import too_long
from asyncflow.workers.messages import ShutDown

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.named_limits import Grant
    from asyncflow.workers.interface import Executor, WorkerLink
    from asyncflow.workers.messages import StartTask

QUEUED_SECONDS: Final = 0.02  # work at hand for a worker: some ten times a journal write
_QUEUED_TASKS: Final = 64  # packets that a socket takes with ease
_ASYNC_DESK_TASKS: Final = 10_000  # at a time on one worker, unless @concurrency says more
ASYNC_DESK_SPARE: Final = 1000  # places beyond, for runs that have few there: none has them all
SILENT_POLLS: Final = 20  # looks at a worker that does not take its order, until others get it


class AssignedTask:
    """A task that a worker has."""

    __slots__ = (
        "attempt",
        "expected",
        "grant",
        "importing",
        "is_async",
        "isolated",
        "since",
        "source",
        "started",
        "step",
        "stopped",
        "task_id",
        "timed_out",
        "timeout",
        "timer",
    )

    def __init__(
        self, source: TaskSource, order: StartTask, *, is_async: bool, expected: float
    ) -> None:
        self.source, self.task_id = source, order.task_id
        self.attempt = order.run, order.task_id, order.attempt
        self.is_async, self.expected = is_async, expected
        self.step = order.step
        self.started = False
        self.since = 0.0
        limit = source.graph[order.step].options.get("timeout")
        self.timeout = float(limit["seconds"]) if isinstance(limit, dict) else 0.0
        if order.caught:  # to hand on a failure runs no step
            self.timeout = 0.0
        self.timed_out = False
        self.importing = 0.0  # how long its flow could be imported, if that was not enough
        self.isolated = "isolate" in source.graph[order.step].options
        self.stopped = ""
        self.grant: Grant | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def lateness(self) -> str:
        """What is to be said when it has had its time."""
        if self.importing:
            return f"a task of {self.step} waited too long for its flow to be imported"
        return f"a task of {self.step} took longer than {self.timeout:g} s"

    @property
    def why_late(self) -> str:
        """What has taken it longer than it may."""
        if self.importing:
            return (
                f"importing the flow took longer than {self.importing:g} s "
                "(the setting import_seconds)"
            )
        return too_long(self.timeout)

    def stop_timer(self) -> None:
        """Nothing need be done about the task any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class WorkerSlot:
    """A worker and the tasks that were given to it, in order."""

    __slots__ = (
        "abandoned_attempts",
        "blocker",
        "heard",
        "imported",
        "is_async",
        "isolated",
        "known",
        "load",
        "opened",
        "paused",
        "read",
        "silent",
        "stopped",
        "stuck",
        "tasks",
        "used",
        "worker",
    )

    def __init__(self, worker: WorkerLink) -> None:
        self.worker = worker
        self.tasks: dict[tuple[int, int], AssignedTask] = {}
        self.abandoned_attempts: dict[tuple[int, int, int], AssignedTask] = {}
        """Attempts that it may not have given up yet, though they count as ended."""
        self.blocker: tuple[int, int, int] | None = None
        """The attempt that keeps its event loop from turning."""
        self.opened: set[int] = set()  # runs that it may know
        self.known: set[int] = set()  # of these, the runs that it is certain to know
        self.imported: dict[int, float] = {}  # of these, when it had imported the run's flow
        self.load = 0.0  # seconds that its tasks are expected to take
        self.read = [0, 0]  # how far its output has been passed on
        self.heard = False
        self.used = False
        self.is_async = False  # whether its tasks, if any, are those of async steps
        self.isolated = False  # its task asked for a process of its own
        self.paused = False
        self.stuck = False  # its `def` task has taken so long that nobody should stand behind it
        self.stopped = False  # by a signal such as SIGSTOP
        self.silent = 0  # looks in a row at which it should have said something and had not

    def first(self) -> AssignedTask | None:
        """The task that it has had for longest."""
        return next(iter(self.tasks.values()), None)

    def at_work(self) -> AssignedTask | None:
        """Of `def` tasks the one that is running, once those not received have been taken back.

        A worker receives the next one when it has ended the one before: the report on any but the
        last is on its way.
        """
        return next(reversed(self.tasks.values()), None)

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do, and has given up all that it was told to."""
        return not self.tasks and not self.abandoned_attempts

    def find(self, attempt: tuple[int, int, int]) -> AssignedTask | None:
        """An attempt that it has, or may not have given up yet."""
        assigned = self.tasks.get(attempt[:2])
        if assigned is not None and assigned.attempt == attempt:
            return assigned
        return self.abandoned_attempts.get(attempt)

    def has_room(self, wanted: TaskDemand) -> bool:
        """Whether such a task may be given to it now."""
        if self.silent >= SILENT_POLLS:
            return False
        if self.idle:
            return not self.worker.stop_reason
        if self.worker.stop_reason or self.isolated or self.is_async != wanted.is_async:
            return False
        if wanted.is_async:
            return self._has_async_room(wanted)
        if self.stuck or wanted.limited or len(self.tasks) >= _QUEUED_TASKS:
            return False
        # Of which nobody knows how long it takes stands behind short ones, and nobody behind it.
        return self.load + wanted.expected < QUEUED_SECONDS

    def _has_async_room(self, wanted: TaskDemand) -> bool:
        if self.blocker is not None or self.stopped:
            return False
        most = max(_ASYNC_DESK_TASKS, wanted.most)
        return len(self.tasks) < (most + ASYNC_DESK_SPARE if wanted.few else most)

    def retire(self) -> None:
        """Have the worker end when it has done what it has."""
        self.worker.stop_reason = "it is being replaced"
        self.worker.send(ShutDown())


class TaskDemand(NamedTuple):
    """What a task asks of a desk."""

    is_async: bool
    isolated: bool
    """Whether it wants a process of its own."""
    limited: bool
    """Whether it holds a limit, which others could use while it waits at a desk."""
    expected: float
    """How many seconds it is likely to take; 0 where nobody knows."""
    most: int
    """How many of its step may run at once."""
    few: bool
    """Whether its run has few tasks at the workers."""


class WorkerSlots:
    """All workers of an executor."""

    def __init__(self) -> None:
        self.executor: Executor | None = None
        """Who starts workers; nothing is found before there is one."""
        self.resting = False
        """Whether no worker can be started for the moment: those that are there have to do."""
        self._desks: dict[int, WorkerSlot] = {}  # by id(worker)

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._desks.values())

    def __len__(self) -> int:
        return len(self._desks)

    def of(self, worker: WorkerLink) -> WorkerSlot | None:
        """The desk of a worker; None when it is gone."""
        return self._desks.get(id(worker))

    def remove(self, worker: WorkerLink) -> WorkerSlot | None:
        """The same, for the last time."""
        return self._desks.pop(id(worker), None)

    def find(self, wanted: TaskDemand, kept: WorkerSlot | None) -> WorkerSlot | None:
        """One with room for a task, or a new one; None when there is none. `kept` is left alone."""
        if wanted.isolated:
            return self._fresh()
        best: WorkerSlot | None = None
        for desk in self._desks.values():
            if (
                desk is not kept
                and desk.has_room(wanted)
                and (best is None or (desk.load, len(desk.tasks)) < (best.load, len(best.tasks)))
            ):
                best = desk
        if best is not None and not best.tasks:
            return best
        if self._may_grow and self._worth_a_worker(best, is_async=wanted.is_async):
            return self._open()
        return best

    @staticmethod
    def _worth_a_worker(best: WorkerSlot | None, *, is_async: bool) -> bool:
        if best is None:
            return True
        return len(best.tasks) >= _QUEUED_TASKS if is_async else best.load > 0.0

    @property
    def _may_grow(self) -> bool:
        if self.executor is None or self.resting:
            return False
        return len(self._desks) < self.executor.size

    def _fresh(self) -> WorkerSlot | None:
        """A worker that has had no task yet, for one that asks for a process of its own."""
        idle = [desk for desk in self if desk.idle and not (desk.worker.stop_reason or desk.silent)]
        for desk in idle:
            if not desk.used:
                return desk
        if self._may_grow:
            return self._open()
        if idle:
            idle[0].retire()  # its place is free when it has gone
        return None

    def _open(self) -> WorkerSlot:
        assert self.executor is not None  # noqa: S101 - `_may_grow` has looked
        worker = self.executor.start_worker()
        desk = self._desks[id(worker)] = WorkerSlot(worker)
        return desk

    def __repr__(self) -> str:
        return f"<Desks of {len(self)} workers>"
