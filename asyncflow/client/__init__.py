"""Look back at runs, finished or live, from any process; starts nothing and changes nothing.

    Flow("MyFlow").latest_run.data.model
    Run("MyFlow/1666720673449590")["train"].task.stdout

Iterating a flow gives its runs, newest first; a run its steps, a step its tasks, a task its
artifacts. Each has `id`, `pathspec` and `parent`; `parent[id]` finds it, and `id in parent` says
whether it exists. Everything is read on demand: a run that has ended opens in the same time whether
it has four tasks or a hundred thousand, and no value is unpickled before `.data` is used.

A run that still goes on shows what its journal holds at that moment.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from asyncflow.client.artifact_values import Data
    from asyncflow.client.namespaces import (
        default_metadata,
        default_namespace,
        get_metadata,
        get_namespace,
        inspect_spin,
        metadata,
        namespace,
    )
    from asyncflow.client.objects import (
        Artifact,
        Artifacts,
        Attempt,
        DataArtifact,
        Flow,
        Metadata,
        Run,
        Step,
        Task,
    )
    from asyncflow.client.store_view import Metaflow, Store

__all__ = [
    "Artifact",
    "Artifacts",
    "Attempt",
    "Data",
    "DataArtifact",
    "Flow",
    "Metadata",
    "Metaflow",
    "Run",
    "Step",
    "Store",
    "Task",
    "default_metadata",
    "default_namespace",
    "get_metadata",
    "get_namespace",
    "inspect_spin",
    "metadata",
    "namespace",
]

# Imported when they are first used: an engine needs what a log line looks like, and no objects.
_OBJECTS: Final = frozenset(
    ["Artifact", "Artifacts", "Attempt", "DataArtifact", "Flow", "Metadata", "Run", "Step", "Task"]
)
_LATER: Final = {
    **dict.fromkeys(__all__, "asyncflow.client.namespaces"),
    **dict.fromkeys(_OBJECTS, "asyncflow.client.objects"),
    "Data": "asyncflow.client.artifact_values",
    "Metaflow": "asyncflow.client.store_view",
    "Store": "asyncflow.client.store_view",
}


def __getattr__(name: str) -> Any:
    module = _LATER.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    found = globals()[name] = getattr(importlib.import_module(module), name)
    return found
