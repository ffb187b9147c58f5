"""Engines on whatever event loop an application has, and what is left when they are closed."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import linecache
import os
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
import pytest
import uvloop

import asyncflow
from asyncflow import Engine, FlowSpec, RunHandle, events, limit, step
from asyncflow._support.settings import Settings
from asyncflow.errors import AsyncflowError, RunFailedError
from asyncflow.values import Status
from tests.support.flows import Linear, Misbehaving, Waiting, Wide

PATIENCE_SECONDS = 180.0  # for what takes some milliseconds on an idle machine


class Halting(FlowSpec):
    """`def` and `async def` tasks, one of them limited, that take long until a file is there."""

    @step
    def start(self):
        self.items = range(3)
        self.next(self.blocking, self.waiting)

    @step
    def blocking(self):
        self.next(self.block, foreach="items")

    @step
    def block(self):
        while not Path(os.environ["GO_ON"]).exists():
            time.sleep(0.01)
        self.next(self.join_blocking)

    @step
    def join_blocking(self, inputs):
        self.blocked = len(inputs)
        self.next(self.meet)

    @step
    def waiting(self):
        self.next(self.wait, foreach="items")

    @limit("halting", 2)
    @step
    async def wait(self):
        while not Path(os.environ["GO_ON"]).exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        self.next(self.join_waiting)

    @step
    def join_waiting(self, inputs):
        self.waited = len(inputs)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.counts = inputs.join_blocking.blocked, inputs.join_waiting.waited
        self.next(self.end)

    @step
    def end(self):
        pass


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


# --- what is left -------------------------------------------------------------------------------


class Leftovers:
    """What there is besides what there was: tasks, threads, processes, descriptors."""

    def __init__(self):
        self._before = self._count()

    @staticmethod
    def _count():
        gc.collect()
        return {
            "tasks": {task.get_name() for task in asyncio.all_tasks()},
            "threads": {thread.name for thread in threading.enumerate()},
            "processes": {child.pid for child in psutil.Process().children(recursive=True)},
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        }

    async def found(self):
        """What is left, once what is just ending has had the time to."""
        left: dict[str, object] = {}
        with anyio.move_on_after(PATIENCE_SECONDS):
            while left := self._left():  # noqa: ASYNC110 - what ends tells nobody
                await asyncio.sleep(0.02)
        return left

    def _left(self):
        now, before = self._count(), self._before
        left = {name: now[name] - before[name] for name in ("tasks", "threads", "processes")}
        left["descriptors"] = max(0, now["descriptors"] - before["descriptors"])
        return {name: what for name, what in left.items() if what}


async def busy(engine):
    """A run of which `def` and `async def` tasks are running, and whose limited one waits."""
    handle = await engine.start(Halting)
    begun = set()
    async for event in handle.events(events.TaskStarted):
        begun.add((event.step, event.path))
        if {("wait", (0,)), ("wait", (1,)), ("block", (0,))} <= begun:
            return handle
    raise AssertionError


async def cancel_the_awaiter(settings, runs):
    """The task that awaits a handle is cancelled, while the engine stays open."""
    async with Engine(settings=settings) as engine:
        runs.append(await busy(engine))
        waiter = asyncio.ensure_future(runs[0].wait())
        await asyncio.sleep(0)
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        assert runs[0].status is Status.CANCELLED  # when the cancellation goes on, it is so


async def fail_after(settings, runs):
    """A deadline of anyio comes in `await handle`."""
    async with Engine(settings=settings) as engine:
        runs.append(await busy(engine))
        with contextlib.suppress(TimeoutError), anyio.fail_after(0.05):
            await runs[0]
        assert runs[0].status is Status.CANCELLED


async def asyncio_timeout(settings, runs):
    """A deadline of asyncio comes around the whole engine."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as deadline, Engine(settings=settings) as engine:
            runs.append(await busy(engine))
            deadline.reschedule(asyncio.get_running_loop().time())
            await asyncio.sleep(60)


async def raise_in_the_body(settings, runs):
    """The body of `async with Engine` raises."""
    with contextlib.suppress(ZeroDivisionError):
        async with Engine(settings=settings) as engine:
            runs.append(await busy(engine))
            raise ZeroDivisionError


async def shut_down(settings, runs):
    """The application ends: the task that holds the engine is cancelled, twice."""
    ready = asyncio.Event()

    async def application():
        async with Engine(settings=settings) as engine:
            runs.append(await busy(engine))
            ready.set()
            await asyncio.sleep(60)

    task = asyncio.ensure_future(application())
    await ready.wait()
    task.cancel()
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def cancel_while_it_starts(settings, runs):
    """The task that starts a run is cancelled in `start`; a run that was made says cancelled."""
    async with Engine(settings=settings) as engine:
        runs.append(await busy(engine))
        for delay in (0.0, 0.001, 0.003):
            starting = asyncio.ensure_future(engine.start(Halting))
            await asyncio.sleep(delay)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting


@pytest.mark.parametrize(
    "way",
    [
        cancel_the_awaiter,
        fail_after,
        asyncio_timeout,
        raise_in_the_body,
        shut_down,
        cancel_while_it_starts,
    ],
)
async def test_however_it_ends_nothing_is_left_and_it_resumes(store, tmp_path, monkeypatch, way):
    """The journal says cancelled; no task, thread, process, descriptor stays; a resume succeeds."""
    monkeypatch.setenv("GO_ON", str(tmp_path / "go-on"))
    settings = Settings(store=store, workers=4, grace_seconds=0.5)  # one for each `block`
    await asyncflow.run(Linear)  # whatever is opened once for all is open
    await anyio.to_thread.run_sync(gc.collect)  # a thread of anyio's, which it keeps for the next
    leftovers = Leftovers()
    runs: list[RunHandle] = []
    await way(settings, runs)
    pathspec = runs.pop().pathspec
    assert await leftovers.found() == {}
    assert {run.status for run in asyncflow.Flow("Halting")} == {Status.CANCELLED}
    (tmp_path / "go-on").touch()
    async with Engine(settings=settings) as engine:
        resumed = await engine.resume(Halting, origin=pathspec.split("/")[1])
    assert resumed.data.counts == (3, 3)


# --- what is forgotten --------------------------------------------------------------------------


async def idle(engine):
    """Wait until the engine has no run, without holding anything of one."""
    while engine.statistics().runs:  # noqa: ASYNC110 - there is nothing of the run to wait for
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)  # for the tasks of the last one to be forgotten


async def warned(engine, use):
    """The warnings that come of a handle of a failing run which is used so, and then dropped."""
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
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            await engine.start(Linear)
            await idle(engine)
            gc.collect()
