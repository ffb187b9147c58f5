"""Facts about a step alone, without its run and its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.client.attempts import Attempts, status_of
from asyncflow.client.views import RunView
from asyncflow.client.words import how_many, local_time
from asyncflow.errors import NotFoundError
from asyncflow.store.task_table import TaskState
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from asyncflow.client.run_files import RunRecord
    from asyncflow.store.task_table import TaskEntry


class StepFacts(RunView):
    """The place of a step in the graph, and the states of its tasks, counted."""

    __slots__ = ("_record", "_step")
    _COLUMNS = ("task", "item", "status", "began", "took")
    _record: RunRecord
    _step: str

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        record = self._record
        return record.place.flow, record.run_id, self._step

    @property
    def origin_pathspec(self) -> str | None:
        """The step of the run that this run resumed; None if it resumed none."""
        origin = self._record.started.origin_run_id
        return None if origin is None else f"{self._place.flow}/{origin}/{self._step}"

    @property
    def environment_info(self) -> None:
        """None: a step runs in the environment of the program that starts the run."""
        return

    @property
    def created_at(self) -> datetime:
        """When its first task began, UTC."""
        return self._attempts_of(self._record.tasks.table().first_of(self._number)).created_at()

    @property
    def finished_at(self) -> datetime | None:
        """When the last of its tasks ended, UTC; None while a task is running or yet to begin."""
        expected = self._record.lineage.expected(self._step)
        if not self._record.summary().status.finished and expected != self.task_count:
            return None
        ends = [each.finished_at() if each.status().finished else None for each in self._chosen()]
        return max((end for end in ends if end is not None), default=None) if all(ends) else None

    @property
    def task_count(self) -> int:
        """How many of its tasks have begun."""
        return self._record.tasks.steps()[self._step]

    @property
    def is_join(self) -> bool:
        """Whether it joins the branches or the items of a split."""
        return self._record.journal.graph[self._step].is_join

    def counts(self) -> dict[Status, int]:
        """How many of its tasks have which status, from the table of tasks alone.

        A task that waits for a retry counts as failed. A task that was stopped because its run was
        ending counts as cancelled.
        """
        unended = self._record.status()
        counts: dict[Status, int] = {}
        for state, count in self._record.tasks.table().states_of(self._number).items():
            status = status_of(state, unended)
            counts[status] = counts.get(status, 0) + count
        return counts

    @property
    def _number(self) -> int:
        return self._record.tasks.step_number(self._step)

    def _attempts_of(self, number: int) -> Attempts:
        return Attempts(self._record, self._step, number)

    def _chosen(self, wanted: frozenset[Status] | None = None) -> Iterator[Attempts]:
        """The begun tasks with one of these statuses, in the order of their ids; None for all."""
        table = self._record.tasks.table()
        unended = self._record.status() if wanted else Status.RUNNING
        for number in table.tasks_of(self._number):
            state = table[number].state if wanted is not None else TaskState.NEVER
            # A failure may be about to be tried again: then the task is still running.
            if wanted is None or state == TaskState.FAILED or status_of(state, unended) in wanted:
                attempts = Attempts(self._record, self._step, number)
                if wanted is None or state != TaskState.FAILED or attempts.status() in wanted:
                    yield attempts

    def _entry(self, task_id: str) -> TaskEntry | None:
        task = int(task_id) if task_id.isdecimal() else 0
        entry = self._record.tasks.entry(task) if task_id == str(task) else None
        return entry if entry and self._record.tasks.step_of(entry) == self._step else None

    def _cells(self) -> tuple[str, ...]:
        return self.id, self._describe(), local_time(self.created_at)

    def _describe(self) -> str:
        counts = self.counts()
        counts.pop(Status.SUCCEEDED, None)
        others = "".join(f", {count:,} {status}" for status, count in counts.items())
        return how_many(self.task_count, "task") + others


def no_such_task(step: str, name: str, tasks: Sequence[int]) -> NotFoundError:
    """Says which tasks a step has; if the name is no task's, where that of an artifact stands."""
    there = how_many(len(tasks), "task")
    if len(tasks) > 1:
        there += f", from {tasks[0]} to {tasks[-1]}"
    elif tasks:
        there += f", {tasks[0]}"
    if tasks and not name.isdecimal():
        there += f"; an artifact is named behind its task: {step}/{tasks[0]}/{name:.100}"
    return NotFoundError(f"step {step} has no task {name!r:.100}; it has {there}")
