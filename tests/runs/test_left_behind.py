"""What a task leaves that has failed for good: the client reads it, and nothing else does."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from asyncflow import Engine, FlowSpec, Parameter, Task, catch, current, retry, step, timeout
from asyncflow._support.settings import Settings
from asyncflow.errors import RunFailedError
from asyncflow.events import TaskFailed
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import collect


class Leaves(FlowSpec):
    """A step that fails, in one of many ways, after it has set something."""

    how = Parameter("how", default="raise")
    way = Parameter("way", default="now")

    @step
    def start(self):
        self.before = "start"
        self.kind = self.way
        self.next({"later": self.later, "now": self.now}, condition="kind")

    def fail(self):
        """Fail, unless that is by taking too long."""
        self.number, self.big = 7, b"x" * (1 << 19)
        self.lock = threading.Lock()
        self.items = (each for each in range(3))
        if self.how == "raise":
            raise ValueError("no")
        if self.how == "exit":
            raise SystemExit(3)
        if self.how == "memory":
            raise MemoryError

    @timeout(seconds=0.5)
    @step
    def now(self):
        self.fail()
        time.sleep(60)
        self.next(self.end)

    @timeout(seconds=0.5)
    @step
    async def later(self):
        self.fail()
        await asyncio.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


async def failed_task(engine, flow, **parameters):
    """The task that has failed in a run of the flow."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(flow, **parameters)
    return caught.value.run[caught.value.failure.step].task


@pytest.mark.parametrize("way", ["now", "later"])
@pytest.mark.parametrize("how", ["raise", "exit", "late"])
async def test_what_a_failed_task_had_set_can_be_read(engine, how, way):
    """What it had inherited as well. What cannot be stored is left out, without a word."""
    task = await failed_task(engine, Leaves, how=how, way=way)
    assert (task.successful, task.status) == (False, "failed")
    assert (task["before"].data, task["number"].data) == ("start", 7)
    assert (task.data.big, task.data.how) == (b"x" * (1 << 19), how)
    assert not {"lock", "items"} & {artifact.id for artifact in task}
    assert task.stderr == ""


async def test_a_task_without_memory_leaves_nothing(engine):
    """To store something takes more memory: its worker might die, and the reason with it."""
    task = await failed_task(engine, Leaves, how="memory")
    assert (list(task), task.exception.type) == ([], "MemoryError")


class Tries(FlowSpec):
    """Its second attempt is the last."""

    @retry(times=1, seconds=0)
    @step
    def start(self):
        self.attempt = current.attempt
        if self.attempt < 5:
            raise ValueError(self.attempt)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_only_the_last_attempt_leaves_something(engine):
    """What is tried again need not be looked at, and costs nothing."""
    task = await failed_task(engine, Tries)
    assert task["attempt"].data == 1
    first, last = task.parent.parent.events(TaskFailed)
    assert (dict(first.artifacts), [*last.artifacts]) == ({}, ["attempt"])


class Unready(FlowSpec):
    """A step that ends without saying where it goes on."""

    @step
    def start(self):
        self.number = 1
        self.next(self.work)

    @step
    def work(self):
        self.number = 2
        if self.number:
            return
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_does_not_say_where_it_goes_on_leaves_what_it_had_set(engine):
    """It has failed only when its end was there."""
    assert (await failed_task(engine, Unready))["number"].data == 2


class Yields(FlowSpec):
    """A generator that fails between its items."""

    @step
    def start(self):
        self.number = 1
        self.items = self.made()
        self.next(self.work, foreach="items")

    def made(self):
        """One item."""
        yield 1
        raise ValueError("no more")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_generator_that_fails_leaves_the_other_artifacts(engine):
    """It is not begun a second time."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Yields)
    task = caught.value.run["start"].task
    assert {artifact.id: artifact.data for artifact in task} == {"number": 1}


class Late(FlowSpec):
    """A step that takes too long, and does not care, or does; its end is caught."""

    deaf = Parameter("deaf", default=False)

    @catch(var="problem")
    @timeout(seconds=0.5)
    @step
    def start(self):
        self.before = 1
        for _ in range(10):
            try:
                time.sleep(60)
            except BaseException:
                if not self.deaf:
                    raise
        self.next(self.end)

    @step
    def end(self):
        self.seen = getattr(self, "before", 0)


async def test_a_caught_timeout_keeps_what_was_set(engine):
    """As in an async step; the failure shows where it was."""
    data = (await engine.run(Late)).data
    assert data.seen == 1
    assert data.problem.type == "asyncflow.errors.TaskTimeoutError"
    assert data.problem.message == "it took longer than 0.5 s"
    assert "time.sleep(60)" in data.problem.traceback


async def test_a_step_that_does_not_end_in_its_grace_is_killed_and_caught(tmp_path):
    """A stand-in passes on that it took too long, and nothing else."""
    settings = Settings(store=tmp_path / "store", workers=1, grace_seconds=0.3)
    async with Engine(settings=settings) as engine:
        data = (await engine.run(Late, deaf=True)).data
    assert data.seen == 0
    assert data.problem.message == "it took longer than 0.5 s"


async def test_what_a_failed_task_leaves_is_kept_by_a_collection(tmp_path):
    """It stays as long as its run."""
    async with Engine(store=tmp_path / "store", workers=1) as engine:
        task = await failed_task(engine, Leaves)
    for file in (tmp_path / "store").rglob("*"):
        os.utime(file, (0, 0))  # what is new is kept anyway
    collect(Layout.open(tmp_path / "store", create=False))
    assert Task(task.pathspec, store=tmp_path / "store")["big"].data == b"x" * (1 << 19)
