"""A worker is left alone for a moment only if it has enough to do, and is looked at in time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow.workers.local.paced_reading import PACE_SECONDS, PacedReading


class Timers:
    """The loop's timers, which the test fires itself."""

    def __init__(self) -> None:
        self.now = 100.0
        self.set: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> Any:
        self.set.append((when - self.now, call))
        return SimpleNamespace(cancel=lambda: None)


def worker(token: int, left: int, ended: int, seconds: float) -> Any:
    """One with so many tasks left, of which so many have ended since, in so many seconds."""
    return SimpleNamespace(
        token=token,
        tasks=dict.fromkeys(range(left)),
        ended=ended,
        ended_seconds=seconds,
        read_at=0.0,
    )


@pytest.fixture
def paced() -> tuple[PacedReading, Timers, list[Any]]:
    """One that paces nobody yet, its timers, and whom it has had read."""
    due: list[Any] = []
    timers: Any = Timers()
    return PacedReading(timers, due.append), timers, due


@pytest.mark.parametrize(
    ("left", "ended", "seconds", "wait"),
    [
        (1, 5, 0.0005, 0.0),  # a task alone: its report is read when it comes
        (0, 5, 0.0005, 0.0),  # nothing to do: it waits for orders
        (3, 1, 0.01, 0.0),  # few, however long
        (40, 0, 0.0, 0.0),  # nothing is known of them
        (8, 100, 0.001, 0.0),  # they will have ended in no time
        (60, 10, 0.0001, 0.0012),  # half of them, with what each takes beside its step
        (33, 4, 0.004, PACE_SECONDS),
    ],
)
def test_how_long_a_worker_is_left_alone(paced, left, ended, seconds, wait):
    """Never longer than half of its tasks should take, and never for long."""
    reading, timers, _ = paced
    each = worker(1, left, ended, seconds)
    assert reading.keeps(each) == (wait > 0)
    assert (each in reading) == (wait > 0)
    assert [each for each, _ in timers.set] == pytest.approx([wait] if wait else [])
    assert (each.ended, each.ended_seconds) == (0, 0.0)  # counted anew until the next read


def test_all_workers_that_are_left_alone_are_looked_at_together(paced):
    """One timer serves all: their reports make one batch."""
    reading, timers, due = paced
    several = [worker(number, 40, 10, 0.001) for number in range(3)]
    assert all(reading.keeps(each) for each in several)
    assert len(timers.set) == 1
    reading.drop(several[1])
    timers.set[0][1]()
    assert due == [[several[0], several[2]]]
    several[0].ended, several[0].ended_seconds = 20, 0.002
    assert reading.keeps(several[0])
    assert len(timers.set) == 2


def test_a_worker_with_little_left_is_watched_again(paced):
    """Else it would wait for orders."""
    reading, _, _ = paced
    each = worker(1, 40, 10, 0.001)
    assert reading.keeps(each)
    each.tasks, each.ended, each.ended_seconds = {1: False}, 39, 0.004
    assert not reading.keeps(each)
    assert each not in reading


def test_a_timer_whose_call_was_lost_is_noticed(paced):
    """A signal handler may have raised an exception in its place."""
    reading, timers, due = paced
    each = worker(1, 40, 10, 0.001)
    reading.keeps(each)
    assert not reading.is_overdue(0.05)
    timers.now += 1
    assert reading.is_overdue(0.05)
    reading.look()
    assert due == [[each]]
    each.ended, each.ended_seconds = 10, 0.001
    assert reading.keeps(each)
    assert not reading.is_overdue(0.05)
    reading.close()
    assert each not in reading


def test_a_look_that_was_broken_off_is_noticed():
    """The timer has rung then, and nobody has read the worker's reports."""

    def broken_off(_):
        raise KeyboardInterrupt

    timers: Any = Timers()
    reading = PacedReading(timers, broken_off)
    assert reading.keeps(worker(1, 40, 10, 0.001))
    with pytest.raises(KeyboardInterrupt):
        timers.set[0][1]()
    assert reading.is_overdue(0.05)
