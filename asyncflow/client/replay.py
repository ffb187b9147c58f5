"""Replays a journal, to the same table and summary that the engine writes at the run's end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import RecordError
from asyncflow.events.records import (
    ENDING_ATTEMPTS,
    ENDINGS,
    LOGGED,
    STARTED,
    TaskHead,
    fields_of,
    head_of,
    last_seq_of,
    task_of,
    time_of,
    was_stopped,
)
from asyncflow.events.types import TaskCloned, TaskFailed, TaskSucceeded, to_microseconds
from asyncflow.store.journal import HEADER, PREFIX_BYTES
from asyncflow.store.run_index import (
    ENTRY_BYTES,
    Summary,
    TaskEntry,
    TaskState,
    TaskTable,
    most_table_bytes,
)
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.events.types import RunStarted
    from asyncflow.flow.current import TaskContext

FIRST: Final = len(HEADER)
"""The offset of a journal's first record."""

MAX_ATTEMPT: Final = 255
"""The table stores an attempt's number in a byte; a higher number is stored as this one."""

STATES: Final = {
    TaskSucceeded.code: TaskState.SUCCEEDED,
    TaskFailed.code: TaskState.FAILED,
    TaskCloned.code: TaskState.CLONED,
}
"""The state of a task by the code of the event that ended its last attempt."""


class Replay:
    """The table and summary as far as the journal has been read."""

    def __init__(self, first: RunStarted, steps: list[str]) -> None:
        self.table = TaskTable()
        self.status = Status.RUNNING
        self.size = FIRST
        """How far the journal has been read."""
        self.outputs: dict[int, int] = {}
        """The offset of the last output of each running task."""
        self._first = first
        self._numbers = {step: number for number, step in enumerate(steps)}
        self._counts = [0] * len(steps)
        self._end_task = 0
        self._last: list[Any] = []
        self._last_at = 0

    def handle(self, at: int, payload: bytes) -> None:
        """Apply one record.

        Raises:
            RecordError: It is not an event, or not one of this run.
        """
        values = fields_of(payload)
        code = values[0]
        if code == LOGGED:
            self.outputs[task_of(values)] = at
        elif code == STARTED:
            self._note(at, head_of(values), at, 0, TaskState.STARTED)
        elif code in ENDING_ATTEMPTS:
            self._end_attempt(at, values, STATES[code])
        elif code in ENDINGS:
            self.status = ENDINGS[code]
        self._last = values
        self._last_at = at
        self.size = at + PREFIX_BYTES + len(payload)

    def misses(self, task: TaskContext) -> bool:
        """Whether the run is going on and the start of this attempt is not in the journal yet."""
        if self.status is not Status.RUNNING:
            return False
        number = int(task.task_id)
        if number > len(self.table) or self.table[number].state == TaskState.NEVER:
            return True
        return self.table[number].attempt < min(task.attempt, MAX_ATTEMPT)

    def _end_attempt(self, at: int, values: list[Any], state: TaskState) -> None:
        head = head_of(values)
        self.outputs.pop(head.task, None)
        if state is TaskState.FAILED and was_stopped(values):
            state = TaskState.STOPPED
        started = at if state is TaskState.CLONED else self._started_at(head.task, head.attempt)
        self._note(at, head, started, at, state)
        if head.step == "end" and state not in {TaskState.FAILED, TaskState.STOPPED}:
            self._end_task = head.task

    def _started_at(self, task: int, attempt: int) -> int:
        """The offset of the start of the attempt that ends now; 0 if it died before it began.

        An attempt whose failure is caught has two ending events: TaskFailed, then TaskSucceeded.
        """
        if task > len(self.table):
            return 0
        entry = self.table[task]
        return entry.started if entry.attempt == min(attempt, MAX_ATTEMPT) else 0

    def _note(self, at: int, head: TaskHead, started: int, ended: int, state: TaskState) -> None:
        step, task, attempt, path = head
        number = self._numbers.get(step)
        if number is None:
            raise RecordError(f"it tells of a step {step!r}, which the run does not have")
        if task * ENTRY_BYTES > most_table_bytes(at):
            raise RecordError(f"there cannot have been {task} tasks before it")
        if task > len(self.table) or self.table[task].state == TaskState.NEVER:
            self._counts[number] += 1
        index = path[-1] if path else 0
        self.table[task] = TaskEntry(started, ended, number, state, attempt, index)

    def summary(self) -> Summary:
        """The summary that the engine writes when the run ends."""
        first = self._first
        ended = self.status is not Status.RUNNING
        return Summary(
            status=self.status,
            started=to_microseconds(first.time),
            finished=time_of(self._last) if ended else 0,
            flow=first.flow,
            run_id=first.run_id,
            first=FIRST,
            last=self._last_at if ended else 0,
            journal_bytes=self.size,
            events=last_seq_of(self._last),
            end_task=self._end_task,
            steps=tuple(zip(self._numbers, self._counts, strict=True)),
            tags=first.tags,
        )
