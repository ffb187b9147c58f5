"""What the records of a journal refer to: values, and the journals of the runs taken over from.

The places of a record's fields are those of `asyncflow.events`, which only ever adds some at the
end. A record is read as far as it is needed and no event is made of it: a store has millions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from asyncflow.events import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RUN_STARTED: Final = RunStarted.code
LOGGED: Final = TaskLogged.code
SUCCEEDED: Final = TaskSucceeded.code
FAILED: Final = TaskFailed.code
CLONED: Final = TaskCloned.code
REFERRING: Final = frozenset({RUN_STARTED, SUCCEEDED, CLONED})
"""Records of these kinds refer to values."""
OF_TASKS: Final = frozenset({TaskStarted.code, LOGGED, SUCCEEDED, FAILED, TaskRetried.code, CLONED})
ENDINGS: Final = frozenset({RunSucceeded.code, RunFailed.code, RunCancelled.code})
KNOWN: Final = OF_TASKS | ENDINGS | {RUN_STARTED}

FLOW_CLASS: Final = "(the flow class)"
ITEMS: Final = "(what its foreach runs over)"

_SHORT_ARRAY: Final = 0x90  # msgpack: up to 15 elements
_ARRAY_16: Final = 0xDC
_LOG_AT: Final = {LOGGED: 9, SUCCEEDED: 12, FAILED: 13}
_ITEMS_AT: Final = {SUCCEEDED: 11, CLONED: 9}
_MANIFEST_AT: Final = {RUN_STARTED: 6, SUCCEEDED: 7, CLONED: 7}


class Reference(NamedTuple):
    """One value that a record refers to."""

    name: str
    """The artifact's, or what else it is, in brackets."""
    ref: Sequence[Any]
    """The fields of an `ArtifactRef`."""


class Origin(NamedTuple):
    """Where a run's first event says that it comes from."""

    run_id: str
    started: int
    """Microseconds since 1970."""


def code_of(record: bytes) -> int:
    """What kind of record it is, without unpacking it."""
    if len(record) > 1 and record[0] & 0xF0 == _SHORT_ARRAY:
        return record[1]
    if len(record) > 3 and record[0] == _ARRAY_16:  # noqa: PLR2004 - behind the array's length
        return record[3]
    return -1


def unpack(record: bytes) -> list[Any]:
    """The fields of a record.

    Raises:
        ValueError: It is no record.
    """
    values: list[Any] = msgpack.unpackb(record, strict_map_key=False)
    return values


def references_of(values: Sequence[Any]) -> Iterator[Reference]:
    """Every value that a record of one of the `REFERRING` kinds refers to."""
    code = values[0]
    for name, ref in unpack_refs(values[_MANIFEST_AT[code]]).items():
        yield Reference(name, ref)
    if code == RUN_STARTED:
        source = values[8]
        if isinstance(source.get("ref"), list):
            yield Reference(FLOW_CLASS, source["ref"])
    elif values[_ITEMS_AT[code]]:
        yield Reference(ITEMS, msgpack.unpackb(values[_ITEMS_AT[code]]))


def unpack_refs(manifest: bytes) -> dict[str, list[Any]]:
    """The refs of a packed manifest, each as a list of an `ArtifactRef`'s fields."""
    refs: dict[str, list[Any]] = msgpack.unpackb(manifest, strict_map_key=False)
    return refs


def output_before(values: Sequence[Any]) -> int:
    """Where the journal has the output before this record of the same attempt; 0 for none."""
    at = _LOG_AT.get(values[0], len(values))
    return int(values[at]) if at < len(values) else 0


def origin_of(values: Sequence[Any]) -> Origin:
    """What a RunStarted says of the run that it resumes; the id is empty where it resumes none."""
    return Origin(values[7] or "", values[2])


def cloned_from(values: Sequence[Any]) -> str:
    """The run that a TaskCloned took its task from."""
    return str(values[10])
