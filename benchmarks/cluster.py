"""No-op tasks through clusters: tasks per second, and the CPU time of the engine for each.

The same flow is run in worker processes, on two nodes behind sockets, on Dask and on Ray, each time
in a process of its own, in turn. Beside them are the engines themselves: as many calls as there are
tasks, each a task of Dask or of Ray. All have two workers. What is not installed is left out.

The CPU time is that of the process that holds the engine. Each process runs the flow with some
tasks and with four times as many. The difference tells what a task costs, and the rest is what a
run costs whatever its width. Told apart from both: connecting, with all imports, and a first run.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from asyncflow import Engine
from asyncflow.executors import Dask, Ray
from asyncflow.testing import Loopback
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 2
MORE = 4  # times as many tasks, in the second run
NEEDED = {"local": "asyncflow", "loopback": "asyncflow", "Dask": "distributed", "Ray": "ray"}


class Measured(NamedTuple):
    """One measurement."""

    rate: float
    """Tasks per second, of the larger run."""
    cpu: float
    """Microseconds of this process's CPU time for each further task."""
    fixed: float
    """Seconds of CPU time that a run takes, whatever its width."""
    opening: float
    """Seconds of CPU time of opening the engine, and of a first run."""


def nothing(number: int) -> int:
    """What a bare engine is given to do."""
    return number


def executor(name: str) -> Iterator[Any]:
    """Where the flow runs, as the options of an engine."""
    if name == "local":
        yield {}
    elif name == "loopback":
        yield {"executor": Loopback(workers=WORKERS, nodes=WORKERS)}
    elif name == "Ray":
        yield {"executor": Ray(workers=WORKERS)}
    else:
        with dask_cluster() as address:
            yield {"executor": Dask(address, workers=WORKERS)}


@contextmanager
def dask_cluster() -> Iterator[str]:
    """A Dask cluster in processes of its own."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "benchmarks.cluster", "be-dask"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        address = process.stdout.readline().strip()
        if not address:
            sys.exit("the Dask cluster has not started")
        yield address
        process.communicate()


def be_dask() -> None:
    """Be that cluster until standard input ends."""
    from distributed import LocalCluster  # noqa: PLC0415 - not installed everywhere

    with LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


async def flow_once(engine: Engine, tasks: int) -> tuple[float, float]:
    """One run of the flow: its seconds, and those of CPU time."""
    began, cpu = time.perf_counter(), time.process_time()
    run = await engine.run(NoOps, width=tasks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert run.data.count == tasks  # noqa: S101 - a benchmark of a wrong answer is worth nothing
    return seconds, cpu


async def measure(name: str, tasks: int) -> Measured:
    """Run the flow in this process."""
    with tempfile.TemporaryDirectory() as store, contextmanager(executor)(name) as given:
        cpu = time.process_time()
        async with Engine(store=store, workers=WORKERS, **given) as engine:
            await flow_once(engine, 500)
            opening = time.process_time() - cpu
            _, few = await flow_once(engine, tasks)
            seconds, many = await flow_once(engine, MORE * tasks)
    each = (many - few) / ((MORE - 1) * tasks)
    return Measured(MORE * tasks / seconds, each * 1e6, few - each * tasks, opening)


def measure_elsewhere(name: str, tasks: int) -> Measured:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.cluster", name, str(tasks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def bare_dask(tasks: int, rounds: int) -> float:
    """Tasks of Dask a second, by its own client."""
    from distributed import Client  # noqa: PLC0415 - not installed everywhere

    with dask_cluster() as address, Client(address) as client:
        return bare(
            lambda: client.gather(client.map(nothing, range(tasks), pure=False)), tasks, rounds
        )


def bare_ray(tasks: int, rounds: int) -> float:
    """Tasks of Ray a second."""
    import ray  # noqa: PLC0415 - not installed everywhere

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(nothing)
        return bare(
            lambda: ray.get([remote.remote(number) for number in range(tasks)]), tasks, rounds
        )
    finally:
        ray.shutdown()


def bare(work: Callable[[], object], tasks: int, rounds: int) -> float:
    """The rate of an engine's own tasks, once it is warm."""
    work()
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        rates.append(tasks / (time.perf_counter() - began))
    return statistics.median(rates)


def main(tasks: int = 5_000, rounds: int = 3, bare_tasks: int = 1_000) -> None:
    """Run the comparison."""
    names = [name for name, module in NEEDED.items() if importlib.util.find_spec(module)]
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            measured[name].append(measure_elsewhere(name, tasks))
    print(f"{tasks} and {MORE * tasks} no-op tasks, {WORKERS} workers, median of {rounds} rounds")
    print("  goal: at least 1,000 tasks/s, at most 1.5 times the local CPU time of a task")
    local = statistics.median(each.cpu for each in measured["local"])
    for name in names:
        rate, cpu, fixed, opening = map(statistics.median, zip(*measured[name], strict=True))
        print(
            f"  {name:10s} {rate:7.0f} tasks/s  {cpu:5.0f} us of CPU a task  x {cpu / local:.2f}"
            f"  and {fixed:6.3f} s a run, {opening:6.3f} s to connect and warm up"
        )
    for name, run_bare in (("Dask", bare_dask), ("Ray", bare_ray)):
        if name in names:
            print(f"  bare {name:5s} {run_bare(bare_tasks, rounds):7.0f} tasks/s")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["be-dask"]:
            be_dask()
        case [which, count]:
            named = {name.lower(): name for name in NEEDED}
            if which.lower() not in named:
                sys.exit(f"{which} is none of {', '.join(NEEDED)}")
            print(json.dumps(anyio.run(measure, named[which.lower()], int(count))))
        case _:
            main()
