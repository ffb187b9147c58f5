"""No-op tasks through clusters: tasks per second, and the CPU time of the engine for each.

The same flow is run in worker processes, on two nodes behind sockets, on Dask and on Ray, in turn.
Beside them, in the same run, are the engines themselves: as many calls as there are tasks, each a
task of Dask or of Ray. All have two workers. What is not installed is left out.

The CPU time is that of this process. A local Dask cluster has its scheduler there as well.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from asyncflow import Engine
from asyncflow.executors import Dask, Ray
from asyncflow.testing import Loopback
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 2


class Measured(NamedTuple):
    """One measurement."""

    rate: float
    """Tasks per second."""
    cpu: float
    """Microseconds of this process's CPU time for each task."""


def nothing(number: int) -> int:
    """What a bare engine is given to do."""
    return number


def executors() -> dict[str, Any]:
    """Where the flow runs."""
    found: dict[str, Any] = {"local": None, "loopback": Loopback(workers=WORKERS, nodes=WORKERS)}
    if importlib.util.find_spec("distributed"):
        found["Dask"] = Dask(workers=WORKERS)
    if importlib.util.find_spec("ray"):
        found["Ray"] = Ray(workers=WORKERS)
    return found


async def flow_once(engine: Engine, tasks: int) -> Measured:
    """One run of the flow."""
    began, cpu = time.perf_counter(), time.process_time()
    run = await engine.run(NoOps, width=tasks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert run.data.count == tasks  # noqa: S101 - a benchmark of a wrong answer is worth nothing
    return Measured(tasks / seconds, cpu / tasks * 1e6)


def bare_dask(tasks: int, rounds: int) -> list[Measured]:
    """As many tasks of Dask, by its own client."""
    from distributed import Client, LocalCluster  # noqa: PLC0415 - not installed everywhere

    with (
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        return bare(
            lambda: client.gather(client.map(nothing, range(tasks), pure=False)), tasks, rounds
        )


def bare_ray(tasks: int, rounds: int) -> list[Measured]:
    """As many tasks of Ray."""
    import ray  # noqa: PLC0415 - not installed everywhere

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    try:
        remote = ray.remote(nothing)
        return bare(
            lambda: ray.get([remote.remote(number) for number in range(tasks)]), tasks, rounds
        )
    finally:
        ray.shutdown()


def bare(work: Callable[[], object], tasks: int, rounds: int) -> list[Measured]:
    """Measure an engine's own tasks, once it is warm."""
    work()
    measured = []
    for _ in range(rounds):
        began, cpu = time.perf_counter(), time.process_time()
        work()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        measured.append(Measured(tasks / seconds, cpu / tasks * 1e6))
    return measured


async def flows(tasks: int, rounds: int) -> dict[str, list[Measured]]:
    """The flow everywhere, in turn."""
    measured: dict[str, list[Measured]] = {}
    async with AsyncExitStack() as stack:
        engines = {}
        for name, executor in executors().items():
            store = stack.enter_context(tempfile.TemporaryDirectory())
            given = {} if executor is None else {"executor": executor}
            engine = Engine(store=store, workers=WORKERS, **given)
            engines[name] = await stack.enter_async_context(engine)
            await flow_once(engine, 200)
        for _ in range(rounds):
            for name, engine in engines.items():
                measured.setdefault(name, []).append(await flow_once(engine, tasks))
    return measured


def main(tasks: int = 5_000, rounds: int = 5, bare_tasks: int = 1_000) -> None:
    """Run the comparison."""
    measured = anyio.run(flows, tasks, rounds)
    if "Dask" in measured:
        measured["bare Dask"] = bare_dask(bare_tasks, rounds)
    if "Ray" in measured:
        measured["bare Ray"] = bare_ray(bare_tasks, rounds)
    local = statistics.median(each.cpu for each in measured["local"])
    print(f"{tasks} no-op tasks, {WORKERS} workers, median of {rounds} rounds")
    print("  goal: at least 1,000 tasks/s, at most 1.5 times the local CPU time")
    for name, all_of in measured.items():
        rate = statistics.median(each.rate for each in all_of)
        cpu = statistics.median(each.cpu for each in all_of)
        print(f"  {name:10s} {rate:7.0f} tasks/s  {cpu:5.0f} us of CPU a task  x {cpu / local:.2f}")


if __name__ == "__main__":
    main()
