"""Tasks per second with artifacts in an object store, beside a store in a folder; and requests.

All are measured in turn within one run, warm, and the ratio of the medians is what counts. The
object store is `benchmarks.object_server`, which answers 50 ms late: over TLS, as a store elsewhere
is reached, and over plain HTTP. There obstore hashes what it sends, SHA-256, to sign it: nothing
else protects it. Over TLS it does not, as boto3 does not. It needs what `make test-cluster`
installs.

The server takes CPU from what is measured, as no object store elsewhere does: with tasks that do
nothing the CPU is all there is. So the CPU time of each task is told as well: of the engine, of its
workers, and of the server. The CPU time of engine and workers alone, beside that with a folder, is
what the rates would be where the server has a machine of its own. Tasks that take 5 ms without CPU
show what the latency alone costs.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
import psutil

from asyncflow import Engine
from benchmarks.flows import Artifacts, Lasting
from benchmarks.object_server import ObjectServer
from benchmarks.throughput import WORKERS, flow_rate

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Sequence

DELAY_SECONDS = 0.05
REQUIRED_RATIO = 0.8
REQUIRED_REQUESTS = 0.05  # for each task
_FOLDER: Final = "folder"
_WAYS: Final = {"TLS": True, "plain HTTP": False}


class CpuSeconds(NamedTuple):
    """CPU time by who has taken it."""

    engine: float
    workers: float
    server: float


class Round(NamedTuple):
    """What one run took."""

    rate: float
    """Tasks per second."""
    cpu: CpuSeconds
    """For each task."""
    requests: Counter[str]


def _cpu_seconds(server: psutil.Process) -> CpuSeconds:
    """The CPU time that everybody has taken so far."""
    children = psutil.Process().children(recursive=True)
    workers = [process for process in children if process != server]
    return CpuSeconds(time.process_time(), _taken_by(workers), _taken_by([server]))


def _taken_by(processes: Iterable[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            total += times.user + times.system
    return total


async def compare(
    server: ObjectServer, flows: Sequence[tuple[str, type, int]], rounds: int
) -> None:
    """Print the rates, their ratios, and the requests of each flow."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        engines = {_FOLDER: await stack.enter_async_context(Engine(store=folder, workers=WORKERS))}
        for way, tls in _WAYS.items():
            os.environ |= server.environment(tls=tls)
            location = f"s3://benchmark-{'tls' if tls else 'plain'}/flows"
            engines[way] = await stack.enter_async_context(Engine(store=location, workers=WORKERS))
        for engine in engines.values():
            await flow_rate(engine, Artifacts, 200)
        for name, flow, tasks in flows:
            print(f"{tasks} {name}, {WORKERS} workers, median of {rounds} rounds")
            taken: dict[str, list[Round]] = {way: [] for way in engines}
            for _ in range(rounds):
                for way, engine in engines.items():
                    taken[way].append(await _measure(server, engine, flow, tasks))
            _tell(taken, tasks)


async def _measure(server: ObjectServer, engine: Engine, flow: type, tasks: int) -> Round:
    process = psutil.Process(server.pid)
    server.set(DELAY_SECONDS)
    before = _cpu_seconds(process)
    rate = await flow_rate(engine, flow, tasks)
    taken = zip(before, _cpu_seconds(process), strict=True)
    each = CpuSeconds(*((after - at_first) / tasks for at_first, after in taken))
    return Round(rate, each, server.set(DELAY_SECONDS))


def _tell(taken: dict[str, list[Round]], tasks: int) -> None:
    base = 0.0, 0.0
    for way, rounds in taken.items():
        rate = statistics.median(each.rate for each in rounds)
        by_whom = zip(*(each.cpu for each in rounds), strict=True)
        cpu = CpuSeconds(*(1e6 * statistics.median(part) for part in by_whom))
        ours = cpu.engine + cpu.workers
        told = f"CPU {ours:4.0f} us a task: engine {cpu.engine:.0f}, workers {cpu.workers:.0f}"
        if way == _FOLDER:
            base = rate, ours
            print(f"  {_FOLDER:12s}{rate:8.0f} tasks/s; {told}")
            continue
        print(f"  {way:12s}{rate:8.0f} tasks/s; {told}; beside them the server {cpu.server:.0f}")
        ratio, alone = rate / base[0], base[1] / ours
        print(
            f"  {'':12s}{ratio:.2f} of the folder's rate, {alone:.2f} without the server's CPU "
            f"(at least {REQUIRED_RATIO})"
        )
        requests = statistics.median(each.requests.total() for each in rounds) / tasks
        kinds = ", ".join(f"{number} {kind}" for kind, number in rounds[-1].requests.most_common())
        print(f"  {'':12s}{requests:.3f} requests a task (at most {REQUIRED_REQUESTS}): {kinds}")


def main(tasks: int = 10_000, rounds: int = 5) -> None:
    """Run the comparison."""
    flows = [
        ("tasks that make 20 KiB", Artifacts, tasks),
        ("of them that take 5 ms", Lasting, tasks // 2),
    ]
    print(f"an object store that answers {1000 * DELAY_SECONDS:.0f} ms late, beside a folder")
    with tempfile.TemporaryDirectory() as folder, ObjectServer(folder) as server:
        os.environ["ASYNCFLOW_CACHE"] = f"{folder}/cache"
        anyio.run(compare, server, flows, rounds)


if __name__ == "__main__":
    main()
