"""Watching an engine's runs: subscriptions to all or to one, and callbacks, on real workers."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import assert_type

import anyio
import pytest

from asyncflow import Engine, FlowSpec, Parameter, Run, events, step
from asyncflow._support.settings import Settings
from asyncflow.engine.subscription import Subscription
from asyncflow.errors import EngineClosedError, NotFoundError, RunFailedError, RunInterruptedError
from asyncflow.events import Event
from asyncflow.events.types import ArtifactsEvent
from tests.support.command_line import own_frames
from tests.support.flows import Branches, Linear, Sleeping, Wide
from tests.support.waiting import until

FLOWS = Path(__file__).parents[1] / "support" / "flows.py"


class Printing(FlowSpec):
    """Prints many lines in one task."""

    lines = Parameter("lines", default=1000)

    @step
    def start(self):
        print("\n".join(map(str, range(self.lines))))
        self.next(self.end)

    @step
    def end(self):
        pass


class Unreadable(FlowSpec):
    """Fails over a file whose name is not UTF-8."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        raise FileNotFoundError(os.fsdecode(b"caf\xe9"))


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


def journal(run):
    """All that a run's journal tells."""
    return list(run.events())


async def everything(subscription):
    """All events that it hands out."""
    return [event async for event in subscription]


# --- which events of which runs -----------------------------------------------------------------


async def test_a_subscription_has_the_type_of_what_was_asked_for(engine: Engine) -> None:
    """A type checker knows the one type, or what several have in common; the gate checks this."""
    handle = await engine.start(Linear)
    async with engine.subscribe(events.RunSucceeded, run=handle) as one:
        async for event in one:
            assert_type(event, events.RunSucceeded)
            assert event.seconds > 0
    async with engine.subscribe(events.TaskFailed, events.TaskSucceeded, run=handle) as two:
        async for either in two:
            assert_type(either, ArtifactsEvent)
            match either:
                case events.TaskFailed(message=message):
                    pytest.fail(message)
                case events.TaskSucceeded():
                    assert either.step
    ends = engine.subscribe(*events.ENDINGS, run=handle)
    assert_type(await anext(ends), Event)
    assert_type(engine.subscribe(), Subscription[Event])
    async for logged in handle.events(events.TaskLogged):
        assert_type(logged, events.TaskLogged)
    for begun in handle.run.events(events.TaskStarted):
        assert_type(begun, events.TaskStarted)
    await handle


async def test_a_subscription_to_one_flow_hears_of_its_runs_only(engine):
    """By class or by name."""
    by_class = engine.subscribe(events.RunSucceeded, flow=Branches)
    by_name = engine.subscribe(events.RunSucceeded, flow="Linear")
    linear, branches = await engine.run(Linear), await engine.run(Branches)
    assert (await anext(by_class)).run_id == branches.id
    assert (await anext(by_name)).run_id == linear.id


async def test_since_0_brings_all_of_the_runs_that_go_on_too(engine):
    """Else a subscription begins now."""
    handle = await engine.start(Sleeping)
    async for event in handle.events(events.TaskLogged):
        if event.line == "sleeping":
            break
    async with engine.subscribe(since=0) as all_of_it, engine.subscribe() as from_now:
        handle.cancel()
        first = [await anext(all_of_it) for _ in range(4)]
        assert [event.seq for event in first] == [1, 2, 3, 4]
        assert isinstance(await anext(from_now), events.TaskFailed)


async def test_one_run_can_be_named_in_any_way(engine):
    """While it goes on, and when it has ended."""
    handle = await engine.start(Linear)
    names = [handle, handle.run, handle.pathspec, handle.run_id]
    live = [engine.subscribe(run=name) for name in names]
    run = await handle
    past = [engine.subscribe(run=name) for name in names]
    for stream in [*live, *past]:
        assert await everything(stream) == journal(run)


async def test_since_begins_behind_that_event_live_or_past(engine):
    """`since` is the number of the last event that somebody has."""
    handle = await engine.start(Printing, lines=33)
    numbers = [0, 1, 7, 38, 39, 100]
    live = [(engine.subscribe(run=handle, since=n), handle.events(since=n)) for n in numbers]
    run = await handle
    count = len(journal(run))  # 39, and more where the machine is so busy that the engine says so
    assert count >= 39
    for since, streams in zip(numbers, live, strict=True):
        expected = [event for event in journal(run) if event.seq > since]
        assert len(expected) == max(0, count - since)
        for stream in (*streams, engine.subscribe(run=run, since=since)):
            assert await everything(stream) == expected
        assert list(run.events(since=since)) == expected


@contextmanager
def elsewhere(store, flow, *options):
    """A run of another process: the process, and the file that will tell the run's id."""
    file = store.with_name("id")
    command = [sys.executable, "-m", "asyncflow", "run", f"{FLOWS}:{flow}", *options]
    other = subprocess.Popen(
        [*command, "--workers=1", "--run-id-file", str(file)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield other, file
    finally:
        other.terminate()
        other.stdout.close()
        other.wait()


async def test_a_run_of_another_process_is_followed_to_its_end(engine, store):
    """Its journal is all that is needed."""
    with elsewhere(store, "Wide", "--width=300", "--quiet") as (other, file):
        await until(lambda: file.exists() or other.poll() is not None)
        pathspec = f"Wide/{file.read_text()}"
        async with engine.subscribe(run=pathspec) as stream:
            got = await everything(stream)
    assert got == journal(Run(pathspec))
    assert isinstance(got[-1], events.RunSucceeded)


async def test_a_run_that_is_not_there_is_refused(engine):
    """At the call."""
    with pytest.raises(NotFoundError, match="no run '17'"):
        engine.subscribe(run="17")
    with pytest.raises(NotFoundError):
        engine.subscribe(run="Linear/17")
    handle = await engine.start(Linear)
    with pytest.raises(ValueError, match="is not a run of Branches"):
        engine.subscribe(run=handle, flow=Branches)
    await handle


async def test_a_closed_engine_tells_nothing(store):
    """Who subscribed would wait for ever."""
    engine = Engine(store=store, workers=1)
    with pytest.raises(EngineClosedError):
        engine.subscribe()
    with pytest.raises(EngineClosedError):
        engine.on(events.TaskFailed, print)
    async with engine:
        stream = engine.subscribe()
    assert await everything(stream) == []
    with pytest.raises(EngineClosedError):
        engine.subscribe()


async def test_a_subscription_to_a_run_elsewhere_ends_with_the_engine(store):
    """It is not left to wait for a run that may go on for days."""
    with elsewhere(store, "Sleeping", "--quiet") as (other, file):
        await until(lambda: file.exists() or other.poll() is not None)
        async with Engine(store=store, workers=1) as engine:
            stream = engine.subscribe(events.RunStarted, run=f"Sleeping/{file.read_text()}")
            await anext(stream)
        assert await everything(stream) == []


async def test_hundreds_of_forgotten_subscriptions_leave_nothing(engine):
    """Neither in the engine nor in a run."""
    handle = await engine.start(Sleeping)
    for _ in range(300):
        engine.subscribe()
        handle.events()
        async for _ in handle.events():
            break
    gc.collect()
    assert len(engine._watchers._subscriptions) == 0
    assert handle._channel.subscribers == 0
    handle.cancel()


async def test_what_is_told_is_what_the_journal_has_whatever_a_message_is_made_of(engine):
    """Text that is no UTF-8 is journalled as it would be shown, and told like that too."""
    handle = await engine.start(Unreadable)
    told = await everything(handle.events())
    assert told == journal(handle.run)
    (failed,) = (event for event in told if isinstance(event, events.RunFailed))
    assert "caf" in failed.message
    with pytest.raises(RunFailedError):
        await handle


# --- slow subscribers ---------------------------------------------------------------------------


async def sleep_through(store, lines):
    """Sleep through a run, then read it: how many events, and how much memory sleeping took."""
    settings = Settings(store=store, workers=1, event_buffer=1000)
    async with Engine(settings=settings) as engine:
        await engine.run(Printing, lines=10)
        sleeper = engine.subscribe()
        tracemalloc.start()
        try:
            run = await engine.run(Printing, lines=lines)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
            seqs = []
            async for event in sleeper:
                seqs.append(event.seq)
                if isinstance(event, events.RunSucceeded):
                    break
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert seqs == list(range(1, len(seqs) + 1))
        assert seqs[-1] == run._record.summary().events
    return len(seqs), held, peak


async def test_who_sleeps_through_a_run_gets_all_of_it_afterwards(store):
    """And holds next to nothing while it sleeps."""
    told, held, _ = await sleep_through(store, 5000)
    assert told == 5006
    assert held < 1 << 20


@pytest.mark.slow
async def test_who_sleeps_through_100_000_events_gets_all_of_them(store):
    """Memory stays flat, while it sleeps and while it reads on from the journal."""
    told, held, peak = await sleep_through(store, 100_000)
    assert told == 100_006
    assert held < 2 << 20
    assert peak < 24 << 20  # all of them at once would be some 60 MB


# --- callbacks ----------------------------------------------------------------------------------


async def test_callbacks_are_called_for_what_they_were_registered_for(engine: Engine) -> None:
    """Sync or async, with one type or several, in order."""
    ended: list[str] = []
    seen: list[int] = []

    def note_end(event: events.RunSucceeded) -> None:
        ended.append(event.pathspec)

    async def note(event: events.TaskStarted | events.TaskSucceeded) -> None:
        await asyncio.sleep(0)
        seen.append(event.seq)

    engine.on(events.RunSucceeded, note_end)
    engine.on((events.TaskStarted, events.TaskSucceeded), note, flow=Linear)
    run = await engine.run(Linear)
    other = await engine.run(Branches)
    await until(lambda: len(ended) == 2 and len(seen) == 6)
    assert ended == [run.pathspec, other.pathspec]
    kinds = (events.TaskStarted, events.TaskSucceeded)
    assert seen == [event.seq for event in run.events() if isinstance(event, kinds)]


async def test_a_callback_that_raises_is_logged_and_disturbs_nobody(engine, caplog):
    """It is called for the next event all the same, and so is everybody else."""
    calls: list[int] = []
    others: list[Event] = []

    async def bad(event):
        calls.append(event.seq)
        if len(calls) == 1:
            raise LookupError("no such channel")
        if len(calls) == 2:
            raise asyncio.CancelledError

    engine.on(events.TaskSucceeded, bad)
    engine.on(events.TaskSucceeded, others.append)
    run = await engine.run(Linear)
    await until(lambda: len(calls) == 3 and len(others) == 3)
    assert run.successful
    assert calls == [event.seq for event in others]
    first, second = caplog.messages
    assert "a callback raised" in first
    assert first.startswith("a callback raised (callback: ")
    assert (
        f", about: TaskSucceeded 3 of {run.pathspec}/start/1)\nTraceback (most recent call last):\n"
        in first
    )
    assert first.endswith("\nLookupError: no such channel")
    assert not own_frames(first)
    assert "bad" in first
    assert "a callback waited for something that was cancelled" in second


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async"])
async def test_a_callback_that_cancels_its_own_task_ends_itself_alone(engine, caplog, is_async):
    """It is called no more, and that is logged; everybody else goes on."""
    calls: list[int] = []
    others: list[Event] = []

    def cancel(event):
        calls.append(event.seq)
        asyncio.current_task().cancel()

    async def cancel_and_wait(event):
        cancel(event)
        await asyncio.sleep(60)

    callback = engine.on(events.TaskSucceeded, cancel_and_wait if is_async else cancel)
    engine.on(events.TaskSucceeded, others.append)
    run = await engine.run(Linear)
    await until(lambda: callback.done.is_set() and len(others) == 3)
    assert run.successful
    assert len(calls) == 1
    (message,) = caplog.messages
    assert message.startswith("a callback was cancelled: it is called no more (callback: ")


async def test_a_callback_that_survives_its_cancellation_is_cancelled_again(store):
    """Else leaving the engine would wait for it for ever."""
    outcomes = []

    async def survive(event):
        for _ in range(2):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                outcomes.append("cancelled")

    async with Engine(settings=Settings(store=store, workers=1, grace_seconds=0.1)) as engine:
        engine.on(events.RunSucceeded, survive)
        await engine.run(Linear)
    assert outcomes == ["cancelled", "cancelled"]


async def test_a_callback_that_is_stopped_is_called_no_more(engine):
    """What it had begun it may end, also when it stops itself."""
    calls: list[Event] = []

    async def once(event):
        callback.stop()
        await asyncio.sleep(0)
        calls.append(event)

    callback = engine.on(events.TaskSucceeded, once)
    with engine.on(events.TaskSucceeded, calls.append) as other:
        pass
    await engine.run(Linear)
    await callback.done.wait()
    await other.done.wait()
    assert len(calls) == 1
    assert repr(callback).endswith("once stopped>")


async def test_callbacks_hear_how_the_engine_ends_their_runs(store):
    """Leaving waits for them."""
    heard = []

    async def slowly(event):
        await asyncio.sleep(0.05)
        heard.append(event.reason)

    async with Engine(store=store, workers=1) as engine:
        engine.on(events.RunCancelled, slowly)
        await engine.start(Sleeping)
    assert heard == ["its engine was closed"]


async def test_a_callback_that_hangs_does_not_hold_the_engine(store, caplog):
    """It is cancelled after `grace_seconds`, and that is told."""
    outcome = []

    async def hang(event):
        try:
            await anyio.sleep(1000)
        except asyncio.CancelledError:
            outcome.append("cancelled")
            raise

    began = time.monotonic()
    async with Engine(settings=Settings(store=store, workers=1, grace_seconds=0.1)) as engine:
        engine.on(events.RunSucceeded, hang)
        await engine.run(Linear)
    assert time.monotonic() - began < 100
    assert outcome == ["cancelled"]
    assert "cancelled with its engine" in caplog.text


async def test_a_callback_can_be_told_of_a_run_that_ended_long_ago(engine):
    """From any number on; it ends by itself."""
    run = await engine.run(Linear)
    seen: list[Event] = []
    callback = engine.on(events.Event, seen.append, run=run, since=3)
    await callback.done.wait()
    assert seen == journal(run)[3:]


async def test_an_interrupted_run_ends_a_subscription_and_says_so(engine, store):
    """After the last event that is there."""
    run_id = kill_one(store)
    got = []

    async def read():
        async for event in engine.subscribe(run=f"Sleeping/{run_id}"):
            got.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(RunInterruptedError, match=f"--origin-run-id {run_id}") as raised:
        await read()
    assert raised.value.pathspec == f"Sleeping/{run_id}"
    assert got == journal(Run(f"Sleeping/{run_id}"))


def kill_one(store):
    """Kill the engine of a run while it runs; the run's id."""
    with elsewhere(store, "Sleeping") as (other, file):
        for line in other.stdout:
            if line.endswith("sleeping\n"):
                break
        other.kill()
    return file.read_text()


async def test_a_wide_run_is_heard_of_by_ten_at_once(engine):
    """Each gets every event, in order, and the very same objects."""
    streams = [engine.subscribe() for _ in range(10)]
    run = await engine.run(Wide, width=200)
    expected = journal(run)

    async def read(stream):
        got = []
        async for event in stream:
            got.append(event)
            if isinstance(event, events.RunSucceeded):
                return got
        return got

    assert await asyncio.gather(*map(read, streams)) == [expected] * 10
