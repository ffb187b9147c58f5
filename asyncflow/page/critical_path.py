"""The chain of tasks that has determined how long a run took.

From the task that ended last, it goes back to the parent that ended last, and so on. A journal is
in the order of time, so of two ends the later one has the higher offset: no time is read to compare
thousands of parents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempts import Attempts
from asyncflow.client.step_spans import step_numbers
from asyncflow.events.types import to_microseconds
from asyncflow.store.task_table import TaskState

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord

MOST_TASKS: Final = 200
"""A longer chain is cut at its start: that of a loop, for example."""
_MOST_LOOKED_AT: Final = 5_000
_THOUSAND: Final = 1000


def critical_path(record: RunRecord) -> dict[str, Any] | None:
    """The chain that led to the end of the run, or to what runs now; None if nothing has begun.

    Raises:
        JournalError: The run is damaged.
    """
    task = _last_task(record)
    if task is None:
        return None
    chain: list[Attempts] = []
    parent: int | None = task
    while parent is not None and len(chain) < MOST_TASKS:
        entry = record.tasks.entry(parent)
        if entry is None:
            break
        attempts = Attempts(record, record.tasks.step_of(entry), parent)
        chain.append(attempts)
        parent = _latest_parent(record, attempts)
    path, before = [], record.summary().started
    for attempts in reversed(chain):
        row, before = _row(record, attempts, before)
        path.append(row)
    return {
        "seconds": (path[-1]["to"] or path[-1]["from"]) / _THOUSAND if path else 0.0,
        "path": path,
        "cut": parent is not None,
    }


def _last_task(record: RunRecord) -> int | None:
    """The task that has run longest of those that run, else the one that ended last."""
    summary, table = record.summary(), record.tasks.table()
    if summary.end_task:
        return summary.end_task
    running = table.tasks_in(None, [TaskState.STARTED])
    if running:
        return running[0]
    failed = table.tasks_in(None, [TaskState.FAILED])
    ended = failed or table.tasks_in(
        None, [TaskState.SUCCEEDED, TaskState.CLONED, TaskState.STOPPED]
    )
    return max(ended, key=table.ended_at, default=None)


def _latest_parent(record: RunRecord, attempts: Attempts) -> int | None:
    event = attempts.last_event()
    graph, table = record.journal.graph, record.tasks.table()
    node = graph[attempts.step]
    if node.is_join and not event.path and not graph.has_conditions:
        # All tasks of the steps before it: no parent needs to be looked at.
        numbers = step_numbers(record)
        ended = [table.last_ended(numbers[step]) for step in graph.previous(node.name)]
        return max(filter(None, ended), key=table.ended_at, default=None)
    if graph.has_conditions and node.joins is not None and len(table) > _MOST_LOOKED_AT:
        return None  # their paths would all have to be read
    parents = (task for _, task in record.lineage.parents(attempts.number, event.key))
    return max(parents, key=table.ended_at, default=None)


def _row(record: RunRecord, attempts: Attempts, before: int) -> tuple[dict[str, Any], int]:
    """One task of the chain, and when it ended; `before` is when the one before it ended."""
    began = record.summary().started
    started = to_microseconds(attempts.created_at())
    finished = attempts.finished_at()
    ended = None if finished is None else to_microseconds(finished)
    row = {
        "step": attempts.step,
        "task_id": str(attempts.number),
        "from": (started - began) // _THOUSAND,
        "to": None if ended is None else (ended - began) // _THOUSAND,
        "wait": max(started - before, 0) // _THOUSAND,
    }
    return row, ended or started
