"""The bus: real channels and subscriptions over real journals, in any order of what can happen."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import tracemalloc
import weakref
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow._support.conditions import look_again
from asyncflow.engine.subscription import BUFFER_BYTES, Channel, Subscription
from asyncflow.errors import (
    JournalError,
    RecordError,
    RunInterruptedError,
    SubscriptionBusyError,
)
from asyncflow.events import (
    Event,
    RunStarted,
    RunSucceeded,
    TaskEvent,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    event_types,
)
from asyncflow.events.packing import pack_event
from asyncflow.events.records import fields_of, peek
from asyncflow.events.selection import EventFilter, OutputChunk, RecordedEvents
from asyncflow.events.types import to_microseconds
from asyncflow.scheduling.facts_to_events import OUTPUT_BYTES
from asyncflow.store.event_reader import EventReader
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER
from asyncflow.store.local_store import LocalRun
from tests.support.output_records import pack_logged

if TYPE_CHECKING:
    from asyncflow.events.selection import Publication

FIRST = len(HEADER)
NOW = datetime(2026, 11, 23, 22, 24, 42, tzinfo=UTC)


def run_at(folder: Path, run_id: str = "17", flow: str = "F") -> LocalRun:
    """A run in the store in that folder, as it is before it begins."""
    place = folder / "flows" / flow / run_id
    place.mkdir(parents=True)
    return LocalRun.at(place)


class Publisher:
    """One run: journals and publishes as a run's driver does, and knows what it has told."""

    def __init__(self, folder: Path, run_id: str = "17", flow: str = "F") -> None:
        self.stored = run_at(folder, run_id, flow)
        self.journal = self.stored.begin_journal()
        self.channel = Channel(self.stored, published=FIRST)
        self.flow, self.run_id = flow, run_id
        self.told: list[Event] = []

    def publish(self, *kinds: str | int) -> None:
        """One batch: `started`, `retried`, `recorded`, `end`, or a number: so many lines.

        `recorded` is a `TaskStarted` and a `TaskRetried` as an engine publishes those: as records.
        """
        news: list[Publication] = []
        records = []
        for kind in kinds:
            if isinstance(kind, int):
                data = b"".join(b"line %d\n" % line for line in range(kind))
                task = "a", 1, 0
                seq = len(self.told) + 1
                record = pack_logged(seq, to_microseconds(NOW), task, 0, 4, data, 0)
                lines = OutputChunk(record, seq, self.flow, self.run_id, count=kind)
                self.told += OutputChunk(record, seq, self.flow, self.run_id).events()
                news.append(lines)
            elif kind == "recorded":
                group = RecordedEvents(self.flow, self.run_id)
                for each in ("started", "retried"):
                    event = self.event(each)
                    records.append(pack_event(event))
                    group.values.append(fields_of(records[-1]))
                    self.told.append(event)
                news.append(group)
                continue
            else:
                event = self.event(kind)
                record = pack_event(event)
                self.told.append(event)
                news.append(event)
            records.append(record)
        self.journal.write(b"".join(map(frame, records)))
        self.channel.publish(news, self.journal.size)

    def event(self, kind: str) -> Event:
        """The run's next event."""
        named: dict[str, Any] = {"flow": self.flow, "run_id": self.run_id, "time": NOW}
        named["seq"] = len(self.told) + 1
        of_task: dict[str, Any] = {"step": "a", "task_id": "1", "attempt": 0}
        if kind == "started":
            return TaskStarted(**named, **of_task)
        if kind == "retried":
            return TaskRetried(**named, **of_task)
        return RunSucceeded(**named)

    def close(self) -> None:
        """The run ends here, with or without a last word."""
        self.journal.close()
        self.channel.close()


@pytest.fixture
def run(tmp_path):
    """A run of which nothing is told yet."""
    publisher = Publisher(tmp_path)
    yield publisher
    publisher.journal.close()


@pytest.fixture
def many(tmp_path):
    """Makes so many runs of which nothing is told yet."""
    made: list[Publisher] = []

    def make(count: int) -> list[Publisher]:
        made.extend(Publisher(tmp_path, str(number)) for number in range(1, count + 1))
        return made

    yield make
    for each in made:
        each.journal.close()


def subscribe(*runs, types=(), since=0, start=FIRST, **options):
    """A subscription to these runs, from their first event on."""
    subscription = Subscription(EventFilter(types, since), **options)
    for each in runs:
        subscription.follow(each.channel, start=start)
    return subscription


async def rest(subscription):
    """All that it still hands out."""
    return [event async for event in subscription]


# --- any order of anything ----------------------------------------------------------------------

kinds = st.lists(
    st.one_of(st.sampled_from(["started", "retried", "recorded"]), st.integers(1, 4)),
    min_size=1,
    max_size=4,
)
publishing = st.tuples(st.just("publish"), st.integers(0, 2), kinds)
taking = st.tuples(st.just("take"), st.integers(0, 2), st.integers(1, 12))
breaking_off = st.tuples(st.just("break off"), st.integers(0, 2), st.integers(0, 3))
subscribing = st.tuples(
    st.just("subscribe"),
    st.sampled_from([(), (TaskLogged,), (TaskStarted, TaskRetried), (TaskEvent,)]),
    st.sampled_from([None, 0, 1, 3, 9]),
)
closing = st.tuples(st.just("close"), st.integers(0, 2), st.none())
often = [publishing] * 6 + [breaking_off] * 5 + [taking] * 3 + [subscribing] * 2 + [closing]
operations = st.lists(st.sampled_from(often).flatmap(lambda each: each), min_size=8, max_size=60)


@dataclass
class Reader:
    """A subscriber, and what it should have been handed of each run."""

    subscription: Subscription[Any]
    types: tuple[type[Event], ...]
    since: int
    begins: dict[str, int]
    """For each run, how many of its events had been told when it began to read from there."""
    got: list[Event] = field(default_factory=list)

    def due(self, run: Publisher) -> list[Event]:
        """What it is to be handed of a run, up to now."""
        types = self.types or (Event,)
        events = run.told[self.begins[run.run_id] :]
        return [e for e in events if isinstance(e, types) and e.seq > self.since]

    def got_of(self, run: Publisher) -> list[Event]:
        """What it has been handed of a run."""
        return [event for event in self.got if event.run_id == run.run_id]


async def carry_out(folder: Path, buffer: int, steps) -> None:
    """All steps, and then what is left; each reader must have got what was due to it."""
    runs = [Publisher(folder, run_id) for run_id in ("1", "2", "3")]
    readers = [begin(runs, buffer, (), 0), begin(runs, buffer, (TaskLogged,), None)]
    for what, which, how in steps:
        if what == "subscribe":
            readers.append(begin(runs, buffer, which, how))
        elif what in {"take", "break off"}:
            for reader in readers[which : which + 1]:
                await (take if what == "take" else break_off)(reader, runs, how)
        elif what == "close":
            runs[which].close()
        elif not runs[which].channel.closed:
            runs[which].publish(*how)
    for run in runs:
        run.close()
    for reader in readers:
        reader.subscription.finish()
        reader.got += await rest(reader.subscription)
        for run in runs:
            assert reader.got_of(run) == reader.due(run)
        assert len(reader.got) == sum(len(reader.due(run)) for run in runs)


def begin(runs, buffer, types, since) -> Reader:
    """A new subscriber: from now on, or from a number on."""
    subscription = subscribe(types=types, since=since or 0, buffer=buffer, follows=True)
    for run in runs:
        subscription.follow(run.channel, start=None if since is None else FIRST)
    begins = {run.run_id: len(run.told) if since is None else 0 for run in runs}
    return Reader(subscription, types, since or 0, begins)


async def take(reader: Reader, runs, number: int) -> None:
    """So many events, as far as there are any to be had."""
    waiting = sum(len(reader.due(run)) for run in runs) - len(reader.got)
    for _ in range(min(number, waiting)):
        reader.got.append(await anext(reader.subscription))


async def break_off(reader: Reader, runs, turns: int) -> None:
    """Wait for an event and be cancelled after some turns of the loop."""
    waiting = asyncio.ensure_future(anext(reader.subscription))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        reader.got.append(await waiting)


@settings(max_examples=60)
@given(operations, st.integers(1, 6))
def test_whatever_happens_everybody_gets_every_event_once_and_in_order(steps, buffer):
    """Publishing, taking, cancelling, overflowing, subscribing late and from a number, ending."""
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(carry_out(Path(folder), buffer, steps), 100))


# --- one by one ---------------------------------------------------------------------------------


def test_a_read_of_a_journal_takes_a_bounded_piece_of_it(tmp_path):
    """Also of output, a few bytes of which are an event of some hundred: two records of it."""
    stored = run_at(tmp_path)
    journal = stored.begin_journal()
    text = b"x\n" * (OUTPUT_BYTES // 2)
    for seq in range(1, 9):
        journal.write(frame(pack_logged(seq, 0, ("start", 1, 0), 0, 4, text, 0)))
    journal.close()
    wanted: EventFilter[Event] = EventFilter()
    excerpt = EventReader(stored).read(FIRST, wanted)
    assert 0 < len(wanted.pick(excerpt.news)) <= OUTPUT_BYTES
    assert FIRST + OUTPUT_BYTES < excerpt.after < FIRST + 2.1 * OUTPUT_BYTES


async def test_a_reader_that_is_fast_enough_gets_the_very_objects_that_were_published(run):
    """Nothing is read from the disk for it, and nothing is made twice."""
    first, second = subscribe(run, start=None), subscribe(run, start=None)
    run.publish("started", 3)
    Path(run.stored.journal_place).unlink()  # nobody needs it
    run.close()
    ours, theirs = await rest(first), await rest(second)
    assert len(ours) == 4
    assert all(mine is yours for mine, yours in zip(ours, theirs, strict=True))


async def test_output_is_not_taken_apart_for_who_does_not_want_it(run):
    """Lines cost more than anything else about an event."""
    subscription = subscribe(run, types=(TaskStarted,), start=None)
    lines = OutputChunk(b"no record at all", 1, "F", "17")
    run.channel.publish([lines], run.journal.size + 1)
    run.channel.close()
    assert await rest(subscription) == []
    with pytest.raises(Exception):  # noqa: B017, PT011 - it would have been noticed
        lines.events()


async def test_who_comes_between_the_writing_and_the_telling_misses_nothing(run):
    """Output that was made ready while nobody listened is there for who listens by then."""
    run.publish(3)
    late = subscribe(run)
    run.publish(2, "end")
    run.close()
    assert await rest(late) == run.told


async def test_past_its_buffer_a_reader_goes_on_from_the_journal(run):
    """And returns to what is live once it has caught up."""
    subscription = subscribe(run, start=None, buffer=3)
    for _ in range(10):
        run.publish("started", 1)
    got = [await anext(subscription) for _ in range(20)]
    run.publish("retried")
    live = await anext(subscription)
    assert [*got, live] == run.told
    assert live is run.told[-1]


async def test_what_waits_is_bounded_over_all_runs_together(tmp_path):
    """A hundred runs fill no more than one buffer, and none of them loses an event."""
    runs = [Publisher(tmp_path, str(number)) for number in range(100)]
    subscription = subscribe(*runs, buffer=50)
    for _ in range(5):
        for each in runs:
            each.publish("started", "retried")
            assert subscription._mailbox.waiting <= 50
    for each in runs:
        each.close()
    got = await rest(subscription)
    for each in runs:
        assert [event for event in got if event.run_id == each.run_id] == each.told
    assert subscription._mailbox.waiting == subscription._mailbox.waiting_bytes == 0


async def test_lines_of_output_count_one_by_one(run):
    """A chunk of them may be large once it has been taken apart for somebody else."""
    fast, slow = subscribe(run, start=None, buffer=5000), subscribe(run, start=None, buffer=100)
    for _ in range(10):
        run.publish(60)
        assert slow._mailbox.waiting <= 100
    run.close()
    assert await rest(fast) == await rest(slow) == run.told


async def test_what_waits_is_bounded_in_bytes_too(run):
    """Ten thousand events may be a gigabyte of output."""
    subscription = subscribe(run, start=None)
    record = pack_logged(1, 0, ("a", 1, 0), 0, 4, b"x" * (1 << 20), 0)
    for _ in range(40):
        run.journal.write(frame(record))
        run.channel.publish([OutputChunk(record, 1, "F", "17")], run.journal.size)
        assert subscription._mailbox.waiting_bytes <= BUFFER_BYTES


async def test_a_reader_that_sleeps_holds_no_memory(run):
    """Ten thousand events are told meanwhile, and it has all of them afterwards."""
    subscription = subscribe(run, start=None, buffer=100)
    run.publish("started")
    tracemalloc.start()
    try:
        for _ in range(100):
            run.publish("started", 98, "retried")
            run.told.clear()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 200_000  # the events themselves would be some megabytes
    run.close()
    seen = count(1)
    async for event in subscription:
        assert event.run_id == "17"
        next(seen)
    assert next(seen) == 1 + 1 + 100 * 100


async def test_who_is_woken_looks_at_the_runs_that_have_something(many, monkeypatch):
    """One busy run among a hundred idle ones costs what it would cost alone."""
    runs = many(100)
    subscription = subscribe(*runs)
    looks, take = [], Subscription._take

    async def counted(self, cursor):
        looks.append(cursor)
        return await take(self, cursor)

    monkeypatch.setattr(Subscription, "_take", counted)
    for _ in range(20):
        runs[7].publish("started")
        await anext(subscription)
    assert len(looks) <= 40


async def test_a_busy_run_does_not_hide_another(many):
    """Those that have something are served in turn."""
    busy, quiet = many(2)
    subscription = subscribe(busy, quiet, start=None)
    for _ in range(50):
        busy.publish(*["started"] * 100)
    quiet.publish("started")
    first = [(await anext(subscription)).run_id for _ in range(1100)]
    assert first.index("2") == 1000


async def test_a_loop_that_was_left_can_be_taken_up_again(run):
    """`break` loses nothing: the next loop goes on behind it."""
    subscription = subscribe(run)
    run.publish("started", 5, "end")
    run.close()
    got = []
    async for event in subscription:
        got.append(event)
        if len(got) == 3:
            break
    assert [*got, *await rest(subscription)] == run.told


async def test_two_tasks_cannot_iterate_at_once(run):
    """Each would get a part of the events only: it is refused, and the first goes on."""
    subscription = subscribe(run)
    first = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    with pytest.raises(SubscriptionBusyError, match="a subscription of its own"):
        await anext(subscription)
    run.publish("started")
    assert await first is run.told[0]


async def test_batches_are_the_same_events(run):
    """In lists of what had come by then."""
    subscription = subscribe(run, start=None)
    run.publish("started", 2)
    run.publish("retried")
    batches = subscription.batches()
    assert await anext(batches) == run.told
    run.publish("end")
    assert await anext(batches) == run.told[-1:]
    run.close()
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_a_burst_of_news_wakes_a_reader_a_few_times_only(run, monkeypatch):
    """The first at once, the rest together a moment later: waking costs more than events."""
    monkeypatch.setattr("asyncflow.engine.subscription.PACE_SECONDS", 1000)
    subscription = subscribe(run, start=None)
    reading = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    run.publish("started")
    assert await reading is run.told[0]
    reading = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    for _ in range(100):
        run.publish("started")
        await asyncio.sleep(0)
    assert not reading.done()
    subscription._mailbox.wake()  # as the loop's clock does
    await reading
    assert len(await anext(subscription.batches())) == 99


async def ten_readers(run, counts):
    """Ten tasks that wait for events, each of which has just had one; they add to their counts."""

    async def read(number):
        async for batch in subscribe(run, start=None).batches():
            counts[number] += len(batch)

    readers = [asyncio.ensure_future(read(number)) for number in range(10)]
    await asyncio.sleep(0)
    run.publish("started")
    for _ in range(10):
        await asyncio.sleep(0)
    assert counts == [1] * 10
    return readers


async def test_readers_that_are_woken_at_the_same_time_share_a_timer(run):
    """Ten that follow a busy run set one in each pace, not ten."""
    counts: list[int] = [0] * 10
    loop: Any = asyncio.get_running_loop()
    readers = await ten_readers(run, counts)
    before = len(loop._scheduled)
    run.publish("started")
    assert len(loop._scheduled) == before + 1
    run.publish("end")
    run.close()
    await asyncio.gather(*readers)
    assert counts == [3] * 10


async def test_readers_with_much_to_read_take_turns_of_the_loop(run, monkeypatch):
    """Ten that have 600 events each are two in a turn: the loop does other things in between."""
    counts = [0] * 10
    monkeypatch.setattr("asyncflow.engine.subscription.PACE_SECONDS", 0.2)
    readers = await ten_readers(run, counts)
    run.publish(600)
    taken = []
    while sum(counts) < 6010:
        before = sum(counts)
        await asyncio.sleep(0)
        taken.append((sum(counts) - before) // 600)
    run.publish("end")
    run.close()
    await asyncio.gather(*readers)
    assert counts == [602] * 10
    assert sum(taken) == 10
    assert max(taken) == 2


async def test_a_bell_whose_alarm_was_lost_rings_again(run, monkeypatch):
    """A signal handler has raised in it: readers hear of the next news as usual all the same."""
    counts: list[int] = [0] * 10
    loop: Any = asyncio.get_running_loop()
    monkeypatch.setattr("asyncflow.engine.subscription.PACE_SECONDS", 0.2)
    monkeypatch.setattr("asyncflow.engine.subscription._LOST_SECONDS", 0.0)
    readers = await ten_readers(run, counts)
    run.publish("started")
    (alarm,) = [each for each in loop._scheduled if each._callback.__name__ == "_ring"]
    alarm.cancel()
    await asyncio.sleep(0.3)
    assert counts == [1] * 10
    look_again(loop)  # as an engine does from time to time
    for _ in range(10):
        await asyncio.sleep(0)
    assert counts == [2] * 10
    run.publish("started")
    for _ in range(500):
        await asyncio.sleep(0.001)
    assert counts == [3] * 10
    run.publish("end")
    run.close()
    await asyncio.gather(*readers)


def test_a_loop_that_ends_before_its_bell_rings_is_freed(run):
    """It was to wake a reader: that keeps neither the loop nor the reader's mailbox."""

    async def read():
        counts: list[int] = [0] * 10
        await ten_readers(run, counts)
        run.publish("started")  # each is due to be woken a moment later
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(read())
    # Since Python 3.12, tasks that `asyncio.run` cancels are left in cycles. The first collection
    # ends their subscriptions, and the second frees what the run's channel kept for those.
    gc.collect()
    gc.collect()
    assert loop() is None


async def test_the_last_event_of_a_run_is_told_at_once(run, monkeypatch):
    """Also to a reader that has just been woken: whoever waits for the end waits for nothing."""
    monkeypatch.setattr("asyncflow.engine.subscription.PACE_SECONDS", 1000)
    subscription = subscribe(run, start=None)
    reading = asyncio.ensure_future(rest(subscription))
    await asyncio.sleep(0)
    run.publish("started")
    await asyncio.sleep(0)
    run.publish("started")
    await asyncio.sleep(0)
    run.publish("end")
    run.close()
    assert await reading == run.told


async def test_closing_ends_a_reader_that_waits(run):
    """It is not left waiting for ever; what had not been taken is let go."""
    subscription = subscribe(run)
    waiting = asyncio.ensure_future(rest(subscription))
    await asyncio.sleep(0)
    subscription.close()
    assert await waiting == []
    run.publish("started")
    assert await rest(subscription) == []
    assert run.channel.subscribers == 0


def test_a_subscription_can_be_made_where_no_loop_runs(run):
    """And read where one does."""
    run.publish("started", 2)
    subscription = subscribe(run)
    run.publish("end")
    run.close()
    assert asyncio.run(rest(subscription)) == run.told


async def test_leaving_the_block_leaves_the_run(run):
    """`async with` and `aclosing` do the same."""
    async with subscribe(run):
        assert run.channel.subscribers == 1
    async with aclosing(subscribe(run)):
        assert run.channel.subscribers == 1
    assert run.channel.subscribers == 0


async def test_a_subscription_that_is_forgotten_leaves_nothing(run):
    """Neither itself, nor what waited for it, nor its place in the channel."""
    subscription = subscribe(run)
    run.publish("started")
    known = weakref.ref(subscription)
    del subscription
    gc.collect()
    assert known() is None
    assert run.channel.subscribers == 0


async def test_a_loop_over_what_nobody_holds_ends_with_the_loop(run):
    """`async for event in handle.events(): break` is how it is mostly written."""
    run.publish("started")
    async for _ in subscribe(run):
        break
    gc.collect()
    assert run.channel.subscribers == 0


# --- what goes wrong ----------------------------------------------------------------------------


async def test_a_run_without_a_last_word_is_told_of_to_who_asked_for_that_run(run):
    """After its last event; a second loop has ended for good."""
    subscription = subscribe(run, raises_if_interrupted=True)
    run.publish("started")
    run.close()
    assert await anext(subscription) is run.told[0]
    with pytest.raises(RunInterruptedError, match="--origin-run-id 17"):
        await anext(subscription)
    assert await rest(subscription) == []


async def test_a_run_with_a_last_word_just_ends(run):
    """There is nothing to complain of."""
    subscription = subscribe(run, raises_if_interrupted=True)
    run.publish("end")
    run.close()
    assert await rest(subscription) == run.told


async def test_a_journal_that_was_cut_is_an_error_and_the_other_runs_go_on(tmp_path):
    """Events that had been told and are gone are not passed over in silence."""
    cut, whole = Publisher(tmp_path, "1"), Publisher(tmp_path, "2")
    for each in (cut, whole):
        each.publish("started", "started", "end")
        each.close()
    with Path(cut.stored.journal_place).open("r+b") as file:
        file.truncate(cut.journal.size - 3)
    subscription = subscribe(cut, whole)
    got = []

    async def read_on():
        async for batch in subscription.batches():
            got.extend(batch)

    with pytest.raises(JournalError, match="F/1 cannot be read: it ends at byte"):
        await read_on()
    await read_on()
    assert [event for event in got if event.run_id == "2"] == whole.told


async def test_a_journal_that_is_gone_is_an_error(run):
    """It names the run."""
    run.publish("started")
    Path(run.stored.journal_place).unlink()
    with pytest.raises(JournalError, match="F/17 cannot be read: the file is gone"):
        await anext(subscribe(run))


@pytest.mark.parametrize("wrong", [int, "TaskFailed", None])
def test_what_is_no_type_of_event_is_refused(wrong):
    """At the call, not by silence later."""
    with pytest.raises(TypeError, match="not a type of event"):
        EventFilter((wrong,))


def test_a_negative_number_is_refused():
    """There is no such event."""
    with pytest.raises(ValueError, match="since must be the seq of an event"):
        EventFilter((), -1)


# --- records, read without unpacking them -------------------------------------------------------


@given(st.sampled_from(event_types()), st.integers(1, (1 << 64) - 1))
def test_code_and_number_of_a_record_are_read_without_the_rest(cls, seq):
    """Whatever the width in which MessagePack has written them."""
    of_task = {"step": "a", "task_id": "1", "attempt": 0} if issubclass(cls, TaskEvent) else {}
    if cls is TaskLogged:
        record = pack_logged(seq, 0, ("a", 1, 0), 0, 4, b"x", 0)
    else:
        named = {"graph": {}, **of_task} if cls is RunStarted else of_task
        event = cls(flow="F", run_id="1", seq=seq, time=NOW, **named)
        record = pack_event(event)
    assert peek(record) == (cls.code, seq)


@given(st.binary(max_size=12))
def test_what_is_no_record_is_refused(data):
    """With an error that the reader of a journal expects, never another."""
    try:
        code, seq = peek(data)
    except RecordError:
        return
    assert code < 128
    assert seq >= 0


def test_every_record_of_a_journal_is_read_from_any_offset(run):
    """What replaying relies on."""
    run.publish("started", 3, "retried")
    with run.stored.open_journal() as reader:
        codes = [peek(record) for _, record, _ in reader.read_from(0)]
    assert codes == [(TaskStarted.code, 1), (TaskLogged.code, 2), (TaskRetried.code, 5)]
