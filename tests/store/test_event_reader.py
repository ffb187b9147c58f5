"""A journal is read for all its events many records at once, and no differently from one by one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import JournalError
from asyncflow.events.record_columns import AT_ONCE, plain_fields
from asyncflow.events.records import FAILED, LOGGED, RETRIED, STARTED, SUCCEEDED
from asyncflow.events.selection import EventFilter, EveryRecord
from asyncflow.events.types import Event, RunSucceeded
from asyncflow.store import event_reader
from asyncflow.store.event_reader import READ_RECORDS, EventReader
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER
from asyncflow.store.local_store import LocalRun
from tests.support.call_counts import counted_calls
from tests.support.store_files import begin_journal

NOW = 1_795_472_682_985_927
HEAD = ["work", 4, 0]
MADE: dict[str, tuple[int, list[Any]]] = {
    "started": (STARTED, [*HEAD, [3], 7, [2], "", "an item"]),
    "logged": (LOGGED, [*HEAD, 0, 7, b"a line\nand half", 0]),
    "succeeded": (SUCCEEDED, [*HEAD, [], b"\x80", 0.5, 7, None, b"", 0, 0, "", 0.25, None, b""]),
    "succeeded, of an earlier version": (SUCCEEDED, [*HEAD, [], b"\x80", 0.5, 7]),
    "retried": (RETRIED, [*HEAD, [], 0.5]),
    "ended": (RunSucceeded.code, [3.0]),
    "of a later version": (99, ["something"]),
}
FORGED: dict[str, tuple[int, list[Any]]] = {
    "a task of no number": (STARTED, ["work", "four", 0, [], 7, [], "", ""]),
    "an end that took forever": (SUCCEEDED, [*HEAD, [], b"\x80", float("inf"), 7]),
    "a failure without a reason": (FAILED, [*HEAD, [], 3]),
    "output of no task": (LOGGED, ["work", 0, 0, 0, 7, b"a line", 0]),
    "output of an unknown stream": (LOGGED, [*HEAD, 2, 7, b"a line", 0]),
    "output of a process of no number": (LOGGED, [*HEAD, 0, "seven", b"a line", 0]),
    "output of an attempt before the first": (LOGGED, ["work", 4, -1, 0, 7, b"a line", 0]),
    "more output than a record has": (LOGGED, [*HEAD, 0, 7, bytes((1 << 20) + 1), 0]),
}
KINDS = {**MADE, **FORGED}


def run_of(folder: Path, kinds: list[str]) -> LocalRun:
    """A run with records of these kinds in its journal."""
    writer = begin_journal(folder / "journal")
    for seq, kind in enumerate(kinds):
        code, rest = KINDS[kind]
        writer.write(frame(msgpack.packb([code, 2 * seq + 1, NOW + seq, *rest])))
    writer.close()
    return LocalRun.at(folder)


def events_in(run: LocalRun, wanted: EventFilter[Any], records: int) -> list[Event]:
    """All events, read so many records at a time."""
    reader, at, events = EventReader(run), len(HEADER), list[Event]()
    while True:
        excerpt = reader.read(at, wanted, records=records)
        events += EventFilter[Event]().pick(excerpt.news)
        if excerpt.after == at:
            return events
        at = excerpt.after


@given(st.lists(st.sampled_from([*MADE]), max_size=300))
def test_many_at_once_are_the_same_events(kinds: list[str]) -> None:
    """Whatever kinds of records follow each other."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(folder), kinds)
        one_by_one = events_in(run, EventFilter(), 7)
        assert events_in(run, EventFilter(), READ_RECORDS) == one_by_one
        assert events_in(run, EveryRecord(), READ_RECORDS) == one_by_one


@pytest.mark.parametrize("after", [0, 1, 200])
def test_a_run_has_ended_if_the_last_record_says_so(tmp_path: Path, after: int) -> None:
    """Not one before it, however many are checked at once."""
    run = run_of(tmp_path, [*["started"] * 127, "ended", *["started"] * after])
    for records in (READ_RECORDS - 1, READ_RECORDS):
        excerpt = EventReader(run).read(len(HEADER), EventFilter[Event](), records=records)
        assert excerpt.ended == (not after)


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_record_is_refused_in_the_same_words(tmp_path: Path, kind: str) -> None:
    """Among many that are right."""
    run = run_of(tmp_path, [*["started", "logged", "succeeded"] * 60, kind, "started"])
    told = []
    for records in (7, READ_RECORDS):
        with pytest.raises(JournalError) as refused:
            events_in(run, EventFilter(), records)
        told.append(str(refused.value))
    assert told[0] == told[1]


def test_records_of_usual_tasks_are_not_checked_one_by_one(tmp_path, monkeypatch) -> None:
    """That would take most of the time of a list of a million events."""
    run = run_of(tmp_path, ["started", "logged", "succeeded"] * 1000)
    checked: list[bytes] = []
    monkeypatch.setattr(event_reader, "fields_of", checked.append)
    excerpt = EventReader(run).read(len(HEADER), EveryRecord())
    assert sum(getattr(each, "count", 0) or 1 for each in excerpt.news) == 3000
    assert not checked


def test_checking_usual_output_takes_few_calls_for_each_record() -> None:
    """Each field of many records is checked at once. It was 7.2 calls for each, and is 2.4."""
    code, fields = MADE["logged"]
    records = [msgpack.packb([code, seq, NOW, *fields]) for seq in range(1, AT_ONCE + 1)]
    plain_fields(records)  # imports and look-ups that come once
    with counted_calls() as calls:
        assert plain_fields(records) is not None
    assert calls[0] < 3 * AT_ONCE
