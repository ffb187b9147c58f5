"""When each attempt of a run began and ended: a table in memory, and a file beside the journal.

All of it follows from the run's records. The file saves a reader of a large run the pass over its
journal. It is written when the run has ended, before the summary, if there were from `LEAST_ROWS`
to `MOST_ROWS` attempts:

    header  framed like a record of the journal, the msgpack of
            [version, journal_bytes, rows, text_bytes, checksum, [[step, caught], ...],
             [[step, took], ...]]
    rows    32 bytes for each attempt, in the order in which they began:
              u64  when it began, in microseconds since the run's start; if it had to wait for
                   the import of its flow, when that was over
              u64  when it ended; all ones if it has not
              u32  its task
              u32  its innermost foreach index and 1; 0 outside of any foreach
              u32  where its text ends; it begins where that of the row before ends
              u16  which step, as an index into the graph's steps
              u8   the number of the attempt, 255 for any above
              u8   how it stands, see `AttemptState`
    texts   the items of the attempts as short texts, in UTF-8, one after the other

Integers are little-endian. `checksum` is the crc32 of rows and texts, and `journal_bytes` the
length of the journal with which they agree. `caught` counts the failures of a step that `@catch`
has caught: such an attempt stands as succeeded. `took` is how long the attempts of a step took in
all, in microseconds, as their records say: a row has moments at which records may have been made
for many. A task that was taken over from another run has a row, too. If the file is missing,
damaged, or of another version, a reader reads the journal.
"""

from __future__ import annotations

import struct
import sys
from array import array
from enum import IntEnum
from itertools import accumulate, islice, repeat
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.events.field_types import INT, LIST, check_types
from asyncflow.events.manifests import unpack
from asyncflow.events.records import FAILED, MAX_TASK, SUCCEEDED, is_caught, was_stopped
from asyncflow.store.frames import PREFIX_BYTES, frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.store.interface import StoredRun

TIMES: Final = "times"
LEAST_ROWS: Final = 1000
"""A run with fewer attempts has no such file: its journal is read in some milliseconds."""
MOST_ROWS: Final = 1_000_000
"""Neither has one with more: the file would be a load for the engine, which has it in memory."""
_VERSION: Final = 2
_ROW: Final = struct.Struct("<QQIIIHBB")
ROW_BYTES: Final = _ROW.size
_MILLION: Final = 1_000_000
_MOMENT: Final = struct.Struct("<Q")
_LEAST_IMPORT: Final = 20_000  # microseconds: less may be the time from a worker to the journal
_END_AT, _TEXT_AT, _STATE_AT = 8, 24, 31
UNENDED: Final = (1 << 64) - 1
"""In the place of the end of an attempt that has not ended."""
_MOST_TIME: Final = 1 << 62
_MOST_INDEX: Final = (1 << 32) - 2
_MOST_TEXT_BYTES: Final = 64 << 20  # beyond, items have no texts here
_MOST_HEADER_BYTES: Final = 1 << 20
_LEAST_RECORD_BYTES: Final = 16  # each attempt has a record, which is longer than that


class AttemptState(IntEnum):
    """How an attempt stands."""

    RUNNING = 0
    SUCCEEDED = 1
    FAILED = 2
    STOPPED = 3
    CLONED = 4
    CAUGHT = 5
    """It has failed, and its success follows: in the table it stands as failed until then."""


_RUNNING, _SUCCEEDED, _FAILED, _STOPPED, _CLONED, _CAUGHT = map(int, AttemptState)


class AttemptColumns(NamedTuple):
    """What is known of attempts at a moment, in columns."""

    begins: array[int]
    """When each attempt began, in microseconds since the run's start."""
    ends: array[int]
    """When each ended; `UNENDED` for one that has not."""
    tasks: array[int]
    indexes: array[int]
    """The innermost foreach index of each, and 1; 0 outside of any."""
    texts: array[int]
    """Where the text of each ends."""
    steps: array[int]
    numbers: bytes
    """The number of each attempt; 255 for any above."""
    states: bytes
    """The `AttemptState` of each."""

    @classmethod
    def of(cls, rows: bytes) -> Self:
        """The columns of these rows."""
        long, middle, short = (_numbers_in(rows, kind) for kind in "QIH")
        return cls(
            long[0::4],
            long[1::4],
            middle[4::8],
            middle[5::8],
            middle[6::8],
            short[14::16],
            rows[_STATE_AT - 1 :: ROW_BYTES],
            rows[_STATE_AT::ROW_BYTES],
        )


def _numbers_in(rows: bytes, kind: str) -> array[int]:
    numbers = array(kind, rows)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class AttemptTable:
    """The attempts of a run in the order in which they began; grows as they begin and end."""

    def __init__(self) -> None:
        """Begin without any attempt."""
        self._rows = bytearray()
        self._texts = bytearray()
        self._open: dict[int, int] = {}
        """For each task that runs, where its row begins."""
        self.caught: dict[int, int] = {}
        """By step: how many failures were caught."""
        self.took: dict[int, int] = {}
        """By step: how long its attempts took in all, in microseconds; exact in any order."""
        self.changes = 0
        """How many records were noted."""

    def __len__(self) -> int:
        return len(self._rows) // ROW_BYTES

    @property
    def unended(self) -> int:
        """How many attempts have not ended."""
        return len(self._open)

    def begin(self, step: int, task: int, attempt: int, index: int, time: int, item: str) -> None:
        """Add an attempt that has begun.

        Args:
            step: The number of its step.
            task: The task's id.
            attempt: The attempt's number.
            index: The innermost foreach index; -1 outside of any.
            time: When that was, in microseconds since the run's start.
            item: The item of the foreach as a short text; empty if it has none.
        """
        self.changes += 1
        at = self._open.get(task, -1)
        if at >= 0:  # the record of its end is missing
            self._close(at, time, _FAILED)
        self._open[task] = self._add(step, task, attempt, index, time, item)

    def end(
        self, head: tuple[int, int, int, int], time: int, state: int, item: str, seconds: float
    ) -> None:
        """Note that an attempt has ended as `state`; one that never began is added.

        `head` is what `begin` is told first: step, task, attempt and index. `seconds` is how long
        it took: the import of its flow, for which it may have waited, is not counted.
        """
        step, task, attempt, index = head
        self.changes += 1
        at = self._open.pop(task, -1)
        if at < 0 or self._rows[at + _STATE_AT - 1] != min(attempt, 255):
            at = self._add(step, task, attempt, index, time, item)
        elif self._rows[at + _STATE_AT] == _RUNNING:
            began = time - int(seconds * 1e6)
            if seconds and began > _MOMENT.unpack_from(self._rows, at)[0] + _LEAST_IMPORT:
                _MOMENT.pack_into(self._rows, at, began)
        elif state == _SUCCEEDED:  # its failure has told how long it took
            self.caught[step], seconds = self.caught.get(step, 0) + 1, 0.0
        if seconds:  # that of a task which is taken over is told by its origin
            self._add_took(step, (seconds,))
        if state == _CAUGHT:
            self._open[task], state = at, _FAILED
        self._close(at, time, state)

    def begin_all(
        self,
        steps: Sequence[int],
        tasks: Sequence[int],
        indexes: Sequence[int],
        times: Sequence[int],
        items: Sequence[str],
    ) -> None:
        """Do what `begin` does for the first attempts of tasks that are new, each another one."""
        at, ends, running = len(self._rows), repeat(UNENDED), repeat(_RUNNING)
        if not self._add_all(steps, tasks, indexes, times, ends, items, running):
            for each in zip(steps, tasks, repeat(0), indexes, times, items, strict=False):
                self.begin(*each)
            return
        self._open.update(zip(tasks, range(at, len(self._rows), ROW_BYTES), strict=True))
        self.changes += len(tasks)

    def add_all(
        self,
        step: int,
        tasks: Sequence[int],
        indexes: Sequence[int],
        time: int,
        items: Sequence[str],
        seconds: Sequence[float],
    ) -> None:
        """Do what `begin` and `end` do for new tasks of a step whose first attempt succeeded.

        Both were noted at the same time, and they had to wait for no import.
        """
        self._add_took(step, seconds)
        times, steps, states = repeat(time), repeat(step), repeat(_SUCCEEDED)
        if not self._add_all(steps, tasks, indexes, times, times, items, states):
            for task, index, item in zip(tasks, indexes, items, strict=True):
                self.begin(step, task, 0, index, time, item)
                self.end((step, task, 0, index), time, _SUCCEEDED, item, 0.0)
            return
        self.changes += 2 * len(tasks)

    def _add_all(
        self,
        steps: Iterable[int],
        tasks: Sequence[int],
        indexes: Sequence[int],
        begins: Iterable[int],
        ends: Iterable[int],
        items: Sequence[str],
        states: Iterable[int],
    ) -> bool:
        """Add the rows of first attempts; False if there is no room for the texts of all."""
        texts = self._texts
        bounds: Iterable[int] = repeat(len(texts))
        added = "".join(items).encode("utf-8", "backslashreplace")
        if added:
            lengths = [*map(len, items)]
            if len(added) > sum(lengths):  # not all of it is ASCII
                lengths = [len(item.encode("utf-8", "backslashreplace")) for item in items]
            if len(texts) + len(added) >= _MOST_TEXT_BYTES:
                return False
            bounds = islice(accumulate(lengths, initial=len(texts)), 1, None)
            texts += added
        above = [index + 1 for index in indexes]
        if max(above) > _MOST_INDEX:
            above = [min(index, _MOST_INDEX + 1) for index in above]
        columns = begins, ends, tasks, above, bounds, steps, repeat(0), states
        self._rows += b"".join(map(_ROW.pack, *columns))
        return True

    def end_all(
        self,
        steps: Sequence[int],
        tasks: Sequence[int],
        times: Sequence[int],
        seconds: Sequence[float],
    ) -> None:
        """Do what `end` does for attempts that run and have succeeded, each of another task."""
        if steps.count(steps[0]) == len(steps):  # most are of one step
            self._add_took(steps[0], seconds)
        else:
            for step, took in zip(steps, seconds, strict=True):
                self._add_took(step, (took,))
        rows, begun = self._rows, [self._open.pop(task) for task in tasks]
        pack_time, time_at = _MOMENT.pack_into, _MOMENT.unpack_from
        for at, time, took in zip(begun, times, seconds, strict=True):
            began = time - int(took * 1e6)
            if took and began > time_at(rows, at)[0] + _LEAST_IMPORT:
                pack_time(rows, at, began)
            pack_time(rows, at + _END_AT, time)
            rows[at + _STATE_AT] = _SUCCEEDED
        self.changes += len(tasks)

    def _add_took(self, step: int, seconds: Sequence[float]) -> None:
        added = sum([int(each * _MILLION) for each in seconds])
        if added:  # a step that has taken no time has no entry, however its attempts are noted
            self.took[step] = self.took.get(step, 0) + added

    def _add(self, step: int, task: int, attempt: int, index: int, time: int, item: str) -> int:
        at = len(self._rows)
        if item and len(self._texts) < _MOST_TEXT_BYTES:
            self._texts += item.encode("utf-8", "backslashreplace")
        number, end = min(attempt, 255), len(self._texts)
        row = time, UNENDED, task, min(index, _MOST_INDEX) + 1, end, step, number, _RUNNING
        self._rows += _ROW.pack(*row)
        return at

    def _close(self, at: int, time: int, state: int) -> None:
        _MOMENT.pack_into(self._rows, at + _END_AT, time)
        self._rows[at + _STATE_AT] = state

    def running(self) -> list[tuple[int, int, str]]:
        """The attempts that have not ended: when each began, its task, and its item."""
        found = []
        for at in list(self._open.values()):
            begin, _, task, *_, state = _ROW.unpack_from(self._rows, at)
            if state == _RUNNING:
                found.append((begin, task, self.item(at // ROW_BYTES)))
        return found

    # --- columns ---

    def columns(self) -> AttemptColumns:
        """All of it in columns, as it is now."""
        return AttemptColumns.of(bytes(self._rows))

    def items(self, columns: AttemptColumns) -> Iterator[str]:
        """The item of each of these attempts as a short text; empty if there is none."""
        begin = 0
        for end in columns.texts:
            yield self._text(begin, end) if end > begin else ""
            begin = end

    def item(self, row: int) -> str:
        """The item of one attempt."""
        at = row * ROW_BYTES + _TEXT_AT
        begin = int.from_bytes(self._rows[at - ROW_BYTES : at - ROW_BYTES + 4], "little")
        return self._text(begin if row else 0, int.from_bytes(self._rows[at : at + 4], "little"))

    def _text(self, begin: int, end: int) -> str:
        return self._texts[begin:end].decode("utf-8", "replace")

    # --- the file ---

    def dump(self, journal_bytes: int) -> bytes:
        """The bytes of its file, beside a journal of this length."""
        data = bytes(self._rows) + bytes(self._texts)
        caught = [[step, count] for step, count in sorted(self.caught.items())]
        counts = len(self), len(self._texts), crc32(data)
        took = [[step, total] for step, total in sorted(self.took.items())]
        header = [_VERSION, journal_bytes, *counts, caught, took]
        return frame(msgpack.packb(header)) + data

    @classmethod
    def read(cls, run: StoredRun, journal_bytes: int, steps: int) -> Self | None:
        """The table of a run that has ended; None if there is none for such a journal.

        At most as many bytes are read as such a run can have.

        Args:
            run: The run.
            journal_bytes: The length of its journal.
            steps: How many steps it has.

        Raises:
            RecordError: The file is damaged.
            OSError: It cannot be read.
        """
        most = _most_bytes(journal_bytes)
        try:
            data = run.read_file(TIMES, most=most + 1)
        except FileNotFoundError:
            return None
        if len(data) > most:
            raise RecordError("it is longer than the times of such a journal")
        return cls._of(data, journal_bytes, steps)

    @classmethod
    def _of(cls, data: bytes, journal_bytes: int, steps: int) -> Self | None:
        size = int.from_bytes(data[:4], "little")
        begin = PREFIX_BYTES + size
        if size > _MOST_HEADER_BYTES or frame(data[PREFIX_BYTES:begin]) != data[:begin]:
            raise RecordError("its header is not what was written")
        header = unpack(data[PREFIX_BYTES:begin])
        if type(header) is not list or not header:
            raise RecordError("its header is not an array")
        if header[0] != _VERSION:
            return None
        check_types("the header", tuple(map(type, header)), (INT, INT, INT, INT, INT, LIST, LIST))
        _, length, rows, texts, checksum, caught, took = header[:7]
        if length != journal_bytes:
            return None  # of another journal: a copy was cut, or its end is missing
        if len(data) - begin != rows * ROW_BYTES + texts or crc32(data[begin:]) != checksum:
            raise RecordError("it is not what was written")
        table = cls()
        table._rows = bytearray(data[begin : begin + rows * ROW_BYTES])
        table._texts = bytearray(data[begin + rows * ROW_BYTES :])
        table._check(steps, caught, took)
        return table

    def _check(self, steps: int, caught: Sequence[object], took: Sequence[object]) -> None:
        """Refuse what no run can have: a checksum tells only that somebody has written it."""
        if not self._rows:
            return
        found = self.columns()
        if max(found.steps) >= steps or max(found.states) > _CLONED:
            raise RecordError("it names a step or a state that there is not")
        if max(_last(found.begins), _last(found.ends)) > _MOST_TIME:
            raise RecordError("its times are out of range")
        if not 0 < min(found.tasks) <= max(found.tasks) <= MAX_TASK:
            raise RecordError("it names a task that there is not")
        bounds = found.texts.tolist()
        if bounds[-1] != len(self._texts) or sorted(bounds) != bounds:
            raise RecordError("its texts are not where it says")
        for counts, told in ((self.caught, caught), (self.took, took)):
            for pair in told:
                if type(pair) is not list or [*map(type, pair)] != [int, int] or pair[0] >= steps:
                    raise RecordError("it counts something of a step that there is not")
                counts[pair[0]] = pair[1]
        if _RUNNING in found.states:
            states = zip(found.tasks, found.states, strict=True)
            self._open = {
                task: row * ROW_BYTES
                for row, (task, state) in enumerate(states)
                if state == _RUNNING
            }

    def __repr__(self) -> str:
        return f"<AttemptTable of {len(self)} attempts, {self.unended} not ended>"


def inner_index(path: Sequence[int]) -> int:
    """The innermost foreach index of a path; -1 outside of any."""
    for each in reversed(path):
        if each >= 0:
            return each
    return -1


def attempt_state(values: Sequence[Any]) -> int:
    """How an attempt stands after a record that ends it."""
    code: int = values[0]
    if code != FAILED:
        return _SUCCEEDED if code == SUCCEEDED else _CLONED
    return _STOPPED if was_stopped(values) else _CAUGHT if is_caught(values) else _FAILED


def _last(moments: Sequence[int]) -> int:
    """The last of these moments, of those that there are."""
    last = max(moments)
    return last if last != UNENDED else max(filter(UNENDED.__ne__, moments), default=0)


def _most_bytes(journal_bytes: int) -> int:
    """The largest file beside such a journal."""
    rows = journal_bytes // _LEAST_RECORD_BYTES * ROW_BYTES
    return PREFIX_BYTES + _MOST_HEADER_BYTES + rows + min(_MOST_TEXT_BYTES + 400, journal_bytes)


def times_file(table: AttemptTable, journal_bytes: int) -> dict[str, bytes]:
    """The file by its name, if the run is so large that it pays; else nothing."""
    if LEAST_ROWS <= len(table) <= MOST_ROWS:
        return {TIMES: table.dump(journal_bytes)}
    return {}
