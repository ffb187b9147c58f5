"""Makes events from the fields of records, in a fraction of the time of their constructors.

A frozen dataclass sets each of its fields by a call. So an event begins as a *draft*: an object of
a subclass that has the same slots, and whose fields are set by plain assignments. Once all are set,
the draft is given the class of the event, and is frozen like any other.

Nothing is checked here: the fields are those of records that were checked, or that this engine has
just made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow.events.output_lines import split_lines
from asyncflow.events.records import (
    FIELDS,
    HEAD_FIELDS,
    STARTED,
    STREAMS,
    SUCCEEDED,
    TYPES,
    named_fields,
    seq_of,
    time_of,
)
from asyncflow.events.types import (
    Event,
    TaskLogged,
    TaskStarted,
    TaskSucceeded,
    from_microseconds,
    let_resolve,
    set_resolve,
)
from asyncflow.values import tags_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.events.types import Resolve

Maker = Callable[[Sequence[Any], str, str, datetime, "Resolve | None"], Event]
"""Makes an event of the fields of a record, its flow, its run id and its time."""


def event_of(
    values: Sequence[Any], flow: str, run_id: str, resolve: Resolve | None = None
) -> Event:
    """The event that the fields of a record stand for; not for a record of output."""
    time = from_microseconds(time_of(values))
    return _MAKERS[values[0]](values, flow, run_id, time, resolve)


def event_list(
    records: Iterable[Sequence[Any]], flow: str, run_id: str, resolve: Resolve | None = None
) -> list[Event]:
    """The events that the fields of these records stand for; none of them may be of output."""
    return [
        _MAKERS[values[0]](values, flow, run_id, from_microseconds(time_of(values)), resolve)
        for values in records
    ]


def logged(values: Sequence[Any], flow: str, run_id: str) -> list[TaskLogged]:
    """One event for each line of a record of output."""
    _, seq, time, step, task, attempt, stream, pid, data, *_ = values
    moment, task_id, stream_name = from_microseconds(time), str(task), STREAMS[stream]
    events: list[TaskLogged] = []
    draft: Any
    for line, end in split_lines(data):
        draft = _new(_LoggedDraft)
        draft.flow = flow
        draft.run_id = run_id
        draft.seq = seq
        draft.time = moment
        draft.step = step
        draft.task_id = task_id
        draft.attempt = attempt
        draft.stream = stream_name
        draft.line = line
        draft.end = end
        draft.pid = pid
        draft.__class__ = TaskLogged
        events.append(draft)
        seq += 1
    return events


# --- one kind of record each ------------------------------------------------------------------

_new: Final = object.__new__


def _draft_of(cls: type[Event]) -> type[Event]:
    """A class with the slots of that event, whose fields can be assigned."""
    # With both methods of `object`, the interpreter assigns a field itself, without a call.
    methods = {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__}
    return type(f"{cls.__name__}Draft", (cls,), {"__slots__": (), **methods})


def _maker(code: int, cls: type[Event]) -> Maker:
    """What makes events of one type, whatever its fields are."""
    draft_class, names = _draft_of(cls), FIELDS[code]
    conversions = [(at, _CONVERSIONS[n]) for at, n in enumerate(names) if n in _CONVERSIONS]

    def make(
        values: Sequence[Any], flow: str, run_id: str, time: datetime, resolve: Resolve | None
    ) -> Event:
        rest = [*values[HEAD_FIELDS:]]
        if len(rest) < len(names):  # the others get their defaults
            given = named_fields(values)
            for name in _CONVERSIONS.keys() & given:
                given[name] = _CONVERSIONS[name](given[name])
            made = cls(flow=flow, run_id=run_id, seq=seq_of(values), time=time, **given)
            return let_resolve(made, resolve)
        for at, convert in conversions:
            rest[at] = convert(rest[at])
        draft: Any = _new(draft_class)
        draft.flow, draft.run_id, draft.seq, draft.time = flow, run_id, seq_of(values), time
        for name, value in zip(names, rest, strict=False):  # a later version may have added some
            setattr(draft, name, value)
        draft.__class__ = cls
        return let_resolve(draft, resolve)

    return make


def _started(
    values: Sequence[Any], flow: str, run_id: str, time: datetime, resolve: Resolve | None
) -> Event:
    if len(values) != _STARTED_FIELDS:
        return _any_started(values, flow, run_id, time, resolve)
    draft: Any = _new(_StartedDraft)
    draft.flow = flow
    draft.run_id = run_id
    draft.time = time
    _, draft.seq, _, draft.step, task, draft.attempt, path, draft.pid, parents, node, item = values
    draft.task_id = str(task)
    draft.path = tuple(path)
    draft.parents = tuple(parents)
    draft.node = node
    draft.item = item
    draft.__class__ = TaskStarted
    return cast("Event", draft)


def _succeeded(
    values: Sequence[Any], flow: str, run_id: str, time: datetime, resolve: Resolve | None
) -> Event:
    if len(values) != _SUCCEEDED_FIELDS:
        return _any_succeeded(values, flow, run_id, time, resolve)
    draft: Any = _new(_SucceededDraft)
    draft.flow = flow
    draft.run_id = run_id
    draft.time = time
    (
        _,
        draft.seq,
        _,
        draft.step,
        task,
        draft.attempt,
        path,
        draft.manifest,
        draft.seconds,
        draft.pid,
        draft.fanout,
        draft.items,
        draft.log,
        draft.failed,
        draft.choice,
        draft.cpu_seconds,
        draft.peak_memory,
        draft.cards,
    ) = values
    draft.task_id, draft.path = str(task), tuple(path)
    draft.__class__ = TaskSucceeded
    if resolve is not None:
        set_resolve(draft, resolve)
    return cast("Event", draft)


_CONVERSIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "task_id": str,
    "path": tuple,
    "parents": tuple,
    "tags": tags_from,
}
"""What fields of events are made of those of records, by name."""

_StartedDraft, _SucceededDraft, _LoggedDraft = map(
    _draft_of, (TaskStarted, TaskSucceeded, TaskLogged)
)
_STARTED_FIELDS: Final = HEAD_FIELDS + len(FIELDS[STARTED])
_SUCCEEDED_FIELDS: Final = HEAD_FIELDS + len(FIELDS[SUCCEEDED])

_MAKERS: Final = {code: _maker(code, cls) for code, cls in TYPES.items()}
_any_started, _any_succeeded = _MAKERS[STARTED], _MAKERS[SUCCEEDED]
_MAKERS.update({STARTED: _started, SUCCEEDED: _succeeded})  # nearly all events of a wide run
