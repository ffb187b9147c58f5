"""Thousands of schedules, deaths and crashes, with simulated workers and a clock that skips."""

from __future__ import annotations

import asyncio

import pytest

from asyncflow import Engine
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.run_services import RunServices
from asyncflow.store.journal import HEADER
from asyncflow.testing import (
    Act,
    FakeClockLoop,
    InlineExecutor,
    Loopback,
    SimulatedExecutor,
    StuckError,
)
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.messages import (
    AttemptKey,
    Failed,
    GaveBack,
    Opened,
    Opening,
    Ready,
    ShutDown,
    Started,
    StartTask,
    Succeeded,
)
from asyncflow.workers.program_environment import look_around
from tests.durability.chaos.simulation import check_worlds
from tests.support.flows import Linear


def test_every_promise_is_kept_in_simulated_worlds():
    """Whatever dies, crashes, times out or is cancelled: nothing announced is lost or run again."""
    check_worlds(range(100))


def test_no_node_that_was_announced_is_run_again_since_another_one_had_no_stand_in_yet():
    """In this world the engine crashes while a stopped node of a gang waits for its stand-in."""
    check_worlds([1128])


def test_tasks_of_items_are_not_run_again_though_a_run_was_cancelled_before_it_took_them_over():
    """In this world a generator goes on to its end in a cancelled run, and another one resumes."""
    check_worlds([50435])


@pytest.mark.slow
def test_every_promise_is_kept_in_many_simulated_worlds():
    """The same two thousand times."""
    check_worlds(range(1000, 3000))


# --- the clock and the threads --------------------------------------------------------------------


def test_a_fake_clock_skips_what_everybody_waits_for():
    """Timers fire in order, at the very moment they are set for."""
    loop = FakeClockLoop()
    seen = []

    async def wait(seconds):
        await asyncio.sleep(seconds)
        seen.append((seconds, loop.time()))

    async def main():
        await asyncio.gather(wait(3600.0), wait(0.5), wait(86_400.0))

    loop.run_until_complete(main())
    loop.close()
    assert [seconds for seconds, _ in seen] == [0.5, 3600.0, 86_400.0]
    assert all(at == pytest.approx(seconds) for seconds, at in seen)


def test_waiting_for_ever_is_an_error_under_a_fake_clock():
    """Where a real loop would hang."""
    loop = FakeClockLoop()
    waiting = loop.create_future()
    with pytest.raises(StuckError):
        loop.run_until_complete(waiting)
    loop.close()


def test_an_inline_executor_gives_what_a_thread_would():
    """A value or an exception, in a future that is done."""
    executor = InlineExecutor()
    assert executor.submit(divmod, 7, 2).result(0) == (3, 1)
    assert isinstance(executor.submit(divmod, 7, 0).exception(0), ZeroDivisionError)


# --- the exam that simulated and real workers sit -------------------------------------------------


class Heard:
    """Listens to workers."""

    def __init__(self):
        self.reports, self.exits = [], []
        self.changed = asyncio.Event()

    def on_reports(self, worker, reports):
        self.reports += [report for report in reports if not isinstance(report, Ready | Opened)]
        assert worker not in self.exits
        self.changed.set()

    def on_exit(self, worker, how):
        self.exits.append(worker)
        self.how = how
        self.changed.set()

    async def until(self, happened):
        while not happened():
            self.changed.clear()
            await self.changed.wait()

    def on_room(self):
        self.changed.set()

    def on_refused(self, kind, error):
        raise error

    def on_broken(self, error):
        raise error

    def on_stopped(self, worker, how):
        raise AssertionError(how)

    def on_continued(self, worker):
        raise AssertionError(worker)

    def kinds(self):
        return [type(report) for report in self.reports]

    @property
    def given_back(self):
        return [report.key.task for report in self.reports if isinstance(report, GaveBack)]

    @property
    def ended(self):
        return [report.key.task for report in self.reports if isinstance(report, Succeeded)]


@pytest.fixture(params=["real", "simulated", "behind a socket"])
async def staffed(request, store):
    """A listener, an executor of each kind, and an order for each of a flow's first steps."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Linear)
    heard = Heard()
    opening = Opening(1, str(store), "Linear", run.id, look_around({}))

    def order(task_id):
        start = len(HEADER).to_bytes(8, "little")
        return StartTask(AttemptKey(1, task_id, 0), "start", (), (), start, (), (), opening)

    if request.param == "simulated":
        yield heard, SimulatedExecutor(heard, lambda order: Act(0.01), size=1), order
        return
    factory = WorkerPool if request.param == "real" else Loopback()
    executor = factory(heard, size=1, scratch=store)
    await executor.start()
    await heard.until(lambda: executor.size)
    yield heard, executor, order
    await executor.close()


async def test_a_worker_says_that_a_task_began_and_then_that_it_ended(staffed):
    """One task after the other."""
    heard, executor, order = staffed
    worker = executor.start_worker()
    for message in (order(1), order(2)):
        worker.send(message)
    await heard.until(lambda: len(heard.reports) == 4)
    assert heard.kinds() == [Started, Succeeded, Started, Succeeded]
    assert [report.key.task for report in heard.reports] == [1, 1, 2, 2]


async def test_what_a_worker_has_not_received_can_be_taken_back(staffed):
    """It is not run, and other orders stay."""
    heard, executor, order = staffed
    worker = executor.start_worker()
    for task_id in range(1, 4):
        worker.send(order(task_id))
    worker.take_back()
    worker.send(order(4))
    await heard.until(lambda: heard.ended and heard.ended[-1] == 4)
    taken = heard.given_back
    assert taken == [1, 2, 3][3 - len(taken) :]
    assert not set(heard.ended) & set(taken)


async def test_a_killed_worker_is_gone_once(staffed):
    """With the signal's name; to send to it and to take back from it is harmless then."""
    heard, executor, order = staffed
    worker = executor.start_worker()
    worker.send(order(1))
    await heard.until(lambda: heard.reports)
    worker.destroy("a test")
    await heard.until(lambda: heard.exits)
    assert heard.exits == [worker]
    assert "SIGKILL" in heard.how
    assert worker.stop_reason == "a test"
    worker.send(order(2))
    worker.take_back()
    assert Failed not in heard.kinds()


async def test_a_worker_that_is_shut_down_ends_what_it_has_first(staffed):
    """And then it goes by itself."""
    heard, executor, order = staffed
    worker = executor.start_worker()
    for message in (order(1), ShutDown()):
        worker.send(message)
    await heard.until(lambda: heard.exits)
    assert heard.kinds() == [Started, Succeeded]


def test_a_dispatcher_takes_either_for_its_executor():
    """The protocol is the dispatcher's; both fulfil it, which mypy checks right here."""

    async def main():
        disk = InlineExecutor()
        services = RunServices(disk=disk, syncs=disk, grace_seconds=1.0, sync_seconds=1.0)
        dispatcher = Dispatcher(
            services, lambda listener: SimulatedExecutor(listener, lambda order: Act(), size=2)
        )
        assert "0 workers" in repr(dispatcher.executor)

    loop = FakeClockLoop()
    loop.run_until_complete(main())
    loop.close()
