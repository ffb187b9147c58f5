"""Summary and table of tasks: what opens a finished run without replaying it."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import JournalError
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_index import Summary
from asyncflow.store.task_table import ENTRY_BYTES, TaskEntry, TaskState, TaskTable, read_entry
from asyncflow.values import Status
from tests.support.written_runs import write_end

entries = st.builds(
    TaskEntry,
    started=st.integers(0, (1 << 64) - 1),
    ended=st.integers(0, (1 << 64) - 1),
    step=st.one_of(st.integers(0, 3), st.integers(0, (1 << 16) - 1)),
    state=st.sampled_from([int(state) for state in TaskState]),
    attempt=st.integers(0, 255),
    index=st.integers(0, (1 << 32) - 1),
)
names = st.text(min_size=1, max_size=20)
counts = st.integers(0, (1 << 62) - 1)
times = st.integers(0, 7_000_000_000_000_000)
summaries = st.builds(
    Summary,
    status=st.sampled_from([status for status in Status if status.finished]),
    started=times,
    finished=times,
    flow=names,
    run_id=names,
    first=counts,
    last=counts,
    journal_bytes=counts,
    events=counts,
    end_task=counts,
    steps=st.lists(st.tuples(names, st.integers(0, (1 << 32) - 1)), max_size=5).map(tuple),
    tags=st.lists(names, max_size=3).map(tuple),
    index_checksum=st.integers(0, (1 << 32) - 1),
)
SUMMARY = Summary(
    status=Status.SUCCEEDED,
    started=1,
    finished=2,
    flow="F",
    run_id="1",
    first=20,
    last=90,
    journal_bytes=100,
    events=7,
    end_task=3,
    steps=(("start", 1), ("train", 1), ("end", 1)),
    tags=("nightly",),
)


def table_of(rows: list[TaskEntry]) -> TaskTable:
    """The table with these entries."""
    table = TaskTable()
    for task, row in enumerate(rows, 1):
        table[task] = row
    return table


@pytest.fixture
def run(tmp_path):
    """A run's place in a store, with nothing in it."""
    place = tmp_path / "flows" / "F" / "17"
    place.mkdir(parents=True)
    return LocalRun.at(place)


# --- the table --------------------------------------------------------------------------------


@given(st.lists(entries, max_size=30))
def test_every_entry_is_read_back(rows):
    """From the table itself, from its dump, and one by one from the file."""
    table = table_of(rows)
    with TemporaryDirectory() as folder:
        run = LocalRun.at(Path(folder))
        Path(folder, "index").write_bytes(table.dump())
        again = TaskTable.read(run, most=1 << 20)
        assert len(table) == len(again) == len(rows)
        for task, row in enumerate(rows, 1):
            assert table[task] == again[task] == read_entry(run, task) == row
            assert table.ended_at(task) == row.ended
            assert table.index_of(task) == row.index


@given(st.data(), st.sampled_from([1, 3, 40]))
def test_the_ends_of_many_tasks_are_those_of_each(data, apart):
    """Side by side or far apart, in any order, some of them twice."""
    rows = data.draw(st.lists(entries, min_size=1, max_size=10))
    table = TaskTable()
    for number, row in enumerate(rows):
        table[1 + number * apart] = row
    asked = data.draw(st.lists(st.integers(1, len(table)), max_size=20))
    assert [*table.all_ended_at(asked)] == [*map(table.ended_at, asked)]


@given(st.lists(entries, max_size=60), st.integers(0, (1 << 16) - 1))
def test_a_step_s_tasks_are_those_that_have_begun(rows, other):
    """The masks find what a plain loop finds."""
    table = table_of(rows)
    for step in {row.step for row in rows} | {other, 0}:
        begun = [
            (task, row)
            for task, row in enumerate(rows, 1)
            if row.step == step and row.state != TaskState.NEVER
        ]
        assert list(table.tasks_of(step)) == [task for task, _ in begun]
        assert table.first_of(step) == (begun[0][0] if begun else 0)
        assert table.last_of(step) == (begun[-1][0] if begun else 0)
        states = [row.state for _, row in begun]
        assert table.states_of(step) == {
            state: states.count(state) for state in TaskState if state in states
        }


def test_a_task_that_never_began_is_not_one_of_the_first_step(tmp_path):
    """Its entry is zeros, and 0 is also the number of the first step."""
    table = TaskTable()
    table[3] = TaskEntry(50, 60, 0, TaskState.SUCCEEDED, 0, 0)
    assert len(table) == 3
    assert table[1] == TaskEntry(0, 0, 0, TaskState.NEVER, 0, 0)
    assert list(table.tasks_of(0)) == [3]


def test_the_task_that_ended_last_is_found_whatever_began_last():
    """Of a step's tasks alone, and of those that have ended."""
    ended = [0, 700, 500, 900, 800, 600]
    steps = [1, 1, 1, 0, 1, 1]
    table = TaskTable()
    for task, (at, step) in enumerate(zip(ended, steps, strict=True), 1):
        state = TaskState.SUCCEEDED if at else TaskState.STARTED
        table[task] = TaskEntry(100 * task, at, step, state, 0, 0)
    assert (table.last_ended(1), table.last_ended(0), table.last_ended(2)) == (5, 4, 0)


@pytest.mark.parametrize(("ends", "began"), [(2, 100), (3, 0), (1, 0)])
def test_an_attempt_that_died_before_it_began_has_no_start(ends, began):
    """That of another attempt is not taken for its own."""
    table = TaskTable()
    table.begin(1, 100, 0, TaskState.STARTED, 2, 0)
    assert not table.end(1, 200, 0, TaskState.FAILED, ends, 0)
    assert table[1] == TaskEntry(began, 200, 0, TaskState.FAILED, ends, 0)


def test_an_attempt_past_the_limit_is_kept_as_the_limit():
    """The record has the exact number."""
    table = table_of([TaskEntry(1, 2, 0, TaskState.FAILED, 1000, 0)])
    assert table[1].attempt == 255


@pytest.mark.parametrize("task", [0, -1, 2, 1 << 70])
def test_a_task_that_is_not_there_is_an_index_error(tmp_path, task):
    """Zero and below must not reach another task's entry from behind."""
    table = table_of([TaskEntry(1, 2, 0, TaskState.SUCCEEDED, 0, 0)])
    for ask in (table.__getitem__, table.ended_at, table.index_of):
        with pytest.raises(IndexError, match="in a run of 1"):
            ask(task)
    for tasks in ([task], [1, task], [task, *[1] * 100]):
        with pytest.raises(IndexError, match="in a run of 1"):
            table.all_ended_at(tasks)
    (tmp_path / "index").write_bytes(table.dump())
    assert read_entry(LocalRun.at(tmp_path), task) is None


@pytest.mark.parametrize("task", [0, -1, 1 << 32])
def test_only_a_task_id_gets_an_entry(task):
    """Zero and below would write over another task's entry."""
    table = table_of([TaskEntry(1, 2, 0, TaskState.SUCCEEDED, 0, 0)])
    with pytest.raises(IndexError, match="not a task id"):
        table[task] = TaskEntry(9, 9, 9, 1, 9, 9)
    assert table[1] == TaskEntry(1, 2, 0, TaskState.SUCCEEDED, 0, 0)


def test_a_missing_table_is_empty_and_a_torn_one_ends_early(tmp_path):
    """Neither is an exception: the summary tells how many tasks there must be."""
    assert len(TaskTable.read(LocalRun.at(tmp_path), most=1 << 20)) == 0
    assert read_entry(LocalRun.at(tmp_path), 1) is None
    data = table_of([TaskEntry(1, 2, 3, 2, 0, 0)] * 2).dump()
    (tmp_path / "index").write_bytes(data[:-1])
    table = TaskTable.read(LocalRun.at(tmp_path), most=1 << 20)
    assert len(table) == 1
    assert list(table.tasks_of(3)) == [1]
    assert read_entry(LocalRun.at(tmp_path), 2) is None


def test_a_step_s_tasks_are_found_at_the_cost_of_a_few_arrays():
    """Looking at each task would be a call or a line of Python for each."""
    row = TaskEntry(100, 200, 1, TaskState.SUCCEEDED, 0, 0)
    steps = {}
    for width in (10, 10, 100_000):  # the first call may compile a constructor
        table = TaskTable(table_of([row]).dump() * width)
        seen: list[str] = []
        sys.settrace(noting(seen))
        try:
            tasks = table.tasks_of(1)
        finally:
            sys.settrace(None)
        assert len(tasks) == width
        assert len(table.dump()) == width * ENTRY_BYTES
        steps[width] = len(seen)
    assert steps[100_000] == steps[10]


def noting(seen):
    """A trace function that notes each call and each line."""

    def trace(_, event, __):
        seen.append(event)
        return trace

    return trace


# --- the summary ------------------------------------------------------------------------------


@given(summaries)
def test_a_summary_is_read_back(summary):
    """Every field."""
    with TemporaryDirectory() as folder:
        Path(folder, "summary").write_bytes(summary.dump())
        assert Summary.read(LocalRun.at(Path(folder))) == summary


def test_a_missing_summary_is_none(tmp_path):
    """The journal is read instead."""
    assert Summary.read(LocalRun.at(tmp_path)) is None


def test_a_summary_with_any_byte_torn_or_flipped_is_an_error(tmp_path):
    """Never a wrong summary."""
    whole = SUMMARY.dump()
    path = tmp_path / "summary"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(JournalError, match="damaged"):
            Summary.read(LocalRun.at(tmp_path))
    for at in range(len(whole)):
        for mask in (1, 0x80, 0xFF):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            with pytest.raises(JournalError, match="damaged"):
                Summary.read(LocalRun.at(tmp_path))


def test_writing_ties_summary_and_table_together(run):
    """The summary knows the table's checksum, and nothing else is left in the folder."""
    table = table_of([TaskEntry(20, 40, 0, TaskState.SUCCEEDED, 0, 0)] * 3)
    write_end(run, SUMMARY, table)
    place = Path(run.place)
    expected = SUMMARY._replace(index_checksum=crc32((place / "index").read_bytes()))
    assert Summary.read(run) == expected
    assert sorted(path.name for path in place.iterdir()) == ["index", "summary"]


def test_a_crash_before_the_summary_leaves_none(run):
    """The table is written first: a summary never speaks of a table that is not there."""
    Path(run.place, "summary").mkdir()  # no file can take that name
    with pytest.raises(IsADirectoryError):
        write_end(run, SUMMARY, TaskTable())
    Path(run.place, "summary").rmdir()
    assert Summary.read(run) is None
    assert run.has_file("index")
