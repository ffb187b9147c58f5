"""What is special to a Dask cluster; `test_executors` has what it shares with Ray."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker

import psutil
import pytest

from asyncflow import Engine, FlowSpec, Parameter, events, resources, retry, step
from asyncflow.errors import ClusterError
from asyncflow.executors import Dask
from tests.support.dask_processes import DaskProcesses
from tests.support.remote_flows import Meeting, printed
from tests.support.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Dask, at the end of a cluster
]
SECONDS = 180


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A Dask cluster with two workers of one slot each."""
    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    processes.add_worker(name="one")
    processes.add_worker(name="two")
    yield processes
    processes.close()


@pytest.fixture
def own_cluster(tmp_path):
    """A Dask cluster without workers, of one test alone."""
    processes = DaskProcesses(tmp_path)
    yield processes
    processes.close()


@pytest.fixture(scope="module")
async def on_dask(cluster, tmp_path_factory):
    """An open engine with the cluster's two workers."""
    store = tmp_path_factory.mktemp("on-dask")
    async with Engine(store=store, executor=Dask(cluster.address)) as opened:
        yield opened


async def test_events_say_on_which_node_a_task_began(on_dask):
    """By the name of the Dask worker; on the engine's own machine they say nothing."""
    run = await on_dask.run(Spread)
    nodes = {event.node async for event in run.events() if isinstance(event, events.TaskStarted)}
    assert nodes == {"one", "two"}


class Spread(FlowSpec):
    """More than one worker has something to do."""

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        time.sleep(0.5)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_driver_that_stands_still_for_five_seconds_loses_nothing(own_cluster, store):
    """Its agents wait for ten."""
    own_cluster.add_worker(name="only")
    async with Engine(store=store, executor=Dask(own_cluster.address)) as engine:
        handle = await engine.start(Slow)
        await printed(handle, "begins")
        code = f"import os, signal, time; time.sleep(5); os.kill({os.getpid()}, signal.SIGCONT)"
        subprocess.Popen([sys.executable, "-c", code])
        os.kill(os.getpid(), signal.SIGSTOP)
        run = await handle
    assert [len(task.attempts()) for task in run["start"]] == [1]


class Slow(FlowSpec):
    """Takes some seconds."""

    @step
    def start(self):
        print("begins", flush=True)
        time.sleep(7)
        self.next(self.end)

    @step
    def end(self):
        pass


class Greedy(FlowSpec):
    """Needs a GPU."""

    count = Parameter("count", default=1)

    @resources(gpu=1, cpu=1)
    @step
    def start(self):
        self.node = os.environ.get("MARK")
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_runs_where_its_resources_are(own_cluster, store, monkeypatch):
    """And other steps anywhere."""
    own_cluster.add_worker(name="plain")
    own_cluster.add_worker("--resources", "GPU=1", name="gpu")
    async with Engine(store=store, executor=Dask(own_cluster.address)) as engine:
        run = await engine.run(Greedy)
    started = [event async for event in run.events() if isinstance(event, events.TaskStarted)]
    assert started[0].node == "gpu"


async def test_an_address_that_does_not_answer_is_told_before_the_first_task(store, monkeypatch):
    """In words."""
    monkeypatch.setattr("asyncflow.workers.cluster.dask_cluster._CONNECT_SECONDS", 1.0)
    with pytest.raises(ClusterError, match="does not answer"):
        async with Engine(store=store, executor=Dask("tcp://127.0.0.1:9")):
            pass


async def test_a_local_cluster_starts_and_ends_with_its_engine(store):
    """`Dask()` alone is enough to try it; the engine leaves no process."""
    resource_tracker.ensure_running()  # Dask's start needs it; it ends with this process
    before = set(psutil.Process().children(recursive=True))
    async with Engine(store=store, workers=2, executor=Dask()) as engine:
        assert (await engine.run(Spread)).successful
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=SECONDS)
    assert not alive


@pytest.mark.slow  # a lifetime has to be longer than the start of a busy machine's processes
async def test_a_dask_worker_whose_lifetime_is_over_is_no_more_than_a_lost_node(own_cluster, store):
    """As with jobs of a batch system: the run goes on with the next one."""
    own_cluster.add_worker("--lifetime", "12s", name="short")
    async with Engine(store=store, executor=Dask(own_cluster.address)) as engine:
        handle = await engine.start(Steady)
        await printed(handle, "begins")
        own_cluster.add_worker(name="next")
        run = await handle
    attempts = [attempt for task in run["work"] for attempt in task.attempts()]
    failed = [attempt for attempt in attempts if attempt.exception]
    assert len(attempts) - len(failed) == 8
    assert len(failed) <= 1
    nodes = {event.node async for event in run.events() if isinstance(event, events.TaskStarted)}
    assert nodes == {"short", "next"}


class Steady(FlowSpec):
    """Has work for one worker for some seconds."""

    @step
    def start(self):
        self.items = list(range(8))
        self.next(self.work, foreach="items")

    @retry(times=3, seconds=0)
    @step
    def work(self):
        print("begins", flush=True)
        time.sleep(2)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.slow  # Dask scales in steps of seconds
async def test_an_adaptive_cluster_grows_from_none_and_shrinks_to_none(store, tmp_path):
    """With what waits, as its scheduler counts it; and it runs the next flow just so."""
    resource_tracker.ensure_running()
    import dask
    import distributed

    durations = {"distributed.scheduler.default-task-durations": {"asyncflow-lease": "1h"}}
    with dask.config.set(durations):
        async with distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
            asynchronous=True,
        ) as cluster:
            cluster.adapt(minimum=0, maximum=4, interval="200ms", wait_count=2)
            executor = Dask(cluster.scheduler_address, idle_seconds=1)
            async with Engine(store=store, executor=executor) as engine:
                for number in range(2):
                    folder = tmp_path / str(number)
                    folder.mkdir()
                    run = await engine.run(Meeting, folder=str(folder))
                    assert len({task.data.pid for task in run["work"]}) == 4
                    await until(lambda: not cluster.workers)
                    assert "asyncflow-lease" in cluster.scheduler.task_prefixes  # as in the docs
