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
from typing import TYPE_CHECKING, Any, Final

from asyncflow.events.output_lines import split_lines
from asyncflow.events.records import (
    FIELDS,
    HEAD_FIELDS,
    STARTED,
    STREAMS,
    SUCCEEDED,
    TIME_AT,
    TYPES,
    named_fields,
    seq_of,
)
from asyncflow.events.types import (
    Event,
    TaskLogged,
    TaskStarted,
    TaskSucceeded,
    from_microseconds,
    let_resolve,
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
    return event_list((values,), flow, run_id, resolve)[0]


def event_list(
    records: Iterable[Sequence[Any]], flow: str, run_id: str, resolve: Resolve | None = None
) -> list[Event]:
    """The events that the fields of these records stand for; none of them may be of output.

    Nearly all events of a wide run are made in this loop. The two of a task mostly follow each
    other, and records of one batch have one time: what such neighbours share is made once.
    """
    # Each kind has assignments of its own, even where they are the same: the interpreter is quick
    # with an assignment that always meets one class, and makes a call where it meets two.
    events: list[Event] = []
    microseconds, time = 0, from_microseconds(0)
    last_task, task_id = 0, "0"
    draft: Any
    for values in records:
        if values[TIME_AT] != microseconds:
            microseconds = values[TIME_AT]
            time = from_microseconds(microseconds)
        if values[0] == SUCCEEDED and len(values) == _SUCCEEDED_FIELDS:
            draft = _SucceededDraft()
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
            if resolve is not None:
                draft._resolve = resolve  # noqa: SLF001 - the slot that `set_resolve` sets, without its call
            draft.flow = flow
            draft.run_id = run_id
            draft.time = time
            if task != last_task:
                last_task, task_id = task, str(task)
            draft.task_id = task_id
            draft.path = tuple(path)
            draft.__class__ = TaskSucceeded
        elif values[0] == STARTED and len(values) == _STARTED_FIELDS:
            draft = _StartedDraft()
            (
                _,
                draft.seq,
                _,
                draft.step,
                task,
                draft.attempt,
                path,
                draft.pid,
                parents,
                draft.node,
                draft.item,
            ) = values
            draft.parents = tuple(parents)
            draft.flow = flow
            draft.run_id = run_id
            draft.time = time
            if task != last_task:
                last_task, task_id = task, str(task)
            draft.task_id = task_id
            draft.path = tuple(path)
            draft.__class__ = TaskStarted
        else:
            events.append(_MAKERS[values[0]](values, flow, run_id, time, resolve))
            continue
        events.append(draft)
    return events


def logged(values: Sequence[Any], flow: str, run_id: str) -> list[TaskLogged]:
    """One event for each line of a record of output."""
    _, seq, time, step, task, attempt, stream, pid, data, *_ = values
    moment, task_id, stream_name = from_microseconds(time), str(task), STREAMS[stream]
    events: list[TaskLogged] = []
    draft: Any
    for line, end in split_lines(data):
        draft = _LoggedDraft()
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


def _draft_of(cls: type[Event]) -> Callable[[], Any]:
    """Makes objects with the slots of that event, whose fields can be assigned."""
    # With both methods of `object`, the interpreter assigns a field itself, without a call.
    # With both constructors of `object`, it makes an object without a call of Python's, too.
    names = "__setattr__", "__delattr__", "__new__", "__init__"
    methods = {name: getattr(object, name) for name in names}
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
        draft: Any = draft_class()
        draft.flow, draft.run_id, draft.seq, draft.time = flow, run_id, seq_of(values), time
        for name, value in zip(names, rest, strict=False):  # a later version may have added some
            setattr(draft, name, value)
        draft.__class__ = cls
        return let_resolve(draft, resolve)

    return make


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
