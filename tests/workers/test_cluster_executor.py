"""The executor for clusters with nodes and clients that do not answer."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import suppress

import pytest

from asyncflow.testing.loopback import LoopbackCluster, SocketLink
from asyncflow.workers.cluster import executor as cluster_executor
from asyncflow.workers.cluster.executor import ClusterExecutor
from tests.support.loopback_agents import loopback_agents
from tests.support.pool_listener import Listener
from tests.support.waiting import until

SECONDS = 120  # without a limit of its own, closing would wait for ever


@pytest.fixture
def hurried(monkeypatch):
    """Its time limits are short: none of them is reached while all answer."""
    for name, seconds in [("_CLOSE", 1.0), ("_LEAVE", 30.0), ("_END", 1.0)]:
        monkeypatch.setattr(cluster_executor, f"{name}_SECONDS", seconds)


async def opened(cluster, nodes=1):
    """An executor with that many workers' room on as many nodes, all of them up."""
    executor = ClusterExecutor(cluster, Listener(), workers=nodes)
    await executor.start()
    await until(lambda: executor.size == nodes)
    return executor


async def closed(executor):
    """Close it, and return what it had said on its way."""
    async with asyncio.timeout(SECONDS):
        await executor.close()


def warnings(caplog):
    """What was logged, as one text."""
    return " ".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("posts", [False, True])
async def test_workers_are_heard_while_their_node_answers(posts):
    """It is asked for news all the time, also while it is sent nothing."""
    executor = await opened(LoopbackCluster())
    worker = executor.start_worker()
    await until(lambda: worker.is_up)
    assert worker.is_heard
    (agent,) = loopback_agents()
    agent.send_signal(signal.SIGSTOP)
    if posts:
        worker.take_back()
    await until(lambda: not worker.is_heard)
    agent.send_signal(signal.SIGCONT)
    await until(lambda: worker.is_heard)
    await closed(executor)


class Counting(LoopbackCluster):
    """Counts how many leases are given back at a time."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0

    async def release(self, link):
        """As it does, counted."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await super().release(link)
        finally:
            self.now -= 1


async def test_nodes_that_never_answer_are_given_back_together(hurried, monkeypatch):
    """And not one after the other, each with a wait of its own."""
    monkeypatch.setattr("asyncflow.testing.loopback._END_SECONDS", 1.0)
    cluster = Counting()
    executor = await opened(cluster, nodes=3)
    agents = loopback_agents()
    for agent in agents:
        agent.send_signal(signal.SIGSTOP)
    await closed(executor)
    assert (len(agents), cluster.most, cluster.now) == (3, 3, 0)
    assert not loopback_agents()


class Endless(LoopbackCluster):
    """Its client does not come to an end."""

    async def close(self):
        """Wait for what never comes."""
        await super().close()
        await asyncio.get_running_loop().create_future()


async def test_a_client_that_does_not_end_is_waited_for_no_longer(hurried, monkeypatch):
    """It is cancelled, and the thread ends."""
    monkeypatch.setattr(cluster_executor, "_LEAVE_SECONDS", 3.0)
    executor = await opened(Endless())
    await closed(executor)
    assert executor._thread.has_ended


class DeafLink(SocketLink):
    """Its requests cannot be cancelled, and from some time on are not answered."""

    async def poll(self, received):
        """Ask until there is an answer, as a client that catches too much may do."""
        asked = asyncio.ensure_future(super().poll(received))
        while not asked.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([asked])
        return asked.result()


class Deaf(LoopbackCluster):
    """Its links are such."""

    async def lease(self, shape, slots):
        """A lease as it is, with another link."""
        link = await super().lease(shape, slots)
        link.__class__ = DeafLink
        return link

    async def close(self):
        """Leave them, and their requests, as they are."""


async def test_a_request_that_cannot_be_cancelled_does_not_keep_an_engine_open(
    hurried, monkeypatch, caplog
):
    """The thread in which it waits is left to itself, and a warning says so."""
    monkeypatch.setattr(cluster_executor, "_RELEASE_SECONDS", 1.0)
    executor = await opened(Deaf())
    (agent,) = loopback_agents()
    agent.send_signal(signal.SIGSTOP)
    await closed(executor)
    assert not executor._thread.has_ended
    assert "its thread is left to itself" in warnings(caplog)
    agent.kill()
    await until(lambda: executor._thread.has_ended)


class Blocking(LoopbackCluster):
    """Its client blocks the executor's thread when it is closed."""

    def __init__(self):
        super().__init__()
        self.goes_on = threading.Event()

    async def close(self):
        """Wait without giving the loop a turn."""
        await super().close()
        self.goes_on.wait()


async def test_a_client_that_blocks_its_thread_does_not_keep_an_engine_open(
    hurried, monkeypatch, caplog
):
    """The same."""
    monkeypatch.setattr(cluster_executor, "_LEAVE_SECONDS", 3.0)
    cluster = Blocking()
    executor = await opened(cluster)
    await closed(executor)
    assert not executor._thread.has_ended
    assert "its thread is left to itself" in warnings(caplog)
    cluster.goes_on.set()
    await until(lambda: executor._thread.has_ended)


async def test_closing_says_nothing_of_a_thread_that_ends(caplog):
    """As it does where all answer."""
    executor = await opened(LoopbackCluster())
    await closed(executor)
    assert executor._thread.has_ended
    assert "left to itself" not in warnings(caplog)
