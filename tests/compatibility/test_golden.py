"""Stores that earlier versions have written open in this one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asyncflow import Flow
from asyncflow.values import Status

GOLDEN = Path(__file__).parent / "golden"
STORES = sorted(path.parent for path in GOLDEN.glob("*/format"))


@pytest.fixture(params=STORES, ids=lambda path: path.name)
def golden(request, store):
    """A copy of one golden store, as this test's store."""
    shutil.copytree(request.param, store)
    return store


def test_there_is_a_golden_store():
    """At least one is kept."""
    assert STORES


def test_runs_are_listed_with_their_ends(golden):
    """Newest first: one that was resumed, one that failed, one that succeeded."""
    runs = list(Flow("GoldenFlow"))
    assert [run.status for run in runs] == [Status.SUCCEEDED, Status.FAILED, Status.SUCCEEDED]
    assert runs[0].origin_run_id == runs[1].id
    assert runs[2].user_tags == {"golden"}


def test_every_value_is_what_was_written(golden):
    """Inline, segment, blob and items; of builtin types and of the flow's own."""
    for run in (Flow("GoldenFlow").latest_run, list(Flow("GoldenFlow"))[2]):
        data = run.data
        assert data.tiny == {"a": 1, "b": [1.5, None, "é"]}
        assert data.middling == bytes(range(256)) * 16
        assert data.large == bytes(300_000)
        assert data.items == [{"n": number} for number in range(3)]
        assert data.thing.name == "golden"
        assert (data.squares, data.width, data.constant) == ([0, 1, 4], 3, ("class", "level"))


def test_output_and_failures_are_there(golden):
    """What tasks printed, by attempt, and how one of them failed."""
    failed = list(Flow("GoldenFlow"))[1]
    assert failed["start"].task.stdout == "begin\n"
    assert failed["start"].task.stderr == "caution\n"
    assert failed.failure.message == "as the golden store wants it"
    assert failed.failure.attempt == 1


def test_events_are_numbered_and_end_with_the_runs_last_word(golden):
    """Every journal can be replayed."""
    for run in Flow("GoldenFlow"):
        seen = list(run.events())
        assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
        assert type(seen[-1]).__name__ == f"Run{run.status.capitalize()}"


def test_its_failed_run_can_be_resumed(golden):
    """This version goes on where the other one stopped."""
    origin = list(Flow("GoldenFlow"))[1]
    resume = [sys.executable, "-m", "asyncflow", "resume", str(GOLDEN / "golden_flow.py")]
    subprocess.run([*resume, "--origin-run-id", origin.id], check=True)
    assert Flow("GoldenFlow").latest_run.data.squares == [0, 1, 4]
