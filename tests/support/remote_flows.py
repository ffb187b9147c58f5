"""Flows for what has to hold wherever tasks run, and waiting for what they print."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from opentelemetry import trace

from asyncflow import (
    FlowSpec,
    Parameter,
    card,
    catch,
    current,
    events,
    isolate,
    limit,
    retry,
    step,
    timeout,
)
from asyncflow.cards import Markdown, ProgressBar

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


class Carded(FlowSpec):
    """Adds to cards of all kinds of attempts."""

    @card
    @step
    def start(self):
        current.card.append(Markdown("# From a node"))
        self.next(self.work)

    @retry(times=1, seconds=0)
    @card(type="blank", id="second")
    @card
    @step
    async def work(self):
        current.card.append(Markdown(f"attempt {current.retry_count}"))
        current.card["second"].append(ProgressBar(max=3))
        if current.retry_count == 0:
            raise ValueError("once")
        self.next(self.end)

    @card
    @step
    def end(self):
        current.card.append(Markdown("the last"))
        raise ValueError("for good")


class Loud(FlowSpec):
    """Prints a megabyte at once, and says things in all the ways there are."""

    @step
    def start(self):
        print("x" * (1 << 20))
        logging.getLogger("of a step").warning("a warning")
        subprocess.run(["/bin/echo", "from a child"], check=True)
        self.next(self.aloud)

    @step
    async def aloud(self):
        print("y" * (1 << 20))
        logging.getLogger("of a step").error("an error")
        await asyncio.sleep(0)
        print("\u00fc", "\udcff", sep="")
        self.next(self.end)

    @step
    def end(self):
        print("no end of line", end="")


class Named(FlowSpec):
    """Has items with names, so many that they travel together, and memory and time to tell of."""

    @step
    def start(self):
        self.names = [f"item {number}" for number in range(400)]
        self.next(self.work, foreach="names")

    @retry(times=5, seconds=0)
    @step
    def work(self):
        self.seen = self.input
        if self.index == 7:
            self.size = len(bytearray(b"x" * (64 << 20)))
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = [each.seen for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Packed(Named):
    """The same, and its node is killed once some of them have ended."""

    folder = Parameter("folder", default="")

    @retry(times=5, seconds=0)
    @step
    def work(self):
        self.seen = self.input
        with Path(self.folder, str(self.index)).open("a") as file:
            file.write("begun\n")
        self.next(self.join)


class Apart(FlowSpec):
    """Has tasks with a process of their own, and tasks that share a limit."""

    @step
    def start(self):
        self.items = list(range(3))
        self.next(self.alone, foreach="items")

    @isolate
    @step
    def alone(self):
        self.pid = os.getpid()
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.pids = sorted({each.pid for each in inputs})
        self.items = list(range(4))
        self.next(self.limited, foreach="items")

    @limit("remote-tests", 1)
    @step
    def limited(self):
        self.began = time.monotonic()
        time.sleep(0.02)
        self.ended = time.monotonic()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.times = sorted((each.began, each.ended) for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Spanning(FlowSpec):
    """Tells which span its tasks are in."""

    @step
    def start(self):
        self.names = ["one", "two"]
        self.next(self.each, foreach="names")

    @step
    async def each(self):
        self.span = trace.get_current_span().get_span_context().span_id
        self.next(self.join)

    @step
    def join(self, inputs):
        self.spans = {each.span for each in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass
