"""Counts the tasks of each step while a journal is replayed: a question about all is cheap."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from asyncflow.events.records import (
    FAILED,
    STARTED,
    SUCCEEDED,
    is_caught,
    seq_of,
    step_of,
    task_of,
    time_of,
    will_retry,
)
from asyncflow.store.task_table import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asyncflow.events.record_columns import PlainRecords, RecordColumns

_THOUSAND: Final = 1000
_MILLION: Final = 1_000_000
_STARTED: Final = int(TaskState.STARTED)
_SUCCEEDED: Final = int(TaskState.SUCCEEDED)


@dataclass(slots=True)
class StepCount:
    """The tasks of one step, counted by state, and what else its records tell."""

    step: str
    states: list[int] = field(default_factory=lambda: [0] * len(TaskState))
    """By `TaskState`; nothing is counted as `NEVER`."""
    retried: int = 0
    """How many attempts were followed by another one."""
    waiting: int = 0
    """How many tasks stand as failed, but are about to go on."""
    caught: int = 0
    seconds: float = 0.0
    """How long its attempts took in all."""
    first: int | None = None
    """When its first task began, in milliseconds since the run's start."""
    ended: int | None = None
    """When one of its tasks has last ended, likewise."""
    changed: int = 0
    """The number of the last event that changed any of this."""

    @property
    def last(self) -> int | None:
        """When its last task ended; None while one runs."""
        return None if self.states[_STARTED] else self.ended


class LiveCounts:
    """The steps of a run in the order of the graph, each with its counts so far."""

    def __init__(self, steps: Iterable[str], started: int) -> None:
        """Begin a run with these steps, which started so many microseconds after 1970."""
        self._steps = {step: StepCount(step) for step in steps}
        self._started = started
        self._again: dict[int, bool] = {}
        """The tasks that have failed and are about to go on, and whether `@catch` lets them."""

    def count(self, values: Sequence[Any], before: tuple[int, int], after: tuple[int, int]) -> None:
        """Count a record about an attempt.

        `before` and `after` are its task's state and attempt in the table of tasks.
        """
        step, code, task = self._steps[step_of(values)], values[0], task_of(values)
        moment = self._moment(time_of(values))
        step.changed = seq_of(values)
        if before[0]:
            step.states[before[0]] -= 1
        step.states[after[0]] += 1
        step.retried += after[1] - before[1]
        was_caught = self._again.pop(task, None)
        if was_caught is not None:
            step.waiting -= 1
        if step.first is None:
            step.first = moment
        if code == STARTED:
            return
        step.ended = moment
        if was_caught and code == SUCCEEDED:
            step.caught += 1
        if code == FAILED and (is_caught(values) or will_retry(values)):
            self._again[task] = is_caught(values)
            step.waiting += 1

    def count_all(self, records: PlainRecords) -> None:
        """Count records that `RunIndex.note_all` has added."""
        begins, ends = records.begins, records.ends
        if begins is not None:
            for name, number in Counter(begins.steps).items():
                self._steps[name].states[_STARTED] += number
        if ends is not None:
            counts = Counter(ends.steps)
            for name, number in counts.items():
                states = self._steps[name].states
                states[_STARTED] -= number
                states[_SUCCEEDED] += number
        self._note_moments(begins, ends)

    def _note_moments(self, begins: RecordColumns | None, ends: RecordColumns | None) -> None:
        """Note when steps have begun and ended, and the last event about each."""
        last: dict[str, tuple[int, int]] = {}
        first: dict[str, tuple[int, int]] = {}
        for records in (begins, ends):
            if records is None:
                continue
            backwards = records.steps[::-1]
            for name in set(backwards):
                step = self._steps[name]
                at = len(backwards) - 1 - backwards.index(name)
                last[name] = max(last.get(name, (-1, 0)), (records.at[at], records.seqs[at]))
                if records is ends:
                    step.ended = self._moment(records.times[at])
                if step.first is None:
                    at = records.steps.index(name)
                    begun = records.at[at], self._moment(records.times[at])
                    first[name] = min(first.get(name, begun), begun)
        for name, (_, seq) in last.items():
            self._steps[name].changed = seq
        for name, (_, moment) in first.items():
            self._steps[name].first = moment

    def _moment(self, time: int) -> int:
        """A time in milliseconds since the run's start."""
        return max(time - self._started, 0) // _THOUSAND

    def all(self, took: Mapping[int, int]) -> list[StepCount]:
        """Each step as it is now; `took` has how long its attempts took, as `AttemptTable.took`."""
        return [
            replace(step, states=[*step.states], seconds=took.get(number, 0) / _MILLION)
            for number, step in enumerate(self._steps.values())
        ]
