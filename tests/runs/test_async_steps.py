"""Async steps side by side on a worker's event loop: each has its own of everything."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    Parameter,
    catch,
    concurrency,
    current,
    events,
    retry,
    step,
    timeout,
)
from asyncflow._support.settings import Settings
from asyncflow.flow import loader

_CROWD = 1500  # more than a step may have at once unless it says so
_here: list[int] = []
_all_here = asyncio.Event()


class Crowd(FlowSpec):
    """Its tasks end when all of them have begun."""

    @step
    def start(self):
        self.items = range(_CROWD)
        self.next(self.meet, foreach="items")

    @concurrency(_CROWD)
    @step
    async def meet(self):
        _here.append(self.input)
        if len(_here) == _CROWD:
            _all_here.set()
        await _all_here.wait()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_concurrency_may_be_more_than_the_default(store):
    """With `@concurrency(1500)` as many run at once, be it on one worker."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Crowd)
    assert run.data.count == _CROWD


# --- each its own ---------------------------------------------------------------------------------

_mine: ContextVar[int] = ContextVar("mine")


def shout(text):
    """Print from wherever it is called."""
    print(text, _mine.get(), current.task_id)


class Own(FlowSpec):
    """Its tasks take turns with each other at every line."""

    @step
    def start(self):
        self.items = range(100)
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        _mine.set(self.input)
        self.task_id = current.task_id
        shout("step")
        await asyncio.sleep(0)
        shout("after")
        async with asyncio.TaskGroup() as group:
            group.create_task(self.child("asyncio"))
        async with anyio.create_task_group() as group:
            group.start_soon(self.child, "anyio")
        await asyncio.to_thread(shout, "thread")
        await anyio.to_thread.run_sync(shout, "worker thread")
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep_forever()
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            self.cut_short = scope.cancelled_caught
        print("to stderr", self.input, file=sys.stderr)
        self.next(self.join)

    async def child(self, text):
        await asyncio.sleep(0)
        shout(text)

    @step
    def join(self, inputs):
        self.all_cut_short = [each.cut_short for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_context_output_and_current_are_each_tasks_own(store):
    """In the step, its asyncio tasks and its threads, with asyncio's means and with anyio's."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Own)
    assert run.data.all_cut_short == [True] * 100
    for task in run["work"]:
        me = f"{task.index} {task.id}"
        words = ["step", "after", "asyncio", "anyio", "thread", "worker thread"]
        assert task.stdout.splitlines() == [f"{word} {me}" for word in words]
        assert task.stderr == f"to stderr {task.index}\n"


class Ends(FlowSpec):
    """Side by side, some raise, some are out of time, some are cancelled within, some are well."""

    @step
    def start(self):
        self.items = ["raise", "late", "cancelled", "fine", "raise", "late", "fine"]
        self.next(self.work, foreach="items")

    @catch(var="failure", print_exception=False)
    @timeout(seconds=2)
    @step
    async def work(self):
        self.result = await asyncio.gather(asyncio.sleep(0, self.input))
        if self.input == "raise":
            raise LookupError(self.input)
        if self.input == "cancelled":
            asyncio.current_task().cancel()
        if self.input == "late":
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                print("was told")
                raise
        await asyncio.sleep(0)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.ends = [
            each.failure.type.rsplit(".", 1)[-1] if each.failure else each.result[0]
            for each in inputs
        ]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_each_task_ends_in_its_own_way(store):
    """An exception, a timeout and a cancellation are those of one task and disturb no other."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Ends)
    raised, late = "LookupError", "TaskTimeoutError"
    assert run.data.ends == [raised, late, "CancelledError", "fine", raised, late, "fine"]
    logs = [[attempt.stdout for attempt in task.attempts()] for task in run["work"]]
    assert [log[0] for log in logs] == ["", "was told\n", "", "", "", "was told\n", ""]


# --- beside `def` steps ---------------------------------------------------------------------------

_kinds: list[str] = []  # of what the worker has done, one after the other


class FetchTransformUpload(FlowSpec):
    """What waits and what computes take turns in each item."""

    @step
    def start(self):
        self.items = range(200)
        self.next(self.fetch, foreach="items")

    @step
    async def fetch(self):
        await asyncio.sleep(0.01)
        _kinds.append("async")
        self.next(self.transform)

    @step
    def transform(self):
        _kinds.append("def")
        time.sleep(0.002)
        self.next(self.upload)

    @step
    async def upload(self):
        await asyncio.sleep(0.01)
        _kinds.append("async")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.kinds = list(_kinds)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_worker_that_does_both_kinds_does_many_of_one_kind_at_a_time(store):
    """It does not wait for a few uploads after every few transforms."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(FetchTransformUpload)
    kinds = run.data.kinds
    assert (run.data.count, len(kinds)) == (200, 600)
    assert sum(one != other for one, other in pairwise(kinds)) < 10


# --- a step that blocks its loop ------------------------------------------------------------------


class Blocking(FlowSpec):
    """One of its tasks blocks the loop that it shares with the others, until a file is there."""

    release = Parameter("release", default="")
    how = Parameter("how", default="itself")

    @step
    def start(self):
        self.next(self.block, self.late)

    @step
    async def block(self):
        await _late_is_here.wait()
        if self.how == "child":
            await asyncio.create_task(child(self.release))
        else:
            hold(self.release)
        self.blocked = os.getpid()
        self.next(self.join)

    @catch(var="failure", print_exception=False)
    @timeout(seconds=0.1)
    @step
    async def late(self):
        _late_is_here.set()
        await asyncio.sleep(60)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.failure = inputs.late.failure
        self.pids = {inputs.block.blocked, os.getpid()}
        self.next(self.end)

    @step
    def end(self):
        pass


_late_is_here = asyncio.Event()


def hold(path):
    """Block the loop until the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)


async def child(path):
    """Part of a task, as a coroutine of its own."""
    hold(path)


@pytest.mark.parametrize("how", ["itself", "child"])
async def test_a_step_that_blocks_its_loop_is_named(store, tmp_path, caplog, how):
    """A warning tells task, seconds and line, and the task's own log says it as well."""
    settings = Settings(store=store, workers=1, blocked_seconds=0.2)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Blocking, how=how, release=str(tmp_path / "release"))
        async with asyncio.timeout(180):
            while not caplog.messages:  # noqa: ASYNC110 - a log has no event to wait for
                await asyncio.sleep(0.01)
        (tmp_path / "release").touch()
        run = await handle
    task = run["block"].task
    told = caplog.messages[0]
    assert "an async step blocks its event loop" in told
    assert f"task: {task.pathspec}" in told
    assert re.search(r"seconds: \d", told)
    assert re.search(r"line: .+test_async_steps\.py:\d+, in hold: (while|time\.sleep)", told)
    assert re.match(r"This async step has blocked its event loop for \d", task.stderr)
    assert "in hold: " in task.stderr
    assert run["late"].task.stderr == ""


async def test_the_timeouts_of_others_fire_while_a_step_blocks(store, tmp_path):
    """The late task has failed while the loop could not hear of it; nobody is killed for it."""
    settings = Settings(store=store, workers=1, blocked_seconds=0.2, grace_seconds=0.3)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Blocking, release=str(tmp_path / "release"))
        async with asyncio.timeout(180):
            async for event in handle.events():
                if isinstance(event, events.TaskFailed):
                    assert event.step == "late"
                    break
            await asyncio.sleep(1.0)  # the grace is over by now
            (tmp_path / "release").touch()
            run = await handle
    assert run.data.failure.type.endswith("TaskTimeoutError")
    assert len(run.data.pids) == 1


class Behind(FlowSpec):
    """Tasks that are received together, of which one blocks the loop before the rest has begun."""

    release = Parameter("release", default="")

    @step
    def start(self):
        self.items = range(8)
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @timeout(seconds=0.5)
    @step
    async def work(self):
        print("begun")
        if self.input == 2 and current.attempt == 0:
            hold(self.release)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("workers", [1, 2])
async def test_what_has_not_begun_when_a_step_blocks_the_loop_is_begun_elsewhere(
    store, tmp_path, workers
):
    """Or later, where there is no other worker: once, and its time counts from then on."""
    settings = Settings(store=store, workers=workers, blocked_seconds=0.2)
    ended = {False: 0, True: 0}
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Behind, release=str(tmp_path / "release"))
        async for event in handle.events(events.TaskSucceeded, events.TaskFailed):
            assert isinstance(event, events.TaskSucceeded | events.TaskFailed)
            ended[isinstance(event, events.TaskFailed)] += event.step == "work"
            if ended[False] == 7 or (ended[True] and workers == 1):
                (tmp_path / "release").touch()
        run = await handle
    told = {task.index: [each.stdout for each in task.attempts()] for task in run["work"]}
    assert told.pop(2)[0] == "begun\n"
    assert list(told) == [0, 1, 3, 4, 5, 6, 7]
    assert all(printed == ["begun\n"] for printed in told.values())


NEWCOMER = """
import asyncio
import os
import time
from pathlib import Path

from asyncflow import FlowSpec, step, timeout
from asyncflow.workers.process.async_tasks import AsyncSteps

begin = AsyncSteps._begin


def begin_late(steps, run, order, untold):
    \"\"\"Have the loop blocked between a newcomer's import and its first line.\"\"\"
    begin(steps, run, order, untold)
    if run.order.flow == "Newcomer":
        Path(os.environ["HELD"]).touch()
        time.sleep(3)  # the time limit, and what is waited for a loop that does not turn


AsyncSteps._begin = begin_late


class Resident(FlowSpec):
    @step
    async def start(self):
        while not Path(os.environ["HELD"]).exists():
            await asyncio.sleep(0.01)
        self.next(self.end)

    @step
    def end(self):
        pass


class Newcomer(FlowSpec):
    @timeout(seconds=0.5)
    @step
    async def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass
"""


async def test_the_first_task_of_a_run_has_its_time_from_its_first_line_on(
    store, tmp_path, monkeypatch
):
    """Its import is told of before; what blocks the loop after that is none of its time."""
    monkeypatch.setenv("HELD", str(tmp_path / "held"))
    (tmp_path / "newcomer.py").write_text(NEWCOMER)
    resident, newcomer = (
        loader.load_flow(f"{tmp_path / 'newcomer.py'}:{name}") for name in ("Resident", "Newcomer")
    )
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(resident)
        async for _ in handle.events(events.TaskStarted):
            break
        run = await engine.run(newcomer)
        await handle
    assert run["start"].task.attempt == 0


class Twice(FlowSpec):
    """Its late task is tried again on the very worker that has the first attempt still."""

    release = Parameter("release", default="")

    @step
    def start(self):
        self.next(self.block, self.late)

    @step
    async def block(self):
        await _late_is_here.wait()
        hold(self.release)
        self.next(self.join)

    @retry(times=1, seconds=0)
    @timeout(seconds=0.1)
    @step
    async def late(self):
        _late_is_here.set()
        if current.attempt == 0:
            print("first")
            try:
                await asyncio.sleep(60)
            finally:
                print("too late to be told")
        self.attempt = current.attempt
        self.next(self.join)

    @step
    def join(self, inputs):
        self.attempt = inputs.late.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_attempt_that_counts_as_ended_does_not_disturb_the_next(store, tmp_path):
    """What it prints and how it ends is not taken for the second one's."""
    settings = Settings(store=store, workers=1, blocked_seconds=0.2)
    async with Engine(settings=settings) as engine:
        handle = await engine.start(Twice, release=str(tmp_path / "release"))
        async with asyncio.timeout(180):
            async for event in handle.events():
                if isinstance(event, events.TaskRetried):
                    break
            (tmp_path / "release").touch()
            run = await handle
    assert run.data.attempt == 1
    assert [attempt.stdout for attempt in run["late"].task.attempts()] == ["first\n", ""]


class BlocksForEver(FlowSpec):
    """Its task does not let its loop turn, and is out of time."""

    @catch(var="failure", print_exception=False)
    @timeout(seconds=0.3)
    @step
    async def start(self):
        time.sleep(600)  # the very thing that is examined
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_blocks_beyond_its_own_time_loses_its_worker(store):
    """It fails with the timeout, and the next step has a worker that works."""
    settings = Settings(store=store, workers=1, blocked_seconds=0.2, grace_seconds=0.3)
    async with Engine(settings=settings) as engine:
        async with asyncio.timeout(180):
            run = await engine.run(BlocksForEver)
    assert run.data.failure.type.endswith("TaskTimeoutError")


class StopsTheLoop(FlowSpec):
    """Stops the event loop on which it runs."""

    @step
    async def start(self):
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        self.pid = os.getpid()
        self.next(self.end)

    @step
    def end(self):
        self.same = self.pid == os.getpid()


async def test_a_step_that_stops_the_loop_does_not_stop_it(store):
    """The loop is its worker's, and goes on."""
    async with Engine(store=store, workers=1) as engine:
        assert (await engine.run(StopsTheLoop)).data.same


class CancelsAll(FlowSpec):
    """Its first step cancels all tasks that it finds on its event loop, itself among them."""

    @step
    async def start(self):
        for task in asyncio.all_tasks():
            task.cancel()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.pid = os.getpid()
        self.next(self.end)

    @step
    async def end(self):
        self.same = self.pid == os.getpid()


async def test_a_step_that_cancels_all_tasks_does_not_end_its_worker(store):
    """The worker's own are none of its business."""
    async with Engine(store=store, workers=1) as engine:
        assert (await engine.run(CancelsAll)).data.same
