"""Runs, steps, tasks and artifacts as plain data: for `--json`, and for a page.

Everything here consists of `dict`, `list`, `str`, numbers, `bool` and `None`, so that any JSON
writer accepts it. Events have their own form in `asyncflow.events.event_json`. Nothing here prints,
and no value of an artifact is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.client.limit_data import limits_of
from asyncflow.client.live_run import expected_of, live_data
from asyncflow.client.objects import Artifact, Flow, Run, Step, Task
from asyncflow.client.resumptions import Resumptions
from asyncflow.errors import JournalError
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from asyncflow.values import Failure

Found = Flow | Run | Step | Task | Artifact
"""Whatever a pathspec can name."""


# --- runs -------------------------------------------------------------------------------------


class Standings:
    """The status of runs in words; includes who has resumed an interrupted run."""

    def __init__(self) -> None:
        self._flows: dict[str, Resumptions] = {}

    def resumed_as(self, run: Run) -> list[str]:
        """The runs that have resumed it, oldest first."""
        place = run._place  # noqa: SLF001 - one read of a flow for all of its runs
        if place.flow not in self._flows:
            self._flows[place.flow] = Resumptions(place)
        return self._flows[place.flow].of(run.id)

    def of(self, run: Run) -> str:
        """The status, or which run goes on in its place."""
        status = run.status
        if status is Status.INTERRUPTED:
            for later in self.resumed_as(run)[-1:]:
                return f"resumed as {later}"
        return str(status)


def runs_data(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Runs as plain data, without their steps."""
    standings = Standings()
    return [_run_data(run, standings) for run in runs]


def _run_data(run: Run, standings: Standings) -> dict[str, Any]:
    return {
        "pathspec": run.pathspec,
        "flow": run.parent.id,
        "run_id": run.id,
        "status": str(run.status),
        "created_at": iso(run.created_at),
        "finished_at": iso(run.finished_at),
        "seconds": run.seconds,
        "tags": sorted(run.user_tags),
        "resumed_as": standings.resumed_as(run),
    }


# --- whatever a pathspec names ----------------------------------------------------------------


def data_of(found: Found) -> Any:
    """An object of the client with all its facts, as plain data."""
    match found:
        case Flow():
            return runs_data(found)
        case Run():
            caught, expected = caught_in(found), expected_of(found)
            return {
                **_run_data(found, Standings()),
                "user": found.user,
                "origin_run_id": found.origin_run_id,
                "parameters": parameters_of(found),
                "limits": list(limits_of(found)),
                "failure": _failure_data(found, found.failure, found.failed_item),
                "steps": [_step_data(step, caught, expected[step.id]) for step in found],
                **live_data(found),
            }
        case Step():
            return {
                **_step_data(found, caught_in(found.parent), expected_of(found.parent)[found.id]),
                "tasks": [_task_data(task) for task in found],
            }
        case Task():
            return {
                **_task_data(found),
                "failure": _failure_data(found.parent.parent, found.exception, found.item),
                "caught": _failure_data(found.parent.parent, found.caught, found.item),
                "parents": [parent.pathspec for parent in found.parents],
                "artifacts": [_artifact_data(artifact) for artifact in found],
            }
        case Artifact():
            return _artifact_data(found)


def parameters_of(run: Run) -> dict[str, str]:
    """The parameters' values as text, from the run's first event: no value is loaded."""
    return dict(run._record.started.parameters)  # noqa: SLF001 - parts of one package


def caught_in(run: Run) -> Mapping[str, int] | None:
    """How many failures of each step were caught; None if the journal is damaged."""
    try:
        return run.caught()
    except JournalError:
        return None


def _failure_data(run: Run, failure: Failure | None, item: str) -> dict[str, Any] | None:
    return failure_data(run.parent.id, run.id, failure, item) if failure else None


def _step_data(
    step: Step, caught: Mapping[str, int] | None, expected: int | None
) -> dict[str, Any]:
    return {
        "pathspec": step.pathspec,
        "task_count": step.task_count,
        "counts": {str(status): count for status, count in step.counts().items()},
        "caught": None if caught is None else caught.get(step.id, 0),
        "expected": expected,
    }


def _task_data(task: Task) -> dict[str, Any]:
    return {
        "pathspec": task.pathspec,
        "status": str(task.status),
        "attempt": task.attempt,
        "path": list(task.path),
        "created_at": iso(task.created_at),
        "finished_at": iso(task.finished_at),
        "seconds": task.seconds,
        "origin_pathspec": task.origin_pathspec,
        "item": task.item,
        "cpu_seconds": task.cpu_seconds,
        "peak_memory": task.peak_memory,
    }


def _artifact_data(artifact: Artifact) -> dict[str, Any]:
    return {
        "pathspec": artifact.pathspec,
        "type": artifact.type_name,
        "size": artifact.size,
        "sha": artifact.sha,
    }


def failure_data(flow: str, run_id: str, failure: Failure, item: str = "") -> dict[str, Any]:
    """A failure as plain data; `item` is the task's item of a foreach, as a short text."""
    task = f"{flow}/{run_id}/{failure.step}/{failure.task_id}" if failure.task_id else None
    return {
        "step": failure.step,
        "task_id": failure.task_id,
        "pathspec": task,
        "item": item,
        "attempt": failure.attempt,
        "type": failure.exception_type,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def iso(time: datetime | None) -> str | None:
    """A time as ISO 8601; None for None."""
    return time.isoformat() if time else None
