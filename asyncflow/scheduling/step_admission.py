"""Which of a run's steps may have one more task at a worker.

A step has limits: `@concurrency`, named limits, and what its tasks need of the machine's resources.
A run may have one too, `max_running_tasks`. Steps at their limit let the run's other steps pass. So
tasks at workers are counted here, by run and step. Whether a worker has room is another question
(`placement`).

Nothing here waits.
"""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow.scheduling.machine_resources import amounts_of
from asyncflow.scheduling.named_limits import needs_of
from asyncflow.scheduling.placement import ASYNC_SPARE_TASKS, ASYNC_TASKS, TaskDemand

if TYPE_CHECKING:
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.gang_workers import GangWorkers
    from asyncflow.scheduling.machine_resources import Amounts, MachineResources
    from asyncflow.scheduling.named_limits import Limits, Need
    from asyncflow.scheduling.placement import AllWorkers
    from asyncflow.workers.interface import Kind

_WORTH_SECONDS: Final = 1.0  # of work for which one more worker is asked for
_ASYNC_TASKS: Final = 1000  # of a step at a time, unless `@concurrency` says otherwise


def _limit(source: TaskSource, step: str) -> int:
    """How many tasks of the step may run at once."""
    limit: int = source.graph[step].options.get("concurrency", _ASYNC_TASKS)
    return limit


class StepConditions(NamedTuple):
    """What the tasks of a step need besides a worker."""

    needs: tuple[Need, ...] = ()
    """Places in named limits."""
    is_gang: bool = False
    """Whether its tasks are the nodes of gangs."""
    amounts: Amounts | None = None
    """What each task needs of the machine's resources."""
    kind: Kind = None
    """The kind of worker that it needs."""

    @property
    def is_scarce(self) -> bool:
        """Whether a task holds something that others could use while it waits at a worker."""
        return bool(self.needs or self.is_gang or self.amounts)


class StepAdmission:
    """Counts the tasks that workers have, and says of which step one more may begin."""

    def __init__(
        self,
        slots: AllWorkers,
        gangs: GangWorkers,
        limits: Limits | None,
        resources: MachineResources | None,
    ) -> None:
        """Know of no run; without limits or resources no task waits for any."""
        self._slots, self._gangs = slots, gangs
        self._limits, self._resources = limits, resources
        self._running: Counter[tuple[int, str]] = Counter()  # tasks at workers by run and step
        self._of_run: Counter[int] = Counter()  # by run, those that yield items aside
        self._yielding: set[tuple[int, str]] = set()  # runs and steps that have yielded items
        self._kept_from_holding: dict[int, TaskSource] = {}  # runs that wait until fewer do
        self.conditions: dict[tuple[int, str], StepConditions] = {}
        """What tasks need besides a worker, by run and step; nothing if a step is not in it."""

    # --- runs ---

    def enter(self, source: TaskSource) -> None:
        """Learn what the steps of a run need."""
        for node in source.graph:
            needs, kind = needs_of(node.options.get("limit")), None
            amounts = amounts_of(node.options.get("resources"))
            executor = self._slots.executor
            if amounts is not None and executor.places_resources:
                kind, amounts = executor.kind_of(*amounts), None
            elif self._resources is None:
                amounts = None
            conditions = StepConditions(needs, node.is_gang, amounts, kind)
            if any(conditions):
                self.conditions[source.number, node.name] = conditions

    def leave(self, source: TaskSource) -> None:
        """Forget a run that has ended."""
        number = source.number
        for step in source.graph.nodes:
            self._running.pop((number, step), None)
            self._yielding.discard((number, step))
            self.conditions.pop((number, step), None)
        self._of_run.pop(number, None)
        self._kept_from_holding.pop(number, None)

    # --- what workers have ---

    def begin(self, run: int, step: str, number: int = 1) -> None:
        """Tasks were sent to a worker."""
        self._running[run, step] += number
        self._of_run[run] += number

    def room(self, source: TaskSource, step: str) -> int:
        """How many tasks of a step without conditions may begin now."""
        if self._yielding:
            return 1
        most = source.max_running_tasks
        room = _limit(source, step) - self._running[source.number, step]
        return min(room, most - self._of_run[source.number]) if most else room

    def on_yields(self, run: int, step: str) -> None:
        """A task yields items: it is not counted for its run, whose tasks must not wait for it."""
        self._yielding.add((run, step))
        self._of_run[run] -= 1

    def end(self, run: int, step: str, number: int = 1, *, yielding: bool = False) -> None:
        """Tasks of a run are no longer at a worker."""
        self._running[run, step] -= number
        if not yielding:  # else it was not counted
            self._of_run[run] -= number

    def may_hold_now(self) -> list[TaskSource]:
        """The runs that wait to hold a worker; each is returned once. Fewer workers are held."""
        waiting, self._kept_from_holding = self._kept_from_holding, {}
        return list(waiting.values())

    def has_few(self, source: TaskSource) -> bool:
        """Whether the run has so few tasks at workers that async ones may have a spare place."""
        return self._of_run[source.number] < ASYNC_SPARE_TASKS

    # --- what is next ---

    def demand(self, source: TaskSource, step: str) -> TaskDemand:
        """What the run's next task, of this step, needs from a worker."""
        node, conditions = source.graph[step], self.conditions.get((source.number, step))
        return TaskDemand(
            is_async=node.is_async,
            isolated="isolate" in node.options,
            limited=conditions is not None and conditions.is_scarce,
            expected=source.expected.get(step, 0.0),
            most=_limit(source, step),
            few=self._of_run[source.number] < ASYNC_SPARE_TASKS,
            holds=node.is_async
            and (node.reads_arrivals or (source.number, step) in self._yielding),
        )

    def kind(self, source: TaskSource, step: str) -> Kind:
        """The kind of worker that a step needs."""
        conditions = self.conditions.get((source.number, step))
        return None if conditions is None else conditions.kind

    def workers_worth(self, source: TaskSource, step: str) -> int:
        """How many workers would have some work with the run's tasks, about a second of it."""
        conditions = self.conditions.get((source.number, step))
        gang = source.orders.next_gang() if conditions is not None and conditions.is_gang else 0
        tasks = max(gang, source.orders.ready)
        if source.graph[step].is_async:
            return max(gang, -(-tasks // ASYNC_TASKS))
        seconds = min(source.expected.get(step, _WORTH_SECONDS), _WORTH_SECONDS)
        return max(gang, ceil(tasks * seconds / _WORTH_SECONDS))

    def next_step(self, source: TaskSource) -> str | None:
        """The step of the run's next task that may begin; steps at their limit let others pass."""
        most = source.max_running_tasks
        if most and self._of_run[source.number] >= most:
            if self._resources:
                self._resources.forget(source)
            return None
        if self._resources:
            self._put_first_in_line_first(source, self._resources)
        if self._slots.executor.size <= 1 and self._is_def_running():
            self._put_def_first(source)
        shut: set[str] = set()
        while (step := source.orders.next_step()) is not None:
            if self._may_begin(source, step):
                return step
            shut.add(step)
            if not source.orders.postpone(shut):
                return None
        if self._resources:
            self._resources.forget(source)
        return None

    @staticmethod
    def _put_first_in_line_first(source: TaskSource, resources: MachineResources) -> None:
        """Put the step first whose turn it is to get some of the machine's resources."""
        step = resources.first_of(source)
        others = [name for name in source.graph.nodes if name != step]
        if step is not None and not source.orders.postpone(others):
            resources.leave(source, step)

    def _is_def_running(self) -> bool:
        return any(slot.tasks and not slot.is_async for slot in self._slots)

    def _put_def_first(self, source: TaskSource) -> None:
        """Put the run's `def` tasks before its async ones, many of which can then run at once.

        Otherwise a single worker would keep switching: some `def` tasks, then the async tasks that
        follow them, then some `def` tasks again.
        """
        waiting: set[str] = set()
        while (step := source.orders.next_step()) is not None and source.graph[step].is_async:
            waiting.add(step)
            if not source.orders.postpone(waiting):
                return

    def _may_begin(self, source: TaskSource, step: str) -> bool:
        running = self._running[source.number, step]
        conditions = self.conditions.get((source.number, step))
        if conditions is not None:
            return self._may_begin_under(conditions, source, step)
        may_hold = not self._yielding or self._may_hold(source, step)
        return may_hold and running < _limit(source, step)

    def _may_begin_under(self, conditions: StepConditions, source: TaskSource, step: str) -> bool:
        """The same for a step whose tasks need more than a worker."""
        if conditions.is_gang:
            may_begin = self._may_gang_begin(source, step)
        else:
            may_begin = self._running[source.number, step] < _limit(source, step)
        if self._yielding and not self._may_hold(source, step):
            may_begin = False
        if may_begin and conditions.needs and self._limits is not None:
            may_begin = self._limits.may_take(source, conditions.needs)
        if conditions.amounts is None or self._resources is None:
            return may_begin
        if not may_begin:  # others need not wait for it
            self._resources.leave(source, step)
            return False
        count = source.orders.next_gang() or 1
        return self._resources.may_take(source, step, conditions.amounts.times(count))

    def _may_hold(self, source: TaskSource, step: str) -> bool:
        """Whether one more task may hold a worker while it yields; others are for its items."""
        if (source.number, step) not in self._yielding:
            return True
        node = source.graph[step]
        slots = self._slots.of_kind(self.kind(source, step))
        if (node.is_async and "isolate" not in node.options) or slots.held < slots.size:
            return True
        self._kept_from_holding[source.number] = source
        return False

    def _may_gang_begin(self, source: TaskSource, step: str) -> bool:
        """Whether the run's next task, or its whole gang, may begin as far as others are concerned.

        A gang that is larger than a limit on tasks runs alone.
        """
        count = source.orders.next_gang() or 1
        running, most = self._running[source.number, step], source.max_running_tasks
        if running and running + count > _limit(source, step):
            return False
        of_run = self._of_run[source.number]
        if most and of_run and of_run + count > most:
            return False
        return self._gangs.may_begin(source, step, count, self.kind(source, step))

    def __repr__(self) -> str:
        return f"<StepAdmission: {self._running.total()} tasks of {len(self._of_run)} runs>"
