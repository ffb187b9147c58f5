"""What a task costs in a worker process that no engine runs beside: CPU time.

A run is recorded first. Then a worker is forked from this process, with the sockets, the pipe and
the files that a pool gives it, and is sent the tasks of the foreach again and again, in packets of
32. This process reads the reports every two milliseconds, as a pool reads those of a busy worker.

`values` is a flow whose tasks make 20 KiB each. With `s3` the run is in an object store. The worker
writes its values into the cache of this machine and says so; nobody uploads them. It makes no
request, as long as the run's journal here is locked as if the run were being written: a fork of
this process could make none.

With `serve`, each line of standard input starts one more round, so that two versions can be
measured in alternation.
"""

from __future__ import annotations

import fcntl
import gc
import os
import select
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asyncflow import Engine
from asyncflow.workers.local import fork_server
from asyncflow.workers.local.claim_pipe import ClaimPipe
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.local.worker_process import WorkerProcess
from asyncflow.workers.messages import ShutDown, StartItems, Succeeded, ToStore, pack_order
from asyncflow.workers.process import worker
from asyncflow.workers.process.stop_signals import (
    Moment,
    StopOrder,
    StopSignals,
    block_stop_signals,
)
from asyncflow.workers.report_stream import ReportStream
from benchmarks.flows import Artifacts, NoOps, Typical
from benchmarks.object_server import ObjectServer

if TYPE_CHECKING:
    from asyncflow import FlowSpec
    from asyncflow.workers.messages import OrderMessage

WIDTH = 5_000
ROUND = 640
ROUNDS = 25
PACKET = 32
AHEAD = 200
SOCKET_BYTES = 1 << 20
FLOWS: dict[str, type[FlowSpec]] = {"typical": Typical, "empty": NoOps, "values": Artifacts}
ENDS = Succeeded, ToStore  # the latter if values are to be uploaded


async def recorded(flow: type[FlowSpec], store: str) -> StartItems:
    """The order for all tasks of the foreach, with the description of the run."""
    orders: list[Any] = []
    send = WorkerProcess.send

    def noting(self: WorkerProcess, order: OrderMessage) -> None:
        orders.append(order)
        send(self, order)

    WorkerProcess.send = noting  # type: ignore[method-assign] # to count what is sent
    try:
        async with Engine(store=store, workers=1) as engine:
            await engine.run(flow, width=WIDTH)
    finally:
        WorkerProcess.send = send  # type: ignore[method-assign] # the method of before
    opening = next(order.opening for order in orders if getattr(order, "opening", ()))
    items: StartItems = next(order for order in orders if isinstance(order, StartItems))
    return items._replace(first=items.first - items.item, item=0, opening=opening)


def recorded_in(folder: str, flow: type[FlowSpec], *, in_s3: bool) -> StartItems:
    """The order for a run in this folder, or in an object store whose cache is there."""
    if not in_s3:
        return anyio.run(recorded, flow, folder)
    with ObjectServer(folder) as server:
        os.environ |= {**server.environment(tls=False), "ASYNCFLOW_CACHE": f"{folder}/cache"}
        items = anyio.run(recorded, flow, "s3://benchmark/flows")
    (journal,) = Path(folder).glob("cache/**/journal")
    fcntl.flock(os.open(journal, os.O_RDWR), fcntl.LOCK_EX)  # until this process ends
    return items


class Alone:
    """One worker process."""

    def __init__(self, folder: Path) -> None:
        self.orders, theirs = fork_server.packet_pair()
        self.reports, telling = socket.socketpair()
        self.reports.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        telling.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self.orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self.claims = ClaimPipe()
        self.stream = ReportStream()
        spools = Spool(folder), Spool(folder)
        written = [os.dup(spool.descriptor) for spool in spools]
        descriptors = [theirs.detach(), telling.detach(), *written, self.claims.number]
        block_stop_signals()
        gc.collect()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                worker.main(descriptors, ["alone"], StopSignals(Moment(), StopOrder()))
            finally:
                os._exit(0)
        for each in descriptors[:-1]:
            os.close(each)

    def seconds(self) -> float:
        """The CPU time that it has taken."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0]) / 1e9

    def carry_out(self, items: StartItems, number: int) -> float:
        """Have so many of these tasks run; return the CPU time for each, in µs."""
        before, sent, ended = self.seconds(), 0, 0
        while ended < number:
            while sent < number and sent - ended < AHEAD:
                some = min(PACKET, number - sent)
                part = items._replace(first=items.first + sent, item=sent, number=some)
                if not self.claims.write(part.claims()):
                    break
                self.orders.send(pack_order(part))
                sent += some
            time.sleep(0.002)
            select.select([self.reports], [], [])
            data = self.reports.recv(SOCKET_BYTES)
            if not data:
                sys.exit("the worker has ended")
            ended += sum(isinstance(each, ENDS) for each in self.stream.feed(data))
        return (self.seconds() - before) / number * 1e6

    def close(self) -> None:
        """Have it leave."""
        self.orders.send(pack_order(ShutDown()))
        os.waitpid(self.pid, 0)


def main(*, served: bool = False) -> None:
    """Print what a task takes: the lowest of some rounds, and the median."""
    names = [name for name in FLOWS if name in sys.argv] or list(FLOWS)
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            items = recorded_in(folder, FLOWS[name], in_s3="s3" in sys.argv)
            alone = Alone(Path(folder))
            alone.carry_out(items, 1000)
            if served:
                print("ready", flush=True)
                for _ in sys.stdin:
                    print(alone.carry_out(items, ROUND), flush=True)
            else:
                found = sorted(alone.carry_out(items, ROUND) for _ in range(ROUNDS))
                median = found[ROUNDS // 2]
                print(f"{name}: {found[0]:.1f} µs of CPU time for each task, median {median:.1f}")
            alone.close()


if __name__ == "__main__":
    main(served="serve" in sys.argv)
