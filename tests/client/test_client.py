"""Looking back: runs finished, running, interrupted, resumed and damaged, told by their files."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import contextmanager
from datetime import UTC, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow.client import Artifact, Attempt, Data, Flow, Run, Step, Task
from asyncflow.client.views import reopen
from asyncflow.errors import ArtifactNotFoundError, JournalError, NotFoundError, StoreError
from asyncflow.events import RunStarted, RunSucceeded, TaskLogged, TaskSucceeded
from asyncflow.flow.current import EnteredTask, TaskContext
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.frames import frame
from asyncflow.store.journal import is_being_written
from asyncflow.store.local_store import LocalRun
from asyncflow.store.task_table import ENTRY_BYTES, TaskEntry, TaskState, TaskTable
from asyncflow.store.warm_journals import MOST_OPEN
from asyncflow.values import Failure, Status
from tests.support.leftovers import open_descriptors
from tests.support.written_runs import STARTED_AT, OpenTask, RunWriter, write_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

LINEAR = Graph("F", [Node("start", ("train",)), Node("train", ("end",)), Node("end")])
FOREACH = Graph(
    "F",
    [
        Node("start", ("train",), foreach="items"),
        Node("train", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)
NESTED = Graph(
    "F",
    [
        Node("start", ("outer",), foreach="a"),
        Node("outer", ("left", "right")),
        Node("left", ("meet",)),
        Node("right", ("inner",), foreach="b"),
        Node("inner", ("after",)),
        Node("after", ("close",)),
        Node("close", ("meet",), is_join=True),
        Node("meet", ("join",), is_join=True),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)


def writer(store: Path, run_id: str = "100", graph: Graph = LINEAR, **named: Any) -> RunWriter:
    """A run that is about to be written."""
    return RunWriter(store, "F", run_id, graph, **named)


def linear(store: Path, run_id: str = "100", *, summary: bool = True, **named: Any) -> RunWriter:
    """A run of three tasks that has succeeded."""
    run = writer(store, run_id, **named)
    run.run("start", x=1)
    task = run.start("train")
    run.log(task, b"one\ntwo\n")
    run.succeed(task, {"x": 2, "model": {"depth": 3}})
    run.run("end", x=3, model={"depth": 3})
    run.finish(summary=summary)
    return run


def foreach(store: Path, run_id: str = "100", width: int = 3, *, summary: bool = True) -> RunWriter:
    """A run of a foreach that has succeeded."""
    run = writer(store, run_id, FOREACH)
    start = run.start("start")
    run.succeed(start, {"items": list(range(min(width, 5)))}, fanout=width)
    for index in range(width):
        run.run("train", (index,), score=index)
    run.run("join")
    run.run("end")
    run.finish(summary=summary)
    return run


def ids(tasks: Iterable[Task]) -> list[str]:
    """The ids of tasks."""
    return [task.id for task in tasks]


@pytest.fixture(params=[True, False], ids=["summary", "replayed"])
def run(request, store) -> Run:
    """A finished run, opened by its summary, and opened by replaying its journal."""
    linear(store, tags=("nightly", "v2"), parameters={"alpha": 0.1}, summary=request.param)
    return Run("F/100")


# --- finding ----------------------------------------------------------------------------------


def test_every_level_is_found_by_its_pathspec(run):
    """And through its parent, with the same answer."""
    artifact = Artifact("F/100/train/2/model")
    assert artifact == Task("F/100/train/2")["model"] == Step("F/100/train")["2"]["model"]
    assert artifact == Run("F/100")["train"][2]["model"] == Flow("F")["100"]["train"]["2"]["model"]
    assert artifact.data == {"depth": 3}


def test_every_level_has_id_pathspec_and_parent(run):
    """Down from the artifact to the flow."""
    artifact = run["train"]["2"]["x"]
    lineage = [artifact]
    while lineage[-1].parent is not None:
        lineage.append(lineage[-1].parent)
    assert [view.id for view in lineage] == ["x", "2", "train", "100", "F"]
    assert [view.pathspec for view in lineage] == [
        "F/100/train/2/x",
        "F/100/train/2",
        "F/100/train",
        "F/100",
        "F",
    ]
    assert artifact.path_components == ("F", "100", "train", "2", "x")
    assert len(set(lineage)) == 5


def test_iterating_gives_the_level_below(run):
    """A flow its runs, a run its steps, a step its tasks, a task its artifacts."""
    assert list(Flow("F")) == [run]
    assert [step.id for step in run] == ["start", "train", "end"]
    assert ids(run["train"]) == ["2"]
    assert sorted(artifact.id for artifact in run["train"].task) == ["alpha", "model", "x"]
    assert ids(run.tasks()) == ["1", "2", "3"]


def test_in_tells_whether_it_is_there(run):
    """On each level, whatever is asked."""
    flow, step = run.parent, run["train"]
    assert "100" in flow
    assert 100 in flow
    assert "101" not in flow
    assert "../F/100" not in flow
    assert "train" in run
    assert "test" not in run
    assert "2" in step
    assert 2 in step
    assert not {"1", "02", "-1", "99", "x", "٢", "9" * 30} & {
        i for i in ("1", "02", "-1", "99", "x", "٢", "9" * 30) if i in step
    }
    assert "x" in step.task
    assert "y" not in step.task


def test_runs_come_newest_first(store):
    """By number and not by text."""
    for run_id in ("9", "100", "20"):
        linear(store, run_id)
    assert [run.id for run in Flow("F")] == ["100", "20", "9"]
    latest = Flow("F").latest_run
    assert latest is not None
    assert latest.id == "100"


def test_the_latest_successful_run_is_not_the_latest(store):
    """Failed and running ones are passed over."""
    linear(store, "1")
    linear(store, "2")
    failed = writer(store, "3")
    failed.finish(Status.FAILED)
    running = writer(store, "4")
    running.flush()
    flow = Flow("F")
    assert flow.latest_run == flow["4"]
    assert flow.latest_successful_run == flow["2"]
    running.close()


def test_a_flow_without_a_successful_run_has_none(store):
    """None, and no exception."""
    writer(store, "3").finish(Status.FAILED)
    assert Flow("F").latest_successful_run is None


def test_runs_are_chosen_by_tags(store):
    """Those that have all of them."""
    linear(store, "1", tags=("a",))
    linear(store, "2", tags=("a", "b"))
    linear(store, "3")
    assert [run.id for run in Flow("F").runs("a")] == ["2", "1"]
    assert [run.id for run in Flow("F").runs("a", "b")] == ["2"]
    assert Flow("F")["2"].user_tags == {"a", "b"}


def test_the_store_may_be_named(tmp_path):
    """As a path or as text; every view says which it is from."""
    linear(tmp_path / "other")
    for name in (tmp_path / "other", str(tmp_path / "other")):
        assert Artifact("F/100/end/3/x", store=name).data == 3
        assert Flow("F", store=name)["100"]["end"].store == tmp_path / "other"


def test_a_run_that_is_just_being_made_is_not_there_yet(store):
    """Its folder comes first; without its first event it has not begun, and others are unharmed."""
    linear(store, "1")
    (store / "flows" / "F" / "2").mkdir()
    (store / "flows" / "F" / "3").mkdir()
    (store / "flows" / "F" / "3" / "journal").write_bytes(b"ASYNCFLOW")
    begun = writer(store, "4")
    begun.append(b"")
    begun.journal.write(begun._waiting[0][:50])
    assert [run.id for run in Flow("F")] == ["1"]
    with pytest.raises(NotFoundError, match=r"no run '4' in the store .*; its latest: 1$"):
        Run("F/4")
    begun.journal.close()


def test_a_run_whose_first_event_is_damaged_is_there(store):
    """Other than one that never began: it must not vanish without a word."""
    linear(store, summary=False)
    path = store / "flows" / "F" / "100" / "journal"
    data = bytearray(path.read_bytes())
    for at in (0, 40):  # the header, the first event
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        [run] = Flow("F")
        assert "cannot be read" in repr(run)
        with pytest.raises(JournalError, match="the journal of F/100 cannot be read"):
            run.status  # noqa: B018 - it is the looking that fails


# --- what is not there ------------------------------------------------------------------------


def test_what_is_not_there_is_told_with_what_is(run):
    """Each error names the level above and what it has."""
    cases = {
        lambda: Flow("G"): "has no flow 'G'; it has F",
        lambda: Run("F/7"): f"flow F has no run '7' in the store {run.store}; its latest: 100",
        lambda: Step(
            "F/100/test"
        ): "run F/100 has no tasks of step 'test'; it has those of start, train, end",
        lambda: Task("F/100/train/9"): "step F/100/train has no task '9'; it has 1 task, 2",
        lambda: Task(
            "F/100/train/x"
        ): "no task 'x'; it has 1 task, 2; an artifact is named behind its task: F/100/train/2/x",
        lambda: Artifact(
            "F/100/train/2/y"
        ): "F/100/train/2 has no artifact 'y'; it has alpha, x, model",
        lambda: run["train"]["1"]: "has no task '1'",
        lambda: run.data.y: "F/100/end/3 has no artifact 'y'",
        lambda: run.parameters.beta: "F/100/parameters has no artifact 'beta'; it has alpha",
    }
    for ask, message in cases.items():
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert message in str(caught.value)


def test_a_missing_store_says_what_to_do(store):
    """It is a store that is missing, not a flow."""
    with pytest.raises(StoreError, match="run a flow first"):
        Flow("F")


@pytest.mark.parametrize(
    ("view", "pathspec"),
    [
        (Flow, "F/1"),
        (Flow, ""),
        (Run, "F"),
        (Run, "F/"),
        (Step, "F/1"),
        (Task, "F/1/a"),
        (Artifact, "F/1/a/2"),
    ],
)
def test_a_pathspec_of_another_length_is_refused(store, view, pathspec):
    """The error says what is wanted."""
    with pytest.raises(ValueError, match=f"{view.__name__} takes 'Flow"):
        view(pathspec)


@pytest.mark.parametrize("view", [Flow, Run, Step, Task, Artifact])
def test_what_is_no_text_names_nothing(store, view):
    """A number, say; and a flow's class has its name in place of it."""
    with pytest.raises(TypeError, match=f"{view.__name__} takes text such as 'Flow"):
        view(3)
    with pytest.raises(TypeError, match=r"write 'Path'"):
        view(Path)


def test_a_missing_artifact_is_an_attribute_error_too(run):
    """So that `hasattr`, `getattr` with a default and notebooks work."""
    assert hasattr(run.data, "x")
    assert not hasattr(run.data, "y")
    with pytest.raises(ArtifactNotFoundError) as caught:
        run.data.y  # noqa: B018 - asking raises
    assert caught.value.artifact == "y"
    assert not hasattr(run.data, "_repr_html_")
    assert getattr(run["train"].task.artifacts, "y", None) is None


# --- a run ------------------------------------------------------------------------------------


def test_a_finished_run_tells_how_it_went(run):
    """The same from its summary as from its journal."""
    assert run.status is Status.SUCCEEDED
    assert (run.successful, run.finished) == (True, True)
    assert run.created_at == STARTED_AT
    assert run.finished_at == STARTED_AT + timedelta(seconds=8)
    assert run.created_at.tzinfo is UTC
    assert run.seconds == 8.0
    assert run.user_tags == {"nightly", "v2"}
    assert run.failure is None
    assert run.origin_run_id is None
    assert run.user == "somebody"
    assert run.task_count == 3
    assert run.graph == LINEAR
    assert run.end_task == run["end"].task


def test_the_summary_that_a_replay_makes_is_the_one_that_the_engine_wrote(store):
    """Field by field, and so is the table."""
    linear(store, "1")
    foreach(store, "2")
    for number in (1, 2):
        written = Run(f"F/{number}")._record
        summary, table = written.summary(), written.tasks.table()
        (store / "flows" / "F" / str(number) / "summary").unlink()
        replayed = Run(f"F/{number}")._record
        again = replayed.summary()
        assert summary._replace(index_checksum=0) == again
        assert table.dump() == replayed.tasks.table().dump()


def test_data_are_those_of_the_end_task(run):
    """Loaded one by one; their names are there at once."""
    data = run.data
    assert (data.x, data.model, data.alpha) == (3, {"depth": 3}, 0.1)
    assert sorted(data) == ["alpha", "model", "x"]
    assert len(data) == 3
    assert "model" in data
    assert {"alpha", "model", "x"} <= set(dir(data))
    assert repr(data) == "<Data alpha, x, model>"


def test_a_value_is_read_anew_each_time(run):
    """What somebody did to the last one does no harm."""
    run.data.model["depth"] = 99
    assert run.data.model == {"depth": 3}


def test_parameters_are_values_and_constants_are_not_among_them(store):
    """The text in the first event is for people."""
    linear(store, parameters={"alpha": 0.1, "names": ["a"]}, constants={"limit": 5})
    run = Run("F/100")
    assert (run.parameters.alpha, run.parameters.names) == (0.1, ["a"])
    assert list(run.parameters) == ["alpha", "names"]
    assert run.data.limit == 5


def test_events_are_all_of_them_in_order(run):
    """From the first to the last, numbered without gaps, output line by line."""
    events = list(run.events())
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunSucceeded)
    assert [e.line for e in events if isinstance(e, TaskLogged)] == ["one", "two"]
    assert [e.task_id for e in events if isinstance(e, TaskSucceeded)] == ["1", "2", "3"]


def test_a_failed_run_tells_what_failed(store):
    """Step, task, attempt, type, message and traceback, as values."""
    run = writer(store)
    run.run("start")
    task = run.start("train")
    run.fail(task, "no such file")
    run.finish(
        Status.FAILED,
        step="train",
        task_id="2",
        exception_type="ValueError",
        message="no such file",
        traceback="Traceback …",
    )
    failure = Failure("train", "2", 0, "ValueError", "no such file", "Traceback …")
    found = Run("F/100")
    assert found.status is Status.FAILED
    assert (found.successful, found.finished) == (False, True)
    assert found.failure == failure
    assert found["train"].task.exception == failure
    assert found["train"].task.status is Status.FAILED
    assert found["train"].task.finished
    assert not found["train"].task.successful
    assert list(found["train"].task) == []
    assert found.end_task is None
    with pytest.raises(NotFoundError, match="F/100 has no data: its step 'end' has not succeeded"):
        found.data  # noqa: B018 - it is the looking that fails


def test_a_cancelled_run_says_so(store):
    """It is finished, and neither failed nor interrupted."""
    run = writer(store)
    run.run("start")
    run.finish(Status.CANCELLED, reason="Ctrl-C")
    found = Run("F/100")
    assert (found.status, found.finished, found.failure) == (Status.CANCELLED, True, None)


# --- running and interrupted ------------------------------------------------------------------


def test_a_running_run_is_seen_as_it_goes_on(store):
    """One object, asked again and again, reads on from where it was."""
    live = writer(store)
    live.flush()
    run = Run("F/100")
    assert (run.status, run.finished, run.finished_at, run.seconds) == (
        Status.RUNNING,
        False,
        None,
        None,
    )
    assert list(run) == []
    task = live.start("start")
    live.log(task, b"hello ")
    live.flush()
    assert [step.id for step in run] == ["start"]
    found = run["start"].task
    assert (found.status, found.finished, found.finished_at, found.seconds) == (
        Status.RUNNING,
        False,
        None,
        None,
    )
    assert found.stdout == "hello "
    assert list(found) == []
    live.log(task, b"world\n")
    live.succeed(task, {"x": 1})
    live.flush()
    assert (found.status, found.stdout, found.data.x) == (Status.SUCCEEDED, "hello world\n", 1)
    live.run("train")
    live.run("end", x=5)
    live.finish()
    assert (run.status, run.data.x, run.task_count) == (Status.SUCCEEDED, 5, 3)


def test_asking_a_running_run_again_reads_only_what_is_new(store, monkeypatch):
    """However long its journal has become."""
    live = foreach_in_progress(store, 2000)
    run = Run("F/100")
    assert run.task_count == 2001
    read = 0
    real = os.pread

    def count(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal read
        data = real(descriptor, length, offset)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", count)
    live.run("train", (2000,))
    live.flush()
    assert run.task_count == 2002
    assert 0 < read < 1000
    live.close()


def foreach_in_progress(store: Path, width: int) -> RunWriter:
    """A foreach that has not reached its join."""
    live = writer(store, graph=FOREACH)
    live.succeed(live.start("start"), fanout=width + 1)
    for index in range(width):
        live.run("train", (index,))
    live.flush()
    return live


def test_a_run_whose_engine_is_gone_is_interrupted(store):
    """And so are its tasks that had not ended; those that had are what they were."""
    live = writer(store)
    live.run("start", x=1)
    task = live.start("train")
    live.log(task, b"half a li")
    live.close()
    run = Run("F/100")
    assert (run.status, run.finished, run.successful) == (Status.INTERRUPTED, False, False)
    assert run["train"].task.status is Status.INTERRUPTED
    assert run["train"].task.stdout == "half a li"
    assert run["start"].task.status is Status.SUCCEEDED
    assert run["start"].task.data.x == 1
    assert run["train"].counts() == {Status.INTERRUPTED: 1}


def test_a_torn_tail_is_dropped(store):
    """What was not whole had not happened."""
    live = writer(store)
    live.run("start", x=1)
    live.flush()
    live.start("train")
    live.journal.write(live._waiting[0][:-3])
    live.journal.close()
    assert [step.id for step in Run("F/100")] == ["start"]


def test_an_ended_run_without_a_summary_opens_all_the_same(store):
    """The crash came between the last event and the summary."""
    linear(store, summary=False)
    run = Run("F/100")
    assert (run.status, run.data.x, run["train"].task.stdout) == (Status.SUCCEEDED, 3, "one\ntwo\n")


@pytest.mark.parametrize("damage", ["torn", "flipped"])
def test_a_damaged_summary_is_passed_over(store, damage):
    """The journal tells the same."""
    linear(store)
    path = store / "flows" / "F" / "100" / "summary"
    data = bytearray(path.read_bytes())
    if damage == "torn":
        del data[-5:]
    else:
        data[30] ^= 1
    path.write_bytes(data)
    assert Run("F/100").data.x == 3


@pytest.mark.parametrize("length", [None, 0, ENTRY_BYTES, 2 * ENTRY_BYTES + 3])
def test_a_missing_or_cut_table_is_passed_over(store, length):
    """A power cut can leave it so; the journal tells the same."""
    linear(store)
    path = store / "flows" / "F" / "100" / "index"
    data = path.read_bytes()
    path.unlink()
    if length is not None:
        path.write_bytes(data[:length])
    assert Run("F/100")["end"]["3"].data.x == 3
    assert ids(Run("F/100").tasks()) == ["1", "2", "3"]
    assert Run("F/100").data.x == 3


def test_a_run_that_ends_while_its_status_is_asked_is_not_interrupted(store, monkeypatch):
    """The last word may come between reading the journal and asking for the lock."""
    live = writer(store)
    live.run("start")
    live.flush()
    run = Run("F/100")

    def end_first(path: str) -> bool:
        live.finish()
        return is_being_written(path)

    monkeypatch.setattr("asyncflow.store.local_store.is_being_written", end_first)
    assert run.status is Status.SUCCEEDED


def test_threads_may_share_a_running_run(store):
    """None of them sees a task twice or misses one."""
    foreach_in_progress(store, 3000).close()
    for _ in range(3):
        run = Run("F/100")
        seen: list[int] = []
        threads = [threading.Thread(target=lambda: seen.append(run.task_count)) for _ in range(4)]  # noqa: B023 - joined in this round
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [3001] * 4


# --- a step -----------------------------------------------------------------------------------


def test_a_step_gives_its_tasks_in_the_order_of_their_numbers(store):
    """`task` is the newest of them."""
    foreach(store)
    step = Run("F/100")["train"]
    assert ids(step) == ids(step.tasks()) == ["2", "3", "4"]
    assert step.task.id == "4"
    assert step.task_count == 3
    assert not step.is_join
    assert Run("F/100")["join"].is_join
    assert step.created_at == step["2"].created_at


def test_a_step_tells_how_its_tasks_stand(store):
    """From the table alone."""
    live = foreach_in_progress(store, 3)
    live.fail(live.start("train", (3,)))
    live.start("train", (4,))
    live.flush()
    step = Run("F/100")["train"]
    assert step.counts() == {Status.RUNNING: 1, Status.SUCCEEDED: 3, Status.FAILED: 1}
    assert repr(step) == "Step('F/100/train') 5 tasks, 1 running, 1 failed"
    live.close()
    assert step.counts()[Status.INTERRUPTED] == 1


def test_a_step_that_has_not_begun_is_not_there(store):
    """Though the graph has it."""
    live = writer(store)
    live.flush()
    run = Run("F/100")
    assert "start" not in run
    with pytest.raises(NotFoundError, match="no tasks of step 'start'; it has those of nothing"):
        run["start"]
    live.close()


def test_a_task_that_was_numbered_and_never_began_is_not_there(store):
    """The run failed before its turn came."""
    run = writer(store, graph=FOREACH)
    run.succeed(run.start("start"), fanout=3)
    run.table[3] = TaskEntry(0, 0, 0, TaskState.NEVER, 0, 0)
    run.fail(run.start("train", (2,)))
    run.finish(Status.FAILED)
    found = Run("F/100")
    assert ids(found.tasks()) == ["1", "4"]
    assert "2" not in found["start"]
    assert "3" not in found["start"]
    assert found.task_count == 2


# --- a task -----------------------------------------------------------------------------------


def test_a_task_tells_how_it_went(run):
    """Times are UTC."""
    task = run["train"].task
    assert (task.status, task.successful, task.finished) == (Status.SUCCEEDED, True, True)
    assert task.attempt == 0
    assert task.created_at == STARTED_AT + timedelta(seconds=3)
    assert task.finished_at == STARTED_AT + timedelta(seconds=5)
    assert task.seconds == 0.5
    assert task.exception is None
    assert (task.path, task.index) == ((), None)
    assert task.origin_pathspec is None


def test_a_task_of_a_foreach_knows_its_index(store):
    """On each level."""
    foreach(store)
    assert [task.index for task in Run("F/100")["train"]] == [0, 1, 2]
    assert [task.path for task in Run("F/100")["train"]] == [(0,), (1,), (2,)]


def test_a_retried_task_is_as_its_last_attempt(store):
    """The attempts before it can be looked at too, with what they printed."""
    live = writer(store)
    live.run("start")
    task = live.start("train")
    live.log(task, b"first\n")
    live.fail(task, "once", will_retry=True)
    live.flush()
    found = Run("F/100")["train"].task
    assert (found.status, found.finished) == (Status.RUNNING, False)
    assert repr(found) == "Task('F/100/train/2') running: ValueError: once, 250 ms"
    live.start("train", task=task)
    live.fail(task, "twice", will_retry=True)
    live.start("train", task=task)
    live.log(task, b"third\n")
    live.flush()
    assert (found.status, found.exception, found.attempt) == (Status.RUNNING, None, 2)
    assert [attempt.stdout for attempt in found.attempts()] == ["first\n", "", "third\n"]
    live.succeed(task)
    live.run("end")
    live.finish()
    for ended in (found, Run("F/100")["train"].task):  # read live, and from the summary
        assert (ended.status, ended.attempt, ended.exception) == (Status.SUCCEEDED, 2, None)
        assert ended.stdout == "third\n"
        attempts = ended.attempts()
        assert [attempt.number for attempt in attempts] == [0, 1, 2]
        assert [attempt.status for attempt in attempts] == ["failed", "failed", "succeeded"]
        assert [attempt.exception and attempt.exception.message for attempt in attempts] == [
            "once",
            "twice",
            None,
        ]
        assert [attempt.stdout for attempt in attempts] == ["first\n", "", "third\n"]
        assert [attempt.seconds for attempt in attempts] == [0.25, 0.25, 0.5]
        assert attempts[0].created_at < attempts[1].created_at < attempts[2].created_at


def test_a_step_has_finished_when_all_of_its_tasks_have(store):
    """Those that are yet to begin included, as far as the foreach before it has said."""
    live = writer(store, graph=FOREACH)
    start = live.start("start")
    live.flush()
    run = Run("F/100")
    assert run["start"].finished_at is None
    live.succeed(start, fanout=2)
    first = live.start("train", (0,))
    live.succeed(first)
    live.flush()
    assert run["start"].finished_at == run["start"].task.finished_at
    assert run["train"].finished_at is None  # the second is yet to begin
    second = live.start("train", (1,))
    live.fail(second, will_retry=True)
    live.flush()
    assert run["train"].finished_at is None
    live.start("train", (1,), task=second)
    live.succeed(second)
    live.flush()
    assert run["train"].finished_at == run["train"][second].finished_at
    live.close()


def test_a_step_of_a_run_that_has_failed_finished_with_its_last_task(store):
    """However many were to come."""
    live = writer(store, graph=FOREACH)
    live.succeed(live.start("start"), fanout=3)
    live.fail(live.start("train", (0,)))
    live.finish(Status.FAILED)
    run = Run("F/100")
    assert run["train"].finished_at == run["train"].task.finished_at


# --- resumed runs -------------------------------------------------------------------------------


def test_a_run_knows_the_runs_that_have_resumed_it(store):
    """Oldest first; a run that has resumed another, or none, is not among them."""
    for run_id, origin in [("1", None), ("2", "1"), ("3", None), ("4", "1"), ("5", "2")]:
        linear(store, run_id, origin=origin)
    flow = Flow("F")
    assert [flow[run_id].resumed_as for run_id in "12345"] == [("2", "4"), ("5",), (), (), ()]


def test_a_flow_knows_the_interrupted_runs_that_nobody_has_resumed(store):
    """Newest first: none that goes on, none that has ended, none that is being resumed."""
    linear(store, "1")
    for run_id, origin in [("2", None), ("3", "2"), ("4", None), ("5", None)]:
        writer(store, run_id, origin=origin).close()
    resuming = writer(store, "6", origin="4")
    resuming.flush()
    assert [run.id for run in Flow("F").runs_to_resume()] == ["5", "3"]
    resuming.close()
    assert [run.id for run in Flow("F").runs_to_resume()] == ["6", "5", "3"]


def test_a_run_that_cannot_be_read_has_resumed_none(store):
    """The others are told of."""
    writer(store, "1").close()
    linear(store, "2", origin="1")
    linear(store, "3", origin="1")
    journal = store / "flows" / "F" / "2" / "journal"
    data = bytearray(journal.read_bytes())
    data[30] ^= 0xFF
    journal.write_bytes(data)
    assert Run("F/1").resumed_as == ("3",)


# --- asked by a task of the run -----------------------------------------------------------------


@contextmanager
def asking(step: str, task: int, attempt: int = 0, run_id: str = "100") -> Iterator[None]:
    """Within the block the code is that of a task."""
    known = {"flow_name": "F", "run_id": run_id, "graph": LINEAR}
    task_context = TaskContext(**known, step_name=step, task_id=str(task), attempt=attempt)  # type: ignore[arg-type] # a dict of all kinds
    with EnteredTask(task_context, solo=False):
        yield


@contextmanager
def later(*writes: Callable[[], object]) -> Iterator[None]:
    """Within the block, these are done in a thread, one after another."""

    def do() -> None:
        time.sleep(0.1)
        for write in writes:
            write()

    thread = threading.Thread(target=do)
    thread.start()
    yield
    thread.join()


def test_a_task_finds_itself_though_its_start_is_still_on_the_way_to_the_journal(store):
    """Whatever it asks about its run: it waits for what must come, also for a later attempt."""
    live = writer(store)
    live.run("start")
    live.flush()
    task = len(live.table) + 1
    with asking("train", task), later(lambda: live.start("train"), live.flush):
        assert [each.id for each in Run("F/100")["train"]] == [str(task)]
    live.fail(task, will_retry=True)
    live.flush()
    with (
        asking("train", task, attempt=1),
        later(lambda: live.start("train", task=task), live.flush),
    ):
        assert Task(f"F/100/train/{task}").attempt == 1
    live.close()


def test_a_task_finds_a_sibling_whose_start_is_still_on_the_way_to_the_journal(store):
    """By its id, and a step of which it is the first."""
    live = writer(store)
    live.run("start")
    own = live.start("train")
    live.flush()
    with asking("train", own), later(lambda: live.start("train"), live.flush):
        assert Task(f"F/100/train/{own + 1}").status is Status.RUNNING
    with asking("train", own), later(lambda: live.start("end"), live.flush):
        assert Run("F/100")["end"].task_count == 1
    live.close()


def test_nothing_is_waited_for_that_cannot_come(store):
    """In a run whose engine is gone, of another run, for a step that there is none of."""
    live = writer(store)
    live.run("start")
    live.flush()
    other = writer(store, "101")
    with asking("train", 7, run_id="101"), pytest.raises(NotFoundError):
        Task("F/100/train/7")
    with asking("start", 1), pytest.raises(NotFoundError, match="has no tasks of step 'nope'"):
        Run("F/100")["nope"]
    live.close()
    other.close()
    with asking("train", 7), pytest.raises(NotFoundError, match="has no tasks of step 'train'"):
        Task("F/100/train/7")


# --- caught failures ----------------------------------------------------------------------------

CATCHING = Graph("F", [Node("start", ("end",), options={"catch": {"var": "e"}}), Node("end")])


@pytest.mark.parametrize("summary", [True, False], ids=["summary", "replayed"])
def test_a_caught_failure_belongs_to_the_attempt_that_the_task_succeeds_with(store, summary):
    """The task has its output, its artifacts and when it began; the attempt has the failure."""
    live = writer(store, graph=CATCHING)
    task = live.start("start")
    live.log(task, b"before\n")
    live.fail(task, "for good", caught=True)
    live.flush()
    running = Run("F/100")["start"].task
    assert (running.status, running.caught) == (Status.RUNNING, None)
    live.log(task, b"a stand-in says\n")
    live.succeed(task, {"x": 1})
    live.run("end")
    live.finish(summary=summary)
    run = Run("F/100")
    found = run["start"].task
    assert (found.status, found.exception, found.attempt) == (Status.SUCCEEDED, None, 0)
    assert (found.caught.message, found.caught.attempt, run.caught()) == (
        "for good",
        0,
        {"start": 1},
    )
    assert (found.stdout, found.data.x) == ("before\na stand-in says\n", 1)
    [attempt] = found.attempts()
    assert (attempt.status, attempt.exception) == (Status.FAILED, found.caught)
    assert (attempt.created_at, attempt.finished_at) == (found.created_at, found.finished_at)
    assert found.created_at == STARTED_AT + timedelta(seconds=1)
    assert attempt.stdout == found.stdout


def test_a_caught_failure_of_an_earlier_version_is_told_as_it_was_written(store):
    """By one more attempt, which succeeded and had run nothing."""
    live = writer(store, graph=CATCHING)
    task = live.start("start")
    live.fail(task, "for good", caught=True)
    live.open[task] = OpenTask("start", (), attempt=1)
    live.start("start", task=task)
    live.succeed(task)
    live.run("end")
    live.finish()
    found = Run("F/100")["start"].task
    assert (found.status, found.attempt) == (Status.SUCCEEDED, 1)
    assert (found.caught.message, found.caught.attempt) == ("for good", 0)
    assert [each.status for each in found.attempts()] == [Status.FAILED, Status.SUCCEEDED]


def test_a_retry_that_never_came_is_a_failure_or_an_interruption(store):
    """By whether the engine said a last word."""
    for run_id, end in (("1", True), ("2", False)):
        live = writer(store, run_id)
        live.fail(live.start("start"), will_retry=True)
        live.finish(Status.FAILED) if end else live.close()
    assert Run("F/1")["start"].task.status is Status.FAILED
    assert Run("F/2")["start"].task.status is Status.INTERRUPTED


def test_a_task_whose_worker_died_before_it_began_is_failed(store):
    """It has an end and no beginning."""
    for summary in (True, False):
        run = writer(store, f"{summary:d}")
        run.run("start")
        run.open[2] = OpenTask("train", ())
        run.fail(2, "the worker was killed")
        run.finish(Status.FAILED, summary=summary)
        task = Run(f"F/{summary:d}")["train"].task
        assert task.status is Status.FAILED
        assert task.created_at == task.finished_at
        assert len(task.attempts()) == 1


def test_one_attempt_is_told_without_reading_the_journal(run, monkeypatch):
    """As for most tasks."""
    task = run["train"].task
    monkeypatch.setattr(type(run._record.journal), "attempts", None)
    [attempt] = task.attempts()
    assert isinstance(attempt, Attempt)
    assert (attempt.number, attempt.status, attempt.seconds) == (0, Status.SUCCEEDED, 0.5)
    assert (attempt.created_at, attempt.finished_at) == (task.created_at, task.finished_at)
    assert (attempt.stdout, attempt.stderr) == ("one\ntwo\n", "")


def test_artifacts_are_found_by_attribute_too(run):
    """As artifacts and not as values."""
    artifacts = run["train"].task.artifacts
    assert artifacts.model == run["train"].task["model"]
    assert len(artifacts) == 3
    assert "model" in artifacts
    assert "model" in dir(artifacts)
    assert [artifact.id for artifact in artifacts] == ["alpha", "x", "model"]
    assert repr(artifacts) == "<Artifacts alpha, x, model>"


# --- output -----------------------------------------------------------------------------------


def test_output_is_put_together_from_its_records(store):
    """Streams apart, characters whole though a record cut them, other tasks' output between."""
    run = writer(store, graph=FOREACH)
    run.succeed(run.start("start"), fanout=2)
    one, two = run.start("train", (0,)), run.start("train", (1,))
    euro = "€".encode()
    run.log(one, b"a\nb" + euro[:1])
    run.log(two, b"other\n")
    run.log(one, b"oops\r\n", 1)
    run.log(one, euro[1:] + b"c\r\n10%\r20%\r")
    run.log(one, b"\xff last")
    run.succeed(one)
    run.succeed(two)
    run.finish()
    task = Run("F/100")["train"]["2"]
    assert task.stdout == "a\nb€c\r\n10%\r20%\r\\xff last"
    assert task.stderr == "oops\r\n"
    assert [line for _, line in task.loglines("stdout")] == ["a", "b€c", "10%\r20%\r\\xff last"]
    assert [line for _, line in task.loglines("stderr")] == ["oops"]
    assert Run("F/100")["train"]["3"].stdout == "other\n"
    times = [time for time, _ in task.loglines("stdout")]
    assert times == sorted(times)
    assert times[0].tzinfo is UTC


def test_a_task_that_printed_nothing_has_empty_output(run):
    """Not None."""
    task = run["start"].task
    assert (task.stdout, task.stderr, list(task.loglines("stdout"))) == ("", "", [])


def test_a_task_left_open_in_an_ended_run_has_its_output(store):
    """Found by reading the journal, because no event tells where it is."""
    for summary in (True, False):
        run = writer(store, f"{summary:d}")
        task = run.start("start")
        run.log(task, b"half")
        run.finish(Status.CANCELLED, summary=summary)
        found = Run(f"F/{summary:d}")["start"].task
        assert (found.stdout, found.status) == ("half", Status.INTERRUPTED)


def test_lines_are_given_one_by_one(store):
    """A million lines need not be in memory at once."""
    run = writer(store)
    task = run.start("start")
    for _ in range(20):
        run.log(task, b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * 600)
    run.succeed(task)
    run.finish()
    found = Run("F/100")["start"].task
    lines = found.loglines("stdout")
    next(lines)
    gc.collect()
    tracemalloc.start()
    count = sum(1 for _ in lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20 * 601 - 1
    assert peak < 1_000_000  # of 1.2 MB


def test_a_stream_of_another_name_is_refused(run):
    """There are two."""
    with pytest.raises(ValueError, match="stdlog"):
        list(run["train"].task.loglines("stdlog"))


# --- parents and children ---------------------------------------------------------------------


def test_tasks_in_a_line_follow_each_other(run):
    """The first has no parents, the last no children."""
    start, train, end = run.tasks()
    assert ids(start.parents) == []
    assert ids(train.parents) == ids([start])
    assert ids(train.children) == ids([end])
    assert ids(end.children) == []


def test_a_foreach_and_its_join_follow_by_index(store):
    """All items from the split, all items into the join, in the order of items."""
    run = writer(store, graph=FOREACH)
    run.succeed(run.start("start"), fanout=4)
    for index in (2, 0, 3, 1):
        run.run("train", (index,))
    run.run("join")
    run.run("end")
    run.finish()
    found = Run("F/100")
    assert ids(found["start"].task.children) == ["3", "5", "2", "4"]
    assert ids(found["join"].task.parents) == ["3", "5", "2", "4"]
    assert [ids(task.parents) for task in found["train"]] == [["1"]] * 4
    assert [ids(task.children) for task in found["train"]] == [["6"]] * 4


def test_the_join_of_an_empty_foreach_has_no_parents(store):
    """And its split no children."""
    run = foreach(store, width=0)
    assert run.end_task == 3
    found = Run("F/100")
    assert ids(found["join"].task.parents) == []
    assert ids(found["start"].task.children) == []


@pytest.mark.parametrize("summary", [True, False])
def test_nested_splits_are_followed_by_path(store, summary):
    """Branches inside a foreach, with a foreach of its own in one of them."""
    made: dict[tuple[str, tuple[int, ...]], str] = {}
    run = writer(store, graph=NESTED)

    def task(step: str, *path: int) -> None:
        made[step, path] = str(run.run(step, path))

    task("start")
    for i in (1, 0):
        task("outer", i)
    for i in (0, 1):
        task("right", i)
        task("left", i)
    inner = [(1, 2), (0, 1), (1, 0), (0, 0), (1, 1)]
    for path in inner:
        task("inner", *path)
    for path in reversed(inner):
        task("after", *path)
    for i in (0, 1):
        task("close", i)
        task("meet", i)
    task("join")
    task("end")
    run.finish(summary=summary)

    def family(step: str, *path: int) -> tuple[list[str], list[str]]:
        found = Run("F/100")[step][made[step, path]]
        assert found.path == path
        return ids(found.parents), ids(found.children)

    def some(*keys: tuple[str, tuple[int, ...]]) -> list[str]:
        return [made[key] for key in keys]

    assert family("start") == ([], some(("outer", (0,)), ("outer", (1,))))
    assert family("outer", 1) == (some(("start", ())), some(("left", (1,)), ("right", (1,))))
    assert family("right", 1) == (
        some(("outer", (1,))),
        some(("inner", (1, 0)), ("inner", (1, 1)), ("inner", (1, 2))),
    )
    assert family("inner", 0, 1) == (some(("right", (0,))), some(("after", (0, 1))))
    assert family("after", 1, 2) == (some(("inner", (1, 2))), some(("close", (1,))))
    assert family("close", 0) == (
        some(("after", (0, 0)), ("after", (0, 1))),
        some(("meet", (0,))),
    )
    assert family("left", 0) == (some(("outer", (0,))), some(("meet", (0,))))
    assert family("meet", 0) == (some(("left", (0,)), ("close", (0,))), some(("join", ())))
    assert family("join") == (some(("meet", (0,)), ("meet", (1,))), some(("end", ())))


def test_children_appear_as_they_begin(store):
    """Of a running run, one object."""
    live = foreach_in_progress(store, 2)
    start = Run("F/100")["start"].task
    assert ids(start.children) == ["2", "3"]
    live.start("train", (2,))
    live.flush()
    assert ids(start.children) == ["2", "3", "4"]
    live.close()


# --- clones -----------------------------------------------------------------------------------


def resumed(store: Path, *, summary: bool = True) -> RunWriter:
    """Run 200 resumes run 100, which failed in its second step."""
    origin = writer(store, "100")
    task = origin.start("start")
    origin.log(task, b"hello\n")
    refs = origin.put({"x": 1, "big": bytes(10_000)})
    origin.succeed(task, refs=refs)
    origin.fail(origin.start("train"))
    origin.finish(Status.FAILED)
    run = writer(store, "200", origin="100")
    run.clone("start", (), 1, refs)
    run.run("train")
    run.run("end")
    run.finish(summary=summary)
    return run


@pytest.mark.parametrize("summary", [True, False])
def test_a_cloned_task_is_as_good_as_done(store, summary):
    """Its artifacts and its output are the origin's."""
    resumed(store, summary=summary)
    run = Run("F/200")
    task = run["start"].task
    assert run.origin_run_id == "100"
    assert (task.status, task.finished, task.seconds) == (Status.SUCCEEDED, True, 0.0)
    assert (task.data.x, task.data.big) == (1, bytes(10_000))
    assert task.stdout == "hello\n"
    assert task.origin_pathspec == "F/100/start/1"
    assert ids(task.children) == ["2"]
    [attempt] = task.attempts()
    assert (attempt.status, attempt.stdout) == (Status.SUCCEEDED, "hello\n")


def test_a_clone_of_a_clone_has_the_first_one_s_output(store):
    """However often a run was resumed."""
    resumed(store)
    again = writer(store, "300", origin="200")
    again.clone("start", (), 1, {})
    again.finish()
    assert Run("F/300")["start"].task.stdout == "hello\n"


def test_the_output_of_a_clone_is_gone_with_its_origin(store):
    """The error says where it was."""
    resumed(store)
    shutil.rmtree(store / "flows" / "F" / "100")
    with pytest.raises(NotFoundError, match="is stored with F/100/start/1"):
        Run("F/200")["start"].task.stdout  # noqa: B018 - it is the looking that fails


# --- artifacts --------------------------------------------------------------------------------


def test_what_is_told_of_an_artifact_reads_no_value(store, monkeypatch):
    """Neither unpickling nor its bytes are needed; those may even be gone."""
    linear(store, constants={"large": bytes(1_000_000), "middling": bytes(10_000)})
    shutil.rmtree(store / "blobs")
    (store / "flows" / "F" / "100" / "w1.seg").unlink()
    monkeypatch.setattr(pickle, "loads", None)
    run = Run("F/100")
    task = run["train"].task
    for artifact in task:
        assert len(artifact.sha) == 64
        assert artifact.created_at == task.finished_at
        assert repr(artifact)
    assert task["large"].size >= 1_000_000
    assert task["middling"].type_name == "bytes"
    assert repr(task["middling"]) == "Artifact('F/100/train/2/middling') bytes, 9.8 KiB"
    assert repr(run.data)


def test_equal_values_have_equal_hashes(run):
    """Wherever they lie."""
    assert run["train"].task["model"].sha == run["end"].task["model"].sha
    assert run["train"].task["model"].sha != run["end"].task["x"].sha


# --- damage -----------------------------------------------------------------------------------


def test_a_damaged_record_is_an_error_that_names_the_run(store):
    """Of the one task that it is about."""
    made = linear(store)
    at = made.table[2].ended
    path = store / "flows" / "F" / "100" / "journal"
    data = bytearray(path.read_bytes())
    data[at + 12] ^= 1
    path.write_bytes(data)
    run = Run("F/100")
    assert run.data.x == 3
    with pytest.raises(JournalError, match="the journal of F/100 cannot be read"):
        list(run["train"].task)
    with pytest.raises(JournalError, match="the journal of F/100 cannot be read"):
        list(run.events())
    assert "cannot be read" in repr(run["train"].task)


def test_a_journal_cut_after_the_run_ended_is_an_error(store):
    """It is no torn tail: the summary knows how long it was."""
    linear(store)
    path = store / "flows" / "F" / "100" / "journal"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(JournalError, match="F/100"):
        list(Run("F/100").events())
    path.unlink()
    with pytest.raises(JournalError, match="the file is gone"):
        Run("F/100")["end"].task.created_at  # noqa: B018 - it is the looking that fails


def test_a_flipped_byte_in_the_table_never_gives_a_wrong_task(store):
    """What it says of a task is held against the record that it points to."""
    foreach(store)
    path = store / "flows" / "F" / "100" / "index"
    whole = path.read_bytes()
    truth = {task.id: (task.pathspec, told(task)) for task in Run("F/100").tasks()}
    wrong = 0
    for at in range(len(whole)):
        for mask in (0x01, 0x80):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            for task_id, (pathspec, expected) in truth.items():
                try:
                    assert told(Task(pathspec)) == expected
                except (JournalError, NotFoundError):
                    wrong += 1
                    assert int(task_id) == at // ENTRY_BYTES + 1
            with pytest.raises(JournalError, match=r"delete .*index"):
                ids(Run("F/100").tasks())
    assert wrong


def told(task: Task) -> tuple[object, ...]:
    """All that the table and its record say of a task."""
    return (
        task.status,
        task.path,
        task.attempt,
        task.created_at,
        task.finished_at,
        len(task.artifacts),
    )


def test_a_table_of_another_run_is_refused(store):
    """Whoever copies files about is told."""
    foreach(store, "1", 3)
    foreach(store, "2", 4)
    shutil.copy(store / "flows/F/2/index", store / "flows/F/1/index")
    with pytest.raises(JournalError, match="delete"):
        list(Run("F/1").tasks())
    shutil.copy(store / "flows/F/2/summary", store / "flows/F/1/summary")
    with pytest.raises(JournalError, match="summary is that of F/2"):
        Run("F/1").status  # noqa: B018 - it is the looking that fails


def test_a_record_that_is_no_event_is_an_error(store):
    """It was written whole, by somebody who should not have."""
    for record in (b"\x01", b"\x91\x02", b"\xc1", b"\x93\x02\x02\xa1x"):
        live = writer(store)
        live.append(record)
        live.close()
        with pytest.raises(JournalError, match="F/100 cannot be read: the record at byte"):
            Run("F/100").status  # noqa: B018 - it is the looking that fails
        shutil.rmtree(store / "flows")


def test_an_output_chain_that_leads_astray_is_an_error(store):
    """It must lead back, and to the same task."""
    run = writer(store)
    task = run.start("start")
    at = run.log(task, b"one\n")
    run.open[task].log = run._at  # the next record will point to itself
    run.log(task, b"two\n")
    run.succeed(task)
    other = run.start("train")
    run.open[other].log = at
    run.succeed(other)
    run.finish()
    for step in ("start", "train"):
        with pytest.raises(JournalError, match="is not output of task"):
            Run("F/100")[step].task.stdout  # noqa: B018 - it is the looking that fails


# --- showing ----------------------------------------------------------------------------------


def test_views_explain_themselves(run):
    """At a glance, and good enough to paste back."""
    assert repr(Flow("F")) == "Flow('F') 1 run"
    assert repr(run) == "Run('F/100') succeeded, 3 tasks, 8.0 s"
    assert repr(run["train"]) == "Step('F/100/train') 1 task"
    assert repr(run["train"].task) == "Task('F/100/train/2') succeeded, 500 ms"
    assert repr(run["train"].task["x"]) == "Artifact('F/100/train/2/x') int, 5 bytes"


def test_a_failed_task_shows_why(store):
    """One line of it."""
    run = writer(store)
    run.fail(run.start("start"), "no such\nfile")
    run.finish(Status.FAILED)
    assert (
        repr(Run("F/100")["start"].task)
        == "Task('F/100/start/1') failed: ValueError: no such, 250 ms"
    )


def test_a_running_run_shows_how_long_it_has_been(store):
    """So far."""
    live = writer(store)
    live.flush()
    assert repr(Run("F/100")).startswith("Run('F/100') running, 0 tasks, ")
    assert repr(Run("F/100")).endswith(" so far")
    live.close()
    assert repr(Run("F/100")) == "Run('F/100') interrupted, 0 tasks"


def test_notebooks_show_a_table_with_every_text_escaped(store):
    """A message is no mark-up."""
    run = writer(store)
    run.fail(run.start("start"), "<script>alert(1)</script>")
    run.finish(Status.FAILED)
    html = Run("F/100")["start"]._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<tr>") == 2  # one of them has the names of the columns
    assert "<table>" in Run("F/100")._repr_html_()
    assert "<table>" in Flow("F")._repr_html_()


def test_notebooks_show_the_first_rows_of_many(store):
    """A hundred thousand tasks are not read for a picture."""
    foreach(store, width=100)
    html = Run("F/100")["train"]._repr_html_()
    assert html.count("<tr>") == 22  # with the names of the columns, and "…"
    assert "100 tasks" in html
    assert "int" in Run("F/100")["train"].task["score"]._repr_html_()


def test_a_damaged_run_is_shown_as_such(store):
    """A debugger and a notebook must not fail over it."""
    linear(store)
    (store / "flows" / "F" / "100" / "journal").unlink()
    (store / "flows" / "F" / "100" / "index").unlink()
    assert "cannot be read" in repr(Run("F/100")["end"])
    assert "cannot be read" in Run("F/100")["end"]._repr_html_()


def test_views_can_be_pickled_and_copied(run, store, monkeypatch):
    """By name, so that a flow may keep one as an artifact; the store is remembered."""
    monkeypatch.delenv("ASYNCFLOW_STORE")
    data = pickle.loads(pickle.dumps(run.data))
    assert (data.x, list(data)) == (run.data.x, list(run.data))
    for view in (run.parent, run, run["train"], run["train"].task, run["train"].task["x"]):
        again = pickle.loads(pickle.dumps(view))
        assert again == view == copy.copy(view)
        assert hash(again) == hash(view)
        assert again.store == store
    assert copy.copy(run.data).x == 3
    stored_before = b"casyncflow.client.objects\n_reopen\n.", b"casyncflow.client.objects\nData\n."
    assert [pickle.loads(name) for name in stored_before] == [reopen, Data]
    assert run != run["train"]
    assert run != "F/100"


# --- cost -------------------------------------------------------------------------------------


def test_a_wide_run_is_iterated_without_holding_its_tasks(store):
    """A table of 24 bytes for each, and no list of objects."""
    width = 20_000
    foreach(store, width=width)
    run = Run("F/100")
    list(islice(run["train"], 3))
    gc.collect()
    tracemalloc.start()
    seen = sum(1 for _ in run["train"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == width
    assert peak < 30 * width


def test_opening_a_finished_run_reads_the_same_whatever_its_size(store, monkeypatch):
    """Its summary, one entry, one record, one value."""
    foreach(store, "1", 10)
    foreach(store, "2", 5_000)
    real = os.pread

    def cost(run_id: str) -> tuple[int, int]:
        calls: list[int] = []

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            data = real(descriptor, length, offset)
            calls.append(len(data))
            return data

        monkeypatch.setattr(os, "pread", pread)
        run = Run(f"F/{run_id}")
        assert run.successful
        assert list(run.data) == []
        assert run["train"]["7"].data.score == 5
        return len(calls), sum(calls) // 4096

    assert cost("1")[0] == cost("2")[0]
    assert cost("2")[1] <= 4


def test_many_runs_may_be_held_at_once(store):
    """Their journals are not all held open."""
    for number in range(60):
        linear(store, str(1000 + number))
    runs = list(Flow("F"))
    before = open_descriptors()
    assert all(run.data.x == 3 for run in runs)
    assert len(open_descriptors() - before) <= MOST_OPEN + 2


def test_looking_back_imports_no_event_loop_and_no_codec():
    """Whoever looks at metadata waits for neither."""
    code = (
        "import sys, asyncflow.client; print([name for name in ('anyio', 'asyncio', 'cloudpickle',"
        " 'blake3', 'asyncflow.codec', 'rich', 'click') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_store_may_be_deleted_under_a_view(store):
    """That is an error and no crash."""
    linear(store)
    run = Run("F/100")
    shutil.rmtree(store)
    with pytest.raises(JournalError, match="F/100"):
        run.status  # noqa: B018 - it is the looking that fails


def test_a_table_that_lies_about_a_step_is_refused(store):
    """Its number must be one of the run's."""
    made = linear(store)
    table = TaskTable(made.table.dump())
    table[2] = made.table[2]._replace(step=9)
    write_end(LocalRun.at(made.run_dir), made.summary(Status.SUCCEEDED, made._at - 1), table)
    with pytest.raises(JournalError, match="names a step 9"):
        Run("F/100")["train"]["2"]


def test_frames_are_what_the_tests_write(store):
    """The writer of these tests frames as the engine does."""
    live = writer(store)
    live.close()
    data = (store / "flows" / "F" / "100" / "journal").read_bytes()
    assert data[20:] == frame(data[28:])
