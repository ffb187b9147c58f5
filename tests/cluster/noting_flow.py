"""A flow whose limited tasks note in a file when they begin and end; and a program that runs it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from asyncflow import Engine, FlowSpec, Parameter, limit, step
from asyncflow._support import commit_points
from asyncflow.store.object_store import shared_limit
from asyncflow.store.object_store.limit_share import Timing
from tests.support.overlap import most_at_once

if TYPE_CHECKING:
    from pathlib import Path


class Noting(FlowSpec):
    """Tasks under a limit of two at a time."""

    file = Parameter("file", default="")
    width = Parameter("width", default=6)
    seconds = Parameter("seconds", default=0.1)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.call, foreach="items")

    @limit("api", 2)
    @step
    async def call(self):
        note(self.file, "began", self.input)
        await asyncio.sleep(self.seconds)
        note(self.file, "ended", self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class RatedNoting(FlowSpec):
    """Tasks of which twenty may begin in a second."""

    file = Parameter("file", default="")
    width = Parameter("width", default=20)

    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.call, foreach="items")

    @limit("rate", per_second=20)
    @step
    async def call(self):
        note(self.file, "began", self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def note(file: str, what: str, item: int) -> None:
    """Add a line in one write: processes share the file."""
    line = json.dumps([what, os.getppid(), item, time.monotonic()]) + "\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def noted(file: Path, what: str = "") -> list[Any]:
    """The lines; only those that say so, if a word is given."""
    text = file.read_text() if file.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if what in {"", line[0]}]


def most_noted(file: Path) -> int:
    """The most tasks that were at work at a time."""
    ends = {(pid, item): at for what, pid, item, at in noted(file) if what == "ended"}
    began = [((pid, item), at) for what, pid, item, at in noted(file) if what == "began"]
    return most_at_once([(at, ends[task]) for task, at in began])


async def main(
    store: str, options: dict[str, Any], timing: dict[str, float], point: str, number: int
) -> None:
    """Run it in an engine of its own, which dies when it is at a commit point so many times."""
    shared_limit.TIMING = Timing(**timing)
    passed: Counter[str] = Counter()

    def watch(name: str) -> None:
        passed[name] += 1
        if name == point and passed[name] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    commit_points.watcher = watch
    async with Engine(store=store, workers=1) as engine:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await engine.run(Noting, **options)
        print("done", flush=True)


if __name__ == "__main__":
    url, flow_options, seconds, at, times = sys.argv[1:]
    asyncio.run(main(url, json.loads(flow_options), json.loads(seconds), at, int(times)))
