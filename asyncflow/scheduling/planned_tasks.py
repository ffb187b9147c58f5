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
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncflow.flow.node import Fanout
from asyncflow.scheduling.commands import BeginTask

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

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
        step, outer, stack, scope = self.step, self.splitter.path, self.stack, self.scope
        inputs, made = (self.splitter.id,), list[PlannedTask]()
        for index in range(self.next, self.next + number):
            task = PlannedTask(step, (*outer, index), stack)
            task.inputs, task.scope, task.slot = inputs, scope, index
            made.append(task)
        self.next += number
        return made


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


class OpenTasks(dict[int, PlannedTask]):
    """The tasks of a run that have an id and have not ended, by that id."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """How many tasks have an id: the highest id so far."""

    def __missing__(self, task_id: int) -> NoReturn:
        """Raise: whoever names a task takes it for an open one."""
        message = f"no task {task_id} is open"
        raise IllegalEventError(message)

    def number(self, *tasks: PlannedTask) -> None:
        """Give the next ids to these tasks, which are one, or follow the same one."""
        for task_id, task in enumerate(tasks, self.count + 1):
            task.id = task_id
            self[task_id] = task
        self.count += len(tasks)
        scope = tasks[0].scope
        if scope is not None and scope.yielder and scope.yielder in tasks[0].inputs[:1]:
            scope.begun += len(tasks)


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
