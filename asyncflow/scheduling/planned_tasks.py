"""The tasks of a run's plan: alone, as the items of a foreach, and as the nodes of a gang.

A task is in one of these states, and moves as the table says:

    WAITING ──► READY ──► RUNNING ──► SUCCEEDED
                  ▲           ├─────► FAILED
                  ├─ RETRYING ◄┤
                  └─ CAUGHT ◄──┘
                       └────────────► SUCCEEDED

Only tasks that run or wait for a retry have an entry each in `OpenTasks`. A finished task is a task
id in the slot of the join that will read it.
"""

from __future__ import annotations

from array import array
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.node import Fanout
from asyncflow.scheduling.commands import BeginTask

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Collection, Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node
    from asyncflow.scheduling.arrived_inputs import ArrivedInputs
    from asyncflow.values import Failure


class TaskPhase(StrEnum):
    """The state of a task."""

    READY = "ready"
    RUNNING = "running"
    RETRYING = "retrying"
    CAUGHT = "caught"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


MOVES: Final = {
    TaskPhase.READY: {
        TaskPhase.RUNNING,
        TaskPhase.SUCCEEDED,
        TaskPhase.FAILED,
        TaskPhase.RETRYING,
        TaskPhase.CAUGHT,
    },
    TaskPhase.RUNNING: {
        TaskPhase.SUCCEEDED,
        TaskPhase.FAILED,
        TaskPhase.RETRYING,
        TaskPhase.CAUGHT,
    },
    TaskPhase.RETRYING: {TaskPhase.READY, TaskPhase.FAILED},
    TaskPhase.CAUGHT: {TaskPhase.READY, TaskPhase.SUCCEEDED, TaskPhase.FAILED},
    TaskPhase.SUCCEEDED: set(),
    TaskPhase.FAILED: set(),
}
"""Legal moves of a task. From ready straight to an end: cloned, or another node of its gang failed
before it began."""


class IllegalEventError(Exception):
    """An event that is illegal now: a defect of its sender, or a damaged journal."""


class OpenSplit:
    """An open split: what its join still waits for, and what it will read."""

    __slots__ = (
        "arrived",
        "begun",
        "inputs",
        "join",
        "parent",
        "path",
        "slot",
        "stack",
        "unmet",
        "yielder",
    )

    def __init__(self, task: PlannedTask, node: Node, count: int) -> None:
        self.join = node.join
        self.parent, self.slot = task.scope, task.slot  # the path of the join itself
        self.path, self.stack = task.path, task.stack[: node.depth]
        self.inputs = array("I", bytes(4 * count))
        self.unmet = count
        self.yielder = 0  # the task whose generator has opened it and may still yield
        self.begun = 0  # for how many of its items a task has an id
        self.arrived: ArrivedInputs | None = None  # if the join reads its inputs as they arrive

    def begin(self) -> tuple[Sequence[int], bool]:
        """What a join that reads its inputs as they arrive begins with, and whether more come."""
        if self.arrived is None or not self.unmet:
            return self.inputs, False
        return self.arrived.begin(), True


class PlannedTask:
    """A task that was made: ready, running, or waiting for a retry."""

    __slots__ = (
        "attempt",
        "caught",
        "gang",
        "id",
        "inputs",
        "path",
        "reads",
        "scope",
        "slot",
        "stack",
        "state",
        "step",
        "stream",
    )

    def __init__(self, step: str, path: tuple[int, ...], stack: tuple[int, ...]) -> None:
        self.id = 0
        self.step, self.path, self.stack = step, path, stack
        self.attempt = 0
        self.caught: Failure | None = None
        self.state = TaskPhase.READY
        self.inputs: Sequence[int] = ()
        self.scope: OpenSplit | None = None
        self.slot = 0
        self.stream: ItemTasks | None = None  # what its generator has yielded, if it has one
        self.gang: GangTasks | None = None
        self.reads: OpenSplit | None = None  # the split whose inputs it reads as they arrive

    def move(self, state: TaskPhase) -> None:
        """Go to another state."""
        if state not in MOVES[self.state]:
            message = f"task {self.id} of {self.step} cannot go from {self.state} to {state}"
            raise IllegalEventError(message)
        self.state = state

    def start(self, parents: tuple[int, ...]) -> BeginTask:
        """The command that begins its next attempt."""
        what = self.step, self.id, self.attempt, self.path, self.stack
        inputs, awaits = self.inputs, False
        if self.reads is not None:
            inputs, awaits = self.reads.begin()
        return BeginTask(*what, inputs, self.caught, parents, awaits)


class ItemTasks:
    """The tasks of a foreach that have not been taken yet."""

    __slots__ = ("count", "next", "scope", "splitter", "stack", "step")

    def __init__(self, step: str, splitter: PlannedTask, scope: OpenSplit, count: int) -> None:
        self.step, self.splitter, self.scope = step, splitter, scope
        self.stack = scope.stack
        self.next, self.count = 0, count

    def make(self, number: int) -> list[PlannedTask]:
        """The tasks for so many items that are next."""
        made = [self.task(index) for index in range(self.next, self.next + number)]
        self.next += number
        return made

    def task(self, index: int) -> PlannedTask:
        """A task for the item with this index."""
        task = PlannedTask(self.step, (*self.splitter.path, index), self.stack)
        task.inputs, task.scope, task.slot = (self.splitter.id,), self.scope, index
        return task


class TakenItems:
    """The tasks of consecutive items of a foreach that were taken together.

    There is an object for one of them once something concerns it alone.
    """

    __slots__ = ("first", "index", "items", "number")

    def __init__(self, items: ItemTasks, number: int, first: int) -> None:
        """The next ones, whose ids begin with `first`."""
        self.items, self.index, self.number, self.first = items, items.next, number, first
        items.next += number

    def task(self, task_id: int) -> PlannedTask:
        """The task of this id."""
        task = self.items.task(self.index + task_id - self.first)
        task.id = task_id
        return task


class GangTasks:
    """The nodes of a gang: they are taken together, and tried again together.

    A node's id is that of the first node plus its index.
    """

    __slots__ = ("_due", "nodes", "stack", "step")

    def __init__(self, items: ItemTasks) -> None:
        self.step, self.stack = items.step, items.stack
        self.nodes = items.make(items.count)
        for task in self.nodes:
            task.gang = self
        self._due = 0

    def on_due(self) -> bool:
        """A node has waited long enough for its next attempt; whether all have."""
        self._due = (self._due + 1) % len(self.nodes)
        return not self._due


Source = PlannedTask | ItemTasks | GangTasks
"""Ready tasks that are one entry of the plan's queue."""


class OpenTasks:
    """The tasks of a run that have an id and have not ended, by that id."""

    __slots__ = ("_tasks", "count")

    def __init__(self) -> None:
        self._tasks: dict[int, PlannedTask | TakenItems] = {}
        self.count = 0
        """How many tasks have an id: the highest id so far."""

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, task_id: int) -> PlannedTask | None:
        """The task of this id; None if it is not open."""
        task = self._tasks.get(task_id)
        if isinstance(task, TakenItems):
            task = self._tasks[task_id] = task.task(task_id)
        return task

    def __getitem__(self, task_id: int) -> PlannedTask:
        task = self.get(task_id)
        if task is None:  # whoever names a task takes it for an open one
            message = f"no task {task_id} is open"
            raise IllegalEventError(message)
        return task

    def remove(self, *tasks: int) -> None:
        """Remove those of these tasks that are open."""
        for task_id in tasks:
            self._tasks.pop(task_id, None)

    def remove_in(self, states: Collection[TaskPhase]) -> None:
        """Remove the tasks that are in one of these states; none of them is ready."""
        for task_id, task in list(self._tasks.items()):
            if isinstance(task, PlannedTask) and task.state in states:
                del self._tasks[task_id]

    def packet_of(self, tasks: Sequence[int]) -> TakenItems | None:
        """What all of these tasks are of; None if something has concerned one of them alone."""
        found = [*map(self._tasks.get, tasks)]
        taken = found[0]
        return taken if isinstance(taken, TakenItems) and found.count(taken) == len(tasks) else None

    def clear(self) -> None:
        """Remove all."""
        self._tasks.clear()

    def number(self, *tasks: PlannedTask) -> None:
        """Give the next ids to these tasks, which are one, or follow the same one."""
        for task_id, task in enumerate(tasks, self.count + 1):
            task.id = task_id
            self._tasks[task_id] = task
        self.count += len(tasks)
        scope = tasks[0].scope
        if scope is not None and scope.yielder and scope.yielder in tasks[0].inputs[:1]:
            scope.begun += len(tasks)

    def take_items(self, items: ItemTasks, number: int) -> TakenItems:
        """Give the next ids to the tasks of so many items that are next."""
        first = self.count + 1
        taken = TakenItems(items, number, first)
        self._tasks.update(dict.fromkeys(range(first, first + number), taken))
        self.count += number
        if items.scope.yielder and items.scope.yielder == items.splitter.id:
            items.scope.begun += number
        return taken


def parents_of(graph: Graph, task: PlannedTask) -> tuple[int, ...]:
    """The value of `TaskStarted.parents` for a task."""
    if not graph.has_conditions or task.inputs[:1] == (0,):
        return ()
    joins = graph[task.step].joins
    if joins is not None and graph[joins].fanout is Fanout.FOREACH:
        return ()
    return tuple(task.inputs)


def tasks_in(source: Source) -> Sequence[PlannedTask]:
    """The tasks of an entry that were made already."""
    if isinstance(source, GangTasks):
        return source.nodes
    return (source,) if isinstance(source, PlannedTask) else ()


def size_of(source: Source) -> int:
    """How many tasks an entry has."""
    if isinstance(source, ItemTasks):
        return source.count
    return len(source.nodes) if isinstance(source, GangTasks) else 1


def next_of(sources: deque[Any]) -> PlannedTask:
    """Take the next task of the first entry, which is no gang."""
    source: PlannedTask | ItemTasks = sources[0]
    if isinstance(source, ItemTasks):
        (task,) = source.make(1)
        if source.next >= source.count:
            sources.popleft()
        return task
    sources.popleft()
    return source


def insert_items(sources: deque[Source], items: ItemTasks) -> None:
    """Put items that a generator has yielded behind all entries that are as deep.

    So what follows an item goes first.
    """
    at, depth = len(sources), len(items.stack)
    while at and len(sources[at - 1].stack) < depth:
        at -= 1
    sources.insert(at, items)
