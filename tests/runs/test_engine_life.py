"""However an engine ends, it ends in order, and neither a process nor a thread is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psutil
import pytest

import asyncflow
from asyncflow import Engine, Flow, FlowSpec, RunHandle, events, limit, step
from asyncflow._support.event_loop import UncancellableTask
from asyncflow._support.settings import Settings
from asyncflow.engine.subscription import Channel
from asyncflow.errors import (
    EngineClosedError,
    RunCancelledError,
)
from asyncflow.values import Status
from tests.support.flows import Linear, Sleeping, Waiting, Wide
from tests.support.leftovers import engine_threads, open_descriptors

TICKS = [*range(8), 10, 13, 17, 24, 36, 60]
"""After so many turns of the event loop it happens."""

FIRST = 4  # ticks that every way is tried at: most goes wrong there

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


@pytest.mark.parametrize("way", range(len(WAYS)), ids=["cancel", "exit", "interrupt"])
@pytest.mark.parametrize("moment", ["start", "run", "close"])
def test_whenever_all_tasks_are_cancelled_the_engine_closes_and_its_run_is_cancelled(
    store, moment, way
):
    """In whatever turn of the event loop: also before a task of the engine has begun.

    Each way is tried in the first turns, and in a third of the later ones.
    """
    act, error = WAYS[way]

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

    for turns in TICKS[:FIRST] + TICKS[FIRST + way :: len(WAYS)]:
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


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


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
    assert len(children) >= 3  # fork server, worker, sleep
    assert not psutil.wait_procs(children, timeout=180)[1]
    assert handle.run.status is Status.CANCELLED
    gc.collect()
    await asyncio.sleep(0.05)  # for the loop to end the iterator that was broken off
    assert open_descriptors() - before == set()


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


async def test_a_killed_fork_server_is_replaced(engine):
    """The process that starts workers may die: one attempt is lost, the engine goes on."""
    await engine.run(Linear)
    (reaper,) = psutil.Process().children()
    reaper.children()[0].kill()
    await asyncio.sleep(0.2)
    assert (await engine.run(Wide, width=20)).data.count == 20


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


# --- what is left -------------------------------------------------------------------------------


class Leftovers:
    """What there is besides what there was: tasks, threads, processes, descriptors."""

    def __init__(self):
        self._before = self._count()

    @staticmethod
    def _count() -> dict[str, set[Any]]:
        return {
            "tasks": {task.get_name() for task in asyncio.all_tasks()},
            "threads": {thread.name for thread in threading.enumerate()},
            "processes": {child.pid for child in psutil.Process().children(recursive=True)},
            "descriptors": open_descriptors(),
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
        left = {name: now[name] - before[name] for name in now}
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


# --- at the command line -------------------------------------------------------------------------


FAMILY = """
    import os, subprocess, sys, time
    from asyncflow import FlowSpec, step

    def daemon():
        # As daemons are made: fork, a session of its own, fork again.
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writing, str(os.getpid()).encode())
                os.close(writing)
                time.sleep(600)
            sys.exit(0)
        os.close(writing)
        os.wait()
        return os.read(reading, 100).decode()

    class Family(FlowSpec):
        @step
        def start(self):
            pids = [str(os.getpid()), daemon(), str(subprocess.Popen(["sleep", "600"]).pid)]
            pids.append(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
            shell = ["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"]
            pids.append(subprocess.run(shell, stdout=subprocess.PIPE).stdout.decode().strip())
            self.pids = list(map(int, pids))
            print("family", *pids, flush=True)
            time.sleep(float(os.environ.get("LASTS", "600")))
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@contextmanager
def family(tmp_path, *options, **environ):
    """A run whose step has started processes in every way: the engine and all of them."""
    program = tmp_path / "family.py"
    program.write_text(textwrap.dedent(FAMILY))
    command = [sys.executable, "-m", "asyncflow", "run", str(program), "--workers=1", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environ},
    ) as engine:
        try:
            assert engine.stdout is not None
            for line in engine.stdout:
                found = re.search(r"family ([\d ]+)", line)
                if found:
                    pids = [int(pid) for pid in found[1].split()]
                    break
            yield engine, list(alive(pids))
        finally:
            engine.kill()


def alive(pids):
    """Those of them that have not ended."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def gone(processes):
    """Whether all of them end."""
    return not psutil.wait_procs(processes, timeout=180)[1]


@pytest.mark.parametrize("stopped", [False, True])
def test_after_kill_9_of_the_engine_not_even_daemons_are_left(store, tmp_path, stopped):
    """Grandchildren, in sessions of their own too; with the worker under SIGSTOP as well."""
    with family(tmp_path) as (engine, processes):
        if stopped:
            processes[0].suspend()
        engine.kill()
        assert gone(processes)
    assert Flow("Family").latest_run.status is Status.INTERRUPTED


@pytest.mark.parametrize(
    "order", list(permutations(["engine", "fork server", "worker"])), ids="-".join
)
def test_after_kill_9_of_all_in_any_order_not_even_daemons_are_left(store, tmp_path, order):
    """The engine, the process that starts workers and a worker, at once or one by one."""
    for pause in (0.0, 0.2):
        with family(tmp_path) as (engine, processes):
            (reaper,) = psutil.Process(engine.pid).children()
            (fork_server,) = reaper.children()
            victims = {"engine": engine, "fork server": fork_server, "worker": processes[0]}
            for name in order:
                with suppress(psutil.NoSuchProcess):  # it has ended by the one before
                    victims[name].kill()
                time.sleep(pause)
            assert gone([*processes, reaper, fork_server])


@pytest.mark.parametrize("killed", ["reaper", "fork server"])
def test_while_the_engine_goes_on_no_daemon_outlives_who_started_its_worker(
    store, tmp_path, killed
):
    """The process that starts workers, or the one that watches it, is killed: the run fails."""
    with family(tmp_path) as (engine, processes):
        (reaper,) = psutil.Process(engine.pid).children()
        (reaper if killed == "reaper" else reaper.children()[0]).kill()
        assert gone(processes)
        engine.communicate(timeout=180)
    assert Flow("Family").latest_run.status is Status.FAILED


def test_after_a_run_that_succeeds_no_daemon_of_a_step_is_left(store, tmp_path):
    """What a step leaves behind ends with its engine."""
    with family(tmp_path, LASTS="0") as (engine, processes):
        assert engine.wait(timeout=180) == 0
        assert gone(processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_after_a_signal_no_daemon_is_left_and_the_journal_says_cancelled(store, tmp_path, number):
    """The exit status is 128 and the signal's number, and the resume's command is told."""
    with family(tmp_path) as (engine, processes):
        engine.send_signal(number)
        out, err = engine.communicate(timeout=180)
        assert gone(processes)
    assert engine.returncode == 128 + number
    assert f"Workflow cancelled: {signal.Signals(number).name}." in out
    run = Flow("Family").latest_run
    assert shlex.join([str(tmp_path / "family.py"), "--origin-run-id", run.id]) in err
    assert run.status is Status.CANCELLED


STUBBORN = """
    import signal, time
    from asyncflow import FlowSpec, step

    class Stubborn(FlowSpec):
        @step
        def start(self):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("at work", flush=True)
            time.sleep(600)
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.fixture
def stubborn(store, tmp_path):
    """A started run whose step ignores SIGTERM, by its command's options."""
    program = tmp_path / "stubborn.py"
    program.write_text(textwrap.dedent(STUBBORN))
    started = []

    def start(*options, **environ):
        command = [sys.executable, "-m", "asyncflow", "run", str(program), *options]
        engine = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        started.append(engine)
        assert engine.stdout is not None
        for line in engine.stdout:
            if "at work" in line:
                break
        return engine

    yield start
    for engine in started:
        engine.kill()
        engine.communicate()


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_grace_of_a_step_that_ignores_sigterm_can_be_set(stubborn, by):
    """It is killed when that is over; the run is cancelled in all order."""
    began = time.monotonic()
    if by == "option":
        engine = stubborn("--grace", "0.3")
    else:
        engine = stubborn(ASYNCFLOW_GRACE_SECONDS="0.3")
    engine.send_signal(signal.SIGTERM)
    engine.communicate(timeout=180)
    assert engine.returncode == 143
    (run,) = Flow("Stubborn")
    (ended,) = [event for event in run.events() if isinstance(event, events.TaskFailed)]
    assert ended.exception_type == "asyncflow.errors.TaskCancelledError"
    assert run.status is Status.CANCELLED
    assert time.monotonic() - began < 30


def test_a_second_ctrl_c_kills_at_once_and_leaves_nothing(stubborn):
    """The run is interrupted then, and no process of it is left."""
    engine = stubborn("--grace", "600")
    children = psutil.Process(engine.pid).children(recursive=True)
    engine.send_signal(signal.SIGINT)
    assert engine.stderr is not None
    assert "a second one kills it" in engine.stderr.readline()
    while engine.poll() is None:  # two in a moment are one
        engine.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            engine.wait(timeout=0.05)
    assert engine.returncode == -signal.SIGINT
    assert gone(children)
    assert Flow("Stubborn").latest_run.status is Status.INTERRUPTED


FAILS = """
    import time
    from pathlib import Path
    from asyncflow import FlowSpec, step

    class Fails(FlowSpec):
        @step
        def start(self):
            self.next(self.bad, self.good)

        @step
        def bad(self):
            while not Path("began").exists():
                time.sleep(0.01)
            if not Path("never").exists():
                raise ValueError("first of all")
            self.next(self.join)

        @step
        def good(self):
            Path("began").touch()
            for _ in range(600):
                time.sleep(0.1)
                if Path("failed").exists():
                    break
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.mark.parametrize(
    ("options", "ending"), [((), "cancelled"), (("--on-failure", "finish"), "succeeded")]
)
def test_on_failure_says_what_becomes_of_running_siblings(
    store, tmp_path, monkeypatch, options, ending
):
    """They are stopped, or with `finish` come to their end; nothing new begins."""
    monkeypatch.chdir(tmp_path)
    text = textwrap.dedent(FAILS)
    (tmp_path / "fails.py").write_text(text)
    command = [sys.executable, "-m", "asyncflow", "run", "fails.py", "--workers=2", "--json"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stderr is not None
        for line in engine.stderr:
            if "ValueError: first of all" in line:
                (tmp_path / "failed").touch()
                break
        out, _ = engine.communicate(timeout=180)
    assert engine.returncode == 1
    told = json.loads(out)
    assert (told["failure"]["step"], told["failure"]["message"]) == ("bad", "first of all")
    (run,) = Flow("Fails")
    assert run["good"].task.status == ending
    assert not [event for event in run.events() if getattr(event, "step", "") == "join"]


def handlers():
    """What this process does about each signal."""
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


async def test_an_engine_in_a_program_installs_no_signal_handler(store):
    """Neither while it is open, nor while a run goes on, nor afterwards."""
    before, descriptor = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Sleeping)
        async for event in handle.events():
            if isinstance(event, events.TaskLogged) and event.line == "sleeping":
                break
        assert handlers() == before
        assert signal.set_wakeup_fd(descriptor) == descriptor
    assert handlers() == before
