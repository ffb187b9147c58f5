"""What the files of one run tell: opened in constant time once it has ended, else from its journal.

A finished run has a summary and a table of its tasks, so that nothing is read that was not asked
for. Any other run, be it running, interrupted, or ended by a crash right before its summary, is
replayed: its journal is read once, and from where it was whenever somebody asks again. Both ways
give the same `Summary` and the same `TaskTable`; nobody above knows which it was.

Nothing here loads a value, and nothing is shown to anybody.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from zlib import crc32

from asyncflow.errors import GraphError, JournalError, RecordError
from asyncflow.events.packing import events_of, unpack_events
from asyncflow.events.records import (
    ENDING_ATTEMPTS,
    ENDINGS,
    FAILED,
    LOGGED,
    OF_ATTEMPTS,
    STARTED,
    LoggedOutput,
    TaskHead,
    code_of,
    fields_of,
    head_of,
    last_seq_of,
    output_of,
    task_of,
    time_of,
    was_stopped,
)
from asyncflow.events.types import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    to_microseconds,
)
from asyncflow.flow.current import running_task
from asyncflow.store.files import reason_of
from asyncflow.store.journal import HEADER, PREFIX_BYTES, JournalReader, is_being_written
from asyncflow.store.run_index import (
    ENTRY_BYTES,
    Summary,
    TaskEntry,
    TaskState,
    TaskTable,
    most_table_bytes,
    other_owner,
    read_entry,
)
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from asyncflow.client.lineage import Lineage
    from asyncflow.events.types import Event
    from asyncflow.flow.current import TaskContext
    from asyncflow.flow.graph import Graph
    from asyncflow.store.artifacts import ArtifactReader
    from asyncflow.store.layout import Layout
    from asyncflow.values import ArtifactRef

EndOfTask = TaskSucceeded | TaskFailed | TaskCloned
"""What a task's entry in the table points to once an attempt has ended."""

EndOfRun = RunSucceeded | RunFailed | RunCancelled
"""A run's last event."""

_AnyTaskEvent = TypeVar("_AnyTaskEvent", bound="TaskStarted | EndOfTask")

_FIRST: Final = len(HEADER)
_MAX_ATTEMPT: Final = 255  # the table tells no higher one
_PAUSE_SECONDS: Final = 0.001  # an engine writes a batch in less
_BEHIND_SECONDS: Final = 0.5  # so far behind is an engine that has much else to do
_STATES: Final = {
    TaskSucceeded.code: TaskState.SUCCEEDED,
    TaskFailed.code: TaskState.FAILED,
    TaskCloned.code: TaskState.CLONED,
}

_warm: Final[deque[JournalReader]] = deque(maxlen=16)
"""Journals that stay open: whoever looks at a thousand runs must not hold a thousand files."""


def _fits(event: EndOfTask, state: int) -> bool:
    """Whether a task that ended so can have this state; older tables call `STOPPED` `FAILED`."""
    if state == TaskState.STOPPED:
        return isinstance(event, TaskFailed) and event.was_stopped
    return _STATES[event.code] == state


class FlowPlace:
    """One flow's part of a store."""

    def __init__(self, layout: Layout, flow: str) -> None:
        self.layout, self.flow = layout, flow

    @cached_property
    def artifacts(self) -> ArtifactReader:
        """Reads the flow's values."""
        # Start-up time: whoever reads no value needs no codec.
        from asyncflow.store.artifacts import ArtifactReader  # noqa: PLC0415 - start-up time

        return ArtifactReader(self.layout, self.flow)


class RunRecord:
    """One run as its files tell it.

    Threads may share one. Any method may raise `JournalError`: a file is damaged.
    """

    def __init__(self, place: FlowPlace, run_id: str, *, removed: bool = False) -> None:
        """Touch no file; of a `removed` run there is what other runs need."""
        self.place, self.run_id = place, run_id
        folder = place.layout.removed_dir if removed else place.layout.run_dir
        self._dir: Final[Path] = folder(place.flow, run_id)
        self._lock = threading.RLock()
        self._summary: Summary | None = None
        self._table: TaskTable | None = None
        self._replay: _Replay | None = None
        self._reader: weakref.ref[JournalReader] | None = None
        self._latest: tuple[int, Event] | None = None
        """The event that was asked for last, and where it lies: many ask twice."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.place.flow}/{self.run_id}"

    def __repr__(self) -> str:
        return f"<RunRecord {self.pathspec}>"

    # --- the run ---

    def exists(self) -> bool:
        """Whether the run has begun: its first event is on disk, be it damaged by now."""
        try:
            if (self._dir / "summary").exists():
                return True
            if not (self._dir / "journal").exists():
                return False
            return any(True for _ in self._records(_FIRST))
        except (JournalError, OSError):
            return True  # whoever looks closer is told

    def summary(self) -> Summary:
        """The run as it is now; its status is RUNNING while no last event is there."""
        with self._lock:
            return self._written_summary() or self._replayed().summary()

    def status(self) -> Status:
        """How the run stands now."""
        status = self.summary().status
        if status is not Status.RUNNING or is_being_written(self._dir / "journal"):
            return status
        # The engine has let go. It may have said its last word since the journal was read.
        status = self.summary().status
        return Status.INTERRUPTED if status is Status.RUNNING else status

    @cached_property
    def started(self) -> RunStarted:
        """The run's first event."""
        event = self._event(_FIRST)
        if not isinstance(event, RunStarted):
            self._refuse(f"its first event is a {type(event).__name__}")
        return event

    def parameters(self) -> Mapping[str, ArtifactRef]:
        """Where the values of the run's parameters lie."""
        artifacts = self.started.artifacts
        return {name: artifacts[name] for name in self.started.parameters if name in artifacts}

    def ended(self) -> EndOfRun | None:
        """The run's last event; None while there is none."""
        summary = self.summary()
        if summary.status is Status.RUNNING:
            return None
        event = self._event(summary.last)
        if not isinstance(event, EndOfRun):
            self._refuse(f"its last event is a {type(event).__name__}")
        return event

    @cached_property
    def graph(self) -> Graph:
        """The graph that the run follows."""
        from asyncflow.flow.graph import Graph  # noqa: PLC0415 - start-up time: few looks need it

        try:
            return Graph.from_data(self.started.graph)
        except GraphError as error:
            self._refuse(f"its graph is none: {error}")

    @cached_property
    def lineage(self) -> Lineage:
        """Which of the run's tasks follow which."""
        from asyncflow.client.lineage import Lineage  # noqa: PLC0415 - start-up time, as above

        return Lineage(self)

    def steps(self) -> dict[str, int]:
        """The steps that have begun, in the order of the graph, and how many tasks each has."""
        return {name: count for name, count in self.summary().steps if count}

    def step_number(self, step: str) -> int:
        """How the table calls a step.

        Raises:
            KeyError: It is no step of the run.
        """
        for number, (name, _) in enumerate(self.summary().steps):
            if name == step:
                return number
        raise KeyError(step)

    # --- its tasks ---

    def table(self) -> TaskTable:
        """Every task of the run as it is now."""
        with self._lock:
            summary = self.summary()
            if self._replay is None and self._table is None and self._is_table_whole(summary):
                with suppress(OSError):  # the journal tells the same
                    self._table = self._read_table(summary)
            return self._replayed().table if self._table is None else self._table

    def entry(self, task: int) -> TaskEntry | None:
        """Where the journal tells of a task; None for one that has not begun."""
        with self._lock:
            summary = self.summary()
            if self._replay is None and self._table is None and self._is_table_whole(summary):
                with suppress(OSError):  # the table is asked below, or the journal
                    entry = read_entry(self._dir / "index", task)
                    if entry is None or self._is_confirmed(task, entry):
                        return entry
            table = self.table()  # which has a checksum
            entry = table[task] if 1 <= task <= len(table) else None
            return None if entry is None or entry.state == TaskState.NEVER else entry

    def _is_confirmed(self, task: int, entry: TaskEntry) -> bool:
        """Whether the journal says the same as an entry of the table, which has no checksum."""
        if not entry.started or bool(entry.ended) != (entry.state != TaskState.STARTED):
            return False
        try:
            _ = self.ended_task(task, entry) or self.started_task(task, entry)
        except JournalError:  # one of the two is damaged: whoever asks is told which
            return False
        return True

    def comes(self, is_there: Callable[[], bool]) -> bool:
        """Whether it is there, or comes within half a second; only a task of this run waits.

        Its siblings begin before the journal tells of them.
        """
        until = time.monotonic() + _BEHIND_SECONDS
        while not is_there():
            if self._own_task() is None or time.monotonic() > until:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    def _own_task(self) -> TaskContext | None:
        """The task that asks, if it is one of this run."""
        task = running_task()
        is_own = task and (task.flow_name, task.run_id) == (self.place.flow, self.run_id)
        return task if is_own else None

    def step_of(self, entry: TaskEntry) -> str:
        """The step of a task's entry."""
        steps = self.summary().steps
        if entry.step >= len(steps):
            self._refuse_index(f"speaks of a step {entry.step}; the run has {len(steps)}")
        return steps[entry.step][0]

    def started_task(self, task: int, entry: TaskEntry) -> TaskStarted | TaskCloned | None:
        """The event that began a task's last attempt; None when it died before it began."""
        if not entry.started:
            return None
        event = self._event(entry.started, self._called(task, entry))
        if not isinstance(event, TaskStarted | TaskCloned):
            self._refuse_index(f"takes a {type(event).__name__} for the start of task {task}")
        return self._checked(event, task, entry)

    def ended_task(self, task: int, entry: TaskEntry) -> EndOfTask | None:
        """The event that ended a task's last attempt; None while there is none."""
        if not entry.ended:
            return None
        event = self._event(entry.ended, self._called(task, entry))
        if not isinstance(event, EndOfTask) or not _fits(event, entry.state):
            self._refuse_index(f"takes a {type(event).__name__} for another end of task {task}")
        return self._checked(event, task, entry)

    def path_of(self, task: int) -> tuple[int, ...]:
        """A task's foreach indexes, outermost first."""
        entry = self.entry(task)
        event = entry and (self.ended_task(task, entry) or self.started_task(task, entry))
        return event.path if event else ()

    def fanout_of(self, task: int) -> int | None:
        """How many items a task has handed out; None while it has not succeeded."""
        entry = self.entry(task)
        event = entry and self.ended_task(task, entry)
        return event.fanout if isinstance(event, TaskSucceeded | TaskCloned) else None

    def _called(self, task: int, entry: TaskEntry) -> str:
        return f"{self.pathspec}/{self.step_of(entry)}/{task}"

    def _checked(self, event: _AnyTaskEvent, task: int, entry: TaskEntry) -> _AnyTaskEvent:
        """The event, if it is the one that the table's entry speaks of."""
        index = event.path[-1] if event.path else 0
        found = event.step, event.task_id, min(event.attempt, _MAX_ATTEMPT), index
        if found != (self.step_of(entry), str(task), entry.attempt, entry.index):
            self._refuse_index(f"takes {event.step}/{event.task_id} for task {task}")
        return event

    # --- the journal ---

    @property
    def journal_path(self) -> Path:
        """The file."""
        return self._dir / "journal"

    def check_whole(self, end: int) -> None:
        """Refuse a journal that ends here, if it was longer when the run ended."""
        summary = self._written_summary()
        if summary is not None and end < summary.journal_bytes:
            self._refuse(
                f"it ends at byte {end} and had {summary.journal_bytes} when the run ended"
            )

    def attempts(self, task: int, until: int) -> Iterator[TaskStarted | EndOfTask]:
        """What began and ended the attempts of a task, up to the record at `until`."""
        for at, payload in self._records(_FIRST):
            if at > until:
                return
            if self._code(at, payload) in OF_ATTEMPTS:
                values = self._values(at, payload)
                if task_of(values) == task:
                    for event in events_of(values, self.place.flow, self.run_id):
                        if isinstance(event, TaskStarted | EndOfTask):
                            yield event

    def caught(self) -> Counter[str]:
        """Of each step, how many of its tasks failed for good and were caught by its `@catch`.

        The journal is read, if any step could have caught something.
        """
        counts: Counter[str] = Counter()
        if any("catch" in step.options for step in self.graph):
            for at, payload in self._records(_FIRST):
                if self._code(at, payload) == FAILED:
                    counts.update(
                        event.step
                        for event in self._unpacked(at, payload)
                        if isinstance(event, TaskFailed) and event.caught
                    )
        return counts

    def failed_at(self, at: int, of: str) -> TaskFailed:
        """The failure at this offset; `of` is the pathspec of the task whose it is."""
        event = self._event(at, of)
        if not isinstance(event, TaskFailed):
            self._refuse(f"the record at byte {at} is no failure of {of}")
        return event

    def last_output(self, task: int, entry: TaskEntry) -> int:
        """Where the journal has the last output of a task that has no end; 0 for none."""
        with self._lock:
            if self._replay is not None:
                return self._replayed().outputs.get(task, 0)
        last = 0
        for at, payload in self._records(entry.started):
            if self._code(at, payload) == LOGGED and task_of(self._values(at, payload)) == task:
                last = at
        return last

    def output(self, at: int, of: int) -> LoggedOutput:
        """The record of output at this offset; `of` is the task's number, for the error."""
        payload = self._read(at, f"the output of task {of}")
        try:
            return output_of(fields_of(payload))
        except RecordError as error:
            self._refuse_record(at, error)

    def _event(self, at: int, of: str = "") -> Event:
        """The event at this offset; `of` is the pathspec of the task that it tells of."""
        if self._latest is not None and self._latest[0] == at:
            return self._latest[1]
        events = self._unpacked(at, self._read(at, of))
        if not events:
            self._refuse(f"the record at byte {at} was written by a later version of asyncflow")
        self._latest = at, events[0]
        return events[0]

    def _unpacked(self, at: int, payload: bytes) -> list[Event]:
        try:
            return list(unpack_events(payload, self.place.flow, self.run_id))
        except RecordError as error:
            self._refuse_record(at, error)

    def _values(self, at: int, payload: bytes) -> list[Any]:
        try:
            return fields_of(payload)
        except RecordError as error:
            self._refuse_record(at, error)

    def _code(self, at: int, payload: bytes) -> int:
        try:
            return code_of(payload)
        except RecordError as error:
            self._refuse_record(at, error)

    def _read(self, at: int, of: str = "") -> bytes:
        with self._naming_the_run(of):
            return self._journal().read_one(at)

    def _records(self, offset: int) -> Iterator[tuple[int, bytes]]:
        after = offset
        with self._naming_the_run():
            for at, payload, after in self._journal().read_from(offset):  # noqa: B007 - the last
                yield at, payload
        self.check_whole(after)

    def _journal(self) -> JournalReader:
        reader = self._reader() if self._reader else None
        if reader is None:
            try:
                reader = JournalReader(self._dir / "journal")
            except FileNotFoundError:
                message = "the file is gone"
                raise JournalError(message) from None
            self._reader = weakref.ref(reader)
            _warm.append(reader)
        return reader

    # --- summary and table ---

    def _written_summary(self) -> Summary | None:
        """The summary that the engine wrote; None where the journal is read instead."""
        with self._lock:
            if self._summary is None and self._replay is None:
                self._summary = self._read_summary()
            return self._summary

    def _read_summary(self) -> Summary | None:
        try:
            summary = Summary.read(self._dir / "summary")
        except (JournalError, OSError):
            return None  # the journal tells the same
        if summary and other_owner(summary, self._dir):
            self._refuse(f"its summary is that of {summary.flow}/{summary.run_id}")
        return summary

    def _is_table_whole(self, summary: Summary) -> bool:
        """Whether the table has the length that it must have; a crash can cut it."""
        try:
            size = (self._dir / "index").stat().st_size
        except OSError:
            return False
        least = ENTRY_BYTES * sum(n for _, n in summary.steps)
        return size % ENTRY_BYTES == 0 and least <= size <= self._most_table_bytes()

    def _most_table_bytes(self) -> int:
        try:
            return most_table_bytes((self._dir / "journal").stat().st_size)
        except OSError:
            return most_table_bytes(0)

    def _read_table(self, summary: Summary) -> TaskTable:
        table = TaskTable.read(self._dir / "index", most=self._most_table_bytes())
        if crc32(table.dump()) != summary.index_checksum:
            self._refuse_index("is not what was written")
        return table

    def _replayed(self) -> _Replay:
        """What the journal leads to; read on from where it was."""
        if self._replay is None:
            first = self.started
            self._replay = _Replay(first, list(self.graph.nodes))
            self._summary = self._table = None
        replay, own = self._replay, self._own_task()
        self._read_on(replay)
        # A task begins while its start is on the way to the journal; the record that it is asked
        # for is that of its own run, so it comes, unless this is a copy or the engine is gone.
        while own and replay.misses(own) and is_being_written(self.journal_path):
            time.sleep(_PAUSE_SECONDS)
            self._read_on(replay)
        return replay

    def _read_on(self, replay: _Replay) -> None:
        if replay.status is Status.RUNNING:
            for at, payload in self._records(replay.size):
                try:
                    replay.handle(at, payload)
                except RecordError as error:
                    self._refuse_record(at, error)

    # --- damage ---

    @contextmanager
    def _naming_the_run(self, of: str = "") -> Iterator[None]:
        try:
            yield
        except JournalError as error:
            self._refuse(f"{error}; it told of {of} there" if of else str(error))
        except OSError as error:
            self._refuse(f"{self._dir / 'journal'}: {reason_of(error)}")

    def _refuse_index(self, what: str) -> NoReturn:
        self._refuse(
            f"its index {what}; delete {self._dir / 'index'} and the journal is read instead"
        )

    def _refuse_record(self, at: int, error: RecordError) -> NoReturn:
        self._refuse(f"the record at byte {at} is no event of this run: {error}")

    def _refuse(self, what: str) -> NoReturn:
        message = (
            f"the journal of {self.pathspec} cannot be read: {what}. "
            f"What else is affected: asyncflow verify {self.pathspec}"
        )
        raise JournalError(message)


class _Replay:
    """What a journal has led to so far."""

    def __init__(self, first: RunStarted, steps: list[str]) -> None:
        self.table = TaskTable()
        self.status = Status.RUNNING
        self.size = _FIRST
        """How far the journal has been read."""
        self.outputs: dict[int, int] = {}
        """Where each task that runs has its last output."""
        self._first = first
        self._numbers = {step: number for number, step in enumerate(steps)}
        self._counts = [0] * len(steps)
        self._end_task = 0
        self._last: list[Any] = []
        self._last_at = 0

    def handle(self, at: int, payload: bytes) -> None:
        """Take note of one record.

        Raises:
            RecordError: It is none, or none of this run.
        """
        values = fields_of(payload)
        code = values[0]
        if code == LOGGED:
            self.outputs[task_of(values)] = at
        elif code == STARTED:
            self._note(at, head_of(values), at, 0, TaskState.STARTED)
        elif code in ENDING_ATTEMPTS:
            self._end_attempt(at, values, _STATES[code])
        elif code in ENDINGS:
            self.status = ENDINGS[code]
        self._last = values
        self._last_at = at
        self.size = at + PREFIX_BYTES + len(payload)

    def misses(self, task: TaskContext) -> bool:
        """Whether the run goes on and the journal does not tell yet that this attempt began."""
        if self.status is not Status.RUNNING:
            return False
        number = int(task.task_id)
        if number > len(self.table) or self.table[number].state == TaskState.NEVER:
            return True
        return self.table[number].attempt < min(task.attempt, _MAX_ATTEMPT)

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
        """Where the attempt began that ends now; 0 when it died before.

        One whose failure is caught ends twice: it has failed, and the task has succeeded.
        """
        if task > len(self.table):
            return 0
        entry = self.table[task]
        return entry.started if entry.attempt == min(attempt, _MAX_ATTEMPT) else 0

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
        """The same that the engine writes when the run ends."""
        first = self._first
        ended = self.status is not Status.RUNNING
        return Summary(
            status=self.status,
            started=to_microseconds(first.time),
            finished=time_of(self._last) if ended else 0,
            flow=first.flow,
            run_id=first.run_id,
            first=_FIRST,
            last=self._last_at if ended else 0,
            journal_bytes=self.size,
            events=last_seq_of(self._last),
            end_task=self._end_task,
            steps=tuple(zip(self._numbers, self._counts, strict=True)),
            tags=first.tags,
        )
