"""Turns events into journal records, and journal records into events."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncflow.events.drafts import event_of, logged
from asyncflow.events.records import FIELDS, KNOWN, LOGGED, OF_TASKS, TASK_AT, fields_of
from asyncflow.events.types import to_microseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow.events.types import Event, Resolve

_VALUES_OF: Final = {code: attrgetter("seq", "time", *names) for code, names in FIELDS.items()}


def journalled(event: Event) -> tuple[bytes, Event]:
    """The journal record of any event but TaskLogged, and the event as a reader will get it."""
    try:
        return pack_values(_values(event)), event
    except UnicodeEncodeError:
        # A byte that is not UTF-8, as in a file name, shows as `\udcNN`.
        record: bytes = msgpack.packb(_values(event), unicode_errors="backslashreplace")
        return record, event_of(fields_of(record), event.flow, event.run_id)


def pack_event(event: Event) -> bytes:
    """The journal record of any event but TaskLogged."""
    return journalled(event)[0]


pack_values: Final = cast("Callable[[Sequence[Any]], bytes]", msgpack.Packer().pack)
"""Makes the journal record with these fields, whose texts are UTF-8.

Used for all events: `packb` makes a packer for each, which takes half of its time.
"""


def _values(event: Event) -> list[Any]:
    code = event.code
    seq, time, *rest = _VALUES_OF[code](event)
    values = [code, seq, to_microseconds(time), *rest]
    if code in OF_TASKS:
        values[TASK_AT] = int(values[TASK_AT] or 0)
    return values


def unpack_events(
    record: bytes, flow: str, run_id: str, resolve: Resolve | None = None
) -> Iterable[Event]:
    """The events that a record stands for; none if only a later version knows its kind.

    `resolve` is for `artifacts`, where the record does not say them all.

    Raises:
        RecordError: The bytes are not a valid record.
    """
    return events_of(fields_of(record), flow, run_id, resolve)


def events_of(
    values: Sequence[Any], flow: str, run_id: str, resolve: Resolve | None = None
) -> Iterable[Event]:
    """The events that these fields stand for; none if only a later version knows their kind."""
    code = values[0]
    if code == LOGGED:
        return logged(values, flow, run_id)
    return (event_of(values, flow, run_id, resolve),) if code in KNOWN else ()
