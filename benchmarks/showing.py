"""`asyncflow run` of a wide foreach with all of its log, beside the engine alone and a bare pool.

In turn within each round: the pool, a warm engine that nobody watches, `asyncflow run` with its log
in a pipe, `asyncflow run --log full` on a terminal (a pseudo-terminal of the kernel), and `run
--quiet`. A run's rate is that from the first byte of its log to the last; its start and its end as
a process are told beside it. `--tasks` and `--rounds` say how many, `--json FILE` writes all.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import anyio

from asyncflow import Engine
from benchmarks.flows import Typical
from benchmarks.throughput import WORKERS, flow_rate, pool_rate

FLOW = Path(__file__).parent / "flows.py"
REQUIRED = {"pipe": 1.5, "terminal": 1.0}
WAYS: dict[str, tuple[str, ...]] = {
    "pipe": (),
    "terminal": ("--log", "full"),
    "quiet": ("--quiet",),
}


def shown(way: str, store: str, tasks: int) -> dict[str, float]:
    """One run as a process of its own: tasks per second, CPU time of each, and the rest."""
    command = [
        *(sys.executable, "-m", "asyncflow", "run", f"{FLOW}:Typical", "--store", store),
        *("--workers", str(WORKERS), "--width", str(tasks), *WAYS[way]),
    ]
    environ = {**os.environ, "TERM": "xterm-256color"}
    if way == "terminal":
        reading, writing = pty.openpty()
    else:
        reading, writing = os.pipe()
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with subprocess.Popen(command, stdout=writing, stderr=writing, env=environ) as process:
        os.close(writing)
        first = last = size = 0.0
        with suppress(OSError):  # a terminal's end is an error
            while data := os.read(reading, 1 << 20):
                last = time.perf_counter()
                first = first or last
                size += len(data)
        os.close(reading)
        status = process.wait()
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0  # noqa: S101 - a benchmark of a failure is worth nothing
    own = last - first if way != "quiet" else seconds
    return {
        "tasks_per_second": tasks / own,
        "of_the_whole_process": tasks / seconds,
        "user_us": (used.ru_utime - before.ru_utime) / tasks * 1e6,
        "system_us": (used.ru_stime - before.ru_stime) / tasks * 1e6,
        "bytes": size / tasks,
    }


async def compare(tasks: int, rounds: int) -> dict[str, dict[str, float]]:
    """Alternating rounds of all."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("pool", "engine", *WAYS)}
    with tempfile.TemporaryDirectory() as store, ProcessPoolExecutor(WORKERS) as pool:
        pool_rate(pool, 1000)
        for way in WAYS:
            await anyio.to_thread.run_sync(shown, way, store, 1000)
        async with Engine(store=store, workers=WORKERS) as engine:
            await flow_rate(engine, Typical, 1000)
            for _ in range(rounds):
                found["pool"].append({"tasks_per_second": pool_rate(pool, tasks)})
                rate = await flow_rate(engine, Typical, tasks)
                found["engine"].append({"tasks_per_second": rate})
                for way in WAYS:
                    row = await anyio.to_thread.run_sync(shown, way, store, tasks)
                    found[way].append(row)
    return {
        name: {key: statistics.median(each[key] for each in rows) for key in rows[0]}
        for name, rows in found.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the numbers, and write them to a file if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.showing", description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    options = parser.parse_args(arguments or [])
    result = anyio.run(compare, options.tasks, options.rounds)
    base = result["pool"]["tasks_per_second"]
    print(f"{options.tasks} typical tasks, {WORKERS} workers, median of {options.rounds} rounds")
    for name, row in result.items():
        rate = row["tasks_per_second"]
        least = f" (at least {REQUIRED[name]})" if name in REQUIRED else ""
        print(f"  {name:9s} {rate:6.0f} a second, {rate / base:.2f} of the pool{least}", end="")
        if name in WAYS:
            whole = row["of_the_whole_process"]
            print(
                f"; as a whole process {whole:.0f}, {whole / base:.2f}; for each task "
                f"{row['user_us']:.0f} + {row['system_us']:.0f} µs, {row['bytes']:.0f} bytes",
                end="",
            )
        print()
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
