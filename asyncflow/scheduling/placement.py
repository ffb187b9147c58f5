"""The workers as the dispatcher sees them, and which of them has room for a task.

A worker slot is a worker with the tasks that it was sent, in order. While tasks are short, the next
ones are queued at the worker, so that it never waits for a round trip. If tasks are long, or their
length is unknown, a worker has only the one that it runs.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import PoolError
from asyncflow.scheduling.assigned_tasks import AssignedItems, AssignedTask
from asyncflow.workers.messages import AttemptKey, ShutDown

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.workers.interface import Executor, Kind, WorkerLink

UNKNOWN_SECONDS: Final = 1.0  # for a task of unknown length: more than any worker gets in advance
ASYNC_TASKS: Final = 64  # at a worker until another one is worth starting for more
_TOGETHER: Final = 1.5  # times as much as usual, if it comes in packets: then there are fewer
_ASYNC_WORKER_TASKS: Final = 10_000  # at a time on one worker, unless @concurrency says more
ASYNC_SPARE_TASKS: Final = 1000  # beyond that, for runs with few tasks: no run can fill a worker
_STORING_TASKS: Final = 512  # of a worker, whose values are being uploaded, before it has to wait
_STORING_BYTES: Final = 256 << 20  # of a worker that wait to be uploaded
SILENT_POLLS: Final = 20  # polls until others get the tasks that a worker does not take


class WorkerSlot:
    """A worker and the tasks that were sent to it, in order."""

    __slots__ = (
        "abandoned_attempts",
        "blocker",
        "has_begun",
        "imported",
        "is_async",
        "is_extra",
        "isolated",
        "kind",
        "known",
        "load",
        "opened",
        "paused_for",
        "silent",
        "stopped",
        "storing",
        "storing_bytes",
        "stuck",
        "tasks",
        "used",
        "worker",
        "yielding",
    )

    def __init__(self, worker: WorkerLink, kind: Kind = None) -> None:
        self.worker, self.kind = worker, kind
        self.tasks: dict[AttemptKey, AssignedTask | AssignedItems] = {}
        """What it has of each attempt: of a packet for several tasks, the packet until something
        concerns the task alone. See `task`."""
        self.storing: dict[AttemptKey, AssignedTask | AssignedItems] = {}
        """Attempts that have ended there, and whose values are being uploaded."""
        self.storing_bytes = 0  # that wait to be uploaded, when it was last heard of them
        self.abandoned_attempts: dict[AttemptKey, AssignedTask] = {}
        """Attempts that count as ended, but may still run there."""
        self.blocker: AttemptKey | None = None
        """The attempt that blocks its event loop."""
        self.opened: set[int] = set()  # runs that it may know
        self.known: set[int] = set()  # of these, the runs that it is certain to know
        self.imported: dict[int, float] = {}  # of these, when it had imported the run's flow
        self.load = 0.0  # seconds that its tasks are expected to take
        self.has_begun = False  # whether it has ever begun a task
        self.used = False  # whether it has ever been given a task
        self.is_async = False  # whether its tasks, if any, are those of async steps
        self.isolated = False  # whether its task asked for a process of its own
        self.is_extra = False  # whether it is there for the nodes of gangs alone
        self.paused_for: TaskSource | None = None  # the run whose journal lags behind its output
        self.stuck = False  # whether its `def` task is so long that none should queue behind it
        self.stopped = False  # whether it was stopped by a signal such as SIGSTOP
        self.yielding = 0  # how many of its tasks yield items
        self.silent = 0  # polls in a row before which it should have reported but did not

    def first(self) -> AssignedTask | AssignedItems | None:
        """What it has had for longest."""
        return next(iter(self.tasks.values()), None)

    def task(self, attempt: AttemptKey) -> AssignedTask | None:
        """An attempt that was sent to it and has not ended; None if there is no such attempt."""
        return self._made(attempt, self.tasks) if attempt in self.tasks else None

    def stored(self, attempt: AttemptKey) -> AssignedTask | None:
        """An attempt whose values are being uploaded; None if there is no such attempt."""
        return self._made(attempt, self.storing) if attempt in self.storing else None

    def of_run(self, run: int) -> list[AssignedTask]:
        """The attempts of a run that were sent to it and have not ended, in order."""
        return [self._made(key, self.tasks) for key in self.tasks if key[0] == run]

    def begun_of(self, run: int) -> list[AssignedTask]:
        """Those of them that have begun."""
        alone = [each for each in self.tasks.values() if isinstance(each, AssignedTask)]
        return [each for each in alone if each.started and each.key.run == run]

    def all_tasks(self) -> list[AssignedTask]:
        """All attempts that were sent to it, first those whose values are being uploaded."""
        return [self._made(key, these) for these in (self.storing, self.tasks) for key in these]

    @staticmethod
    def _made(
        attempt: AttemptKey, these: dict[AttemptKey, AssignedTask | AssignedItems]
    ) -> AssignedTask:
        assigned = these[attempt]
        if isinstance(assigned, AssignedItems):
            assigned = these[attempt] = assigned.task(AttemptKey(*attempt))
        return assigned

    @property
    def idle(self) -> bool:
        """Whether nothing runs there, not even an abandoned attempt."""
        return not self.tasks and not self.abandoned_attempts

    def add(self, assigned: AssignedTask) -> None:
        """Add a task."""
        self.tasks[assigned.key] = assigned
        self.load += assigned.expected
        self.is_async, self.isolated, self.used = assigned.is_async, assigned.isolated, True

    def add_items(self, items: AssignedItems, keys: Sequence[AttemptKey]) -> None:
        """Add the tasks of an order for several."""
        self.tasks.update(dict.fromkeys(keys, items))
        self.load += items.expected * len(keys)
        self.is_async, self.isolated, self.used = False, False, True

    def note_begun(self, run: int) -> None:
        """It has begun a task of this run."""
        self.has_begun = True
        if run in self.opened:
            self.known.add(run)

    def store(self, assigned: AssignedTask, size: int) -> None:
        """Its step has ended, so it no longer occupies the worker; its values are uploaded."""
        self._free(assigned)
        self.storing[assigned.key] = assigned
        self.storing_bytes = size

    def remove(self, assigned: AssignedTask) -> None:
        if self.storing.pop(assigned.key, None) is None:
            self._free(assigned)
        elif not self.storing:
            self.storing_bytes = 0

    def on_ended(self, seconds: float) -> None:
        """Tasks that yield nothing, and were to take so many seconds, are not its any more."""
        self.load = self.load - seconds if self.tasks else 0.0

    def _free(self, assigned: AssignedTask) -> None:
        del self.tasks[assigned.key]
        self.load = self.load - assigned.expected if self.tasks else 0.0
        self.yielding -= assigned.yields

    def find(self, attempt: AttemptKey) -> AssignedTask | None:
        """An attempt that it has, even an abandoned one."""
        return self.task(attempt) or self.abandoned_attempts.get(attempt)

    @property
    def has_enough(self) -> bool:
        """Whether so many `def` tasks are queued there that it gets no more."""
        ahead = self.worker.ahead
        has_many = len(self.tasks) >= ahead.tasks or self.load >= ahead.seconds
        return has_many and not self.is_async

    @property
    def has_too_much(self) -> bool:
        """Whether its `def` tasks take much longer than was expected when they were sent.

        That is known of the step of the first. The others may be of other steps, or of runs that
        expect the same as before: each becomes the first.
        """
        first, ahead = self.first(), self.worker.ahead
        if first is None or first.is_async:
            return False
        takes = first.source.expected.get(first.step, 0.0)
        most = max(ahead.patience, 2 * ahead.seconds)
        return takes > 2 * first.expected and takes * len(self.tasks) > most

    def room(self, expected: float) -> int:
        """How many `def` tasks that take so many seconds it may be sent together."""
        ahead, tasks = self.worker.ahead, len(self.tasks)
        seconds = _TOGETHER * ahead.seconds - self.load
        return min(int(_TOGETHER * ahead.tasks) - tasks, int(seconds / expected))

    def has_room(self, wanted: TaskDemand) -> bool:
        """Whether such a task may be sent to it now."""
        if self.silent >= SILENT_POLLS or self.is_extra or self.worker.stop_reason:
            return False
        return not self._stores_much and self._has_room(wanted)

    @property
    def _stores_much(self) -> bool:
        """Whether so much of it waits to be uploaded that it must not add to it."""
        return self.storing_bytes > _STORING_BYTES or len(self.storing) >= _STORING_TASKS

    def _has_room(self, wanted: TaskDemand) -> bool:
        if self.idle:
            return True
        if self.isolated or self.is_async != wanted.is_async:
            return False
        if wanted.is_async:
            return self._has_async_room(wanted)
        ahead = self.worker.ahead
        if self.stuck or self.yielding or wanted.limited or len(self.tasks) >= ahead.tasks:
            return False
        # A task of unknown length may queue behind short ones, but nothing may queue behind it.
        return self.load + wanted.expected < ahead.seconds

    def _has_async_room(self, wanted: TaskDemand) -> bool:
        if self.blocker is not None or self.stopped:
            return False
        most = max(_ASYNC_WORKER_TASKS, wanted.most)
        return len(self.tasks) < (most + ASYNC_SPARE_TASKS if wanted.few else most)

    @property
    def is_shared(self) -> bool:
        """Whether a task that yields items shares it with other async tasks."""
        return self.is_async and not self.isolated

    def is_held_from(self, wanted: TaskDemand) -> bool:
        """Whether a task that yields items keeps such a task away until others have taken them."""
        shares = self.is_shared and wanted.is_async and not wanted.isolated
        return self.yielding > 0 and not shares

    def retire(self) -> None:
        """Let the worker finish its tasks and end."""
        self.worker.stop_reason = "it is being replaced"
        self.worker.send(ShutDown())


class TaskDemand(NamedTuple):
    """The requirements of a task."""

    is_async: bool
    isolated: bool
    """Whether it needs a process of its own."""
    limited: bool
    """Whether it holds something that others could use while it is queued at a worker."""
    expected: float
    """How many seconds it is likely to take; 0 if unknown."""
    most: int
    """How many tasks of its step may run at once."""
    few: bool
    """Whether few tasks of its run are at workers."""
    holds: bool
    """Whether it yields items, or is a join that waits for its inputs."""


class WorkerSlots:
    """The workers of one kind."""

    def __init__(self, executor: Executor, kind: Kind = None) -> None:
        self.executor, self._kind = executor, kind
        self.resting = False
        """Whether to start no worker for the moment, because starting one has failed."""
        self._extra = 0  # workers beyond the executor's size, for gangs that are larger
        self._slots: dict[int, WorkerSlot] = {}  # by id(worker)

    def __iter__(self) -> Iterator[WorkerSlot]:
        return iter(self._slots.values())

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def size(self) -> int:
        """How many workers of this kind there may be."""
        return self.executor.size_of(self._kind)

    def of(self, worker: WorkerLink) -> WorkerSlot | None:
        """The slot of a worker; None if it is gone."""
        return self._slots.get(id(worker))

    def remove(self, worker: WorkerLink) -> WorkerSlot | None:
        """Remove the slot of a worker that is gone, and return it."""
        slot = self._slots.pop(id(worker), None)
        if slot is not None and slot.is_extra:
            self._extra -= 1
        return slot

    def find(self, wanted: TaskDemand, kept: WorkerSlot | None) -> WorkerSlot | None:
        """A slot with room for a task, of a new worker if necessary; None if there is none.

        `kept` gets no task.
        """
        if wanted.isolated:
            return self._fresh(wanted)
        if wanted.holds and (shared := self._shared(wanted, kept)) is not None:
            return shared
        best: WorkerSlot | None = None
        full = self._has_spare and self._has_enough_at_work()
        for slot in self._slots.values():
            if (
                slot is not kept
                and slot.has_room(wanted)
                and (slot.tasks or not full)
                and (best is None or (slot.load, len(slot.tasks)) < (best.load, len(best.tasks)))
            ):
                best = slot
        if best is not None and not best.tasks:
            return best
        if self._worth_a_worker(best, is_async=wanted.is_async) and self._may_grow(wanted):
            return self._open()
        return best

    def _shared(self, wanted: TaskDemand, kept: WorkerSlot | None) -> WorkerSlot | None:
        """A held worker with room for an async task that would hold it as well.

        None while so few are held that it may hold another one. If each such task held a worker
        of its own, none would be left for the tasks that they wait for.
        """
        held = [slot for slot in self if slot.yielding]
        if len(held) < self.size:
            return None
        fit = [
            slot for slot in held if slot is not kept and slot.is_shared and slot.has_room(wanted)
        ]
        return min(fit, key=lambda slot: len(slot.tasks), default=None)

    @property
    def held(self) -> int:
        """How many workers have a task to themselves that yields items."""
        return sum(slot.yielding > 0 and not slot.is_shared for slot in self)

    # --- gangs ---

    def has_room_for(self, count: int, *, unused: bool) -> bool:
        """Whether so many tasks could have a worker each, without starting an extra one.

        `unused` asks for workers that have had no task yet.
        """
        return len(self._idle(unused=unused)) + (0 if self.resting else self._free) >= count

    def gather(self, count: int, *, unused: bool) -> list[WorkerSlot]:
        """So many idle slots; extra workers are started if there are too few.

        Raises:
            PoolError: They cannot be started now.
        """
        found = self._idle(unused=unused)[:count]
        opened: list[WorkerSlot] = []
        try:
            while len(found) + len(opened) < count:
                is_extra = self._free <= 0
                opened.append(self._open())
                opened[-1].is_extra = is_extra
                self._extra += is_extra
        except PoolError:
            for slot in opened:
                slot.retire()
            raise
        return found + opened

    def retire_extra(self) -> None:
        """Let the extra workers end: no gang needs them."""
        for slot in self:
            if slot.is_extra and slot.idle and not slot.worker.stop_reason:
                slot.retire()

    @property
    def _free(self) -> int:
        """How many more workers there may be, extra ones aside."""
        return self.size - len(self._slots) + self._extra

    def _idle(self, *, unused: bool) -> list[WorkerSlot]:
        """The workers that can have a node of a gang, extra ones first."""
        idle = [
            slot
            for slot in self
            if slot.idle
            and not (slot.worker.stop_reason or slot.silent or slot.stopped)
            and not (unused and slot.used)
        ]
        return sorted(idle, key=lambda slot: not slot.is_extra)

    @staticmethod
    def _worth_a_worker(best: WorkerSlot | None, *, is_async: bool) -> bool:
        if best is None:
            return True
        return len(best.tasks) >= ASYNC_TASKS if is_async else best.load > 0.0

    def _may_grow(self, wanted: TaskDemand) -> bool:
        """Whether a worker may be started for a task.

        A worker whose task yields items is held by it until other tasks have taken the items. So
        there may be another one in its place for each task that cannot share it: a `def` task and
        one that needs a process of its own share none. So it is with a join that waits for its
        inputs. There are at most three times as many workers as usual.
        """
        if self.resting:
            return False
        size = self.size
        regular = len(self._slots) - self._extra
        if regular < size:
            return True
        held = sum(slot.is_held_from(wanted) for slot in self)
        return regular < size + min(held, 2 * size)

    @property
    def _has_spare(self) -> bool:
        """Whether there are workers that were started in the place of held ones."""
        return len(self._slots) - self._extra > self.size

    def _has_enough_at_work(self) -> bool:
        """Whether no spare worker may begin a task now, since too few workers are held."""
        at_work = sum(bool(slot.tasks) and not slot.is_extra for slot in self)
        return at_work >= self._most_workers()

    def _most_workers(self) -> int:
        """How many workers there may be, each held one not counted."""
        size = self.size
        return size + min(sum(each.yielding > 0 for each in self), 2 * size)

    def is_spare(self, slot: WorkerSlot) -> bool:
        """Whether an idle worker was started in the place of a held one, and is not needed now."""
        if not self._has_spare or slot.tasks or slot.is_extra:
            return False
        staying = sum(not (each.worker.stop_reason or each.is_extra) for each in self)
        return staying > self._most_workers()

    def _fresh(self, wanted: TaskDemand) -> WorkerSlot | None:
        """A worker that has had no task yet, for a task that needs a process of its own."""
        idle = [
            slot
            for slot in self
            if slot.idle and not (slot.worker.stop_reason or slot.silent or slot.is_extra)
        ]
        for slot in idle:
            if not slot.used:
                return slot
        if self._may_grow(wanted):
            return self._open()
        if idle:
            idle[0].retire()  # its place is free when it has gone
        return None

    def _open(self) -> WorkerSlot:
        worker = self.executor.start_worker(self._kind)
        slot = self._slots[id(worker)] = WorkerSlot(worker, self._kind)
        return slot

    def __repr__(self) -> str:
        return f"<WorkerSlots of {len(self)} workers>"


class AllWorkers:
    """The workers of an executor, of all kinds."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        """Starts the workers."""
        self._kinds: dict[Kind, WorkerSlots] = {None: WorkerSlots(executor)}
        self._resting = False

    def __iter__(self) -> Iterator[WorkerSlot]:
        return chain.from_iterable(self._kinds.values())

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def of_kind(self, kind: Kind) -> WorkerSlots:
        """The workers of one kind."""
        slots = self._kinds.get(kind)
        if slots is None:
            slots = self._kinds[kind] = WorkerSlots(self.executor, kind)
            slots.resting = self._resting
        return slots

    def of(self, worker: WorkerLink) -> WorkerSlot | None:
        """The slot of a worker; None if it is gone."""
        for slots in self._kinds.values():
            slot = slots.of(worker)
            if slot is not None:
                return slot
        return None

    def remove(self, worker: WorkerLink) -> WorkerSlot | None:
        """Remove the slot of a worker that is gone, and return it."""
        slot = self.of(worker)
        return None if slot is None else self._kinds[slot.kind].remove(worker)

    @property
    def resting(self) -> bool:
        """Whether to start no worker for the moment, because starting one has failed."""
        return self._resting

    @resting.setter
    def resting(self, resting: bool) -> None:
        self._resting = resting
        for slots in self._kinds.values():
            slots.resting = resting

    def is_spare(self, slot: WorkerSlot) -> bool:
        """Whether an idle worker was started in the place of a held one, and is not needed now."""
        return self._kinds[slot.kind].is_spare(slot)

    def retire_extra(self) -> None:
        """Let the extra workers end: no gang needs them."""
        for slots in self._kinds.values():
            slots.retire_extra()

    def __repr__(self) -> str:
        return f"<AllWorkers: {len(self)} of {len(self._kinds)} kinds>"
