"""Turns events into journal records, and journal records into events."""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncflow.events.output_lines import split_lines
from asyncflow.events.output_records import output_of
from asyncflow.events.records import (
    FIELDS,
    HEAD_FIELDS,
    KNOWN,
    LOGGED,
    OF_TASKS,
    STREAMS,
    TASK_AT,
    TYPES,
    fields_of,
    named_fields,
    seq_of,
    time_of,
)
from asyncflow.events.types import (
    Event,
    TaskEvent,
    TaskLogged,
    from_microseconds,
    let_resolve,
    to_microseconds,
)
from asyncflow.values import tags_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncflow.events.types import Resolve

_VALUES_OF: Final = {code: attrgetter("seq", "time", *names) for code, names in FIELDS.items()}


def pack_logged(
    first_seq: int,
    time: int,
    task: tuple[str, int, int],
    stream: int,
    pid: int,
    data: bytes,
    previous: int,
) -> bytes:
    """The journal record of a chunk of output; `task` is step, task id and attempt."""
    record = (LOGGED, first_seq, time, *task, stream, pid, data, previous)
    return cast("bytes", msgpack.packb(record))


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
        return _logged(values, flow, run_id)
    return (event_of(values, flow, run_id, resolve),) if code in KNOWN else ()


def event_of(
    values: Sequence[Any], flow: str, run_id: str, resolve: Resolve | None = None
) -> Event:
    """The event that the fields of a record stand for; not for a record of output."""
    code = values[0]
    cls, setters, conversions = _MAKERS[code]
    time, rest = from_microseconds(time_of(values)), [*values[HEAD_FIELDS:]]
    if len(rest) < len(FIELDS[code]):
        named = named_fields(values)
        for name, convert in _CONVERSIONS.items():
            if name in named:
                named[name] = convert(named[name])
        made = cls(flow=flow, run_id=run_id, seq=seq_of(values), time=time, **named)
        return let_resolve(made, resolve)
    for at, convert in conversions:
        rest[at] = convert(rest[at])
    # As in `_logged`, without what a frozen dataclass does: in half of the time.
    event = _new(cls)
    for put, value in zip(setters, (flow, run_id, seq_of(values), time, *rest), strict=False):
        put(event, value)
    return let_resolve(event, resolve)


def _logged(values: Sequence[Any], flow: str, run_id: str) -> Iterator[TaskLogged]:
    seq, time, step, task, attempt, stream, pid, data, _ = output_of(values)
    moment, task_id, stream_name = from_microseconds(time), str(task), STREAMS[stream]
    for line, end in split_lines(data):
        # There are more of these than of all other events. Setting the slots directly, without the
        # checks of a frozen dataclass, takes a third of the time.
        event = _new(TaskLogged)
        _set_flow(event, flow)
        _set_run_id(event, run_id)
        _set_seq(event, seq)
        _set_time(event, moment)
        _set_step(event, step)
        _set_task_id(event, task_id)
        _set_attempt(event, attempt)
        _set_stream(event, stream_name)
        _set_line(event, line)
        _set_end(event, end)
        _set_pid(event, pid)
        yield event
        seq += 1


_CONVERSIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "task_id": str,
    "path": tuple,
    "parents": tuple,
    "tags": tags_from,
}
"""What fields of events are made of those of records, by name."""


def _maker(
    code: int, cls: type[Event]
) -> tuple[type[Event], list[Callable[[Event, Any], None]], list[tuple[int, Callable[[Any], Any]]]]:
    """What sets each field of an event, in order, and what converts those of its record."""
    slots = {name: slot for owner in reversed(cls.__mro__) for name, slot in vars(owner).items()}
    setters = [slots[field.name].__set__ for field in fields(cls)]
    places = enumerate(FIELDS[code])
    return cls, setters, [(at, _CONVERSIONS[n]) for at, n in places if n in _CONVERSIONS]


_MAKERS: Final = {code: _maker(code, cls) for code, cls in TYPES.items()}

_new: Final = object.__new__
_set_flow, _set_run_id, _set_seq, _set_time = (
    vars(Event)[name].__set__ for name in ("flow", "run_id", "seq", "time")
)
_set_step, _set_task_id, _set_attempt = (
    vars(TaskEvent)[name].__set__ for name in ("step", "task_id", "attempt")
)
_set_stream, _set_line, _set_end, _set_pid = (
    vars(TaskLogged)[name].__set__ for name in ("stream", "line", "end", "pid")
)
