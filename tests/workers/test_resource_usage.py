"""What a task has used of its worker's process."""

from __future__ import annotations

import resource
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
