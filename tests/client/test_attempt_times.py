"""How long the attempts of a step took together, as their events say."""

from __future__ import annotations

from asyncflow.client.attempt_times import times_of
from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.events.types import TaskSucceeded
from asyncflow.store import open_store
from asyncflow.testing import run_flow
from tests.support.flows import Wide


def test_the_time_of_short_tasks_is_not_rounded_away(tmp_path):
    """Tasks of less than a millisecond each: their sum is that of their times in the events."""
    run = run_flow(Wide, store=tmp_path)
    flow, run_id = run.pathspec.split("/")
    record = RunRecord(FlowPlace(open_store(tmp_path), flow), run_id)
    _, _, seconds = times_of(record).of_steps()["work"]
    took = [
        int(event.seconds * 1e6)
        for event in run.events()
        if isinstance(event, TaskSucceeded) and event.step == "work"
    ]
    assert seconds == sum(took) / 1e6 > 0
