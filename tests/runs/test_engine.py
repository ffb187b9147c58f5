"""An engine in a program: flows, events and failures, many runs at once, on any event loop."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import gc
import linecache
import sys
import threading
import time
import types
import warnings

import anyio
import anyio.to_thread
import pytest
import uvloop

import asyncflow
from asyncflow import Engine, FlowSpec, Parameter, events, step
from asyncflow._support.settings import Settings
from asyncflow.errors import (
    AsyncflowError,
    EngineClosedError,
    ParameterError,
    RunCancelledError,
    RunFailedError,
    SettingsError,
)
from asyncflow.scheduling.statistics import Statistics
from asyncflow.values import Status
from tests.support.command_line import own_frames
from tests.support.flows import Branches, Linear, Misbehaving, Nested, Sleeping, Waiting, Wide
from tests.support.overlap import most_at_once
from tests.support.waiting import until


async def collect(handle):
    """All events of a run."""
    return [event async for event in handle.events()]


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


async def test_run_takes_a_store_and_workers(tmp_path):
    """A flow's own parameter of such a name is given its value instead."""
    run = await asyncflow.run(Linear, store=tmp_path / "here", workers=1, alpha=2.0)
    assert (run.store, run.data.y) == (tmp_path / "here", 5.0)

    class Workers(asyncflow.FlowSpec):
        workers = asyncflow.Parameter("workers", default=1)

        @asyncflow.step(start=True, end=True)
        def only(self):
            self.found = self.workers

    run = await asyncflow.run(Workers, store=tmp_path / "there", workers=7)
    assert run["only"].task.data.found == 7


async def test_run_sync_inside_a_loop_says_what_to_do_instead(store):
    """It cannot work there, and names what does."""
    with pytest.raises(asyncflow.errors.AsyncflowError, match=r"await asyncflow\.run"):
        asyncflow.run_sync(Linear)


async def test_a_wrong_parameter_starts_nothing(engine):
    """An unknown parameter is refused before there is a run."""
    runs = engine.settings.store / "flows" / "Linear"
    before = sorted(runs.glob("*"))
    with pytest.raises(ParameterError, match="alfa"):
        await engine.start(Linear, alfa=1)
    assert sorted(runs.glob("*")) == before


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
    assert await collect(handle) == live == list(handle.run.events())


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
    told = f'To go on from here: await asyncflow.resume(Failing, origin="{run_id}", store='
    assert told in str(caught.value)


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


# --- many runs beside each other -----------------------------------------------------------------


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


async def test_statistics_tell_how_the_engine_stands(store):
    """Runs, tasks and workers as they are now, events and bytes since it was opened."""
    async with Engine(store=store, workers=2) as engine:
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
        journal = store / "flows" / handle.pathspec / "journal"
        last = [event.seq async for event in handle.events()][-1]
        assert engine.statistics().events == last
        assert engine.statistics().bytes_written == journal.stat().st_size
        assert engine.statistics().events_per_second > 0


async def run_some(store):
    """Run flows of all kinds beside each other; what comes of them."""
    async with Engine(store=store, workers=2) as engine:
        runs = await asyncio.gather(
            engine.run(Linear, alpha=2.0),
            engine.run(Wide, width=50),
            engine.run(Waiting, width=50, seconds=0.01),
        )
        handle = await engine.start(Linear)
        seen = [event.seq async for event in handle.events()]
        await handle
    assert seen == list(range(1, len(seen) + 1))
    return [runs[0].data.y, runs[1].data.count, runs[2].data.count]


# --- event loops --------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_an_engine_runs_on_the_loop_of_another_thread(store, factory):
    """That of asyncio or of uvloop, in a thread that is not the main one."""

    def work():
        assert threading.current_thread() is not threading.main_thread()
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(run_some(store))

    assert await anyio.to_thread.run_sync(work) == [5.0, 50, 50]


async def test_a_subscription_is_refused_to_another_loop_and_goes_on_on_its_own(store):
    """Neither the run nor who subscribed is disturbed."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Waiting, width=5, seconds=0.1)
        for stream in (handle.events(), engine.subscribe(run=handle)):

            async def take(stream=stream):
                return await anext(stream)

            with pytest.raises(AsyncflowError, match="another event loop"):
                await asyncio.to_thread(asyncio.run, take())
            seen = [event.seq async for event in stream]
            assert seen == list(range(1, len(seen) + 1))
        assert (await handle).successful


def test_without_a_loop_of_asyncio_there_is_no_engine(store):
    """Under another framework's, say."""
    entering = Engine(store=store).__aenter__()
    with pytest.raises(AsyncflowError, match="no event loop of asyncio runs here"):
        entering.send(None)


async def test_several_event_loops_have_engines_on_one_store_at_once(store):
    """Three threads, each with a loop and an engine of its own, besides that of this test."""

    def work():
        return asyncio.run(run_some(store))

    results = await asyncio.gather(*(asyncio.to_thread(work) for _ in range(3)), run_some(store))
    assert results == [[5.0, 50, 50]] * 4


async def test_cells_of_a_notebook_await_at_their_top_level(store, monkeypatch):
    """An engine that one cell opens is there in the next, and a flow runs as it was changed."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)

    async def cell(source):
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        name = f"<cell {len(linecache.cache)}>"
        linecache.cache[name] = (
            len(source),
            None,
            source.splitlines(keepends=True),
            name,
        )  # as IPython
        code = compile(source, name, "exec", flags=flags)
        result = types.FunctionType(code, vars(module))()
        if asyncio.iscoroutine(result):
            await result

    flow = """
from asyncflow import FlowSpec, step
class Cell(FlowSpec):
    @step
    def start(self):
        self.version = {version}
        self.next(self.end)
    @step
    def end(self):
        pass
"""
    await cell("from asyncflow import Engine\nengine = Engine(workers=1)")
    await cell("await engine.__aenter__()")
    try:
        for version in (1, 2):
            await cell(flow.format(version=version))
            await cell("run = await engine.run(Cell)")
            assert module.run.data.version == version
        await cell("async for event in (await engine.start(Cell)).events(): last = event")
        assert isinstance(module.last, events.RunSucceeded)
        with pytest.raises(AsyncflowError, match=r"await asyncflow\.run"):
            await cell("import asyncflow\nasyncflow.run_sync(Cell)")
    finally:
        await cell("await engine.__aexit__(None, None, None)")


# --- what is forgotten --------------------------------------------------------------------------


async def idle(engine):
    """Wait until the engine has no run, without holding anything of one."""
    while engine.statistics().runs:  # noqa: ASYNC110 - there is nothing of the run to wait for
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)  # for the tasks of the last one to be forgotten


async def warned(engine, use):
    """The warnings that come of a handle of a failing run which is used so, and then dropped."""
    gc.collect()  # what other tests have left may warn, too
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        handle = await engine.start(Misbehaving, how="raise")
        await use(handle)
        del handle
        await idle(engine)
        gc.collect()
    return [str(each.message) for each in caught if each.category is ResourceWarning]


async def nothing(handle):
    """It is dropped at once."""


async def until_it_has_failed(handle):
    """It is kept, and never looked at."""
    await handle._driver.finished.wait()


async def awaited(handle):
    """It is waited for."""
    with pytest.raises(RunFailedError):
        await handle


async def watched(handle):
    """Its events are read."""
    async for _ in handle.events():
        pass


async def looked_at(handle):
    """Its status is asked for."""
    await handle._driver.finished.wait()
    assert handle.status is Status.FAILED


@pytest.mark.parametrize("use", [nothing, until_it_has_failed])
async def test_a_run_that_fails_while_nobody_hears_gives_a_warning(store, use):
    """A handle that is dropped, before the failure or after, names the run in a ResourceWarning."""
    async with Engine(store=store, workers=1) as engine:
        (message,) = await warned(engine, use)
    assert message.startswith("Misbehaving/")
    assert "nobody waited" in message


@pytest.mark.parametrize("use", [awaited, watched, looked_at])
async def test_a_run_whose_failure_was_heard_of_gives_none(store, use):
    """Whoever waits, watches or looks knows."""
    async with Engine(store=store, workers=1) as engine:
        assert await warned(engine, use) == []


async def test_a_subscriber_of_all_runs_hears_for_dropped_handles(store):
    """An application that reacts to failures need not keep handles."""
    async with (
        Engine(store=store, workers=1) as engine,
        engine.subscribe(events.RunFailed) as stream,
    ):
        assert await warned(engine, nothing) == []
        async for event in stream:
            assert isinstance(event, events.RunFailed)
            break


async def test_a_dropped_handle_of_a_run_that_succeeds_gives_none(store):
    """To start a run and forget it is a way to use an engine."""
    async with Engine(store=store, workers=1) as engine:
        gc.collect()  # what other tests have left may warn, too
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            await engine.start(Linear)
            await idle(engine)
            gc.collect()
