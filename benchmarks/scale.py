"""Cost per task and memory of the engine, at 1,000 and at 100,000 tasks."""

from __future__ import annotations

import gc
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from asyncflow import Engine
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SMALL, LARGE = 1_000, 100_000


def resident_bytes() -> int:
    """What this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def peak_during(work: Callable[[], Awaitable[object]]) -> int:
    """By how many bytes this process grows, at the most, while the work is done."""
    gc.collect()
    before = highest = resident_bytes()

    async def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, resident_bytes())
            await anyio.sleep(0.02)

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await work()
        group.cancel_scope.cancel()
    return highest - before


async def compare() -> None:
    """Print the cost per task at both sizes, and the memory per task at the larger."""
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=2) as engine:
            await engine.run(NoOps, width=SMALL)

            async def seconds_per_task(width: int) -> float:
                began = time.perf_counter()
                await engine.run(NoOps, width=width)
                return (time.perf_counter() - began) / width

            # As many tasks in small runs as in the large one, before and after it.
            rounds = LARGE // SMALL // 2
            small = [await seconds_per_task(SMALL) for _ in range(rounds)]
            large = 0.0

            async def run_large() -> None:
                nonlocal large
                large = await seconds_per_task(LARGE)

            grown = await peak_during(run_large)
            small += [await seconds_per_task(SMALL) for _ in range(rounds)]
    mean = sum(small) / len(small)
    print(
        f"a task in runs of {SMALL}: {mean * 1e6:.0f} µs; in a run of {LARGE}: {large * 1e6:.0f} µs"
    )
    print(f"  ratio {large / mean:.2f} (at most 1.1)")
    print(f"engine memory: {grown / LARGE:.0f} bytes for a task (at most 1024)")


def main() -> None:
    """Run the comparison."""
    anyio.run(compare)


if __name__ == "__main__":
    main()
