"""What a task has used of its worker's process."""

from __future__ import annotations

import mmap
import resource
import sys
import time

import pytest

from asyncflow.workers.process import resource_usage
from asyncflow.workers.process.resource_usage import UsageMeter


def work(seconds: float) -> None:
    """Use so much processor time."""
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


@pytest.fixture
def readings(monkeypatch) -> list[int]:
    """Whose usage the kernel was asked for, in order."""
    asked: list[int] = []
    getrusage = resource.getrusage

    def noting(whose):
        asked.append(whose)
        return getrusage(whose)

    monkeypatch.setattr(resource_usage, "getrusage", noting)
    return asked


class Clock:
    """The processor time of a process that computes only when the test says so."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """What the meter reads: neither garbage collection nor another thread takes time of a task."""
    clock = Clock()
    monkeypatch.setattr(resource_usage, "process_time_ns", clock)
    return clock


@pytest.fixture
def meter() -> UsageMeter:
    """One that has measured a task."""
    meter = UsageMeter()
    meter.begin()
    meter.end()
    return meter


def test_a_task_that_follows_at_once_begins_where_the_last_one_ended(meter, readings):
    """So a reading is saved; what the worker does between the two belongs to the second."""
    meter.begin()
    assert not readings
    work(0.02)
    assert meter.end().cpu_seconds >= 0.02


@pytest.mark.parametrize("note", [UsageMeter.note_pause, UsageMeter.note_other_work])
def test_what_happens_between_two_tasks_belongs_to_neither(meter, readings, note):
    """A wait for an order, in which shared resources may be busy, or the import of a flow."""
    work(0.2)
    note(meter)
    meter.begin()
    assert readings
    assert meter.end().cpu_seconds < 0.1


def test_short_tasks_are_asked_about_once_in_a_while(clock, meter, readings):
    """Between two readings there is a millisecond of processor time."""
    for _ in range(5000):
        meter.begin()
        clock.ns += 10_000
        meter.end()
    assert len(readings) == 2 * 50  # for memory and for children


def test_a_short_task_has_the_memory_of_the_last_reading(clock, meter, readings):
    """It has no time to use much more."""
    meter.begin()
    before = meter.end()
    readings.clear()
    meter.begin()
    clock.ns += 99_999
    short = meter.end()
    assert not readings
    assert short.peak_memory == before.peak_memory
    assert short.cpu_seconds == 0.000099


def test_what_short_tasks_have_used_is_told_by_the_next_reading(meter):
    """Memory that one of them has taken after all is not lost to those after it."""
    meter.note_other_work()  # so that the peak of this process is set back
    meter.begin()
    before = meter.end().peak_memory
    with mmap.mmap(-1, 8 << 20) as held:  # pages that the process did not have before
        for at in range(0, len(held), mmap.PAGESIZE):
            held[at] = 1
        work(0.002)
        meter.begin()
        after = meter.end().peak_memory
    assert before is not None
    assert after is not None
    if sys.platform == "linux":
        assert after >= before + (7 << 20)
