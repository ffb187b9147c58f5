"""Tasks per second with artifacts in an object store, beside a store in a folder; and requests.

Both are measured in turn within one run, warm, and the ratio of the medians is what counts. The
object store is moto's server on this machine, behind a proxy that delays each request. It needs
what `make test-cluster` installs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from typing import TYPE_CHECKING

import anyio

from asyncflow import Engine
from benchmarks.flows import Artifacts
from benchmarks.throughput import WORKERS, flow_rate
from tests.cluster.object_proxy import ObjectProxy
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from collections import Counter

DELAY_SECONDS = 0.05
REQUIRED_RATIO = 0.8
REQUIRED_REQUESTS = 0.05  # for each task


async def compare(proxy: ObjectProxy, location: str, tasks: int, rounds: int) -> None:
    """Print the rates, their ratio, and the requests of a run."""
    rates: dict[str, list[float]] = {"folder": [], "objects": []}
    counts: list[Counter[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Engine(store=folder, workers=WORKERS) as in_folder,
            Engine(store=location, workers=WORKERS) as in_objects,
        ):
            await flow_rate(in_folder, Artifacts, 200)
            await flow_rate(in_objects, Artifacts, 200)
            for _ in range(rounds):
                rates["folder"].append(await flow_rate(in_folder, Artifacts, tasks))
                proxy.set(delay=DELAY_SECONDS)
                rates["objects"].append(await flow_rate(in_objects, Artifacts, tasks))
                counts.append(proxy.count())
                proxy.set()
    base, rate = (statistics.median(rates[name]) for name in ("folder", "objects"))
    requests = statistics.median(each.total() for each in counts) / tasks
    print(f"{tasks} tasks of 20 KiB, {WORKERS} workers, median of {rounds} rounds")
    print(f"  folder                {base:8.0f} tasks/s")
    print(
        f"  objects, {1000 * DELAY_SECONDS:.0f} ms more  {rate:8.0f} tasks/s  "
        f"ratio {rate / base:.2f} (at least {REQUIRED_RATIO})"
    )
    told = ", ".join(f"{number} {kind}" for kind, number in counts[-1].most_common())
    print(f"  requests              {requests:8.3f} a task (at most {REQUIRED_REQUESTS}): {told}")


def main(tasks: int = 10_000, rounds: int = 3) -> None:
    """Run the comparison."""
    with (
        tempfile.TemporaryDirectory() as cache,
        S3Server() as server,
        ObjectProxy(server.endpoint) as proxy,
    ):
        os.environ |= {**server.environment, "AWS_ENDPOINT_URL": proxy.url}
        os.environ["ASYNCFLOW_CACHE"] = cache
        location = f"s3://{server.create_bucket('benchmark')}/flows"
        anyio.run(compare, proxy, location, tasks, rounds)


if __name__ == "__main__":
    main()
