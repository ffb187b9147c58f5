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

The table has a file of its own, `index`: see `asyncflow.store.task_table`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.events.field_types import INT, LIST, TEXT, check_types, is_plain, is_time
from asyncflow.events.manifests import unpack
from asyncflow.events.record_columns import known_records
from asyncflow.events.records import (
    CLONED,
    ENDINGS,
    FAILED,
    HANDING_ON,
    MAX_TASK,
    OF_ATTEMPTS,
    STARTED,
    head_of,
    is_caught,
    item_text_in,
    seconds_in,
    time_of,
    was_stopped,
)
from asyncflow.store.frames import frame
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.run_times import AttemptState, AttemptTable, inner_index
from asyncflow.store.task_table import (
    ENTRY_BYTES,
    STATES,
    TaskState,
    TaskTable,
    most_table_bytes,
)
from asyncflow.values import Status, last_index_of, tags_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.events.record_columns import PlainRecords, RecordColumns
    from asyncflow.flow.graph import Graph
    from asyncflow.store.interface import StoredRun

SUMMARY: Final = "summary"
_VERSION: Final = 1
_MOST_SUMMARY_BYTES: Final = 16 << 20  # names of steps, and tags
_MAX_STEPS: Final = 1 << 16
_MAX_OFFSET: Final = 1 << 62
_FEW_RECORDS: Final = 6  # so many are noted more quickly one by one


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
    (`note` and `end`), which unpacks nothing. Both add many at once by `note_all`.
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
            self._note(at, values)
        elif code in ENDINGS:
            self.end(at, ENDINGS[code], time_of(values))

    def _note(self, at: int, values: Sequence[Any]) -> None:
        has_failed = values[0] == FAILED
        self.note(
            at,
            values[0],
            head_of(values),
            time_of(values),
            item=item_text_in(values),
            seconds=seconds_in(values),
            stopped=has_failed and was_stopped(values),
            caught=has_failed and is_caught(values),
        )

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

    def note_all(self, places: Sequence[int], records: PlainRecords) -> bool:
        """Add the records at these offsets at once, if that comes to the same as one by one.

        That is so if each begins a new task in its first attempt, or ends an attempt that runs. If
        it is not so, or if one is not of this run, nothing is changed, and the result is False.
        """
        begins, ends = records.begins, records.ends
        if not (self._are_first(places, begins) and self._are_running(begins, ends)):
            return False
        if begins is not None:
            at, numbers = [places[each] for each in begins.at], self._numbers_of(begins)
            indexes = _inner_indexes(begins.paths)
            self.table.begin_all(begins.tasks, at, numbers, _from_zero(indexes))
            moments = self._moments(begins.times)
            self.attempts.begin_all(numbers, begins.tasks, indexes, moments, begins.more)
            for number in set(numbers):
                self._counts[number] += numbers.count(number)
        if ends is not None:
            at, numbers = [places[each] for each in ends.at], self._numbers_of(ends)
            indexes = _from_zero(_inner_indexes(ends.paths))
            self.table.end_all(ends.tasks, at, numbers, ends.attempts, indexes)
            self.attempts.end_all(numbers, ends.tasks, self._moments(ends.times), ends.more)
            if self._end in ends.steps:
                pairs = zip(ends.steps, ends.tasks, strict=True)
                self._end_task = [task for step, task in pairs if step == self._end][-1]
        return True

    def note_ran(
        self,
        places: Sequence[int],
        step: str,
        tasks: Sequence[int],
        indexes: Sequence[int],
        time: int,
        items: Sequence[str],
        seconds: Sequence[float],
    ) -> None:
        """Add the records of new tasks of a foreach whose first attempts began and succeeded.

        Args:
            places: The offsets of the two records of each, in order.
            step: The step of all.
            tasks: Their ids.
            indexes: The innermost foreach index of each.
            time: When all of that was, in microseconds since 1970.
            items: The short text of each task's item.
            seconds: How long each attempt took.
        """
        number = self._numbers[step]
        steps = [number] * len(tasks)
        self.table.begin_all(tasks, places[::2], steps, indexes, places[1::2])
        self.attempts.add_all(number, tasks, indexes, max(time - self._started, 0), items, seconds)
        self._counts[number] += len(tasks)

    def note_recorded(self, places: Sequence[int], recorded: Sequence[Sequence[Any]]) -> None:
        """Add the records at these offsets, each a TaskStarted or a TaskSucceeded of this run."""
        few = len(places) < _FEW_RECORDS
        if few or not self.note_all(places, known_records(recorded)):
            for at, values in zip(places, recorded, strict=True):
                self._note(at, values)

    def _are_first(self, places: Sequence[int], begins: RecordColumns | None) -> bool:
        """Whether each of these records begins the first attempt of another new task."""
        if begins is None:
            return True
        tasks = begins.tasks
        return (
            len(set(tasks)) == len(tasks)
            and max(tasks) * ENTRY_BYTES <= most_table_bytes(places[0])
            and not any(begins.attempts)
            and self._numbers.keys() >= set(begins.steps)
            and self.table.are_new(tasks)
        )

    def _are_running(self, begins: RecordColumns | None, ends: RecordColumns | None) -> bool:
        """Whether each of these records ends an attempt of another task which runs by then."""
        if ends is None:
            return True
        tasks, runs = ends.tasks, self.table.runs
        if len(set(tasks)) < len(tasks) or not self._numbers.keys() >= set(ends.steps):
            return False
        begun = {} if begins is None else dict(zip(begins.tasks, begins.at, strict=True))
        for task, attempt, at in zip(tasks, ends.attempts, ends.at, strict=True):
            since = begun.get(task)
            if not runs(task, attempt) if since is None else (attempt or since > at):
                return False
        return True

    def _numbers_of(self, records: RecordColumns) -> list[int]:
        return [self._numbers[step] for step in records.steps]

    def _moments(self, times: Sequence[int]) -> list[int]:
        """These times in microseconds since the run's start."""
        started = self._started
        return [time - started if time > started else 0 for time in times]

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


def _inner_indexes(paths: Sequence[Sequence[int]]) -> list[int]:
    """`inner_index` of each of these paths."""
    indexes = [path[-1] if path else -1 for path in paths]
    return indexes if min(indexes) >= 0 else [inner_index(path) for path in paths]


def _from_zero(indexes: list[int]) -> list[int]:
    """The same indexes, but 0 outside of any foreach."""
    return indexes if min(indexes) >= 0 else [max(index, 0) for index in indexes]


def other_owner(summary: Summary, run: StoredRun) -> str:
    """The run that a summary belongs to, if it is stored with another; else empty.

    They are compared as bytes: a process with ASCII file names decodes names differently.
    """
    owner = f"{summary.flow}/{summary.run_id}"
    return "" if os.fsencode(run.pathspec) == owner.encode() else owner


def write_summary(run: StoredRun, summary: Summary, index: bytes) -> None:
    """Write the summary of a run whose table was stored before, with these bytes.

    A crash in between leaves no summary.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    run.put_file(SUMMARY, summary._replace(index_checksum=crc32(index)).dump())
