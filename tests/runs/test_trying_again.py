"""What `@retry`, `@catch` and `@timeout` promise together, on real workers."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
import time
import weakref
from collections import Counter
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import Engine, FlowSpec, Parameter, catch, current, events, retry, step, timeout
from asyncflow._support import commit_points
from asyncflow._support.settings import Settings
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.scheduling.retry_delays import retry_seconds
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.values import Status
from tests.support.flows import Wide, misbehave

# --- how long is waited -------------------------------------------------------------------------

OPTIONS = st.fixed_dictionaries(
    {
        "seconds": st.floats(0, 1e6),
        "backoff": st.floats(0, 1e3),
        "max_seconds": st.none() | st.floats(0, 1e6),
        "jitter": st.floats(0, 1),
    }
)


@given(OPTIONS, st.text(), st.integers(0, 100_000))
def test_a_wait_is_within_its_bounds_at_any_attempt(options, name, attempt):
    """Never negative, never above `max_seconds`, the same each time it is asked for."""
    seconds = retry_seconds(options, name, attempt)
    assert 0 <= seconds <= (1e9 if options["max_seconds"] is None else options["max_seconds"])
    assert seconds == retry_seconds(options, name, attempt)


def test_jitter_spreads_what_would_come_at_once():
    """Tasks that fail together do not come back together, and stay near what was asked for."""
    options = {"seconds": 10.0, "backoff": 1.0, "max_seconds": None, "jitter": 0.5}
    waits = [retry_seconds(options, f"1/{task_id}", 0) for task_id in range(1000)]
    assert len(set(waits)) == 1000
    assert 5.0 <= min(waits) < 5.5
    assert 14.5 < max(waits) <= 15.0
    assert_spread(waits, 5.0, 15.0)


def test_jitter_spreads_neighbours_and_runs():
    """Eight tasks in a row, or the same task of eight runs, are as far apart as any others."""
    options = {"seconds": 10.0, "backoff": 1.0, "max_seconds": None, "jitter": 1.0}
    for name in ("1795/{}", "{}/7"):
        waits = [retry_seconds(options, name.format(number), 0) for number in range(8)]
        assert max(waits) - min(waits) > 10.0


def test_jitter_spreads_below_the_longest_wait():
    """However often a task has failed."""
    options = {"seconds": 1.0, "backoff": 2.0, "max_seconds": 10.0, "jitter": 0.5}
    waits = [retry_seconds(options, f"1/{task_id}", 9) for task_id in range(1000)]
    assert_spread(waits, 5.0, 10.0)


def assert_spread(waits, least, most):
    """Each tenth of the range has about a tenth of them."""
    counts = Counter(int(10 * (wait - least) / (most - least)) for wait in waits)
    assert set(counts) == set(range(10))
    assert all(60 < count < 140 for count in counts.values())


# --- retry --------------------------------------------------------------------------------------


class Waits(FlowSpec):
    """One of its tasks has to wait long for its retry."""

    @step
    def start(self):
        self.items = range(30)
        self.next(self.work, foreach="items")

    @retry(times=1, minutes_between_retries=2)
    @step
    def work(self):
        if self.input == 0:
            raise ValueError
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_wait_for_a_retry_costs_no_worker(store):
    """With one worker all others are run meanwhile, for the two minutes that are written out."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Waits)
        waits, done = [], 0
        async for event in handle.events():
            if isinstance(event, events.TaskRetried):
                waits.append(event.after_seconds)
            done += isinstance(event, events.TaskSucceeded) and event.step == "work"
            if done == 29 and waits:
                break
        handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle
    assert waits == [120.0]


class WaitsLong(FlowSpec):
    """Is tried again an hour later."""

    @retry(times=1, seconds=3600)
    @step
    def start(self):
        if current.attempt == 0:
            raise ValueError
        self.next(self.end)

    @step
    def end(self):
        pass


def drivers():
    """The runs that this process has in memory."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, RunDriver)]


async def test_a_run_that_is_cancelled_is_not_held_in_memory_until_its_retry_is_due(store):
    """The event loop has forgotten the retry, and with it the run."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(WaitsLong)
        async for event in handle.events():
            if isinstance(event, events.TaskRetried):
                break
        [driver] = [weakref.ref(each) for each in drivers() if each.pathspec == handle.pathspec]
        handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle
        del handle, event
        with anyio.fail_after(180):
            while driver() is not None:
                await anyio.sleep(0.01)
                gc.collect()


class Often(FlowSpec):
    """Fails more often than one would think."""

    @retry(times=40, seconds=0, backoff=2.0)
    @step
    def start(self):
        self.unseen = current.attempt
        if current.attempt < 40:
            raise ValueError
        self.next(self.end)

    @retry(times=1, seconds=0)
    @step
    def end(self):
        self.unseen_too = bytearray(500_000)
        raise LookupError


@pytest.fixture(scope="module")
async def often(engine):
    """A run that was tried again and again, and failed."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Often)
    return caught.value.run


async def test_a_task_may_be_tried_again_any_number_of_times(often):
    """Forty failures, and then it succeeds."""
    assert len(list(often["start"].task.attempts())) == 41


async def test_artifacts_of_the_last_attempt_alone_are_visible(often):
    """Of a task that failed for good, what it had set then; of no attempt before."""
    assert often["start"].task.data.unseen == 40
    assert [artifact.id for artifact in often["end"].task] == ["unseen", "unseen_too"]
    for attempt in often["end"].task.attempts():
        assert attempt.exception.type == "LookupError"


class Hurt(FlowSpec):
    """Its worker dies, or its time is over, and it asks to be tried again after that alone."""

    how = Parameter("how", default="time")

    @retry(times=1, seconds=0, on=TimeoutError)
    @timeout(seconds=0.25)
    @step
    def start(self):
        if current.attempt == 0 and self.how == "time":
            ctypes.PyDLL(None).sleep(60)  # in C, and it does not let go of the interpreter
        if self.how == "death":
            os._exit(1)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_timeout_in_c_code_is_a_timeout_error_and_is_tried_again(engine):
    """The worker is killed; `on=TimeoutError` is for `TaskTimeoutError` too."""
    run = await engine.run(Hurt)
    first, _ = run["start"].task.attempts()
    assert first.exception.type == "asyncflow.errors.TaskTimeoutError"
    assert "0.25 s" in first.exception.message


async def test_a_death_is_no_timeout(engine):
    """What was not asked for is not tried again."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Hurt, how="death")
    assert caught.value.failure.type == "asyncflow.errors.WorkerDiedError"
    assert caught.value.failure.attempt == 0


# --- timeout ------------------------------------------------------------------------------------


class Swallows(FlowSpec):
    """An async step that does not let itself be cancelled."""

    for_ever = Parameter("for_ever", default=True)

    @timeout(seconds=0.2)
    @step
    async def start(self):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cleaned_up = True
        while self.for_ever:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_async_task_that_goes_on_regardless_is_killed(store):
    """After its grace, and it is its timeout that is told."""
    settings = Settings(store=store, workers=1, grace_seconds=0.2)
    async with Engine(settings=settings) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Swallows)
    assert caught.value.failure.type == "asyncflow.errors.TaskTimeoutError"


async def test_an_async_task_that_ends_well_after_its_cancellation_counts(engine):
    """What it cleans up within its grace is its own business."""
    run = await engine.run(Swallows, for_ever=False)
    assert run.data.cleaned_up


class BlocksItsLoop(FlowSpec):
    """An async step that is stuck in C code, and so is its event loop."""

    @retry(times=1, seconds=0)
    @timeout(seconds=0.2)
    @step
    async def start(self):
        if current.attempt == 0:
            ctypes.PyDLL(None).sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_async_step_that_blocks_its_loop_is_killed_in_the_end(store):
    """It cannot be cancelled; its timeout holds all the same, after its grace."""
    settings = Settings(store=store, workers=1, grace_seconds=0.2)
    async with Engine(settings=settings) as engine:
        run = await engine.run(BlocksItsLoop)
    first, _ = run["start"].task.attempts()
    assert first.exception.type == "asyncflow.errors.TaskTimeoutError"


class Slow(FlowSpec):
    """An async step that waits too long."""

    @timeout(minutes=0.005)
    @step
    async def start(self):
        await asyncio.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_timeout_of_an_async_step_shows_where_it_waited(engine):
    """Its traceback has the line of the user's code."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Slow)
    assert caught.value.failure.type == "asyncflow.errors.TaskTimeoutError"
    assert "0.3 s" in caught.value.failure.message
    assert "await asyncio.sleep(60)" in caught.value.failure.traceback


# --- catch --------------------------------------------------------------------------------------


def fail(error):
    """Raise, in a way that leaves the end of a step in reach."""
    raise error


class CatchesAll(FlowSpec):
    """Every kind of step fails in a way of its own, and is caught."""

    @catch(var="start_failure", print_exception=False)
    @step
    def start(self):
        print("start prints")
        self.kept = 1
        fail(ValueError())
        self.next(self.killed, self.late, self.async_late)

    @catch(var="failure", print_exception=False)
    @retry(times=1, seconds=0)
    @step
    def killed(self):
        print("killed prints", flush=True)
        self.own: object = 1
        misbehave("exit")
        self.next(self.join)

    @catch(var="failure", print_exception=False)
    @timeout(seconds=0.2)
    @step
    def late(self):
        print("late prints")
        self.own = "late"
        time.sleep(60)
        self.next(self.join)

    @catch(var="failure", print_exception=False)
    @timeout(seconds=0.2)
    @step
    async def async_late(self):
        print("async_late prints")
        self.own = "async_late"
        await asyncio.sleep(60)
        self.next(self.join)

    @catch(var="join_failure")
    @step
    def join(self, inputs):
        self.start_failure = inputs[0].start_failure
        print("join prints")
        self.failures = [branch.failure for branch in inputs]
        fail(LookupError())
        self.next(self.end)

    @catch(var="end_failure")
    @step
    def end(self):
        print("end prints")
        raise OSError("at the end")


@pytest.fixture(scope="module")
async def caught_all(engine):
    """A run in which every step fails."""
    return await engine.run(CatchesAll)


async def test_a_run_succeeds_whose_failures_are_all_caught(caught_all):
    """Also one of its first step, of a branching one, of a join, and of its last."""
    assert caught_all.status is Status.SUCCEEDED
    assert caught_all.data.end_failure.message == "at the end"
    assert caught_all.data.join_failure.type == "LookupError"


async def test_deaths_and_timeouts_are_caught_like_any_other(caught_all):
    """After the last attempt, each with its own type."""
    died, late, async_late = (
        caught_all[name].task.data.failure for name in ("killed", "late", "async_late")
    )
    assert (died.type, died.attempt) == ("asyncflow.errors.WorkerDiedError", 1)
    assert late.type == async_late.type == "asyncflow.errors.TaskTimeoutError"


async def test_a_caught_step_keeps_what_it_had_set_before_it_failed(caught_all):
    """Also a join what it has merged; what a step is given is handed on by any."""
    assert caught_all["start"].task.data.kept == 1
    assert caught_all["late"].task.data.start_failure.type == "ValueError"
    assert [each.type for each in caught_all.data.failures] == [
        "asyncflow.errors.WorkerDiedError",
        *["asyncflow.errors.TaskTimeoutError"] * 2,
    ]


async def test_an_async_step_that_was_out_of_time_keeps_what_it_had_set(caught_all):
    """It is told of as any that was: with why, and where it stood."""
    task = caught_all["async_late"].task
    assert task.data.own == "async_late"
    assert task.caught == task.data.failure
    assert task.caught.message == "it took longer than 0.2 s"
    assert "await asyncio.sleep(60)" in task.caught.traceback
    assert task.caught.traceback.endswith("TaskTimeoutError: it took longer than 0.2 s\n")


async def test_a_step_that_died_is_caught_without_what_it_had_set(caught_all):
    """Nobody has it any more; what the step was given is there. A late step is asked to end."""
    for name, has_own in {"killed": False, "late": True}.items():
        task = caught_all[name].task
        assert ("own" in task) == has_own
        assert task.data.kept == 1


async def test_a_caught_failure_is_that_of_the_last_attempt(caught_all):
    """And no attempt more, also where a stand-in hands it on: so say task, attempts and events."""
    for name, count in {"start": 1, "killed": 2, "late": 1, "async_late": 1, "end": 1}.items():
        task = caught_all[name].task
        told = [(each.number, each.status, each.exception) for each in task.attempts()]
        assert [number for number, *_ in told] == list(range(count))
        assert task.caught is not None
        assert told[-1] == (count - 1, Status.FAILED, task.caught)
        assert (task.attempt, task.status, task.exception) == (count - 1, Status.SUCCEEDED, None)
        began = [each for each in caught_all.events(events.TaskStarted) if each.step == name]
        assert len(began) == count


async def test_what_a_caught_attempt_printed_is_the_output_of_its_task(caught_all):
    """Of every kind of step, with the traceback where it is to be printed."""
    for name in ("start", "killed", "late", "async_late", "join", "end"):
        assert caught_all[name].task.stdout == f"{name} prints\n"
    assert "OSError: at the end" in caught_all["end"].task.stderr
    assert caught_all["start"].task.stderr == ""


class KeepsTheRest(FlowSpec):
    """Sets what can be stored and what cannot, and then fails."""

    @step
    def start(self):
        self.counts: object = {"before": 1}
        self.next(self.one, self.other)

    @catch(var="failure", print_exception=False)
    @step
    def one(self):
        self.good, self.lock, self.counts = 1, threading.Lock(), threading.Lock()
        fail(ValueError("first"))
        self.next(self.join)

    @catch(var="failure", print_exception=False)
    @step
    def other(self):
        self.good = 2
        self.lock = threading.Lock()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.failures = [each.failure.type for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_caught_step_keeps_all_but_what_cannot_be_stored(engine):
    """That is told in the task's log, and what it was before is not there in its place."""
    run = await engine.run(KeepsTheRest)
    one, other = run["one"].task, run["other"].task
    assert {artifact.id for artifact in one} == {"good", "failure"}
    assert "Not kept" in one.stderr
    assert "lock" in one.stderr
    assert {artifact.id for artifact in other} == {"counts", "good", "failure"}
    assert run["join"].task.data.failures == ["ValueError", "asyncflow.errors.ArtifactPickleError"]


# --- when a run ends early ----------------------------------------------------------------------


class Together(FlowSpec):
    """Both of its branches fail, one a little after the other has begun to end."""

    @step
    def start(self):
        self.next(self.first, self.second)

    @step
    async def first(self):
        await asyncio.sleep(0.1)
        fail(ValueError())
        self.next(self.join)

    @retry(times=3, seconds=60)
    @step
    async def second(self):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            fail(LookupError())
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_the_task_that_failed_first_is_told(engine):
    """What fails while the run ends is not tried again, and is not the run's failure."""
    handle = await engine.start(Together)
    seen = [event async for event in handle.events()]
    with pytest.raises(RunFailedError) as caught:
        await handle
    assert caught.value.failure.step == "first"
    failed = {event.step: event for event in seen if isinstance(event, events.TaskFailed)}
    assert not failed["second"].will_retry
    assert not any(isinstance(event, events.TaskRetried) for event in seen)
    assert seen[-1].failure.step == "first"


class Tidy(FlowSpec):
    """A step that has something to close."""

    file = Parameter("file", type=str)

    @step
    def start(self):
        print("at work", flush=True)
        try:
            time.sleep(60)
        finally:
            Path(str(self.file)).write_text("tidied up")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_is_stopped_closes_what_it_has_open(engine, tmp_path):
    """SIGTERM reaches a step as an exception, so its `finally` is run, and its engine goes on."""
    handle = await engine.start(Tidy, file=str(tmp_path / "file"))
    async for event in handle.events():
        if isinstance(event, events.TaskLogged):
            handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    assert (tmp_path / "file").read_text() == "tidied up"
    assert handle.run["start"].task.exception.type == "asyncflow.errors.TaskCancelledError"
    assert (await engine.run(Wide, width=20)).data.count == 20


async def test_cancelling_while_a_wide_joins_inputs_are_written_ends_the_run(engine, monkeypatch):
    """The join is not run, and nothing waits for it."""
    handle = await engine.start(Wide, width=5000)
    loop = asyncio.get_running_loop()
    cancelled = threading.Event()

    def cancel():
        handle.cancel("enough")
        cancelled.set()

    def on(point):
        if point == "inputs.spill":
            loop.call_soon_threadsafe(cancel)
            cancelled.wait(180)

    monkeypatch.setattr(commit_points, "watcher", on)
    with pytest.raises(RunCancelledError, match="enough"):
        await handle
    assert cancelled.is_set()
    assert "join" not in {name.id for name in handle.run if name.task_count}


async def test_inputs_of_a_wide_join_that_cannot_be_written_fail_the_run(engine, monkeypatch):
    """With one clear error, and without waiting for ever; a resume completes it."""

    def on(point):
        if point == "inputs.spill":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(commit_points, "watcher", on)
    with pytest.raises(RunFailedError, match=r"cannot write the inputs of a join.*No space left"):
        await engine.run(Wide, width=5000)
    monkeypatch.undo()
    assert (await engine.resume(Wide)).data.count == 5000
