"""A run that goes on, seen from outside: how far it is, its slowest task, what it waits for."""

from __future__ import annotations

import os

import pytest

from asyncflow.cli.tables import lines_of
from asyncflow.client import Run
from asyncflow.client.json_data import data_of
from asyncflow.events import TaskStarted
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.limit_files import Bounds, LimitFile
from asyncflow.store.task_table import TaskState
from tests.support.written_runs import OpenTask, RunWriter

RUN = "1795472682985927"


def graph(**options: object) -> Graph:
    """A foreach, whose step has these options."""
    return Graph(
        "Wide",
        [
            Node("start", ("work",), foreach="items"),
            Node("work", ("join",), options=dict(options)),
            Node("join", ("end",), is_join=True),
            Node("end"),
        ],
    )


@pytest.fixture
def begun(tmp_path):
    """Writes a run that has fanned out to four tasks: one has succeeded, two run."""
    written = []

    def begin(**options: object) -> RunWriter:
        writer = RunWriter(tmp_path / "store", "Wide", RUN, graph(**options))
        written.append(writer)
        task = writer.start("start")
        writer.succeed(task, fanout=4)
        for index in range(3):
            task = len(writer.table) + 1
            writer.open[task] = OpenTask("work", (index,))
            identity = writer._identity(task)
            writer.open[task].started = writer.event(
                TaskStarted, **identity, pid=os.getpid(), item=f"'city {index}'"
            )
            writer._note(task, 0, TaskState.STARTED)
            if not index:
                writer.succeed(task)
        writer.flush()
        return writer

    yield begin
    for writer in written:
        writer.close()


def shown(writer: RunWriter) -> str:
    """What `show` says of a run."""
    return "\n".join(lines_of(Run(f"Wide/{RUN}", store=writer.store), 0))


def test_show_says_how_far_a_run_is(begun):
    """In all, and step by step; the longest task is named with its item."""
    text = shown(begun())
    assert "done        2 of 7 tasks" in text
    assert "slowest     work/3 for 'city 1', for " in text
    assert "1 task of work is ready and waits for a worker; 2 tasks run." in text
    steps = [line.split() for line in text.splitlines()[-4:]]
    assert steps == [
        ["start", "1", "of", "1", "1", "succeeded"],
        ["work", "1", "of", "4", "2", "running,", "1", "succeeded"],
        ["join", "0", "of", "1"],
        ["end", "0", "of", "1"],
    ]


def test_a_run_of_which_nothing_runs_says_what_is_ready(tmp_path):
    """All workers are at work for other runs: a page without a reason would look broken."""
    writer = RunWriter(tmp_path / "store", "Wide", RUN, graph())
    writer.succeed(writer.start("start"), fanout=4)
    writer.flush()
    text = "4 tasks of work are ready and wait for a worker; no task of this run runs."
    assert text in shown(writer)
    writer.close()


def test_the_same_is_there_as_plain_data(begun):
    """For a page, and for programs."""
    data = data_of(Run(f"Wide/{RUN}", store=begun().store))
    assert (data["status"], data["done"], data["total"]) == ("running", 2, 7)
    assert data["so_far"] > 0
    assert (data["slowest"]["task_id"], data["slowest"]["item"]) == ("3", "'city 1'")
    assert [wait["kind"] for wait in data["waits"]] == ["workers"]
    assert {step["pathspec"].rpartition("/")[2]: step["expected"] for step in data["steps"]} == {
        "start": 1,
        "work": 4,
    }


def test_a_full_limit_is_why_its_tasks_wait(begun):
    """It is named, with how much of it is in use."""
    writer = begun(limit=[["api", 1, None]])
    with LimitFile.open(writer.store / "limits", "api") as file:
        file.set_bounds(Bounds(1, None))
        assert file.take_place(0)
        text = shown(writer)
    assert "Tasks of work wait for the limit api: 1 of 1 are in use." in text


def test_tasks_that_failed_and_will_be_tried_again_are_counted(begun):
    """They neither run nor wait for a worker."""
    writer = begun()
    writer.fail(4, will_retry=True)
    writer.flush()
    assert "1 task of work failed and will be tried again." in shown(writer)


def test_of_a_run_that_has_ended_nothing_is_said_to_go_on(begun):
    """Its times are in the past."""
    writer = begun()
    writer.finish()
    text = shown(writer)
    assert "so far" not in text
    assert "of 4" not in text
    assert data_of(Run(f"Wide/{RUN}", store=writer.store))["slowest"] is None
