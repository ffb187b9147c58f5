"""Records of attempts, many at once: in columns, one for each field.

Nearly all records of a wide run say that a task has begun, has printed something, or has succeeded.
For one record, the checks take longer than the unpacking. A column takes a few calls, however long
it is. `plain_records` accepts only what has nothing unusual about it. Whatever it does not accept
is to be read record by record: `fields_of` says what is wrong with it, or that nothing is.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.events.field_types import END_OF_TIME, INT, LIST
from asyncflow.events.manifests import NOT_MSGPACK
from asyncflow.events.records import (
    ATTEMPT_AT,
    DATA_AT,
    FANOUT_AT,
    ITEM_AT,
    KINDS,
    LOGGED,
    MAX_ATTEMPT,
    MAX_INDEX,
    MAX_MEMORY,
    MAX_OUTPUT_BYTES,
    MAX_SECONDS,
    MAX_SEQ,
    MAX_TASK,
    PARENTS_AT,
    PATH_AT,
    SECONDS_AT,
    STARTED,
    STREAM_AT,
    STREAMS,
    SUCCEEDED,
    TASK_AT,
    TIME_AT,
    USED_AT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    Column = Sequence[Any]

PLAIN: Final = frozenset({STARTED, LOGGED, SUCCEEDED})
"""The kinds of records that can be plain."""


class RecordColumns(NamedTuple):
    """Records of one kind, in their order; each column has one field of all of them."""

    at: Sequence[int]
    """Which of all records each is, from 0 on."""
    seqs: Sequence[int]
    times: Sequence[int]
    """In microseconds since 1970."""
    steps: Sequence[str]
    tasks: Sequence[int]
    attempts: Sequence[int]
    paths: Sequence[Sequence[int]]
    more: Sequence[Any]
    """Of tasks that have begun the items as short texts; of those that have succeeded how many
    seconds they took."""


class PlainRecords(NamedTuple):
    """Checked records, each of which has one of the kinds in `PLAIN`."""

    begins: RecordColumns | None
    """The TaskStarted; None if there are none."""
    ends: RecordColumns | None
    """The TaskSucceeded; None if there are none."""
    has_output: bool
    """Whether there are others, of output."""


AT_ONCE: Final = 128
"""So many records are checked together: fewer make more calls for each record, more are followed by
the collector."""


def unpack_all(records: Sequence[bytes]) -> list[list[Any]] | None:
    """What each of these records holds, unchecked; None if one of them is not an array."""
    unpackb = msgpack.unpackb
    try:
        unpacked = [unpackb(record, strict_map_key=False) for record in records]
    except NOT_MSGPACK:
        return None
    return unpacked if LIST.issuperset(map(type, unpacked)) else None


def plain_fields(records: Sequence[bytes]) -> list[list[Any]] | None:
    """The checked fields of records of the kinds in `PLAIN`, many at once.

    None if something about one of them is unusual: then `fields_of` tells what.
    """
    unpacked = unpack_all(records)
    if unpacked is None or unusual_among(unpacked) or plain_records(unpacked) is None:
        return None
    return unpacked


def unusual_among(records: Sequence[list[Any]]) -> list[int]:
    """Which of these unpacked records have another kind than those in `PLAIN`."""
    try:
        return [at for at, record in enumerate(records) if record[0] not in PLAIN]
    except (IndexError, TypeError):  # one is empty, or does not begin with a number
        return list(range(len(records)))


def known_records(records: Sequence[Sequence[Any]]) -> PlainRecords:
    """The same as `plain_records` for records that need no check: this process has made them."""
    begins, ends = _positions(STARTED, records), _positions(SUCCEEDED, records)
    columns = _columns_at(begins, records), _columns_at(ends, records)
    return _named(begins, ends, columns, has_output=len(begins) + len(ends) < len(records))


def plain_records(records: Sequence[Sequence[Any]]) -> PlainRecords | None:
    """Check records of the kinds in `PLAIN`, which `unpack_all` has unpacked.

    None if something about one of them is unusual: it is wrong, or of another version.
    """
    begins, ends = _positions(STARTED, records), _positions(SUCCEEDED, records)
    try:
        begun, ended = columns = _columns_at(begins, records), _columns_at(ends, records)
    except ValueError:  # they have different numbers of fields
        return None
    if begun and not (_are_attempts(STARTED, begun) and _are_parents(begun[PARENTS_AT[STARTED]])):
        return None
    if ended and not (_are_attempts(SUCCEEDED, ended) and _are_ends(ended)):
        return None
    has_output = len(begins) + len(ends) < len(records)
    if has_output and not _are_output([each for each in records if each[0] == LOGGED]):
        return None
    return _named(begins, ends, columns, has_output=has_output)


def _positions(kind: int, records: Sequence[Sequence[Any]]) -> list[int]:
    return [at for at, record in enumerate(records) if record[0] == kind]


def _columns_at(positions: list[int], records: Sequence[Sequence[Any]]) -> list[Column]:
    chosen = records
    if len(positions) < len(records):
        chosen = [records[at] for at in positions]
    return list(zip(*chosen, strict=True))


def _named(
    begins: list[int],
    ends: list[int],
    columns: tuple[list[Column], list[Column]],
    *,
    has_output: bool,
) -> PlainRecords:
    begun, ended = columns
    return PlainRecords(
        RecordColumns._make((begins, *begun[1:_PATH_END], begun[_ITEM_AT])) if begun else None,
        RecordColumns._make((ends, *ended[1:_PATH_END], ended[_SECONDS_AT])) if ended else None,
        has_output,
    )


# --- the checks of `fields_of`, column by column -------------------------------------------------


def _are_of_tasks(kind: int, columns: Sequence[Column]) -> bool:
    """Check what all records about tasks have."""
    if len(columns) != len(KINDS[kind]):
        return False
    for column, allowed in zip(columns, KINDS[kind], strict=True):
        if not allowed.issuperset(map(type, column)):
            return False
    tasks, attempts = columns[TASK_AT], columns[ATTEMPT_AT]
    return bool(
        min(columns[_SEQ_AT]) > 0
        and max(columns[_SEQ_AT]) <= MAX_SEQ
        and min(columns[TIME_AT]) >= 0
        and max(columns[TIME_AT]) < END_OF_TIME
        and min(tasks) > 0
        and max(tasks) <= MAX_TASK
        and min(attempts) >= 0
        and max(attempts) <= MAX_ATTEMPT
    )


def _are_attempts(kind: int, columns: Sequence[Column]) -> bool:
    """Check what all records about attempts have."""
    return _are_of_tasks(kind, columns) and _are_whole(columns[PATH_AT], -MAX_INDEX, MAX_INDEX)


def _are_parents(parents: Column) -> bool:
    return not any(parents) or _are_whole(parents, 1, MAX_TASK)


def _are_ends(columns: Sequence[Column]) -> bool:
    """Check what only a TaskSucceeded has."""
    used = USED_AT[SUCCEEDED]
    return (
        _are_between(columns[_SECONDS_AT], MAX_SECONDS)
        and _are_between(columns[FANOUT_AT[SUCCEEDED]], MAX_TASK)
        and _are_between(columns[used], MAX_SECONDS)
        and _are_between(columns[used + 1], MAX_MEMORY)
    )


def _are_whole(lists: Sequence[Sequence[object]], least: int, most: int) -> bool:
    """Whether all that these lists hold are whole numbers between these."""
    numbers: list[Any] = [*chain.from_iterable(lists)]
    if not INT.issuperset(map(type, numbers)):
        return False
    return not numbers or (least <= min(numbers) and max(numbers) <= most)


def _are_between(numbers: Column, most: float) -> bool:
    """Whether these numbers are between 0 and `most`; None counts as 0."""
    some = [*filter(None, numbers)]
    # The sum is not a number if one of them is not, and then neither end tells anything.
    return not some or (min(some) > 0 and max(some) <= most and sum(some) > 0)


def _are_output(records: Sequence[Sequence[Any]]) -> bool:
    """Check records of output."""
    try:
        columns = [*zip(*records, strict=True)]
    except ValueError:  # they have different numbers of fields
        return False
    return (
        _are_of_tasks(LOGGED, columns)
        and _STREAMS.issuperset(columns[STREAM_AT])
        and all(len(data) <= MAX_OUTPUT_BYTES for data in columns[DATA_AT])
    )


_STREAMS: Final = frozenset(range(len(STREAMS)))
_SEQ_AT: Final = 1
_PATH_END: Final = PATH_AT + 1
_ITEM_AT: Final = ITEM_AT[STARTED]
_SECONDS_AT: Final = SECONDS_AT[SUCCEEDED]
