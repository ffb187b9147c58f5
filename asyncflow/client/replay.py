"""Replays the journal of a run that has no summary, as far as it has been written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.events.records import (
    ENDING_ATTEMPTS,
    LOGGED,
    fields_of,
    last_seq_of,
    task_of,
)
from asyncflow.events.types import to_microseconds
from asyncflow.store.journal import FIRST_RECORD, PREFIX_BYTES
from asyncflow.store.run_index import MAX_ATTEMPT, RunIndex
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.events.types import RunStarted
    from asyncflow.flow.current import TaskContext
    from asyncflow.flow.graph import Graph
    from asyncflow.store.run_index import Summary


class Replay:
    """The index of a run, as far as its journal has been read."""

    def __init__(self, first: RunStarted, graph: Graph) -> None:
        run = {"flow": first.flow, "run_id": first.run_id}
        self.index = RunIndex(graph, **run, started=to_microseconds(first.time), tags=first.tags)
        self.size = FIRST_RECORD
        """How far the journal has been read."""
        self.outputs: dict[int, int] = {}
        """The offset of the last output of each running task."""
        self._last: list[Any] = []

    def handle(self, at: int, payload: bytes) -> None:
        """Apply one record.

        Raises:
            RecordError: It is not an event, or not one of this run.
        """
        values = fields_of(payload)
        if values[0] == LOGGED:
            self.outputs[task_of(values)] = at
        else:
            self.index.apply(at, values)
            if values[0] in ENDING_ATTEMPTS:
                self.outputs.pop(task_of(values), None)
        self._last = values
        self.size = at + PREFIX_BYTES + len(payload)

    def misses(self, task: TaskContext) -> bool:
        """Whether the run goes on, and the start of this attempt is not in the journal yet."""
        if self.index.status is not Status.RUNNING:
            return False
        table, number = self.index.table, int(task.task_id)
        return not table.has(number) or table[number].attempt < min(task.attempt, MAX_ATTEMPT)

    def summary(self) -> Summary:
        """The summary that the engine writes when the run ends."""
        return self.index.summary(journal_bytes=self.size, events=last_seq_of(self._last))
