"""Marks in a journal lead to its end without a look at each record."""

from __future__ import annotations

from itertools import pairwise

from asyncflow import Run
from asyncflow.client.run_files import RunRecord
from asyncflow.events.records import peek
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.page import journal_marks
from asyncflow.page.journal_marks import JournalMarks
from tests.support.written_runs import RunWriter

TASKS = 5_000
GRAPH = Graph("Wide", [Node("start", ("end",)), Node("end")])


def record_in(store) -> RunRecord:
    """A run of many tasks, which print a line each."""
    run = RunWriter(store, "Wide", "1800000000000000", GRAPH)
    for _ in range(TASKS):
        task = run.start("start")
        run.log(task, b"a line of output\n")
        run.succeed(task)
    run.finish()
    record: RunRecord = Run("Wide/1800000000000000", store=store)._record
    return record


def test_the_end_is_found_by_few_looks_and_everything_before_it_once(store, monkeypatch) -> None:
    """The first look at the end of a log, and reading on from there to the beginning."""
    record = record_in(store)
    looks: list[bytes] = []

    def counted(payload: bytes) -> tuple[int, int]:
        looks.append(payload)
        return peek(payload)

    monkeypatch.setattr(journal_marks, "peek", counted)
    marks = JournalMarks(record)
    marks.go_to_end()
    marked = len(looks)
    assert 5 < marked < TASKS / 100
    parts = list(marks.parts_backwards())
    assert len(parts) == marked + 1
    places = [at for part in reversed(parts) for at, *_ in part]
    assert places == [at for at, _ in record.journal.records(places[0])]
    assert len(places) == 3 * TASKS + 2
    assert all(before < after for before, after in pairwise(places))
