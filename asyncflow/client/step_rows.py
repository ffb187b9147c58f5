"""The steps of a run with their tasks counted by status, from the table of tasks alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempt_times import times_at_hand, times_of
from asyncflow.client.live_counts import StepCount
from asyncflow.client.step_spans import step_numbers, step_spans
from asyncflow.flow.node import Fanout
from asyncflow.store.task_table import TaskState
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.client.run_files import RunRecord
    from asyncflow.flow.graph import Graph

_MOST_SPLITS: Final = 500
"""How many tasks may be looked at to know how many follow them."""
_MOST_CURRENT: Final = 5
_FEW_TASKS: Final = 5_000
"""Up to here a pass over the journal costs less than a tenth of a second."""
_LEFT: Final = {
    TaskState.SUCCEEDED: "succeeded",
    TaskState.CLONED: "succeeded",
    TaskState.FAILED: "failed",
    TaskState.STOPPED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class StepTimes:
    """How long the tasks of each step took, and what else a pass over the journal tells."""

    seconds: Mapping[str, float] | None = None
    caught: Mapping[str, int] | None = None
    spans: Mapping[str, tuple[int | None, int | None]] = field(default_factory=dict)


def step_rows(record: RunRecord, told: StepTimes | None = None) -> list[dict[str, Any]]:
    """Each step of the graph with its counts, those that have not begun as well.

    Raises:
        JournalError: The run is damaged.
    """
    run = record.status()
    expected = expected_tasks(record, record.journal.graph)
    counts, told = _counts(record, told)
    rows = []
    for node in record.journal.graph:
        count = counts.get(node.name) or StepCount(node.name)
        row = step_row(count, run)
        row["expected"] = _most(expected.get(node.name), row["begun"], run)
        if told is not None:
            row["caught"] = None if told.caught is None else told.caught.get(node.name, 0)
            row["seconds"] = None if told.seconds is None else told.seconds.get(node.name, 0.0)
            row["first"], row["last"] = told.spans.get(node.name, (None, None))
        rows.append(row)
    return rows


def step_row(count: StepCount, run: Status) -> dict[str, Any]:
    """A step as the page and the command line show it, but for how many tasks it will have."""
    left = dict.fromkeys(["running", "succeeded", "failed", "cancelled", "interrupted"], 0)
    for state, number in zip(TaskState, count.states, strict=True):
        left[_LEFT.get(state) or _unended(run)] += number
    again = count.waiting if run is Status.RUNNING else 0
    return {
        "step": count.step,
        "expected": None,
        "begun": sum(count.states),
        **left,
        "failed": left["failed"] - again,
        "running": left["running"] + again,
        "waiting": again,
        "cloned": count.states[TaskState.CLONED],
        "caught": count.caught,
        "retried": count.retried,
        "seconds": count.seconds,
        "first": count.first,
        "last": count.last,
    }


def _counts(
    record: RunRecord, told: StepTimes | None
) -> tuple[dict[str, StepCount], StepTimes | None]:
    """The steps with their counts, and the times that those of a table lack."""
    table = record.tasks.table()  # this decides whether the journal is replayed
    live = record.tasks.step_counts()
    if live is not None:
        return {count.step: count for count in live}, None
    found = {}
    for step, number in step_numbers(record).items():
        states = table.states_of(number)
        found[step] = StepCount(
            step, [states.get(state, 0) for state in TaskState], table.retries_of(number)
        )
    return found, told or StepTimes()


def step_times(record: RunRecord, *, whole: bool = False) -> StepTimes:
    """What is known at once; with `whole`, also what takes a look at each attempt of a large run.

    Raises:
        JournalError: The run is damaged.
    """
    if record.tasks.is_replayed():
        return StepTimes()  # its counts have them
    spans = step_spans(record)
    few = sum(record.tasks.steps().values()) <= _FEW_TASKS
    times = times_of(record) if few or whole else times_at_hand(record)
    if times is not None:
        seconds = {step: total for step, (_, _, total) in times.of_steps().items()}
        caught = {times.steps[number]: count for number, count in times.caught.items()}
        return StepTimes(seconds, caught, spans)
    catches = any(node.catches for node in record.journal.graph)
    return StepTimes(None, None if catches else {}, spans)


def _unended(run: Status) -> str:
    return "running" if run is Status.RUNNING else "interrupted"


def _most(expected: int | None, begun: int, run: Status) -> int | None:
    if run is Status.SUCCEEDED:
        return begun
    return None if expected is None else max(expected, begun)


def expected_tasks(record: RunRecord, graph: Graph) -> dict[str, int | None]:
    """How many tasks each step will have; None where that is unknown, or takes long to tell."""
    splits = sum(
        record.tasks.steps().get(node.name, 0) for node in graph if node.fanout is Fanout.FOREACH
    )
    if splits > _MOST_SPLITS:
        return {}
    return record.lineage.expected_of_all()


def run_progress(record: RunRecord) -> dict[str, Any]:
    """How far a run is: the fields of its row in the list.

    Raises:
        JournalError: The run is damaged.
    """
    summary, status = record.summary(), record.status()
    begun = sum(count for _, count in summary.steps)
    if summary.status is Status.SUCCEEDED:
        all_done = {"done": begun, "total": begun, "running": 0, "failed": 0}
        return {"current_steps": [], **all_done}
    counts, _ = _counts(record, None)
    states = [sum(step.states[state] for step in counts.values()) for state in TaskState]
    is_live = status is Status.RUNNING
    waiting = sum(step.waiting for step in counts.values()) if is_live else 0
    expected = expected_tasks(record, record.journal.graph)
    known = [expected.get(node.name) for node in record.journal.graph]
    running = [step for step, count in counts.items() if count.states[TaskState.STARTED]]
    return {
        "current_steps": running[:_MOST_CURRENT] if is_live else [],
        "done": states[TaskState.SUCCEEDED] + states[TaskState.CLONED],
        "total": None if None in known else max(sum(each or 0 for each in known), begun),
        "running": states[TaskState.STARTED] + waiting if is_live else 0,
        "failed": states[TaskState.FAILED] - waiting,
    }
