"""However a program ends or is stopped, its engine closes: in order, and with nothing left."""

from __future__ import annotations

import asyncio
import signal
import sys

import psutil
import pytest

from asyncflow import Engine, Flow, events
from asyncflow._support.event_loop import UncancellableTask
from asyncflow.engine.subscription import Channel
from tests.support.flows import Linear, Wide
from tests.support.leftovers import engine_threads

TICKS = [*range(8), 10, 13, 17, 24, 36, 60]
"""After so many turns of the event loop it happens. Most goes wrong within the first few."""

KINDS = [events.RunStarted, events.TaskStarted, events.TaskSucceeded, events.RunSucceeded]


def after(turns, act):
    """Have something done when the event loop has turned so many times."""
    if turns:
        asyncio.get_running_loop().call_soon(after, turns - 1, act)
    else:
        act()


def cancel_all():
    """What `asyncio.run` does at its end, and an application may do at any time."""
    for task in asyncio.all_tasks():
        task.cancel()


def leave():
    """End the program."""
    sys.exit(7)


def interrupt():
    """What the second Ctrl-C does."""
    raise KeyboardInterrupt


WAYS = [(cancel_all, asyncio.CancelledError), (leave, SystemExit), (interrupt, KeyboardInterrupt)]


def statuses(flow):
    """How the runs of a flow have ended."""
    return {str(run.status) for run in Flow(flow.__name__)}


def check_nothing_is_left():
    """Neither a process nor a thread of an engine."""
    assert not psutil.Process().children()
    assert engine_threads() == []


@pytest.mark.parametrize(("act", "error"), WAYS, ids=["cancel", "exit", "interrupt"])
@pytest.mark.parametrize("moment", ["start", "run", "close"])
def test_whenever_all_tasks_are_cancelled_the_engine_closes_and_its_run_is_cancelled(
    store, moment, act, error
):
    """In whatever turn of the event loop: also before a task of the engine has begun."""

    async def main(turns):
        async with Engine(store=store, workers=1) as engine:
            if moment == "start":
                after(turns, act)
            handle = await engine.start(Wide, width=500)
            if moment == "run":
                after(turns, act)
            if moment != "close":
                await handle
            after(turns, act)
        await asyncio.sleep(60)  # for what comes only when the engine is closed

    for turns in TICKS:
        with pytest.raises(error):
            asyncio.run(main(turns))
        check_nothing_is_left()
    assert statuses(Wide) == {"cancelled"}


@pytest.mark.parametrize("is_async", [False, True], ids=["def", "async"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("act", "error"), WAYS[1:], ids=["exit", "interrupt"])
def test_a_callback_may_end_the_program(store, kind, act, error, is_async):
    """By what it raises, which comes out as it is; the run is cancelled, and all is closed."""
    calls = []

    def on_event(event):
        calls.append(event)
        act()

    async def on_event_async(event):
        on_event(event)

    async def main():
        async with Engine(store=store, workers=1) as engine:
            engine.on(kind, on_event_async if is_async else on_event)
            await engine.run(Linear)
            await asyncio.sleep(60)

    with pytest.raises(error):
        asyncio.run(main())
    check_nothing_is_left()
    assert len(calls) == 1
    assert statuses(Linear) <= {"cancelled", "succeeded"}


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_signals_handler_may_end_the_program_in_the_middle_of_a_run(store, monkeypatch, number):
    """Also where it comes while a run tells of events: the run is broken off, and interrupted."""
    publish, published = Channel.publish, []

    def interrupted(channel, news, size):
        publish(channel, news, size)
        published.append(size)
        if len(published) == number + 1:
            signal.raise_signal(signal.SIGUSR1)

    def handler(*_):
        sys.exit(7)

    async def main():
        async with Engine(store=store, workers=1) as engine:
            await engine.run(Linear)

    monkeypatch.setattr(Channel, "publish", interrupted)
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(SystemExit) as caught:
            asyncio.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught.value.code == 7
    check_nothing_is_left()
    assert statuses(Linear) == {"interrupted"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_callback_may_cancel_all_tasks(store, kind):
    """Its own among them; what it does to that does not end it."""
    calls = []

    def on_event(event):
        calls.append(event)
        cancel_all()

    async def main():
        async with Engine(store=store, workers=1) as engine:
            engine.on((kind, events.RunCancelled), on_event)
            await engine.run(Linear)
            await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    check_nothing_is_left()
    assert sorted({event.seq for event in calls}) == [event.seq for event in calls]
    assert statuses(Linear) <= {"cancelled", "succeeded"}


def test_an_engine_that_is_never_left_ends_with_its_event_loop(store):
    """Its runs are cancelled, and say so; a program does not hang over it."""

    async def main():
        engine = Engine(store=store, workers=1)
        await engine.__aenter__()
        engine.on(events.Event, lambda _: None)
        await engine.start(Wide, width=500)
        return engine

    with asyncio.Runner() as runner:
        engine = runner.run(main())
        left = asyncio.all_tasks(runner.get_loop())
        for task in left:  # as the runner does at its end
            task.cancel()
        runner.get_loop().run_until_complete(asyncio.wait(left))
        assert statuses(Wide) == {"cancelled"}
        runner.run(engine.__aexit__(None, None, None))
    check_nothing_is_left()


async def test_an_orderly_task_ends_by_itself_and_is_asked_to():
    """Nobody can throw anything into it, not even before it begins."""
    asked, go = [], asyncio.Event()

    async def work():
        await go.wait()
        return "done"

    def ask():
        asked.append(True)
        go.set()

    task = UncancellableTask(work(), ask=ask)
    assert not task.cancel()
    assert await task == "done"
    assert not task.cancel()
    assert asked == [True]
