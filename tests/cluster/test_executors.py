"""Flows on Dask and on Ray: the same language, and nothing lost but what must be."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from typing import Any, NamedTuple

import psutil
import pytest

from asyncflow import Engine, FlowSpec, resources, step
from asyncflow.errors import RunFailedError
from asyncflow.executors import Dask, Ray
from asyncflow.flow.loader import load_file
from asyncflow.workers.cluster import dask_cluster, ray
from tests.support.conformance import FLOWS, KINDS, load_kinds, outcome
from tests.support.dask_processes import DaskProcesses
from tests.support.remote_flows import SECONDS, Meeting, Talking
from tests.support.remote_promises import (
    RemotePromises,
    lose_a_node,
    lose_a_node_within_packets,
)
from tests.support.waiting import still_running, until

pytestmark = pytest.mark.cluster


class Place(NamedTuple):
    """A cluster with room for two workers at least."""

    kind: Any
    """`Dask` or `Ray`."""
    address: str
    host: str
    """How the command line of a process that holds an agent can be told."""
    refusal: str
    """What a request for seven GPUs is answered."""
    add_worker: Any
    """Makes room for one more worker, where there is none."""

    def executor(self, **options):
        """Where an engine runs its tasks."""
        return self.kind(self.address, **options)

    def host_of(self, pid):
        """The process that holds the agent of this worker."""
        parents = psutil.Process(pid).parents()
        return next(each for each in parents if self.host in " ".join(each.cmdline()))


def on_dask(tmp_path_factory):
    """Two Dask workers."""
    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    processes.add_worker(name="one")
    processes.add_worker(name="two")
    yield Place(
        Dask,
        processes.address,
        "dask_worker",
        r"has 1 cpu, 7 gpu.*--resources 'GPU=7'",
        lambda: processes.add_worker(name=f"number-{len(processes.workers)}"),
    )
    processes.close()


def on_ray(connected):
    """The cluster of this session."""
    address = connected.get_runtime_context().gcs_address
    refusal = r"has 1 cpu, 7 gpu.*at most 8 CPU, 2 GPU"
    yield Place(Ray, address, "ray::", refusal, lambda: None)


@pytest.fixture(scope="module", params=["dask", "ray"])
def place(request, tmp_path_factory):
    """Each cluster in turn."""
    if request.param == "dask":
        yield from on_dask(tmp_path_factory)
    else:
        yield from on_ray(request.getfixturevalue("ray_here"))


@pytest.fixture(scope="module")
async def distant(place, tmp_path_factory):
    """An open engine with two workers there, which it gives back between tests."""
    executor = place.executor(workers=2, idle_seconds=1)
    async with Engine(store=tmp_path_factory.mktemp("distant"), executor=executor) as opened:
        yield opened


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The family of flows with each kind of steps, each in a file of its own."""
    return load_kinds(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
async def expected(engine, modules):
    """What each flow comes to with `def` steps in worker processes of this machine."""
    return {name: await outcome(engine, getattr(modules["def"], name)) for name in FLOWS}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_comes_to_the_same_on_a_cluster(distant, modules, expected, name, kind):
    """Status, failure, tasks, attempts, artifacts and output are those of this machine."""
    assert await outcome(distant, getattr(modules[kind], name)) == expected[name]


class TestClusters(RemotePromises):
    """All that has to hold anywhere."""


async def test_when_a_node_is_killed_what_had_begun_is_lost_and_told(place, store):
    """One attempt of each such task; the run goes on elsewhere, and nothing is left there."""
    async with Engine(store=store, executor=place.executor(workers=2)) as engine:
        await lose_a_node(engine, place.host_of)
    place.add_worker()  # for the next tests


async def test_a_node_is_killed_while_tasks_travel_together(place, store, tmp_path):
    """Nothing is lost but what had begun."""
    async with Engine(store=store, executor=place.executor(workers=2)) as engine:
        await lose_a_node_within_packets(engine, place.host_of, tmp_path)
    place.add_worker()


DRIVER = """
    import asyncio, sys, time
    from asyncflow import Engine, FlowSpec, step
    from asyncflow.executors import Dask, Ray

    class Lasting(FlowSpec):
        @step
        def start(self):
            print("waiting", flush=True)
            time.sleep(300)
            self.next(self.end)

        @step
        def end(self):
            pass

    async def main(store, executor):
        async with Engine(store=store, executor=executor) as engine:
            handle = await engine.start(Lasting)
            async for event in handle.events():
                if getattr(event, "line", "") == "waiting":
                    print(event.pid, flush=True)

    if __name__ == "__main__":
        asyncio.run(main(sys.argv[1], globals()[sys.argv[2]](sys.argv[3], workers=1)))
"""


def test_nothing_runs_on_without_its_driver(place, store, tmp_path):
    """Ten seconds after a driver was killed, its workers end, and the slot is free again."""
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    driver = subprocess.Popen(
        [sys.executable, "driver.py", store, place.kind.__name__, place.address],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    left = place.host_of(worker.pid).children(recursive=True)
    assert worker in left
    driver.kill()
    driver.communicate(timeout=SECONDS)
    assert not still_running(left, 12)


async def test_the_code_of_a_flow_reaches_nodes_that_do_not_have_its_file(
    place, store, tmp_path, monkeypatch
):
    """The folder is gone before a worker is there."""
    monkeypatch.delitem(sys.modules, "gone_helper", raising=False)  # that of another cluster's test
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "gone_helper.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "gone_flow.py").write_text(textwrap.dedent(GONE))
    flow = load_file(folder / "gone_flow.py").Gone
    async with Engine(store=store, executor=place.executor(workers=1)) as engine:
        handle = await engine.start(flow)
        folder.rename(tmp_path / "moved")
        run = await handle
    assert (run.data.number, run.data.is_there) == (42, False)


GONE = """
    import os
    from pathlib import Path
    from asyncflow import FlowSpec, current, step
    import gone_helper

    class Gone(FlowSpec):
        @step
        def start(self):
            self.number = gone_helper.double(21)
            self.is_there = Path(__file__).parent.name == "project"
            self.next(self.end)

        @step
        def end(self):
            pass
"""


class Greedy(FlowSpec):
    """Asks for more than any node has."""

    @resources(gpu=7, cpu=1)
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_request_that_no_node_can_fulfil_fails_the_run_and_is_named(
    place, store, monkeypatch
):
    """Within half a minute; and other runs go on."""
    assert dask_cluster.LOOK_SECONDS * dask_cluster.MISSING_LOOKS <= 20
    assert ray.INFEASIBLE_SECONDS <= 20
    monkeypatch.setattr(dask_cluster, "LOOK_SECONDS", 0.4)
    monkeypatch.setattr(ray, "INFEASIBLE_SECONDS", 2.0)
    async with Engine(store=store, executor=place.executor()) as engine:
        began = time.monotonic()
        with pytest.raises(RunFailedError, match=place.refusal):
            await engine.run(Greedy)
        assert time.monotonic() - began < 20  # it is looked for during 2 s
        assert (await engine.run(Talking)).successful


async def test_leases_come_with_the_work_and_go_without_it(place, store, tmp_path):
    """From none to four, and to none again."""
    for _ in range(2):
        place.add_worker()
    async with Engine(store=store, executor=place.executor(idle_seconds=1)) as engine:
        leases = engine._dispatcher.executor
        assert leases.size == 0
        run = await engine.run(Meeting, folder=str(tmp_path))
        pids = {task.data.pid for task in run["work"]}
        assert len(pids) == 4
        await until(lambda: leases.size == 0)
        await until(lambda: not any(map(psutil.pid_exists, pids)))
        assert (await engine.run(Talking)).successful
