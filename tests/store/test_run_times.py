"""The times of a run's attempts: what a table holds comes back from its file, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import RecordError
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_times import (
    LEAST_ROWS,
    MOST_ROWS,
    ROW_BYTES,
    TIMES,
    UNENDED,
    AttemptState,
    AttemptTable,
    times_file,
)

STEPS = 3
JOURNAL_BYTES = 1 << 20
SUCCEEDED, FAILED, CAUGHT = AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CAUGHT


def small_table() -> AttemptTable:
    """One attempt that was tried again, one that runs, one that died before it began."""
    table = AttemptTable()
    table.begin(0, 1, 0, -1, 5, "")
    table.end((0, 1, 0, -1), 1005, FAILED, "", 0.0)
    table.begin(0, 1, 1, -1, 2000, "")
    table.begin(1, 2, 0, 0, 3000, "'berlin'")
    table.end((0, 1, 1, -1), 4000, SUCCEEDED, "", 0.0)
    table.end((1, 3, 0, 1), 4500, FAILED, "'rome'", 0.0)
    return table


def stored(folder, data: bytes) -> LocalRun:
    """A run whose file of times has these bytes."""
    (folder / TIMES).write_bytes(data)
    return LocalRun.at(folder)


def test_attempts_stand_in_the_order_in_which_they_began():
    """Each with its own times, however it ended."""
    table = small_table()
    found = table.columns()
    assert [*found.tasks] == [1, 1, 2, 3]
    assert [*found.begins] == [5, 2000, 3000, 4500]
    assert [*found.ends] == [1005, 4000, UNENDED, 4500]
    assert [*found.states] == [FAILED, SUCCEEDED, AttemptState.RUNNING, FAILED]
    assert [*found.numbers] == [0, 1, 0, 0]
    assert [*found.indexes] == [0, 0, 1, 2]
    assert [*table.items(found)] == ["", "", "'berlin'", "'rome'"]
    assert [table.item(row) for row in range(4)] == [*table.items(found)]
    assert table.unended == 1


def test_the_import_that_a_task_waited_for_is_not_part_of_its_time():
    """Its worker says how long the step took; a moment on the way to the journal is no import."""
    table = AttemptTable()
    for task, seconds in ((1, 0.5), (2, 1.995)):
        table.begin(0, task, 0, -1, 1_000_000, "")
        table.end((0, task, 0, -1), 3_000_000, SUCCEEDED, "", seconds)
    assert [*table.columns().begins] == [2_500_000, 1_000_000]


def test_an_attempt_whose_failure_was_caught_stands_as_succeeded_and_is_counted():
    """Its two ends are those of one attempt."""
    table = AttemptTable()
    table.begin(2, 1, 0, -1, 5, "")
    table.end((2, 1, 0, -1), 10, CAUGHT, "", 0.0)
    assert [*table.columns().states] == [FAILED]
    table.end((2, 1, 0, -1), 12, SUCCEEDED, "", 0.0)
    assert [*table.columns().states] == [SUCCEEDED]
    assert [*table.columns().ends] == [12]
    assert (table.caught, table.unended) == ({2: 1}, 0)


def test_what_the_attempts_of_a_step_took_is_added_up_whichever_way_they_are_noted():
    """One by one or together; a caught failure has told of its attempt, and its success has not."""
    table, seconds = AttemptTable(), [0.25, 0.5]
    table.add_all(0, [1, 2], [0, 1], 5, ["", ""], seconds)
    table.begin_all([0, 1], [3, 4], [2, 0], [6, 6], ["", ""])
    table.end_all([0, 1], [3, 4], [7, 7], seconds)
    for state in (CAUGHT, SUCCEEDED):
        table.end((1, 5, 0, -1), 8, state, "", 0.125)
    assert table.took == {0: 1_000_000, 1: 625_000}


records = st.tuples(
    st.sampled_from(["begin", "end"]),
    st.integers(0, STEPS - 1),
    st.integers(1, 4),
    st.integers(0, 300),
    st.integers(-1, (1 << 32) - 1),
    st.integers(0, 1 << 61),
    st.sampled_from(list(AttemptState)[1:]),
    st.text(max_size=5),
    st.floats(0, 1e6),
)


@given(st.lists(records, max_size=20))
def test_a_table_comes_back_from_its_file(tmp_path_factory, noted):
    """Whatever came in, in whatever order."""
    table = AttemptTable()
    for kind, step, task, attempt, index, time, state, item, seconds in noted:
        if kind == "begin":
            table.begin(step, task, attempt, index, time, item)
        else:
            table.end((step, task, attempt, index), time, state, item, seconds)
    run = stored(tmp_path_factory.mktemp("times"), table.dump(JOURNAL_BYTES))
    again = AttemptTable.read(run, JOURNAL_BYTES, STEPS)
    assert again is not None
    assert again.columns() == table.columns()
    assert again.caught == table.caught
    assert again.took == table.took
    assert again.dump(JOURNAL_BYTES) == table.dump(JOURNAL_BYTES)


def test_whichever_byte_is_flipped_the_file_is_refused(tmp_path):
    """Or it is taken for that of another version or of another journal, and not read."""
    data = small_table().dump(JOURNAL_BYTES)
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        try:
            assert AttemptTable.read(stored(tmp_path, bytes(flipped)), JOURNAL_BYTES, STEPS) is None
        except RecordError:
            continue


def test_a_file_beside_a_journal_of_another_length_is_not_read(tmp_path):
    """Another process may have copied one of them."""
    run = stored(tmp_path, small_table().dump(JOURNAL_BYTES))
    assert AttemptTable.read(run, JOURNAL_BYTES + 1, STEPS) is None
    assert AttemptTable.read(LocalRun.at(tmp_path / "elsewhere"), JOURNAL_BYTES, STEPS) is None


def test_what_no_run_can_have_is_refused_although_the_checksum_is_right(tmp_path):
    """A step that there is not, and more attempts than the journal has records for."""
    run = stored(tmp_path, small_table().dump(JOURNAL_BYTES))
    with pytest.raises(RecordError, match="a step"):
        AttemptTable.read(run, JOURNAL_BYTES, 1)
    late = AttemptTable()
    late.begin(0, 1, 0, -1, 1 << 63, "")
    with pytest.raises(RecordError, match="out of range"):
        AttemptTable.read(stored(tmp_path, late.dump(JOURNAL_BYTES)), JOURNAL_BYTES, STEPS)
    huge = bytes(2 << 20) + small_table().dump(100)
    with pytest.raises(RecordError, match="longer than"):
        AttemptTable.read(stored(tmp_path, huge), 100, STEPS)


@pytest.mark.parametrize("count", [LEAST_ROWS - 1, LEAST_ROWS, MOST_ROWS + 1])
def test_only_a_run_of_some_size_has_the_file(count):
    """The journal of a small one is read at once, and that of the largest is left alone."""
    table = AttemptTable()
    table._rows = bytearray(count * ROW_BYTES)  # what they say does not matter
    assert (TIMES in times_file(table, JOURNAL_BYTES)) == (LEAST_ROWS <= count <= MOST_ROWS)
