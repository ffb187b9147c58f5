"""Flows for what has to hold wherever tasks run, and waiting for what they print."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from asyncflow import FlowSpec, Parameter, catch, current, events, retry, step, timeout

SECONDS = 180  # nothing here takes a tenth of it on an idle machine


async def printed(handle, text):
    """A task of the run has printed this; the event that tells of it."""
    async for event in handle.events():
        if isinstance(event, events.TaskLogged) and event.line == text:
            return event
    raise AssertionError("the run is over")


class Talking(FlowSpec):
    """Prints into both streams, from tasks of both kinds."""

    lines = Parameter("lines", default=3)

    @step
    def start(self):
        for number in range(self.lines):
            print("line", number)
        print("half a line", end="")
        os.write(2, b"raw\n")
        self.next(self.talk)

    @step
    async def talk(self):
        print("begins")
        await asyncio.sleep(0.01)
        print("ends", file=sys.stderr)
        self.next(self.end)

    @step
    def end(self):
        pass


class Sleeping(FlowSpec):
    """A `def` task and an async one that do not end by themselves."""

    @step
    def start(self):
        self.next(self.still, self.turning)

    @step
    def still(self):
        print("still", flush=True)
        time.sleep(SECONDS)
        self.next(self.join)

    @step
    async def turning(self):
        print("turning", flush=True)
        await asyncio.sleep(SECONDS)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Hindered(FlowSpec):
    """Its first attempts are too slow, or their worker kills itself."""

    @step
    def start(self):
        self.ways = ["slow", "quick", "killed"]
        self.next(self.work, foreach="ways")

    @retry(times=1, seconds=0)
    @timeout(seconds=2)
    @step
    def work(self):
        print("attempt", current.retry_count, flush=True)
        if current.retry_count == 0 and self.input == "slow":
            time.sleep(SECONDS)
        elif current.retry_count == 0 and self.input == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.late)

    @catch(var="failure")
    @timeout(seconds=0.2)
    @step
    async def late(self):
        await asyncio.sleep(SECONDS)
        self.next(self.end)

    @step
    def end(self):
        self.late_by = self.failure.type


class Waiting(FlowSpec):
    """Its first attempts wait for somebody to end them."""

    @step
    def start(self):
        self.items = list(range(10))
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        if self.input == 0 and current.retry_count == 0:
            print("waiting", flush=True)
            time.sleep(SECONDS)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Meeting(FlowSpec):
    """Four tasks that wait for each other."""

    folder = Parameter("folder", default="")

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.pid = os.getpid()
        folder = Path(self.folder)
        (folder / f"here-{self.input}").touch()
        while len(list(folder.glob("here-*"))) < 4:
            time.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
