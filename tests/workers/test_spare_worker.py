"""The worker that a command which runs a flow has started before the run has a task."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from asyncflow.workers.local import fork_server
from asyncflow.workers.local.pool import WorkerPool
from tests.support.pool_listener import Listener, opened_pool
from tests.support.waiting import until


def workers():
    """The worker processes below this process."""
    (reaper,) = psutil.Process().children()
    return [each.pid for server in reaper.children() for each in server.children()]


@pytest.fixture
def listener():
    """Who hears of the pool's workers."""
    return Listener()


@pytest.fixture
async def pool(listener, tmp_path):
    """A pool whose fork server was there before it; nothing of it is left after the test."""
    fork_server._preforked.append(fork_server.start())
    async with opened_pool(listener, tmp_path) as opened:
        yield opened


async def test_the_first_worker_is_the_process_that_is_up_already(pool):
    """It is no worker of the pool before it is asked for, and the next one is another process."""
    await until(workers)
    (spare,) = workers()
    assert not pool.workers
    first = pool.start_worker()
    await until(lambda: first.pid)
    assert first.pid == spare
    second = pool.start_worker()
    await until(lambda: second.pid)
    assert second.pid != spare
    assert list(pool.workers) == [first, second]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_has_died_is_no_loss(pool, listener, number):
    """Nobody hears of it, and the first worker is another process."""
    await until(workers)
    (spare,) = workers()
    os.kill(spare, number)
    await until(lambda: pool._spare is None)
    first = pool.start_worker()
    await until(lambda: first.pid)
    assert first.pid != spare
    assert not listener.exits


async def test_without_a_command_that_runs_a_flow_there_is_none(listener, tmp_path):
    """An engine of an application has no process for runs that may never come."""
    pool = WorkerPool(listener, size=2, scratch=tmp_path)
    await pool.start()
    try:
        first = pool.start_worker()
        await until(lambda: first.pid)
        assert workers() == [first.pid]
    finally:
        await pool.close()


async def test_one_that_nobody_asked_for_ends_with_the_pool(listener, tmp_path):
    """A run that takes over all of its tasks needs no worker."""
    fork_server._preforked.append(fork_server.start())
    pool = WorkerPool(listener, size=2, scratch=tmp_path)
    await pool.start()
    await until(workers)
    await pool.close()
    assert not psutil.Process().children(recursive=True)
    assert not listener.exits
