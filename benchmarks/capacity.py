"""What tasks cost in an object store, and what ten million of them need.

First, runs with values of three sizes go through a proxy that counts requests. Then the plan of
`docs/how-to/capacity.md` is simulated: pieces of a journal of that length are listed, chained and
found, and the index is filled, by the code that does so in a real store. It needs what
`make test-cluster` installs.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from typing import TYPE_CHECKING, NamedTuple

import anyio

from asyncflow import Engine, FlowSpec, Parameter, step
from asyncflow.store.object_store.pieces import HEADER_BYTES, Chain, name_of
from asyncflow.store.task_table import TaskState, TaskTable
from benchmarks.flows import Artifacts, NoOps
from tests.cluster.object_proxy import ObjectProxy
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from asyncflow.flow.join_inputs import Inputs

MILLION = 1_000_000
WRITES, READS = 5.00, 0.40
"""Dollars for a million requests that write or list, and that read, in S3's standard class."""
_CHEAP = frozenset({"get", "head"})
_FREE = frozenset({"delete", "abort"})


class Blobs(FlowSpec):
    """Each task makes an artifact of 1 MB, which is like no other."""

    width = Parameter("width", default=100)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What is measured."""
        self.payload = os.urandom(MILLION)
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Measured(NamedTuple):
    """What a task of a flow has cost."""

    requests: dict[str, float]
    journal_bytes: float
    driver_seconds: float


async def measure(engine: Engine, proxy: ObjectProxy, flow: type[FlowSpec], tasks: int) -> Measured:
    """Run a flow, and print what a task costs."""
    proxy.set(delay=0.03)
    cpu, began = time.process_time(), time.perf_counter()
    run = await engine.run(flow, width=tasks)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    with run._record.stored.open_journal() as journal:  # noqa: SLF001 - the length of a journal
        size = journal.size()
    requests = {kind: number / tasks for kind, number in proxy.count().items()}
    told = ", ".join(f"{each * MILLION:,.0f} {kind}" for kind, each in requests.items())
    print(
        f"{flow.__name__}: {tasks:,} tasks in {seconds:.1f} s, {1e6 * cpu / tasks:,.0f} µs of CPU"
    )
    print(f"  a million: {told}")
    print(f"  a million: {dollars(requests):,.2f} dollars, journal {size / tasks:,.0f} MB")
    return Measured(requests, size / tasks, cpu / tasks)


def dollars(requests: dict[str, float]) -> float:
    """The price of the requests of a million tasks."""
    return sum(
        each * (READS if kind in _CHEAP else WRITES)
        for kind, each in requests.items()
        if kind not in _FREE
    )


def simulate(tasks: int, journal_bytes: float, rate: float) -> None:
    """Print what the journal of so many tasks is like in an object store."""
    end = int(tasks * journal_bytes)
    seconds = tasks / rate
    pieces = int(max(seconds * 4, end / 2**20))
    size = end // pieces
    listed = (
        (f"flows/F/1/journal/{name_of(n * size)}", size + HEADER_BYTES) for n in range(pieces)
    )
    chain = Chain()
    began = time.perf_counter()
    chain.add_listed(listed)
    chained = time.perf_counter() - began
    began = time.perf_counter()
    for at in range(0, chain.end, chain.end // 100_000):
        chain.find(at)
    found = (time.perf_counter() - began) / 100_000
    table, began = TaskTable(), time.perf_counter()
    for task in range(1, MILLION + 1):
        table.begin(task, task, 1, TaskState.STARTED, 0, task)
        table.end(task, task, 1, TaskState.SUCCEEDED, 0, task)
    indexed = (time.perf_counter() - began) / MILLION
    print(f"{tasks:,} tasks at {rate:,.0f}/s take {seconds / 3600:.1f} h")
    print(f"  journal: {end / 1e9:.1f} GB in {pieces:,} pieces of {size / 1e3:,.0f} kB")
    print(f"  opened while it runs: {-(-pieces // 1000):,} listings, {chained:.2f} s of CPU")
    print(f"  a record is found in {1e6 * found:.1f} µs and one request")
    print(f"  index: {24 * tasks / 1e6:,.0f} MB, {1e6 * indexed:.1f} µs for each task")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"  memory of this process, at most: {memory} MB")


async def measure_all(proxy: ObjectProxy, location: str, tasks: int) -> None:
    """Measure each size of value, then simulate ten million small tasks."""
    async with Engine(store=location, workers=2) as engine:
        await engine.run(NoOps, width=100)
        small = await measure(engine, proxy, NoOps, tasks)
        await measure(engine, proxy, Artifacts, tasks)
        await measure(engine, proxy, Blobs, tasks // 40)
    for rate in (300, 1_000, 3_000):
        simulate(10 * MILLION, small.journal_bytes, rate)


def main(tasks: int = 10_000) -> None:
    """Measure, then simulate."""
    with (
        tempfile.TemporaryDirectory() as cache,
        S3Server() as server,
        ObjectProxy(server.endpoint) as proxy,
    ):
        os.environ |= {**server.environment, "AWS_ENDPOINT_URL": proxy.url}
        os.environ["ASYNCFLOW_CACHE"] = cache
        location = f"s3://{server.create_bucket('capacity')}/flows"
        anyio.run(measure_all, proxy, location, tasks)


if __name__ == "__main__":
    main()
