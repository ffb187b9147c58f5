"""Retry, catch, timeout, and a process of one's own."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    Parameter,
    catch,
    concurrency,
    current,
    environment,
    events,
    isolate,
    retry,
    step,
    timeout,
)
from asyncflow._support.settings import Settings
from asyncflow.errors import RunFailedError
from tests.support.flows import misbehave


class Flaky(FlowSpec):
    """Fails as often as it is told, and is tried three times."""

    failures = Parameter("failures", default=2)
    kill = Parameter("kill", default=False)

    @retry(times=2, seconds=0.01)
    @step
    def start(self):
        print(f"attempt {current.attempt}")
        self.unseen = current.attempt
        if current.retry_count < self.failures:
            if self.kill:
                os.kill(os.getpid(), 9)
            message = f"attempt {current.attempt}"
            raise ValueError(message)
        self.attempt = current.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


class Picky(FlowSpec):
    """Is tried again only after the errors that it names."""

    @retry(times=5, seconds=0, on=LookupError)
    @step
    def start(self):
        if current.attempt == 0:
            raise KeyError
        if current.attempt == 1:
            raise ValueError
        self.next(self.end)

    @step
    def end(self):
        pass


class Caught(FlowSpec):
    """Goes on although one of its tasks fails."""

    @step
    def start(self):
        self.before = "kept"
        self.items = [1, 0, 2]
        self.next(self.divide, foreach="items")

    @catch(var="failure", print_exception=True)
    @retry(times=1, seconds=0)
    @step
    def divide(self):
        self.result = 10 / self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = [getattr(task, "result", None) for task in inputs]
        self.failures = [task.failure for task in inputs]
        self.kept = [task.before for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Late(FlowSpec):
    """Takes longer than it may, in a `def` or an `async def` step."""

    how = Parameter("how", default="def")

    @step
    def start(self):
        self.next(self.sync_step, self.async_step)

    @timeout(seconds=0.3)
    @step
    def sync_step(self):
        if self.how == "def":
            time.sleep(30)
        self.next(self.join)

    @timeout(seconds=0.3)
    @step
    async def async_step(self):
        if self.how == "async":
            await asyncio.sleep(30)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Apart(FlowSpec):
    """Every task of the middle step has a process of its own."""

    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @isolate
    @environment(vars={"ASYNCFLOW_TEST_COLOUR": "green", "ASYNCFLOW_TEST_NUMBER": 3})
    @step
    def work(self):
        self.pid = os.getpid()
        self.colour = os.environ["ASYNCFLOW_TEST_COLOUR"] + os.environ["ASYNCFLOW_TEST_NUMBER"]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.pids = [task.pid for task in inputs]
        self.colours = {task.colour for task in inputs}
        self.after = os.environ.get("ASYNCFLOW_TEST_COLOUR")
        self.next(self.end)

    @step
    def end(self):
        pass


class Bounded(FlowSpec):
    """At most three of the async tasks run at once."""

    @step
    def start(self):
        self.items = range(12)
        self.next(self.wait, foreach="items")

    @concurrency(3)
    @step
    async def wait(self):
        self.began = time.monotonic()
        await asyncio.sleep(0.05)
        self.ended = time.monotonic()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.spans = [(task.began, task.ended) for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("kill", [False, True])
async def test_a_failed_task_is_tried_again(engine, kill):
    """Two attempts fail, by an exception or with their worker; the third one counts."""
    run = await engine.run(Flaky, kill=kill)
    assert run.data.attempt == 2
    assert run["start"].task.attempt == 2


async def test_each_attempt_keeps_its_log_and_its_exception(engine):
    """Looking back shows every attempt by itself."""
    run = await engine.run(Flaky)
    attempts = list(run["start"].task.attempts())
    assert [attempt.stdout for attempt in attempts] == [f"attempt {n}\n" for n in range(3)]
    assert [attempt.exception and attempt.exception.message for attempt in attempts] == [
        "attempt 0",
        "attempt 1",
        None,
    ]


async def test_a_task_that_fails_too_often_fails_the_run(engine):
    """The failure tells the last attempt."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Flaky, failures=3)
    assert caught.value.failure.attempt == 2
    [failed] = caught.value.run.events(events.RunFailed)
    assert (failed.step, failed.task_id, failed.attempt) == ("start", "1", 2)
    assert (failed.exception_type, failed.message) == ("ValueError", "attempt 2")
    assert caught.value.run.failure == caught.value.failure
    file = os.path.relpath(__file__)
    assert f"{file}:Flaky --origin-run-id {caught.value.run.id}" in str(caught.value)


async def test_a_retry_is_announced(engine):
    """Subscribers hear of each failure, whether it will be retried, and of each retry."""
    handle = await engine.start(Flaky, failures=1)
    seen = [event async for event in handle.events()]
    (failed,) = [event for event in seen if isinstance(event, events.TaskFailed)]
    (retried,) = [event for event in seen if isinstance(event, events.TaskRetried)]
    assert failed.will_retry
    assert (retried.attempt, retried.after_seconds) == (1, 0.01)


async def test_a_retry_for_named_errors_lets_others_through(engine):
    """KeyError is a LookupError and is tried again; ValueError is not."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Picky)
    assert (caught.value.failure.type, caught.value.failure.attempt) == ("ValueError", 1)


async def test_a_caught_failure_is_an_artifact_and_the_flow_goes_on(engine):
    """What the step had not set yet is not there, inherited ones are, the failure tells all."""
    run = await engine.run(Caught)
    data = run["join"].task.data
    assert data.results == [10.0, None, 5.0]
    assert data.kept == ["kept"] * 3
    failure = data.failures[1]
    assert (failure.type, failure.step, data.failures[0]) == ("ZeroDivisionError", "divide", None)
    assert "10 / self.input" in failure.traceback


async def test_a_caught_exception_is_printed_into_the_tasks_log(engine):
    """`print_exception` puts the traceback where the task's output is."""
    run = await engine.run(Caught)
    logs = [task.stderr for task in run["divide"]]
    assert sum("ZeroDivisionError" in log for log in logs) == 1


class Unlucky(FlowSpec):
    """One of its tasks fails at once, the other takes a moment."""

    @step
    def start(self):
        self.next(self.fails, self.lasts)

    folder = Parameter("folder", default="")

    @step
    def fails(self):
        while not Path(self.folder, "begun").exists():
            time.sleep(0.01)
        misbehave("raise")
        self.next(self.join)

    @step
    def lasts(self):
        Path(self.folder, "begun").touch()
        while not Path(self.folder, "failed").exists():
            time.sleep(0.01)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class FailsFirst(FlowSpec):
    """The first of its tasks fails, while others wait for a worker."""

    @step
    def start(self):
        self.items = range(6)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input == 0:
            time.sleep(0.3)  # it has been told of, so that its failure comes alone
            misbehave("raise")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("on_failure", ["cancel", "finish"])
async def test_after_a_failure_no_further_task_begins(store, on_failure):
    """Not even on the worker that has just become free by it."""
    settings = Settings(store=store, workers=1, on_failure=on_failure)
    async with Engine(settings=settings) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(FailsFirst)
    started = [
        event.step for event in caught.value.run.events() if isinstance(event, events.TaskStarted)
    ]
    assert started == ["start", "work"]


@pytest.mark.parametrize(
    ("on_failure", "ending"), [("cancel", "cancelled"), ("finish", "succeeded")]
)
async def test_a_failure_cancels_the_running_siblings_or_lets_them_finish(
    store, tmp_path, on_failure, ending
):
    """Either way nothing new starts, and the failure that came first is told."""
    settings = Settings(store=store, workers=2, on_failure=on_failure)
    async with Engine(settings=settings) as engine:
        if on_failure == "finish":
            engine.on(events.TaskFailed, lambda _: (tmp_path / "failed").touch())
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Unlucky, folder=str(tmp_path))
    assert caught.value.failure.step == "fails"
    run = caught.value.run
    assert run["lasts"].task.status == ending
    assert "join" not in {step.id for step in run if step.task_count}


@pytest.mark.parametrize("how", ["def", "async"])
async def test_a_task_that_takes_too_long_is_stopped(engine, how):
    """Both fail with the same error, which shows the line that took too long."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Late, how=how)
    failure = caught.value.failure
    assert failure.type.endswith("TaskTimeoutError")
    assert "0.3 s" in failure.message
    assert "sleep(30)" in failure.traceback
    assert "SystemExit" not in failure.traceback


async def test_an_isolated_task_has_a_process_of_its_own(engine):
    """No two of them share a worker, and none is used again."""
    data = (await engine.run(Apart)).data
    assert len(set(data.pids)) == 3


async def test_environment_variables_hold_for_the_step_alone(engine):
    """`environment` sets them within the step and puts back what was there."""
    data = (await engine.run(Apart)).data
    assert (data.colours, data.after) == ({"green3"}, None)


class AsyncApart(FlowSpec):
    """An async step with variables of its own, in processes of its own."""

    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @isolate
    @environment(vars={"ASYNCFLOW_TEST_COLOUR": "blue"})
    @step
    async def work(self):
        await asyncio.sleep(0)
        self.colour = os.environ.get("ASYNCFLOW_TEST_COLOUR")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.colours = [task.colour for task in inputs]
        self.after = os.environ.get("ASYNCFLOW_TEST_COLOUR")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_environment_variables_hold_for_an_isolated_async_step(engine):
    """Its tasks have a process each, so that the variables are theirs alone."""
    data = (await engine.run(AsyncApart)).data
    assert (data.colours, data.after) == (["blue"] * 3, None)


async def test_concurrency_bounds_the_tasks_of_a_step(engine):
    """Never more than so many at once."""
    spans = (await engine.run(Bounded)).data.spans
    assert max(sum(b <= began < e for b, e in spans) for began, _ in spans) <= 3
