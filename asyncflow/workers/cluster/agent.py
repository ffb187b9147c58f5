"""The agent: hosts workers on a node, for an executor somewhere else, its driver.

It has an ordinary pool of workers. What the driver orders comes in as bytes, and what workers
report goes out as bytes. Whether a signal still hits the right attempt is decided here, beside the
workers.

If the driver says nothing for `FENCE_SECONDS`, it is gone, or has given this node up: then the
workers are killed. So nothing runs on after the death of a driver, and no attempt goes on for long
that the driver counts as lost.

    driver -> agent   ["start", token]                    one more worker, of this name
                      ["order", token, bytes]
                      ["take_back" | "pause" | "resume", token]
                      ["ask_to_stop", token, attempt, why, is_late]
                      ["destroy", token, attempt or nil, why]
                      ["records", run, [offset, bytes, …]]   pieces of the run's journal
                      ["file", run, name, bytes]          a file beside it, such as a join's inputs
                      ["forget", run]                     no worker will need the run's files
                      ["check_store", location, mark]     does this node reach it?
                      ["suspend_all"], ["resume_all"]     all workers stand still, and go on
                      ["close"]
    agent -> driver   ["up", facts]                       the first; what the driver has to know
                      ["store", why]                      why it does not; empty if it does
                      ["reports", token, bytes]
                      ["ending", token, why]              it is asked to stop, or destroyed
                      ["stopped", token, how], ["continued", token]
                      ["exited", token, how, ended_with_others]
                      ["broken", why]
                      ["closed", why]                     the last
"""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.version import VERSION
from asyncflow.errors import AgentGoneError, AsyncflowError, PoolError
from asyncflow.store import open_store
from asyncflow.workers.cluster.alarm import Alarm
from asyncflow.workers.cluster.batches import Inbox, Outbox, pack_message
from asyncflow.workers.cluster.node_files import NodeFiles
from asyncflow.workers.cluster.report_pace import ReportPace
from asyncflow.workers.cluster.store_reach import why_unreachable
from asyncflow.workers.held_reports import HeldReports
from asyncflow.workers.interface import NotNowError
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.messages import (
    AttemptKey,
    GaveBack,
    Opening,
    StartItems,
    StartTask,
    begun_by,
    pack_report,
    unpack_order,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.store.interface import RunStore
    from asyncflow.workers.interface import Kind, WorkerLink
    from asyncflow.workers.messages import ReportMessage

FENCE_SECONDS: Final = 10.0
"""How long an agent hears nothing of its driver until it ends its workers."""
START_SECONDS: Final = 60.0
"""The same before the driver has said anything: nothing runs yet, and it may be slow to connect."""
SUSPENDED_SECONDS: Final = 3600.0
"""The same while the driver has suspended all workers, because it is about to be stopped itself."""
POLL_SECONDS: Final = 1.0  # how long the answer to a poll may take
_LOOK_SECONDS: Final = 0.25
_REST_SECONDS: Final = 0.1  # before the engine asks for another worker, if none can be started now
_UNSENT_BYTES: Final = 1 << 20  # reports that may wait for the driver before workers are paused
_LAST_WORDS_SECONDS: Final = 2.0  # for the driver to fetch what is left
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def machine_id() -> str:
    """The same text in processes of one running system, and in no others."""
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    return socket.gethostname()


def facts_of_this_node() -> dict[str, Any]:
    """What a driver has to know about the process that hosts workers for it."""
    return {
        "python": platform.python_version(),
        "asyncflow": VERSION,
        "host": socket.gethostname(),
        "machine": machine_id(),
        "pid": os.getpid(),
    }


class Agent:
    """Hosts workers, until its driver is gone or has no use for them."""

    def __init__(self, *, fence_seconds: float = FENCE_SECONDS) -> None:
        """Prepare it, on the running event loop; `serve` starts it."""
        self._loop = asyncio.get_running_loop()
        self._fence_seconds = fence_seconds
        self._heard = self._loop.time()  # when the driver has last said anything
        self._knows_driver = False  # whether it has said anything yet
        self._files = NodeFiles()
        self._reports = HeldReports(self)  # until what workers have written is in the store
        self._pool = WorkerPool(self._reports, size=1, scratch=self._files.folder)
        self._reports.watch(self._pool)
        self._stores: dict[str, RunStore] = {}  # those elsewhere, by location
        self._inbox, self._outbox = Inbox(), Outbox()
        self._news = Alarm()  # rings when there is something that the driver should hear now
        self._pace = ReportPace()
        self._workers: dict[int, WorkerLink] = {}  # by token
        self._tokens: dict[WorkerLink, int] = {}
        self._ending: set[int] = set()  # tokens of workers that should end
        self._paused: set[int] = set()  # tokens of workers whose reports the driver has paused
        self._all_paused = False  # because too much waits for the driver
        self._suspended = ExitStack()
        self._is_suspended = False
        self._over = asyncio.Event()
        self._emptied = asyncio.Event()  # set when the driver has got all there was
        self._why = ""
        self._gone = False

    async def serve(self) -> None:
        """Host workers to the end; then none is left.

        Raises:
            PoolError: Its pool cannot be started.
        """
        try:
            await self._pool.start()
            self._say("up", facts_of_this_node())
            while not self._over.is_set():
                await _wait(self._over, _LOOK_SECONDS)
                self._look_at_driver()
            await self._pool.close()
            for store in self._stores.values():
                await asyncio.to_thread(store.close)
            self._say("closed", self._why)
            await _wait(self._emptied, _LAST_WORDS_SECONDS)
        finally:
            self._gone = True
            self._news.ring()
            self._files.close()

    def _look_at_driver(self) -> None:
        """End the workers if the driver has been silent for too long."""
        if self._is_suspended:
            patience = SUSPENDED_SECONDS
        else:
            patience = self._fence_seconds if self._knows_driver else START_SECONDS
        if self._loop.time() - self._heard > patience:
            self.end(f"its driver has said nothing for {patience:g} s")

    def _hear_driver(self) -> None:
        self._heard, self._knows_driver = self._loop.time(), True

    def end(self, why: str) -> None:
        """Kill the workers, and end."""
        self._why = self._why or why
        for worker in self._workers.values():
            worker.destroy(why)
        self._over.set()

    # --- what the driver says ---

    def take_in(self, batch: bytes) -> None:
        """Carry out what a batch of the driver says."""
        self._hear_driver()
        try:
            for message in self._inbox.open(batch):
                self._carry_out(message)
        except (AsyncflowError, OSError) as error:  # a batch is missing, or the disk is full
            self.end(str(error))

    async def poll(self, received: int) -> bytes:
        """The next batch for the driver; empty if there is none for a second.

        Raises:
            AgentGoneError: The agent has ended.
        """
        self._hear_driver()
        self._outbox.acknowledge(received)
        if not self._outbox:
            self._emptied.set()
        self._let_workers_report()
        if not (self._outbox.has_sent or self._gone):
            await self._news.wait(POLL_SECONDS)
        if self._gone and not self._outbox:
            raise AgentGoneError(self._why)
        batch = self._outbox.batch()
        if not self._outbox.has_more:
            self._news.silence()
            self._pace.told()
        return batch

    def _say(self, *message: Any) -> None:
        """Have the driver hear something at once."""
        self._put(*message)
        self._news.ring()

    def _put(self, *message: Any) -> None:
        self._outbox.put(pack_message(*message))
        self._emptied.clear()

    def _keep_pace(self) -> None:
        """Have the driver hear what workers have reported when it is time to."""
        due = self._pace.due
        if due is not None:
            self._news.ring_at(due)

    def _carry_out(self, message: list[Any]) -> None:
        match message:
            case ["start", token]:
                self._start(token)
            case ["records", run, pieces]:
                self._files.write_records(run, zip(pieces[::2], pieces[1::2], strict=True))
            case ["file", run, name, data]:
                self._files.write_file(run, name, data)
            case ["forget", run]:
                self._files.forget(run)
            case ["check_store", location, mark]:
                self._checking = asyncio.ensure_future(self._check_store(location, mark))
            case ["suspend_all" | "resume_all" as verb]:
                self._suspend(goes_on=verb == "resume_all")
            case ["close"]:
                self._over.set()
            case [verb, token, *arguments]:
                worker = self._workers.get(token)
                if worker is not None:  # otherwise its exit is reported already
                    self._act_on(worker, token, verb, arguments)

    def _suspend(self, *, goes_on: bool) -> None:
        self._is_suspended = not goes_on
        if goes_on:
            self._suspended.close()
        else:
            self._suspended.enter_context(self._pool.suspended())

    async def _check_store(self, location: str, mark: int) -> None:
        try:
            why = await asyncio.to_thread(why_unreachable, location, mark)
        except Exception as error:  # noqa: BLE001 - the driver waits for an answer
            why = f"the store cannot be looked at: {type(error).__name__}: {error}"
        self._say("store", why)

    def _start(self, token: int) -> None:
        try:
            worker = self._pool.start_worker()
        except PoolError as error:
            not_now = isinstance(error, NotNowError)
            told = "exited", token, f"could not be started: {error}", not_now
            pause = _REST_SECONDS if not_now else 0.0
            asyncio.get_running_loop().call_later(pause, self._say, *told)
            return
        self._workers[token], self._tokens[worker] = worker, token

    def _act_on(self, worker: WorkerLink, token: int, verb: str, arguments: list[Any]) -> None:
        match verb, arguments:
            case "order", [packet]:
                self._send(worker, token, packet)
            case "take_back", []:
                worker.take_back()
            case "pause", []:
                self._paused.add(token)
                worker.pause()
            case "resume", []:
                self._paused.discard(token)
                if not self._all_paused:
                    worker.resume()
            case "ask_to_stop", [attempt, why, is_late]:
                worker.ask_to_stop(AttemptKey(*attempt), why, is_late=is_late)
            case "destroy", [attempt, why]:
                worker.destroy(why, attempt and AttemptKey(*attempt))
        if worker.stop_reason and token not in self._ending:
            self._ending.add(token)
            self._say("ending", token, worker.stop_reason)

    def _send(self, worker: WorkerLink, token: int, packet: bytes) -> None:
        order = unpack_order(packet)
        if isinstance(order, StartTask | StartItems):
            if worker.stop_reason:  # the driver notices in a moment
                self.on_reports(worker, [GaveBack(key) for key in begun_by(order)])
                return
            self._pace.sent(token, len(begun_by(order)), self._loop.time())
            self._keep_pace()
            if order.opening:
                order = order._replace(opening=self._opened_here(Opening(*order.opening)))
        worker.send(order)

    def _opened_here(self, opening: Opening) -> Opening:
        """How the run is opened on this node: with the replica of its journal."""
        folder = str(self._files.folder)
        opening = opening._replace(node_folder=folder, replica=self._files.place_of(opening.run))
        if not opening.node:
            return opening
        store = self._store_at(opening.store)
        return opening._replace(cache=store.cache, node=store.node)

    def _store_at(self, location: str) -> RunStore:
        """A store that is elsewhere: this agent uploads what its workers write."""
        store = self._stores.get(location)
        if store is None:
            store = self._stores[location] = open_store(location, known=True)
            uploader = store.uploader()
            if uploader is not None:
                self._reports.use(uploader)
        return store

    # --- what workers do ---

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        """Pass reports on; if too much waits for the driver, let the workers wait."""
        token = self._tokens[worker]
        self._outbox.put_reports(token, b"".join(map(pack_report, reports)))
        self._emptied.clear()
        self._pace.reported(token, reports, self._loop.time())
        self._keep_pace()
        if self._outbox.bytes > _UNSENT_BYTES and not self._all_paused:
            self._all_paused = True
            self._news.ring()
            for each in self._workers.values():
                each.pause()

    def _let_workers_report(self) -> None:
        if self._all_paused and self._outbox.bytes <= _UNSENT_BYTES:
            self._all_paused = False
            for token, worker in list(self._workers.items()):
                if token not in self._paused:
                    worker.resume()

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        """Report the exit of a worker."""
        token = self._tokens.pop(worker)
        del self._workers[token]
        self._ending.discard(token)
        self._paused.discard(token)
        self._pace.forget(token)
        self._say("exited", token, how, worker.ended_with_others)

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        """Report that a worker was stopped."""
        self._say("stopped", self._tokens[worker], how)

    def on_continued(self, worker: WorkerLink) -> None:
        """Report that it goes on."""
        self._say("continued", self._tokens[worker])

    def on_room(self) -> None:
        """A pool has all of its room from the start."""

    def on_refused(self, kind: Kind, error: PoolError) -> None:
        """A pool refuses no kind."""

    def on_broken(self, error: PoolError) -> None:
        """Report that no worker can be started here any more."""
        self._say("broken", str(error))

    def __repr__(self) -> str:
        return f"<Agent with {len(self._workers)} workers>"


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
