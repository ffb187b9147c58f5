"""Opens a finished run without a replay: a small summary, and a table of its tasks.

`summary` is msgpack, written once, after the run's last event is in the journal:

    [version, status, started, finished, flow, run_id, first, last, journal_bytes, events,
     end_task, [[step, tasks], ...], tags, index_checksum]

`started` and `finished` are microseconds since 1970; `first` and `last` the journal offsets of the
run's first and last event; `end_task` the id of the task of the step `end` that succeeded, else 0;
`index_checksum` the crc32 of the whole file `index`. It is framed like a journal record, length and
checksum first. Without it (a crash came first) a reader replays the journal instead.

`index` is a table with 24 bytes for each task, in the order of their ids, from 1 on:

    u64 journal offset of its last TaskStarted, or of its TaskCloned
    u64 journal offset of the event that ended it (TaskSucceeded, TaskFailed, TaskCloned), else 0
    u16 which step, as an index into the summary's steps
    u8  its state, see `TaskState`
    u8  the number of its last attempt, 255 for any above
    u32 its first foreach index from the inside, 0 where there is none

An entry needs no checksum: the record that it points to has one, and names its task. Whoever reads
the whole table compares the summary's.
"""

from __future__ import annotations

import os
import struct
from array import array
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import compress
from typing import TYPE_CHECKING, Final, NamedTuple, Self
from zlib import crc32

import msgpack

from asyncflow._support.commit_points import reached
from asyncflow.errors import RecordError
from asyncflow.events.manifests import unpack
from asyncflow.events.records import INT, LIST, MAX_TASK, TEXT, check_types, is_plain, is_time
from asyncflow.store.files import open_regular, read_file, write_file
from asyncflow.store.journal import frame
from asyncflow.store.run_ids import REMOVED
from asyncflow.values import Status, tags_from

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_VERSION: Final = 1
_ENTRY: Final = struct.Struct("<QQHBBI")
ENTRY_BYTES: Final = _ENTRY.size
_ENDED_AT: Final = 8  # the offset of each field within an entry
_STEP_AT: Final = 16
_STATE_AT: Final = 18
_INDEX_AT: Final = 20
_MAX_ATTEMPT: Final = 255
_MOST_UNTOLD: Final = 1 << 20  # tasks that have an id and no record: they were about to begin
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
        if not 1 <= task <= MAX_TASK:
            message = f"{task} is not a task id"
            raise IndexError(message)
        missing = task * ENTRY_BYTES - len(self._data)
        if missing > 0:
            self._data.extend(bytes(missing))
        started, ended, step, state, attempt, index = entry
        attempt = min(attempt, _MAX_ATTEMPT)
        _ENTRY.pack_into(self._data, self._at(task), started, ended, step, state, attempt, index)

    def _at(self, task: int) -> int:
        at = (task - 1) * ENTRY_BYTES
        if not 0 <= at < len(self._data) - ENTRY_BYTES + 1:
            message = f"no task {task} in a run of {len(self)}"
            raise IndexError(message)
        return at

    def ended_at(self, task: int) -> int:
        """The journal offset of the event that ended the task."""
        at = self._at(task) + _ENDED_AT
        return int.from_bytes(self._data[at : at + 8], "little")

    def index_of(self, task: int) -> int:
        """The task's innermost foreach index, 0 where there is none."""
        at = self._at(task) + _INDEX_AT
        return int.from_bytes(self._data[at : at + 4], "little")

    # A column of the table is a slice with a stride, and a choice of tasks a mask with one byte for
    # each task. So a table of 100,000 tasks is searched in a few milliseconds.

    def tasks_of(self, step: int) -> array[int]:
        """The ids of a step's tasks that have begun, ascending."""
        return array("I", compress(range(1, len(self) + 1), self._mask(step)))

    def first_of(self, step: int) -> int:
        """The lowest id of a step's tasks that have begun; 0 when there are none."""
        return self._mask(step).find(1) + 1

    def states_of(self, step: int) -> dict[TaskState, int]:
        """How many tasks of a step are in each state; `NEVER` is left out."""
        mask = self._mask(step)
        states = bytes(compress(self._column(_STATE_AT), mask))
        return {state: n for state in TaskState if (n := states.count(state))}

    def _mask(self, step: int) -> bytes:
        # A task that never began has an entry of zeros, which would pass for one of the first step.
        begun = self._column(_STATE_AT).translate(_NONZERO)
        low = self._column(_STEP_AT).translate(_is_byte(step & 0xFF))
        high = self._column(_STEP_AT + 1).translate(_is_byte(step >> 8))
        chosen = _number(begun) & _number(low) & _number(high)
        return chosen.to_bytes(len(self), "little")

    def _column(self, at: int) -> bytearray:
        return self._data[at : len(self) * ENTRY_BYTES : ENTRY_BYTES]

    def counts(self, steps: int) -> list[int]:
        """How many tasks each of so many steps has."""
        return [self._mask(step).count(1) for step in range(steps)]

    def dump(self) -> bytes:
        """The table as the bytes of its file."""
        return bytes(self._data)

    @classmethod
    def read(cls, path: Path, *, most: int) -> Self:
        """Read a table; empty if there is none. At most `most` bytes are read."""
        try:
            return cls(read_file(path, most=most))
        except FileNotFoundError:
            return cls()


_NONZERO: Final = b"\0" + b"\1" * 255


def _is_byte(wanted: int) -> bytes:
    """The translation table that turns one byte into 1, and all others into 0."""
    return bytes(wanted) + b"\1" + bytes(255 - wanted)


def _number(mask: bytes | bytearray) -> int:
    return int.from_bytes(
        mask, "little"
    )  # masks are joined with & as whole numbers, in linear time


def read_entry(path: Path, task: int) -> TaskEntry | None:
    """One task's entry, without reading the others; None if the table has none."""
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return None
    known = 1 <= task <= MAX_TASK
    try:
        data = os.pread(descriptor, ENTRY_BYTES, (task - 1) * ENTRY_BYTES) if known else b""
    finally:
        os.close(descriptor)
    return TaskEntry._make(_ENTRY.unpack(data)) if len(data) == ENTRY_BYTES else None


@dataclass(frozen=True, slots=True)
class Summary:
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
    def read(cls, path: Path) -> Self | None:
        """Read a summary; None when there is none, or one of another version.

        Raises:
            JournalError: It is damaged.
        """
        try:
            data = read_file(path, most=_MOST_SUMMARY_BYTES)
        except FileNotFoundError:
            return None
        try:
            if frame(data[8:])[:8] != data[:8]:
                raise RecordError("its bytes are not those that were written")  # noqa: TRY301 - explained below
            return cls._of(unpack(data[8:]))
        except RecordError as error:
            message = f"{path} is damaged: {error}; delete it, and the journal is read instead"
            raise RecordError(message) from error

    @classmethod
    def _of(cls, values: object) -> Self | None:
        """The summary with these fields; None for one of another version.

        Raises:
            RecordError: No summary has such fields.
        """
        if type(values) is not list or not values:
            raise RecordError("it is no array")
        if values[0] != _VERSION:
            return None
        check_types("a summary", tuple(map(type, values)), _KINDS)
        names = (field.name for field in fields(cls))
        named = dict(zip(names, values[1:], strict=False))
        if named["status"] not in _STATUSES:
            raise RecordError(f"no run ends as {named['status']!r}")
        if not (is_time(named["started"]) and is_time(named["finished"])):
            raise RecordError("its times are none")
        if not all(0 <= named[name] < _MAX_OFFSET for name in _COUNTS):
            raise RecordError("one of its numbers cannot be so large, or negative")
        if not all(map(_is_step, named["steps"])) or len(named["steps"]) > _MAX_STEPS:
            raise RecordError("its steps are not pairs of a name and a number")
        if not all(is_plain(tag, 0) for tag in named["tags"]):
            raise RecordError("its tags are no text")
        named["status"] = Status(named["status"])
        named["steps"] = tuple((name, count) for name, count in named["steps"])
        named["tags"] = tags_from(named["tags"])
        return cls(**named)


_KINDS: Final = (INT, TEXT, INT, INT, TEXT, TEXT, INT, INT, INT, INT, INT, LIST, LIST, INT)
"""The types that each field of a summary may have."""
_STATUSES: Final = {str(status) for status in Status if status.finished}
_COUNTS: Final = ("first", "last", "journal_bytes", "events", "end_task", "index_checksum")


def _is_step(step: object) -> bool:
    return type(step) is list and tuple(map(type, step)) == (str, int) and 0 <= step[1] <= MAX_TASK


def other_owner(summary: Summary, folder: Path) -> str:
    """The run that a summary belongs to, if that is another than its folder says; else empty.

    They are compared as bytes: a process whose file names are ASCII decodes others differently.
    """
    flow = folder.parent.parent if folder.parent.name == REMOVED else folder.parent
    owner = f"{summary.flow}/{summary.run_id}"
    return "" if os.fsencode(f"{flow.name}/{folder.name}") == owner.encode() else owner


def write_summary(run_dir: Path, summary: Summary, table: TaskTable) -> None:
    """Write the table, then the summary. A crash in between leaves no summary.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    index = table.dump()
    summary = replace(summary, index_checksum=crc32(index))
    for name, data in (("index", index), ("summary", summary.dump())):
        temporary = run_dir / f".{name}"
        write_file(temporary, data)
        reached("summary.rename")  # of the table, then of the summary itself
        temporary.replace(run_dir / name)
    reached("summary.renamed")
