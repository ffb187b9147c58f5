"""An engine in a program: many runs beside each other, on real worker processes."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from asyncflow import Engine, FlowSpec, Parameter, events, step
from asyncflow._support.settings import Settings
from asyncflow.errors import EngineClosedError, RunCancelledError, SettingsError
from asyncflow.scheduling.statistics import Statistics
from tests.support.flows import Linear, Sleeping, Waiting, Wide


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


class Napping(FlowSpec):
    """A foreach of tasks that take a while; `def` ones."""

    width = Parameter("width", default=6)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.nap, foreach="items")

    @step
    def nap(self):
        import time

        self.began = time.monotonic()
        time.sleep(0.05)
        self.ended = time.monotonic()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.spans = [(task.began, task.ended) for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


def most_at_once(spans):
    """How many of the spans of time lie over each other at most."""
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


async def test_a_late_run_of_three_tasks_ends_long_before_an_early_one_of_ten_thousand(engine):
    """Most of the early run's tasks have not begun when the late one has ended."""
    early = await engine.start(Wide, width=10_000)
    async for event in early.events():
        if isinstance(event, events.TaskSucceeded) and event.seq > 200:
            break
    late = await engine.run(Linear)
    assert late.successful
    assert engine.statistics().tasks_waiting > 2000
    early.cancel()
    with pytest.raises(RunCancelledError):
        await early


async def test_two_hundred_runs_of_different_flows_share_one_pool(engine):
    """All of them come to their right end, whatever they are made of."""
    flows = [(Linear, {"alpha": 1.0}), (Wide, {"width": 7}), (Waiting, {"width": 5, "seconds": 0})]
    async with anyio.create_task_group() as group:
        found = []

        async def one(number):
            flow, parameters = flows[number % 3]
            data = (await engine.run(flow, **parameters)).data
            found.append(data.y if flow is Linear else data.count)

        for number in range(200):
            group.start_soon(one, number)
    assert sorted(found) == [3.0] * 67 + [5] * 66 + [7] * 67


async def test_a_run_can_be_told_how_many_tasks_it_may_have_running(engine):
    """With one at a time no two overlap, though there are two workers."""
    run = await engine.options(max_running_tasks=1).run(Napping)
    assert most_at_once(run.data.spans) == 1


async def test_the_setting_holds_for_runs_that_are_told_nothing_else(store):
    """`max_running_tasks` of the engine is the default, and a run's own option wins."""
    async with Engine(settings=Settings(store=store, workers=2, max_running_tasks=1)) as engine:
        bounded = await engine.run(Napping)
        free = await engine.options(max_running_tasks=0).start(Waiting, width=2, seconds=600.0)
        await until(lambda: engine.statistics().tasks_running == 2)
        free.cancel()
    assert most_at_once(bounded.data.spans) == 1


async def until(condition):
    """Wait for something to hold."""
    while not condition():  # noqa: ASYNC110 - workers have to do it
        await asyncio.sleep(0.01)


async def test_options_are_kept_by_what_they_are_given_to_and_nowhere_else(engine):
    """They add up along a chain, and the engine itself stays as it was."""
    urgent = engine.options(priority=3)
    assert "priority=3, max_running_tasks=2" in repr(urgent.options(max_running_tasks=2))
    assert "priority=3, max_running_tasks=0" in repr(urgent)
    handle = await engine.start(Linear)
    assert handle._driver.priority == 0
    await handle


@pytest.mark.parametrize("options", [{"max_running_tasks": -1}, {"priority": "high"}])
async def test_options_that_make_no_sense_are_refused(engine, options):
    """The error names the option and what it was given."""
    ((name, value),) = options.items()
    with pytest.raises(SettingsError, match=f"{name}.*{value}"):
        engine.options(**options)


async def test_a_run_of_a_higher_priority_passes_one_that_is_going_on(engine):
    """It is done while most of the other's tasks still wait."""
    slow = await engine.start(Napping, width=20_000)
    await until(lambda: engine.statistics().tasks_waiting > 10_000)
    await engine.options(priority=1).run(Napping, width=6)
    assert engine.statistics().tasks_waiting > 1000
    slow.cancel()
    with pytest.raises(RunCancelledError):
        await slow


async def test_beyond_max_runs_to_start_waits(store):
    """The third starts when one of two has ended; statistics tell of who waits."""
    async with Engine(settings=Settings(store=store, workers=2, max_runs=2)) as engine:
        first, second = [await engine.start(Sleeping) for _ in range(2)]
        third = asyncio.create_task(engine.start(Linear))
        await until(lambda: engine.statistics().runs_waiting == 1)
        assert not third.done()
        assert engine.statistics().runs == 2
        first.cancel()
        assert (await (await third)).successful
        second.cancel()


async def test_to_wait_for_a_start_can_be_cancelled(store):
    """Nothing of the run is there, and the next one in line is let in."""
    async with Engine(settings=Settings(store=store, workers=1, max_runs=1)) as engine:
        first = await engine.start(Sleeping)
        with anyio.move_on_after(0.1) as scope:
            await engine.start(Linear)
        assert scope.cancelled_caught
        assert not (store / "flows" / "Linear").exists()
        first.cancel()
        assert (await engine.run(Linear)).successful


async def test_a_start_that_waits_when_the_engine_closes_is_refused(store):
    """It does not wait for ever, and starts nothing."""
    async with Engine(settings=Settings(store=store, workers=1, max_runs=1)) as engine:
        await engine.start(Sleeping)
        waiting = asyncio.create_task(engine.start(Linear))
        await asyncio.sleep(0.05)
    with pytest.raises(EngineClosedError):
        await waiting
    assert not (store / "flows" / "Linear").exists()


async def test_a_start_that_fails_gives_its_place_back(store):
    """A wrong parameter does not use up one of the places."""
    async with Engine(settings=Settings(store=store, workers=1, max_runs=1)) as engine:
        for _ in range(3):
            with pytest.raises(Exception, match="alfa"):
                await engine.start(Linear, alfa=1)
        assert (await engine.run(Linear)).successful


async def test_statistics_tell_how_the_engine_stands(engine):
    """Runs, tasks and workers as they are now, events and bytes since it was opened."""
    assert engine.statistics() == Statistics()
    handle = await engine.start(Waiting, width=10, seconds=60.0)
    async for event in handle.events():
        if isinstance(event, events.TaskStarted) and event.seq > 12:
            break
    numbers = engine.statistics()
    assert (numbers.runs, numbers.tasks_running, numbers.tasks_waiting) == (1, 10, 0)
    assert numbers.workers_busy == 1
    assert "1 runs, 10 tasks running" in repr(engine)
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    journal = handle._channel.journal
    last = [event.seq async for event in handle.events()][-1]
    assert engine.statistics().events == last
    assert engine.statistics().bytes_written == journal.stat().st_size
    assert engine.statistics().events_per_second > 0
