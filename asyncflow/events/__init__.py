"""What happens in a run: the typed events, their journal records, their JSON, and filters.

`types` defines the events. `records` knows the fields of a journal record and checks them.
`packing` turns events into records and back, and `event_json` into JSON and back. `output_lines`
divides output into lines, and `selection` picks the events that a subscriber asked for. Nothing
here opens a file or knows of a store.

Programs import the events from this package. Modules of asyncflow import from the module that
defines a name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.events.manifests import pack_manifest, unpack_manifest
from asyncflow.events.types import (
    ENDINGS,
    SCHEMA_VERSION,
    STOPPED,
    CardUpdated,
    Event,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskEvent,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
    event_types,
)

if TYPE_CHECKING:
    from asyncflow.events.event_json import from_json, from_json_data, to_json, to_json_data

__all__ = [
    "ENDINGS",
    "SCHEMA_VERSION",
    "STOPPED",
    "CardUpdated",
    "Event",
    "RunCancelled",
    "RunFailed",
    "RunStarted",
    "RunSucceeded",
    "TaskCloned",
    "TaskEvent",
    "TaskFailed",
    "TaskLogged",
    "TaskRetried",
    "TaskStarted",
    "TaskSucceeded",
    "TaskYielded",
    "event_types",
    "from_json",
    "from_json_data",
    "pack_manifest",
    "to_json",
    "to_json_data",
    "unpack_manifest",
]

_OF_JSON: Final = frozenset({"from_json", "from_json_data", "to_json", "to_json_data"})


def __getattr__(name: str) -> Any:
    """Import what makes JSON when it is first used: a run makes none."""
    if name not in _OF_JSON:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from asyncflow.events import event_json

    globals().update({each: getattr(event_json, each) for each in _OF_JSON})
    return globals()[name]
