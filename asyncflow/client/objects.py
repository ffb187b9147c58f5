"""Flows, runs, steps, tasks and artifacts: thin views through which users look back.

A view holds a name and the record to ask, and nothing else, so that a program may use a hundred
thousand of them. Only `asyncflow.client.run_files` knows what is on disk. Facts about one run, step
or task alone are in `run_facts`, `step_facts` and `task_facts`. The ways from one object to another
are here, in one module, because each view makes the one below it and refers to the one above.
"""

# ruff: noqa: SLF001 - the views are one family, and make each other from their parts

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, overload

from asyncflow._support.public_names import with_methods_of
from asyncflow.client import task_output
from asyncflow.client.artifact_values import Data, no_artifact
from asyncflow.client.attempts import Attempts, OneAttempt, status_of
from asyncflow.client.choosing import chooser, statuses_in
from asyncflow.client.namespaces import get_namespace, store_to_read
from asyncflow.client.resumptions import Resumptions
from asyncflow.client.run_facts import RunFacts
from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.client.step_facts import StepFacts
from asyncflow.client.task_facts import TaskFacts
from asyncflow.client.task_metadata import facts_of
from asyncflow.client.views import (
    View,
    asking_for,
    how_large,
    how_long,
    how_many,
    not_visible,
    parts_of,
    reopen,
    some_of,
)
from asyncflow.errors import JournalError, NotFoundError
from asyncflow.events.types import TaskCloned
from asyncflow.store import open_store
from asyncflow.store.run_index import TaskState
from asyncflow.values import Status

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta

    from asyncflow.values import ArtifactRef, Failure

_reopen = reopen  # artifacts that earlier versions stored refer to it by this name

# --- flow -------------------------------------------------------------------------------------


def _place_of(flow: str, store: str | os.PathLike[str] | None) -> FlowPlace:
    opened = open_store(store_to_read(store))
    if not opened.has_flow(flow):
        there = some_of(opened.flows())
        message = f"the store {opened.location} has no flow {flow!r}; it has {there}"
        raise NotFoundError(message)
    return FlowPlace(opened, flow)


class Flow(View):
    """A flow that has run: its runs, newest first.

    Raises:
        NotFoundError: The store has no such flow.
        NamespaceMismatchError: None of its runs is in the namespace.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not a flow's name.
    """

    __slots__ = ()
    _PARTS = 1

    def __init__(self, name: str, *, store: str | os.PathLike[str] | None = None) -> None:
        parts_of(Flow, name)
        self._place = _place_of(name, store)
        if not self.is_in_namespace():
            raise not_visible(name)

    @classmethod
    def _in(cls, place: FlowPlace) -> Self:
        flow = cls.__new__(cls)
        flow._place = place
        return flow

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        return (self._place.flow,)

    @property
    def parent(self) -> None:
        """None: a flow has no parent."""
        return

    @property
    def _run_record(self) -> None:
        return

    def is_in_namespace(self) -> bool:
        """Whether one of its runs is found in the namespace, see `asyncflow.namespace`."""
        return get_namespace() is None or next(iter(self), None) is not None

    @property
    def created_at(self) -> datetime | None:
        """When its oldest run was started, UTC; None if it has none."""
        runs = (self._run(run_id) for run_id in reversed(self._place.store.runs(self.id)))
        return next((run.created_at for run in runs if run is not None), None)

    @property
    def origin_pathspec(self) -> None:
        """None: a flow resumes nothing."""
        return

    @property
    def latest_run(self) -> Run | None:
        """The run that was started last; None if there is none."""
        return next(iter(self), None)

    @property
    def latest_successful_run(self) -> Run | None:
        """The last started run that succeeded; None if there is none."""
        return next((run for run in self if run.successful), None)

    def runs(
        self,
        *tags: str,
        status: str | Iterable[str] | None = None,
        since: datetime | timedelta | None = None,
        before: datetime | timedelta | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Iterator[Run]:
        """The runs in the namespace that have all of these tags, newest first.

        Further arguments choose among them. Of a run that has ended, only its summary is read;
        with `parameters` or a tag such as `user:me`, its first event as well.

        Args:
            *tags: All of these, given by a user or by the system.
            status: One status, such as `"failed"`, or several.
            since: Only runs started at this time or later. A `timedelta` is that long ago; a
                time without a time zone is local time.
            before: Only runs started earlier than this.
            parameters: Only runs whose parameters have these values. Values are compared by their
                text, and numbers as numbers, so that nothing is unpickled; only if the text has
                more than 200 characters, the value is loaded.

        Raises:
            ValueError: There is no such status.
        """
        is_chosen = chooser(status=status, since=since, before=before, parameters=parameters)
        namespace = get_namespace()
        wanted = {*tags} if namespace is None else {*tags, namespace}
        return self._chosen(wanted, is_chosen)

    def _chosen(self, wanted: set[str], is_chosen: Callable[[RunRecord], bool]) -> Iterator[Run]:
        for run_id in self._place.store.runs(self._place.flow):
            run = self._run(run_id)
            if run is not None and run._record.has_tags(wanted) and is_chosen(run._record):
                yield run

    def runs_to_resume(self) -> Iterator[Run]:
        """The interrupted runs that no run has resumed yet, newest first.

        A run that is being resumed now is not included. Neither is one that failed or was
        cancelled, because its engine recorded that end.
        """
        resumptions = Resumptions(self._place)
        for run in self:
            if run.status is Status.INTERRUPTED and not resumptions.of(run.id):
                yield run

    def __iter__(self) -> Iterator[Run]:
        return self.runs()

    def __contains__(self, run_id: object) -> bool:
        run = self._run(str(run_id))
        return run is not None and run.is_in_namespace()

    def __getitem__(self, run_id: str | int) -> Run:
        run = self._run(str(run_id))
        if run is None:
            there = (run.id for run in self)
            raise NotFoundError(self._place.store.has_no_run(self.id, str(run_id), there))
        if not run.is_in_namespace():
            raise not_visible(run.pathspec)
        return run

    def _ipython_key_completions_(self) -> list[str]:
        return [run.id for run in self]

    def _run(self, run_id: str) -> Run | None:
        if not run_id.isdecimal():
            return None
        record = RunRecord(self._place, run_id)
        return Run._in(record) if record.exists() else None

    def _describe(self) -> str:
        count = len(self._place.store.runs(self._place.flow))
        return f"{how_many(count, 'run')}"


# --- run --------------------------------------------------------------------------------------


@with_methods_of(RunFacts)
class Run(RunFacts):
    """A run, finished or live: its steps, in the order of the graph.

    Raises:
        NotFoundError: The store has no such run.
        NamespaceMismatchError: It is not in the namespace.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not a run's pathspec.
    """

    __slots__ = ()
    _PARTS = 2

    def __init__(self, pathspec: str, *, store: str | os.PathLike[str] | None = None) -> None:
        flow, run_id = parts_of(Run, pathspec)
        self._record = Flow._in(_place_of(flow, store))[run_id]._record
        self._place = self._record.place

    @classmethod
    def _in(cls, record: RunRecord) -> Self:
        run = cls.__new__(cls)
        run._record, run._place = record, record.place
        return run

    @property
    def parent(self) -> Flow:
        """The flow."""
        return Flow._in(self._place)

    @property
    def data(self) -> Data:
        """The artifacts of the task of `end`, each loaded on access.

        Raises:
            NotFoundError: The step `end` has not succeeded.
        """
        task = self.end_task
        if task is None:
            message = f"{self.pathspec} has no data: its step 'end' has not succeeded"
            raise NotFoundError(message)
        return task.data

    @property
    def end_task(self) -> Task | None:
        """The task of the step `end`; None while it has not succeeded."""
        number = self._record.summary().end_task
        entry = self._record.tasks.entry(number) if number else None
        return Task._in(self._record, self._record.tasks.step_of(entry), number) if entry else None

    def steps(self, *tags: str) -> Iterator[Step]:
        """The steps that have begun, in the order of the graph; none unless the run has the tags.

        Steps and tasks have the tags of their run.
        """
        if self._record.has_tags(tags):
            for name in self._record.tasks.steps():
                yield Step._in(self._record, name)

    def tasks(self, *tags: str, status: str | Iterable[str] | None = None) -> Iterator[Task]:
        """The tasks that have begun, step by step; see `Step.tasks`.

        Raises:
            ValueError: There is no such status.
        """
        wanted = statuses_in(status)
        return (task for step in self.steps(*tags) for task in step._with_status(wanted))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._record.tasks.steps())

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def __contains__(self, step: object) -> bool:
        return step in self._record.tasks.steps()

    def __getitem__(self, step: str) -> Step:
        if step not in self and not self._appears(step):
            there = some_of(self._record.tasks.steps())
            message = f"run {self.pathspec} has no tasks of step {step!r}; it has those of {there}"
            raise NotFoundError(message)
        return Step._in(self._record, step)

    def _appears(self, step: str) -> bool:
        return step in self._record.journal.graph and self._record.appears(lambda: step in self)

    def _describe(self) -> str:
        status, seconds = self.status, self.seconds
        said = f"{status}, {how_many(self.task_count, 'task')}"
        if seconds is not None:
            return f"{said}, {how_long(seconds)}"
        if status is Status.RUNNING:
            # a clock was set back
            age = max((datetime.now(UTC) - self.created_at).total_seconds(), 0)
            return f"{said}, {how_long(age)} so far"
        return said


# --- step -------------------------------------------------------------------------------------


@with_methods_of(StepFacts)
class Step(StepFacts):
    """A step of a run: its tasks, in the order of their ids.

    Raises:
        NotFoundError: The run has no such step, or none of its tasks has begun.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not a step's pathspec.
    """

    __slots__ = ()
    _PARTS = 3

    def __init__(self, pathspec: str, *, store: str | os.PathLike[str] | None = None) -> None:
        flow, run_id, step = parts_of(Step, pathspec)
        self._record = Run(f"{flow}/{run_id}", store=store)[step]._record
        self._place, self._step = self._record.place, step

    @classmethod
    def _in(cls, record: RunRecord, name: str) -> Self:
        step = cls.__new__(cls)
        step._record, step._place, step._step = record, record.place, name
        return step

    @property
    def parent(self) -> Run:
        """The run."""
        return Run._in(self._record)

    @property
    def task(self) -> Task:
        """The only task of the step, or the newest of many: of a loop, the last turn."""
        return Task._in(self._record, self._step, self._record.tasks.table().last_of(self._number))

    @property
    def created_at(self) -> datetime:
        """When its first task began, UTC."""
        first = self._record.tasks.table().first_of(self._number)
        return Task._in(self._record, self._step, first).created_at

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its tasks ended, UTC; None while a task is running or yet to begin."""
        expected = self._record.lineage.expected(self._step)
        if not self.parent.finished and expected != self.task_count:
            return None
        ends = [task.finished_at if task.finished else None for task in self]
        return max((end for end in ends if end is not None), default=None) if all(ends) else None

    @property
    def parent_steps(self) -> Iterator[Step]:
        """The steps that led to it in this run, in the order of the graph."""
        for name in self._record.lineage.steps_before(self._step):
            yield Step._in(self._record, name)

    @property
    def child_steps(self) -> Iterator[Step]:
        """The steps that it has led to in this run, in the order of the graph."""
        for name in self._record.lineage.steps_after(self._step):
            yield Step._in(self._record, name)

    @property
    def control_task(self) -> Task | None:
        """Node 0 of its first gang; None for a step without `@parallel`."""
        return next(self.control_tasks(), None)

    def control_tasks(self, *tags: str) -> Iterator[Task]:
        """Node 0 of each gang that has begun: several in a foreach, none without `@parallel`."""
        if self._record.journal.graph[self._step].is_gang:
            yield from (task for task in self.tasks(*tags) if task.index == 0)

    def tasks(self, *tags: str, status: str | Iterable[str] | None = None) -> Iterator[Task]:
        """The tasks that have begun, in the order of their ids; none unless the run has the tags.

        `status` chooses those with this status, or one of several. The table of the run's tasks
        tells that: the record of a task is read only if it has failed.

        Raises:
            ValueError: There is no such status.
        """
        wanted = statuses_in(status)
        return self._with_status(wanted) if self._record.has_tags(tags) else iter(())

    def _with_status(self, wanted: frozenset[Status] | None) -> Iterator[Task]:
        table = self._record.tasks.table()
        unended = self._record.status() if wanted else Status.RUNNING
        for number in table.tasks_of(self._number):
            state = table[number].state if wanted is not None else TaskState.NEVER
            # A failure may be about to be tried again: then the task is still running.
            if wanted is None or state == TaskState.FAILED or status_of(state, unended) in wanted:
                task = Task._in(self._record, self._step, number)
                if wanted is None or state != TaskState.FAILED or task.status in wanted:
                    yield task

    def _ipython_key_completions_(self) -> list[str]:
        return [task.id for task in self]

    def __iter__(self) -> Iterator[Task]:
        return self.tasks()

    def __contains__(self, task_id: object) -> bool:
        return self._entry(str(task_id)) is not None

    def __getitem__(self, task_id: str | int) -> Task:
        number = str(task_id)
        if not (
            number.isdecimal() and self._record.appears(lambda: self._entry(number) is not None)
        ):
            tasks = self._record.tasks.table().tasks_of(self._number)
            there = how_many(len(tasks), "task") + (
                f", from {tasks[0]} to {tasks[-1]}" if tasks else ""
            )
            message = f"step {self.pathspec} has no task {number!r}; it has {there}"
            raise NotFoundError(message)
        return Task._in(self._record, self._step, int(task_id))


# --- task -------------------------------------------------------------------------------------


@with_methods_of(TaskFacts)
class Task(TaskFacts):
    """A task of a step: its artifacts, and how its last attempt went, or the given `attempt`.

    Raises:
        NotFoundError: The step has no such task, or it has not begun; or there was no such attempt.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not a task's pathspec.
    """

    __slots__ = ()
    _PARTS = 4

    def __init__(
        self,
        pathspec: str,
        *,
        attempt: int | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> None:
        flow, run_id, step, task_id = parts_of(Task, pathspec)
        with asking_for(pathspec):
            found = Step(f"{flow}/{run_id}/{step}", store=store)[task_id]._attempts
            if attempt is not None:
                found = OneAttempt(found.record, found.step, found.number, attempt)
        self._attempts = found
        self._place = found.record.place

    def _identity(self) -> tuple[object, ...]:
        return *super()._identity(), self._attempts.only

    def __reduce__(self) -> tuple[Any, ...]:
        if self._attempts.only is None:
            return super().__reduce__()
        again = partial(reopen, attempt=self._attempts.only)
        return again, (type(self), self.pathspec, self.store)

    @classmethod
    def _in(cls, record: RunRecord, step: str, number: int) -> Self:
        task = cls.__new__(cls)
        task._attempts, task._place = Attempts(record, step, number), record.place
        return task

    @property
    def parent(self) -> Step:
        """The step."""
        return Step._in(self._attempts.record, self._attempts.step)

    def attempts(self) -> tuple[Attempt, ...]:
        """Its attempts, in order. For a task that was retried, the run's journal is read."""
        return tuple(Attempt(self, *told) for told in self._attempts.all())

    @property
    def parents(self) -> Iterator[Task]:
        """The tasks whose artifacts it inherited; for a join in the order of branches or items."""
        for step, task in self._attempts.record.lineage.parents(self._attempts.number, self.key):
            yield Task._in(self._attempts.record, step, task)

    @property
    def children(self) -> Iterator[Task]:
        """The begun tasks that inherited its artifacts, in the order of branches or items."""
        for step, task in self._attempts.record.lineage.children(self._attempts.number, self.key):
            yield Task._in(self._attempts.record, step, task)

    @property
    def parent_tasks(self) -> Iterator[Task]:
        """The same as `parents`: Metaflow's name for it."""
        return self.parents

    @property
    def child_tasks(self) -> Iterator[Task]:
        """The same as `children`: Metaflow's name for it."""
        return self.children

    @property
    def parent_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of its `parents`."""
        return (task.pathspec for task in self.parents)

    @property
    def child_task_pathspecs(self) -> Iterator[str]:
        """The pathspecs of its `children`."""
        return (task.pathspec for task in self.children)

    @property
    def metadata(self) -> list[Metadata]:
        """Facts about its last attempt and its run by Metaflow's names; see `metadata_dict`."""
        time = self.created_at
        return [
            Metadata(name, fact, time, name, self)
            for name, fact in facts_of(self._attempts).items()
        ]

    @property
    def metadata_dict(self) -> dict[str, str]:
        """The same as text by name: `attempt`, `attempt_ok`, `user`, `python_version`, and so on.

        `origin-run-id` and `origin-task-id` are there for a task that was taken over, and
        `foreach-indices` within a foreach. `attempt_ok` is there once the attempt has ended.
        """
        return facts_of(self._attempts)

    @property
    def stdout(self) -> str:
        """Everything its last attempt printed to standard output, in memory; see `printed`."""
        return task_output.read_text(*self._output(), "stdout")

    @property
    def stderr(self) -> str:
        """Everything its last attempt printed to standard error, in memory; see `printed`."""
        return task_output.read_text(*self._output(), "stderr")

    def printed(self, stream: str) -> Iterator[str]:
        """What its last attempt printed to `stdout` or `stderr`, piece by piece.

        However long the output is, no more than some hundred kilobytes of it are in memory.
        """
        return task_output.read_pieces(*self._output(), stream)

    @property
    def stdout_size(self) -> int:
        """How many bytes its last attempt printed to standard output."""
        return sum(map(len, self._printed_bytes("stdout")))

    @property
    def stderr_size(self) -> int:
        """How many bytes its last attempt printed to standard error."""
        return sum(map(len, self._printed_bytes("stderr")))

    def tail(self, lines: int = 10, stream: str = "stdout") -> str:
        """The last lines that its last attempt printed; only the end of the output is read."""
        return task_output.read_tail(*self._output(), stream, lines)

    def _printed_bytes(self, stream: str) -> Iterator[bytes]:
        return task_output.read_bytes(*self._output(), stream)

    @overload
    def loglines(
        self,
        stream: str,
        as_unicode: Literal[True] = True,  # noqa: FBT002 - as in Metaflow
    ) -> Iterator[tuple[datetime, str]]: ...
    @overload
    def loglines(
        self, stream: str, as_unicode: Literal[False]
    ) -> Iterator[tuple[datetime, bytes]]: ...
    def loglines(self, stream: str, as_unicode: bool = True) -> Iterator[tuple[datetime, Any]]:  # noqa: FBT001, FBT002 - as in Metaflow
        """What its last attempt printed to `stdout` or `stderr`, each line with its time.

        The lines are text, or `bytes` without `as_unicode`, and have no line ends.
        """
        lines = task_output.read_lines(*self._output(), stream)
        if not as_unicode:
            return lines
        return ((time, line.decode("utf-8", "backslashreplace")) for time, line in lines)

    def _output(self) -> tuple[RunRecord, int, int, int]:
        """Whose last output to read: a run, a task, an attempt, and a record of the journal."""
        task, runs = self, {self._attempts.record.run_id}
        while isinstance(ended := task._attempts.ended(), TaskCloned):
            if ended.origin_run_id in runs:
                message = f"{task.pathspec} was taken over from a run that took it over from there"
                raise JournalError(message)
            runs.add(ended.origin_run_id)
            task = task._origin(ended)
        told = task._attempts
        if ended is not None:
            return told.record, told.number, ended.attempt, ended.log
        last = told.record.tasks.last_output(told.number, told.entry())
        return told.record, told.number, task.attempt, last

    def _origin(self, cloned: TaskCloned) -> Task:
        record = self._attempts.origin(cloned.origin_run_id)
        if record is None:
            message = (
                f"the output of {self.pathspec} is stored with {self.origin_pathspec}, "
                "and that run is no longer in the store"
            )
            raise NotFoundError(message)
        return Run._in(record)[self._attempts.step][cloned.origin_task_id]

    @property
    def artifacts(self) -> Artifacts:
        """Its artifacts, by attribute or by name, without their values."""
        return Artifacts(self)

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.artifacts)

    def __contains__(self, name: object) -> bool:
        return name in self._attempts.manifest()

    def __getitem__(self, name: str) -> Artifact:
        return self.artifacts[name]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._attempts.manifest())

    def _describe(self) -> str:
        said, seconds, failure = str(self.status), self.seconds, self.exception
        if failure is not None:
            said = f"{said}: {failure.type}: {failure.message}".partition("\n")[0]
        return said if seconds is None else f"{said}, {how_long(seconds)}"


class Metadata(NamedTuple):
    """A fact about a task, as `Task.metadata` gives it."""

    name: str
    value: str
    created_at: datetime
    type: str
    task: Task


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of a task."""

    task: Task
    number: int
    """0 for the first."""
    status: Status
    """`FAILED` also if `@catch` caught the failure, so that the task succeeded."""
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None
    exception: Failure | None
    _log: int | None = field(default=None, repr=False)

    @property
    def stdout(self) -> str:
        """All that it printed to standard output."""
        return task_output.read_text(*self._output(), "stdout")

    @property
    def stderr(self) -> str:
        """All that it printed to standard error."""
        return task_output.read_text(*self._output(), "stderr")

    def _output(self) -> tuple[RunRecord, int, int, int]:
        if self._log is None:  # still running, or a clone: the task knows its output
            return self.task._output()
        told = self.task._attempts
        return told.record, told.number, self.number, self._log


# --- artifacts --------------------------------------------------------------------------------


class Artifacts:
    """The artifacts of a task, by attribute, by name, or one after another."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        """Read nothing yet, so that an error can name the requested artifact."""
        self._task = task

    def __getattr__(self, name: str) -> Artifact:
        if name in Artifacts.__slots__:  # being copied: there is nothing to look up yet
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Artifact:
        with asking_for(f"{self._task.pathspec}/{name}"):
            artifacts = self._task._attempts.manifest()
        if name not in artifacts:
            raise no_artifact(self._task.pathspec, name, artifacts)
        return Artifact._in(self._task, name, artifacts[name])

    def __iter__(self) -> Iterator[Artifact]:
        for name, ref in self._task._attempts.manifest().items():
            yield Artifact._in(self._task, name, ref)

    def __contains__(self, name: object) -> bool:
        return name in self._task._attempts.manifest()

    def __len__(self) -> int:
        return len(self._task._attempts.manifest())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._task._attempts.manifest()]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._task._attempts.manifest())

    def __repr__(self) -> str:
        return f"<Artifacts {', '.join(self._task._attempts.manifest()) or 'none'}>"


class Artifact(View):
    """An artifact of a task, or of one `attempt`. Only `data` reads its value.

    Raises:
        NotFoundError: The task has no such artifact.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not an artifact's pathspec.
    """

    __slots__ = ("_name", "_ref", "_task")
    _PARTS = 5
    _name: str
    _ref: ArtifactRef
    _task: Task

    def __init__(
        self,
        pathspec: str,
        *,
        attempt: int | None = None,
        store: str | os.PathLike[str] | None = None,
    ) -> None:
        *path, name = parts_of(Artifact, pathspec)
        with asking_for(pathspec):
            task = Task("/".join(path), attempt=attempt, store=store)
        found = task[name]
        self._place, self._task, self._name, self._ref = found._place, found._task, name, found._ref

    @classmethod
    def _in(cls, task: Task, name: str, ref: ArtifactRef) -> Self:
        artifact = cls.__new__(cls)
        artifact._place, artifact._task = task._place, task
        artifact._name, artifact._ref = name, ref
        return artifact

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        return *self._task.path_components, self._name

    @property
    def _run_record(self) -> RunRecord:
        return self._task._attempts.record

    @property
    def parent(self) -> Task:
        """The task."""
        return self._task

    @property
    def origin_pathspec(self) -> str | None:
        """For an artifact of a task that was taken over: that of the task that did the work."""
        origin = self._task.origin_pathspec
        return None if origin is None else f"{origin}/{self._name}"

    @property
    def data(self) -> Any:
        """The value, read and checked anew on each access.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: Its bytes are not those that were written.
            ArtifactError: It cannot be unpickled here; the cause says why.
        """
        return self._place.artifacts.load(self._ref, self.pathspec).value

    @property
    def type_name(self) -> str:
        """The value's type as text, such as `list` or `numpy.ndarray`."""
        return self._ref.type_name

    @property
    def size(self) -> int:
        """Length of the stored value in bytes."""
        return self._ref.size

    @property
    def sha(self) -> str:
        """A hash of the stored value, in hex: equal for equal values, wherever they are stored."""
        return self._place.artifacts.sha(self._ref)

    @property
    def created_at(self) -> datetime:
        """When its task ended, UTC. A task that only passes a value on has it too."""
        return self._task.finished_at or self._task.created_at

    @property
    def finished_at(self) -> datetime:
        """The same as `created_at`."""
        return self.created_at

    def _describe(self) -> str:
        return f"{self.type_name}, {how_large(self.size)}"


DataArtifact = Artifact
"""Metaflow's name for it."""
