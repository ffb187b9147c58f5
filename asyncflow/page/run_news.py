"""What is told of a run's events to those who watch it: the events they wish for, and counts.

The same message goes to all who wish for the same and have come as far. Whoever shows no events
gets the counts of the steps, for which no record is unpacked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncflow.client.step_rows import step_row
from asyncflow.events.packing import events_of
from asyncflow.events.records import KNOWN, fields_of, seq_of
from asyncflow.events.types import to_microseconds
from asyncflow.page.answers import to_bytes
from asyncflow.page.event_list import event_data, is_of
from asyncflow.page.event_texts import EventTexts
from asyncflow.page.journal_marks import marks_of
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.run_files import RunRecord

_MESSAGE_BYTES: Final = 128 << 10
_MOST_RECORDS: Final = 5_000  # looked at for one message: takes a thread some milliseconds
_MOST_STEPS: Final = 200  # in one message


def message(data: bytes, *, number: int | None = None, event: str = "") -> bytes:
    """One message in the form that browsers expect; JSON has no line ends."""
    head = b"" if number is None else b"id: %d\n" % number
    kind = b"event: %s\n" % event.encode() if event else b""
    return head + kind + b"data: " + data + b"\n\n"


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody who watches a run wants to be told."""

    codes: frozenset[int] = KNOWN
    """The kinds of events."""
    step: str | None = None
    task: str | None = None
    counts: bool = False
    """Whether to tell how many tasks of each step there are."""


class News(NamedTuple):
    """A message, and how far its reader has come with it."""

    last: int
    """The number of the last event that it tells of, or passes over."""
    offset: int | None
    """A record in the journal with, or right behind, that event; None if it is not known."""
    message: bytes


def news_of(record: RunRecord, since: int, until: int, offset: int | None, wish: Wish) -> News:
    """What is to be told of the events after `since`, up to `until`, or as many as fit.

    `offset` is what the message up to `since` has told.

    Raises:
        JournalError: The journal is damaged.
    """
    texts: list[bytes] = []
    counts = b""
    if wish.counts:
        seq, _ = record.tasks.read_so_far()  # before the counts: those may be newer, but not older
        rows, until = _rows(record, since, until)
        counts = b',"seq":%d,"steps":' % seq + to_bytes(rows)
    last = until
    if wish.codes:
        texts, last, offset = _events(record, since, until, offset, wish)
    data = b'{"events":[' + b",".join(texts) + b"]" + counts + b"}"
    return News(last, offset, message(data, number=last))


def _events(
    record: RunRecord, since: int, until: int, offset: int | None, wish: Wish
) -> tuple[list[bytes], int, int | None]:
    texts_of = EventTexts(to_microseconds(record.started.time))
    texts: list[bytes] = []
    marks, room, last = marks_of(record), _MESSAGE_BYTES, since
    _, end = record.tasks.read_so_far()
    records = marks.records_after(since) if offset is None else marks.records_from(offset)
    for looked_at, (at, code, seq, payload) in enumerate(records):
        if seq > until:
            return texts, until, at
        if looked_at > _MOST_RECORDS and seq > since + 1:
            return texts, seq - 1, at
        offset = at
        for number, text in _texts(record, payload, texts_of, wish) if code in wish.codes else ():
            if number <= since:
                continue
            if number > until:
                return texts, until, at
            room -= len(text)
            if room < 0 and texts:
                return texts, last, at
            texts.append(text)
            last = number
        if at + PREFIX_BYTES + len(payload) >= end:  # behind it may be damage
            break
    return texts, until, offset


def _texts(
    record: RunRecord, payload: bytes, texts: EventTexts, wish: Wish
) -> Iterator[tuple[int, bytes]]:
    """The events of a record that are wished for: the number of each, and its JSON."""
    values = fields_of(payload)
    if wish.step is None and wish.task is None and (text := texts.of(values)) is not None:
        yield seq_of(values), text
        return
    resolve = record.journal.manifests.resolved
    for event in events_of(values, record.place.flow, record.run_id, resolve):
        if is_of(event, wish.step, wish.task):
            yield event.seq, to_bytes(event_data(event, texts.started))


def _rows(record: RunRecord, since: int, until: int) -> tuple[list[dict[str, Any]], int]:
    """The steps whose counts have changed, but for how many tasks they will have.

    Then up to which event that holds: `until`, or an earlier one if there are too many steps.
    """
    changed = [count for count in record.tasks.step_counts() or () if count.changed > since]
    if len(changed) > _MOST_STEPS:
        changed = sorted(changed, key=lambda count: count.changed)[:_MOST_STEPS]
        until = min(until, changed[-1].changed)
    return [_without_expected(step_row(count, Status.RUNNING)) for count in changed], until


def _without_expected(row: dict[str, Any]) -> dict[str, Any]:
    del row["expected"]
    return row
