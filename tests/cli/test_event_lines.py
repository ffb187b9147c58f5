"""The lines of `asyncflow events` are the same, whether made from records or from events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.cli.event_lines import EventLines
from asyncflow.events.drafts import event_of
from asyncflow.events.event_json import to_json_data
from asyncflow.events.manifests import pack_manifest, pack_ref
from asyncflow.events.packing import events_of, pack_event
from asyncflow.events.records import fields_of
from asyncflow.events.selection import EventFilter, EveryRecord, OutputChunk, RecordedEvents
from asyncflow.events.types import Event, TaskFailed, TaskStarted, TaskSucceeded, from_microseconds
from asyncflow.values import ArtifactRef, Encoding, Place
from tests.support.call_counts import counted_calls
from tests.support.output_records import pack_logged

if TYPE_CHECKING:
    from asyncflow.events.selection import Publication

NOW = 1_700_000_000_123_456
REF = ArtifactRef(Place.INLINE, Encoding.PICKLE, "int", 1, b"", "", 0, b"1")
FAR = ArtifactRef(Place.SEGMENT, Encoding.PICKLE, "ü", 70, b"\x01" * 32, "17/w.seg", 9, b"")
REFS = pack_manifest({"é": REF})
PIECES = st.sampled_from(
    [b"a line", b"\n", b"\r\n", b"\r", b"\xc3\xa9'\"\\", b"\xff\x00", b"x" * 300]
)
FIELDS: dict[type[Event], list[dict[str, Any]]] = {
    TaskStarted: [{}, {"path": (0, 3), "item": "it's", "node": "n", "parents": (2,), "pid": 9}],
    TaskSucceeded: [
        {},
        {"path": (1,), "manifest": REFS, "seconds": 0.5, "fanout": 3, "choice": "a" * 300},
        {"manifest": pack_manifest({f"name{n}": REF for n in range(99)}), "failed": 2},
        {"manifest": pack_manifest({"far": FAR}), "items": pack_ref(REF), "seconds": 3},
        {"cards": REFS, "cpu_seconds": 0.25, "peak_memory": 1 << 30, "log": 77},
    ],
    TaskFailed: [{"exception_type": "ValueError", "message": "no\n", "will_retry": True}],
}


def record_of(kind: type[Any], attempt: int, more: dict[str, Any]) -> RecordedEvents:
    """As it is read from a journal."""
    named = {"flow": "Flöw", "run_id": "1", "seq": 12, "time": from_microseconds(NOW)}
    event = kind(**named, step="train", task_id="4", attempt=attempt, **more)
    group = RecordedEvents("Flöw", "1")
    group.values.append(fields_of(pack_event(event)))
    return group


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("attempt", [0, 2])
@pytest.mark.parametrize(
    ("kind", "more"), [(k, each) for k, all_ in FIELDS.items() for each in all_]
)
def test_a_record_has_the_line_of_its_event(as_json, attempt, kind, more) -> None:
    """Of a task, with few fields and with many."""
    record = record_of(kind, attempt, more)
    event = event_of(record.values[0], record.flow, record.run_id)
    lines = EventLines(as_json=as_json)
    assert lines.of_all([record]) == lines.of_all([event])
    if as_json:
        assert json.loads(lines.of_all([record])) == to_json_data(event)


@given(st.lists(PIECES, min_size=1, max_size=6).map(b"".join), st.integers(0, 1), st.booleans())
def test_a_record_of_output_has_the_lines_of_all_its_events(data, stream, as_json) -> None:
    """Whatever was printed."""
    record = pack_logged(3, NOW, ("train", 4, stream), stream, 9 * stream, data, 0)
    lines = EventLines(as_json=as_json)
    events = list(events_of(fields_of(record), "Flöw", "1"))
    text = lines.of_all([OutputChunk(record, 3, "Flöw", "1")])
    assert text == lines.of_all(events)
    if as_json:
        told = [json.loads(line) for line in text.splitlines()]
        assert told == [to_json_data(event) for event in events]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_of_plain_output_takes_one_call_at_most(as_json) -> None:
    """All lines of a record that can be shown as they are are told from others at once."""
    record = pack_logged(3, NOW, ("train", 4, 0), 0, 9, b"a line of a task\n" * 1000, 0)
    lines, chunk = EventLines(as_json=as_json), OutputChunk(record, 3, "F", "1")
    with counted_calls() as calls:
        text = lines.of_all([chunk])
    assert text.count("\n") == 1000
    assert calls[0] < 1.5 * 1000


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("length", [197, 198, 199, 65_535, 65_536])
def test_a_long_line_is_shown_as_that_of_its_event(as_json, length) -> None:
    """As much as people are shown of it, and no more than an event has."""
    record = pack_logged(3, NOW, ("train", 4, 0), 0, 9, b"short\n\n" + b"x" * length + b"\n", 0)
    lines = EventLines(as_json=as_json)
    events = list(events_of(fields_of(record), "F", "1"))
    assert lines.of_all([OutputChunk(record, 3, "F", "1")]) == lines.of_all(events)


@given(st.integers(0, 20))
def test_records_after_a_number_are_the_events_after_it(since: int) -> None:
    """Also where that is within a record of output."""
    record = pack_logged(3, NOW, ("train", 4, 0), 0, 9, b"one\ntwo\nthree\n", 0)
    news: list[Publication] = [OutputChunk(record, 3, "Flöw", "1"), record_of(TaskStarted, 0, {})]
    lines = EventLines(as_json=False)
    of_records = lines.of_all(EveryRecord(since).pick(news))
    events: list[Event] = EventFilter((), since).pick(news)
    assert of_records == lines.of_all(events)
