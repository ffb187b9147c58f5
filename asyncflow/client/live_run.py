"""How a run stands that goes on: its process, how long it runs, its slowest task, its waits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncflow.client.step_rows import run_progress, step_rows
from asyncflow.client.waiting import waits_of
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.objects import Run
    from asyncflow.client.run_files import RunRecord


def live_data(run: Run) -> dict[str, Any]:
    """As plain data; of a run that does not go on, `so_far` and `slowest` are None.

    Raises:
        JournalError: The run is damaged.
    """
    record = run._record  # noqa: SLF001 - parts of one package
    started, is_live = record.started, run.status is Status.RUNNING
    progress = run_progress(record)
    return {
        "pid": started.pid,
        "host": started.host,
        "so_far": _so_far(run.created_at) if is_live else None,
        "done": progress["done"],
        "total": progress["total"],
        "slowest": _slowest(record) if is_live else None,
        "waits": waits_of(record),
    }


def expected_of(run: Run) -> dict[str, int | None]:
    """How many tasks each step will have; None where that is not known.

    Raises:
        JournalError: The run is damaged.
    """
    rows = step_rows(run._record)  # noqa: SLF001 - parts of one package
    return {row["step"]: row["expected"] for row in rows}


def _so_far(began: datetime) -> float:
    return max((datetime.now(UTC) - began).total_seconds(), 0.0)


def _slowest(record: RunRecord) -> dict[str, Any] | None:
    """The task that has been running longest."""
    attempts = record.tasks.attempts()
    running = attempts.running()
    if not running:
        return None
    began, task, item = min(running)
    entry = record.tasks.entry(task)
    step = record.tasks.step_of(entry) if entry is not None else ""
    now = datetime.now(UTC).timestamp() - (record.summary().started + began) / 1e6
    return {
        "pathspec": f"{record.pathspec}/{step}/{task}",
        "step": step,
        "task_id": str(task),
        "item": item,
        "so_far": max(now, 0.0),
    }
