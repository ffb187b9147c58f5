"""Warm worker processes: start, send, take back, kill, and hear of.

Transport only: which task goes to which worker is the scheduler's business. Every worker has

    orders    a packet socket. The kernel keeps orders apart and gives each to one reader, and the
              pool keeps the worker's end as well: what the worker has not yet received can be read
              back, whatever the worker is stuck in.
    reports   a stream socket
    spools    two unnamed append-only files that are its descriptors 1 and 2

All of it runs on the event loop by readiness callbacks; nothing here awaits but `close`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgpack

from asyncflow._support import fork_safety
from asyncflow._support.conditions import Condition, call_again
from asyncflow._support.fork_safety import no_forks
from asyncflow.errors import PoolError
from asyncflow.workers.local import fork_server
from asyncflow.workers.local.fork_server_client import ForkServerClient, explain_start, kill_group
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.messages import (
    DESCRIPTORS_CLOSED,
    Order,
    Ready,
    ReportStream,
    ShutDown,
    pack_order,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncflow.workers.messages import OrderMessage, ReportMessage

_READ_BYTES: Final = 1 << 12  # some 40 reports: the event loop is held up for half a millisecond
_SOCKET_BYTES: Final = 1 << 20  # room for the reports of some thousand short tasks
_READ_SECONDS: Final = 0.0005  # of the event loop at a time
_PACKET_BYTES: Final = 1 << 18
_CLOSE_SECONDS: Final = 6.0  # for idle workers to leave by themselves, in 5 s at the most
_SILENT_LOOKS: Final = 20  # after the end of its reports, until a worker counts as gone


class PoolListener(Protocol):
    """Who hears of what the workers do."""

    def on_reports(self, worker: WorkerProcess, reports: Sequence[ReportMessage]) -> None:
        """A worker said something."""

    def on_exit(self, worker: WorkerProcess, how: str) -> None:
        """A worker is gone; all that it had reported came before."""

    def on_stopped(self, worker: WorkerProcess, how: str) -> None:
        """A worker stands still: somebody has sent it a signal such as SIGSTOP."""

    def on_continued(self, worker: WorkerProcess) -> None:
        """A worker that stood still goes on."""

    def on_broken(self, error: PoolError) -> None:
        """No worker can be started any more."""


class WorkerProcess:
    """One worker process as the engine sees it."""

    __slots__ = (
        "_backlog",
        "_pool",
        "orders",
        "pid",
        "reports",
        "silent",
        "spools",
        "stop_reason",
        "stream",
        "taken_back",
        "token",
    )

    def __init__(self, pool: WorkerPool, token: int) -> None:
        self._pool = pool
        self.token = token
        """Names the worker before its process has an id."""
        self.pid = 0
        """The process id; 0 while it is being started."""
        self.stop_reason = ""
        """Why it is being killed; empty while it is not."""
        self.orders, self.taken_back = fork_server.packet_pair()
        self.reports = socket.socket()
        self.spools: tuple[Spool, Spool]
        self.stream = ReportStream()
        self.silent = 0
        """Looks since it has said its last; 0 while it may say more."""
        self._backlog: list[bytes] = []  # orders for which the socket has no room yet

    def send(self, order: OrderMessage) -> None:
        """Give an order; it is kept here while the socket is full."""
        self._backlog.append(pack_order(order))
        self.flush()

    def flush(self) -> None:
        """Send what is kept as far as there is room."""
        sent = 0
        for packet in self._backlog:
            try:
                self.orders.send(packet)
            except BlockingIOError:
                break
            except OSError:  # it is gone; its exit will be told
                self._backlog.clear()
                return
            sent += 1
        del self._backlog[:sent]
        self._pool.watch_room(self, wanted=bool(self._backlog))

    def take_back(self) -> list[list[Any]]:
        """The orders to start a task that it has not received, raw; other orders go back to it."""
        packets: list[bytes] = []
        with suppress(BlockingIOError, OSError):
            # The flag, because the worker shares this end and wants it to block.
            while packet := self.taken_back.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                packets.append(packet)
        packets += self._backlog
        self._backlog.clear()
        orders = [(packet, msgpack.unpackb(packet)) for packet in packets]
        self._backlog += [packet for packet, order in orders if order[0] != Order.START_TASK]
        self.flush()
        return [order for _, order in orders if order[0] == Order.START_TASK]

    def keep_from_children(self) -> None:
        """Its ends are this process's alone, and no child's that is forked out of it."""
        for end in (self.orders, self.taken_back, self.reports, *self.spools):
            fork_safety.keep_from_children(end)

    def spooled(self) -> tuple[int, int]:
        """How many bytes lie in its two spool files."""
        out, err = self.spools
        return out.size(), err.size()

    def has_more(self) -> bool:
        """Whether it has said something that has not been heard yet, or is gone."""
        try:
            self.reports.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def kill(self, number: int, why: str) -> None:
        """Send a signal to the worker and what its steps have started."""
        self.stop_reason = self.stop_reason or why
        if self.pid:
            self._pool.kill(self, number)

    def __repr__(self) -> str:
        return f"<Worker {self.pid or 'starting'}{' stop_reason' if self.stop_reason else ''}>"


class WorkerPool:
    """The worker processes of one engine; they live until `close`, or until this process ends."""

    def __init__(self, *, size: int, spool_dir: Path, listener: PoolListener) -> None:
        self.size = size
        """How many workers there may be at a time."""
        self.workers: dict[int, WorkerProcess] = {}
        """By token, in the order of their start."""
        self._by_pid: dict[int, WorkerProcess] = {}
        self._spool_dir = spool_dir
        self._listener = listener
        self._tokens = 0
        self._fork_server = ForkServerClient(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: set[int] = set()
        self._readable: dict[int, WorkerProcess] = {}  # by token, in the order they are read
        self._reading = False

    # --- life ---

    def start(self) -> None:
        """Start the fork server; it warms up while the caller goes on.

        Raises:
            PoolError: No process can be started.
        """
        self._loop = asyncio.get_running_loop()
        self._left = Condition(lambda: not self.workers)
        call_again(self)
        self._fork_server.start()

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables that workers begin with."""
        return self._fork_server.environment

    async def close(self) -> None:
        """Let idle workers leave, kill the others, and return when none is left.

        Cancelled: the workers are killed all the same; only the waiting is cut short.
        """
        if not self._fork_server.is_up:
            return
        for worker in list(self.workers.values()):
            worker.take_back()
            worker.stop_reason = worker.stop_reason or "the engine is closing"
            worker.send(ShutDown())
        try:
            await self._left.wait(_CLOSE_SECONDS)
        finally:
            await self._end_fork_server()

    async def _end_fork_server(self) -> None:
        ended = self._fork_server.disconnect()
        if ended is None:
            return
        left = [worker.pid for worker in self.workers.values()]
        for worker in list(self.workers.values()):
            self._forget(worker)
        await self._fork_server.wait_ended(ended, left)

    def start_worker(self) -> WorkerProcess:
        """Have one more worker started. Orders can be sent to it at once.

        Raises:
            PoolError: Out of file descriptors, or the fork server is gone.
        """
        if not self._fork_server.is_up or self._loop is None:
            message = "the pool is closed, or the process that starts workers could not go on"
            raise PoolError(message)
        self._tokens += 1
        try:
            with no_forks():
                spools = Spool(self._spool_dir), Spool(self._spool_dir)  # first: nothing to close
                worker = self._connect(WorkerProcess(self, self._tokens), spools)
                worker.keep_from_children()
        except OSError as error:
            raise PoolError(explain_start(error)) from error
        self.workers[worker.token] = worker
        self._fork_server.expect_answer()
        self._loop.add_reader(worker.reports, self._on_reports, worker)
        return worker

    def _connect(self, worker: WorkerProcess, spools: tuple[Spool, Spool]) -> WorkerProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.reports.close()
        worker.reports = ours
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        worker.orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        worker.spools = spools
        files = [spool.descriptor for spool in spools]
        descriptors = [worker.taken_back.fileno(), theirs.fileno(), *files]
        self._fork_server.fork(worker.token, descriptors)
        theirs.close()
        for end in (worker.orders, ours):
            end.setblocking(False)  # noqa: FBT003 - the socket's own signature
        # The worker's end keeps blocking for the worker; here it is read with MSG_DONTWAIT only.
        return worker

    def pause(self, worker: WorkerProcess) -> None:
        """Hear no more of a worker for now; it waits when the socket is full."""
        self._readable.pop(worker.token, None)
        if self._loop is not None:
            self._loop.remove_reader(worker.reports)

    def resume(self, worker: WorkerProcess) -> None:
        """Read its reports again."""
        if self._loop is not None and worker.token in self.workers:
            self._loop.add_reader(worker.reports, self._on_reports, worker)

    # --- what workers do ---

    def kill(self, worker: WorkerProcess, number: int) -> None:
        """Send a signal to the worker's process group."""
        self._fork_server.kill(worker.pid, number)

    def suspended(self) -> AbstractContextManager[None]:
        """Have all workers stand still within the block, in which this process may be stopped."""
        return self._fork_server.suspended()

    def watch_room(self, worker: WorkerProcess, *, wanted: bool) -> None:
        """Flush the worker's orders as soon as its socket has room."""
        if self._loop is None or wanted == (worker.token in self._watched):
            return
        if wanted:
            self._watched.add(worker.token)
            self._loop.add_writer(worker.orders, worker.flush)
        else:
            self._watched.discard(worker.token)
            self._loop.remove_writer(worker.orders)

    def _on_reports(self, worker: WorkerProcess) -> None:
        """There is something to read: it is read soon, in turn with other workers."""
        self._readable[worker.token] = worker
        if not self._reading and self._loop is not None:
            self._reading = True
            self._loop.call_soon(self._read_some)

    def _read_some(self) -> None:
        """Read what there is for a moment, then let the application have a turn of the loop."""
        self._reading = False
        until = time.monotonic() + _READ_SECONDS
        while self._readable and time.monotonic() < until:
            token = next(iter(self._readable))
            self._read(self._readable.pop(token))
        if self._readable and self._loop is not None:
            self._reading = True
            self._loop.call_soon(self._read_some)

    def call_again(self) -> None:
        """Read what workers said, and hear of those that have ended, should nobody be at it."""
        if self._reading:
            self._read_some()
        self._fork_server.take_in()
        for worker in list(self.workers.values()):
            if worker.silent and self._fork_server.is_up:
                worker.silent += 1
                if worker.silent > _SILENT_LOOKS:
                    self._on_exited(worker, "ended")

    def _read(self, worker: WorkerProcess) -> None:
        try:
            data = worker.reports.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self._loop is not None:
                self._loop.remove_reader(worker.reports)
            worker.silent = 1
            self._fork_server.expect_answer()  # its exit is told by the fork server
            return
        self._deliver(worker, data)

    def _deliver(self, worker: WorkerProcess, data: bytes) -> None:
        reports = worker.stream.feed(data)
        first = reports[0] if reports else None
        if isinstance(first, Ready):  # it may be quicker than the fork server's word
            self.on_forked(worker.token, first.pid)
            del reports[0]
        if reports:
            self._listener.on_reports(worker, reports)

    # --- what the fork server says ---

    def on_not_forked(self, token: int, why: str) -> None:
        """The worker of this token could not be started."""
        worker = self.workers.get(token)
        if worker is not None:
            self._on_exited(worker, f"could not be started: {why}")

    def on_changed(self, pid: int, what: str, number: int = 0) -> None:
        """A worker has exited, was stopped, or goes on."""
        worker = self._by_pid.get(pid)
        if worker is None:
            return
        match what:
            case "exited":
                self._on_exited(worker, _how_it_ended(number))
            case "stopped":
                self._listener.on_stopped(worker, f"by {_name_of(number)}")
            case "continued":
                self._listener.on_continued(worker)

    def on_forked(self, token: int, pid: int) -> None:
        """The worker of this token has a process."""
        worker = self.workers.get(token)
        if worker is None or worker.pid:
            return
        self._fork_server.note_forked()
        worker.pid = pid
        self._by_pid[pid] = worker
        if worker.stop_reason:
            self.kill(worker, signal.SIGKILL)

    def on_fork_server_gone(self) -> None:
        """The fork server was killed; its workers died with it. Go on with another one."""
        lost = list(self.workers.values())
        for worker in lost:
            kill_group(worker.pid)  # the fork server would have done it
        broken = self._fork_server.start_anew()
        for worker in lost:
            self._on_exited(worker, "died together with the process that starts workers")
        if broken is not None:
            self._listener.on_broken(broken)

    def _on_exited(self, worker: WorkerProcess, how: str) -> None:
        self._drain(worker)
        self._listener.on_exit(worker, how)
        self._forget(worker)
        self._left.look()

    def _drain(self, worker: WorkerProcess) -> None:
        with suppress(OSError):
            while data := worker.reports.recv(_READ_BYTES):
                self._deliver(worker, data)

    def _forget(self, worker: WorkerProcess) -> None:
        self.workers.pop(worker.token, None)
        self._by_pid.pop(worker.pid, None)
        self._readable.pop(worker.token, None)
        if self._loop is not None:
            self._loop.remove_reader(worker.reports)
            self.watch_room(worker, wanted=False)
        for end in (worker.orders, worker.taken_back, worker.reports):
            end.close()

    def __repr__(self) -> str:
        return f"<WorkerPool {len(self.workers)} of {self.size} workers>"


def _how_it_ended(status: int) -> str:
    """In words: what a wait status tells."""
    code = os.waitstatus_to_exitcode(status)
    if code == DESCRIPTORS_CLOSED:
        return (
            "could not go on: its step has closed file descriptors that are the worker's, as "
            "os.closerange(3, 256) does; close those alone that the step has opened"
        )
    if code >= 0:
        return f"exited with status {code}"
    hint = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
    return f"was killed by {_name_of(-code)}{hint}"


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
