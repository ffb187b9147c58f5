"""How late the event loop of an application is while an engine in it has much to do.

A ticker asks for a turn of the loop every 2 ms, as a web application's requests do, and notes how
late it comes: that is the lag. Part of it is the machine, whose CPUs the workers share with the
loop: so a bare ticker, in a process that does nothing else, is measured at the same time.
`computed` is how long the loop's thread computed from asking to getting: what no other process and
no thread can be blamed for. All in ms; the 99th percentile counts.

The application does what docs/how-to/embed-in-a-program.md tells one to do for which milliseconds
count: once it has started, Python's garbage collector leaves alone what is there, and looks for
garbage less often.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from asyncflow import Engine, FlowSpec, Parameter, RunHandle, events, step
from asyncflow.errors import RunCancelledError
from benchmarks.flows import NoOps
from benchmarks.waiting import Waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from asyncflow.flow.join_inputs import Inputs

WORKERS = 2
RUNS = 200
ROUNDS = 6
WIDTH = 60
BIG_WIDTH = 20_000
TICK_SECONDS = 0.002


class Chain(FlowSpec):
    """Three short steps, and a few lines of output."""

    @step
    def start(self) -> None:
        """Print."""
        print("started")
        self.next(self.middle)

    @step
    def middle(self) -> None:
        """Keep something."""
        self.value = list(range(100))
        self.next(self.end)

    @step
    def end(self) -> None:
        """Print again."""
        print("ended", len(self.value))


class Working(FlowSpec):
    """What an application may well run: tasks of some milliseconds, of which some wait."""

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(4)
        self.next(self.fetch, foreach="numbers")

    @step
    async def fetch(self) -> None:
        """Wait, as for an answer."""
        await asyncio.sleep(0.05)
        self.text = "some text " * 100
        self.next(self.compute)

    @step
    def compute(self) -> None:
        """Compute for ten milliseconds."""
        until = time.perf_counter() + 0.01
        self.count = 0
        while time.perf_counter() < until:
            self.count += len(self.text.split())
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Add up, and say so."""
        self.total = sum(task.count for task in inputs)
        print("total", self.total)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Gigabyte(FlowSpec):
    """Artifacts of a gibibyte in all, made, handed on and joined."""

    parts = Parameter("parts", default=4)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.parts)
        self.next(self.make, foreach="numbers")

    @step
    def make(self) -> None:
        """One part, different from the others."""
        self.part = bytes([self.input]) * ((1 << 30) // self.parts)
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Read all of it."""
        self.count = sum(len(task.part) for task in inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


async def tick(lags: list[float], computed: list[float]) -> None:
    """Note each turn of the loop until cancelled."""
    while True:
        due, before = time.perf_counter() + TICK_SECONDS, time.thread_time()
        await asyncio.sleep(TICK_SECONDS)
        lags.append(1000 * (time.perf_counter() - due))
        computed.append(1000 * (time.thread_time() - before))


async def bare() -> None:
    """Be the ticker that does nothing else, until standard input ends; print what it measured."""
    lags: list[float] = []
    ticker = asyncio.create_task(tick(lags, []))
    await asyncio.to_thread(sys.stdin.read)
    ticker.cancel()
    print(json.dumps(lags))


def told(lags: list[float]) -> str:
    """The percentiles, and the most."""
    lags = sorted(lags)
    middle, high = lags[len(lags) // 2], lags[int(len(lags) * 0.99)]
    return f"{middle:6.2f} {high:6.2f} {lags[-1]:6.2f}"


@asynccontextmanager
async def ticking(name: str) -> AsyncIterator[None]:
    """Measure the loop's lag in the block, and print it."""
    lags: list[float] = []
    computed: list[float] = []
    command = [sys.executable, "-m", "benchmarks.lag", "bare"]
    pipe = subprocess.PIPE
    beside = await asyncio.to_thread(subprocess.Popen, command, stdin=pipe, stdout=pipe, text=True)
    await asyncio.sleep(0.5)  # for it to begin
    ticker = asyncio.create_task(tick(lags, computed))
    began = time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        ticker.cancel()
        said, _ = await asyncio.to_thread(beside.communicate)
        print(f"{name} ({seconds:.1f} s)")
        for what, found in (("lag", lags), ("bare", json.loads(said)), ("computed", computed)):
            print(f"  {what:10} {told(found)}")


async def serve(engine: Engine, number: int, *flows: type[FlowSpec]) -> None:
    """What one client does, again and again: start a run, and tell its events as they come."""
    for turn in range(ROUNDS):
        flow = flows[(number + turn) % len(flows)]
        parameters: dict[str, Any] = {"width": WIDTH} if flow in {NoOps, Waits} else {}
        handle = await engine.start(flow, **parameters)
        async for _ in handle.events():
            pass
        await handle


async def many_runs(engine: Engine) -> None:
    """So many runs in flight at any time, each with somebody who watches."""
    each = f"{RUNS} runs in flight, {RUNS * ROUNDS} in all, each watched"
    async with ticking(f"{each}: tasks of some milliseconds"):
        await asyncio.gather(*(serve(engine, number, Working) for number in range(RUNS)))
    async with ticking(f"{each}: tasks that do nothing, as fast as they can"):
        flows = NoOps, Chain, Waits
        await asyncio.gather(*(serve(engine, number, *flows) for number in range(RUNS)))


async def gigabyte(engine: Engine) -> None:
    """Large values pass the engine by."""
    async with ticking("a gibibyte of artifacts"):
        await engine.run(Gigabyte)


async def wide(engine: Engine) -> None:
    """One run that is as fast as it can be, and cancelled before its end."""
    async with ticking(f"a run of {BIG_WIDTH} no-ops, then cancelled"):
        handle = await engine.start(NoOps, width=BIG_WIDTH)
        ended = 0
        async for event in handle.events():
            ended += isinstance(event, events.TaskSucceeded)
            if ended > BIG_WIDTH * 0.9:
                break
        handle.cancel()
        await _quietly(handle)
    async with ticking("the same, resumed"):
        await engine.resume(NoOps, origin=handle.run_id)
    async with ticking("its journal read again by ten subscribers"):
        await asyncio.gather(*(_read(handle) for _ in range(10)))


async def _quietly(handle: Awaitable[object]) -> None:
    with suppress(RunCancelledError):
        await handle


async def _read(handle: RunHandle) -> None:
    async for _ in handle.batches():
        pass


async def measure() -> None:
    """Every load, one after the other."""
    print("  in ms         p50    p99    max")
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=WORKERS) as engine:
            await engine.run(Chain)
            gc.collect()
            gc.freeze()
            gc.set_threshold(2_000, 100, 100)
            await many_runs(engine)
            await wide(engine)
            await gigabyte(engine)


def main() -> None:
    """Print the lag of the event loop under each load."""
    asyncio.run(measure())


if __name__ == "__main__":
    asyncio.run(bare() if sys.argv[1:] == ["bare"] else measure())
