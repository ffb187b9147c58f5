"""The counts of a run's steps are the same from its table and from a replay of its journal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.step_rows import run_progress, step_rows, step_times
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.store.run_index import SUMMARY
from asyncflow.values import Status
from tests.support.page_stores import RUNS, begin

COUNTED = (
    "begun",
    "running",
    "succeeded",
    "failed",
    "cancelled",
    "interrupted",
    "cloned",
    "retried",
    "seconds",
)

moves = st.lists(
    st.tuples(st.sampled_from(["start", "retry", "fail", "catch", "succeed"]), st.integers(0, 3)),
    max_size=25,
)


def written(store, turns):
    """A run whose four tasks went through these turns, as far as they are legal."""
    run = begin(store, "succeeded")
    running: dict[int, int] = {}
    ready: dict[int, int] = dict.fromkeys(range(4), 0)
    caught: dict[int, int] = {}
    for turn, index in turns:
        if turn == "start" and index in ready:
            running[index] = run.start("work", (index,), task=ready.pop(index))
        elif turn == "retry" and index in running:
            run.fail(running[index], "again", will_retry=True)
            ready[index] = running.pop(index)
        elif turn == "fail" and index in running:
            run.fail(running.pop(index), "for good")
        elif turn == "catch" and index in running:
            run.fail(running[index], "caught", caught=True)
            caught[index] = running.pop(index)
        elif turn == "succeed" and (index in running or index in caught):
            run.succeed(running.pop(index) if index in running else caught.pop(index))
    return run


@given(turns=moves)
def test_a_replay_counts_what_the_table_has(tmp_path_factory, turns):
    """Whatever becomes of the tasks, and however often they are tried."""
    store = tmp_path_factory.mktemp("counts")
    run = written(store, turns)
    run.finish(Status.CANCELLED)
    place = "Made", RUNS["succeeded"]
    ended = OpenedRuns(str(store)).record(*place)
    rows = step_rows(ended, step_times(ended))
    progress = run_progress(OpenedRuns(str(store)).record(*place))
    (run.run_dir / SUMMARY).unlink()
    replayed = OpenedRuns(str(store)).record(*place)
    assert run_progress(replayed) == progress
    for one, other in zip(step_rows(replayed), rows, strict=True):
        assert {name: one[name] for name in COUNTED} == {name: other[name] for name in COUNTED}


def test_tasks_that_go_on_after_a_failure_count_as_waiting(tmp_path):
    """Not as failed, until it is known that they are not tried again."""
    run = written(tmp_path, [("start", 0), ("retry", 0), ("start", 1), ("fail", 1)])
    run.flush()
    record = OpenedRuns(str(tmp_path)).record("Made", RUNS["succeeded"])
    work = {row["step"]: row for row in step_rows(record)}["work"]
    assert (work["waiting"], work["running"], work["failed"]) == (1, 1, 1)
    run.start("work", (0,), task=2)
    run.flush()
    work = {row["step"]: row for row in step_rows(record)}["work"]
    assert (work["waiting"], work["running"], work["failed"], work["retried"]) == (0, 1, 1, 1)
    run.close()


@pytest.mark.parametrize("kind", ["start", "work"])
def test_a_replay_adds_up_seconds_and_has_when_a_step_began_and_ended(tmp_path, kind):
    """Without a pass over the journal, while the run goes on."""
    run = written(tmp_path, [("start", 0), ("succeed", 0)])
    run.flush()
    record = OpenedRuns(str(tmp_path)).record("Made", RUNS["succeeded"])
    row = {row["step"]: row for row in step_rows(record)}[kind]
    assert row["seconds"] is not None
    assert row["first"] <= row["last"]
    run.close()
