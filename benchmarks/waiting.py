"""Async steps that wait, beside the same number that do not, within one run of this program.

Waiting costs nobody anything, so a thousand tasks that wait for half a second are to take half a
second more than a thousand that wait for nothing, and ten thousand that wait for one second, one
second more. Memory is that of all processes together, with shared pages counted once.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import anyio
import psutil

from asyncflow import Engine, FlowSpec, Parameter, concurrency, step
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from asyncflow.flow.join_inputs import Inputs

FEW, MANY = 1_000, 10_000
WORKERS = 2


class Waits(FlowSpec):
    """One foreach of async tasks that do nothing but wait."""

    width = Parameter("width", default=FEW)
    seconds = Parameter("seconds", default=0.0)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @concurrency(MANY)
    @step
    async def work(self) -> None:
        """What is measured."""
        await asyncio.sleep(self.seconds)
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


async def seconds_of(engine: Engine, flow: type[FlowSpec], **parameters: Any) -> float:
    """How long one run takes on a warm engine."""
    began = time.perf_counter()
    run = await engine.run(flow, **parameters)
    seconds = time.perf_counter() - began
    assert run.data.count == parameters["width"]  # noqa: S101 - a benchmark of a wrong answer is worth nothing
    return seconds


def bytes_of_all() -> int:
    """What this process and all that it has started have in memory; shared pages count once."""
    total = 0
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


async def compare(rounds: int) -> None:
    """Print how much longer waiting takes than not waiting, and the memory meanwhile."""
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=WORKERS) as engine:
            await seconds_of(engine, Waits, width=FEW)
            await few(engine, rounds)
            await many(engine, rounds)
            await memory(engine)


async def few(engine: Engine, rounds: int) -> None:
    """A thousand that wait for half a second beside a thousand that wait for nothing."""
    more = []
    for _ in range(rounds):
        none = await seconds_of(engine, Waits, width=FEW)
        half = await seconds_of(engine, Waits, width=FEW, seconds=0.5)
        more.append(half - none)
    print(f"{FEW} tasks of 0.5 s take {statistics.median(more):.2f} s more than {FEW} of 0 s")
    print("  (at most 1.0)")


async def many(engine: Engine, rounds: int) -> None:
    """Ten thousand that wait for a second beside as many no-ops, async and `def`."""
    beside: dict[str, list[float]] = {"async": [], "def": []}
    for _ in range(rounds):
        no_op = await seconds_of(engine, NoOps, width=MANY)
        none = await seconds_of(engine, Waits, width=MANY)
        one = await seconds_of(engine, Waits, width=MANY, seconds=1.0)
        beside["async"].append(one - none)
        beside["def"].append(one - no_op)
        print(f"  def no-ops {no_op:.2f} s, async no-ops {none:.2f} s, of 1 s {one:.2f} s")
    for kind, more in beside.items():
        median = statistics.median(more)
        print(f"{MANY} tasks of 1 s take {median:.2f} s more than {MANY} {kind} no-ops")
    print("  (at most 1.5)")


async def memory(engine: Engine) -> None:
    """The most that all processes have while ten thousand tasks wait."""
    highest = 0

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, await anyio.to_thread.run_sync(bytes_of_all))
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await seconds_of(engine, Waits, width=MANY, seconds=3.0)
        group.cancel_scope.cancel()
    print(f"all processes: {highest / 1e6:.0f} MB while {MANY} tasks wait (at most 300)")


def main(rounds: int = 3) -> None:
    """Run the comparison."""
    anyio.run(compare, rounds)


if __name__ == "__main__":
    main()
