"""`asyncflow run` of a four-step flow as a whole process, beside the imports that it needs.

Then the same flow again and again in one engine. At last, if `make bench-peers ARGS=luigi` has set
Luigi up: the small flow of `benchmarks/peers` in asyncflow and in Luigi, in turn.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anyio
import psutil

from asyncflow import Engine
from benchmarks.peers import __main__ as peers
from examples.artifact_flow import ArtifactFlow

FLOW = Path(__file__).parent.parent / "examples" / "artifact_flow.py"
IMPORTS = "import anyio, msgpack, cloudpickle, aiofiles, structlog, click"
REQUIRED = 1.5
REQUIRED_FURTHER_MS = 20
REQUIRED_OF_LUIGI = 1.0
_FURTHER_RUNS = 40


def seconds(command: list[str], cache: str) -> float:
    """How long a command takes from its start to its end, once its modules are compiled."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environ)
    return time.perf_counter() - began


async def further() -> tuple[float, float]:
    """How long a further run in an engine takes, and how much CPU time of all its processes."""
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=2) as engine:
            await engine.run(ArtifactFlow)
            before, times = _cpu_seconds(), []
            for _ in range(_FURTHER_RUNS):
                began = time.perf_counter()
                await engine.run(ArtifactFlow)
                times.append(time.perf_counter() - began)
            used = (_cpu_seconds() - before) / _FURTHER_RUNS
    return statistics.median(times), used


def _cpu_seconds() -> float:
    own = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in (own, *own.children(recursive=True)))


def beside_luigi(rounds: int) -> None:
    """Print what four steps take in asyncflow and in Luigi, as whole processes, and the ratio."""
    taken: dict[str, list[float]] = {"luigi": [], "asyncflow": []}
    used: dict[str, list[float]] = {"luigi": [], "asyncflow": []}
    with tempfile.TemporaryDirectory() as homes:
        for name in taken:
            Path(homes, name).mkdir()
            peers.seconds(name, 1, f"{homes}/{name}")
        for _ in range(rounds):
            for name, seconds_of in taken.items():
                before = _seconds_of_children()
                seconds_of.append(peers.seconds(name, 1, f"{homes}/{name}"))
                used[name].append(_seconds_of_children() - before)
    for name, seconds_of in taken.items():
        wall, cpu = statistics.median(seconds_of) * 1000, statistics.median(used[name]) * 1000
        print(f"four steps in {name}: {wall:.0f} ms, {cpu:.0f} ms of CPU time in all processes")
    pairs = zip(taken["asyncflow"], taken["luigi"], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    print(f"  ratio {ratio:.2f} (at most {REQUIRED_OF_LUIGI})")


def _seconds_of_children() -> float:
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return ended.ru_utime + ended.ru_stime


def main(rounds: int = 15) -> None:
    """Measure both in turn, and print the ratio of the medians."""
    with tempfile.TemporaryDirectory() as store, tempfile.TemporaryDirectory() as cache:
        commands = {
            "imports": [sys.executable, "-c", IMPORTS],
            "run": [sys.executable, "-m", "asyncflow", "run", str(FLOW), "--store", store],
            "import asyncflow": [sys.executable, "-c", "import asyncflow"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command, cache)
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command, cache))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["imports"]
    print(f"`{IMPORTS}`: {base * 1000:.0f} ms")
    print(f"asyncflow run of four steps: {medians['run'] * 1000:.0f} ms, ", end="")
    print(f"ratio {medians['run'] / base:.2f} (at most {REQUIRED})")
    own = medians["import asyncflow"]
    print(f"import asyncflow: {own * 1000:.0f} ms, ratio {own / base:.2f} (at most 2)")
    took, used = anyio.run(further)
    print(
        f"a further run in one engine: {took * 1000:.0f} ms (at most {REQUIRED_FURTHER_MS}), "
        f"{used * 1000:.1f} ms of CPU time"
    )
    if (peers.ENVIRONMENTS / "luigi").exists():
        beside_luigi(rounds)


if __name__ == "__main__":
    main()
