"""Gangs: the tasks of a step that start together, end together, and are tried again together."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    Parameter,
    catch,
    current,
    isolate,
    limit,
    parallel,
    retry,
    step,
)
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.events import TaskFailed, TaskStarted, TaskSucceeded
from tests.support.waiting import until

FAR = 60.0
"""Seconds that no test waits: what takes so long is stopped before."""


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("gangs"), workers=2) as opened:
        yield opened


def meet(folder, count):
    """Wait until so many tasks of this attempt have come here."""
    place = Path(folder) / f"{current.parallel.control_task_id}-{current.attempt}"
    place.mkdir(exist_ok=True)
    (place / current.task_id).touch()
    until = time.monotonic() + FAR
    while len(list(place.iterdir())) < count:
        assert time.monotonic() < until, "the others have not come"
        time.sleep(0.005)


class Meeting(FlowSpec):
    """Three nodes, each of which waits for the others."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.next(self.node, num_parallel=3)

    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        self.pid = os.getpid()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.indexes = [each.index for each in inputs]
        self.pids = {each.pid for each in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass


class AsyncMeeting(Meeting):
    """The same on one event loop."""

    @parallel
    @step
    async def node(self):
        place = Path(self.folder) / current.parallel.control_task_id
        place.mkdir(exist_ok=True)
        (place / current.task_id).touch()
        await until(lambda: len(list(place.iterdir())) == 3)
        self.pid = os.getpid()
        self.next(self.join)


class IsolatedMeeting(Meeting):
    """The same in processes of their own."""

    @isolate
    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        self.pid = os.getpid()
        self.next(self.join)


class LimitedMeeting(Meeting):
    """The same under a limit below its size."""

    @limit("one-gang", 1)
    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        self.pid = os.getpid()
        self.next(self.join)


@pytest.mark.parametrize("flow", [Meeting, IsolatedMeeting, LimitedMeeting])
async def test_the_nodes_of_a_gang_run_at_the_same_time_however_few_workers_there_are(
    engine, tmp_path, flow
):
    """Each has a worker of its own, and in the join they are in order."""
    run = await engine.run(flow, folder=str(tmp_path))
    assert run["join"].task["indexes"].data == [0, 1, 2]
    assert len(run["join"].task["pids"].data) == 3


async def test_async_nodes_share_an_event_loop(engine, tmp_path):
    """They start together there."""
    run = await engine.run(AsyncMeeting, folder=str(tmp_path))
    assert len(run["join"].task["pids"].data) == 1


async def test_workers_that_a_gang_needed_beyond_the_engines_own_leave(engine, tmp_path):
    """Afterwards there are as many workers as the settings say."""
    await engine.run(Meeting, folder=str(tmp_path))

    def workers():
        now = engine.statistics()
        return now.workers_idle + now.workers_busy

    await until(lambda: workers() == 2)


class Meetings(FlowSpec):
    """Four gangs, each larger than the pool."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.next(self.node, num_parallel=3)

    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        self.next(self.met)

    @step
    def met(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_gangs_never_wait_for_each_other(engine, tmp_path):
    """Two runs have four gangs each that are larger than the pool, and all of them meet."""
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
    async with anyio.create_task_group() as group:
        for folder in folders:
            group.start_soon(partial(engine.run, Meetings, folder=str(folder)))


class Failing(FlowSpec):
    """The last node fails at first, and the others would wait for it for ever."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.next(self.node, num_parallel=3)

    @retry(times=1, seconds=0)
    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        if current.attempt == 0:
            if current.parallel.node_index == 2:
                self.fail()
            if current.parallel.node_index == 1:
                time.sleep(FAR)
        self.attempt = current.attempt
        self.next(self.join)

    def fail(self):
        raise ConnectionError("the last")

    @step
    def join(self, inputs):
        self.attempts = [each.attempt for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Dying(Failing):
    """Its worker dies instead."""

    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)


async def attempts_of(engine, flow, folder):
    """The run, and the failures of its first attempt by the index of the node."""
    handle = await engine.start(flow, folder=str(folder))
    failures = {event.path[-1]: event async for event in handle.events(TaskFailed)}
    return await handle, failures


@pytest.mark.parametrize(
    ("flow", "kind"),
    [(Failing, "ConnectionError"), (Dying, "asyncflow.errors.WorkerDiedError")],
)
async def test_a_gang_is_tried_again_as_a_whole(engine, tmp_path, flow, kind):
    """A node that succeeded runs again, one that waited is stopped; the cause is told once."""
    run, failures = await attempts_of(engine, flow, tmp_path)
    assert run["join"].task["attempts"].data == [1, 1, 1]
    assert {index: each.exception_type for index, each in failures.items()} == {
        0: "asyncflow.errors.TaskCancelledError",
        1: "asyncflow.errors.TaskCancelledError",
        2: kind,
    }
    assert all(each.will_retry for each in failures.values())
    assert "node 2 of its gang has failed" in failures[1].message


class Caught(Meeting):
    """One node fails, and what the others do by then counts."""

    @catch(var="failure")
    @parallel
    @step
    def node(self):
        meet(self.folder, 3)
        self.before = current.parallel.node_index
        if self.before == 1:
            raise ValueError("the second")
        if self.before == 2:
            time.sleep(FAR)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.befores = [getattr(each, "before", None) for each in inputs]
        self.failures = [each.failure and each.failure.type for each in inputs]
        self.next(self.end)


async def test_a_failure_that_is_caught_stops_the_other_nodes_as_well(engine, tmp_path):
    """The join has all nodes, each with the failure by which it has ended."""
    run = await engine.run(Caught, folder=str(tmp_path))
    failures = run["join"].task["failures"].data
    assert failures[1:] == ["ValueError", "asyncflow.errors.TaskCancelledError"]
    assert run["join"].task["befores"].data[1] == 1


async def test_no_node_is_announced_before_the_whole_gang_has_a_result(engine, tmp_path):
    """The third gets its result from a stand-in: a crash before that loses no announcement."""
    handle = await engine.start(Caught, folder=str(tmp_path))
    ends = [
        (type(event), event.path[-1])
        async for event in handle.events(TaskFailed, TaskSucceeded)
        if event.step == "node"
    ]
    await handle
    announced = ends.index(next(end for end in ends if end[0] is TaskSucceeded))
    assert (TaskFailed, 2) in ends[:announced]
    assert len(ends[announced:]) >= 3


class Finishing(FlowSpec):
    """A gang that can be told to fail, and a step that can be told to fail after it."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @parallel
    @step
    def node(self):
        if current.parallel.node_index and not (Path(self.folder) / "node").exists():
            raise ValueError("not yet")
        self.next(self.join)

    @step
    def join(self, inputs):
        if not (Path(self.folder) / "join").exists():
            raise ValueError("not yet")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_gang_is_taken_over_as_a_whole_or_runs_as_a_whole(engine, tmp_path):
    """One node has succeeded beside one that failed: both run again. Then both are taken over."""

    def began(run):
        return [task.parent.id for each in run for task in each if task.origin_pathspec is None]

    with pytest.raises(RunFailedError) as failed:
        await engine.run(Finishing, folder=str(tmp_path))
    (tmp_path / "node").touch()
    with pytest.raises(RunFailedError) as again:
        await engine.resume(Finishing, origin=failed.value.run)
    assert began(again.value.run) == ["node", "node", "join"]
    (tmp_path / "join").touch()
    assert began(await engine.resume(Finishing, origin=again.value.run)) == ["join", "end"]


async def test_a_run_whose_gang_runs_can_be_cancelled(engine, tmp_path):
    """All of its nodes are stopped."""
    handle = await engine.start(Waiting, folder=str(tmp_path))
    async for event in handle.events(TaskStarted):
        if event.step == "node":
            handle.cancel()
            break
    with pytest.raises(RunCancelledError) as cancelled:
        await handle
    assert {task.status for task in cancelled.value.run["node"]} == {"cancelled"}


class Waiting(Meeting):
    """Its nodes wait for a fourth that never comes."""

    @parallel
    @step
    def node(self):
        meet(self.folder, 4)
        self.next(self.join)


class Sized(FlowSpec):
    """A gang of a number that is known when its first step ends."""

    size = Parameter("size", default=2)
    kind = Parameter("kind", default="")

    @step
    def start(self):
        number: Any = {"text": "3", "none": None, "true": True}.get(self.kind, self.size)
        self.next(self.node, num_parallel=number)

    @parallel
    @step
    def node(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.has_none = "parallel" not in current and current.get("parallel") is None
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"size": 0}, "0"),
        ({"size": -1}, "-1"),
        ({"size": 1001}, "1001"),
        ({"kind": "text"}, "'3'"),
        ({"kind": "none"}, "None"),
        ({"kind": "true"}, "True"),
    ],
)
async def test_a_size_that_no_gang_can_have_is_an_error(engine, given, shown):
    """The message has the value, and what it may be."""
    with pytest.raises(RunFailedError) as failed:
        await engine.run(Sized, **given)
    message = failed.value.failure.message
    assert f"num_parallel={shown}, but a gang has a number of tasks from 1 to 1,000" in message


async def test_current_has_no_parallel_outside_of_a_gang(engine):
    """In the join, for example."""
    run = await engine.run(Sized)
    assert run["join"].task["has_none"].data


async def test_the_client_finds_the_control_task_of_each_gang(engine):
    """It is node 0; other steps have none."""
    run = await engine.run(Sized, size=3)
    assert run["node"].control_task.index == 0
    assert [task.id for task in run["node"].control_tasks()] == [run["node"].control_task.id]
    assert run["start"].control_task is None
