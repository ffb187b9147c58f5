"""Assigns ready tasks to workers: which run is next, which of its steps, and to which worker.

Runs take turns (`fair_turns`), `step_admission` says which of a run's steps may have one more task,
and `placement` knows which worker has room. When there is no room
for the task of the run whose turn it is, that run waits, and no run behind it gets the room it
waits for. The wait is short, because a worker that may not queue further tasks is soon free.

Nothing here waits.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log
from asyncflow._support.conditions import SureTimer, call_again
from asyncflow.errors import LimitError, PoolError, WorkerDiedError
from asyncflow.scheduling.assigned_tasks import AssignedItems, AssignedTask
from asyncflow.scheduling.broken_work import BrokenWork, description_of
from asyncflow.scheduling.facts import Lost
from asyncflow.scheduling.fair_turns import FairTurns
from asyncflow.scheduling.gang_workers import GangWorkers, has_own_workers
from asyncflow.scheduling.machine_resources import MachineResources
from asyncflow.scheduling.named_limits import Grant
from asyncflow.scheduling.placement import UNKNOWN_SECONDS, WorkerSlot
from asyncflow.scheduling.step_admission import StepAdmission, StepConditions
from asyncflow.store.files import SHORTAGES
from asyncflow.workers.interface import NotNowError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from asyncflow.scheduling.assigned_tasks import Held
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.fair_turns import Line
    from asyncflow.scheduling.loop_budget import LoopBudget
    from asyncflow.scheduling.machine_resources import Amounts
    from asyncflow.scheduling.named_limits import Limits, Need
    from asyncflow.scheduling.placement import AllWorkers, WorkerSlots
    from asyncflow.workers.interface import Kind
    from asyncflow.workers.messages import StartTask

_TASK_OVERHEAD_SECONDS: Final = 0.0001  # overhead of a task beside its step
_TOGETHER: Final = 128  # so many short tasks are sent to a worker at once, at most
_PATIENT_SECONDS: Final = 0.5  # how long a `def` task waits for a `def` worker to become free
_START_TRIES: Final = 5  # failed starts in a row, for lack of resources, while there is no worker
_REST_SECONDS: Final = 0.5  # between them


class _Hold:
    """What a task holds, or the nodes of a gang together: released with the last of them."""

    __slots__ = ("_left", "_release")

    def __init__(self, count: int, release: Callable[[], None]) -> None:
        self._left, self._release = count, release

    def release(self) -> None:
        """The task, or one of the nodes, is no longer at a worker."""
        if self._left == 1:
            self._release()  # first: if it is broken off, it is done again
        self._left -= 1


class _Room:
    """What one pass over the runs has learnt about room at the workers."""

    __slots__ = ("def_waits", "kept", "shut", "wished")

    def __init__(self) -> None:
        self.shut: list[Line] = []  # queues whose first run waits for room
        self.def_waits = False  # whether a `def` task waits
        self.kept: WorkerSlot | None = None  # an async worker that is kept free for it
        self.wished: dict[Kind, int] = {}  # how many more workers would have work


class TaskAssigner:
    """Sends ready tasks to workers, run by run in turn, and takes them back."""

    def __init__(
        self,
        slots: AllWorkers,
        loop: asyncio.AbstractEventLoop,
        budget: LoopBudget,
        limits: Limits | None,
        machine: Amounts | None,
        *,
        blocked_seconds: float,
        on_assigned: Callable[[], None],
        on_broken: Callable[[PoolError], None],
    ) -> None:
        """Work for a dispatcher.

        Args:
            slots: The workers.
            loop: The engine's.
            budget: Says how long one pass may take.
            limits: The named limits; without them no task waits for one.
            machine: The resources of the machine; without them no task waits for any.
            blocked_seconds: After how long a worker reports that its event loop is blocked.
            on_assigned: Called whenever a worker was given a task.
            on_broken: Called when no worker can be started.
        """
        self._slots, self._loop, self._budget, self._limits = slots, loop, budget, limits
        self._blocked_seconds = blocked_seconds
        self._on_assigned, self._on_broken = on_assigned, on_broken
        self._resources = MachineResources(machine, self.wake) if machine is not None else None
        self._runs: dict[int, TaskSource] = {}  # the runs that have entered, by number
        self.work = BrokenWork(self._runs)
        """What is under way here and in the `ReportRouter`."""
        self._has_wished = False  # whether the executor was asked for more workers
        self._turns: FairTurns[TaskSource] = FairTurns()  # runs that may have ready tasks
        self._gangs = GangWorkers(slots, loop, self.wake)
        self._steps = StepAdmission(slots, self._gangs, limits, self._resources)
        self._dispatching = False
        self._start_timer: SureTimer | None = None
        self._waking: asyncio.Handle | None = None  # the call that dispatches soon
        self._failed_starts = 0  # in a row, for lack of descriptors or memory
        self._impatient_at: float | None = None  # when a waiting `def` task may ask for more
        call_again(self)

    def call_again(self) -> None:
        """Assign what can be assigned, in case the call that should do it was lost."""
        if self._dispatching or self.work.was_broken_off:  # nobody calls this from within
            for source in self._runs.values():
                self._turns.add(source)
        self._dispatching = self.work.was_broken_off = False
        if self._waking is not None:
            self._waking.cancel()  # else it would go on beside the one that follows
        self._on_woken()

    # --- runs ---

    def enter(self, source: TaskSource) -> None:
        """Add a run that begins, and may have ready tasks."""
        self.work.call_again()  # of what was broken off before, this run can have lost nothing
        self._runs[source.number] = source
        self._steps.enter(source)
        self.dispatch(source)

    def leave(self, source: TaskSource) -> None:
        """Remove a run that has ended: none of its tasks is assigned any more."""
        self._runs.pop(source.number, None)
        self._steps.leave(source)
        self._gangs.forget(source)
        if self._limits is not None:
            self._limits.forget(source)
        if self._resources is not None:
            self._resources.end(source)
        self._turns.remove(source)

    def wake(self, source: TaskSource) -> None:
        """A limit that the run waited for may be free: try the run soon."""
        if source.number not in self._runs:
            return
        self._turns.add(source)
        self._dispatch_later()

    # --- who is next ---

    def dispatch(self, source: TaskSource | None = None) -> None:
        """Send ready tasks to workers as long as one has room; `source` may have new ones."""
        if source is not None and source.number in self._runs:
            self._turns.add(source)
        if self._dispatching:
            return
        self._dispatching = True
        try:
            self._assign_all()
        except PoolError as error:
            self._on_start_failed(error)
        except BaseException:
            self.work.was_broken_off = True
            raise
        finally:
            self._dispatching = False

    def _dispatch_later(self) -> None:
        if self._waking is None:
            self._waking = self._loop.call_soon(self._on_woken)

    def _on_woken(self) -> None:
        self._waking = None
        self.dispatch()

    def _assign_all(self) -> None:
        room = _Room()
        until = self._budget.until()
        while (source := self._turns.next(room.shut)) is not None:
            step = None if source.congested else self._steps.next_step(source)
            if step is None:
                self._turns.remove(source)  # it is added again when something about it has changed
                continue
            is_async, kind = source.graph[step].is_async, self._steps.kind(source, step)
            if not self._turns.in_line(source, is_async if kind is None else (is_async, kind)):
                continue
            slots = self._find(source, step, room)
            if slots:
                self._assign(slots, source, step)
                if self._loop.time() > until:  # let the application have a turn
                    self._dispatch_later()
                    return
            elif is_async and not self._steps.has_few(source):
                self._turns.remove(source)  # until a task of its own has ended: others have fewer
            else:
                self._wait_for_room(room, kind, is_async=is_async)
                wished = room.wished.get(kind, 0) + self._steps.workers_worth(source, step)
                room.wished[kind] = wished
        if not room.def_waits:
            self._impatient_at = None
        if self._limits is not None:
            self._limits.settle()
        if room.wished or self._has_wished:
            self._has_wished = bool(room.wished)
            self._slots.executor.wish(room.wished)

    def refuse_kind(self, kind: Kind, error: PoolError) -> None:
        """Fail the runs that wait for workers of a kind: there will be none."""
        for source in list(self._runs.values()):
            line = self._turns.line_of(source)
            if line in {(False, kind), (True, kind)} or (kind is None and isinstance(line, bool)):
                source.abandon(error)

    def _wait_for_room(self, room: _Room, kind: Kind, *, is_async: bool) -> None:
        """The first run of a queue waits: no run behind it takes the room that it waits for."""
        slots = self._slots.of_kind(kind)
        room.shut.append(is_async if kind is None else (is_async, kind))
        if not is_async:
            room.def_waits = True
            room.kept = self._slot_to_keep(slots)
        elif slots.size and not any(slot.is_async for slot in slots if slot.tasks):
            # one of the workers is kept free for it
            room.shut.append(not is_async if kind is None else (not is_async, kind))

    def _slot_to_keep(self, slots: WorkerSlots) -> WorkerSlot | None:
        """The async worker, if any, that gets no further task, so that a `def` task can have it."""
        busy = [
            slot for slot in slots if slot.tasks and not (slot.yielding or slot.worker.stop_reason)
        ]
        asynchronous = [slot for slot in busy if slot.is_async]
        now = self._loop.time()
        if self._impatient_at is None:
            self._impatient_at = now + _PATIENT_SECONDS
        if not asynchronous or (len(asynchronous) < len(busy) and now < self._impatient_at):
            return None
        return min(asynchronous, key=lambda slot: len(slot.tasks))

    def has_impatient(self, now: float) -> bool:
        """Whether a `def` task has waited so long that an async worker is kept for it."""
        return self._impatient_at is not None and now > self._impatient_at

    def _find(self, source: TaskSource, step: str, room: _Room) -> Sequence[WorkerSlot]:
        """Slots with room for the run's next task, or one for each node of its gang; else none.

        Raises:
            PoolError: A worker cannot be started.
        """
        count, conditions = 0, self._steps.conditions.get((source.number, step))
        if conditions is not None and conditions.is_gang:
            count = source.orders.next_gang()
        if count and has_own_workers(source.graph[step]):
            return self._gangs.gather(source, step, count, self._steps.kind(source, step))
        slots = self._slots.of_kind(None if conditions is None else conditions.kind)
        slot = slots.find(self._steps.demand(source, step), room.kept)
        return () if slot is None else (slot,) * (count or 1)

    # --- workers that cannot be started ---

    def on_heard(self) -> None:
        """A worker has reported, so starting workers works."""
        self._failed_starts = 0

    def _on_start_failed(self, error: PoolError) -> None:
        """Continue with the existing workers, and try again in a moment.

        If there are none, runs wait for one, up to `_START_TRIES` tries; or as long as the executor
        says, if it says so.
        """
        if not isinstance(error, NotNowError):
            short = isinstance(error.__cause__, OSError) and error.__cause__.errno in SHORTAGES
            self._failed_starts += 1
            if not short or (self._failed_starts > _START_TRIES and not len(self._slots)):
                self._on_broken(error)
                return
            if self._failed_starts == 1:
                log.warning("a worker cannot be started; trying again soon", why=str(error))
        self._slots.resting = True
        if self._start_timer is not None:
            self._start_timer.cancel()
        self._start_timer = SureTimer(self._loop, _REST_SECONDS, self.on_room)
        self._dispatch_later()

    # --- giving tasks and taking them back ---

    def _assign(self, slots: Sequence[WorkerSlot], source: TaskSource, step: str) -> None:
        """Send the run's next task, or its whole gang, to these slots."""
        conditions, grant = self._steps.conditions.get((source.number, step)), None
        needs = conditions.needs if conditions is not None else ()
        if needs and self._limits is not None:
            grant = Grant()
            try:
                if not self._take(source, needs, grant):
                    return  # try the run again at once: other steps of it may begin
            except BaseException:
                grant.release()
                raise
        work = self.work
        before, work.sent_to, work.source = (work.sent_to, work.source), slots, source
        try:
            self._send(slots, source, step, conditions, grant)
        except BaseException as error:
            if grant is not None:
                grant.release()
            work.give_up(description_of(error))  # a task may be lost that the run has given out
            raise
        work.sent_to, work.source = before
        self._turns.served(source)
        if not source.graph[step].is_async:
            self._impatient_at = None

    def _take(self, source: TaskSource, needs: Sequence[Need], grant: Grant) -> bool:
        """Take what a task needs of its limits, if that is possible now."""
        assert self._limits is not None  # noqa: S101 - tells mypy what each caller has checked
        try:
            return self._limits.take(source, needs, grant) is not None
        except LimitError as error:
            self._turns.remove(source)
            source.abandon(error)
            return False

    def _send(
        self,
        slots: Sequence[WorkerSlot],
        source: TaskSource,
        step: str,
        conditions: StepConditions | None,
        grant: Held | None,
    ) -> None:
        if conditions is None and self._give_several(slots[0], source, step):
            return
        if conditions is not None and (conditions.is_gang or conditions.amounts):
            self._give_holding(slots, source, step, conditions.amounts, grant)
        elif (order := source.orders.take()) is not None:
            is_async = source.graph[step].is_async
            self._give(slots[0], source, order, is_async=is_async).grant = grant
        elif grant is not None:
            grant.release()

    def _give_holding(
        self,
        slots: Sequence[WorkerSlot],
        source: TaskSource,
        step: str,
        amounts: Amounts | None,
        grant: Held | None,
    ) -> None:
        """Send a task, or all nodes of a gang, which hold something until the last has ended.

        A gang has one place in each named limit, as a task has.
        """
        is_gang = bool(source.orders.next_gang())
        orders = source.orders.take_gang() if is_gang else [source.orders.take()]
        has_workers = is_gang and has_own_workers(source.graph[step])
        needed = amounts.times(len(orders)) if amounts is not None else None
        give_back = partial(_give_back, grant, self._resources, self._gangs)
        hold = _Hold(len(orders), partial(give_back, needed, has_workers))
        is_async = source.graph[step].is_async
        holders = self._resources.holders if self._resources is not None else 0
        gangs = self._gangs.running
        try:
            if needed is not None and self._resources is not None:
                self._resources.take(source, step, needed)
            if has_workers:
                self._gangs.begin()
            for slot, order in zip(slots, orders, strict=True):
                if order is None:  # it has to be prepared first
                    hold.release()
                else:
                    self._give(slot, source, order, is_async=is_async).grant = hold
        except BaseException:  # the run is given up, and some of its tasks have no hold
            if self._resources is None or self._resources.holders == holders:
                needed = None  # it was not taken
            give_back(needed, self._gangs.running > gangs)
            raise

    def _give(
        self, slot: WorkerSlot, source: TaskSource, order: StartTask, *, is_async: bool
    ) -> AssignedTask:
        expected = source.expected.get(order.step, UNKNOWN_SECONDS) + _TASK_OVERHEAD_SECONDS
        assigned = AssignedTask.of(source, order, is_async=is_async, expected=expected)
        slot.add(assigned)
        self._steps.begin(order.key.run, order.step)
        opening = _opening_for(slot, source, self._blocked_seconds)
        if opening:
            order = order._replace(opening=opening)
        if order.awaits:
            self.on_yields(slot, assigned)  # it waits for other tasks of the run as well
        slot.worker.send(order)
        self._on_assigned()
        return assigned

    def _give_several(self, slot: WorkerSlot, source: TaskSource, step: str) -> bool:
        """Send several short tasks of a foreach at once, if no other run waits for its turn.

        The fewer there are left, the fewer go to one worker: all are to end at the same time.
        """
        expected = source.expected.get(step, 0.0) + _TASK_OVERHEAD_SECONDS
        node, ready = source.graph[step], source.orders.ready
        if (
            node.is_async
            or "isolate" in node.options
            or step not in source.expected
            or len(self._turns) > 1
            or not slot.worker.takes_several
        ):
            return False
        share = -(-ready // (2 * max(1, self._slots.of_kind(slot.kind).size)))
        most = min(_TOGETHER, share, slot.room(expected), self._steps.room(source, step))
        items = source.orders.take_items(most) if most > 1 else None
        if items is None:
            return False
        slot.add_items(AssignedItems(source, step, expected), items.keys())
        self._steps.begin(items.run, step, items.number)
        slot.worker.send(items._replace(opening=_opening_for(slot, source, self._blocked_seconds)))
        self._on_assigned()
        return True

    def on_yields(self, slot: WorkerSlot, assigned: AssignedTask) -> None:
        """A task yields items, for which other tasks can begin while it goes on."""
        assigned.yields = True
        slot.yielding += 1
        self._steps.on_yields(assigned.source.number, assigned.step)
        if not assigned.is_async:
            slot.worker.take_back()  # what is queued there

    def give_back(self, slot: WorkerSlot, assigned: AssignedTask) -> None:
        """Return a task that its worker has not begun to its run."""
        assigned.stop_timer()  # it may have been told to stop
        slot.remove(assigned)
        self.take_back(assigned)

    def take_back(self, assigned: AssignedTask) -> None:
        """Return a task to its run that has not begun, and that no worker has any more.

        A node of a gang goes to another worker at once: the others may wait for it.
        """
        source, task_id = assigned.source, assigned.key.task
        order = None
        if isinstance(assigned.grant, _Hold) and not assigned.stopped:
            order = source.orders.again(task_id)
        if order is None:
            self.release(assigned)
            source.orders.give_back(task_id)
            return
        hold, assigned.grant = assigned.grant, None
        self.release(assigned)
        try:
            there = self._slots.of_kind(self._steps.kind(source, assigned.step))
            (slot,) = there.gather(1, unused=assigned.isolated)
        except PoolError as error:
            if hold is not None:
                hold.release()
            name = f"{WorkerDiedError.__module__}.{WorkerDiedError.__qualname__}"
            source.tell(Lost(assigned.key, name, str(error), may_retry=True))
            return
        self._give(slot, source, order, is_async=assigned.is_async).grant = hold

    def on_ended(self, slot: WorkerSlot, source: TaskSource, ended: Mapping[str, int]) -> bool:
        """Do what `release` does for tasks that hold nothing: so many of each of these steps.

        Returns whether others may begin now: runs that wait for room find none there if it has
        enough all the same.
        """
        for step, number in ended.items():
            self._steps.end(source.number, step, number)
        waited = source in self._turns
        if source.number in self._runs:
            self._turns.add(source)
        return not (waited and slot.has_enough)

    def release(self, assigned: AssignedTask) -> None:
        """Note that no worker has a task any more: its run may have room for the next."""
        source = assigned.source
        self._steps.end(source.number, assigned.step, yielding=assigned.yields)
        if assigned.grant is not None:
            assigned.grant.release()
            assigned.grant = None
        if source.number in self._runs:
            self._turns.add(source)
        if assigned.yields:
            self._let_hold()

    def on_room(self) -> None:
        """More workers may be started than before."""
        self._let_hold()
        self._slots.resting = False
        self._gangs.wake_waiting()
        if self._start_timer is not None:
            self._start_timer.cancel()
        self.dispatch()

    def _let_hold(self) -> None:
        """Fewer workers are held than may be: add the runs that wait to hold one."""
        for source in self._steps.may_hold_now():
            self._turns.add(source)

    def __repr__(self) -> str:
        return f"<TaskAssigner {len(self._turns)} of {len(self._runs)} runs waiting>"


def _opening_for(slot: WorkerSlot, source: TaskSource, blocked_seconds: float) -> Sequence[Any]:
    """What an order of a run has to say of it; nothing if the worker knows it."""
    number = source.number
    if number in slot.known:
        return ()
    slot.opened.add(number)
    return source.opening._replace(blocked_seconds=blocked_seconds)


def _give_back(
    grant: Held | None,
    resources: MachineResources | None,
    gangs: GangWorkers,
    needed: Amounts | None,
    has_workers: bool,  # noqa: FBT001 - `partial` passes it by position
) -> None:
    """Give back what a task or a gang has held."""
    if grant is not None:
        grant.release()
    if needed is not None and resources is not None:
        resources.give_back(needed)
    if has_workers:
        gangs.end()
