"""When each attempt of a run began and ended, in columns.

They are those of the run's file of times, or of one pass over its journal, which is kept with the
run and goes on from where it was. No event is made of a record. For each step there is a list of
moments, two for each attempt; sorted, they say how many ran at any time.
"""

from __future__ import annotations

import threading
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from asyncflow.store.run_times import UNENDED, AttemptState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client.run_files import RunRecord
    from asyncflow.store.run_times import AttemptColumns, AttemptTable

RUNNING, OK, BAD, STOPPED, TAKEN_OVER = map(int, list(AttemptState)[:5])
"""How an attempt stands."""
STATUSES: Final = ("running", "succeeded", "failed", "cancelled", "succeeded")
_THOUSAND: Final = 1000
_MILLION: Final = 1_000_000


class Busy:
    """How many attempts ran at any time: moments in their order, and how many ran from each on."""

    __slots__ = ("moments", "running")

    def __init__(self, begins: Sequence[int], ends: Sequence[int]) -> None:
        # An end comes before a beginning at the same moment.
        edges = sorted([*(2 * each + 1 for each in begins), *(2 * each for each in ends)])
        self.moments = array("q", [edge >> 1 for edge in edges])
        self.running = array("l", accumulate(2 * (edge & 1) - 1 for edge in edges))


class AttemptTimes:
    """The attempts of one run, by row, as they are known now. Threads share one."""

    def __init__(self, record: RunRecord) -> None:
        """Read nothing yet."""
        self._tasks = record.tasks  # not the record itself: that is what keeps this
        self._lock = threading.RLock()
        self._table: AttemptTable | None = None
        self._columns: AttemptColumns | None = None
        self._changes = -1
        self._busy: dict[int, tuple[int, Busy]] = {}
        self._by_step: tuple[int, dict[int, list[int]]] = -1, {}
        self._of_steps: tuple[int, dict[str, tuple[int, int, float]]] = -1, {}
        self.steps: list[str] = []
        """The steps in the order of the graph; a row has the number of one."""
        self.task: Sequence[int] = ()
        self.step: Sequence[int] = ()
        self.attempt: Sequence[int] = ()
        self.begin: Sequence[int] = ()
        """In milliseconds since the start of the run, as `end`; -1 for one that has not ended."""
        self.end: Sequence[int] = ()
        self.state = b""
        self.index: Sequence[int] = ()
        """The innermost foreach index; -1 outside of any."""
        self.row_of = array("i")
        """By task: its last row; -1 for none."""
        self.caught: dict[int, int] = {}
        """By step: how many failures were caught."""
        self._took: dict[int, int] = {}  # by step, in microseconds

    def __len__(self) -> int:
        return len(self.task)

    def refresh(self) -> AttemptTimes:
        """Read what has been written since.

        Raises:
            JournalError: The journal is damaged.
        """
        with self._lock:
            table = self._tasks.attempts()
            if table is not self._table or table.changes != self._changes:
                self._table, self._changes = table, table.changes
                self.steps = [name for name, _ in self._tasks.summary().steps]
                self._take_columns(table)
        return self

    def _take_columns(self, table: AttemptTable) -> None:
        self._columns = found = table.columns()
        self.step, self.attempt, self.state = found.steps, found.numbers, found.states
        self.begin = [moment // _THOUSAND for moment in found.begins]
        self.end = [-1 if moment == UNENDED else moment // _THOUSAND for moment in found.ends]
        self.index = [number - 1 for number in found.indexes]
        self.caught, self._took = dict(table.caught), dict(table.took)
        row_of = array("i", [-1]) * (max(found.tasks, default=0) + 1)
        for row, each in enumerate(found.tasks):
            row_of[each] = row
        self.row_of, self.task = row_of, found.tasks

    def item(self, row: int) -> str:
        """The item of an attempt's task as a short text; empty if it has none."""
        return self._table.item(row) if self._table is not None else ""

    def tasks_with_item(self, text: str) -> set[int]:
        """The tasks whose item has this text in it, in any case."""
        table, columns, wanted = self._table, self._columns, text.casefold()
        if table is None or columns is None:
            return set()
        items = zip(columns.tasks, table.items(columns), strict=True)
        return {task for task, item in items if wanted in item.casefold()}

    # --- what is asked ---

    @property
    def last(self) -> int:
        """The last moment that is known."""
        return max(max(self.end, default=0), max(self.begin, default=0))

    def rows(self, *, last_only: bool) -> Sequence[int]:
        """The rows of all attempts, or of the last one of each task, without those taken over."""
        chosen = [row for row in self.row_of if row >= 0] if last_only else range(len(self))
        state = self.state
        if TAKEN_OVER not in state:
            return chosen
        return [row for row in chosen if state[row] != TAKEN_OVER]

    def busy(self, step: int | None = None) -> Busy:
        """How many attempts of a step, or of all, ran at any time."""
        key = -1 if step is None else step
        with self._lock:
            known, busy = self._busy.get(key, (-1, None))
            if busy is None or known != self._changes:
                busy = self._make_busy(step)
                self._busy[key] = self._changes, busy
            return busy

    def _make_busy(self, step: int | None) -> Busy:
        if step is None:
            wanted: Sequence[int] = self.rows(last_only=False)
        else:
            wanted = self._rows_by_step().get(step, ())
        begins = [self.begin[row] for row in wanted]
        # an attempt within a millisecond is there for one
        ends = [max(self.end[row], self.begin[row] + 1) for row in wanted if self.end[row] >= 0]
        return Busy(begins, ends)

    def _rows_by_step(self) -> dict[int, list[int]]:
        """The rows of each step, without those taken over."""
        known, found = self._by_step
        if known != self._changes:
            found = {}
            for row, (number, state) in enumerate(zip(self.step, self.state, strict=True)):
                if state != TAKEN_OVER:
                    found.setdefault(number, []).append(row)
            self._by_step = self._changes, found
        return found

    def of_steps(self) -> dict[str, tuple[int, int, float]]:
        """When the first task of each step began and the last one ended, and the seconds of all.

        Both are in milliseconds; the end is -1 if one has not ended.
        """
        known, told = self._of_steps
        if known == self._changes:
            return told
        changes = self._changes
        found: dict[int, list[int]] = {}
        columns = self.step, self.begin, self.end
        for number, begin, end in zip(*columns, strict=True):
            have = found.setdefault(number, [begin, 0])
            have[0] = min(have[0], begin)
            have[1] = -1 if end < 0 or have[1] < 0 else max(have[1], end)
        told = {
            self.steps[number]: (first, last, self._took.get(number, 0) / _MILLION)
            for number, (first, last) in found.items()
        }
        self._of_steps = changes, told
        return told


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
