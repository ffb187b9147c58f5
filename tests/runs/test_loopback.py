"""Workers behind a socket: what has to hold wherever tasks run, if only the store is shared."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import psutil
import pytest

from asyncflow import Engine
from asyncflow.errors import PoolError
from asyncflow.testing import Loopback
from tests.support.pool_listener import Listener
from tests.support.remote_flows import SECONDS
from tests.support.remote_promises import lose_a_node, lose_a_node_within_packets
from tests.support.waiting import until


@pytest.fixture
async def engine(store):
    """An open engine with two workers behind a socket; it leaves no process."""
    async with Engine(store=store, executor=Loopback(workers=2)) as opened:
        yield opened
    assert not psutil.Process().children(recursive=True)


def agent():
    """The process that hosts the workers."""
    (process,) = psutil.Process().children()
    return process


async def test_when_the_agent_is_killed_what_had_begun_is_lost_and_told(engine):
    """One attempt of each such task; another agent takes the place of the first."""
    await lose_a_node(engine, lambda _: agent())


async def test_an_agent_is_killed_while_tasks_travel_together(engine, tmp_path):
    """Nothing is lost but what had begun."""
    await lose_a_node_within_packets(engine, lambda _: agent(), tmp_path)


DRIVER = """
    import asyncio, os, signal, sys
    from asyncflow import Engine
    from asyncflow.testing import Loopback
    from flow import Lasting

    async def main():
        async with Engine(executor=Loopback(workers=1)) as engine:
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


def test_an_agent_without_its_driver_ends_its_workers(store, tmp_path):
    """A driver that is killed leaves no process behind."""
    (tmp_path / "driver.py").write_text(textwrap.dedent(DRIVER))
    (tmp_path / "flow.py").write_text(textwrap.dedent(FLOW))
    driver = subprocess.Popen(
        [sys.executable, "driver.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    pid = int(driver.stdout.readline())
    left = psutil.Process(driver.pid).children(recursive=True)
    assert pid in {each.pid for each in left}
    driver.kill()
    driver.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(left, timeout=SECONDS)
    assert not alive


async def test_agents_that_never_say_a_word_break_the_executor(tmp_path, monkeypatch):
    """Three in a row are enough."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    listener = Listener()
    executor = Loopback()(listener, size=1, scratch=tmp_path)
    await executor.start()
    await until(lambda: listener.broken)
    assert "end before they have said anything" in str(listener.broken[0])
    with pytest.raises(PoolError, match="no lease of the loopback cluster is up"):
        executor.start_worker()
    await executor.close()


async def test_workers_are_lost_with_a_broken_agent_and_told_once(tmp_path):
    """Nothing that comes later is about them."""
    listener = Listener()
    executor = Loopback(workers=1)(listener, size=7, scratch=tmp_path)
    await executor.start()
    await until(lambda: executor.size == 1)
    worker = executor.start_worker()
    await until(lambda: worker.is_up)
    agent().kill()
    await until(lambda: listener.exits)
    assert listener.exits == [(worker, "was lost with its node loopback-1: its process has ended")]
    await until(lambda: executor.size == 1)
    again = executor.start_worker()
    await until(lambda: again.is_up)
    worker.take_back()
    await executor.close()
    assert [each for each, _ in listener.exits].count(worker) == 1
