"""Flows, runs, steps, tasks and artifacts: thin views through which users look back.

A view holds a name and the record to ask, and nothing else, so that a program may use a hundred
thousand of them. Only `asyncflow.client.run_files` knows what is on disk. Facts about one of them
alone are in `flow_facts`, `run_facts`, `step_facts`, `task_facts`, `task_output` and
`artifact_facts`. The ways from one object to another are here, in one module, because each view
makes the one below it and refers to the one above.
"""

# ruff: noqa: SLF001 - the views are one family, and make each other from their parts

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from asyncflow._support.public_names import with_methods_of
from asyncflow.client.artifact_facts import ArtifactFacts
from asyncflow.client.artifact_values import Data, ref_of
from asyncflow.client.attempt_output import AttemptOutput
from asyncflow.client.attempts import Attempts, OneAttempt
from asyncflow.client.choosing import chooser, statuses_in
from asyncflow.client.control import RunControl
from asyncflow.client.flow_facts import FlowFacts, place_of
from asyncflow.client.namespaces import get_namespace
from asyncflow.client.resumptions import Resumptions, was_interrupted
from asyncflow.client.run_facts import RunFacts
from asyncflow.client.step_facts import StepFacts, no_such_task
from asyncflow.client.tag_changes import TagChanges
from asyncflow.client.task_facts import TaskFacts
from asyncflow.client.task_output import TaskOutput
from asyncflow.client.views import asking_for, is_visible, not_visible, parts_of, reopen
from asyncflow.client.words import some_of
from asyncflow.errors import NotFoundError
from asyncflow.values import Status

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime, timedelta

    from asyncflow.client.run_files import FlowPlace, RunRecord
    from asyncflow.events.types import TaskCloned
    from asyncflow.store.interface import StoredRun
    from asyncflow.values import ArtifactRef, Failure

_reopen = reopen  # artifacts that earlier versions stored refer to it by this name

# --- flow -------------------------------------------------------------------------------------


@with_methods_of(FlowFacts)
class Flow(FlowFacts):
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
        self._place = place_of(name, store)
        if not self.is_in_namespace():
            raise not_visible(name)

    @classmethod
    def _in(cls, place: FlowPlace) -> Self:
        flow = cls.__new__(cls)
        flow._place = place
        return flow

    def is_in_namespace(self) -> bool:
        """Whether one of its runs is found in the namespace, see `asyncflow.namespace`."""
        return get_namespace() is None or next(iter(self), None) is not None

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
        is_chosen = chooser(tags, status=status, since=since, before=before, parameters=parameters)
        return map(Run._in, self._chosen(is_chosen))

    def runs_to_resume(self) -> Iterator[Run]:
        """The interrupted runs that no run has resumed yet, newest first.

        Those are the runs whose engine is gone without recording an end, and those that were
        stopped only because their engine was closed, or their program asked to end. A run that is
        being resumed now is not included. Neither is one that failed, or that somebody has
        cancelled.
        """
        resumptions = Resumptions(self._place)
        for run in self:
            if was_interrupted(run._record) and not resumptions.of(run.id):
                yield run

    def __iter__(self) -> Iterator[Run]:
        return self.runs()

    def __contains__(self, run_id: object) -> bool:
        record = self._record_of(str(run_id))
        return record is not None and is_visible(record)

    def __getitem__(self, run_id: str | int) -> Run:
        record = self._record_of(str(run_id))
        if record is None:
            there = (run.id for run in self)
            raise NotFoundError(self._place.store.has_no_run(self.id, str(run_id), there))
        if not is_visible(record):
            raise not_visible(record.pathspec)
        return Run._in(record)

    def _ipython_key_completions_(self) -> list[str]:
        return [run.id for run in self]


# --- run --------------------------------------------------------------------------------------


@with_methods_of(RunFacts, TagChanges, RunControl)
class Run(RunFacts, TagChanges, RunControl):
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
        self._record = Flow._in(place_of(flow, store))[run_id]._record

    @classmethod
    def _in(cls, record: RunRecord) -> Self:
        run = cls.__new__(cls)
        run._record = record
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
        if entry is None:
            return None
        return Task._in(Attempts(self._record, self._record.tasks.step_of(entry), number))

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
        return (Task._in(each) for step in self.steps(*tags) for each in step._chosen(wanted))

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._record.tasks.steps())

    def __iter__(self) -> Iterator[Step]:
        return self.steps()

    def __contains__(self, step: object) -> bool:
        return step in self._record.tasks.steps()

    def __getitem__(self, step: str) -> Step:
        if step not in self and not self._appears(step):
            there = some_of(self._record.tasks.steps(), step)
            message = f"run {self.pathspec} has no tasks of step {step!r}; it has those of {there}"
            raise NotFoundError(message)
        return Step._in(self._record, step)

    def _appears(self, step: str) -> bool:
        return step in self._record.journal.graph and self._record.appears(lambda: step in self)


def known_run(stored: StoredRun) -> Run:
    """A run that is there for certain, so that its store is not asked.

    Raises:
        NamespaceMismatchError: It is not in the namespace.
    """
    from asyncflow.client.run_files import FlowPlace, RunRecord

    record = RunRecord(FlowPlace(stored.store, stored.flow), stored.run_id)
    if not is_visible(record):
        raise not_visible(record.pathspec)
    return Run._in(record)


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
        self._step = step

    @classmethod
    def _in(cls, record: RunRecord, name: str) -> Self:
        step = cls.__new__(cls)
        step._record, step._step = record, name
        return step

    @property
    def parent(self) -> Run:
        """The run."""
        return Run._in(self._record)

    @property
    def task(self) -> Task:
        """The only task of the step, or the newest of many: of a loop, the last turn."""
        return Task._in(self._attempts_of(self._record.tasks.table().last_of(self._number)))

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
        return map(Task._in, self._chosen(wanted)) if self._record.has_tags(tags) else iter(())

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
            raise no_such_task(self.pathspec, number, tasks)
        return Task._in(self._attempts_of(int(task_id)))


# --- task -------------------------------------------------------------------------------------


@with_methods_of(TaskFacts, TaskOutput)
class Task(TaskOutput):
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

    def _identity(self) -> tuple[object, ...]:
        return *super()._identity(), self._attempts.only

    def __reduce__(self) -> tuple[Any, ...]:
        if self._attempts.only is None:
            return super().__reduce__()
        again = partial(reopen, attempt=self._attempts.only)
        return again, (type(self), self.pathspec, self.store)

    @classmethod
    def _in(cls, attempts: Attempts) -> Self:
        task = cls.__new__(cls)
        task._attempts = attempts
        return task

    @property
    def parent(self) -> Step:
        """The step."""
        return Step._in(self._record, self._attempts.step)

    def attempts(self) -> tuple[Attempt, ...]:
        """Its attempts, in order. For a task that was retried, the run's journal is read."""
        return tuple(Attempt(self, *told) for told in self._attempts.all())

    @property
    def parents(self) -> Iterator[Task]:
        """The tasks whose artifacts it inherited; for a join in the order of branches or items."""
        for step, task in self._record.lineage.parents(self._attempts.number, self.key):
            yield Task._in(Attempts(self._record, step, task))

    @property
    def children(self) -> Iterator[Task]:
        """The begun tasks that inherited its artifacts, in the order of branches or items."""
        for step, task in self._record.lineage.children(self._attempts.number, self.key):
            yield Task._in(Attempts(self._record, step, task))

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
        return [Metadata(name, fact, time, name, self) for name, fact in self.metadata_dict.items()]

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
    cpu_seconds: float | None = None
    peak_memory: int | None = None

    @property
    def stdout(self) -> str:
        """All that it printed to standard output."""
        return self._output().text("stdout")

    @property
    def stderr(self) -> str:
        """All that it printed to standard error."""
        return self._output().text("stderr")

    def _output(self) -> AttemptOutput:
        if self._log is None:  # still running, or a clone: the task knows its output
            return self.task._output()
        told = self.task._attempts
        return AttemptOutput(told.record, told.number, self.number, self._log)


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
        told = self._task._attempts
        ref = ref_of(name, told.pathspec, told.manifest, told.why_missing)
        return Artifact._in(self._task, name, ref)

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


@with_methods_of(ArtifactFacts)
class Artifact(ArtifactFacts):
    """An artifact of a task, or of one `attempt`. Only `data` reads its value.

    Raises:
        NotFoundError: The task has no such artifact.
        StoreError: There is no store, or it cannot be read.
        ValueError: The argument is not an artifact's pathspec.
    """

    __slots__ = ()
    _PARTS = 5
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
        self._task, self._name, self._ref = task, name, task[name]._ref

    @classmethod
    def _in(cls, task: Task, name: str, ref: ArtifactRef) -> Self:
        artifact = cls.__new__(cls)
        artifact._task, artifact._name, artifact._ref = task, name, ref
        return artifact

    @property
    def parent(self) -> Task:
        """The task."""
        return self._task


DataArtifact = Artifact
"""Metaflow's name for it."""
