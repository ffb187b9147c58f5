"""What is special to a Ray cluster; `test_executors` has what it shares with Dask."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from asyncflow import Engine, FlowSpec, events, resources, step
from asyncflow.errors import AgentGoneError, ClusterError, RunFailedError
from asyncflow.executors import Ray
from asyncflow.workers.cluster import ray as ray_cluster
from asyncflow.workers.cluster.interface import Shape
from tests.support.remote_flows import Talking
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


class Visible(FlowSpec):
    """Tells which GPUs its tasks see."""

    @step
    def start(self):
        self.plain = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        self.items = [1, 2]
        self.next(self.work, foreach="items")

    @resources(gpu=1, cpu=1, memory=64)
    @step
    def work(self):
        self.seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        time.sleep(1)  # so that both run at a time
        self.next(self.join)

    @step
    def join(self, inputs):
        self.devices = sorted(each.seen for each in inputs)
        self.plain = inputs[0].plain
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_sees_the_gpu_that_is_its_own(ray_here, store):
    """And other steps see none."""
    async with Engine(store=store, executor=Ray("auto", idle_seconds=1)) as engine:
        run = await engine.run(Visible)
    assert (run.data.devices, run.data.plain) == (["0", "1"], "")


async def test_another_address_than_that_of_the_program_is_refused(ray_here, store):
    """A process has one connection to Ray."""
    with pytest.raises(ClusterError, match="this program is connected to Ray at"):
        async with Engine(store=store, executor=Ray("127.0.0.1:9")):
            pass


def dying_actor(folder, times, how):
    """In the place of an agent's actor: so many end before they have said where they are."""

    class Dying(ray_cluster.AgentActor):  # within the function, so that it travels by value
        def __init__(self):
            super().__init__()
            self.is_to_die = len(list(Path(folder).iterdir())) < times
            Path(folder, str(os.getpid())).touch()
            if self.is_to_die and how == "fails":
                raise RuntimeError("this node is no good")

        async def where(self):
            if self.is_to_die:
                os._exit(1)
            return await super().where()

    return Dying


async def test_an_actor_that_dies_before_it_is_there_is_asked_for_again(
    ray_here, store, tmp_path, monkeypatch
):
    """As when its node dies: no run fails because of it."""
    (tmp_path / "actors").mkdir()
    actor = dying_actor(str(tmp_path / "actors"), 2, "dies")
    monkeypatch.setattr(ray_cluster, "AgentActor", actor)
    async with Engine(store=store, executor=Ray("auto", workers=1)) as engine:
        assert (await engine.run(Talking)).successful
    assert len(list((tmp_path / "actors").iterdir())) >= 3  # and those lost on a busy machine


@pytest.mark.parametrize(("how", "tries"), [("dies", 4), ("fails", 1)])
async def test_an_actor_that_never_comes_fails_the_run(
    ray_here, store, tmp_path, monkeypatch, how, tries
):
    """After some tries, and at once if it is an error of its own."""
    (tmp_path / "actors").mkdir()
    actor = dying_actor(str(tmp_path / "actors"), 100, how)
    monkeypatch.setattr(ray_cluster, "AgentActor", actor)
    async with Engine(store=store, executor=Ray("auto", workers=1)) as engine:
        with pytest.raises(RunFailedError, match="ended before its agent was there"):
            await engine.run(Talking)
    assert len(list((tmp_path / "actors").iterdir())) == tries


async def polled_for_ever(link):
    """Ask its agent for news until it is gone."""
    while True:
        await link.poll(0)


async def test_a_head_that_does_not_answer_keeps_nobody_waiting_who_withdraws(
    ray_here, monkeypatch
):
    """Ray blocks who ends an actor that its head has not heard of: not the thread of all links."""
    monkeypatch.setattr(ray_cluster, "_KILL_SECONDS", 0.5)
    children = psutil.Process().children(recursive=True)
    (head,) = [each for each in children if "gcs_server" in each.name()]
    cluster = ray_cluster.RayCluster("auto")
    await cluster.open()
    first = await cluster.lease(Shape(), 1)
    goes_on = threading.Timer(60, head.resume)  # without it, a thread that is blocked stays so
    goes_on.start()
    head.suspend()
    try:
        leases = [asyncio.ensure_future(cluster.lease(Shape(), 1)) for _ in range(2)]
        await until(lambda: len(cluster._coming) == 2)
        leases[0].cancel()
        await asyncio.wait(leases, return_when=asyncio.FIRST_COMPLETED)
        await cluster.close()  # which withdraws the other
        leases[1].cancel()
        await asyncio.wait(leases)
        assert head.status() == psutil.STATUS_STOPPED
    finally:
        goes_on.cancel()
        head.resume()
    assert [lease.cancelled() for lease in leases] == [True, True]
    with pytest.raises(AgentGoneError):  # it could not be ended at once, and has ended by now
        await polled_for_ever(first)


class Wide(FlowSpec):
    """Many tasks that do nothing."""

    @step
    def start(self):
        self.numbers = range(500)
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def hasty_actor():
    """In the place of an agent's actor: reports of its workers wait for no whole millisecond.

    And each time that the agent works out for how long they wait, it does so twice, as when orders
    come in the same turn of its loop.
    """

    class Hasty(ray_cluster.AgentActor):  # within the function, so that it travels by value
        def __init__(self):
            from asyncflow.workers.cluster import report_pace

            vars(report_pace)["PACE_SECONDS"] = 0.0004
            super().__init__()
            agent = self._agent._agent
            keep_pace = agent._keep_pace
            vars(agent)["_keep_pace"] = lambda: (keep_pace(), keep_pace())

        async def where(self):
            return type(self._agent._loop).__module__

    return Hasty


async def test_reports_that_can_hardly_wait_are_told_on_the_loop_that_ray_has(
    ray_here, store, monkeypatch
):
    """Ray has its actors use uvloop, for which so short a wait is none, and has no time."""
    monkeypatch.setattr(ray_cluster, "AgentActor", hasty_actor())
    async with (
        asyncio.timeout(300),
        Engine(store=store, executor=Ray("auto", workers=2)) as engine,
    ):
        run = await engine.run(Wide)
        seen = [event async for event in run.events()]
    assert run.data.count == 500
    assert {event.node for event in seen if isinstance(event, events.TaskStarted)} == {"uvloop"}
