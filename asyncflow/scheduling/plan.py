"""The brain: events come in, commands go out.

No clock, no I/O, no await, no randomness. It takes events, in the order of the journal, and answers
with commands. Ready tasks are fetched with `take`, so that a foreach over a hundred thousand items
needs one entry here and not a hundred thousand. Ready tasks are found by counting down unmet
inputs, never by scanning.

    event ──► handle() ──► [Command]          take(n) ──► [StartTask]

A task is in one of these states, and moves as the table says:

    WAITING ──► READY ──► RUNNING ──► SUCCEEDED
                  ▲           ├─────► FAILED
                  ├─ RETRYING ◄┤
                  └─ CAUGHT ◄──┘
                       └────────────► SUCCEEDED

The nodes of a gang are taken together. If one of them is to be tried again, so are all, and they
are ready again when the last one's wait is over.

If a failure is caught, the worker's next report says that the task succeeded. If the worker dies
before that report, the task is taken once more, for a stand-in: its order passes the failure on,
and runs no step.

Only tasks that run or wait for a retry have an entry each. Ready tasks are in sources, and a
finished task is a task id in the slot of the join that will read it.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from asyncflow.events.types import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
)
from asyncflow.flow.node import Fanout
from asyncflow.scheduling.commands import (
    Arrivals,
    BeginTask,
    CloneTask,
    Command,
    FinishRun,
    HandOn,
    RetryTask,
    StopTasks,
    Verdict,
)
from asyncflow.values import Failure, Status, repetitions_of, with_repetitions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from asyncflow.events.types import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node


MAX_ARRIVALS: Final = 2048  # that a join is told at a time: 48 KiB

# thirty years: a growing backoff must not exceed what a clock can express
_OTHER_FAILED: Final = "another task of the run failed"
_LONGEST_WAIT: Final = 1e9


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


# --- state ------------------------------------------------------------------------------------


class _Scope:
    """An open split: what its join still waits for, and what it will read."""

    __slots__ = (
        "arrived",
        "begun",
        "ended",
        "inputs",
        "join",
        "parent",
        "path",
        "slot",
        "stack",
        "told",
        "unmet",
        "yielder",
    )

    def __init__(self, task: _Task, node: Node, count: int) -> None:
        self.join = node.join
        self.parent, self.slot = task.scope, task.slot  # the path of the join itself
        self.path, self.stack = task.path, task.stack[: node.depth]
        self.inputs = array("I", bytes(4 * count))
        self.unmet = count
        self.yielder = 0  # the task whose generator has opened it and may still yield
        self.begun = 0  # for how many of its items a task has an id
        # If the join reads its inputs as they arrive: their ids in that order.
        self.arrived: array[int] | None = None
        self.told = 0  # how many of these the join has been told
        self.ended = False  # whether it has been told that no more will come

    def begin(self) -> tuple[Sequence[int], bool]:
        """What a join that reads its inputs as they arrive begins with, and whether more come."""
        if self.arrived is None or not self.unmet:
            return self.inputs, False
        first = self.arrived[:MAX_ARRIVALS]
        self.told, self.ended = len(first), False
        return first, True

    def news(self, join: _Task) -> Iterator[Arrivals]:
        """What the running join has not been told yet."""
        arrived = self.arrived or ()
        while self.told < len(arrived) or not (self.unmet or self.ended):
            some = arrived[self.told : self.told + MAX_ARRIVALS]
            self.told += len(some)
            self.ended = not self.unmet and self.told == len(arrived)
            yield Arrivals(join.id, join.attempt, some, self.ended)


class _Task:
    """A task with an id: ready again, running, or waiting for a retry."""

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
        self.scope: _Scope | None = None
        self.slot = 0
        self.stream: _Items | None = None  # what its generator has yielded, if it has one
        self.gang: _Gang | None = None
        self.reads: _Scope | None = None  # the split whose inputs it reads as they arrive

    def move(self, state: TaskPhase) -> None:
        if state not in MOVES[self.state]:
            message = f"task {self.id} of {self.step} cannot go from {self.state} to {state}"
            raise IllegalEventError(message)
        self.state = state

    def start(self, parents: tuple[int, ...]) -> BeginTask:
        what = self.step, self.id, self.attempt, self.path, self.stack
        inputs, awaits = self.inputs, False
        if self.reads is not None:
            inputs, awaits = self.reads.begin()
        return BeginTask(*what, inputs, self.caught, parents, awaits)


class _Items:
    """The tasks of a foreach that have not been taken yet."""

    __slots__ = ("count", "next", "scope", "splitter", "stack", "step")

    def __init__(self, step: str, splitter: _Task, scope: _Scope, count: int) -> None:
        self.step, self.splitter, self.scope = step, splitter, scope
        self.stack = scope.stack
        self.next, self.count = 0, count

    def make(self) -> _Task:
        splitter, index = self.splitter, self.next
        self.next += 1
        task = _Task(self.step, (*splitter.path, index), self.stack)
        task.inputs = (splitter.id,)
        task.scope, task.slot = self.scope, index
        return task


class _Gang:
    """The nodes of a gang: they are taken together, and tried again together.

    A node's id is that of the first node plus its index.
    """

    __slots__ = ("due", "nodes", "stack", "step")

    def __init__(self, step: str, nodes: Sequence[_Task]) -> None:
        self.step, self.nodes = step, nodes
        self.stack = nodes[0].stack
        self.due = 0  # how many of them have waited long enough for their next attempt


_Source = _Task | _Items | _Gang


class IllegalEventError(Exception):
    """An event that is illegal now: a defect of its sender, or a damaged journal."""


@dataclass(slots=True)
class Plan:
    """The plan of one run: which tasks are next.

    Raises, from any method: `IllegalEventError` if an event is illegal now.
    """

    graph: Graph
    finished: Collection[tuple[str, tuple[int, ...]]] = ()
    """Step and path of the tasks that are taken over from another run instead of being run."""
    waiting: Mapping[tuple[str, tuple[int, ...]], tuple[int, float]] = field(default_factory=dict)
    """For tasks that waited for a retry there: the next attempt, and the seconds left."""
    finish_running: bool = False
    """Whether running tasks may finish after another task has failed."""
    status: Status = Status.RUNNING
    failure: Failure | None = None
    ready: int = 0
    """How many tasks could be taken now."""
    task_count: int = 0
    """How many tasks have an id: the highest id so far."""
    _tasks: dict[int, _Task] = field(default_factory=dict)
    _sources: deque[_Source] = field(default_factory=deque)
    _ready_of: Counter[str] = field(default_factory=Counter)  # of each step
    _unsorted: deque[_Source] = field(default_factory=deque)
    _readers: dict[int, _Task] = field(default_factory=dict)  # that read inputs as they arrive
    _stopping: FinishRun | None = None
    _stopped_running: bool = False

    # --- questions ---

    @property
    def unfinished(self) -> int:
        """How many tasks have an id but have not ended: taken, running, or waiting for a retry."""
        return len(self._tasks)

    @property
    def reading(self) -> int:
        """How many joins run that read their inputs as they arrive."""
        return len(self._readers)

    @property
    def stopping(self) -> bool:
        """Whether no further task starts."""
        return self._stopping is not None

    def verdict(self, task_id: int, *, may_retry: bool = True) -> Verdict:
        """What would happen to the task if its attempt failed now.

        `may_retry` says whether the step's `@retry` covers the exception.
        """
        task = self._tasks.get(task_id)
        if task is None or self._stopping or task.caught is not None:
            return Verdict.FAIL
        node = self.graph[task.step]
        if may_retry and node.is_retried(task.attempt):
            return Verdict.RETRY
        return Verdict.CATCH if node.catches else Verdict.FAIL

    def next_step(self) -> str | None:
        """The step of the task that `take` would return next; None if nothing is ready."""
        return self._sources[0].step if self._sources else None

    def next_gang(self) -> int:
        """How many nodes of a gang `take` would return next; 0 if the next task is of none."""
        source = self._sources[0] if self._sources else None
        return len(source.nodes) if isinstance(source, _Gang) else 0

    # --- facts ---

    def handle(self, event: Event) -> list[Command]:  # noqa: PLR0911 - one answer for each event
        """Process an event, and return the resulting commands."""
        match event:
            case TaskStarted():
                return self._start(int(event.task_id))
            case TaskSucceeded() | TaskCloned():
                return self._succeed(int(event.task_id), event.fanout, event.choice)
            case TaskFailed():
                return self._fail(event)
            case TaskYielded():
                self._yield(int(event.task_id), event.index + event.count)
                return []
            case TaskRetried():
                return []
            case RunStarted():
                self._begin()
                return []
            case RunSucceeded():
                return self._end(Status.SUCCEEDED)
            case RunFailed():
                return self._end(Status.FAILED)
            case RunCancelled():
                return self._end(Status.CANCELLED)
            case _:  # TaskLogged: nothing depends on a task's output
                return []

    def _start(self, task_id: int) -> list[Command]:
        task = self._task(task_id)
        task.move(TaskPhase.RUNNING)
        if task.reads is not None:
            self._readers[task_id] = task
            if self._stopping and task.reads.unmet:
                return [StopTasks(_OTHER_FAILED, running=False, waiting=(task_id,))]
        return []

    def splitter_of(self, join: int) -> int:
        """The task whose foreach a running join closes."""
        return self._task(join).stack[-1]

    def arrivals(self) -> list[Arrivals]:
        """What running joins have to be told about inputs that arrive; each is returned once."""
        told: list[Arrivals] = []
        for join in self._readers.values():
            if join.reads is not None:
                told += join.reads.news(join)
        return told

    def cancel(self, reason: str) -> list[Command]:
        """Begin to end the run; `FinishRun` follows when no task runs."""
        if self._stopping and not self._stopped_running:
            self._stopped_running = True
            return [StopTasks(reason)]
        return self._stop(FinishRun(Status.CANCELLED, None, reason))

    def fail(self, failure: Failure, *, running: bool = True) -> list[Command]:
        """The same for a failure that no task caused, such as a full disk."""
        self.failure = self.failure or failure
        return self._stop(FinishRun(Status.FAILED, self.failure), running=running)

    # --- what is ready ---

    def clone(self, limit: int) -> list[CloneTask | RetryTask]:
        """Up to `limit` ready tasks, with ids, that are taken over or go on waiting for a retry.

        Empty when none is left; only then does `take` return tasks to run.
        """
        clones: list[CloneTask | RetryTask] = []
        while self._unsorted and len(clones) < limit:
            if isinstance(self._unsorted[0], _Gang):
                clones += self._clone_gang(self._unsorted[0])
                continue
            task = _next_of(self._unsorted)
            key = task.step, task.path
            if key in self.finished:
                self._number(task)
                clones.append(CloneTask(task.step, task.id, task.path, _parents(self.graph, task)))
            elif key in self.waiting:
                clones.append(self._wait_on(task, *self.waiting[key]))
            else:
                self._sources.append(task)
                self._count(task.step, 1)
        return clones

    def _wait_on(self, task: _Task, attempt: int, seconds: float) -> RetryTask:
        self._number(task)
        task.attempt, task.state = attempt - 1, TaskPhase.RETRYING
        return RetryTask(task.step, task.id, attempt, task.path, seconds)

    def _clone_gang(self, gang: _Gang) -> list[CloneTask | RetryTask]:
        """Take a gang over as a whole, or have it run as a whole."""
        self._unsorted.popleft()
        keys = [(task.step, task.path) for task in gang.nodes]
        clones: list[CloneTask | RetryTask] = []
        if all(key in self.finished for key in keys):
            for task in gang.nodes:
                self._number(task)
                parents = _parents(self.graph, task)
                clones.append(CloneTask(task.step, task.id, task.path, parents))
            return clones
        waits = [self.waiting.get(key) for key in keys]
        if len({wait and wait[0] for wait in waits}) == 1 and waits[0] is not None:
            seconds = max(wait[1] for wait in waits if wait)
            return [self._wait_on(task, waits[0][0], seconds) for task in gang.nodes]
        self._sources.append(gang)
        self._count(gang.step, len(gang.nodes))
        return clones

    def take(self, limit: int) -> list[BeginTask]:
        """Up to `limit` ready tasks, each with its id; deepest first, to keep few splits open.

        A gang is taken as a whole, however many nodes it has.
        """
        taken: list[BeginTask] = []
        while len(taken) < limit and self._sources:
            if type(self._sources[0]) is _Gang:
                taken += self._take_gang(self._sources[0])
                continue
            task = _next_of(self._sources)
            if not task.id:
                self._number(task)
            self._count(task.step, -1)
            taken.append(task.start(_parents(self.graph, task)))
        return taken

    def _take_gang(self, gang: _Gang) -> list[BeginTask]:
        self._sources.popleft()
        self._count(gang.step, -len(gang.nodes))
        for task in gang.nodes:
            if not task.id:
                self._number(task)
        return [task.start(_parents(self.graph, task)) for task in gang.nodes]

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of other steps first, as these must not begin now; False if none is ready."""
        if not any(self._ready_of[step] for step in self._ready_of if step not in steps):
            return False
        while self._sources[0].step in steps:  # they stay behind, so that none is skipped twice
            self._sources.rotate(-1)
        return True

    def _count(self, step: str, more: int) -> None:
        self.ready += more
        self._ready_of[step] += more

    def give_back(self, task_id: int) -> list[Command]:
        """A taken task did not begin, and is ready again; dropped if the run is ending."""
        task = self._task(task_id)
        if task.state is not TaskPhase.READY:
            message = f"task {task_id} has begun and cannot be given back"
            raise IllegalEventError(message)
        if self._stopping:
            del self._tasks[task_id]
            return self._finish_when_idle()
        self._push(task)
        return []

    def wake(self, task_id: int) -> None:
        """A retry is due. Harmless if the run is ending."""
        task = self._tasks.get(task_id)
        if task is None or task.state is not TaskPhase.RETRYING:
            return
        gang = task.gang
        if gang is not None:
            gang.due += 1
            if gang.due < len(gang.nodes):
                return
            gang.due = 0
        for each in gang.nodes if gang is not None else (task,):
            each.move(TaskPhase.READY)
            each.attempt += 1
        self._push(gang or task)

    def hand_on(self, task_id: int) -> list[Command]:
        """Make a stand-in ready that passes a caught failure on; nothing if the task succeeded."""
        task = self._tasks.get(task_id)
        if task is None or task.state is not TaskPhase.CAUGHT:
            return []
        if self._stopping:
            del self._tasks[task_id]
            return self._finish_when_idle()
        task.move(TaskPhase.READY)
        task.attempt += 1
        self._push(task)
        return []

    # --- how it works ---

    def _task(self, task_id: int) -> _Task:
        try:
            return self._tasks[task_id]
        except KeyError:
            message = f"no task {task_id} is open"
            raise IllegalEventError(message) from None

    def _number(self, task: _Task) -> None:
        self.task_count += 1
        task.id = self.task_count
        self._tasks[task.id] = task
        scope = task.scope
        if scope is not None and scope.yielder and scope.yielder == task.inputs[0]:
            scope.begun += 1

    def _push(self, source: _Source) -> None:
        if (self.finished or self.waiting) and _is_new(source):
            self._unsorted.appendleft(source)
            return
        self._sources.appendleft(source)
        self._count(source.step, _size(source))

    def _push_more(self, items: _Items, more: int) -> None:
        """Add tasks to those of a generator that has yielded more items.

        They come after all tasks that are as deep, so that what follows an item goes first.
        """
        resumed = bool(self.finished or self.waiting)
        waiting = self._unsorted if resumed else self._sources
        if items.next >= items.count:
            at, depth = len(waiting), len(items.stack)
            while at and len(waiting[at - 1].stack) < depth:
                at -= 1
            waiting.insert(at, items)
        items.count += more
        if not resumed:
            self._count(items.step, more)

    def _begin(self) -> None:
        start = _Task(self.graph.start, (), ())
        start.inputs = (0,)
        self._push(start)

    def _succeed(self, task_id: int, fanout: int | None, choice: str) -> list[Command]:
        task = self._task(task_id)
        task.move(TaskPhase.SUCCEEDED)
        del self._tasks[task_id]
        if task.reads is not None:
            self._end_reader(task)
        node = self.graph[task.step]
        if self._stopping:
            return self._finish_when_idle()
        if not node.next:
            return [FinishRun(Status.SUCCEEDED)]
        match node.fanout:
            case Fanout.FOREACH:
                self._fan_out(task, node, fanout or 0)
            case Fanout.BRANCH:
                self._branch(task, node)
            case Fanout.CONDITION:
                if choice not in node.next:
                    message = f"task {task_id} of {task.step} has chosen no next step: {choice!r}"
                    raise IllegalEventError(message)
                self._follow(task, choice)
            case _:
                self._follow(task, node.next[0])
        return []

    def _end_reader(self, task: _Task) -> None:
        self._readers.pop(task.id, None)
        if task.reads is not None and task.reads.unmet and not self._stopping:
            message = f"task {task.id} of {task.step} has ended before its inputs"
            raise IllegalEventError(message)

    def _follow(self, task: _Task, step: str) -> None:
        node = self.graph[step]
        path = self.graph.onward(task.step, step, task.path)
        if node.is_join:
            self._meet(task, path)
            return
        following = _Task(step, path, task.stack[: node.depth])
        following.inputs = (task.id,)
        following.scope, following.slot = task.scope, task.slot
        self._push(following)

    def _branch(self, task: _Task, node: Node) -> None:
        scope = _Scope(task, node, len(node.next))
        for slot, step in reversed(list(enumerate(node.next))):
            branch = _Task(step, self.graph.onward(task.step, step, task.path), scope.stack)
            branch.inputs = (task.id,)
            branch.scope, branch.slot = scope, slot
            self._push(branch)

    def begun(self, task_id: int) -> int:
        """For how many items that this task's generator has yielded a task has an id."""
        task = self._tasks.get(task_id)
        return task.stream.scope.begun if task is not None and task.stream is not None else 0

    def _yield(self, task_id: int, count: int) -> None:
        """A task's generator has yielded so many items in all."""
        task = self._task(task_id)
        if task.state is not TaskPhase.RUNNING:
            message = f"task {task_id} of {task.step} yields, but it is {task.state}"
            raise IllegalEventError(message)
        if self._stopping:
            return
        node = self.graph[task.step]
        if task.stream is None:
            scope = _Scope(task, node, 0)
            scope.stack = (*scope.stack, task.id)
            scope.yielder, scope.unmet = task.id, 1  # its own end
            self._tell_arrivals(scope)
            task.stream = _Items(node.next[0], task, scope, 0)
        more = count - task.stream.count
        if more > 0:
            scope = task.stream.scope
            scope.inputs.frombytes(bytes(4 * more))
            scope.unmet += more
            self._push_more(task.stream, more)

    def _fan_out(self, task: _Task, node: Node, count: int) -> None:
        if task.stream is not None:
            self._end_stream(task, task.stream, count)
            return
        scope = _Scope(task, node, count)
        scope.stack = (*scope.stack, task.id)
        if node.num_parallel is None:
            self._tell_arrivals(scope)
        if count:
            items = _Items(node.next[0], task, scope, count)
            self._push(items if node.num_parallel is None else _gang_of(items))
        else:
            self._join(scope)

    def _tell_arrivals(self, scope: _Scope) -> None:
        """Note what arrives if the join reads its inputs as they do, and is not taken over."""
        join = scope.join
        if join is None or not self.graph[join].reads_arrivals:
            return
        if (join, scope.path) not in self.finished:
            scope.arrived = array("I")

    def _end_stream(self, task: _Task, stream: _Items, count: int) -> None:
        if count != stream.count:
            message = f"task {task.id} has {count} items, but has yielded {stream.count}"
            raise IllegalEventError(message)
        scope = stream.scope
        scope.yielder = 0
        scope.unmet -= 1
        if not scope.unmet and scope.arrived is None:
            self._join(scope)

    def _meet(self, task: _Task, path: tuple[int, ...]) -> None:
        scope = task.scope
        if scope is None:
            message = f"{task.step} leads to a join, but no split is open"
            raise IllegalEventError(message)
        scope.inputs[task.slot] = task.id
        scope.unmet -= 1
        if repetitions_of(path) and _closes_branches(self.graph, scope):
            # A loop around the split goes on within a branch. The join goes on with the highest
            # number of repetitions, so that no step has the same path twice.
            count = max(repetitions_of(path), repetitions_of(scope.path))
            scope.path = with_repetitions(scope.path, count)
        if scope.arrived is not None:
            scope.arrived.append(task.id)
            if len(scope.arrived) == 1:
                self._join(scope)
        elif not scope.unmet:
            self._join(scope)

    def _join(self, scope: _Scope) -> None:
        if scope.join is None:
            message = "a split without a join was passed as a graph"
            raise IllegalEventError(message)
        join = _Task(scope.join, scope.path, scope.stack)
        join.inputs = scope.inputs
        join.scope, join.slot = scope.parent, scope.slot
        if scope.arrived is not None:
            join.reads = scope
        self._push(join)

    def _fail(self, event: TaskFailed) -> list[Command]:
        task_id = int(event.task_id)
        task = self._task(task_id)
        self._readers.pop(task_id, None)
        if event.will_retry and not self._stopping:
            task.move(TaskPhase.RETRYING)
            first = task_id if task.gang is None else task.gang.nodes[0].id  # they wait as long
            options, name = self.graph[task.step].options["retry"], f"{event.run_id}/{first}"
            after = retry_seconds(options, name, task.attempt)
            return [RetryTask(task.step, task_id, task.attempt + 1, task.path, after)]
        if event.caught:
            task.move(TaskPhase.CAUGHT)
            task.caught = event.failure
            return [HandOn(task_id)]
        task.move(TaskPhase.FAILED)
        del self._tasks[task_id]
        if self._stopping:
            return self._finish_when_idle()
        return self.fail(event.failure, running=not self.finish_running)

    def _stop(self, finish: FinishRun, *, running: bool = True) -> list[Command]:
        if self._stopping:
            return []
        self._stopping, self._stopped_running = finish, running
        for source in self._sources:  # tasks with an id: given back, or to be tried again
            for task in _tasks_in(source):
                self._tasks.pop(task.id, None)
        self._sources.clear()
        self._unsorted.clear()
        self.ready = 0
        self._ready_of.clear()
        for task_id, task in list(self._tasks.items()):
            if task.state in {TaskPhase.RETRYING, TaskPhase.CAUGHT}:
                del self._tasks[task_id]
        reason = finish.reason or _OTHER_FAILED
        waiting = tuple(
            task_id
            for task_id, task in self._readers.items()
            if task.reads is not None and task.reads.unmet
        )
        return [StopTasks(reason, running, waiting), *self._finish_when_idle()]

    def _finish_when_idle(self) -> list[Command]:
        return [self._stopping] if self._stopping and not self._tasks else []

    def _end(self, status: Status) -> list[Command]:
        self.status = status
        self._tasks.clear()
        self._sources.clear()
        self.ready = 0
        self._ready_of.clear()
        return []


def _parents(graph: Graph, task: _Task) -> tuple[int, ...]:
    """The value of `TaskStarted.parents` for a task."""
    if not graph.has_conditions or task.inputs[:1] == (0,):
        return ()
    joins = graph[task.step].joins
    if joins is not None and graph[joins].fanout is Fanout.FOREACH:
        return ()
    return tuple(task.inputs)


def _gang_of(items: _Items) -> _Gang:
    gang = _Gang(items.step, [items.make() for _ in range(items.count)])
    for task in gang.nodes:
        task.gang = gang
    return gang


def _tasks_in(source: _Source) -> Sequence[_Task]:
    """The tasks that were made already."""
    if isinstance(source, _Gang):
        return source.nodes
    return (source,) if isinstance(source, _Task) else ()


def _size(source: _Source) -> int:
    if isinstance(source, _Items):
        return source.count
    return len(source.nodes) if isinstance(source, _Gang) else 1


def _is_new(source: _Source) -> bool:
    """Whether none of its tasks has an id."""
    return not any(task.id for task in _tasks_in(source)[:1])


def _next_of(sources: deque[Any]) -> _Task:
    """The next task of the first source, which is no gang."""
    source: _Task | _Items = sources[0]
    if isinstance(source, _Items):
        task = source.make()
        if source.next >= source.count:
            sources.popleft()
        return task
    sources.popleft()
    return source


def _closes_branches(graph: Graph, scope: _Scope) -> bool:
    split = graph[scope.join].joins if scope.join is not None else None
    return split is not None and graph[split].fanout is Fanout.BRANCH


def retry_seconds(options: Any, name: str, attempt: int) -> float:
    """The wait after this attempt of the named task, in seconds, as the step's `@retry` says.

    The jitter is derived from the name and the attempt: a replay waits as long as the run did, and
    tasks of any runs wait independently. No wait exceeds `max_seconds`; waits that would are spread
    below it.
    """
    try:
        seconds: float = options["seconds"] * options["backoff"] ** attempt
    except OverflowError:
        seconds = _LONGEST_WAIT if options["seconds"] else 0.0
    most = _LONGEST_WAIT if options["max_seconds"] is None else options["max_seconds"]
    seconds = min(seconds, most)
    if options["jitter"]:
        drawn = int.from_bytes(blake3(f"{name}/{attempt}".encode()).digest(4), "big") / 0xFFFFFFFF
        seconds *= 1 + options["jitter"] * (2 * drawn - 1)
    return min(seconds, max(0.0, 2 * most - seconds))
