"""A Ray cluster with an autoscaler: nodes come with what waits, and go when they are idle."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.support.autoscaled_ray import ENVIRONMENT, AutoscaledRay

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,  # a cluster of its own, to which nodes come one by one
]
SECONDS = 240
DRIVER = """
    import asyncio, json, sys, tempfile, time
    import ray
    from asyncflow import Engine
    from asyncflow.errors import RunFailedError
    from asyncflow.executors import Ray
    from tests.cluster.test_executors import Greedy
    from tests.support.remote_flows import Meeting
    from tests.support.waiting import until

    def nodes():
        return sum(each["Alive"] for each in ray.nodes())

    async def grow(engine):
        counts = [nodes()]
        for _ in range(2):
            with tempfile.TemporaryDirectory() as folder:
                run = await engine.run(Meeting, folder=folder)
            assert len({task.data.pid for task in run["work"]}) == 4
            counts.append(nodes())
            await until(lambda: nodes() == 1)
            counts.append(nodes())
        return counts

    async def refuse(engine):
        began = time.monotonic()
        try:
            await engine.run(Greedy)
        except RunFailedError as error:
            return [str(error), time.monotonic() - began]

    async def main(address, store, work):
        executor = Ray(address, idle_seconds=1)
        async with Engine(store=store, executor=executor) as engine:
            print(json.dumps(await work(engine)))

    asyncio.run(main(sys.argv[1], sys.argv[2], globals()[sys.argv[3]]))
"""


@pytest.fixture(scope="module")
def cluster():
    """A cluster without nodes."""
    pytest.importorskip("ray", reason="Ray is not installed: it is in an extra of its own")
    made = AutoscaledRay(most=4)
    yield made
    made.close()


def answer(cluster, store, work):
    """What a driver says, which is a process of its own: each has one connection to Ray."""
    code = "\n".join(line[4:] for line in DRIVER.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code, cluster.address, store, work],
        stdout=subprocess.PIPE,
        text=True,
        timeout=SECONDS,
        env=os.environ | ENVIRONMENT,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_nodes_come_while_tasks_wait_and_go_when_they_are_idle(cluster, store):
    """From the head alone to four more, and back, twice."""
    assert answer(cluster, store, "grow") == [1, 5, 1, 5, 1]


def test_a_request_that_no_node_to_come_can_fulfil_fails_the_run_and_is_named(cluster, store):
    """Within half a minute, although nodes may be added."""
    error, seconds = answer(cluster, store, "refuse")
    assert "has 1 cpu, 7 gpu" in error
    assert "no autoscaler can add a larger one" in error
    assert seconds < 60  # it is looked for during 20 s; a busy machine adds some
