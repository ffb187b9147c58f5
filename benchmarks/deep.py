"""How long a chain of steps waits between two of them: the journal is written in between.

Each step notes when it ends and when the next one begins, by the machine's monotonic clock. What
lies between is the worker's report, the write of the events, the plan's decision, the next order,
and what the worker does around a step. Beside it: a bare `ProcessPoolExecutor` that is asked for
one call after the other, which keeps nothing.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import anyio

from asyncflow import Engine, FlowSpec, Parameter, step

STEPS = 2_000
REQUIRED_MS = 1.0, 3.0  # at the median, and at the 99th percentile


class Chain(FlowSpec):
    """One step after the other, as a loop."""

    turns = Parameter("turns", default=STEPS)

    @step
    def start(self) -> None:
        """Begin to count."""
        self.done = 0
        self.gap = 0.0
        self.ended = time.monotonic()
        self.next(self.turn)

    @step
    def turn(self) -> None:
        """What is measured."""
        began = time.monotonic()
        self.gap = began - self.ended
        self.done += 1
        self.again = self.done < self.turns
        self.ended = time.monotonic()
        self.next({True: self.turn, False: self.end}, condition="again")

    @step
    def end(self) -> None:
        """Nothing is left to do."""


def pool_gaps(pool: ProcessPoolExecutor, calls: int) -> list[float]:
    """The time between two calls that follow each other, in ms."""
    gaps, ended = [], 0.0
    for _ in range(calls):
        began = pool.submit(time.monotonic).result()
        if ended:
            gaps.append(1000 * (began - ended))
        ended = began
    return gaps


def told(gaps: list[float]) -> str:
    """Median and 99th percentile."""
    gaps.sort()
    late = gaps[len(gaps) * 99 // 100]
    return f"{statistics.median(gaps):.2f} ms, at the 99th percentile {late:.2f}"


async def measure(turns: int) -> None:
    """Print the gaps."""
    with tempfile.TemporaryDirectory() as store, ProcessPoolExecutor(1) as pool:
        pool_gaps(pool, 100)
        async with Engine(store=store, workers=2) as engine:
            await engine.run(Chain, turns=100)
            run = await engine.run(Chain, turns=turns)
            gaps = [1000 * task.data.gap for task in run["turn"]]
        bare = pool_gaps(pool, turns)
    median, late = REQUIRED_MS
    print(f"from one step's end to the next one's start: {told(gaps)} (at most {median}, {late})")
    print(f"  from one call of a bare pool to the next: {told(bare)}")


def main(turns: int = STEPS) -> None:
    """Measure."""
    anyio.run(measure, turns)


if __name__ == "__main__":
    main()
