"""What the other async tasks of a worker notice of one that stores, or reads, 256 MiB.

A task asks its event loop for a turn every millisecond, and notes how late each comes: that is the
gap. Beside it a bare ticker, in a process that does nothing else, measures the machine. There is
one worker. The array is made before, by a `def` step or in a thread; who reads it hashes it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np

from asyncflow import Engine, FlowSpec, Parameter, current, step
from asyncflow.store.blobs import verified

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.flow.join_inputs import Inputs, InputView

BYTES = 256 << 20
ROUNDS = 5
REQUIRED_MS = 20.0
TICK_SECONDS = 0.001
_over = False


async def tick(until: Callable[[], bool]) -> list[float]:
    """The gaps until then, in ms."""
    gaps = []
    while not until():
        began = time.perf_counter()
        await asyncio.sleep(TICK_SECONDS)
        gaps.append(1000 * (time.perf_counter() - began - TICK_SECONDS))
    return gaps


class Beside(FlowSpec):
    """One task has to do with a large array, and its neighbour ticks until that is over."""

    first = Parameter("first", default=0.0, help="makes the array one that the store has not seen")
    how = Parameter("how", default="stores")

    @step
    def start(self) -> None:
        """Make the array, for those who read it."""
        global _over  # noqa: PLW0603 - of the worker
        _over = False
        if self.how != "stores":
            self.array = np.arange(self.first, self.first + BYTES // 8)
        self.next(self.large, self.ticks)

    @step
    async def large(self) -> None:
        """Do what is measured."""
        first = self.first
        verified.clear()  # as in a worker that has not written it
        if self.how == "stores":
            array = await asyncio.to_thread(np.arange, first, first + BYTES // 8)
            self.array = array
        elif self.how == "reads":
            self.last = float(self.array[-1])
        else:
            self.last = float((await current.load("array"))[-1])
        self.next(self.after)

    @step
    async def after(self) -> None:
        """Tell the neighbour that it has been stored."""
        global _over  # noqa: PLW0603 - of the worker
        _over = True
        self.next(self.join)

    @step
    async def ticks(self) -> None:
        """Measure."""
        self.gaps = await tick(lambda: _over)
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Keep what was measured."""
        ticks: InputView = inputs.ticks
        self.gaps = ticks.gaps
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


async def bare() -> None:
    """Be the ticker that does nothing else, until standard input ends."""
    reading = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    print(json.dumps(await tick(reading.done)))


async def measure() -> None:
    """Each way, some times."""
    command = [sys.executable, "-m", "benchmarks.beside", "bare"]
    pipe = subprocess.PIPE
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=1) as engine:
            for how in ("stores", "reads", "loads"):
                most, bare_most = [], []
                for _ in range(ROUNDS):
                    beside = await asyncio.to_thread(
                        subprocess.Popen, command, stdin=pipe, stdout=pipe, text=True
                    )
                    await asyncio.sleep(0.5)  # for it to begin
                    run = await engine.run(Beside, how=how, first=time.time())
                    said, _ = await asyncio.to_thread(beside.communicate)
                    most.append(max(run.data.gaps))
                    bare_most.append(max(json.loads(said)))
                gap, other = statistics.median(most), statistics.median(bare_most)
                print(
                    f"one {how} 256 MiB: the greatest gap of its neighbour is {gap:.1f} ms "
                    f"(at best {min(most):.1f}, at worst {max(most):.1f}); of a bare ticker "
                    f"{other:.1f}, ratio {gap / other:.1f}"
                )
    print(f"  (at most {REQUIRED_MS} on a machine that is idle)")


def main() -> None:
    """Print the gaps."""
    asyncio.run(measure())


if __name__ == "__main__":
    asyncio.run(bare() if sys.argv[1:] == ["bare"] else measure())
