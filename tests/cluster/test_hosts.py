"""Hosts that share no folder: the driver on one, nodes on two, the artifacts in an object store.

A link is cut, nodes are killed, and the driver is killed and its run resumed from a third host.
"""

from __future__ import annotations

import sys
import textwrap
import time
from contextlib import closing
from typing import Any

import pytest

from asyncflow import Flow, events
from asyncflow.errors import NotFoundError, StoreError
from asyncflow.values import Status
from tests.support.dask_processes import DaskProcesses
from tests.support.network_hosts import Network, why_not
from tests.support.s3_server import S3Server
from tests.support.waiting import still_running

REASON = why_not()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

FLOW = """
    import os
    import socket
    import time

    from asyncflow import FlowSpec, Parameter, current, retry, step
    from helper import double


    class Placed(FlowSpec):
        held = Parameter("held", default="")
        seconds = Parameter("seconds", default=1.5)

        @step
        def start(self):
            self.large = os.urandom(600_000)
            self.items = list(range(4))
            self.next(self.work, foreach="items")

        @retry(times=2, seconds=0)
        @step
        def work(self):
            self.host = socket.gethostname()
            self.size = double(len(self.large))
            is_held = self.held == self.host or (self.held == "all" and self.input > 0)
            if is_held and current.retry_count == 0 and current.origin_run_id is None:
                print("held", flush=True)
                time.sleep(300)
            self.part = bytes([self.input]) * 20_000
            time.sleep(self.seconds)  # so that both nodes have something to do
            self.next(self.join)

        @step
        def join(self, inputs):
            self.hosts = sorted({each.host for each in inputs})
            self.sizes = {each.size for each in inputs}
            self.parts = [len(each.part) for each in inputs]
            self.next(self.end)

        @step
        def end(self):
            pass
"""
FILES = {
    "flow.py": textwrap.dedent(FLOW),
    "helper.py": "def double(x):\n    return 2 * x\n",
}


class Cluster:
    """An S3 server on this machine, and hosts around it that another engine makes a cluster of."""

    engine = ""
    """Its name for `--executor`."""
    holder = ""
    """How the command line of a process that holds an agent can be told."""
    joined = ""
    """What a log says of each node that has joined."""
    address = ""
    """What a driver names."""
    seconds = 90.0
    """For what takes a few on an idle machine."""
    task_seconds = 1.5
    """How long one of four tasks lasts: on all nodes there is a worker before they have ended."""

    def __init__(self, network: Network, folder: Any, store: str) -> None:
        self._network, self._folder, self.store = network, folder, store
        self._logs = self._nodes = 0

    def _start(self, name, *command, files=None):
        host = self._network.add_host(name)
        self._logs += 1
        hidden = self._folder / "hidden"
        hidden.mkdir(exist_ok=True)
        host.start(
            *command,
            folder=hidden,
            log=self._folder / f"{self._logs}-{name}.log",
            files=files,
            variables={"ASYNCFLOW_CACHE": str(hidden / "cache")},
        )
        return host

    def add_node(self, name):
        """A host with room for one worker."""
        self._nodes += 1
        return self._start(name, *self.node_command(name))

    def drive(self, name, *options):
        """A host with a driver, once all nodes are there; only it has the file of the flow."""
        self._wait_for(self._nodes)
        command, *rest = options
        where = ("--executor", self.engine, "--address", self.address, "--store", self.store)
        program = (sys.executable, "-m", "asyncflow", command, "flow.py", *where, *rest)
        if command == "run":
            program += ("--seconds", str(self.task_seconds))
        return self._start(name, *self.driver_command(program), files=FILES)

    def _wait_for(self, nodes):
        until = time.monotonic() + self.seconds
        while self.said().count(self.joined) < nodes:
            assert time.monotonic() < until, self.said()
            time.sleep(0.1)

    def workers_on(self, host):
        """The processes that an agent has started on a host."""
        found = [each for each in host.processes() if self.holder in " ".join(each.cmdline())]
        return [child for each in found for child in each.children(recursive=True)]

    def said(self):
        """What everybody has said, for a test that fails."""
        return "\n".join(f"{p.name}: {p.read_text()}" for p in sorted(self._folder.glob("*.log")))

    def node_command(self, name: str) -> tuple[str, ...]:
        """What a node runs."""
        raise NotImplementedError

    def driver_command(self, program: tuple[str, ...]) -> tuple[str, ...]:
        """What a driver's host runs to have this program run there."""
        raise NotImplementedError

    def close(self):
        """End what is not on a host."""

    def run(self):
        """The flow's newest run."""
        with_runs = Flow("Placed", store=self.store)
        return with_runs.latest_run

    def seen(self, kind, count=1):
        """The first events of this kind of the newest run, once there are so many."""
        until = time.monotonic() + self.seconds
        found = []
        while time.monotonic() < until:
            try:
                found = [each for each in self.run().events() if isinstance(each, kind)]
            except (NotFoundError, StoreError, AttributeError):
                found = []
            if len(found) >= count:
                return found
            time.sleep(0.2)
        raise AssertionError(f"{len(found)} of {count} {kind.__name__}:\n{self.said()}")


class DaskHosts(Cluster):
    """The scheduler is on this machine."""

    engine, holder, joined = "dask", "dask_worker", "Register worker"

    def __init__(self, network: Network, folder: Any, store: str) -> None:
        super().__init__(network, folder, store)
        self._scheduler = DaskProcesses(folder, "--host", network.address)
        self.address = self._scheduler.address

    def node_command(self, name):
        """A Dask worker."""
        options = ("--no-nanny", "--no-dashboard", "--nthreads", "1", "--name", name)
        return (sys.executable, "-m", "distributed.cli.dask_worker", self.address, *options)

    def driver_command(self, program):
        """A driver needs nothing on its host."""
        return program

    def close(self):
        """End the scheduler."""
        self._scheduler.close()


class RayHosts(Cluster):
    """The head is on a host of its own, and each driver's host belongs to the cluster."""

    engine, holder, joined = "ray", "ray::AgentActor", "Ray runtime started"
    address = "auto"
    seconds, task_seconds = 240.0, 12.0

    def __init__(self, network: Network, folder: Any, store: str) -> None:
        super().__init__(network, folder, store)
        options = ("--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false")
        self._head = ""
        self._head = self._start("head", *self._ray(*options, "--block")).address
        self._nodes = 1
        self._wait_for(1)

    def _ray(self, *options):
        number = 11 + self._logs  # as the network counts its hosts
        address = f"{self._network.address.rpartition('.')[0]}.{number}"
        common = (f"--node-ip-address={address}", "--object-store-memory=100000000")
        to_head = (f"--address={self._head}:{PORT}",) if self._head else ()
        return (sys.executable, "-m", "ray.scripts.scripts", "start", *to_head, *common, *options)

    def node_command(self, name):
        """A part of the cluster with one CPU."""
        del name  # it goes by its host's
        return self._ray("--num-cpus=1", "--block")

    def driver_command(self, program):
        """A driver needs a part of the cluster on its host, which has no room for workers."""
        ray = " ".join(self._ray("--num-cpus=0"))
        return "sh", "-ec", f'{ray}; exec "$@"', "driver", *program


PORT = 6379


@pytest.fixture
def network():
    """A network of one test."""
    with Network() as made:
        yield made


BOTH = [DaskHosts, pytest.param(RayHosts, marks=pytest.mark.slow)]
"""Four parts of a Ray cluster take a minute of CPU to start."""


@pytest.fixture(params=[DaskHosts])
def cluster(request, network, tmp_path, monkeypatch):
    """A cluster without nodes."""
    if request.param is RayHosts:
        pytest.importorskip("ray", reason="Ray is not installed: it is in an extra of its own")
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with S3Server(network.address) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        store = f"s3://{server.create_bucket('hosts')}/flows"
        with closing(request.param(network, tmp_path, store)) as made:
            yield made


@pytest.mark.parametrize("cluster", BOTH, indirect=True)
def test_a_flow_runs_on_hosts_that_share_nothing(cluster):
    """Code and values travel; what a node needs, it reads from the object store."""
    for name in ("north", "south"):
        cluster.add_node(name)
    cluster.drive("driver", "run")
    cluster.seen(events.RunSucceeded)
    run = cluster.run()
    assert run.data.hosts == ["north", "south"]
    assert run.data.sizes == {1_200_000}
    assert run.data.parts == [20_000] * 4
    assert {event.node for event in cluster.seen(events.TaskStarted)} == {"north", "south"}


@pytest.mark.parametrize("cluster", BOTH, indirect=True)
def test_a_node_that_is_killed_costs_one_attempt_of_what_had_begun_there(cluster):
    """The rest of the run is done by the other one."""
    cluster.add_node("north")
    south = cluster.add_node("south")
    cluster.drive("driver", "run", "--held", "south")
    cluster.seen(events.TaskLogged)
    south.kill()
    cluster.seen(events.RunSucceeded)
    run = cluster.run()
    assert run.data.hosts == ["north"]
    (failed,) = cluster.seen(events.TaskFailed)
    assert "was lost with its node south" in failed.message


@pytest.mark.parametrize("cluster", BOTH, indirect=True)
@pytest.mark.slow  # a lost node is told after 15 s
def test_a_node_behind_a_cut_link_is_told_and_ends_its_workers(cluster):
    """Told within 15 s; after 10 s its agent has ended what ran there."""
    cluster.add_node("north")
    south = cluster.add_node("south")
    cluster.drive("driver", "run", "--held", "south")
    cluster.seen(events.TaskLogged)
    left = cluster.workers_on(south)
    assert left
    cut, began = time.time(), time.monotonic()
    south.cut()
    assert not still_running(left, 14)
    assert time.monotonic() - began > 9
    (failed,) = cluster.seen(events.TaskFailed)
    assert "was lost with its node south: it has not answered for 1" in failed.message
    assert failed.time.timestamp() - cut < 18  # 15 s, and what a busy machine adds
    cluster.seen(events.RunSucceeded)
    assert cluster.run().data.hosts == ["north"]


@pytest.mark.parametrize("cluster", BOTH, indirect=True)
@pytest.mark.slow  # a run counts as interrupted when its driver was silent for 30 s
def test_a_run_whose_driver_is_killed_is_resumed_from_a_third_host(cluster):
    """Nothing runs on without its driver; what was announced is not run again."""
    nodes = [cluster.add_node(name) for name in ("north", "south")]
    driver = cluster.drive("driver", "run", "--held", "all")
    cluster.seen(events.TaskSucceeded, 2)  # start, and the item that nobody holds
    left = [process for node in nodes for process in cluster.workers_on(node)]
    assert left
    driver.kill()
    assert not still_running(left, 14)
    origin = cluster.run()
    done = [event for event in origin.events() if isinstance(event, events.TaskSucceeded)]
    until = time.monotonic() + 60
    while cluster.run().status is not Status.INTERRUPTED:
        assert time.monotonic() < until
        time.sleep(0.5)
    cluster.drive("third", "resume")
    cluster.seen(events.RunSucceeded)
    run = cluster.run()
    assert run.pathspec != origin.pathspec
    assert len(cluster.seen(events.TaskCloned)) == len(done)
    assert run.data.parts == [20_000] * 4
