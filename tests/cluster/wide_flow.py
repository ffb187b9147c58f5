"""A flow with values of each size, and a program that runs it and dies at a commit point.

    python -m tests.cluster.wide_flow STORE [POINT HIT]

The program prints a line for each task that has succeeded, when it hears of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from asyncflow import Engine, FlowSpec, step
from asyncflow._support import commit_points
from asyncflow.events import TaskSucceeded

SIZE = 20_000


class Wide(FlowSpec):
    """Values of each size, from task to task, and many of some KiB."""

    width = 40

    @step
    def start(self):
        self.large = bytes(300_000) + b"large"
        self.items = [bytes([n]) * 30 for n in range(self.width)]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.data = self.input[:1] * SIZE
        self.next(self.more)

    @step
    async def more(self):
        self.data = self.data + b"+"
        self.own = self.large + self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["large"])
        self.right = [
            (each.data, each.own) == (bytes([n]) * SIZE + b"+", self.large + bytes([n]) * 30)
            for n, each in enumerate(inputs)
        ]
        self.next(self.end)

    @step
    def end(self):
        pass


def die_at(point: str, hit: int) -> None:
    """Have this process killed when it reaches the point for that time."""
    left = hit

    def watch(name: str) -> None:
        nonlocal left
        left -= name == point
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    commit_points.watcher = watch


async def main(store: str, point: str = "", hit: str = "0") -> None:
    """Run the flow to its end."""
    if point:
        die_at(point, int(hit))
    async with Engine(store=store, workers=2) as engine:
        handle = await engine.start(Wide)
        async for event in handle.events():
            if isinstance(event, TaskSucceeded):
                print(event.step, event.task_id, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
