"""A worker is stopped because of one task: what it has ended before is not lost."""

from __future__ import annotations

import asyncflow
from asyncflow import Engine, events

FLOW = '''
import os
import signal
from pathlib import Path

from asyncflow import FlowSpec, retry, step
from asyncflow.workers.messages import StartTask
from asyncflow.workers.process.worker import Worker

receive = Worker._receive


def receive_and_be_stopped(worker, flags=0):
    """Be sent SIGTERM, once, with the next task at hand and the end of the last one not told."""
    order = receive(worker, flags)
    if isinstance(order, StartTask) and worker._unsent and not Path("fuse").exists():
        Path("fuse").touch()
        os.kill(os.getpid(), signal.SIGTERM)
    return order


Worker._receive = receive_and_be_stopped


class Neighbours(FlowSpec):
    @step
    def start(self):
        self.items = list(range(30))
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        with Path("ended").open("a") as file:
            print(self.input, file=file)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
'''


async def test_what_a_task_has_ended_with_is_told_before_its_worker_is_stopped(
    store, tmp_path, monkeypatch
):
    """Else it would be run again, or fail with its neighbour's run."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "neighbours.py"
    file.write_text(FLOW)
    flow = asyncflow.flow.loader.load_flow(f"{file}:Neighbours")
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(flow)
    assert (tmp_path / "fuse").exists()
    assert any(isinstance(event, events.TaskFailed) for event in run.events())
    ended = (tmp_path / "ended").read_text().split()
    assert sorted(map(int, ended)) == list(range(30))
