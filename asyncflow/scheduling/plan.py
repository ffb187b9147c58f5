"""The brain: events come in, commands go out.

No clock, no I/O, no await, no randomness. It takes events, in the order of the journal, and answers
with commands. Ready tasks are fetched with `take`, so that a foreach over a hundred thousand items
needs one entry here and not a hundred thousand.

    event ──► handle() ──► [Command]          take(n) ──► [StartTask]

Each part is an idea of its own. `planned_tasks` has the tasks and their states, `successors` what
follows a task that has succeeded, `ready_queue` those that are ready (`resumed_queue` in a resumed
run), and `early_joins` the joins that read inputs as they arrive.

The nodes of a gang are taken together. If one of them is to be tried again, so are all, and they
are ready again when the last one's wait is over.

If a failure is caught, the worker's next report says that the task succeeded. If the worker dies
before that report, the task is taken once more, for a stand-in: its order passes the failure on,
and runs no step.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from asyncflow.events.records import ENDINGS, STARTED, TASK_AT, way_on
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
from asyncflow.scheduling.commands import (
    BeginItems,
    FinishRun,
    HandOn,
    RecordedTasks,
    RetryTask,
    StopTasks,
    Verdict,
)
from asyncflow.scheduling.early_joins import EarlyJoins
from asyncflow.scheduling.planned_tasks import (
    GangTasks,
    IllegalEventError,
    OpenTasks,
    TaskPhase,
    parents_of,
    tasks_in,
)
from asyncflow.scheduling.ready_queue import ReadyQueue
from asyncflow.scheduling.resumed_queue import ResumedQueue
from asyncflow.scheduling.retry_delays import retry_seconds
from asyncflow.scheduling.successors import Successors
from asyncflow.values import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncflow.events.types import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.scheduling.commands import (
        BeginTask,
        CloneTask,
        Command,
        FurtherInputs,
    )

_READY, _RUNNING, _SUCCEEDED = TaskPhase.READY, TaskPhase.RUNNING, TaskPhase.SUCCEEDED
_OTHER_FAILED: Final = "another task of the run failed"
_NONE_WAITS: Final[Mapping[tuple[str, tuple[int, ...]], tuple[int, float]]] = MappingProxyType({})


class Plan:
    """The plan of one run: which tasks are next.

    Raises, from any method: `IllegalEventError` if an event is illegal now.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        finished: Collection[tuple[str, tuple[int, ...]]] = (),
        waiting: Mapping[tuple[str, tuple[int, ...]], tuple[int, float]] = _NONE_WAITS,
        finish_running: bool = False,
    ) -> None:
        """Plan a run that has not begun.

        Args:
            graph: The graph of its flow.
            finished: Step and path of the tasks that are taken over from another run instead of
                being run.
            waiting: For tasks that waited for a retry there: the next attempt, and the seconds
                left.
            finish_running: Whether running tasks may finish after another task has failed.
        """
        self.graph = graph
        self.status = Status.RUNNING
        self.failure: Failure | None = None
        self.finish_running = finish_running
        self._tasks = OpenTasks()
        self._queue = (
            ResumedQueue(graph, self._tasks, finished, waiting)
            if finished or waiting
            else ReadyQueue()
        )
        self._successors = Successors(graph, self._queue, finished)
        self._early = EarlyJoins()
        self._stopping: FinishRun | None = None
        self._stopped_running = False

    # --- questions ---

    @property
    def ready(self) -> int:
        """How many tasks could be taken now."""
        return self._queue.ready

    @property
    def additions(self) -> int:
        """How often tasks have become ready."""
        return self._queue.additions

    @property
    def unfinished(self) -> int:
        """How many tasks have an id but have not ended: taken, running, or waiting for a retry."""
        return len(self._tasks)

    @property
    def reading(self) -> int:
        """How many joins run that read their inputs as they arrive."""
        return len(self._early)

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
        return self._queue.next_step()

    def next_gang(self) -> int:
        """How many nodes of a gang `take` would return next; 0 if the next task is of none."""
        return self._queue.next_gang()

    def splitter_of(self, join: int) -> int:
        """The task whose foreach a running join closes."""
        return self._tasks[join].stack[-1]

    def begun(self, task_id: int) -> int:
        """For how many items that this task's generator has yielded a task has an id."""
        task = self._tasks.get(task_id)
        return task.stream.scope.begun if task is not None and task.stream is not None else 0

    # --- facts ---

    def handle(self, event: Event | RecordedTasks) -> list[Command]:  # noqa: PLR0911 - one answer for each event
        """Process an event, and return the resulting commands."""
        match event:
            case RecordedTasks():
                return self._handle_recorded(event)
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
                self._successors.begin()
                return []
            case RunSucceeded() | RunFailed() | RunCancelled():
                self.status = ENDINGS[event.code]
                self._tasks.clear()
                self._queue.clear()
                return []
            case _:  # TaskLogged: nothing depends on a task's output
                return []

    def _handle_recorded(self, recorded: RecordedTasks) -> list[Command]:
        """The same for beginnings and ends of attempts, whose events nobody needs here."""
        commands: list[Command] = []
        tasks, ran = self._tasks, recorded.ran
        if ran and not self._stopping:
            taken = tasks.packet_of(ran)
            if taken is not None and self._successors.meet_items(taken, ran):
                tasks.remove(*ran)
                return commands
        for values in recorded.values:
            task_id = values[TASK_AT]
            if values[0] != STARTED:
                commands += self._succeed(task_id, *way_on(values))
            elif (task := tasks[task_id]).state is _READY and task.reads is None:
                task.state = _RUNNING
            else:
                commands += self._start(task_id)
        return commands

    def arrivals(self) -> list[FurtherInputs]:
        """What running joins have to be told about inputs that arrive; each is returned once."""
        return self._early.arrivals()

    def cancel(self, reason: str, *, by_shutdown: bool = False) -> list[Command]:
        """Begin to end the run; `FinishRun` follows when no task runs."""
        if self._stopping and self._stopping.by_shutdown and not by_shutdown:
            # somebody wants it, too: then it is not to be taken up
            self._stopping = self._stopping._replace(reason=reason, by_shutdown=False)
            return []
        if self._stopping and not self._stopped_running:
            self._stopped_running = True
            return [StopTasks(reason)]
        return self._stop(FinishRun(Status.CANCELLED, None, reason, by_shutdown))

    def fail(self, failure: Failure, *, running: bool = True) -> list[Command]:
        """The same for a failure that no task caused, such as a full disk."""
        self.failure = self.failure or failure
        return self._stop(FinishRun(Status.FAILED, self.failure), running=running)

    # --- what is ready ---

    def clone(self, limit: int) -> list[CloneTask | RetryTask]:
        """Up to `limit` ready tasks, with ids, that are taken over or go on waiting for a retry.

        Empty when none is left; only then does `take` return tasks to run.
        """
        return self._queue.clone(limit)

    def take(self, limit: int) -> list[BeginTask]:
        """Up to `limit` ready tasks, each with its id; deepest first, to keep few splits open.

        A gang is taken as a whole, however many nodes it has.
        """
        taken: list[BeginTask] = []
        while len(taken) < limit and (source := self._queue.take()) is not None:
            for task in source.nodes if isinstance(source, GangTasks) else (source,):
                if not task.id:
                    self._tasks.number(task)
                taken.append(task.start(parents_of(self.graph, task)))
        return taken

    def take_items(self, most: int) -> BeginItems | None:
        """Up to `most` ready tasks for consecutive items of a foreach, with ids that follow.

        None if other tasks are next, or a single one: see `take`.
        """
        if self.graph.has_conditions or self._queue.ready < 2:  # noqa: PLR2004 - one is no group
            return None
        taken = self._queue.take_items(most, self._tasks)
        if taken is None:
            return None
        items = taken.items
        splitter, which = items.splitter, (taken.first, taken.number)
        return BeginItems(items.step, *which, splitter.path, taken.index, items.stack, splitter.id)

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of other steps first, as these must not begin now; False if none is ready."""
        return self._queue.postpone(steps)

    def give_back(self, task_id: int) -> list[Command]:
        """A taken task did not begin, and is ready again; dropped if the run is ending."""
        task = self._tasks[task_id]
        if task.state is not TaskPhase.READY:
            message = f"task {task_id} has begun and cannot be given back"
            raise IllegalEventError(message)
        if self._stopping:
            self._tasks.remove(task_id)
            return self._finish_when_idle()
        self._queue.push(task)
        return []

    def wake(self, task_id: int) -> None:
        """A retry is due. Harmless if the run is ending."""
        task = self._tasks.get(task_id)
        if task is None or task.state is not TaskPhase.RETRYING:
            return
        gang = task.gang
        if gang is not None and not gang.on_due():
            return
        for each in gang.nodes if gang is not None else (task,):
            each.move(TaskPhase.READY)
            each.attempt += 1
        self._queue.push(gang or task)

    def hand_on(self, task_id: int) -> list[Command]:
        """Make a stand-in ready that passes a caught failure on; nothing if the task succeeded."""
        task = self._tasks.get(task_id)
        if task is None or task.state is not TaskPhase.CAUGHT:
            return []
        if self._stopping:
            self._tasks.remove(task_id)
            return self._finish_when_idle()
        task.move(TaskPhase.READY)
        task.attempt += 1
        self._queue.push(task)
        return []

    # --- how it works ---

    def _start(self, task_id: int) -> list[Command]:
        task = self._tasks[task_id]
        task.move(TaskPhase.RUNNING)
        if task.reads is not None:
            self._early.begin(task, task.reads)
            if self._stopping and task.reads.unmet:
                return [StopTasks(_OTHER_FAILED, running=False, waiting=(task_id,))]
        return []

    def _succeed(self, task_id: int, fanout: int | None, choice: str) -> list[Command]:
        task = self._tasks[task_id]
        if task.state is _RUNNING:
            task.state = _SUCCEEDED
        else:
            task.move(_SUCCEEDED)
        self._tasks.remove(task_id)
        if task.reads is not None:
            self._early.succeed(task, task.reads, stopping=self.stopping)
        if self._stopping:
            return self._finish_when_idle()
        node = self.graph.nodes[task.step]
        if not node.next:
            return [FinishRun(Status.SUCCEEDED)]
        self._successors.follow(task, node, fanout, choice)
        return []

    def _yield(self, task_id: int, count: int) -> None:
        """A task's generator has yielded so many items in all."""
        task = self._tasks[task_id]
        if task.state is not TaskPhase.RUNNING:
            message = f"task {task_id} of {task.step} yields, but it is {task.state}"
            raise IllegalEventError(message)
        if not self._stopping:
            self._successors.on_yielded(task, self.graph[task.step], count)

    def _fail(self, event: TaskFailed) -> list[Command]:
        task_id = int(event.task_id)
        task = self._tasks[task_id]
        self._early.fail(task_id)
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
        self._tasks.remove(task_id)
        if self._stopping:
            return self._finish_when_idle()
        return self.fail(event.failure, running=not self.finish_running)

    def _stop(self, finish: FinishRun, *, running: bool = True) -> list[Command]:
        if self._stopping:
            return []
        self._stopping, self._stopped_running = finish, running
        for source in self._queue.clear():  # tasks with an id: given back, or to be tried again
            for task in tasks_in(source):
                self._tasks.remove(task.id)
        self._tasks.remove_in({TaskPhase.RETRYING, TaskPhase.CAUGHT})
        reason = finish.reason or _OTHER_FAILED
        return [StopTasks(reason, running, self._early.waiting()), *self._finish_when_idle()]

    def _finish_when_idle(self) -> list[Command]:
        return [self._stopping] if self._stopping and not self._tasks else []

    def __repr__(self) -> str:
        return f"<Plan {self.ready} ready, {self.unfinished} unfinished>"
