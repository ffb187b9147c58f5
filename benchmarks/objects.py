"""Tasks per second with artifacts in an object store, beside a store in a folder; and requests.

Both are measured in turn within one run, warm, and the ratio of the medians is what counts. The
object store is moto's server on this machine, behind a proxy that delays each request. It needs
what `make test-cluster` installs.

Server and proxy are Python, and take CPU from what is measured, as no object store elsewhere does.
With tasks that do nothing the CPU is all there is. So the CPU time of each task is told as well: of
the engine, of its workers, and of these two. The CPU time of engine and workers alone, beside that
with a folder, is what the rates would be where the server has a machine of its own. Tasks that take
5 ms without CPU show what the latency alone costs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import anyio
import psutil

from asyncflow import Engine
from benchmarks.flows import Artifacts, Lasting
from benchmarks.throughput import WORKERS, flow_rate
from tests.cluster.object_proxy import ObjectProxy
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

DELAY_SECONDS = 0.05
REQUIRED_RATIO = 0.8
REQUIRED_REQUESTS = 0.05  # for each task


class Place(NamedTuple):
    """The object store."""

    server: S3Server
    proxy: ObjectProxy
    location: str

    def cpu_seconds(self) -> CpuSeconds:
        """The CPU time that everybody has taken so far."""
        theirs = {self.server.pid, self.proxy.pid}
        children = psutil.Process().children(recursive=True)
        workers = [process for process in children if process.pid not in theirs]
        return CpuSeconds(
            time.process_time(), _cpu_seconds(workers), _cpu_seconds(map(psutil.Process, theirs))
        )


class CpuSeconds(NamedTuple):
    """CPU time by who has taken it."""

    engine: float
    workers: float
    server: float
    """And the proxy before it."""


def _cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def compare(place: Place, flows: Sequence[tuple[str, type, int]], rounds: int) -> None:
    """Print the rates, their ratio, and the requests of each flow."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Engine(store=folder, workers=WORKERS) as in_folder,
            Engine(store=place.location, workers=WORKERS) as in_objects,
        ):
            await flow_rate(in_folder, Artifacts, 200)
            await flow_rate(in_objects, Artifacts, 200)
            for name, flow, tasks in flows:
                print(f"{tasks} {name}, {WORKERS} workers, median of {rounds} rounds")
                await _compare(place, in_folder, in_objects, flow, tasks, rounds)


async def _compare(
    place: Place, in_folder: Engine, in_objects: Engine, flow: type, tasks: int, rounds: int
) -> None:
    rates: dict[str, list[float]] = {"folder": [], "objects": []}
    cpu: dict[str, list[CpuSeconds]] = {"folder": [], "objects": []}
    counts: list[Counter[str]] = []
    for _ in range(rounds):
        for name, engine in (("folder", in_folder), ("objects", in_objects)):
            place.proxy.set(delay=DELAY_SECONDS if name == "objects" else 0.0)
            before = place.cpu_seconds()
            rates[name].append(await flow_rate(engine, flow, tasks))
            taken = zip(before, place.cpu_seconds(), strict=True)
            cpu[name].append(CpuSeconds(*(after - at_first for at_first, after in taken)))
        counts.append(place.proxy.count())
        place.proxy.set()
    base, rate = (statistics.median(rates[name]) for name in ("folder", "objects"))
    requests = statistics.median(each.total() for each in counts) / tasks
    print(f"  folder                {base:8.0f} tasks/s")
    print(
        f"  objects, {1000 * DELAY_SECONDS:.0f} ms more  {rate:8.0f} tasks/s  "
        f"ratio {rate / base:.2f} (at least {REQUIRED_RATIO})"
    )
    told = ", ".join(f"{number} {kind}" for kind, number in counts[-1].most_common())
    print(f"  requests              {requests:8.3f} a task (at most {REQUIRED_REQUESTS}): {told}")
    ours = {}
    for name, rounds_of in cpu.items():
        each = CpuSeconds(
            *(statistics.median(part) / tasks * 1e6 for part in zip(*rounds_of, strict=True))
        )
        ours[name] = each.engine + each.workers
        print(
            f"  CPU, {name:7s}        {ours[name]:9.0f} us a task: engine {each.engine:.0f}, "
            f"workers {each.workers:.0f}; beside them server and proxy {each.server:.0f}"
        )
    print(f"  without the server's  {ours['folder'] / ours['objects']:17.2f} of the folder's rate")


def main(tasks: int = 10_000, rounds: int = 3) -> None:
    """Run the comparison."""
    flows = [
        ("tasks that make 20 KiB", Artifacts, tasks),
        ("of them that take 5 ms", Lasting, tasks // 2),
    ]
    with (
        tempfile.TemporaryDirectory() as cache,
        S3Server() as server,
        ObjectProxy(server.endpoint) as proxy,
    ):
        os.environ |= {**server.environment, "AWS_ENDPOINT_URL": proxy.url}
        os.environ["ASYNCFLOW_CACHE"] = cache
        place = Place(server, proxy, f"s3://{server.create_bucket('benchmark')}/flows")
        anyio.run(compare, place, flows, rounds)


if __name__ == "__main__":
    main()
