"""Facts about a step alone, without its run and its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.client.attempts import status_of
from asyncflow.client.views import View, how_many
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord
    from asyncflow.store.run_index import TaskEntry


class StepFacts(View):
    """The place of a step in the graph, and the states of its tasks, counted."""

    __slots__ = ("_record", "_step")
    _record: RunRecord
    _step: str

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        return self._place.flow, self._record.run_id, self._step

    @property
    def _run_record(self) -> RunRecord:
        return self._record

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

    def _entry(self, task_id: str) -> TaskEntry | None:
        task = int(task_id) if task_id.isdecimal() else 0
        entry = self._record.tasks.entry(task) if task_id == str(task) else None
        return entry if entry and self._record.tasks.step_of(entry) == self._step else None

    def _describe(self) -> str:
        counts = self.counts()
        counts.pop(Status.SUCCEEDED, None)
        others = "".join(f", {count:,} {status}" for status, count in counts.items())
        return how_many(self.task_count, "task") + others
