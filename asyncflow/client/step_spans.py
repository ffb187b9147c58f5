"""When the first task of each step began and the last one ended: two records of each are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.events.types import to_microseconds
from asyncflow.store.task_table import TaskState

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord

_MOST_STEPS: Final = 300


def step_numbers(record: RunRecord) -> dict[str, int]:
    """The number of each step in the table of tasks."""
    return {name: number for number, (name, _) in enumerate(record.summary().steps)}


def step_spans(record: RunRecord) -> dict[str, tuple[int | None, int | None]]:
    """For each step that has begun, both in milliseconds since the run's start.

    The end is None if a task of the step runs, or was interrupted. Tasks that were taken over from
    another run count as the moment in which that was done.

    Raises:
        JournalError: The run is damaged.
    """
    table, tasks = record.tasks.table(), record.tasks
    began = record.summary().started
    found: dict[str, tuple[int | None, int | None]] = {}
    for step, number in list(step_numbers(record).items())[:_MOST_STEPS]:
        first = table.first_of(number)
        entry = tasks.entry(first) if first else None
        if entry is None:
            continue
        started = tasks.started_task(first, entry) or tasks.ended_task(first, entry)
        begin = None if started is None else (to_microseconds(started.time) - began) // 1000
        end = None
        if TaskState.STARTED not in table.states_of(number):
            last = table.last_ended(number)
            entry = tasks.entry(last)
            ended = tasks.ended_task(last, entry) if entry is not None else None
            end = None if ended is None else (to_microseconds(ended.time) - began) // 1000
        found[step] = begin, end
    return found
