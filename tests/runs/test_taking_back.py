"""A worker receives orders while its engine takes others back: each task is with one of them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, shared, step
from asyncflow.store.journal import HEADER
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.messages import (
    AttemptKey,
    Failed,
    GaveBack,
    Opened,
    Opening,
    Ready,
    Started,
    StartTask,
    Succeeded,
)
from asyncflow.workers.program_environment import look_around
from tests.support.flows import Linear


class LeftOpen(FlowSpec):
    """Its async step leaves something open on its worker's event loop."""

    @shared
    async def client():
        yield "client"

    @step
    async def start(self, *, client):
        self.value = client
        self.next(self.end)

    @step
    def end(self):
        pass


class Held(FlowSpec):
    """Begins with a step that goes on until a file is there."""

    @step
    def start(self):
        with Path(os.environ["GATE"]).open() as gate:
            gate.read()
        self.next(self.end)

    @step
    def end(self):
        pass


class Heard:
    """Listens to a worker."""

    def __init__(self):
        self.reports = []
        self.changed = asyncio.Event()

    def on_reports(self, worker, reports):
        self.reports += [report for report in reports if not isinstance(report, Ready | Opened)]
        self.changed.set()

    def on_exit(self, worker, how):
        assert worker.stop_reason, how

    def on_room(self):
        pass

    def on_refused(self, kind, error):
        raise error

    def on_broken(self, error):
        raise error

    def on_stopped(self, worker, how):
        raise AssertionError(how)

    def on_continued(self, worker):
        raise AssertionError(worker)

    async def until(self, happened):
        while not happened():
            self.changed.clear()
            await self.changed.wait()

    def of(self, kind):
        return [report.key[:2] for report in self.reports if isinstance(report, kind)]


@pytest.fixture
async def orders(store, tmp_path, monkeypatch):
    """How to order the first step of a run of each of these flows, by task id."""
    monkeypatch.setenv("GATE", str(tmp_path / "gate"))
    os.mkfifo(tmp_path / "gate")
    flows = {}
    async with Engine(store=store, workers=1) as engine:
        for flow in (Linear, LeftOpen, Held):
            handle = await engine.start(flow)
            if flow is Held:
                await asyncio.to_thread((tmp_path / "gate").write_text, "open")
            flows[flow] = await handle

    def order(number, flow, task_id):
        around = look_around({})
        opening = Opening(number, str(store), flow.__name__, flows[flow].id, around)
        inputs = len(HEADER).to_bytes(8, "little")
        return StartTask(AttemptKey(number, task_id, 0), "start", (), (), inputs, (), (), opening)

    return order


@pytest.fixture
async def staffed(store, orders):
    """Who listens, and a worker; `orders` has made the store."""
    heard = Heard()
    pool = WorkerPool(heard, size=1, scratch=store)
    await pool.start()
    yield heard, pool.start_worker()
    await pool.close()


async def test_a_worker_whose_loop_turns_receives_one_def_task_at_a_time(staffed, orders, tmp_path):
    """Only the one that it runs: to end that one must not cost another one its attempt."""
    heard, worker = staffed
    worker.send(orders(1, LeftOpen, 1))
    await heard.until(lambda: heard.of(Succeeded))
    worker.send(orders(2, Held, 1))
    for task_id in range(1, 6):
        worker.send(orders(3, Linear, task_id))
    await heard.until(lambda: (2, 1) in heard.of(Started))
    worker.take_back()
    await heard.until(lambda: heard.of(GaveBack))
    assert heard.of(GaveBack) == [(3, task_id) for task_id in range(1, 6)]
    await asyncio.to_thread((tmp_path / "gate").write_text, "open")
    await heard.until(lambda: (2, 1) in heard.of(Succeeded))


async def test_tasks_that_are_taken_back_and_sent_again_are_run_once(staffed, orders):
    """However often, and whichever of the two is faster; orders behind them need none before."""
    heard, worker = staffed
    ordered = [(number, task_id) for task_id in range(1, 60) for number in range(1, 6)]
    for number, task_id in ordered:
        worker.send(orders(number, Linear, task_id))
    sent_again = 0
    while len(heard.of(Succeeded)) < len(ordered):
        worker.take_back()
        for number, task_id in heard.of(GaveBack)[sent_again:]:
            sent_again += 1
            worker.send(orders(number, Linear, task_id))
        await asyncio.sleep(0)
    assert sent_again
    assert sorted(heard.of(Succeeded)) == sorted(ordered)
    assert sorted(heard.of(Started)) == sorted(ordered)
    assert not heard.of(Failed)
