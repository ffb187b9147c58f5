"""Tasks per second, beside a bare `ProcessPoolExecutor` given as many calls.

Both are measured in turn within one run, warm, and the ratio of the medians is what counts. What is
measured of asyncflow is a whole run: its tasks, events and artifacts durable, its summary written.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, wait

import anyio

from asyncflow import Engine
from benchmarks.flows import Artifacts, NoOps

WORKERS = 2


def nothing(_: int) -> None:
    """What a bare pool is given to do."""


def pool_rate(pool: ProcessPoolExecutor, tasks: int) -> float:
    """Calls per second of a warm pool."""
    began = time.perf_counter()
    wait([pool.submit(nothing, number) for number in range(tasks)])
    return tasks / (time.perf_counter() - began)


async def flow_rate(engine: Engine, flow: type, tasks: int) -> float:
    """Tasks per second of one run on a warm engine."""
    began = time.perf_counter()
    run = await engine.run(flow, width=tasks)
    seconds = time.perf_counter() - began
    assert run.data.count == tasks  # noqa: S101 - a benchmark of a wrong answer is worth nothing
    return tasks / seconds


async def compare(tasks: int, rounds: int) -> None:
    """Print the rates and their ratios."""
    with tempfile.TemporaryDirectory() as store, ProcessPoolExecutor(WORKERS) as pool:
        pool_rate(pool, 1000)
        async with Engine(store=store, workers=WORKERS) as engine:
            await flow_rate(engine, NoOps, 1000)
            rates: dict[str, list[float]] = {"pool": [], "no-op": [], "20 KiB": []}
            for _ in range(rounds):
                rates["pool"].append(pool_rate(pool, tasks))
                rates["no-op"].append(await flow_rate(engine, NoOps, tasks))
                rates["20 KiB"].append(await flow_rate(engine, Artifacts, tasks))
    base = statistics.median(rates["pool"])
    print(f"{tasks} tasks, {WORKERS} workers, median of {rounds} rounds")
    print(f"  ProcessPoolExecutor   {base:8.0f} calls/s")
    for name, required in (("no-op", 1.0), ("20 KiB", 0.5)):
        rate = statistics.median(rates[name])
        print(f"  {name:20s}  {rate:8.0f} tasks/s  ratio {rate / base:.2f} (at least {required})")


def main(tasks: int = 10_000, rounds: int = 5) -> None:
    """Run the comparison."""
    anyio.run(compare, tasks, rounds)


if __name__ == "__main__":
    main()
