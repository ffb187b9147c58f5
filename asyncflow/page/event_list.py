"""The events of a run as plain data for the page: without refs, with texts of a bounded length."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import AsyncflowError
from asyncflow.events.packing import unpack_events
from asyncflow.events.records import KNOWN
from asyncflow.events.types import (
    ArtifactsEvent,
    Event,
    RunStarted,
    TaskEvent,
    event_types,
    to_microseconds,
)
from asyncflow.page.answers import ROOM_BYTES, AskedWrongly, cut, size_of
from asyncflow.page.journal_marks import marks_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import Manifest

SEARCH_BYTES: Final = 50 << 20
"""How much of a journal one question may read."""
SEARCH_SECONDS: Final = 2.0
LONG: Final = 4_000  # characters of a text
MOST_NAMES: Final = 50  # of artifacts
_LEFT_OUT: Final = frozenset(
    {
        "cards",
        "code",
        "flow",
        "run_id",
        "graph",
        "manifest",
        "items",
        "code_ref",
        "digests",
        "source",
        "trace",
    }
)
_CODES: Final = {cls.__name__: cls.code for cls in event_types()}


@dataclass(frozen=True, slots=True)
class EventChoice:
    """Which events are asked for."""

    types: Collection[str] = ()
    step: str | None = None
    task: str | None = None
    after: int = 0
    limit: int = 200


def event_data(event: Event, started: int) -> dict[str, Any]:
    """An event as plain data; `started` is when its run was, in microseconds since 1970."""
    data: dict[str, Any] = {
        "type": type(event).__name__,
        "seq": event.seq,
        "time": event.time.isoformat(),
        "at": (to_microseconds(event.time) - started) // 1000,
    }
    for name in event.__dataclass_fields__:
        if name in _LEFT_OUT or name in data:
            continue
        value = getattr(event, name)
        if isinstance(value, bytes):  # refs, packed
            continue
        if isinstance(value, str):
            if len(value) > LONG:
                # a traceback says most at its end
                value = "…" + value[-LONG:] if name == "traceback" else cut(value, LONG)
                data[f"{name}_cut"] = True
        elif isinstance(value, tuple):
            value = list(islice(value, MOST_NAMES))
        elif isinstance(value, dict):
            value = {
                cut(str(key), 200): cut(str(each), 200)
                for key, each in islice(value.items(), MOST_NAMES)
            }
        data[name] = value
    if isinstance(event, ArtifactsEvent | RunStarted):
        data["artifacts"] = _names(event)
    return data


def _names(event: ArtifactsEvent | RunStarted) -> list[str]:
    try:
        return names_in(event.artifacts)
    except AsyncflowError:
        return []


def names_in(manifest: Manifest) -> list[str]:
    """The names of the first artifacts of a manifest."""
    return [cut(name, 200) for name in islice(manifest, MOST_NAMES)]


def codes_of(types: Collection[str]) -> frozenset[int]:
    """The kinds of records of these events.

    Raises:
        AskedWrongly: There is no such event.
    """
    unknown = [each for each in types if each not in _CODES]
    if unknown:
        raise AskedWrongly(400, f"there is no event {unknown[0]!r:.60}: {', '.join(_CODES)}")
    return frozenset(_CODES[each] for each in types)


def event_list(record: RunRecord, choice: EventChoice) -> dict[str, Any]:
    """The chosen events, and where to go on.

    Raises:
        JournalError: The run is damaged.
    """
    found: list[dict[str, Any]] = []
    room, after, end = ROOM_BYTES, choice.after, True
    started = record.summary().started
    for event in _chosen(record, choice, codes_of(choice.types) or KNOWN):
        if event is None:
            end = False
            break
        if isinstance(event, int):
            after = max(after, event)
            continue
        data = event_data(event, started)
        room -= size_of(data) + 1
        if len(found) == choice.limit or room < 0:
            end = False
            break
        found.append(data)
        after = event.seq
    return {"events": found, "after": after, "end": end}


def _chosen(
    record: RunRecord, choice: EventChoice, codes: Collection[int]
) -> Iterator[Event | int | None]:
    """The chosen events; the number of one that was passed over; None if it takes too long."""
    names = [name.encode() for name in (choice.step,) if name]
    until, begin = time.monotonic() + SEARCH_SECONDS, None
    resolve = record.journal.manifests.resolved
    for at, code, seq, payload in marks_of(record).records_after(choice.after):
        begin = at if begin is None else begin
        if at - begin > SEARCH_BYTES or time.monotonic() > until:
            yield None
            return
        if code not in codes or not all(name in payload for name in names):
            yield seq
            continue
        for event in unpack_events(payload, record.place.flow, record.run_id, resolve):
            if event.seq <= choice.after:
                continue
            yield event if is_of(event, choice.step, choice.task) else event.seq


def is_of(event: Event, step: str | None, task: str | None) -> bool:
    """Whether an event is about this step and this task, if they are given."""
    if step is None and task is None:
        return True
    if not isinstance(event, TaskEvent):
        return False
    return step in {None, event.step} and task in {None, event.task_id}
