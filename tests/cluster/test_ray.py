"""Flows on a Ray cluster: the same language, and nothing lost but what must be."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from asyncflow import Engine, FlowSpec, Parameter, resources, step
from asyncflow.errors import ClusterError, RunCancelledError, RunFailedError
from asyncflow.executors import Ray
from asyncflow.flow.loader import load_file
from tests.support.conformance import FLOWS, KINDS, load_kinds, outcome
from tests.support.remote_flows import SECONDS, Hindered, Sleeping, Talking, Waiting, printed
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
async def on_ray(ray_here, tmp_path_factory):
    """An open engine with two workers there."""
    store = tmp_path_factory.mktemp("distant")
    async with Engine(store=store, executor=Ray("auto", workers=2)) as opened:
        yield opened


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The family of flows with each kind of steps, each in a file of its own."""
    return load_kinds(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
async def expected(modules, tmp_path_factory):
    """What each flow comes to with `def` steps in worker processes of this machine."""
    async with Engine(store=tmp_path_factory.mktemp("near"), workers=2) as near:
        return {name: await outcome(near, getattr(modules["def"], name)) for name in FLOWS}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_comes_to_the_same_wherever_its_tasks_run(
    on_ray, modules, expected, name, kind
):
    """Status, failure, tasks, attempts, artifacts and output are those of this machine."""
    assert await outcome(on_ray, getattr(modules[kind], name)) == expected[name]


async def test_all_that_tasks_print_comes_from_the_node(on_ray):
    """In order, and before the end of the task."""
    run = await on_ray.run(Talking, lines=20_000)
    expected = "".join(f"line {number}\n" for number in range(20_000)) + "half a line"
    assert run["start"].task.stdout == expected
    assert run["start"].task.stderr == "raw\n"
    assert (run["talk"].task.stdout, run["talk"].task.stderr) == ("begins\n", "ends\n")


async def test_a_cancelled_run_ends_its_tasks_on_the_node(on_ray):
    """A `def` task and an async one."""
    handle = await on_ray.start(Sleeping)
    await printed(handle, "still")
    await printed(handle, "turning")
    began = time.monotonic()
    handle.cancel("enough")
    with pytest.raises(RunCancelledError) as caught:
        await handle
    assert time.monotonic() - began < SECONDS / 2
    for name in ("still", "turning"):
        failure = caught.value.run[name].task.exception
        assert (failure.type.rsplit(".", 1)[-1], failure.message) == (
            "TaskCancelledError",
            "enough",
        )


async def test_slow_attempts_and_killed_workers_cost_one_attempt_each(on_ray):
    """And `@catch` handles what is too slow for good."""
    run = await on_ray.run(Hindered)
    first = [task.attempts()[0] for task in run["work"]]
    told = [(each.stdout, each.exception and each.exception.type) for each in first]
    assert sorted(told, key=repr) == [
        ("attempt 0\n", "asyncflow.errors.TaskTimeoutError"),
        ("attempt 0\n", "asyncflow.errors.WorkerDiedError"),
        ("attempt 0\n", None),
    ]
    assert run["end"].task["late_by"].data.endswith("TaskTimeoutError")


def host_of(pid):
    """The process of the engine that holds the agent of this worker."""
    return next(each for each in psutil.Process(pid).parents() if is_host(each))


def is_host(process):
    """Whether it is an actor of Ray."""
    return process.cmdline()[0].startswith("ray::")


async def test_when_a_node_is_killed_what_had_begun_is_lost_and_told(ray_here, store):
    """One attempt of each such task; the run goes on elsewhere, and nothing is left there."""
    async with Engine(store=store, executor=Ray("auto", workers=2)) as engine:
        handle = await engine.start(Waiting)
        host = host_of((await printed(handle, "waiting")).pid)
        left = host.children(recursive=True)
        assert left
        host.kill()
        run = await handle
    lost = [each for task in run["work"] for each in task.attempts() if each.exception]
    assert {each.exception.type for each in lost} == {"asyncflow.errors.WorkerDiedError"}
    assert all("was lost with its node" in each.exception.message for each in lost)
    assert [each.stdout for each in lost if each.stdout] == ["waiting\n"]
    _, alive = psutil.wait_procs(left, timeout=SECONDS)
    assert not alive


PROGRAM = """
    import asyncio, sys, time
    from asyncflow import Engine, FlowSpec, step
    from asyncflow.executors import Ray

    class Lasting(FlowSpec):
        @step
        def start(self):
            self.next(self.stay)

        @step
        def stay(self):
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
        asyncio.run(main(sys.argv[1], Ray(sys.argv[2], workers=1)))
"""


def test_nothing_runs_on_without_its_driver(ray_here, store, tmp_path):
    """A driver that is killed: the engine's process and its workers end, and the run resumes."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    address = ray_here.get_runtime_context().gcs_address
    driver = subprocess.Popen(
        [sys.executable, "program.py", store, address],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    host = host_of(worker.pid)
    left = [host, *host.children(recursive=True)]
    assert worker in left
    driver.kill()
    driver.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(left, timeout=20)
    assert not alive


async def test_the_code_of_a_flow_reaches_nodes_that_do_not_have_its_file(
    ray_here, store, tmp_path
):
    """The folder is gone before a worker is there."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "gone_helper.py").write_text("def double(x):\n    return 2 * x\n")
    (folder / "gone_flow.py").write_text(textwrap.dedent(GONE))
    flow = load_file(folder / "gone_flow.py").Gone
    executor = Ray("auto", workers=1)
    async with Engine(store=store, executor=executor) as engine:
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


class Greedy(FlowSpec):
    """Asks for more than any node has."""

    @resources(gpu=7)
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_request_that_no_node_can_fulfil_fails_the_run_and_is_named(ray_here, store):
    """Within half a minute."""
    async with Engine(store=store, executor=Ray("auto")) as engine:
        began = time.monotonic()
        with pytest.raises(RunFailedError, match=r"has 1 cpu, 7 gpu.*at most 8 CPU, 2 GPU"):
            await engine.run(Greedy)
        assert time.monotonic() - began < 40


async def test_leases_come_with_the_work_and_go_without_it(ray_here, store, tmp_path):
    """From none to four, and to none again."""
    async with Engine(store=store, executor=Ray("auto", idle_seconds=1)) as engine:
        leases = engine._dispatcher.executor
        assert leases.size == 0
        run = await engine.run(Meeting, folder=str(tmp_path))
        assert len({task.data.pid for task in run["work"]}) == 4
        await until(lambda: leases.size == 0)


class Meeting(FlowSpec):
    """Four tasks that wait for each other."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.pid = os.getpid()
        folder = Path(self.folder)
        (folder / f"here-{self.input}").touch()
        while len(list(folder.glob("here-*"))) < 4:
            time.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_another_address_than_that_of_the_program_is_refused(ray_here, store):
    """A process has one connection to Ray."""
    with pytest.raises(ClusterError, match="this program is connected to Ray at"):
        async with Engine(store=store, executor=Ray("127.0.0.1:9")):
            pass
