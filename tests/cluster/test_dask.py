"""Flows on a Dask cluster: the same language, and nothing lost but what must be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from asyncflow import Engine, FlowSpec, Parameter, current, events, resources, retry, step
from asyncflow.errors import ClusterError, RunCancelledError, RunFailedError
from asyncflow.executors import Dask
from tests.support.conformance import FLOWS, KINDS, load_kinds, outcome
from tests.support.waiting import until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.xdist_group("dask"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of Dask, at the end of a cluster
]
SECONDS = 180


class DaskProcesses:
    """A scheduler and workers in processes of their own, as on the command line."""

    def __init__(self, folder):
        self.folder, self.workers = folder, []
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--port", "0", "--scheduler-file", str(file))
        while not file.exists() or not file.read_text().endswith("}"):
            time.sleep(0.05)
        self.file = file
        import json

        self.address = json.loads(file.read_text())["address"]

    def _start(self, what, *options):
        log = (self.folder / f"{what}-{time.monotonic_ns()}.log").open("wb")
        with log:
            command = [sys.executable, "-m", "distributed.cli.dask_" + what]
            return subprocess.Popen(
                [*command, "--no-dashboard", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def add_worker(self, *options, name):
        """Start one more Dask worker, without a nanny."""
        process = self._start(
            "worker", self.address, "--no-nanny", "--nthreads", "1", "--name", name, *options
        )
        self.workers.append(process)
        return process

    def close(self):
        """End all."""
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()


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
def modules(tmp_path_factory):
    """The family of flows with each kind of steps."""
    return load_kinds(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
async def expected(engine, modules):
    """What each flow comes to on this machine, with `def` steps."""
    return {name: await outcome(engine, getattr(modules["def"], name)) for name in FLOWS}


@pytest.fixture(scope="module")
async def on_dask(cluster, tmp_path_factory):
    """An open engine with the cluster's two workers."""
    store = tmp_path_factory.mktemp("on-dask")
    async with Engine(store=store, executor=Dask(cluster.address)) as opened:
        yield opened


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_comes_to_the_same_on_dask(on_dask, modules, expected, name, kind):
    """Status, failure, tasks, attempts, artifacts and output."""
    assert await outcome(on_dask, getattr(modules[kind], name)) == expected[name]


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


class Waiting(FlowSpec):
    """Its first attempts wait for somebody to end them."""

    @step
    def start(self):
        self.items = list(range(6))
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        if self.input == 0 and current.retry_count == 0:
            print("waiting", flush=True)
            time.sleep(SECONDS)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def printed(handle, text):
    """A task of the run has printed this; the event that tells of it."""
    async for event in handle.events():
        if isinstance(event, events.TaskLogged) and event.line == text:
            return event
    raise AssertionError("the run is over")


async def test_a_dask_worker_that_is_killed_costs_one_attempt_of_what_had_begun_there(
    own_cluster, store
):
    """Told at once, and by the node's name; another worker takes the rest."""
    own_cluster.add_worker(name="first")
    async with Engine(store=store, executor=Dask(own_cluster.address)) as engine:
        handle = await engine.start(Waiting)
        await printed(handle, "waiting")
        left = psutil.Process(own_cluster.workers[0].pid).children(recursive=True)
        own_cluster.add_worker(name="second")
        own_cluster.workers[0].kill()
        began = time.monotonic()
        run = await handle
    lost = [each for task in run["work"] for each in task.attempts() if each.exception]
    assert len(lost) == 1
    assert "was lost with its node first" in lost[0].exception.message
    assert lost[0].stdout == "waiting\n"
    told = [event async for event in run.events() if isinstance(event, events.TaskFailed)]
    assert len(told) == 1
    assert time.monotonic() - began < SECONDS
    await until(lambda: not any(each.is_running() for each in left))


async def test_a_cancelled_run_ends_its_tasks_on_dask(on_dask):
    """And the next run finds the workers free."""
    handle = await on_dask.start(Waiting)
    await printed(handle, "waiting")
    handle.cancel("enough")
    with pytest.raises(RunCancelledError):
        await handle
    assert (await on_dask.run(Spread)).successful


DRIVER = """
    import asyncio, sys
    from asyncflow import Engine
    from asyncflow.executors import Dask
    from flow import Lasting

    async def main():
        async with Engine(executor=Dask(sys.argv[1])) as engine:
            handle = await engine.start(Lasting)
            async for event in handle.events():
                if getattr(event, "line", "") == "waiting":
                    print(event.pid, flush=True)

    if __name__ == "__main__":
        asyncio.run(main())
"""

FLOW = """
    import time
    from asyncflow import FlowSpec, step

    class Lasting(FlowSpec):
        @step
        def start(self):
            print("waiting", flush=True)
            time.sleep(300)
            self.next(self.end)

        @step
        def end(self):
            pass
"""


def test_nothing_runs_on_dask_twelve_seconds_after_its_driver_was_killed(
    own_cluster, store, tmp_path
):
    """No worker, no fork server; and the Dask worker's slot is free again."""
    own_cluster.add_worker(name="only")
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    (tmp_path / "flow.py").write_text(textwrap.dedent(FLOW))
    driver = subprocess.Popen(
        [sys.executable, "driver.py", own_cluster.address],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "ASYNCFLOW_STORE": str(store)},
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    left = psutil.Process(own_cluster.workers[0].pid).children(recursive=True)
    assert pid in {each.pid for each in left}
    driver.kill()
    driver.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(left, timeout=12)
    assert not alive


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


async def test_a_request_that_no_node_can_fulfil_fails_the_run_and_is_named(own_cluster, store):
    """Within half a minute."""
    own_cluster.add_worker(name="plain")
    async with Engine(store=store, executor=Dask(own_cluster.address)) as engine:
        began = time.monotonic()
        with pytest.raises(RunFailedError, match=r"has 1 cpu, 1 gpu.*--resources 'GPU=1'"):
            await engine.run(Greedy)
        assert time.monotonic() - began < 40
        assert (await engine.run(Spread)).successful


async def test_leases_come_with_the_work_and_go_without_it(own_cluster, store):
    """From none to four, and to none again."""
    executor = Dask(own_cluster.address, idle_seconds=1)
    async with Engine(store=store, executor=executor) as engine:
        leases = engine._dispatcher.executor
        assert leases.size == 0
        for name in "abcd":
            own_cluster.add_worker(name=name)
        run = await engine.run(Long)
        assert len({task.data.pid for task in run["work"]}) >= 4
        await until(lambda: leases.size == 0)
        await until(lambda: not psutil.Process(own_cluster.workers[0].pid).children())
        assert (await engine.run(Spread)).successful


class Long(FlowSpec):
    """Has work for four workers for some seconds."""

    @step
    def start(self):
        self.items = list(range(16))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.pid = os.getpid()
        time.sleep(1.5)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_address_that_does_not_answer_is_told_before_the_first_task(store):
    """In words."""
    with pytest.raises(ClusterError, match="does not answer"):
        async with Engine(store=store, executor=Dask("tcp://127.0.0.1:9")):
            pass


async def test_a_local_cluster_starts_and_ends_with_its_engine(store):
    """`Dask()` alone is enough to try it; the engine leaves no process."""
    before = set(psutil.Process().children(recursive=True))
    async with Engine(store=store, workers=2, executor=Dask()) as engine:
        assert (await engine.run(Spread)).successful
    left = set(psutil.Process().children(recursive=True)) - before
    _, alive = psutil.wait_procs(left, timeout=SECONDS)
    assert [each for each in alive if "resource_tracker" not in " ".join(each.cmdline())] == []


async def test_a_failed_step_fails_its_run_as_anywhere(on_dask):
    """With the error of the step."""
    with pytest.raises(RunFailedError, match="no luck"):
        await on_dask.run(Unlucky)


class Unlucky(FlowSpec):
    """Fails."""

    @step
    def start(self):
        int("no luck")
        self.next(self.end)

    @step
    def end(self):
        pass
