"""The tasks of a run, 200 at a time, failed first; found among 100,000 by the tables alone.

Only the tasks that are shown are looked up in the journal.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempt_times import times_of
from asyncflow.client.attempts import Attempts
from asyncflow.errors import AsyncflowError
from asyncflow.events.types import (
    TaskCloned,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    to_microseconds,
)
from asyncflow.page.answers import AskedWrongly, cut, fitting
from asyncflow.store.task_table import TaskState
from asyncflow.values import MOST_ITEM_CHARACTERS, Status, indexes_of, repetitions_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.client.run_files import RunRecord

PAGE: Final = 200
_FAILED: Final = (TaskState.FAILED,)
_STOPPED: Final = (TaskState.STOPPED,)
_STARTED: Final = (TaskState.STARTED,)
_DONE: Final = (TaskState.SUCCEEDED, TaskState.CLONED)
_GROUPS: Final = (_FAILED, _STARTED, _STOPPED, _DONE)
"""The order of a list by state; of a run that has ended, what was started was interrupted."""
_PATH: Final = re.compile(r"(?:\[\d{1,10}\])+")
_MOST_PATHS: Final = 5_000  # tasks whose whole path is read to find one


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """Which tasks are asked for, and in which order."""

    step: str | None = None
    states: Sequence[str] = ()
    find: str = ""
    order: str = "state"
    after: str = ""


def task_list(record: RunRecord, choice: TaskChoice) -> dict[str, Any]:
    """The chosen tasks, how many of them there are, and where to go on.

    Raises:
        JournalError: The run is damaged.
    """
    step = _number(record, choice.step)
    groups = _groups(record, choice, step)
    found: int | None = sum(map(len, groups))
    rows: Iterable[tuple[str, int]]
    if choice.order == "seconds":
        rows = _by_seconds(record, groups, choice.after)
    else:
        rows = _by_id(groups, choice.after)
    wanted = set(choice.states)
    taken: list[dict[str, Any]] = []
    cursor = None
    shown = ((where, task_row(record, task)) for where, task in rows)
    if wanted:  # a failed task of a run that goes on may be one that will be tried again
        shown = ((where, row) for where, row in shown if row["status"] in wanted)
    for where, row in islice(shown, PAGE + 1):
        if len(taken) == PAGE:
            break
        taken.append(row)
        cursor = where
    else:
        cursor = None
    kept, whole = fitting(taken)
    if not whole:
        places = dict(zip((row["task_id"] for row in taken), map(str, range(PAGE)), strict=False))
        cursor = _cursor_of(kept[-1], choice, places) if kept else None
    return {"tasks": kept, "counts": _counts(record, step), "found": found, "next": cursor}


def _cursor_of(row: dict[str, Any], choice: TaskChoice, places: dict[str, str]) -> str:
    if choice.order == "seconds":
        before = int(choice.after or 0)
        return str(before + int(places[row["task_id"]]) + 1)
    group = {"failed": 0, "running": 1, "interrupted": 1, "cancelled": 2, "succeeded": 3}
    rank = 0 if choice.order == "id" or row["waiting"] else group[row["status"]]
    return f"{rank}:{row['task_id']}"


def _number(record: RunRecord, step: str | None) -> int | None:
    if step is None:
        return None
    for number, (name, _) in enumerate(record.summary().steps):
        if name == step:
            return number
    raise AskedWrongly(404, f"the run has no step {step!r:.100}")


def _groups(record: RunRecord, choice: TaskChoice, step: int | None) -> list[array[int]]:
    """The ids of the chosen tasks, ascending in each group, in the order of the groups."""
    table, running = record.tasks.table(), record.status() is Status.RUNNING
    wanted = _states(choice.states, running=running)
    states = [tuple(state for state in group if state in wanted) for group in _GROUPS]
    if choice.order == "id":
        states = [tuple(state for group in states for state in group)]
    groups = [table.tasks_in(step, group) if group else array("I") for group in states]
    if choice.find:
        among = _found(record, choice.find)
        groups = [array("I", (task for task in group if task in among)) for group in groups]
    return groups


def _states(given: Sequence[str], *, running: bool) -> set[TaskState]:
    if not given:
        return {state for group in _GROUPS for state in group}
    found: set[TaskState] = set()
    for each in given:
        match each:
            case "failed":
                found |= {*_FAILED}
            case "cancelled":
                found |= {*_STOPPED}
            case "succeeded":
                found |= {*_DONE}
            case "running" if running:
                found |= {*_STARTED, *_FAILED}
            case "interrupted" if not running:
                found |= {*_STARTED}
    return found


def _found(record: RunRecord, text: str) -> set[int]:
    """The tasks with this id, this innermost index, this path, or this text in their item."""
    table = record.tasks.table()
    text = text.strip()
    if _PATH.fullmatch(text):
        path = tuple(int(each) for each in re.findall(r"\d+", text))
        candidates = islice(table.with_index(path[-1]), _MOST_PATHS)
        if len(path) == 1:
            return set(candidates)
        return {task for task in candidates if indexes_of(record.tasks.path_of(task)) == path}
    if text.isascii() and text.isdecimal() and len(text) < 11:  # noqa: PLR2004 - as long as an id may be
        number = int(text)
        return {number, *table.with_index(number)} | times_of(record).tasks_with_item(text)
    return times_of(record).tasks_with_item(text)


def _by_id(groups: Sequence[array[int]], after: str) -> Iterator[tuple[str, int]]:
    rank, _, last = after.partition(":")
    begin, seen = (int(rank), int(last)) if rank.isdecimal() and last.isdecimal() else (0, 0)
    for number, group in enumerate(groups):
        if number < begin:
            continue
        first = bisect_right(group, seen) if number == begin else 0
        for task in islice(group, first, None):
            yield f"{number}:{task}", task


def _by_seconds(
    record: RunRecord, groups: Sequence[array[int]], after: str
) -> Iterator[tuple[str, int]]:
    times = times_of(record)
    now = times.last

    def length(task: int) -> int:
        row = times.row_of[task] if task < len(times.row_of) else -1
        if row < 0:
            return 0
        return (times.end[row] if times.end[row] >= 0 else now) - times.begin[row]

    tasks = sorted((task for group in groups for task in group), key=length, reverse=True)
    begin = int(after) if after.isdecimal() else 0
    for at in range(begin, len(tasks)):
        yield str(at + 1), tasks[at]


def _counts(record: RunRecord, step: int | None) -> dict[str, int]:
    table = record.tasks.table()
    states = table.states() if step is None else table.states_of(step)
    running = record.status() is Status.RUNNING
    started = states.get(TaskState.STARTED, 0)
    return {
        "failed": states.get(TaskState.FAILED, 0),
        "running": started if running else 0,
        "succeeded": sum(states.get(state, 0) for state in _DONE),
        "cancelled": states.get(TaskState.STOPPED, 0),
        "interrupted": 0 if running else started,
    }


# --- one task -----------------------------------------------------------------------------------


def task_row(record: RunRecord, task: int) -> dict[str, Any]:
    """What a list says of a task; if its records are damaged, why it cannot say more."""
    entry = record.tasks.entry(task)
    step = record.tasks.step_of(entry) if entry is not None else ""
    base = {
        "pathspec": f"{record.pathspec}/{step}/{task}",
        "step": step,
        "task_id": str(task),
        "status": "interrupted",
        "waiting": False,
        "attempt": entry.attempt if entry is not None else 0,
        "path": [],
        "index": None,
        "item": None,
        "from": None,
        "to": None,
        "seconds": None,
        "failure": None,
        "caught": False,
        "cloned_from": None,
        "memory": None,
        "cpu_seconds": None,
    }
    if entry is None:
        return base
    try:
        return {**base, **_told(record, Attempts(record, step, task))}
    except (AsyncflowError, OSError) as error:
        return {**base, "failure": cut(str(error), 300)}


def _told(record: RunRecord, attempts: Attempts) -> dict[str, Any]:
    began, last, ended = record.summary().started, attempts.last_event(), attempts.ended()
    path = indexes_of(last.path)
    cpu_seconds, memory = attempts.usage()
    status = attempts.status()
    waiting = isinstance(ended, TaskFailed) and status is Status.RUNNING
    over = not isinstance(last, TaskStarted) and not waiting
    started = (to_microseconds(attempts.created_at()) - began) // 1000
    told: dict[str, Any] = {
        "status": str(status),
        "waiting": waiting,
        "attempt": last.attempt,
        "path": list(path),
        "index": path[-1] if path else None,
        "repetition": repetitions_of(last.path),
        "from": started,
        "to": (to_microseconds(last.time) - began) // 1000 if over else None,
        "seconds": last.seconds if isinstance(last, TaskSucceeded | TaskFailed) else None,
        "item": cut(attempts.item(), MOST_ITEM_CHARACTERS) or None,
        "memory": memory,
        "cpu_seconds": cpu_seconds,
    }
    if isinstance(ended, TaskFailed):
        told["failure"] = cut(f"{ended.exception_type}: {ended.message}".partition("\n")[0], 300)
    elif isinstance(ended, TaskSucceeded):
        told["caught"] = bool(ended.failed)
    elif isinstance(ended, TaskCloned):
        where = ended.origin_run_id, attempts.step, ended.origin_task_id
        told["cloned_from"] = "/".join([record.place.flow, *where])
    return told
