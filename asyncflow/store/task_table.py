"""The table of a run's tasks: where the records of each lie in the journal, and how it stands.

The file `index` is this table, with 24 bytes for each task, in the order of their ids, from 1 on:

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

import struct
import sys
from array import array
from collections import deque
from enum import IntEnum
from itertools import compress, repeat
from typing import TYPE_CHECKING, Final, Self

from asyncflow._quick_classes import NamedTuple
from asyncflow.events.records import CLONED, FAILED, MAX_TASK, STARTED, SUCCEEDED
from asyncflow.store.byte_masks import NONZERO, is_byte, number_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.store.interface import StoredRun

INDEX: Final = "index"
_ENTRY: Final = struct.Struct("<QQHBBI")
_END_OF_ENTRY: Final = struct.Struct("<QHBBI")  # without where it began
ENTRY_BYTES: Final = _ENTRY.size
_DENSE: Final = 16  # so many entries are copied sooner than one is asked for by itself
_ENDED_AT: Final = 8  # the offset of each field within an entry
_STEP_AT: Final = 16
_STATE_AT: Final = 18
_ATTEMPT_AT: Final = 19
_INDEX_AT: Final = 20
MAX_ATTEMPT: Final = 255
"""The table stores an attempt's number in a byte; a higher number is stored as this one."""
_MOST_UNTOLD: Final = 1 << 20  # tasks that have an id but no record: they were about to begin


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

    def are_new(self, tasks: Sequence[int]) -> bool:
        """Whether none of these tasks has a record yet."""
        data, end = self._data, len(self._data)
        places = [(task - 1) * ENTRY_BYTES + _STATE_AT for task in tasks]
        return not any(data[at] for at in places if at < end)

    def runs(self, task: int, attempt: int) -> bool:
        """Whether this is an attempt that has begun and not ended, and the last one of its task."""
        at = (task - 1) * ENTRY_BYTES + _STATE_AT
        data = self._data
        return at < len(data) and data[at] == _STARTED and data[at + 1] == attempt

    def begin_all(
        self,
        tasks: Sequence[int],
        places: Sequence[int],
        steps: Sequence[int],
        indexes: Sequence[int],
        ended: Sequence[int] | None = None,
    ) -> None:
        """Do what `begin` does for the first attempts of tasks that are new, each another one.

        With `ended`, the records that end these attempts well, do what `end` does as well.
        """
        self._grow(max(tasks))
        data, first = self._data, tasks[0]
        ends: Iterable[int] = repeat(0) if ended is None else ended
        states = repeat(_STARTED if ended is None else _SUCCEEDED)
        entries = map(_ENTRY.pack, places, ends, steps, states, repeat(0), indexes)
        if [*tasks] == [*range(first, first + len(tasks))]:  # as they come from a foreach
            begin = (first - 1) * ENTRY_BYTES
            data[begin : begin + len(tasks) * ENTRY_BYTES] = b"".join(entries)
            return
        for task, entry in zip(tasks, entries, strict=True):
            data[(task - 1) * ENTRY_BYTES : task * ENTRY_BYTES] = entry

    def end_all(
        self,
        tasks: Sequence[int],
        places: Sequence[int],
        steps: Sequence[int],
        attempts: Sequence[int],
        indexes: Sequence[int],
    ) -> None:
        """Do what `end` does for attempts that have succeeded, for each of which `runs` holds."""
        ends = [task * ENTRY_BYTES - ENTRY_BYTES + _ENDED_AT for task in tasks]
        columns = repeat(self._data), ends, places, steps, repeat(_SUCCEEDED), attempts, indexes
        deque(map(_END_OF_ENTRY.pack_into, *columns), maxlen=0)

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

    def all_ended_at(self, tasks: Sequence[int]) -> array[int]:
        """What `ended_at` is of each of these tasks; of ten thousand in a thousandth of a second.

        Raises:
            IndexError: The table has no such task.
        """
        if not tasks:
            return array("Q")
        low, high = min(tasks), max(tasks)
        if high - low > _DENSE * len(tasks):  # most of what lies between them is not wanted
            return array("Q", map(self.ended_at, tasks))
        begin, end = self._at(low), self._at(high) + ENTRY_BYTES
        ends = array("Q", self._data[begin:end])[_ENDED_AT // 8 :: ENTRY_BYTES // 8]
        if sys.byteorder == "big":
            ends.byteswap()
        return array("Q", map(ends.__getitem__, [task - low for task in tasks]))

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
