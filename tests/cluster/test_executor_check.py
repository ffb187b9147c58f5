"""What is wrong with a cluster or its store is told in words: by the check, and by a run."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import textwrap
import threading
import time
import uuid

import pytest

from asyncflow import Engine, FlowSpec, events, step
from asyncflow.errors import ClusterError, RunFailedError
from asyncflow.executors import Dask, Ray
from asyncflow.store import open_store
from asyncflow.workers.cluster import store_reach
from asyncflow.workers.cluster.dask_cluster import DaskCluster
from tests.cluster.object_proxy import Fault
from tests.support.command_line import asyncflow, here
from tests.support.dask_processes import DaskProcesses

pytestmark = pytest.mark.cluster


class Once(FlowSpec):
    """Has one task."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    """A Dask cluster; each test adds the worker that it needs, and ends it."""
    processes = DaskProcesses(tmp_path_factory.mktemp("dask"))
    yield processes
    processes.close()


@pytest.fixture
def add_worker(scheduler, tmp_path):
    """Adds a Dask worker in which some code is run first, until the end of the test."""
    added = []

    def add(code="", *options):
        preload = tmp_path / "preload.py"
        preload.write_text(textwrap.dedent(code))
        more = ("--preload", str(preload), *options)
        added.append(scheduler.add_worker(*more, name=uuid.uuid4().hex[:8]))

    yield add
    for process in added:
        process.kill()
        process.wait()


def check(scheduler, *options):
    """What `executor check` says of the cluster."""
    return here("executor", "check", "--executor", "dask", "--address", scheduler.address, *options)


def failure_before_the_first_task(store, executor):
    """What a run says that cannot begin."""
    with pytest.raises(RunFailedError) as caught:
        asyncio.run(run_once(store, executor))
    seen = list(caught.value.run.events())
    assert not [event for event in seen if isinstance(event, events.TaskStarted)]
    return str(caught.value)


async def run_once(store, executor):
    """Run a flow of one task."""
    async with Engine(store=store, executor=executor) as engine:
        await engine.run(Once)


def test_a_good_cluster_is_told_with_its_versions(scheduler, add_worker, store):
    """And that the store can be used from there."""
    add_worker()
    said = check(scheduler)
    assert said.status == 0, said
    assert f"ready, with Python {sys.version.split()[0]}, asyncflow " in said.stdout
    assert f"The store {store} can be used from here and from there." in said.stdout


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_an_extra_that_is_not_installed_is_told_with_the_command(store, monkeypatch, name, module):
    """The same when a flow is run."""
    monkeypatch.setitem(sys.modules, module, None)
    expected = f"install it with pip install 'asyncflow-engine[{name}]'"
    said = here("executor", "check", "--executor", name)
    assert said.status == 1
    assert expected in said.stderr
    with pytest.raises(ClusterError) as caught:
        asyncio.run(run_once(store, {"dask": Dask, "ray": Ray}[name]()))
    assert expected in str(caught.value)


@pytest.mark.parametrize(("name", "address"), [("dask", "tcp://{}"), ("ray", "{}")])
def test_an_address_that_does_not_answer_is_told(store, monkeypatch, name, address):
    """The same when a flow is run."""
    monkeypatch.setattr("asyncflow.workers.cluster.dask_cluster._CONNECT_SECONDS", 1.0)
    there = address.format("127.0.0.1:9")
    said = here("executor", "check", "--executor", name, "--address", there)
    assert said.status == 1
    assert f"{name.capitalize()} at {there} does not answer" in said.stderr
    with pytest.raises(ClusterError, match="does not answer"):
        asyncio.run(run_once(store, {"dask": Dask, "ray": Ray}[name](there)))


async def test_a_scheduler_with_tls_whose_address_does_not_say_so():
    """Dask's settings say so: it greets nobody who does not begin with TLS."""
    import dask
    import distributed

    keys = distributed.security.Security.temporary()
    settings = {
        "distributed.comm.default-scheme": "tls",
        "distributed.comm.tls.ca-file": keys.tls_ca_file,
        "distributed.comm.tls.client.cert": keys.tls_client_cert,
        "distributed.comm.tls.client.key": keys.tls_client_key,
    }
    where = {"protocol": "tls", "host": "127.0.0.1", "port": 0, "dashboard_address": ":0"}
    async with distributed.Scheduler(**where, security=keys) as scheduler:
        with dask.config.set(settings):
            cluster = DaskCluster(scheduler.address.removeprefix("tls://"))
            try:
                await cluster.open()
                assert any("asyncflow" in client for client in scheduler.clients)
            finally:
                await cluster.close()


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_an_address_whose_port_is_no_number_is_told(name):
    """Though it is a digit, in a way: the cluster's own client says what it is not."""
    said = asyncflow("executor", "check", "--executor", name, "--address", "127.0.0.1:\u00b2")
    assert said.status == 1
    assert f"{name.capitalize()} at 127.0.0.1:\u00b2 " in said.stderr


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("asyncflow.workers.cluster.agent.VERSION = '9.9.0'", "and asyncflow 9.9.0, and this"),
        ("platform.python_version = lambda: '3.99.1'", "has Python 3.99.1 and asyncflow"),
    ],
    ids=["asyncflow", "python"],
)
def test_a_node_with_other_versions_is_refused(scheduler, add_worker, store, version, message):
    """With both versions, and what to install."""
    add_worker(f"import platform\nimport asyncflow.workers.cluster.agent\n{version}\n")
    said = check(scheduler)
    assert said.status == 1
    assert message in said.stderr
    assert "install the same minor version of Python and the same asyncflow" in said.stderr
    told = failure_before_the_first_task(store, Dask(scheduler.address))
    assert message in told


NOWHERE = """
    import os
    import asyncflow.store.object_store.object_store as object_store

    os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    object_store._OPENING_SECONDS = 0.3
"""


def test_a_store_that_a_node_does_not_reach_is_told_from_there(
    scheduler, add_worker, bucket, tmp_path
):
    """This machine reaches it; the node, which has another endpoint, does not."""
    url = f"s3://{bucket}/flows"
    add_worker(NOWHERE)
    said = check(scheduler, "--store", url)
    assert said.status == 1
    assert "cannot use the store" in said.stderr
    assert "127.0.0.1:9" in said.stderr
    told = failure_before_the_first_task(url, Dask(scheduler.address))
    assert "cannot use the store" in told


def test_a_node_that_joins_and_does_not_reach_the_store_is_left_out(scheduler, add_worker, bucket):
    """The run goes on with those that do."""
    add_worker()
    run = asyncio.run(run_twice(f"s3://{bucket}/flows", scheduler, lambda: add_worker(NOWHERE)))
    nodes = {event.node for event in run.events() if isinstance(event, events.TaskStarted)}
    assert len(nodes) == 1


async def run_twice(store, scheduler, between):
    """Run a flow, then a wide one."""
    async with Engine(store=store, executor=Dask(scheduler.address)) as engine:
        await engine.run(Once)
        between()
        import distributed

        async with distributed.Client(scheduler.address, asynchronous=True) as client:
            await client.wait_for_workers(2)
        return await engine.run(Wide)


class Wide(FlowSpec):
    """Has work for two workers."""

    @step
    def start(self):
        self.items = [1, 2, 3, 4]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        time.sleep(1)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def test_a_folder_that_is_another_one_on_a_node_is_told(store, tmp_path, monkeypatch):
    """Also if a store is there, but not the same."""
    monkeypatch.setattr(store_reach, "_APPEARING_SECONDS", 0.0)
    open_store(store, create=True)
    mark = store_reach.mark_of(str(store))
    assert store_reach.why_unreachable(str(store), mark) == ""
    for why in (
        store_reach.why_unreachable(str(store), mark - 1),
        store_reach.why_unreachable(str(tmp_path / "elsewhere"), mark),
    ):
        assert "does not have the folder" in why
        assert "share the folder with all nodes" in why


def test_credentials_that_the_store_refuses_are_told(s3_proxy, bucket):
    """At once, and not after a minute of tries."""
    s3_proxy.set(Fault("403", times=10**6))
    said = here("executor", "check", "--executor", "dask", "--store", f"s3://{bucket}/flows")
    assert said.status == 1
    assert "lacked the necessary privileges" in said.stderr
    assert "check the credentials and what they may do" in said.stderr


@pytest.mark.parametrize("header", ["if-none-match", "if-match"])
def test_a_store_that_ignores_conditions_is_told(s3_proxy, bucket, header):
    """Also if the store was made before, when the server heeded them."""
    url = f"s3://{bucket}/flows"
    open_store(url, create=True)
    s3_proxy.set(without=[header])
    said = here("executor", "check", "--executor", "dask", "--store", url)
    assert said.status == 1
    assert "two programs could write the same run" in said.stderr


def test_a_request_that_no_node_can_fulfil_is_told(scheduler, add_worker, store, monkeypatch):
    """And how a worker would be started that can; `test_executors` has the same for runs."""
    monkeypatch.setattr("asyncflow.workers.cluster.dask_cluster.LOOK_SECONDS", 0.3)
    add_worker()
    said = check(scheduler, "--gpu", "2", "--cpu", "4")
    assert said.status == 1
    assert "has 4 cpu, 2 gpu, which @resources asks for" in said.stderr
    assert "--resources 'CPU=4 GPU=2'" in said.stderr


def test_a_cluster_without_room_is_told(scheduler, store, monkeypatch):
    """After a minute."""
    monkeypatch.setattr("asyncflow.cli.executor_commands._PATIENT_SECONDS", 0.5)
    said = check(scheduler)
    assert said.status == 1
    assert "has given no room within 0.5 s" in said.stderr


def test_room_that_comes_late_is_waited_for(scheduler, store, monkeypatch):
    """A request is withdrawn that nobody needs any more; the check does need it."""
    monkeypatch.setattr("asyncflow.workers.cluster.leases._UNWISHED_LOOKS", 1)
    command = [sys.executable, "-c", LATE_WORKER.format(seconds=3, address=scheduler.address)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as late:
        try:
            said = check(scheduler)
        finally:
            late.kill()
    assert said.status == 0, said.stderr


LATE_WORKER = """
import sys, time
time.sleep({seconds})
sys.argv = ["worker", "{address}", "--no-nanny", "--nthreads", "1", "--no-dashboard"]
from distributed.cli.dask_worker import main
main()
"""


@pytest.fixture
def closing_port():
    """The port of a server that accepts connections, and ends them."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("name", "address", "what"),
    [("ray", "{}", "the head of the cluster"), ("dask", "tcp://{}", "the scheduler")],
)
def test_a_server_that_is_no_cluster_is_told(store, closing_port, name, address, what):
    """At once, without the warnings of the cluster's own client."""
    there = address.format(f"127.0.0.1:{closing_port}")
    said = asyncflow("executor", "check", "--executor", name, "--address", there)
    assert said.status == 1
    title = name.capitalize()
    assert said.stderr.startswith(f"Error: {title} at {there} is not {what}"), said.stderr
    assert said.stderr.count("\n") == 1
