"""The steps of a run with their tasks counted by status, from the table of tasks alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempt_times import times_at_hand, times_of
from asyncflow.client.step_spans import step_numbers, step_spans
from asyncflow.events.types import TaskFailed
from asyncflow.flow.node import Fanout
from asyncflow.store.run_index import TaskState
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.client.run_files import RunRecord
    from asyncflow.flow.graph import Graph

_MOST_SPLITS: Final = 500
"""How many tasks may be looked at to know how many follow them."""
_MOST_FAILURES: Final = 500
"""How many failures of a run that goes on are looked at: will they be tried again?"""
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
    told = told or StepTimes()
    tasks = record.tasks
    table, graph, run = tasks.table(), record.journal.graph, record.status()
    expected, numbers = expected_tasks(record, graph), step_numbers(record)
    seconds, caught, spans = told.seconds, told.caught, told.spans
    waiting = _waiting(record) if run is Status.RUNNING else {}
    rows = []
    for node in graph:
        number = numbers.get(node.name)
        states = {} if number is None else table.states_of(number)
        counts = dict.fromkeys(["running", "succeeded", "failed", "cancelled", "interrupted"], 0)
        for state, count in states.items():
            counts[_LEFT.get(state) or _unended(run)] += count
        again = waiting.get(node.name, 0)
        begun = sum(states.values())
        rows.append(
            {
                "step": node.name,
                "expected": _most(expected.get(node.name), begun, run),
                "begun": begun,
                **counts,
                "failed": counts["failed"] - again,
                "running": counts["running"] + again,
                "waiting": again,
                "cloned": states.get(TaskState.CLONED, 0),
                "caught": None if caught is None else caught.get(node.name, 0),
                "retried": 0 if number is None else table.retries_of(number),
                "seconds": None if seconds is None else seconds.get(node.name, 0.0),
                "first": spans.get(node.name, (None, None))[0],
                "last": spans.get(node.name, (None, None))[1],
            }
        )
    return rows


def step_times(record: RunRecord) -> StepTimes:
    """What is known without a pass over a long journal.

    Raises:
        JournalError: The run is damaged.
    """
    spans = step_spans(record)
    few = sum(record.tasks.steps().values()) <= _FEW_TASKS
    times = times_of(record) if few else times_at_hand(record)
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


def _waiting(record: RunRecord) -> dict[str, int]:
    """How many tasks of each step have failed, and will be tried again."""
    found: dict[str, int] = {}
    for task in record.tasks.table().tasks_in(None, [TaskState.FAILED])[:_MOST_FAILURES]:
        entry = record.tasks.entry(task)
        ended = record.tasks.ended_task(task, entry) if entry is not None else None
        if isinstance(ended, TaskFailed) and (ended.will_retry or ended.caught):
            found[ended.step] = found.get(ended.step, 0) + 1
    return found


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
        counts = {"done": begun, "total": begun, "running": 0, "failed": 0}
        return {"current_steps": [], **counts}
    states = record.tasks.table().states()
    failed = states.get(TaskState.FAILED, 0)
    waiting = sum(_waiting(record).values()) if status is Status.RUNNING and failed else 0
    expected = expected_tasks(record, record.journal.graph)
    known = [expected.get(node.name) for node in record.journal.graph]
    started = states.get(TaskState.STARTED, 0)
    return {
        "current_steps": _current(record) if status is Status.RUNNING else [],
        "done": states.get(TaskState.SUCCEEDED, 0) + states.get(TaskState.CLONED, 0),
        "total": None if None in known else max(sum(each or 0 for each in known), begun),
        "running": started + waiting if status is Status.RUNNING else 0,
        "failed": failed - waiting,
    }


def _current(record: RunRecord) -> list[str]:
    """The steps that run now, in the order of the graph."""
    table = record.tasks.table()
    running = [
        step
        for step, number in step_numbers(record).items()
        if TaskState.STARTED in table.states_of(number)
    ]
    return running[:_MOST_CURRENT]
