"""The process that hosts the workers of a `Loopback` executor.

It has an ordinary pool of workers, and a socket to the engine that it works for, its driver. What
the driver orders comes in as bytes, and what workers report goes out as bytes. Whether a signal
still hits the right attempt is decided here, beside the workers. When the driver is gone, for
whatever reason, the workers are ended.

    driver -> agent   ["start", token]                    one more worker, of this name
                      ["order", token, bytes]
                      ["take_back" | "pause" | "resume", token]
                      ["ask_to_stop", token, attempt, why]
                      ["destroy", token, attempt or nil, why]
                      ["suspend_all"], ["resume_all"]     all workers stand still, and go on
                      ["close"]
    agent -> driver   ["reports", token, bytes]
                      ["ending", token, why]              it is asked to stop, or destroyed
                      ["stopped", token, how], ["continued", token]
                      ["exited", token, how]
                      ["broken", why]
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import PoolError
from asyncflow.testing.message_stream import MessageStream
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.messages import (
    AttemptKey,
    GaveBack,
    Opening,
    StartTask,
    pack_report,
    unpack_order,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.workers.interface import WorkerLink
    from asyncflow.workers.messages import ReportMessage

_UNSENT_BYTES: Final = 1 << 20  # reports that may wait for the driver before workers are paused


def main(descriptor: int, size: int) -> None:
    """Host so many workers for the driver at the other end of this socket, until that is gone."""
    asyncio.run(_serve(socket.socket(fileno=descriptor), size))


async def _serve(end: socket.socket, size: int) -> None:
    agent = _Agent(end, size)
    await agent.serve()


class _Agent:
    def __init__(self, end: socket.socket, size: int) -> None:
        self._pool = WorkerPool(self, size=size, scratch=Path(tempfile.gettempdir()))
        self._driver = MessageStream(end, self._carry_out, self._on_lost, self._on_sent)
        self._workers: dict[int, WorkerLink] = {}  # by token
        self._tokens: dict[WorkerLink, int] = {}
        self._ending: set[int] = set()  # tokens of workers that should end
        self._paused: set[int] = set()  # tokens of workers whose reports the driver has paused
        self._suspended = ExitStack()
        self._over = asyncio.Event()

    async def serve(self) -> None:
        with tempfile.TemporaryDirectory(prefix="asyncflow-node-") as self._folder:
            await self._pool.start()
            await self._over.wait()
            await self._pool.close()
        self._driver.close()

    # --- what the driver says ---

    def _carry_out(self, message: list[Any]) -> None:
        match message:
            case ["start", token]:
                self._start(token)
            case ["suspend_all"]:
                self._suspended.enter_context(self._pool.suspended())
            case ["resume_all"]:
                self._suspended.close()
            case ["close"]:
                self._over.set()
            case [verb, token, *arguments]:
                worker = self._workers.get(token)
                if worker is not None:  # otherwise its exit is reported already
                    self._act_on(worker, token, verb, arguments)

    def _start(self, token: int) -> None:
        try:
            worker = self._pool.start_worker()
        except PoolError as error:
            self._driver.send("exited", token, f"could not be started: {error}")
            return
        self._workers[token], self._tokens[worker] = worker, token

    def _act_on(self, worker: WorkerLink, token: int, verb: str, arguments: list[Any]) -> None:
        match verb, arguments:
            case "order", [packet]:
                self._send(worker, packet)
            case "take_back", []:
                worker.take_back()
            case "pause", []:
                self._paused.add(token)
                worker.pause()
            case "resume", []:
                self._paused.discard(token)
                worker.resume()
            case "ask_to_stop", [attempt, why]:
                worker.ask_to_stop(AttemptKey(*attempt), why)
            case "destroy", [attempt, why]:
                worker.destroy(why, attempt and AttemptKey(*attempt))
        if worker.stop_reason and token not in self._ending:
            self._ending.add(token)
            self._driver.send("ending", token, worker.stop_reason)

    def _send(self, worker: WorkerLink, packet: bytes) -> None:
        order = unpack_order(packet)
        if isinstance(order, StartTask) and worker.stop_reason:  # the driver notices in a moment
            self.on_reports(worker, [GaveBack(order.key)])
            return
        if isinstance(order, StartTask) and order.opening:
            opening = Opening(*order.opening)._replace(node_folder=self._folder)
            order = order._replace(opening=opening)
        worker.send(order)

    def _on_lost(self) -> None:
        for worker in self._workers.values():
            worker.destroy("its driver is gone")
        self._over.set()

    # --- what workers do ---

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        self._driver.send("reports", self._tokens[worker], b"".join(map(pack_report, reports)))
        if self._driver.unsent_bytes > _UNSENT_BYTES:
            for each in self._workers.values():
                each.pause()

    def _on_sent(self) -> None:
        for token, worker in list(self._workers.items()):
            if token not in self._paused:
                worker.resume()

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        token = self._tokens.pop(worker)
        del self._workers[token]
        self._ending.discard(token)
        self._paused.discard(token)
        self._driver.send("exited", token, how)

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        self._driver.send("stopped", self._tokens[worker], how)

    def on_continued(self, worker: WorkerLink) -> None:
        self._driver.send("continued", self._tokens[worker])

    def on_broken(self, error: PoolError) -> None:
        self._driver.send("broken", str(error))
