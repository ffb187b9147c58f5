"""How long a worker's event loop stands still while an async step stores or reads a large value.

Two async tasks run side by side on one worker. One makes a value of up to 256 MiB, which is stored
when its step has ended; a later one reads it, with `current.load` or as a plain attribute. The
other task sleeps for a millisecond again and again, and keeps the longest time that this took,
without the time for which the kernel gave its thread no processor. Beside it, in turn, is a value
of nothing: what the machine does by itself. Of each round's longest gap, the median is told.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pandas as pd

from asyncflow import Engine, FlowSpec, Parameter, current, step

BYTES = 256 << 20
ROUNDS = 3
REQUIRED_MS = 20
_TICK_SECONDS = 0.001
_WATCHED_SECONDS = 2.0
_ready: dict[str, asyncio.Event] = {}  # of each run: the other task of the worker is about to begin


def made(kind: str) -> Any:
    """A value of its kind, which the store has not seen."""
    first, length = random.random(), BYTES // 8
    if kind == "array":
        return np.arange(first, first + length)
    if kind == "dict with bytes":
        return {"data": np.arange(first, first + length).tobytes()}
    if kind == "frame of pandas":
        return pd.DataFrame(np.arange(first, first + length).reshape(-1, 8))
    if kind == "1,000 arrays":
        return [np.arange(first + n, first + n + length // 1000) for n in range(1000)]
    if kind == "500,000 tuples":  # Python's own objects
        return [(first + n, str(n)) for n in range(500_000)]
    return None


KINDS = (
    "nothing",
    "array",
    "dict with bytes",
    "frame of pandas",
    "1,000 arrays",
    "500,000 tuples",
)


async def longest_gap() -> float:
    """How late a sleep of a millisecond was at most, in seconds, from the other task's sign on."""
    await _ready.setdefault(current.run_id, asyncio.Event()).wait()
    longest, until = 0.0, time.perf_counter() + _WATCHED_SECONDS
    while (began := time.perf_counter()) < until:
        waited = unscheduled_seconds()
        await asyncio.sleep(_TICK_SECONDS)
        late = time.perf_counter() - began - _TICK_SECONDS
        longest = max(longest, late - (unscheduled_seconds() - waited))
    del _ready[current.run_id]
    return longest


def unscheduled_seconds() -> float:
    """For how long this thread was ready to run, and the kernel ran others; 0 if it cannot tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def begin() -> None:
    """Give the task that watches its sign."""
    _ready.setdefault(current.run_id, asyncio.Event()).set()


class Gaps(FlowSpec):
    """One task stores or reads, and the other one watches the loop that they share."""

    kind = Parameter("kind", default="array")
    how = Parameter("how", default="load", help="how the value is read: by load or as attribute")

    @step
    async def start(self) -> None:
        """Begin two tasks that share a loop."""
        self.roles = ["store", "watch"]
        self.next(self.storing, foreach="roles")

    @step
    async def storing(self) -> None:
        """Make the value, or watch until it is stored."""
        if self.input == "store":
            self.value = await asyncio.to_thread(made, self.kind)
            begin()
        else:
            self.gap = await longest_gap()
        self.next(self.stored)

    @step
    async def stored(self, inputs: Any) -> None:
        """Pass the value on as it is."""
        self.merge_artifacts(inputs, include=["value", "gap"])
        self.store_gap, self.roles = self.gap, ["read", "watch"]
        self.next(self.reading, foreach="roles")

    @step
    async def reading(self) -> None:
        """Read the value, or watch meanwhile."""
        if self.input == "watch":
            self.read_gap = await longest_gap()
        else:
            await asyncio.sleep(0.1)  # the other one has begun
            begin()
            await asyncio.sleep(0.1)
            if self.how == "load":
                await current.load("value")
            else:
                _ = self.value
        self.next(self.read)

    @step
    async def read(self, inputs: Any) -> None:
        """Keep the gaps."""
        self.merge_artifacts(inputs, include=["store_gap", "read_gap"])
        self.next(self.end)

    @step
    async def end(self) -> None:
        """Nothing is left to do."""


async def measure(kinds: tuple[str, ...] = KINDS, rounds: int = ROUNDS) -> None:
    """Print the longest gaps of each kind of value."""
    gaps: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for kind in kinds:
            for how in ("load", "attribute"):
                with tempfile.TemporaryDirectory() as folder:
                    async with Engine(store=folder, workers=1) as engine:
                        run = await engine.run(Gaps, kind=kind, how=how)
                        data = run["end"].task.data
                        gaps.setdefault((kind, "stored"), []).append(data.store_gap)
                        gaps.setdefault((kind, how), []).append(data.read_gap)
    print(f"longest gap of a worker's event loop in ms (at most {REQUIRED_MS}); median, range")
    for (kind, what), seconds in gaps.items():
        told = sorted(1000 * each for each in seconds)
        middle = statistics.median(told)
        print(f"  {kind:16s} {what:10s} {middle:7.1f}  {told[0]:.1f} to {told[-1]:.1f}")


def main() -> None:
    """Measure the kinds that are named, or all."""
    anyio.run(measure, tuple(sys.argv[1:]) or KINDS)


if __name__ == "__main__":
    main()
