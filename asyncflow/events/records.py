"""The records of a journal: the position of each field, its type, and what it means.

A record is a msgpack array `[code, seq, time, *fields]`. `time` is microseconds since 1970 (UTC).
The flow and the run id are those of the journal file. docs/reference/events.md lists the fields.
Only this module and `record_columns` know their positions. `asyncflow.events.packing` turns events
into records, and records into events.

Records are checked when they are read: `fields_of` returns values of the right types and in the
right ranges, or raises `RecordError`. A checksum proves that a record is what somebody wrote, not
that asyncflow wrote it. Nothing is checked on writing: an engine trusts what it has just made.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.events.field_types import (
    BYTES,
    END_OF_TIME,
    FLAG,
    INT,
    INT_OR_NONE,
    LIST,
    MAP,
    NUMBER,
    NUMBER_OR_NONE,
    TEXT,
    TEXT_OR_NONE,
    Types,
    check_types,
    is_plain,
    is_run_id,
)
from asyncflow.events.manifests import NOT_MSGPACK, ref_of, unpack, unpack_ref, unpack_told
from asyncflow.events.output_lines import count_pieces
from asyncflow.events.types import (
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
from asyncflow.values import ITEM_DIGEST_BYTES, Outcome, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asyncflow.values import ArtifactRef

RUN_STARTED: Final = RunStarted.code
STARTED: Final = TaskStarted.code
LOGGED: Final = TaskLogged.code
SUCCEEDED: Final = TaskSucceeded.code
FAILED: Final = TaskFailed.code
RETRIED: Final = TaskRetried.code
CLONED: Final = TaskCloned.code
YIELDED: Final = TaskYielded.code
CARDS: Final = CardUpdated.code

REFERRING: Final = frozenset((RUN_STARTED, SUCCEEDED, FAILED, CLONED, YIELDED, CARDS))
"""The kinds of records that refer to values."""
HANDING_ON: Final = frozenset({SUCCEEDED, CLONED})
"""The kinds of records that finish a task for good."""
ENDING_ATTEMPTS: Final = frozenset({SUCCEEDED, FAILED, CLONED})
OF_ATTEMPTS: Final = ENDING_ATTEMPTS | {STARTED}
OF_TASKS: Final = frozenset(cls.code for cls in event_types() if issubclass(cls, TaskEvent))
ENDINGS: Final = {
    RunSucceeded.code: Status.SUCCEEDED,
    RunFailed.code: Status.FAILED,
    RunCancelled.code: Status.CANCELLED,
}
"""The kinds of records that end a run, and the run's status after each."""
KNOWN: Final = frozenset(cls.code for cls in event_types())

STREAMS: Final = ("stdout", "stderr")

TYPES: Final = {cls.code: cls for cls in event_types()}
"""The event that each kind of record stands for."""
FIELDS: Final = {
    code: tuple(name for name in cls.__dataclass_fields__ if name not in Event.__dataclass_fields__)
    for code, cls in TYPES.items()
}
"""The names of the fields that follow the first three, in order, for each kind of record."""
TIME_AT: Final = 2
HEAD_FIELDS: Final = 3
"""How many fields each record has before those of its kind: code, number and time."""
_ORIGIN_AT, _SOURCE_AT, _VERSIONS_AT, _CODE_AT = 7, 8, 12, 14  # of a run's start
_TRACE_AT, _SIGNATURE_AT = 16, 17
_HEAD: Final = slice(3, 7)  # of a task's record: step, task id, attempt, path
STEP_AT, TASK_AT, ATTEMPT_AT, PATH_AT = range(3, 7)
_EXCEPTION_TYPE_AT: Final = 7
_WILL_RETRY_AT: Final = 10
_CAUGHT_AT: Final = 14
_AFTER_AT: Final = 7
_CLONED_FROM_AT: Final = 10
STREAM_AT, DATA_AT = 6, 8
PID_AT: Final = {
    code: 3 + names.index("pid") for code, names in FIELDS.items() if "pid" in names
} | {LOGGED: 7}
_LOG_AT: Final = {LOGGED: 9, SUCCEEDED: 12, FAILED: 13}
_MANIFEST_AT: Final = {RUN_STARTED: 6, SUCCEEDED: 7, FAILED: 15, CLONED: 7, YIELDED: 7}
FANOUT_AT: Final = {SUCCEEDED: 10, CLONED: 8}
_ITEMS_AT: Final = {SUCCEEDED: 11, CLONED: 9, YIELDED: 10}
_INDEX_AT, _COUNT_AT, _DIGESTS_AT = 8, 9, 11  # of items that were yielded
_CHOICE_AT: Final = {SUCCEEDED: 14, CLONED: 12}
PARENTS_AT: Final = {STARTED: 8, CLONED: 13}
ITEM_AT: Final = {STARTED: 10, FAILED: 18, CLONED: 14}
USED_AT: Final = {SUCCEEDED: 15, FAILED: 16}  # processor time, and behind it memory
_CARDS_AT: Final = {SUCCEEDED: 17, FAILED: 19, CLONED: 15, CARDS: 7}
_OUTCOME_OF: Final = {SUCCEEDED: itemgetter(7, 10, 11, 14, 17), CLONED: itemgetter(7, 8, 9, 12, 15)}


# --- what is read without unpacking it ----------------------------------------------------------

_FIXARRAY, _ARRAY_16 = 0x90, 0xDC  # msgpack's first byte of an array: of up to 15 elements, or more
_FIXINT_END, _UINT_8 = 0x80, 0xCC  # of a number: the number itself, or in 1, 2, 4 or 8 bytes


def code_of(record: bytes) -> int:
    """The kind of a record, read without unpacking the rest.

    Raises:
        RecordError: It does not begin like a record.
    """
    try:
        if record[0] & 0xF0 == _FIXARRAY:
            code = record[1]
        else:
            code = record[3] if record[0] == _ARRAY_16 else _FIXINT_END
    except IndexError:
        raise RecordError("it is cut short") from None
    if code >= _FIXINT_END:
        raise RecordError("it does not begin with the code of an event")
    return code


def peek(record: bytes) -> tuple[int, int]:
    """The kind of a record and the number of its event, read without unpacking the rest.

    Raises:
        RecordError: It does not begin like a record.
    """
    code = code_of(record)
    at = 2 if record[0] != _ARRAY_16 else 4
    first = record[at] if at < len(record) else _FIXINT_END
    if first < _FIXINT_END:
        return code, first
    size = 1 << (first - _UINT_8) if first >= _UINT_8 else 0
    if size not in {1, 2, 4, 8}:
        raise RecordError("its second field is not the number of an event")
    return code, int.from_bytes(record[at + 1 : at + 1 + size], "big")


# --- what a field may be ------------------------------------------------------------------------

MAX_TASK: Final = (1 << 32) - 1
MAX_SEQ: Final = (1 << 63) - 1
MAX_INDEX: Final = (1 << 32) - 1
MAX_ATTEMPT: Final = (1 << 32) - 1
MAX_SECONDS: Final = 1e12
MAX_MEMORY: Final = 1 << 62
MAX_OUTPUT_BYTES: Final = 1 << 20  # four times what an engine puts into one record

_OF_TASK: Final = (INT, INT, INT, TEXT, INT, INT)
KINDS: Final[dict[int, tuple[Types, ...]]] = {
    RUN_STARTED: (
        *(INT, INT, INT, MAP, MAP, LIST, BYTES, TEXT_OR_NONE, MAP),
        *(TEXT, INT, TEXT, MAP, TEXT_OR_NONE, BYTES, TEXT, MAP, MAP),
    ),
    STARTED: (*_OF_TASK, LIST, INT, LIST, TEXT, TEXT),
    LOGGED: (*_OF_TASK, INT, INT, BYTES, INT),
    SUCCEEDED: (
        *(*_OF_TASK, LIST, BYTES, NUMBER, INT, INT_OR_NONE, BYTES, INT, INT, TEXT),
        *(NUMBER_OR_NONE, INT_OR_NONE, BYTES),
    ),
    FAILED: (
        *(*_OF_TASK, LIST, TEXT, TEXT, TEXT, FLAG, NUMBER, INT, INT, FLAG, BYTES),
        *(NUMBER_OR_NONE, INT_OR_NONE, TEXT, BYTES),
    ),
    RETRIED: (*_OF_TASK, LIST, NUMBER),
    CLONED: (*_OF_TASK, LIST, BYTES, INT_OR_NONE, BYTES, TEXT, TEXT, TEXT, LIST, TEXT, BYTES),
    YIELDED: (*_OF_TASK, LIST, BYTES, INT, INT, BYTES, BYTES),
    CARDS: (*_OF_TASK, LIST, BYTES, INT),
    RunSucceeded.code: (INT, INT, INT, NUMBER),
    RunFailed.code: (INT, INT, INT, TEXT, TEXT, INT, TEXT, TEXT, TEXT, NUMBER, TEXT),
    RunCancelled.code: (INT, INT, INT, TEXT, NUMBER, FLAG),
}
"""The types that each field may have, in order, for each kind of record."""
_DEFAULTS: Final[dict[int, tuple[object, ...]]] = {
    RUN_STARTED: ({}, [], b"\x80", None, {}, "", 0, "", {}, None, b"", "", {}, {}),
    STARTED: ([], 0, [], "", ""),
    LOGGED: (),
    SUCCEEDED: ([], b"\x80", 0.0, 0, None, b"", 0, 0, "", None, None, b""),
    FAILED: ([], "", "", "", False, 0.0, 0, 0, False, b"\x80", None, None, "", b""),
    RETRIED: ([], 0.0),
    CLONED: ([], b"\x80", None, b"", "", "", "", [], "", b""),
    YIELDED: (b"",),
    CARDS: (0,),
    RunSucceeded.code: (0.0,),
    RunFailed.code: ("", "", 0, "", "", "", 0.0, ""),
    RunCancelled.code: ("", 0.0, False),
}
"""The defaults of the last fields of each kind, for records written without them."""
SECONDS_AT: Final = {code: kinds.index(NUMBER) for code, kinds in KINDS.items() if NUMBER in kinds}
_seen: Final[dict[int, set[tuple[type, ...]]]] = {code: set() for code in KINDS}
"""Combinations of types that passed the check. There are few, and a look-up here is fast."""


def fields_of(record: bytes) -> list[Any]:
    """The checked fields of a record. A kind that only a later version knows is not checked.

    Fields that a later version has added stay at the end.

    Raises:
        RecordError: The bytes are not a valid record.
    """
    # Every reader and every resume calls this for every record. It takes a microsecond.
    try:
        values: list[Any] = msgpack.unpackb(record, strict_map_key=False)
        code = values[0]
        if type(values) is not list or tuple(map(type, values)) not in _seen[code]:
            values = _completed(values)
    except (*NOT_MSGPACK, LookupError):
        return _of_later_version(unpack(record))
    if not (0 < values[1] <= MAX_SEQ and 0 <= values[2] < END_OF_TIME):
        _refuse(code, "number or time", values[1 : TIME_AT + 1])
    CHECKS[code](code, values)
    return values


def _completed(values: list[Any]) -> list[Any]:
    """Add the fields that an older version did not write, and check all types."""
    if type(values) is not list:  # a map may have the right keys in the right order
        raise LookupError
    code = values[0]
    kinds, defaults, called = KINDS[code], _DEFAULTS[code], f"a {TYPES[code].__name__}"
    missing = len(kinds) - len(values)
    if missing > 0:
        values = [*values, *defaults[-missing:]] if missing <= len(defaults) else values
    shape = tuple(map(type, values[: len(kinds)]))
    check_types(called, shape, kinds)
    if len(values) == len(kinds):
        _seen[code].add(shape)
    return values


def _of_later_version(values: Any) -> list[Any]:
    if type(values) is not list or tuple(map(type, values[:3])) != (int, int, int):
        raise RecordError("it does not begin as a record does")
    return values


def _check_of_attempt(kind: int) -> Callable[[int, list[Any]], None]:
    """The check of one kind of record about an attempt.

    Where its fields lie is looked up here, once: most records of a journal are of these kinds.
    """
    seconds_at, parents_at = SECONDS_AT.get(kind, 0), PARENTS_AT.get(kind, 0)
    fanout_at = FANOUT_AT[kind] if kind in HANDING_ON else 0

    def check(code: int, values: list[Any]) -> None:
        if not (0 < values[TASK_AT] <= MAX_TASK and 0 <= values[ATTEMPT_AT] <= MAX_ATTEMPT):
            _refuse(code, "task id or attempt", values[TASK_AT : ATTEMPT_AT + 1])
        for index in values[PATH_AT]:
            if type(index) is not int or not -MAX_INDEX <= index <= MAX_INDEX:
                _refuse(code, "path", values[PATH_AT])
        if seconds_at and not 0 <= values[seconds_at] <= MAX_SECONDS:
            _refuse(code, "duration", values[seconds_at])
        if parents_at:
            for parent in values[parents_at]:
                if type(parent) is not int or not 0 < parent <= MAX_TASK:
                    _refuse(code, "parent", parent)
        if fanout_at and not 0 <= (values[fanout_at] or 0) <= MAX_TASK:
            _refuse(code, "number of items", values[fanout_at])

    return check


def _check_with_usage(kind: int) -> Callable[[int, list[Any]], None]:
    check_attempt, used_at = _check_of_attempt(kind), USED_AT[kind]

    def check(code: int, values: list[Any]) -> None:
        check_attempt(code, values)
        seconds, memory = values[used_at : used_at + 2]
        if not (0 <= (seconds or 0) <= MAX_SECONDS and 0 <= (memory or 0) <= MAX_MEMORY):
            _refuse(code, "processor time or memory", (seconds, memory))

    return check


def _check_clone(code: int, values: list[Any]) -> None:
    _check_cloned_attempt(code, values)
    if not is_run_id(values[_CLONED_FROM_AT]):
        _refuse(code, "origin", values[_CLONED_FROM_AT])


_check_cloned_attempt: Final = _check_of_attempt(CLONED)


_check_yielding_attempt: Final = _check_of_attempt(YIELDED)


def _check_items(code: int, values: list[Any]) -> None:
    _check_yielding_attempt(code, values)
    index, count = values[_INDEX_AT], values[_COUNT_AT]
    if index < 0 or count < 1 or index + count > MAX_TASK:
        _refuse(code, "range of items", (index, count))
    if len(values[_DIGESTS_AT]) not in {0, count * ITEM_DIGEST_BYTES}:
        _refuse(code, "length of digests", len(values[_DIGESTS_AT]))


def _check_output(code: int, values: list[Any]) -> None:
    if not (0 < values[TASK_AT] <= MAX_TASK and 0 <= values[ATTEMPT_AT] <= MAX_ATTEMPT):
        _refuse(code, "task id or attempt", values[TASK_AT : ATTEMPT_AT + 1])
    if values[STREAM_AT] not in {0, 1}:
        _refuse(code, "stream", values[STREAM_AT])
    if len(values[DATA_AT]) > MAX_OUTPUT_BYTES:
        _refuse(code, "length", len(values[DATA_AT]))


def _check_start(code: int, values: list[Any]) -> None:
    graph, parameters, tags = values[3:6]
    origin, source = values[_ORIGIN_AT], dict(values[_SOURCE_AT])
    versions, trace, signature = values[_VERSIONS_AT], values[_TRACE_AT], values[_SIGNATURE_AT]
    plain = graph, parameters, tags, versions, trace, signature
    if not all(is_plain(each) for each in plain):
        message = "its graph, parameters, tags, versions, trace or signature are not plain data"
        raise RecordError(message)
    texts = (parameters, versions, trace)
    if not all(type(text) is str for each in texts for text in each.values()):
        raise RecordError("its parameters, versions or trace are not text")
    if origin is not None and not is_run_id(origin):
        _refuse(code, "origin", origin)
    if "ref" in source:
        ref_of(source.pop("ref"))
    if values[_CODE_AT]:
        unpack_ref(values[_CODE_AT])
    if not is_plain(source):
        raise RecordError("its source of the flow is not plain data")


def _check_end(code: int, values: list[Any]) -> None:
    at = SECONDS_AT[code]
    if not -MAX_SECONDS <= values[at] <= MAX_SECONDS:
        _refuse(code, "duration", values[at])
    # An earlier version measured it with the wall clock, which may have been set back meanwhile.
    values[at] = max(values[at], 0.0)


CHECKS: Final = {
    RUN_STARTED: _check_start,
    LOGGED: _check_output,
    **{kind: _check_of_attempt(kind) for kind in (STARTED, RETRIED, CARDS)},
    **{kind: _check_with_usage(kind) for kind in (SUCCEEDED, FAILED)},
    CLONED: _check_clone,
    YIELDED: _check_items,
    **dict.fromkeys(ENDINGS, _check_end),
}
"""What is checked for each kind of record in addition to types, number and time."""


def _refuse(code: int, what: str, found: object) -> None:
    raise RecordError(f"it is a {TYPES[code].__name__} with this {what}: {found!r:.100}")


# --- what it means -------------------------------------------------------------------------


class TaskHead(NamedTuple):
    """The attempt of a task that a record is about. Records of output have no path."""

    step: str
    task: int
    attempt: int
    path: Sequence[int]


def head_of(values: Sequence[Any]) -> TaskHead:
    """The attempt that these fields are about; not for a record of output."""
    return _new_head(values[_HEAD])


_new_head: Final = partial(tuple.__new__, TaskHead)  # half the time of `_make`


task_of: Final = itemgetter(TASK_AT)
"""The id of the task that a record is about; records of output included."""
step_of: Final = itemgetter(STEP_AT)
"""The step of the task that a record is about."""


def stream_of(values: Sequence[Any]) -> int:
    """Which of `STREAMS` a record of output belongs to."""
    stream: int = values[STREAM_AT]
    return stream


def time_of(values: Sequence[Any]) -> int:
    """When it happened: microseconds since 1970."""
    time: int = values[TIME_AT]
    return time


def seq_of(values: Sequence[Any]) -> int:
    """The number of the first event that a record stands for."""
    seq: int = values[1]
    return seq


def named_fields(values: Sequence[Any]) -> dict[str, Any]:
    """The fields of a record after the first three, by name; not for a record of output."""
    return dict(zip(FIELDS[values[0]], values[TIME_AT + 1 :], strict=False))


def last_seq_of(values: Sequence[Any]) -> int:
    """The number of the last event that a record stands for."""
    seq: int = values[1]
    return seq + count_pieces(values[DATA_AT]) - 1 if values[0] == LOGGED else seq


def was_stopped(values: Sequence[Any]) -> bool:
    """Whether a TaskFailed is about an attempt that was stopped because its run was ending."""
    return bool(values[_EXCEPTION_TYPE_AT] == STOPPED)


def is_caught(values: Sequence[Any]) -> bool:
    """Whether `@catch` lets the run go on after the failure that a TaskFailed is about."""
    return bool(values[_CAUGHT_AT])


def will_retry(values: Sequence[Any]) -> bool:
    """Whether another attempt follows the one that a TaskFailed is about."""
    return bool(values[_WILL_RETRY_AT])


def seconds_in(values: Sequence[Any]) -> float:
    """How long an attempt took, without the import of its flow; 0 where the record has no such."""
    at = SECONDS_AT.get(values[0])
    return 0.0 if at is None else float(values[at])


def item_text_in(values: Sequence[Any]) -> str:
    """The short text of the item of a foreach; a TaskSucceeded has none."""
    at = ITEM_AT.get(values[0])
    return "" if at is None else str(values[at])


def retry_of(values: Sequence[Any]) -> tuple[float, float]:
    """When a TaskRetried ordered an attempt, in seconds since 1970, and how long that waits."""
    return values[TIME_AT] / 1e6, values[_AFTER_AT]


class Result(NamedTuple):
    """What a task, or the start of the run, passes on to later tasks."""

    step: str
    task_id: int
    path: Sequence[int]
    outcome: Outcome
    first: int = 0
    """The index of the first of its items: above 0 for later parts of what a generator yields."""


def unpack_result(record: bytes) -> Result:
    """Read the record of a result, without making an event of it.

    That is a RunStarted, TaskSucceeded, TaskCloned or TaskYielded. The last one does not know how
    many tasks will follow.

    Raises:
        RecordError: It is another kind of record, or not a record.
    """
    return result_of(fields_of(record))


def unpack_known_result(record: bytes) -> Result:
    """Like `unpack_result`, for a record that was checked before: it is not checked again."""
    values = msgpack.unpackb(record, strict_map_key=False)
    is_whole = len(values) > _CARDS_AT.get(values[0], 0)
    return result_of(values if is_whole else _completed(values))


def result_of(values: Sequence[Any]) -> Result:
    """What a task or the run's start passed on, according to these fields.

    Raises:
        RecordError: They belong to another kind of record.
    """
    code = values[0]
    if code in HANDING_ON:
        step, task, _, path = values[_HEAD]
        return Result(step, task, path, Outcome._make(_OUTCOME_OF[code](values)))
    if code == YIELDED:
        step, task, _, path, manifest, first, _, items = values[3:11]
        return Result(step, task, path, Outcome(manifest, None, items), first)
    if code == RUN_STARTED:
        return Result("", 0, (), Outcome(values[_MANIFEST_AT[code]]))
    raise RecordError(f"a record of kind {code} passes nothing on")


begin_of: Final = itemgetter(3, 4, 5, 6, ITEM_AT[STARTED])
"""Step, task id, attempt and path of a TaskStarted, and its item as a short text."""
end_of: Final = itemgetter(3, 4, 5, 6, SECONDS_AT[SUCCEEDED])
"""Step, task id, attempt and path of a TaskSucceeded, and how long it took."""


way_on: Final = itemgetter(FANOUT_AT[SUCCEEDED], _CHOICE_AT[SUCCEEDED])
"""How many tasks follow the one that a TaskSucceeded is about, and the step that it chose."""


def digests_of(values: Sequence[Any]) -> tuple[int, bytes]:
    """The index of the first item in the fields of a TaskYielded, and `TaskYielded.digests`."""
    return values[_INDEX_AT], values[_DIGESTS_AT]


class Reference(NamedTuple):
    """One value that a record refers to."""

    name: str
    """The artifact's name, or in brackets what else the value is."""
    ref: ArtifactRef


def manifest_in(values: Sequence[Any], places: Mapping[int, int] = _MANIFEST_AT) -> bytes:
    """The packed manifest of a record; that of no artifacts if it has none."""
    at = places.get(values[0])
    return (b"" if at is None else bytes(values[at])) or b"\x80"


FLOW_CLASS: Final = "(the flow class)"
CODE: Final = "(the flow's source files)"
ITEMS: Final = "(what its foreach runs over)"
CARD: Final = "(card {})"


def references_of(values: Sequence[Any]) -> Iterator[Reference]:
    """Every value that a record of a `REFERRING` kind names; what it only changes, another names.

    Raises:
        RecordError: One of the refs is not valid.
    """
    code = values[0]
    for manifest, called in ((manifest_in(values), "{}"), (manifest_in(values, _CARDS_AT), CARD)):
        for name, raw in unpack_told(manifest).refs.items():
            yield Reference(called.format(name), ref_of(raw))
    if code == RUN_STARTED:
        if "ref" in values[_SOURCE_AT]:
            yield Reference(FLOW_CLASS, ref_of(values[_SOURCE_AT]["ref"]))
        if values[_CODE_AT]:
            yield Reference(CODE, unpack_ref(values[_CODE_AT]))
    elif code in _ITEMS_AT and values[_ITEMS_AT[code]]:
        yield Reference(ITEMS, unpack_ref(values[_ITEMS_AT[code]]))


def output_before(values: Sequence[Any]) -> int:
    """The journal offset of the attempt's last output before this record; 0 for none."""
    at = _LOG_AT.get(values[0])
    return 0 if at is None else int(values[at])


class RunOrigin(NamedTuple):
    """The run that a run resumes, according to its first event."""

    run_id: str
    started: int
    """Microseconds since 1970."""


def origin_of(values: Sequence[Any]) -> RunOrigin:
    """The run that a RunStarted resumes; its id is empty if it resumes none."""
    return RunOrigin(values[_ORIGIN_AT] or "", values[TIME_AT])


def cloned_from(values: Sequence[Any]) -> str:
    """The id of the run that a TaskCloned took its task from."""
    return str(values[_CLONED_FROM_AT])
