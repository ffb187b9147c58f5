"""What a task of a wide foreach costs, and where: in the engine, in the workers, in the journal.

Rates are compared with a bare `ProcessPoolExecutor` in alternating rounds of one run. CPU time does
not depend on what else the machine does, so it tells more than the rates on a busy one. `--json
FILE` writes all numbers; `--tasks` and `--rounds` say how many.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import psutil

from asyncflow import Engine
from benchmarks.flows import NoOps, Typical
from benchmarks.throughput import WORKERS, pool_rate

if TYPE_CHECKING:
    from asyncflow import FlowSpec

REQUIRED = {"empty": 3.0, "typical": 2.0}
FLOWS: dict[str, type[FlowSpec]] = {"empty": NoOps, "typical": Typical}


def worker_seconds() -> float:
    """The CPU time of this process's descendants that are alive, the bare pool's left out."""
    return sum(
        sum(process.cpu_times()[:2])
        for child in psutil.Process().children()
        if child.pid not in _pool_pids
        for process in (child, *child.children(recursive=True))
    )


_pool_pids: set[int] = set()


async def measure(
    engine: Engine, store: Path, flow: type[FlowSpec], tasks: int
) -> dict[str, float]:
    """One run on a warm engine: tasks per second, and what each task took."""
    workers, own, began = worker_seconds(), time.process_time(), time.perf_counter()
    run = await engine.run(flow, width=tasks)
    seconds = time.perf_counter() - began
    own, workers = time.process_time() - own, worker_seconds() - workers
    assert run.data.count == tasks  # noqa: S101 - a benchmark of a wrong answer is worth nothing
    journal = (store / "flows" / run.pathspec / "journal").stat().st_size
    return {
        "tasks_per_second": tasks / seconds,
        "engine_us": own / tasks * 1e6,
        "worker_us": workers / tasks * 1e6,
        "journal_bytes": journal / tasks,
    }


async def compare(tasks: int, rounds: int) -> dict[str, Any]:
    """Alternating rounds of the bare pool and of each flow."""
    pools: list[float] = []
    found: dict[str, list[dict[str, float]]] = {name: [] for name in FLOWS}
    with tempfile.TemporaryDirectory() as store, ProcessPoolExecutor(WORKERS) as pool:
        pool_rate(pool, 1000)
        _pool_pids.update(child.pid for child in psutil.Process().children())
        async with Engine(store=store, workers=WORKERS) as engine:
            for flow in FLOWS.values():
                await measure(engine, Path(store), flow, 1000)
            for _ in range(rounds):
                pools.append(pool_rate(pool, tasks))
                for name, flow in FLOWS.items():
                    found[name].append(await measure(engine, Path(store), flow, tasks))
    base = statistics.median(pools)
    flows = {
        name: {key: statistics.median(each[key] for each in rows) for key in rows[0]}
        for name, rows in found.items()
    }
    for row in flows.values():
        row["of_the_bare_pool"] = row["tasks_per_second"] / base
    return {
        "tasks": tasks,
        "rounds": rounds,
        "workers": WORKERS,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {psutil.cpu_count()} cores",
        "pool_calls_per_second": base,
        "flows": flows,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the numbers, and write them to a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hotpath", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments or [])
    result = anyio.run(compare, options.tasks, options.rounds)
    print(
        f"{options.tasks} tasks, {WORKERS} workers, median of {options.rounds} rounds; "
        f"ProcessPoolExecutor {result['pool_calls_per_second']:.0f} calls/s"
    )
    for name, row in result["flows"].items():
        print(
            f"  {name:8s} {row['tasks_per_second']:6.0f} tasks/s, {row['of_the_bare_pool']:.2f} of "
            f"the pool (at least {REQUIRED[name]}); for each the engine takes "
            f"{row['engine_us']:.0f} µs, workers {row['worker_us']:.0f} µs, the journal "
            f"{row['journal_bytes']:.0f} bytes"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
