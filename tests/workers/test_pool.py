"""Warm worker processes: started, told, taken back from, killed, replaced; none is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress

import psutil
import pytest

from asyncflow._support.conditions import look_again
from asyncflow.errors import PoolError
from asyncflow.workers.interface import NotNowError
from asyncflow.workers.local import fork_server, fork_server_client
from asyncflow.workers.local.fork_server import ForkServerProcess, packet_pair
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.messages import AttemptKey, CloseRun, Order, StartTask
from tests.support.pool_listener import Listener, opened_pool
from tests.support.waiting import until

SECONDS = 180  # for what takes milliseconds on an idle machine


def kin():
    """The pool's two processes beside its workers: the reaper, and its child, the fork server."""
    (reaper,) = psutil.Process().children()
    (fork_server,) = reaper.children()
    return {"reaper": reaper, "fork server": fork_server}


def is_gone(pid):
    """Whether no process of this id is left, but for one that nobody has reaped."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def listener():
    """Who hears of the pool's workers."""
    return Listener()


@pytest.fixture
async def pool(listener, tmp_path):
    """A pool that has been started; nothing of it is left after the test."""
    async with opened_pool(listener, tmp_path) as opened:
        yield opened


async def started(pool):
    """A worker that is there."""
    worker = pool.start_worker()
    await until(lambda: worker.pid)
    return worker


async def stopped(worker):
    """Have the worker stand still, wherever it is."""
    await asyncio.sleep(0.1)  # until it waits for orders
    os.kill(worker.pid, signal.SIGSTOP)
    await until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)


def order(task_id):
    """An order to start a task of a run that no worker knows."""
    return StartTask(AttemptKey(1, task_id, 0), "start", [], [], b"", ())


async def test_workers_are_processes_of_their_own(pool):
    """Each has its own process, and is a grandchild of this one by way of the fork server."""
    first, second = await started(pool), await started(pool)
    fork_server = kin()["fork server"]
    assert {first.pid, second.pid} == {child.pid for child in fork_server.children()}
    assert list(pool.workers) == [first, second]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_a_killed_worker_is_told_with_the_signals_name(pool, listener, number):
    """However it was killed, and by whomever."""
    worker = await started(pool)
    os.kill(worker.pid, number)
    await until(lambda: listener.exits)
    ((who, how),) = listener.exits
    assert who is worker
    assert how.startswith(f"was killed by {number.name}")
    assert ("out of memory" in how) == (number == signal.SIGKILL)
    assert not pool.workers


async def test_a_killed_worker_can_be_replaced_at_once(pool, listener):
    """The next one is another process, and what the first was sent does not reach it."""
    first = await started(pool)
    await stopped(first)
    first.send(order(1))
    os.kill(first.pid, signal.SIGKILL)
    second = await started(pool)
    await until(lambda: listener.exits)
    assert second.pid != first.pid
    first.take_back()  # its sockets are closed
    assert list(pool.workers) == [second]
    assert not listener.reports


@pytest.mark.parametrize("lost", ["tell", "tell_given_back"])
async def test_what_was_read_is_told_though_the_call_that_should_tell_it_was_lost(
    pool, listener, monkeypatch, lost
):
    """A signal handler has raised in it; nothing more comes from the worker."""
    loop, calls = asyncio.get_running_loop(), []

    def broken_off(*_):
        calls.append(lost)
        monkeypatch.undo()
        raise KeyError(lost)

    worker = pool.start_worker()
    if lost == "tell_given_back":
        await until(lambda: listener.ready)
        pool.give_back(worker, [AttemptKey(1, 1, 0)])
    monkeypatch.setattr(pool._teller, lost, broken_off)
    loop.set_exception_handler(lambda *_: None)
    await until(lambda: calls)
    look_again(loop)
    assert listener.ready == [worker]
    assert listener.given_back == ([1] if lost == "tell_given_back" else [])


async def test_orders_to_a_worker_that_died_are_dropped(pool, listener):
    """Until its exit is told, sending is harmless."""
    worker = await started(pool)
    os.kill(worker.pid, signal.SIGKILL)
    await until(lambda: is_gone(worker.pid))
    worker.send(order(1))
    await until(lambda: listener.exits)
    worker.send(order(2))
    worker.take_back()
    await asyncio.sleep(0.01)
    assert not listener.given_back


async def test_what_a_worker_has_not_received_can_be_taken_back(pool, listener):
    """Orders to start tasks come back in order, without the worker's help; others stay with it."""
    worker = await started(pool)
    await stopped(worker)
    for task_id in range(3000):  # more than its socket holds
        worker.send(order(task_id))
    worker.send(CloseRun(7))
    worker.take_back()
    assert not listener.given_back  # not within the call
    await until(lambda: listener.given_back)
    assert listener.given_back == list(range(3000))
    left = worker.taken_back.recv(1 << 16, 64)  # 64 is MSG_DONTWAIT
    assert left[1] == Order.CLOSE_RUN
    os.kill(worker.pid, signal.SIGCONT)


async def test_a_worker_that_is_doomed_before_it_is_there_is_killed_when_it_is(pool, listener):
    """Nobody waits for its process id."""
    worker = pool.start_worker()
    worker.destroy("not wanted any more")
    await until(lambda: listener.exits)
    assert listener.exits[0][1].startswith("was killed by SIGKILL")
    assert "stop_reason" in repr(worker)


class Killer:
    """Kills each fork server of this process as soon as it is there, before it forks a worker."""

    def __init__(self, most):
        self.left, self.kills = most, 0
        self._seen = set()

    async def kill(self):
        """Kill so many, one after the other; call this from a task."""
        while self.left:
            for reaper in psutil.Process().children():
                with suppress(psutil.Error):
                    for child in reaper.children():
                        if child.pid not in self._seen and self.left:
                            self._seen.add(child.pid)
                            child.kill()
                            self.left -= 1
                            self.kills += 1
            await asyncio.sleep(0.002)


async def test_a_fork_server_that_is_killed_again_and_again_is_replaced_each_time(pool, listener):
    """After a pause that grows; no worker can be started meanwhile, and then one can."""
    killer = Killer(6)
    killing = asyncio.ensure_future(killer.kill())
    refused, worker = 0, None
    while killer.left or worker is None or worker.has_exited or not worker.pid:
        if worker is None or worker.has_exited:
            try:
                worker = pool.start_worker()
            except NotNowError:
                refused += 1
        await asyncio.sleep(0.01)
    await killing
    assert killer.kills == 6
    assert refused
    assert all(worker.ended_with_others for worker, _ in listener.exits)
    assert not listener.broken
    assert listener.rooms


async def test_who_kills_each_fork_server_is_told_in_the_end(pool, listener, monkeypatch):
    """There is an end to it: the runs fail, and the error says what to look for."""
    monkeypatch.setattr(fork_server_client, "_KILLED_STARTS", 5)
    killing = asyncio.ensure_future(Killer(1 << 30).kill())
    await until(lambda: listener.broken)
    killing.cancel()
    (error,) = listener.broken
    assert "is killed again and again before it has started one" in str(error)
    with pytest.raises(PoolError, match="has failed"):
        pool.start_worker()


async def test_a_fork_server_that_cannot_live_is_given_up_soon(pool, listener, monkeypatch):
    """If it ends by itself, three times are enough, and the pause before the error is short."""
    starts = []

    def failing(environment):
        ours, theirs = packet_pair()
        code = "import os, sys; os.write(2, b'cannot live\\n'); sys.exit(3)"
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
        process.returncode = 0  # the pool reaps it
        theirs.close()
        starts.append(process.pid)
        return ForkServerProcess(process.pid, ours, environment)

    monkeypatch.setattr(fork_server, "start", failing)
    await started(pool)
    kin()["fork server"].kill()
    await until(lambda: listener.broken)
    (error,) = listener.broken
    assert "ends before it has started one" in str(error)
    assert len(starts) <= 4


@pytest.mark.parametrize("killed", ["reaper", "fork server"])
async def test_when_the_template_is_killed_its_workers_are_told_and_new_ones_can_be_had(
    pool, listener, killed
):
    """They die with it, or with its reaper; the two are started anew, once."""
    workers = [await started(pool), await started(pool)]
    before = kin()
    before[killed].kill()
    await until(lambda: len(listener.exits) == len(workers))
    await until(lambda: not any(psutil.pid_exists(each.pid) for each in before.values()))
    assert {how for _, how in listener.exits} == {
        "died together with the process that starts workers"
    }
    await until(lambda: all(is_gone(worker.pid) for worker in workers))
    assert (await started(pool)).pid not in {worker.pid for worker in workers}
    assert not listener.broken


async def test_a_template_that_was_stopped_is_told_to_go_on(pool, listener, monkeypatch, caplog):
    """As soon as something is asked of it and it does not answer; its workers lose nothing."""
    before = await started(pool)
    await until(lambda: not pool._fork_server._unanswered)
    monkeypatch.setattr(fork_server_client, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(fork_server_client, "_KILLED_LOOKS", 1 << 30)
    fork_server = kin()["fork server"]
    fork_server.suspend()
    after = await started(pool)
    assert psutil.Process(after.pid).ppid() == fork_server.pid == psutil.Process(before.pid).ppid()
    assert "does not answer, and is sent SIGCONT" in caplog.text
    assert not listener.exits
    fork_server.suspend()
    after.destroy("not wanted any more")
    await until(lambda: listener.exits)
    assert listener.exits[0][0] is after


async def test_a_template_that_never_answers_is_killed_and_started_anew(
    pool, listener, monkeypatch, caplog
):
    """Its workers are lost with it: nobody could end them any more."""
    before = await started(pool)
    monkeypatch.setattr(fork_server_client, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(fork_server_client, "_WOKEN_LOOKS", 1 << 30)
    fork_server = kin()["fork server"]
    fork_server.suspend()
    wanted = pool.start_worker()
    await until(lambda: len(listener.exits) == 2)
    monkeypatch.setattr(fork_server_client, "_LOOK_SECONDS", 10.0)
    assert [who for who, _ in listener.exits] == [before, wanted]
    assert "does not answer, and is killed" in caplog.text
    assert psutil.Process((await started(pool)).pid).ppid() != fork_server.pid
    assert not listener.broken


async def test_a_worker_that_was_stopped_is_told_with_the_signals_name(pool, listener):
    """And that it goes on; not when it is the pool that has all of them stand still."""
    worker = await started(pool)
    os.kill(worker.pid, signal.SIGSTOP)
    await until(lambda: listener.stopped == [(worker, "by SIGSTOP")])
    os.kill(worker.pid, signal.SIGCONT)
    await until(lambda: listener.stopped == [(worker, "by SIGSTOP"), (worker, "")])
    listener.stopped.clear()
    with pool.suspended():
        await until(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED)
        await until(lambda: not pool._fork_server._unanswered)  # whatever it had to say has come
    await until(lambda: listener.stopped)
    assert listener.stopped == [(worker, "")]


@pytest.mark.parametrize("suspended", ["reaper", "fork server"])
async def test_a_pool_is_closed_though_its_template_was_stopped(
    listener, tmp_path, monkeypatch, suspended
):
    """Its reaper kills it; a reaper that was stopped itself is told to go on."""
    monkeypatch.setattr(fork_server_client, "_REAP_TRIES", 100)
    pool = WorkerPool(listener, size=1, scratch=tmp_path)
    await pool.start()
    worker = await started(pool)
    left = kin()
    await stopped(worker)
    left[suspended].suspend()
    await pool.close()
    pids = [worker.pid, *(each.pid for each in left.values())]
    await until(lambda: all(map(is_gone, pids)))


async def test_a_closed_pool_leaves_no_process_and_starts_none(listener, tmp_path):
    """Idle workers leave by themselves, others are killed."""
    pool = WorkerPool(listener, size=2, scratch=tmp_path)
    await pool.start()
    idle, stuck = await started(pool), await started(pool)
    await stopped(stuck)
    left = kin()
    await pool.close()
    assert all(is_gone(each.pid) for each in left.values())
    assert is_gone(idle.pid)
    assert is_gone(stuck.pid)
    assert [(who, how) for who, how in listener.exits] == [(idle, "exited with status 0")]
    with pytest.raises(PoolError, match="the pool is closed"):
        pool.start_worker()
    await pool.close()  # harmless when repeated


def test_a_spool_has_no_name_where_the_system_makes_no_unnamed_files(tmp_path, monkeypatch):
    """Then its file is deleted as soon as it is open."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    spool = Spool(tmp_path)
    os.write(spool.descriptor, b"a line\n")
    assert spool.read(2, 100) == b"line\n"
    assert list(tmp_path.iterdir()) == []


async def test_a_spool_file_has_no_name(pool, tmp_path):
    """It can be read while its worker writes to it."""
    await started(pool)
    spool = Spool(tmp_path)
    os.write(spool.descriptor, b"one\n")
    os.write(spool.descriptor, b"two\n")
    assert (spool.size(), spool.read(4, 100)) == (8, b"two\n")
    assert not list(tmp_path.iterdir())


async def test_a_folder_that_takes_no_spool_file_is_named(pool, tmp_path):
    """The file itself has no name that could be told."""
    pool._scratch = tmp_path / "gone"
    message = rf"cannot start a worker process: cannot make a file in {tmp_path / 'gone'}: No such"
    with pytest.raises(PoolError, match=message):
        pool.start_worker()


ENGINE = """
    import asyncio, os, subprocess, sys, time
    from asyncflow import Engine, FlowSpec, step

    class Lasting(FlowSpec):
        @step
        def start(self):
            self.ways = ["child", "daemon", "stopped"]
            self.next(self.work, foreach="ways")

        @step
        def work(self):
            pids = [os.getpid()]
            if self.input != "stopped":
                away = self.input == "daemon"
                pids += [subprocess.Popen(["sleep", "300"], start_new_session=away).pid]
            with open(f"pids-{self.input}", "w") as file:
                file.write(" ".join(map(str, pids)))
            if self.input == "stopped":
                os.kill(os.getpid(), 19)
            time.sleep(300)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass

    async def main():
        async with Engine(workers=3) as engine:
            await engine.run(Lasting)

    if __name__ == "__main__":
        asyncio.run(main())
"""


async def test_nothing_outlives_an_engine_that_was_killed(tmp_path):
    """No worker, not one that stands still, and nothing that a step has started, daemons too."""
    (tmp_path / "lasting.py").write_text(textwrap.dedent(ENGINE))
    engine = subprocess.Popen([sys.executable, "lasting.py"], cwd=tmp_path)
    files = [tmp_path / f"pids-{way}" for way in ("child", "daemon", "stopped")]
    await until(lambda: all(file.exists() and file.read_text() for file in files))
    pids = [int(pid) for file in files for pid in file.read_text().split()]
    (reaper,) = psutil.Process(engine.pid).children()
    pids += [reaper.pid, *(child.pid for child in reaper.children())]
    assert len(pids) == 7  # three workers, two of their children, the fork server and its reaper
    engine.kill()
    engine.wait()
    await until(lambda: all(is_gone(pid) for pid in pids))
