"""Facts about a task by the names that Metaflow gives them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asyncflow.events.types import TaskCloned
from asyncflow.values import Status, indexes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.client.attempts import Attempts


def facts_of(attempts: Attempts) -> dict[str, str]:
    """The facts as text, by name; see `Task.metadata_dict`."""
    ended, last = attempts.ended(), attempts.last_event()
    facts = {
        **attempts.record.environment(),
        "script-name": _script_of(attempts.record.started.source),
        "ds-type": "local",
        "ds-root": attempts.record.place.store.location,
        "attempt": str(last.attempt),
    }
    if ended is not None:
        facts["attempt_ok"] = str(attempts.status() is Status.SUCCEEDED)
    if isinstance(ended, TaskCloned):
        facts |= {
            "origin-run-id": ended.origin_run_id,
            "origin-task-id": str(ended.origin_task_id),
        }
    facts["foreach-indices"] = ",".join(map(str, indexes_of(last.path)))
    return {name: fact for name, fact in facts.items() if fact}


def _script_of(source: Mapping[str, Any]) -> str:
    """The name of the flow's file; of a flow without one, its module's."""
    return PurePath(str(source.get("file") or "")).name or str(source.get("module") or "")
