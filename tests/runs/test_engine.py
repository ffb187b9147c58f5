"""Running flows from an asyncio program, on real worker processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import anyio
import psutil
import pytest

import asyncflow
from asyncflow import Engine, FlowSpec, Run, events, step
from asyncflow.errors import (
    EngineClosedError,
    ParameterError,
    RunCancelledError,
    RunFailedError,
)
from asyncflow.values import Status
from tests.support.command_line import own_frames
from tests.support.flows import Branches, Linear, Misbehaving, Nested, Sleeping, Waiting, Wide


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


async def collect(handle):
    """All events of a run."""
    return [event async for event in handle.events()]


def open_descriptors():
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def names(seen):
    """The types of events, as text."""
    return [type(event).__name__ for event in seen]


# --- results ------------------------------------------------------------------------------------


async def test_a_linear_flow_hands_its_artifacts_on(engine):
    """What a step keeps on self is there in the next ones, and afterwards in the store."""
    run = await engine.run(Linear, alpha=1.5)
    assert run.successful
    assert (run.data.x, run.data.y, run.data.alpha) == (3.0, 4.0, 1.5)


async def test_class_constants_are_artifacts(engine):
    """A class-level constant can be read back like anything on self."""
    run = await engine.run(Linear)
    assert run.data.constant == (1, 2)


async def test_branches_meet_in_their_join(engine):
    """A join reads its branches by name, by index and in turn."""
    data = (await engine.run(Branches)).data
    assert data.by_name == data.by_index == (1, 2)
    assert (data.by_turn, data.count, data.common) == ([1, 2], 2, "common")


async def test_nested_foreach_with_branches_joins_level_by_level(engine):
    """Every cell of a foreach in a foreach reaches its own place in the joins."""
    data = (await engine.run(Nested, outer=2, inner=3)).data
    assert data.rows == [[(f"{x}{n}".upper(), f"{x}{n}" * 2) for n in range(3)] for x in "ab"]


async def test_the_foreach_stack_tells_index_count_and_item_of_each_level(engine):
    """`foreach_stack` is outermost first."""
    data = (await engine.run(Nested, outer=2, inner=2)).data
    assert [list(map(tuple, stack)) for stack in data.stacks] == [
        [(i, 2, x), (n, 2, n)] for i, x in enumerate("ab") for n in range(2)
    ]


@pytest.mark.parametrize("width", [0, 1, 7, 5000])
async def test_a_foreach_of_any_width_is_joined_in_order(engine, width):
    """A join sees as many inputs as there were items, even none, even thousands."""
    data = (await engine.run(Wide, width=width)).data
    assert (data.count, data.total) == (width, sum(n * n for n in range(width)))


async def test_many_runs_share_one_engine(engine):
    """Runs that go on at once keep their artifacts apart."""
    async with anyio.create_task_group() as group:
        results = {}

        async def one(alpha):
            results[alpha] = (await engine.run(Linear, alpha=alpha)).data.y

        for alpha in range(20):
            group.start_soon(one, float(alpha))
    assert results == {float(alpha): alpha * 2 + 1.0 for alpha in range(20)}


async def test_async_steps_wait_side_by_side(engine):
    """A hundred tasks that wait for long have all begun before one has ended."""
    handle = await engine.start(Waiting, width=100, seconds=600.0)
    begun = 0
    async for event in handle.events():
        begun += isinstance(event, events.TaskStarted) and event.step == "wait"
        if begun == 100:
            break
    assert engine.statistics().tasks_running == 100
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle


async def test_a_flow_class_made_in_a_function_runs(engine):
    """A class that no worker could import is sent by value."""
    factor = 7

    class Local(FlowSpec):
        @step
        def start(self):
            self.x = factor
            self.next(self.end)

        @step
        def end(self):
            pass

    assert (await engine.run(Local)).data.x == 7


async def test_run_and_run_sync_need_no_engine(store):
    """A one-off run opens and closes an engine of its own."""
    run = await asyncflow.run(Linear, alpha=2.0)
    again = await anyio.to_thread.run_sync(lambda: asyncflow.run_sync(Linear, alpha=3.0))
    assert (run.data.y, again.data.y) == (5.0, 7.0)


async def test_run_sync_inside_a_loop_says_what_to_do_instead(store):
    """It cannot work there, and names what does."""
    with pytest.raises(asyncflow.errors.AsyncflowError, match=r"await asyncflow\.run"):
        asyncflow.run_sync(Linear)


async def test_a_wrong_parameter_starts_nothing(engine, store):
    """An unknown parameter is refused before there is a run."""
    with pytest.raises(ParameterError, match="alfa"):
        await engine.start(Linear, alfa=1)
    assert not list((store / "flows").glob("Linear/*"))


# --- events -------------------------------------------------------------------------------------


async def test_a_handle_tells_every_event_from_the_first_to_the_last(engine):
    """Events are numbered without gaps and end with the run's last word."""
    seen = await collect(await engine.start(Linear))
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    tasks = ["TaskStarted", "TaskSucceeded"]
    expected = ["RunStarted", *tasks, *tasks, "TaskStarted", "TaskLogged", "TaskSucceeded"]
    assert names(seen) == [*expected, "RunSucceeded"]


async def test_events_can_be_had_after_the_run_has_ended(engine):
    """A late reader gets the same events from the journal."""
    handle = await engine.start(Linear)
    live = await collect(handle)
    await handle
    assert await collect(handle) == live == list(Run(handle.pathspec).events())


@pytest.fixture
def wall_clock(monkeypatch):
    """Sets back, by so many seconds, every wall clock that asyncflow could read."""

    def set_back(seconds):
        read, read_ns = time.time, time.time_ns

        class SetBack(dt.datetime):
            @classmethod
            def now(cls, tz=None):
                return dt.datetime.now(tz) - dt.timedelta(seconds=seconds)

        monkeypatch.setattr(time, "time", lambda: read() - seconds)
        monkeypatch.setattr(time, "time_ns", lambda: read_ns() - int(seconds * 1e9))
        for name, module in list(sys.modules.items()):
            if name.startswith("asyncflow") and vars(module).get("datetime") is dt.datetime:
                monkeypatch.setattr(module, "datetime", SetBack)

    return set_back


async def test_a_run_is_whole_though_the_clock_was_set_back_meanwhile(engine, wall_clock):
    """Its times never go back, and how long it took is what it took."""
    handle = await engine.start(Linear)
    wall_clock(3600)
    told = await collect(handle)
    run = await handle
    times = [event.time for event in told]
    assert times == sorted(times)
    assert list(run.events()) == told
    assert run.seconds == told[-1].seconds > 0
    assert (run.finished_at - run.created_at).total_seconds() == run.seconds


async def test_events_are_on_disk_before_they_are_told(engine):
    """Whoever hears of an event finds it in the journal at once."""
    handle = await engine.start(Wide, width=50)
    async for event in handle.events():
        written = [known.seq for known in handle.run.events()]
        assert event.seq in written
        if event.seq > 30:
            break
    await handle


async def test_a_subscription_hears_of_every_run(engine):
    """`subscribe` tells only the types asked for, of all runs."""
    async with engine.subscribe(events.RunSucceeded) as stream:
        first = await engine.start(Linear)
        second = await engine.start(Branches)
        heard = set()
        async for event in stream:
            heard.add(event.pathspec)
            if len(heard) == 2:
                break
    assert heard == {first.pathspec, second.pathspec}
    await first
    await second


async def test_a_slow_subscriber_misses_nothing(store):
    """Past its buffer a subscriber reads on from the journal."""
    settings = asyncflow._support.settings.Settings(store=store, workers=2, event_buffer=10)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Wide, width=300)
        seen = []
        async for event in handle.events():
            seen.append(event.seq)
            if len(seen) == 3:
                await handle  # all the others happen meanwhile
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) == 2 + 2 * 303


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "exception_type", "message"),
    [
        ("raise", "ValueError", "as asked"),
        ("system-exit", "SystemExit", "4"),
        ("interrupt", "KeyboardInterrupt", ""),
        ("exit", "WorkerDiedError", "exited with status 3"),
        ("kill", "WorkerDiedError", "SIGKILL"),
        ("segfault", "WorkerDiedError", "SIGSEGV"),
        ("unprintable", "UnprintableError", "__str__ raised"),
        ("group", "ExceptionGroup", "several"),
        ("surrogate", "OSError", "caf\\udce9"),
        ("recurse", "RecursionError", "recursion"),
    ],
)
async def test_however_a_task_ends_it_is_one_clear_failure(engine, how, exception_type, message):
    """The run fails with the task, its exception's type and its message."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Misbehaving, how=how)
    failure = caught.value.failure
    assert failure.step == "work"
    assert failure.exception_type.endswith(exception_type)
    assert message in failure.message
    assert caught.value.run.status is Status.FAILED


async def test_a_failure_shows_the_users_frames_only(engine):
    """The traceback is cut to the flow's own file."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Misbehaving, how="raise")
    text = caught.value.failure.traceback
    assert "misbehave" in text
    assert not own_frames(text)


async def test_a_failure_says_what_to_do_next(engine):
    """The error names the log and the command that resumes."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Misbehaving, how="raise")
    assert "asyncflow logs Misbehaving/" in str(caught.value)
    assert "asyncflow resume" in str(caught.value)


async def test_a_flow_without_a_file_is_resumed_from_python(engine):
    """No command could name it: the error tells the line that does."""

    class Failing(FlowSpec):
        @step
        def start(self):
            self.x = 1 / 0
            self.next(self.end)

        @step
        def end(self):
            pass

    with pytest.raises(RunFailedError) as caught:
        await engine.run(Failing)
    run_id = caught.value.run.id
    assert f'To go on from here: await engine.resume(Failing, origin="{run_id}")' in str(
        caught.value
    )


async def test_the_engine_goes_on_after_a_worker_has_died(engine):
    """A dead worker is replaced."""
    with pytest.raises(RunFailedError):
        await engine.run(Misbehaving, how="kill")
    assert (await engine.run(Wide, width=20)).data.count == 20


async def test_a_worker_that_dies_takes_no_task_of_another_run_with_it(engine):
    """Tasks that stood behind the one that crashed are run elsewhere."""
    async with anyio.create_task_group() as group:
        counts = []

        async def crash():
            with pytest.raises(RunFailedError):
                await engine.run(Misbehaving, how="segfault")

        async def work():
            counts.append((await engine.run(Wide, width=500)).data.count)

        for _ in range(5):
            group.start_soon(work)
            group.start_soon(crash)
    assert counts == [500] * 5


# --- cancelling and closing ---------------------------------------------------------------------


async def test_cancelling_a_handle_ends_the_run_as_cancelled(engine):
    """A step that sleeps is stopped, and the journal says cancelled."""
    handle = await engine.start(Sleeping)
    async for event in handle.events():
        if isinstance(event, events.TaskLogged) and event.line == "sleeping":
            handle.cancel("enough")
    with pytest.raises(RunCancelledError, match="enough"):
        await handle
    assert handle.run.status is Status.CANCELLED


async def test_a_handle_can_be_cancelled_in_another_thread(engine):
    """The event loop is woken, though it has nothing else to do."""
    handle = await engine.start(Waiting, width=1, seconds=600.0)
    async for event in handle.events(events.TaskStarted):
        if event.step == "wait":
            break
    await asyncio.to_thread(handle.cancel, "enough")
    with pytest.raises(RunCancelledError, match="enough"):
        await handle
    await asyncio.to_thread(handle.cancel)


async def test_a_handle_can_be_cancelled_by_a_signals_handler(engine):
    """Whatever the event loop is at just then."""
    handle = await engine.start(Waiting, width=1, seconds=600.0)
    async for event in handle.events(events.TaskStarted):
        if event.step == "wait":
            break
    before = signal.signal(signal.SIGUSR1, lambda *_: handle.cancel("asked by a signal"))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(RunCancelledError, match="asked by a signal"):
            await handle
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handle_of_a_closed_event_loop_can_be_cancelled(store):
    """There is nothing left to be done."""

    async def main():
        async with Engine(store=store, workers=1) as engine:
            return await engine.start(Linear)

    asyncio.run(main()).cancel()


async def test_cancelling_the_awaiter_cancels_the_run(engine):
    """A timeout around `await engine.run` stops the run before it goes on."""
    with anyio.CancelScope() as scope:
        engine.on(events.TaskStarted, lambda _: scope.cancel())
        await engine.run(Sleeping)
    (run,) = asyncflow.Flow("Sleeping")
    assert run.status is Status.CANCELLED


async def test_async_tasks_are_cancelled_without_their_worker(engine):
    """Cancelling async tasks leaves their worker alive."""
    handle = await engine.start(Waiting, width=10, seconds=60.0)
    async for event in handle.events():
        if isinstance(event, events.TaskStarted) and event.step == "wait":
            pid = event.pid
            handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    assert psutil.pid_exists(pid)


async def test_leaving_the_engine_cancels_what_runs_and_leaves_nothing_behind(store):
    """No process, thread or descriptor of an engine outlives it."""
    before = open_descriptors()
    async with Engine(store=store, workers=2) as engine:
        handle = await engine.start(Sleeping)
        children = []
        async for event in handle.events():
            if isinstance(event, events.TaskLogged) and event.line == "sleeping":
                children = psutil.Process().children(recursive=True)
                break
    assert len(children) >= 3  # template, worker, sleep
    assert not psutil.wait_procs(children, timeout=180)[1]
    assert handle.run.status is Status.CANCELLED
    gc.collect()
    await asyncio.sleep(0.05)  # for the loop to end the iterator that was broken off
    assert open_descriptors() <= before


async def test_an_engine_that_is_closed_starts_nothing(store):
    """A closed engine says so."""
    engine = Engine(store=store)
    with pytest.raises(EngineClosedError):
        await engine.start(Linear)


async def test_a_forgotten_engine_gives_a_resource_warning(store):
    """Whoever forgets to close an engine hears of it."""
    engine = Engine(store=store)
    await engine.__aenter__()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine.__del__()
    assert [warning.category for warning in caught] == [ResourceWarning]
    await engine.__aexit__(None, None, None)


async def test_an_exception_in_the_body_cancels_the_runs_and_goes_on(store):
    """The caller gets the body's own exception."""
    handles = []

    async def body():
        async with Engine(store=store, workers=1) as engine:
            handles.append(await engine.start(Sleeping))
            await asyncio.sleep(0.2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert handles[0].run.status is Status.CANCELLED


async def test_a_killed_template_is_replaced(engine):
    """The process that starts workers may die: one attempt is lost, the engine goes on."""
    await engine.run(Linear)
    (reaper,) = psutil.Process().children()
    reaper.children()[0].kill()
    await asyncio.sleep(0.2)
    assert (await engine.run(Wide, width=20)).data.count == 20
