"""What subscribers are given of records: the events that they asked for, each made once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from asyncflow.engine.subscription import Channel, Subscription
from asyncflow.events import Event, RunSucceeded, TaskEvent, TaskStarted, TaskSucceeded
from asyncflow.events.records import LOGGED, STARTED, SUCCEEDED
from asyncflow.events.selection import EventFilter, OutputChunk, RecordedEvents
from asyncflow.events.types import from_microseconds
from asyncflow.store.journal import HEADER
from asyncflow.store.local_store import LocalRun
from tests.support.call_counts import counted_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

TASKS, SUBSCRIBERS, LINES = 500, 10, 5


def recorded(first: int = 1, tasks: int = TASKS) -> RecordedEvents:
    """Records of so many tasks that begin and end; the first has this number."""
    group = RecordedEvents("F", "17")
    for task in range(1, tasks + 1):
        seq = first + 2 * (task - 1)
        group.values.append((STARTED, seq, 0, "work", task, 0, (task,), 4, (), "", "item"))
        ended = (SUCCEEDED, seq + 1, 0, "work", task, 0, (task,), b"\x80", 0.1, 4, None, b"", 0, 0)
        group.values.append((*ended, "", 0.1, 1 << 20, b""))
    return group


@pytest.mark.parametrize("since", [0, 1, 7, 2 * TASKS])
@pytest.mark.parametrize("types", [(), (TaskStarted,), (TaskSucceeded,), (TaskEvent,)])
def test_each_filter_picks_the_same_events_of_records_whoever_asked_before(types, since):
    """All events are made at once for who wants all, and one by one for others."""
    asked, new = recorded(), recorded()
    for before in ((), (TaskStarted,)):
        EventFilter(before).pick([asked])
    picked: list[Event] = EventFilter(types, since).pick([asked])
    assert picked == EventFilter(types, since).pick([new])
    assert [event.seq for event in picked] == [
        values[1]
        for values in new.values
        if values[1] > since and (values[0] == STARTED or types != (TaskStarted,))
        if values[0] == SUCCEEDED or types != (TaskSucceeded,)
    ]


@pytest.mark.parametrize("types", [(), (TaskSucceeded,)])
def test_subscribers_are_given_the_same_objects(types):
    """They are made for the first of them."""
    group = recorded()
    first: list[Event] = EventFilter(types).pick([group])
    second: list[Event] = EventFilter(types).pick([group])
    assert all(one is other for one, other in zip(first, second, strict=True))


def test_the_two_events_of_a_task_share_what_they_have_in_common():
    """Its id is made into text once, and the time of a batch is made once."""
    begun, ended, other, *_ = EventFilter[TaskEvent]().pick([recorded(first=5, tasks=500)])[-4:]
    assert begun.task_id is ended.task_id
    assert begun.time is ended.time is other.time
    assert begun.task_id != other.task_id


def test_who_asks_for_few_types_gets_nothing_else_made(monkeypatch):
    """Most subscribers want few of the events."""
    made: list[Sequence[Any]] = []

    def note(values: Sequence[Any], *_: object) -> None:
        made.append(values)

    monkeypatch.setattr("asyncflow.events.selection.event_of", note)
    group = recorded()
    EventFilter((RunSucceeded,)).pick([group])
    assert not made
    EventFilter((TaskSucceeded,)).pick([group])
    assert [values[0] for values in made] == [SUCCEEDED] * TASKS


async def test_what_ten_subscribers_to_every_event_cost_is_counted_in_calls(tmp_path):
    """Few calls make each event, once for all ten; by `batches()` each is handed whole lists.

    It was 11.6 calls for each event, then 5.6, and is 2.6.
    """
    place = tmp_path / "flows" / "F" / "17"
    place.mkdir(parents=True)
    channel = Channel(LocalRun.at(place), published=len(HEADER))
    subscriptions: list[Subscription[Event]] = [
        Subscription(EventFilter()) for _ in range(SUBSCRIBERS)
    ]
    for each in subscriptions:
        each.follow(channel)
    output = (LOGGED, 2 * TASKS + 1, 0, "work", TASKS, 0, 0, 4, b"line\n" * LINES, 0)
    end = RunSucceeded(
        flow="F", run_id="17", seq=2 * TASKS + LINES + 1, time=from_microseconds(0), seconds=1.0
    )
    channel.publish([recorded(), OutputChunk(output, output[1], "F", "17", count=LINES)], 9000)
    channel.publish([end], 9100)
    channel.close()
    with counted_calls() as calls:
        batches = [[batch async for batch in each.batches()] for each in subscriptions]
    assert calls[0] < 3 * 2 * TASKS
    for got in batches:
        seqs = [event.seq for batch in got for event in batch]
        assert seqs == list(range(1, end.seq + 1))
