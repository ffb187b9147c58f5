"""An async task is cancelled at the very moment in which its worker has begun it."""

from __future__ import annotations

import asyncio

import psutil
import pytest

import asyncflow
from asyncflow import Engine, events
from asyncflow.errors import RunCancelledError

FLOW = '''
import asyncio
import os
import socket
import time
from pathlib import Path

from asyncflow import FlowSpec, step
from asyncflow.workers.messages import CancelTask, unpack_order
from asyncflow.workers.process.async_tasks import AsyncSteps

begin = AsyncSteps._begin


def begin_and_let_it_be_cancelled(steps, run, order, untold):
    """Go on only when the next order is there, and is to cancel: both are read in one turn."""
    begin(steps, run, order, untold)
    if len(steps._tasks) == 2:
        Path(os.environ["HELD"]).touch()
        orders = steps._worker._orders
        while True:
            try:
                packet = orders.recv(1 << 18, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                packet = b""
            if packet and isinstance(unpack_order(packet), CancelTask):
                return
            time.sleep(0.001)


AsyncSteps._begin = begin_and_let_it_be_cancelled


class Cancelled(FlowSpec):
    @step
    def start(self):
        self.items = range(4)
        self.next(self.wait, foreach="items")

    @step
    async def wait(self):
        await asyncio.sleep(600)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
'''


async def test_a_task_that_is_cancelled_before_its_first_line_ends_without_its_worker(
    store, tmp_path, monkeypatch
):
    """Asyncio never runs such a task, and the worker tells of its end all the same."""
    file = tmp_path / "cancelled.py"
    file.write_text(FLOW)
    monkeypatch.setenv("HELD", str(tmp_path / "held"))
    flow = asyncflow.flow.loader.load_flow(f"{file}:Cancelled")
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(flow)
        while not (tmp_path / "held").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        handle.cancel()  # the first task waits, the second has not come to its first line
        with pytest.raises(RunCancelledError) as caught:
            await handle
        told = caught.value.run.events(events.TaskStarted)
        (pid,) = {event.pid for event in told if event.step == "wait"}
        assert psutil.pid_exists(pid)
    ended = caught.value.run.events(events.TaskFailed)
    assert [event.was_stopped for event in ended] == [True, True]
