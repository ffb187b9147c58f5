"""The ready tasks of a resumed run: some are taken over, some go on waiting, others are to run.

Tasks that become ready are *unsorted* until `clone` has looked at them.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from asyncflow.scheduling.commands import CloneTask, RetryTask
from asyncflow.scheduling.planned_tasks import (
    GangTasks,
    TaskPhase,
    insert_items,
    next_of,
    parents_of,
    tasks_in,
)
from asyncflow.scheduling.ready_queue import ReadyQueue

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.scheduling.planned_tasks import ItemTasks, OpenTasks, PlannedTask, Source


class ResumedQueue(ReadyQueue):
    """Ready tasks that another run may have finished."""

    def __init__(
        self,
        graph: Graph,
        tasks: OpenTasks,
        finished: Collection[tuple[str, tuple[int, ...]]],
        waiting: Mapping[tuple[str, tuple[int, ...]], tuple[int, float]],
    ) -> None:
        """Have no task yet; the arguments are those of the plan, and its open tasks."""
        super().__init__()
        self._graph, self._tasks = graph, tasks
        self._finished, self._waiting = finished, waiting
        self._unsorted: deque[Source] = deque()

    def push(self, source: Source) -> None:
        """Add tasks, which are next; new ones are unsorted."""
        if any(task.id for task in tasks_in(source)[:1]):
            super().push(source)
        else:
            self._unsorted.appendleft(source)

    def push_more(self, items: ItemTasks, more: int) -> None:
        """Add tasks to those of a generator that has yielded more items."""
        if items.next >= items.count:
            insert_items(self._unsorted, items)
        items.count += more

    def clear(self) -> list[Source]:
        """Remove all entries; return those that are sorted: others have no id."""
        self._unsorted.clear()
        return super().clear()

    def clone(self, limit: int) -> list[CloneTask | RetryTask]:
        """Up to `limit` tasks, with ids, that are taken over or go on waiting for a retry.

        Empty when all tasks are sorted; only then does `take` return tasks to run.
        """
        clones: list[CloneTask | RetryTask] = []
        while self._unsorted and len(clones) < limit:
            if isinstance(self._unsorted[0], GangTasks):
                clones += self._clone_gang(self._unsorted[0])
                continue
            task = next_of(self._unsorted)
            key = task.step, task.path
            if key in self._finished:
                clones.append(self._take_over(task))
            elif key in self._waiting:
                clones.append(self._wait_on(task, *self._waiting[key]))
            else:
                self._append(task)
        return clones

    def _clone_gang(self, gang: GangTasks) -> list[CloneTask | RetryTask]:
        """Take a gang over as a whole, or have it run as a whole."""
        self._unsorted.popleft()
        keys = [(task.step, task.path) for task in gang.nodes]
        if all(key in self._finished for key in keys):
            return [self._take_over(task) for task in gang.nodes]
        waits = [self._waiting.get(key) for key in keys]
        if len({wait and wait[0] for wait in waits}) == 1 and waits[0] is not None:
            seconds = max(wait[1] for wait in waits if wait)
            return [self._wait_on(task, waits[0][0], seconds) for task in gang.nodes]
        self._append(gang)
        return []

    def _take_over(self, task: PlannedTask) -> CloneTask:
        self._tasks.number(task)
        return CloneTask(task.step, task.id, task.path, parents_of(self._graph, task))

    def _wait_on(self, task: PlannedTask, attempt: int, seconds: float) -> RetryTask:
        self._tasks.number(task)
        task.attempt, task.state = attempt - 1, TaskPhase.RETRYING
        return RetryTask(task.step, task.id, attempt, task.path, seconds)
