"""Replays the journal of a run that has no summary, as far as it has been written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.live_counts import LiveCounts, StepCount
from asyncflow.errors import RecordError
from asyncflow.events.record_columns import AT_ONCE, plain_records, unpack_all, unusual_among
from asyncflow.events.records import (
    ENDING_ATTEMPTS,
    LOGGED,
    OF_ATTEMPTS,
    STARTED,
    code_of,
    fields_of,
    head_of,
    item_text_in,
    last_seq_of,
    seconds_in,
    task_of,
    time_of,
)
from asyncflow.events.types import to_microseconds
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.run_index import RunIndex
from asyncflow.store.run_times import AttemptTable, attempt_state, inner_index
from asyncflow.store.task_table import ENTRY_BYTES, MAX_ATTEMPT, most_table_bytes
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncflow.events.types import RunStarted
    from asyncflow.flow.current import TaskContext
    from asyncflow.flow.graph import Graph
    from asyncflow.store.run_index import Summary

_FEW: Final = 6  # so many records are read as fast one by one


class AttemptScan:
    """The attempts of a run that has ended, from its journal: what its file of times would say."""

    def __init__(self, steps: Iterable[str], started: int) -> None:
        """Begin a run with these steps, which started so many microseconds after 1970."""
        self.attempts = AttemptTable()
        self._steps = {name: number for number, name in enumerate(steps)}
        self._started = started

    def handle(self, at: int, payload: bytes) -> None:
        """Add one record.

        Raises:
            RecordError: It is not an event, or not one of this run.
        """
        code = code_of(payload)
        if code not in OF_ATTEMPTS:
            return
        values = fields_of(payload)
        step, task, attempt, path = head_of(values)
        if step not in self._steps or task * ENTRY_BYTES > most_table_bytes(at):
            raise RecordError(f"it names the task {task} of the step {step!r:.100}")
        moment = max(time_of(values) - self._started, 0)
        of_attempt = self._steps[step], task, attempt, inner_index(path)
        item = item_text_in(values)
        if code == STARTED:
            self.attempts.begin(*of_attempt, moment, item)
        else:
            ended = attempt_state(values)
            self.attempts.end(of_attempt, moment, ended, item, seconds_in(values))


class Replay:
    """The index of a run, as far as its journal has been read."""

    def __init__(self, first: RunStarted, graph: Graph) -> None:
        run = {"flow": first.flow, "run_id": first.run_id}
        started = to_microseconds(first.time)
        self.index = RunIndex(graph, **run, started=started, tags=first.tags)
        self.steps = LiveCounts(graph.nodes, started)
        self.size = FIRST_RECORD
        """How far the journal has been read."""
        self.outputs: dict[int, int] = {}
        """The offset of the last output of each running task."""
        self._last: list[Any] = []

    def step_counts(self) -> list[StepCount]:
        """The steps in the order of the graph with their counts so far."""
        return self.steps.all(self.index.attempts.took)

    def handle_all(self, places: Sequence[int], payloads: Sequence[bytes]) -> None:
        """Apply the records at these offsets, which follow each other.

        After an error the records before the bad one are applied, and `size` is its offset.

        Raises:
            RecordError: One is not an event, or not one of this run.
        """
        for begin in range(0, len(payloads), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            self._handle_some(places[part], payloads[part])

    def _handle_some(self, places: Sequence[int], payloads: Sequence[bytes]) -> None:
        unpacked = unpack_all(payloads) or ()
        begin = 0
        for end in (*unusual_among(unpacked), len(unpacked)):
            # what is unusual, and what stands alone between that
            if end - begin < _FEW or not self._take(places[begin:end], unpacked[begin:end]):
                self._handle_each(places[begin:end], payloads[begin:end])
            else:
                self.size = places[end - 1] + PREFIX_BYTES + len(payloads[end - 1])
            self._handle_each(places[end : end + 1], payloads[end : end + 1])
            begin = end + 1
        self._handle_each(places[begin:], payloads[begin:])

    def _handle_each(self, places: Sequence[int], payloads: Sequence[bytes]) -> None:
        for at, payload in zip(places, payloads, strict=True):
            self._handle(at, payload)

    def _take(self, places: Sequence[int], unpacked: Sequence[list[Any]]) -> bool:
        """Apply records at once, if there is nothing unusual about them; else change nothing."""
        records = plain_records(unpacked)
        if records is None or not self.index.note_all(places, records):
            return False
        self.steps.count_all(records)
        if records.has_output or self.outputs:
            for at, values in zip(places, unpacked, strict=True):
                if values[0] == LOGGED:
                    self.outputs[task_of(values)] = at
                elif values[0] in ENDING_ATTEMPTS:
                    self.outputs.pop(task_of(values), None)
        self._last = unpacked[-1]
        return True

    def _handle(self, at: int, payload: bytes) -> None:
        values = fields_of(payload)
        if values[0] == LOGGED:
            self.outputs[task_of(values)] = at
        elif values[0] in OF_ATTEMPTS:
            table, task = self.index.table, task_of(values)
            before = table.standing(task)
            self.index.apply(at, values)
            self.steps.count(values, before, table.standing(task))
            if values[0] in ENDING_ATTEMPTS:
                self.outputs.pop(task, None)
        else:
            self.index.apply(at, values)
        self._last = values
        self.size = at + PREFIX_BYTES + len(payload)

    def misses(self, task: TaskContext) -> bool:
        """Whether the run goes on, and the start of this attempt is not in the journal yet."""
        if self.index.status is not Status.RUNNING:
            return False
        table, number = self.index.table, int(task.task_id)
        return not table.has(number) or table[number].attempt < min(task.attempt, MAX_ATTEMPT)

    @property
    def events(self) -> int:
        """The number of the last event that was read; 0 before the first."""
        return last_seq_of(self._last) if self._last else 0

    def summary(self) -> Summary:
        """The summary that the engine writes when the run ends."""
        return self.index.summary(journal_bytes=self.size, events=self.events)
