"""Counting a run's tasks by step, and drawing the bars, from hand-made events."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow.cli.progress_bars import draw_bars
from asyncflow.client.step_counts import StepTally, Tally
from asyncflow.events import RunStarted, TaskCloned, TaskFailed, TaskStarted, TaskSucceeded
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node

if TYPE_CHECKING:
    from asyncflow.events import Event

RUN: dict[str, Any] = {
    "flow": "F",
    "run_id": "17",
    "seq": 1,
    "time": datetime(2026, 11, 23, tzinfo=UTC),
}
GRAPH = Graph(
    "F",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("left", "right")),
        Node("left", ("meet",)),
        Node("right", ("meet",)),
        Node("meet", ("join",), is_join=True),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)


def task(kind: type[Any], step: str, **fields: Any) -> Event:
    """An event of a task."""
    event: Event = kind(**RUN, step=step, task_id="1", attempt=0, **fields)
    return event


def tally_of(*events: Event) -> dict[str, StepTally]:
    """The rows after a run's first event and these."""
    tally = Tally()
    tally.count([RunStarted(**RUN, graph=GRAPH.to_data()), *events])
    return {row.step: row for row in tally.rows()}


def test_every_step_has_a_row_from_the_beginning() -> None:
    """Before anything runs, the first step expects a task, and what a foreach decides nothing."""
    rows = tally_of()
    assert list(rows) == ["start", "work", "left", "right", "meet", "join", "end"]
    assert [row.expected for row in rows.values()] == [1, 0, 0, 0, 0, 1, 1]


def test_foreach_tells_how_many_follow() -> None:
    """After a foreach over 5 items, all steps within it expect 5 tasks, those behind it one."""
    rows = tally_of(task(TaskStarted, "start"), task(TaskSucceeded, "start", fanout=5))
    assert [row.expected for row in rows.values()] == [1, 5, 5, 5, 5, 1, 1]
    assert rows["start"].finished


def test_running_failed_retried_and_cloned_are_told_apart() -> None:
    """A step's counts say how many tasks run, are done, failed for good, and were retried."""
    work = tally_of(
        task(TaskCloned, "start", fanout=4),
        task(TaskCloned, "work"),
        task(TaskStarted, "work"),
        task(TaskStarted, "work"),
        task(TaskFailed, "work", will_retry=True),
        task(TaskStarted, "work"),
        task(TaskFailed, "work"),
    )["work"]
    assert (work.done, work.running, work.failed, work.retried) == (1, 1, 1, 1)
    assert not work.finished


def bars(*rows: StepTally, seconds: float = 3723.0) -> list[str]:
    """The lines that are drawn, without their colours."""
    text = draw_bars(rows, seconds=seconds, colour=False)
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


def test_bars_show_each_step() -> None:
    """A bar for each step with how many of how many are done, and at last the time."""
    lines = bars(StepTally("start", 1, done=1), StepTally("work", 8, done=3, running=2, failed=1))
    assert lines[0].split()[0] == "start"
    assert "1/1" in lines[0]
    assert "3/8 2 running 1 failed" in lines[1]
    assert lines[2].strip() == "1:02:03"


def test_bars_leave_the_log_half_of_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many steps those are shown that run or come next, and how many more there are."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "12")
    rows = [StepTally(f"step{number}", 1, done=int(number < 10)) for number in range(30)]
    rows[10].running = 1
    lines = bars(*rows)
    assert len(lines) == 6
    assert [line.split()[0] for line in lines[:5]] == [f"step{number}" for number in range(10, 15)]
    assert lines[5].startswith("and 25 more steps")


@pytest.mark.parametrize("columns", [20, 40, 79, 200])
def test_bars_never_wrap(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """No line of the bars is as wide as the screen, however long a step's name."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "40")
    rows = [StepTally("a_step_with_a_long_name" * 5, 100_000, done=99_999, running=1000)]
    assert max(len(line) for line in bars(*rows)) < max(columns, 21)
