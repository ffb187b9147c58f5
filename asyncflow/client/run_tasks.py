"""The tasks of one run, and its summary: opened in constant time once it has ended, else replayed.

A finished run has a summary and a table of its tasks, so that only requested parts are read. The
journal of any other run is replayed: a run that goes on, was interrupted, or crashed right before
it wrote its summary. It is read once, and each later question reads on from there. Both ways give
the same `Summary` and the same `TaskTable`; no caller knows which it was.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar
from zlib import crc32

from asyncflow.client.replay import AttemptScan, Replay
from asyncflow.client.run_journal import EndOfTask
from asyncflow.errors import JournalError, RecordError
from asyncflow.events.types import TaskCloned, TaskFailed, TaskStarted, TaskSucceeded
from asyncflow.flow.current import running_task
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.run_times import AttemptTable
from asyncflow.store.task_table import (
    ENTRY_BYTES,
    INDEX,
    MAX_ATTEMPT,
    STATES,
    TaskState,
    TaskTable,
    most_table_bytes,
    read_entry,
)
from asyncflow.values import Status, last_index_of

if TYPE_CHECKING:
    from asyncflow.client.live_counts import StepCount
    from asyncflow.client.run_journal import RunJournal
    from asyncflow.flow.current import TaskContext
    from asyncflow.flow.graph import Graph
    from asyncflow.store.run_index import Summary
    from asyncflow.store.task_table import TaskEntry

_AnyTaskEvent = TypeVar("_AnyTaskEvent", bound="TaskStarted | EndOfTask")

PAUSE_SECONDS: Final = 0.001
"""How long to wait before the journal is read again: an engine writes a batch in less time."""


def own_task(flow: str, run_id: str) -> TaskContext | None:
    """The task in which this code runs, if it is a task of that run."""
    task = running_task()
    return task if task and (task.flow_name, task.run_id) == (flow, run_id) else None


def _fits(event: EndOfTask, state: int) -> bool:
    """Whether a task that ended with this event can have this state; older tables lack STOPPED."""
    if state == TaskState.STOPPED:
        return isinstance(event, TaskFailed) and event.was_stopped
    return STATES[event.code] == state


class RunTasks:
    """The summary of one run and the table of its tasks.

    Threads may share one. Any method may raise `JournalError`: a file is damaged.
    """

    def __init__(self, journal: RunJournal) -> None:
        """Touch no file."""
        self._run, self._journal = journal.run, journal
        self._lock = threading.RLock()
        self._table: TaskTable | None = None
        self._replay: Replay | None = None
        self._attempts: AttemptTable | None = None

    def summary(self) -> Summary:
        """The run as it is now; its status is RUNNING while no last event is there."""
        with self._lock:
            return self._journal.summary.read() or self._replayed().summary()

    def is_replayed(self) -> bool:
        """Whether the journal is replayed, since the run has no summary."""
        self.table()  # this decides it
        return self._replay is not None

    def step_counts(self) -> list[StepCount] | None:
        """The steps in the order of the graph with their counts; None for one that is not replayed.

        They are as of the last question about the run.
        """
        with self._lock:
            return None if self._replay is None else self._replay.step_counts()

    def read_so_far(self) -> tuple[int, int]:
        """The last event that was read and where its record ends, even if damage follows."""
        with self._lock:
            if self._replay is not None:
                return self._replay.events, self._replay.size
            summary = self._journal.summary.read()
            return (summary.events, summary.journal_bytes) if summary is not None else (0, 0)

    def steps(self) -> dict[str, int]:
        """The steps that have begun, in the order of the graph, and how many tasks each has."""
        return {name: count for name, count in self.summary().steps if count}

    def step_number(self, step: str) -> int:
        """The number of a step in the table.

        Raises:
            KeyError: The run has no such step.
        """
        for number, (name, _) in enumerate(self.summary().steps):
            if name == step:
                return number
        raise KeyError(step)

    @property
    def graph(self) -> Graph:
        """The graph that the run follows."""
        return self._journal.graph

    # --- one task ---

    def entry(self, task: int) -> TaskEntry | None:
        """A task's entry in the table; None if it has not begun."""
        with self._lock:
            summary = self.summary()
            if self._replay is None and self._table is None and self._is_table_whole(summary):
                with suppress(OSError):  # the table or the journal is asked below
                    entry = read_entry(self._run, task)
                    if entry is None or self._is_confirmed(task, entry):
                        return entry
            table = self.table()  # which has a checksum
            entry = table[task] if 1 <= task <= len(table) else None
            return None if entry is None or entry.state == TaskState.NEVER else entry

    def _is_confirmed(self, task: int, entry: TaskEntry) -> bool:
        """Whether the journal agrees with an entry of the table; an entry has no checksum."""
        if not entry.started or bool(entry.ended) != (entry.state != TaskState.STARTED):
            return False
        try:
            _ = self.ended_task(task, entry) or self.started_task(task, entry)
        except JournalError:  # either may be damaged; reading the record says which
            return False
        return True

    def step_of(self, entry: TaskEntry) -> str:
        """The step of a task's entry."""
        steps = self.summary().steps
        if entry.step >= len(steps):
            self._refuse_index(f"names a step {entry.step}; the run has {len(steps)}")
        return steps[entry.step][0]

    def started_task(self, task: int, entry: TaskEntry) -> TaskStarted | TaskCloned | None:
        """The event that began a task's last attempt; None if it died before it began."""
        if not entry.started:
            return None
        event = self._journal.event(entry.started, self._called(task, entry))
        if not isinstance(event, TaskStarted | TaskCloned):
            self._refuse_index(f"names a {type(event).__name__} as the start of task {task}")
        return self._checked(event, task, entry)

    def ended_task(self, task: int, entry: TaskEntry) -> EndOfTask | None:
        """The event that ended a task's last attempt; None while there is none."""
        if not entry.ended:
            return None
        event = self._journal.event(entry.ended, self._called(task, entry))
        if not isinstance(event, EndOfTask) or not _fits(event, entry.state):
            self._refuse_index(f"names a {type(event).__name__} as another end of task {task}")
        return self._checked(event, task, entry)

    def path_of(self, task: int) -> tuple[int, ...]:
        """Which foreach sibling and turn a task is; see `TaskKey.path`."""
        entry = self.entry(task)
        event = entry and (self.ended_task(task, entry) or self.started_task(task, entry))
        return event.path if event else ()

    def parents_of(self, task: int) -> tuple[int, ...]:
        """The tasks that a task follows, if its record tells that; see `TaskStarted.parents`."""
        entry = self.entry(task)
        event = entry and self.started_task(task, entry)
        return event.parents if event else ()

    def outcome_of(self, task: int) -> TaskSucceeded | TaskCloned | None:
        """The event that tells how a task went on; None while it has not succeeded."""
        entry = self.entry(task)
        event = entry and self.ended_task(task, entry)
        return event if isinstance(event, TaskSucceeded | TaskCloned) else None

    def last_output(self, task: int, entry: TaskEntry) -> int:
        """The offset of the last output of a task that has not ended; 0 for none."""
        with self._lock:
            if self._replay is not None:
                return self._replayed().outputs.get(task, 0)
        return self._journal.last_output(task, entry.started)

    def _called(self, task: int, entry: TaskEntry) -> str:
        return f"{self._journal.pathspec}/{self.step_of(entry)}/{task}"

    def _checked(self, event: _AnyTaskEvent, task: int, entry: TaskEntry) -> _AnyTaskEvent:
        """The event, if it is the one that the table's entry refers to."""
        index = last_index_of(event.path)
        found = event.step, event.task_id, min(event.attempt, MAX_ATTEMPT), index
        if found != (self.step_of(entry), str(task), entry.attempt, entry.index):
            self._refuse_index(f"names {event.step}/{event.task_id} as task {task}")
        return event

    # --- the table ---

    def table(self) -> TaskTable:
        """Every task of the run as it is now."""
        with self._lock:
            summary = self.summary()
            if self._replay is None and self._table is None and self._is_table_whole(summary):
                with suppress(OSError):  # the journal has the same information
                    self._table = self._read_table(summary)
            return self._replayed().index.table if self._table is None else self._table

    def attempts(self) -> AttemptTable:
        """Every attempt of the run as it is now.

        Of a run that goes on or was interrupted, the journal is read as far as that was not done
        yet; of one that has ended, its file of times is, or else the journal, once.
        """
        with self._lock:
            summary = self._journal.summary.read()
            if summary is None:
                return self._replayed().index.attempts
            if self._attempts is None:
                self._attempts = self._read_times(summary) or self._times_of_journal()
            return self._attempts

    def _read_times(self, summary: Summary) -> AttemptTable | None:
        with suppress(RecordError, OSError):  # the journal has the same information
            if self._run.journal_size() >= summary.journal_bytes:
                return AttemptTable.read(self._run, summary.journal_bytes, len(summary.steps))
        return None

    def _times_of_journal(self) -> AttemptTable:
        journal = self._journal
        scan = AttemptScan([name for name, _ in self.summary().steps], self.summary().started)
        for at, payload in journal.records(FIRST_RECORD):
            try:
                scan.handle(at, payload)
            except RecordError as error:
                journal.refuse_record(at, error)
        return scan.attempts

    def _is_table_whole(self, summary: Summary) -> bool:
        """Whether the table has the right length; a crash can cut it."""
        try:
            size = self._run.file_size(INDEX)
        except OSError:
            return False
        least = ENTRY_BYTES * sum(n for _, n in summary.steps)
        return size % ENTRY_BYTES == 0 and least <= size <= self._most_table_bytes()

    def _most_table_bytes(self) -> int:
        try:
            return most_table_bytes(self._run.journal_size())
        except OSError:
            return most_table_bytes(0)

    def _read_table(self, summary: Summary) -> TaskTable:
        table = TaskTable.read(self._run, most=self._most_table_bytes())
        if crc32(table.dump()) != summary.index_checksum:
            self._refuse_index("is not what was written")
        return table

    def _replayed(self) -> Replay:
        """The replay of the journal, brought up to date."""
        if self._replay is None:
            self._replay = Replay(self._journal.started, self.graph)
            self._journal.summary.replace()
            self._table = None
        replay, own = self._replay, own_task(self._journal.flow, self._journal.run_id)
        self._read_on(replay)
        # A task may run before its start is in the journal. If a task of this run asks, the record
        # will come, unless this is a copy of the store or the engine is gone.
        while own and replay.misses(own) and self._run.is_being_written():
            time.sleep(PAUSE_SECONDS)
            self._read_on(replay)
        return replay

    def _read_on(self, replay: Replay) -> None:
        if replay.index.status is Status.RUNNING:
            for batch in self._journal.batches(replay.size):
                try:
                    replay.handle_all(batch.places, batch.payloads)
                except RecordError as error:
                    self._journal.refuse_record(replay.size, error)

    def _refuse_index(self, what: str) -> NoReturn:
        self._journal.refuse(
            f"its index {what}; delete {self._run.place}/{INDEX} and the journal is read instead"
        )
