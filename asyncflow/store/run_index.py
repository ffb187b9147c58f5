"""Opens a finished run without a replay: a small summary, and a table of its tasks.

Both follow from the run's records, and only `RunIndex` knows how: the engine keeps one while it
writes the journal, and a reader makes one from a journal without a summary.

`summary` is msgpack, written once, after the run's last event is in the journal:

    [version, status, started, finished, flow, run_id, first, last, journal_bytes, events,
     end_task, [[step, tasks], ...], tags, index_checksum]

`started` and `finished` are microseconds since 1970; `first` and `last` the journal offsets of the
run's first and last event; `end_task` the id of the task of the last step that succeeded, else 0;
`index_checksum` the crc32 of the whole file `index`. It is framed like a journal record, length and
checksum first. If it is missing because of a crash, a reader replays the journal instead.

`index` is a table with 24 bytes for each task, in the order of their ids, from 1 on:

    u64 journal offset of its last TaskStarted, or of its TaskCloned
    u64 journal offset of the event that ended it (TaskSucceeded, TaskFailed, TaskCloned), else 0
    u16 which step, as an index into the summary's steps
    u8  its state, see `TaskState`
    u8  the number of its last attempt, 255 for any above
    u32 its innermost foreach index; 0 outside of any foreach

An entry needs no checksum: the record that it points to has one, and names its task. A reader of
the whole table compares the summary's checksum.
"""

from __future__ import annotations

import os
import struct
import sys
from array import array
from enum import IntEnum
from itertools import compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.events.field_types import INT, LIST, TEXT, check_types, is_plain, is_time
from asyncflow.events.manifests import unpack
from asyncflow.events.records import (
    CLONED,
    ENDINGS,
    FAILED,
    HANDING_ON,
    MAX_TASK,
    OF_ATTEMPTS,
    STARTED,
    SUCCEEDED,
    begin_of,
    end_of,
    head_of,
    is_caught,
    item_text_in,
    seconds_in,
    time_of,
    was_stopped,
)
from asyncflow.store.byte_masks import NONZERO, is_byte, number_of
from asyncflow.store.journal import FIRST_RECORD, frame
from asyncflow.store.run_times import AttemptState, AttemptTable, Note, inner_index
from asyncflow.values import Status, last_index_of, tags_from

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.store.interface import StoredRun

SUMMARY: Final = "summary"
INDEX: Final = "index"
_VERSION: Final = 1
_ENTRY: Final = struct.Struct("<QQHBBI")
ENTRY_BYTES: Final = _ENTRY.size
_ENDED_AT: Final = 8  # the offset of each field within an entry
_STEP_AT: Final = 16
_STATE_AT: Final = 18
_ATTEMPT_AT: Final = 19
_INDEX_AT: Final = 20
MAX_ATTEMPT: Final = 255
"""The table stores an attempt's number in a byte; a higher number is stored as this one."""
_MOST_UNTOLD: Final = 1 << 20  # tasks that have an id but no record: they were about to begin
_MOST_SUMMARY_BYTES: Final = 16 << 20  # names of steps, and tags
_MAX_STEPS: Final = 1 << 16
_MAX_OFFSET: Final = 1 << 62


def most_table_bytes(journal_bytes: int) -> int:
    """The largest size of a table beside a journal of this size, in bytes.

    Each record about a task is longer than the task's entry. So the length of the journal limits
    how much memory a reader needs, whatever task ids a damaged file holds.
    """
    return journal_bytes + _MOST_UNTOLD * ENTRY_BYTES


class TaskState(IntEnum):
    """The state of a task: now, or when the run ended."""

    NEVER = 0
    STARTED = 1
    SUCCEEDED = 2
    FAILED = 3
    CLONED = 4
    STOPPED = 5


_task_of: Final = itemgetter(3)  # of a note
_NEVER, _STARTED, _SUCCEEDED = map(int, (TaskState.NEVER, TaskState.STARTED, TaskState.SUCCEEDED))
STATES: Final = {
    STARTED: TaskState.STARTED,
    SUCCEEDED: TaskState.SUCCEEDED,
    FAILED: TaskState.FAILED,
    CLONED: TaskState.CLONED,
}
"""The state of a task by the kind of its last record; after FAILED it may be STOPPED as well."""


class TaskEntry(NamedTuple):
    """The offsets of a task's records in the journal, and its state."""

    started: int
    ended: int
    step: int
    state: int
    attempt: int
    index: int  # type: ignore[assignment]  # the field's own word; nobody searches an entry


class TaskTable:
    """The table of a run's tasks, by task id from 1 on; grows as tasks appear.

    24 bytes for a task: the engine of a run of 100,000 tasks holds it in 2.4 MB.
    """

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self._data = bytearray(data)

    def __len__(self) -> int:
        return len(self._data) // ENTRY_BYTES

    def __getitem__(self, task: int) -> TaskEntry:
        return TaskEntry._make(_ENTRY.unpack_from(self._data, self._at(task)))

    def __setitem__(self, task: int, entry: TaskEntry) -> None:
        self._grow(task)
        started, ended, step, state, attempt, index = entry
        attempt = min(attempt, MAX_ATTEMPT)
        _ENTRY.pack_into(self._data, self._at(task), started, ended, step, state, attempt, index)

    def begin(self, task: int, at: int, step: int, state: int, attempt: int, index: int) -> bool:
        """Set a task's entry by the record at `at`, which began an attempt; return if it is new."""
        where = (task - 1) * ENTRY_BYTES
        if not 0 <= where < len(self._data):
            self._grow(task)
        is_new = self._data[where + _STATE_AT] == _NEVER
        ended = at if state != _STARTED else 0
        attempt = min(attempt, MAX_ATTEMPT)
        _ENTRY.pack_into(self._data, where, at, ended, step, state, attempt, index)
        return is_new

    def end(self, task: int, at: int, step: int, state: int, attempt: int, index: int) -> bool:
        """Set a task's entry by the record at `at`, which ended an attempt; whether it had none.

        An attempt that died before it began has no start: then the start in the entry is that of
        an earlier attempt, and goes. An attempt whose failure is caught has two ends.
        """
        where = (task - 1) * ENTRY_BYTES
        if not 0 <= where < len(self._data):
            self._grow(task)
        started, _, _, before, last, _ = _ENTRY.unpack_from(self._data, where)
        attempt = min(attempt, MAX_ATTEMPT)
        if last != attempt:
            started = 0
        _ENTRY.pack_into(self._data, where, started, at, step, state, attempt, index)
        return bool(before == _NEVER)

    def note_all(self, notes: Sequence[Note]) -> list[int]:
        """Do what `begin` and `end` do, for many records; return the steps of the new tasks."""
        # An engine does this for all tasks that do well. So the usual case is without any call.
        pack_into, unpack_from = _ENTRY.pack_into, _ENTRY.unpack_from
        data, new = self._data, list[int]()
        self._grow(max(map(_task_of, notes)))
        for begins, at, step, task, attempt, index, _ in notes:
            where = (task - 1) * ENTRY_BYTES
            if where < 0 or attempt > MAX_ATTEMPT or index < 0:
                put, state = (self.begin, _STARTED) if begins else (self.end, _SUCCEEDED)
                if put(task, at, step, state, attempt, max(index, 0)):
                    new.append(step)
                continue
            started, _, _, before, last, _ = unpack_from(data, where)
            if before == _NEVER:
                new.append(step)
            if begins:
                pack_into(data, where, at, 0, step, _STARTED, attempt, index)
            else:
                begun = started if last == attempt else 0
                pack_into(data, where, begun, at, step, _SUCCEEDED, attempt, index)
        return new

    def _grow(self, task: int) -> None:
        if not 1 <= task <= MAX_TASK:
            message = f"{task} is not a task id"
            raise IndexError(message)
        missing = task * ENTRY_BYTES - len(self._data)
        if missing > 0:
            self._data.extend(bytes(missing))

    def _at(self, task: int) -> int:
        at = (task - 1) * ENTRY_BYTES
        if not 0 <= at < len(self._data) - ENTRY_BYTES + 1:
            message = f"no task {task} in a run of {len(self)}"
            raise IndexError(message)
        return at

    def has(self, task: int) -> bool:
        at = (task - 1) * ENTRY_BYTES + _STATE_AT
        return at < len(self._data) and self._data[at] != TaskState.NEVER

    def standing(self, task: int) -> tuple[int, int]:
        """The task's state and the number of its last attempt; zeros if it never began."""
        at = (task - 1) * ENTRY_BYTES + _STATE_AT
        if not 0 <= at < len(self._data):
            return _NEVER, 0
        return self._data[at], self._data[at + 1]

    def ended_at(self, task: int) -> int:
        """The journal offset of the event that ended the task."""
        at = self._at(task) + _ENDED_AT
        return int.from_bytes(self._data[at : at + 8], "little")

    def index_of(self, task: int) -> int:
        """The task's innermost foreach index; 0 outside of any foreach."""
        at = self._at(task) + _INDEX_AT
        return int.from_bytes(self._data[at : at + 4], "little")

    # A column of the table is a slice with a stride, and a selection of tasks a mask with one byte
    # for each task. So a table of 100,000 tasks is searched in a few milliseconds.

    def tasks_of(self, step: int) -> array[int]:
        """The ids of a step's tasks that have begun, ascending."""
        return array("I", compress(range(1, len(self) + 1), self._mask(step)))

    def first_of(self, step: int) -> int:
        """The lowest id of a step's tasks that have begun; 0 if there are none."""
        return self._mask(step).find(1) + 1

    def last_of(self, step: int) -> int:
        """The highest id of a step's tasks that have begun; 0 if there are none."""
        return self._mask(step).rfind(1) + 1

    def last_ended(self, step: int) -> int:
        """The id of the task of a step that ended last; 0 if none has ended."""
        ends = array("Q", bytes(self._data))
        if sys.byteorder == "big":
            ends.byteswap()
        offsets = ends[_ENDED_AT // 8 :: ENTRY_BYTES // 8]
        last = max(compress(offsets, self._mask(step)), default=0)
        return offsets.index(last) + 1 if last else 0

    def states_of(self, step: int) -> dict[TaskState, int]:
        """How many tasks of a step are in each state; `NEVER` is left out."""
        mask = self._mask(step)
        states = bytes(compress(self._column(_STATE_AT), mask))
        return {state: n for state in TaskState if (n := states.count(state))}

    def states(self) -> dict[TaskState, int]:
        """How many tasks of the run are in each state; `NEVER` is left out."""
        states = self._column(_STATE_AT)
        return {state: n for state in TaskState if state and (n := states.count(state))}

    def tasks_in(self, step: int | None, states: Iterable[TaskState]) -> array[int]:
        """The ids of the tasks of a step, or of all, that are in these states, ascending."""
        wanted = bytearray(256)
        for state in states:
            wanted[state] = 1
        chosen = self._column(_STATE_AT).translate(bytes(wanted))
        if step is not None:
            both = number_of(chosen) & number_of(self._mask(step))
            chosen = bytearray(both.to_bytes(len(self), "little"))
        return array("I", compress(range(1, len(self) + 1), chosen))

    def with_index(self, index: int) -> Iterator[int]:
        """The ids of the tasks that have begun and have this innermost foreach index."""
        numbers = array("I", bytes(self._data))
        if sys.byteorder == "big":
            numbers.byteswap()
        indexes = numbers[_INDEX_AT // 4 :: ENTRY_BYTES // 4]
        return (task for task, each in enumerate(indexes, 1) if each == index and self.has(task))

    def retries_of(self, step: int) -> int:
        """How many attempts of a step's tasks were followed by another one."""
        return sum(compress(self._column(_ATTEMPT_AT), self._mask(step)))

    def _mask(self, step: int) -> bytes:
        # A task that never began has an entry of zeros, which would pass for one of the first step.
        begun = self._column(_STATE_AT).translate(NONZERO)
        low = self._column(_STEP_AT).translate(is_byte(step & 0xFF))
        high = self._column(_STEP_AT + 1).translate(is_byte(step >> 8))
        chosen = number_of(begun) & number_of(low) & number_of(high)
        return chosen.to_bytes(len(self), "little")

    def _column(self, at: int) -> bytearray:
        return self._data[at : len(self) * ENTRY_BYTES : ENTRY_BYTES]

    def dump(self) -> bytes:
        """The table as the bytes of its file."""
        return bytes(self._data)

    @classmethod
    def read(cls, run: StoredRun, *, most: int) -> Self:
        """Read the table of a run; empty if there is none. At most `most` bytes are read."""
        try:
            return cls(run.read_file(INDEX, most=most))
        except FileNotFoundError:
            return cls()


def read_entry(run: StoredRun, task: int) -> TaskEntry | None:
    """One task's entry, without reading the others; None if the table has none."""
    if not 1 <= task <= MAX_TASK:
        return None
    try:
        data = run.read_file(INDEX, most=ENTRY_BYTES, offset=(task - 1) * ENTRY_BYTES)
    except FileNotFoundError:
        return None
    return TaskEntry._make(_ENTRY.unpack(data)) if len(data) == ENTRY_BYTES else None


class Summary(NamedTuple):
    """A finished run in a few hundred bytes."""

    status: Status
    started: int
    finished: int
    flow: str
    run_id: str
    first: int
    last: int
    journal_bytes: int
    events: int
    end_task: int
    steps: Sequence[tuple[str, int]]
    tags: Sequence[str]
    index_checksum: int = 0
    """Set by `write_summary`."""

    def dump(self) -> bytes:
        """The summary as the bytes of its file."""
        values = [
            _VERSION,
            self.status.value,
            self.started,
            self.finished,
            self.flow,
            self.run_id,
            self.first,
            self.last,
            self.journal_bytes,
            self.events,
            self.end_task,
            [list(step) for step in self.steps],
            list(self.tags),
            self.index_checksum,
        ]
        return frame(msgpack.packb(values))

    @classmethod
    def read(cls, run: StoredRun) -> Self | None:
        """Read the summary of a run; None if there is none, or if another version wrote it.

        Raises:
            JournalError: It is damaged.
        """
        try:
            data = run.read_file(SUMMARY, most=_MOST_SUMMARY_BYTES)
        except FileNotFoundError:
            return None
        try:
            if frame(data[8:])[:8] != data[:8]:
                raise RecordError("its bytes are not those that were written")  # noqa: TRY301 - explained below
            return cls._of(unpack(data[8:]))
        except RecordError as error:
            message = (
                f"{run.place}/{SUMMARY} is damaged: {error}; delete it, and the journal is read "
                "instead"
            )
            raise RecordError(message) from error

    @classmethod
    def _of(cls, values: object) -> Self | None:
        """The summary with these fields; None if another version wrote it.

        Raises:
            RecordError: No summary has such fields.
        """
        if type(values) is not list or not values:
            raise RecordError("it is not an array")
        if values[0] != _VERSION:
            return None
        if (shape := tuple(map(type, values))) not in _seen:
            check_types("a summary", shape, _KINDS)
            _seen.add(shape)
        names = cls._fields
        named = dict(zip(names, values[1:], strict=False))
        if named["status"] not in _STATUSES:
            raise RecordError(f"no run ends as {named['status']!r}")
        if not (is_time(named["started"]) and is_time(named["finished"])):
            raise RecordError("its times are out of range")
        if not all(0 <= named[name] < _MAX_OFFSET for name in _COUNTS):
            raise RecordError("one of its numbers is too large, or negative")
        if not all(map(_is_step, named["steps"])) or len(named["steps"]) > _MAX_STEPS:
            raise RecordError("its steps are not pairs of a name and a number")
        if named["tags"] and not all(is_plain(tag, 0) for tag in named["tags"]):
            raise RecordError("its tags are not text")
        named["status"] = Status(named["status"])
        named["steps"] = tuple((name, count) for name, count in named["steps"])
        named["tags"] = tags_from(named["tags"])
        return cls(**named)


_KINDS: Final = (INT, TEXT, INT, INT, TEXT, TEXT, INT, INT, INT, INT, INT, LIST, LIST, INT)
"""The types that each field of a summary may have."""
_seen: Final[set[tuple[type, ...]]] = set()  # combinations of types that passed the check
_STATUSES: Final = {str(status) for status in Status if status.finished}
_COUNTS: Final = ("first", "last", "journal_bytes", "events", "end_task", "index_checksum")


def _is_step(step: object) -> bool:
    return type(step) is list and tuple(map(type, step)) == (str, int) and 0 <= step[1] <= MAX_TASK


class RunIndex:
    """The summary and the tables of a run, as they follow from its records so far.

    A reader adds a record by its fields (`apply`). The writer adds it by what it knows already
    (`note` and `end`), which unpacks nothing.
    """

    def __init__(
        self, graph: Graph, *, flow: str, run_id: str, started: int, tags: Sequence[str]
    ) -> None:
        """Begin with a run's first record.

        `started` is when that was, in microseconds since 1970.
        """
        self.flow, self.run_id = flow, run_id
        self.table = TaskTable()
        self.attempts = AttemptTable()
        self.status = Status.RUNNING
        self._started, self._tags = started, tags
        self._numbers = {step: number for number, step in enumerate(graph.nodes)}
        self._counts = [0] * len(self._numbers)
        self._end = graph.end
        self._end_task = 0
        self._last = self._finished = 0

    def apply(self, at: int, values: Sequence[Any]) -> None:
        """Add the record at offset `at` with these fields, which another process wrote.

        Raises:
            RecordError: It is not a record of this run.
        """
        code = values[0]
        if code in OF_ATTEMPTS:
            head = head_of(values)
            if head.step not in self._numbers:
                raise RecordError(f"it names the step {head.step!r}, which the run does not have")
            if head.task * ENTRY_BYTES > most_table_bytes(at):
                raise RecordError(f"there cannot have been {head.task} tasks before it")
            has_failed = code == FAILED
            self.note(
                at,
                code,
                head,
                time_of(values),
                item=item_text_in(values),
                seconds=seconds_in(values),
                stopped=has_failed and was_stopped(values),
                caught=has_failed and is_caught(values),
            )
        elif code in ENDINGS:
            self.end(at, ENDINGS[code], time_of(values))

    def note(
        self,
        at: int,
        code: int,
        head: tuple[str, int, int, Sequence[int]],
        time: int,
        *,
        item: str = "",
        seconds: float = 0.0,
        stopped: bool = False,
        caught: bool = False,
    ) -> None:
        """Add the record at offset `at`, which has one of the kinds in `OF_ATTEMPTS`.

        Args:
            at: Its offset in the journal.
            code: Its kind.
            head: Step, task, attempt and path, as a `TaskHead`.
            time: When that was, in microseconds since 1970.
            item: The short text of the task's item, where the record has it.
            seconds: How long the attempt took, if that is known.
            stopped: Whether the attempt failed because the run was ending.
            caught: Whether `@catch` lets the run go on after the failure.
        """
        step, task, attempt, path = head
        number = self._numbers[step]
        put = self.table.begin if code in _BEGINNING else self.table.end
        state = _STOPPED if stopped else _STATES[code]
        index = path[-1] if path else 0
        if index < 0:
            index = last_index_of(path)
        if put(task, at, number, state, attempt, index):
            self._counts[number] += 1
        of_attempt = number, task, attempt, inner_index(path)
        moment = max(time - self._started, 0)
        if code == STARTED:
            self.attempts.begin(*of_attempt, moment, item)
        else:
            ended = _CAUGHT if caught else _ENDED_AS[state]
            self.attempts.end(of_attempt, moment, ended, item, seconds)
        if step == self._end and code in HANDING_ON:
            self._end_task = task

    def note_all(self, places: Sequence[int], recorded: Sequence[Sequence[Any]], time: int) -> None:
        """Add the records at these offsets: each a TaskStarted or a TaskSucceeded of this time."""
        notes, numbers, end = list[Note](), self._numbers, self._end
        for at, values in zip(places, recorded, strict=True):
            begins = values[0] == STARTED
            step, task, attempt, path, more = begin_of(values) if begins else end_of(values)
            index = path[-1] if path else -1
            if index < 0:
                index = inner_index(path)
            notes.append((begins, at, numbers[step], task, attempt, index, more))
            if step == end and not begins:
                self._end_task = task
        for number in self.table.note_all(notes):
            self._counts[number] += 1
        self.attempts.note_all(notes, max(time - self._started, 0))

    def end(self, at: int, status: Status, time: int) -> None:
        """Add the run's last record, at offset `at`; `time` is in microseconds since 1970."""
        self.status = status
        self._last, self._finished = at, time

    def summary(self, *, journal_bytes: int, events: int) -> Summary:
        """The summary of a run whose journal has so many bytes and events so far."""
        return Summary(
            status=self.status,
            started=self._started,
            finished=self._finished,
            flow=self.flow,
            run_id=self.run_id,
            first=FIRST_RECORD,
            last=self._last,
            journal_bytes=journal_bytes,
            events=events,
            end_task=self._end_task,
            steps=tuple(zip(self._numbers, self._counts, strict=True)),
            tags=self._tags,
        )


_STATES: Final = {code: int(state) for code, state in STATES.items()}
_STOPPED: Final = int(TaskState.STOPPED)
_CAUGHT: Final = int(AttemptState.CAUGHT)
_ENDED_AS: Final = {int(state): int(AttemptState[state.name]) for state in TaskState if state > 1}
"""How an attempt stands after the record that has brought its task into this state."""
_BEGINNING: Final = frozenset({STARTED, CLONED})
"""The kinds of records with which an attempt begins."""


def other_owner(summary: Summary, run: StoredRun) -> str:
    """The run that a summary belongs to, if it is stored with another; else empty.

    They are compared as bytes: a process with ASCII file names decodes names differently.
    """
    owner = f"{summary.flow}/{summary.run_id}"
    return "" if os.fsencode(run.pathspec) == owner.encode() else owner


def write_summary(run: StoredRun, summary: Summary, table: TaskTable) -> None:
    """Write the table, then the summary. A crash in between leaves no summary.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    index = table.dump()
    summary = summary._replace(index_checksum=crc32(index))
    run.put_file(INDEX, index)
    run.put_file(SUMMARY, summary.dump())
