"""One task: its attempts with their failures, its artifacts with previews, and its neighbours."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.attempts import Attempts
from asyncflow.client.json_data import iso
from asyncflow.client.previews import PreviewLimits, preview_of
from asyncflow.errors import NotFoundError
from asyncflow.events.types import TaskStarted, to_microseconds
from asyncflow.page.answers import cut, fitting, shrink
from asyncflow.page.run_overview import tail_of
from asyncflow.page.task_cards import cards_of
from asyncflow.page.task_list import task_row

if TYPE_CHECKING:
    from asyncflow.client.attempts import AttemptHistory
    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import ArtifactRef, Failure

_MOST_NEIGHBOURS: Final = 20
_MOST_COUNTED: Final = 100_000
_MOST_ARTIFACTS: Final = 200
_MOST_ATTEMPTS: Final = 50
_SHORT: Final = PreviewLimits(characters=200, items=20, rows=3, seconds=0.02, bytes_read=64 << 10)
_SHORT_TOTAL_SECONDS: Final = 0.5
LONG: Final = PreviewLimits(
    characters=20_000, items=1_000, rows=20, seconds=0.5, bytes_read=4 << 20
)
"""What the preview of one artifact may have."""


def attempts_of(record: RunRecord, step: str, task_id: str) -> Attempts:
    """The task that an address names.

    Raises:
        NotFoundError: There is no such task.
    """
    task = int(task_id) if task_id.isascii() and task_id.isdecimal() and len(task_id) < 11 else 0  # noqa: PLR2004 - as long as an id may be
    entry = record.tasks.entry(task) if task else None
    if entry is None or record.tasks.step_of(entry) != step:
        raise NotFoundError(f"{record.pathspec} has no task {task_id} of a step {step!r:.100}")
    return Attempts(record, step, task)


def task_detail(record: RunRecord, step: str, task_id: str) -> dict[str, Any]:
    """All that the page shows of a task.

    Raises:
        JournalError: The run is damaged.
        NotFoundError: There is no such task.
    """
    attempts = attempts_of(record, step, task_id)
    last = attempts.last_event()
    parents, parents_count = _neighbours(record, attempts, "parents")
    children, children_count = _neighbours(record, attempts, "children")
    manifest = attempts.manifest()
    data = {
        "task": {
            **task_row(record, attempts.number),
            "created_at": iso(attempts.created_at()),
            "finished_at": iso(attempts.finished_at()),
            "pid": getattr(last, "pid", None),
            "node": _node(record, attempts),
        },
        "attempts": [_attempt(record, each) for each in attempts.all()[-_MOST_ATTEMPTS:]],
        "parents": parents,
        "children": children,
        "parents_count": parents_count,
        "children_count": children_count,
        "artifacts": _artifacts(record, attempts, manifest),
        "artifacts_count": len(manifest),
        "cards": cards_of(record, step, task_id),
    }
    shrink(data, [_without_tracebacks, _without_previews])
    return data


def _node(record: RunRecord, attempts: Attempts) -> str:
    started = record.tasks.started_task(attempts.number, attempts.entry())
    return started.node if isinstance(started, TaskStarted) else ""


def _neighbours(record: RunRecord, attempts: Attempts, which: str) -> tuple[list[str], int]:
    key = attempts.last_event().key
    find = record.lineage.parents if which == "parents" else record.lineage.children
    found = find(attempts.number, key)
    shown = [f"{record.pathspec}/{step}/{task}" for step, task in islice(found, _MOST_NEIGHBOURS)]
    return shown, len(shown) + sum(1 for _ in islice(found, _MOST_COUNTED))


def _attempt(record: RunRecord, told: AttemptHistory) -> dict[str, Any]:
    began = record.summary().started
    finished = told.finished_at
    return {
        "attempt": told.number,
        "status": str(told.status),
        "from": (to_microseconds(told.created_at) - began) // 1000,
        "to": None if finished is None else (to_microseconds(finished) - began) // 1000,
        "seconds": told.seconds,
        "memory": told.peak_memory,
        "cpu_seconds": told.cpu_seconds,
        "failure": failure_of(told.exception) if told.exception is not None else None,
    }


def failure_of(failure: Failure) -> dict[str, Any]:
    """A failure with texts of a bounded length."""
    return {
        "type": cut(failure.exception_type, 300),
        "message": cut(failure.message, 4_000),
        "traceback": tail_of(failure.traceback, 20_000),
    }


def _artifacts(
    record: RunRecord, attempts: Attempts, manifest: dict[str, ArtifactRef]
) -> list[dict[str, Any]]:
    room = _SHORT_TOTAL_SECONDS
    rows = []
    for name, ref in islice(manifest.items(), _MOST_ARTIFACTS):
        row = artifact_row(record, name, ref)
        if room > 0:
            preview, seconds = preview_of(
                record.place.artifacts, ref, f"{attempts.pathspec}/{name}", _SHORT
            )
            row["preview"] = preview
            room -= seconds
        rows.append(row)
    return fitting(rows, 120_000)[0]


def artifact_row(record: RunRecord, name: str, ref: ArtifactRef) -> dict[str, Any]:
    """What is known of an artifact without its value."""
    return {
        "name": name,
        "type": cut(ref.type_name, 300),
        "size": ref.size,
        "sha": record.place.artifacts.sha(ref),
        "preview": None,
    }


def artifact_detail(record: RunRecord, step: str, task_id: str, name: str) -> dict[str, Any]:
    """An artifact with a long preview.

    Raises:
        NotFoundError: There is no such artifact.
    """
    attempts, ref = artifact_ref(record, step, task_id, name)
    pathspec = f"{attempts.pathspec}/{name}"
    preview, _ = preview_of(record.place.artifacts, ref, pathspec, LONG)
    return {
        "pathspec": pathspec,
        **artifact_row(record, name, ref),
        "encoding": _ENCODINGS.get(ref.encoding, "unknown"),
        "preview": preview,
    }


_ENCODINGS: Final = {0: "pickle", 1: "buffers", 2: "items", 3: "bytes"}


def artifact_ref(
    record: RunRecord, step: str, task_id: str, name: str
) -> tuple[Attempts, ArtifactRef]:
    """The task and the ref of an artifact.

    Raises:
        NotFoundError: There is no such artifact.
    """
    attempts = attempts_of(record, step, task_id)
    ref = attempts.manifest().get(name)
    if ref is None:
        raise NotFoundError(f"{attempts.pathspec} has no artifact {name!r:.200}")
    return attempts, ref


def _without_tracebacks(data: dict[str, Any]) -> None:
    data["attempts"] = data["attempts"][-10:]
    for attempt in data["attempts"]:
        if attempt["failure"]:
            attempt["failure"]["traceback"] = tail_of(attempt["failure"]["traceback"], 2_000)


def _without_previews(data: dict[str, Any]) -> None:
    for artifact in data["artifacts"]:
        artifact["preview"] = None
