"""When each attempt of a run began and ended, in columns, from one pass over the journal.

The pass is kept with the run, and goes on from where it was. No event is made of a record. For each
step there is a list of moments, two for each attempt; sorted, they say how many ran at any time.
"""

from __future__ import annotations

import threading
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from asyncflow.errors import RecordError
from asyncflow.events.records import (
    CLONED,
    FAILED,
    OF_ATTEMPTS,
    STARTED,
    SUCCEEDED,
    code_of,
    fields_of,
    head_of,
    named_fields,
    time_of,
    was_stopped,
)
from asyncflow.store.journal import FIRST_RECORD, PREFIX_BYTES
from asyncflow.store.run_index import ENTRY_BYTES, most_table_bytes
from asyncflow.values import last_index_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.run_files import RunRecord

RUNNING, OK, BAD, STOPPED, TAKEN_OVER = range(5)
"""How an attempt stands."""
STATUSES: Final = ("running", "succeeded", "failed", "cancelled", "succeeded")
_THOUSAND: Final = 1000


class Busy:
    """How many attempts ran at any time: moments in their order, and how many ran from each on."""

    __slots__ = ("moments", "running")

    def __init__(self, begins: Sequence[int], ends: Sequence[int]) -> None:
        # An end comes before a beginning at the same moment.
        edges = sorted([*(2 * each + 1 for each in begins), *(2 * each for each in ends)])
        self.moments = array("q", [edge >> 1 for edge in edges])
        self.running = array("l", accumulate(2 * (edge & 1) - 1 for edge in edges))


class AttemptTimes:
    """The attempts of one run, by row, as far as its journal has been read. Threads share one."""

    def __init__(self, record: RunRecord) -> None:
        """Read nothing yet."""
        # not the record itself: that is what keeps this
        self._journal, self._tasks = record.journal, record.tasks
        self._lock = threading.RLock()
        self._size = FIRST_RECORD
        self._started = 0
        self._numbers: dict[str, int] = {}
        self._open: dict[int, int] = {}
        self._busy: dict[int, tuple[int, Busy]] = {}
        self.steps: list[str] = []
        """The steps in the order of the graph; a row has the number of one."""
        self.task = array("I")
        self.step = array("H")
        self.attempt = array("I")
        self.begin = array("q")
        """In milliseconds since the start of the run, as `end`; -1 for one that has not ended."""
        self.end = array("q")
        self.state = array("B")
        self.index = array("q")
        """The innermost foreach index; -1 outside of any."""
        self.row_of = array("i")
        """By task: its last row; -1 for none."""
        self.caught: dict[int, int] = {}
        """By step: how many failures were caught."""

    def __len__(self) -> int:
        return len(self.task)

    def refresh(self) -> AttemptTimes:
        """Read what has been written since.

        Raises:
            JournalError: The journal is damaged.
        """
        with self._lock:
            journal = self._journal
            if not self.steps:
                self.steps = [node.name for node in journal.graph]
                self._numbers = {name: number for number, name in enumerate(self.steps)}
                self._started = self._tasks.summary().started
            for at, payload in journal.records(self._size):
                try:
                    self._add(at, payload)
                except RecordError as error:
                    journal.refuse_record(at, error)
                self._size = at + PREFIX_BYTES + len(payload)
        return self

    def _add(self, at: int, payload: bytes) -> None:
        code = code_of(payload)
        if code not in OF_ATTEMPTS:
            return
        values = fields_of(payload)
        step, task, attempt, path = head_of(values)
        number = self._numbers.get(step)
        if number is None or not 0 < task <= most_table_bytes(at) // ENTRY_BYTES:
            raise RecordError(f"it names the task {task} of {step!r:.60}")
        moment = max(time_of(values) - self._started, 0) // _THOUSAND
        row = self._open.pop(task, None)
        if row is not None and self.attempt[row] != attempt and code != STARTED:
            row = None
        if code == STARTED and row is not None:  # the record of its end is missing
            self.end[row], self.state[row] = moment, BAD
        if code == STARTED or row is None:
            row = self._begin(number, task, attempt, path, moment)
        if code == STARTED:
            self._open[task] = row
            return
        self.end[row] = moment
        self.state[row] = self._state(code, values)
        if code == FAILED and _is_caught(values):  # the success that follows ends the same attempt
            self.caught[number] = self.caught.get(number, 0) + 1
            self._open[task] = row

    def _begin(self, step: int, task: int, attempt: int, path: Sequence[int], moment: int) -> int:
        row = len(self.task)
        self.task.append(task)
        self.step.append(step)
        self.attempt.append(min(attempt, 0xFFFF_FFFF))
        self.begin.append(moment)
        self.end.append(-1)
        self.state.append(RUNNING)
        inside = any(each >= 0 for each in path)
        self.index.append(last_index_of(path) if inside else -1)
        missing = task + 1 - len(self.row_of)
        if missing > 0:
            self.row_of.extend([-1] * missing)
        self.row_of[task] = row
        return row

    @staticmethod
    def _state(code: int, values: Sequence[object]) -> int:
        if code == SUCCEEDED:
            return OK
        if code == CLONED:
            return TAKEN_OVER
        return STOPPED if was_stopped(values) else BAD

    # --- what is asked ---

    @property
    def last(self) -> int:
        """The last moment that is known."""
        return max(max(self.end, default=0), max(self.begin, default=0))

    def rows(self, *, last_only: bool) -> Sequence[int]:
        """The rows of all attempts, or of the last one of each task, without those taken over."""
        chosen = [row for row in self.row_of if row >= 0] if last_only else range(len(self))
        state = self.state
        return [row for row in chosen if state[row] != TAKEN_OVER]

    def busy(self, step: int | None = None) -> Busy:
        """How many attempts of a step, or of all, ran at any time."""
        key = -1 if step is None else step
        with self._lock:
            known, busy = self._busy.get(key, (-1, None))
            ended = len(self) - len(self._open)
            stamp = len(self) * 2 + ended
            if busy is None or known != stamp:
                busy = self._make_busy(step)
                self._busy[key] = stamp, busy
            return busy

    def _make_busy(self, step: int | None) -> Busy:
        wanted = [
            row
            for row, (number, state) in enumerate(zip(self.step, self.state, strict=True))
            if state != TAKEN_OVER and (step is None or number == step)
        ]
        begins = [self.begin[row] for row in wanted]
        # an attempt within a millisecond is there for one
        ends = [max(self.end[row], self.begin[row] + 1) for row in wanted if self.end[row] >= 0]
        return Busy(begins, ends)

    def of_steps(self) -> dict[str, tuple[int, int, float]]:
        """When the first task of each step began and the last one ended, and the seconds of all.

        Both are in milliseconds; the end is -1 if one has not ended.
        """
        found: dict[int, list[int]] = {}
        for number, begin, end in zip(self.step, self.begin, self.end, strict=True):
            have = found.setdefault(number, [begin, 0, 0])
            have[0] = min(have[0], begin)
            have[1] = -1 if end < 0 or have[1] < 0 else max(have[1], end)
            have[2] += max(end - begin, 0)
        return {
            self.steps[number]: (first, last, total / _THOUSAND)
            for number, (first, last, total) in found.items()
        }


def _is_caught(values: Sequence[object]) -> bool:
    return bool(named_fields(values).get("caught"))


_times: Final[WeakKeyDictionary[RunRecord, AttemptTimes]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def times_of(record: RunRecord) -> AttemptTimes:
    """The times of a run's attempts as they are now; kept as long as the run is open.

    Raises:
        JournalError: The journal is damaged.
    """
    with _lock:
        found = _times.get(record)
        if found is None:
            found = _times[record] = AttemptTimes(record)
    return found.refresh()


def times_at_hand(record: RunRecord) -> AttemptTimes | None:
    """The same, if the journal has been read for them already."""
    with _lock:
        found = _times.get(record)
    return found.refresh() if found is not None and len(found) else None
