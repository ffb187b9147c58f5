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
import errno
import os
import signal
import socket
import sys
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgpack

from asyncflow._support import fork_safety, log
from asyncflow._support.conditions import Condition, call_again, pause
from asyncflow._support.fork_safety import no_forks
from asyncflow.errors import PoolError
from asyncflow.store.files import explain_write
from asyncflow.workers.local import fork_server
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
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncflow.workers.messages import OrderMessage, ReportMessage

_READ_BYTES: Final = 1 << 12  # some 40 reports: the event loop is held up for half a millisecond
_SOCKET_BYTES: Final = 1 << 20  # room for the reports of some thousand short tasks
_READ_SECONDS: Final = 0.0005  # of the event loop at a time
_PACKET_BYTES: Final = 1 << 18
_ARGV_CHARACTERS: Final = 1 << 14  # at the most 4 bytes and the length for each
_FAILED_STARTS: Final = 3  # templates in a row that end before they have forked a worker
_REAP_TRIES: Final = 2000  # a millisecond apart
_AGAIN_SECONDS: Final = 0.05
_CLOSE_SECONDS: Final = 6.0  # for idle workers to leave by themselves, in 5 s at the most
_SILENT_LOOKS: Final = 20  # after the end of its reports, until a worker counts as gone
_LOOK_SECONDS: Final = 0.5
_WOKEN_LOOKS: Final = 10  # without an answer of the template, until it is told to go on
_KILLED_LOOKS: Final = 120  # the same, until it is killed: it may only just be starting


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
        self.environment: Mapping[str, str] = {}
        """The environment variables that workers begin with."""
        self._by_pid: dict[int, WorkerProcess] = {}
        self._spool_dir = spool_dir
        self._listener = listener
        self._tokens = 0
        self._failed_starts = 0
        self._template: fork_server.ForkServerProcess | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unanswered = 0  # pings of the template
        self._looks = 0  # in a row, at which it had not answered
        self._looking: asyncio.TimerHandle | None = None
        self._unreaped: set[int] = set()  # templates that have ended or are about to
        self._watched: set[int] = set()
        self._readable: dict[
            int, WorkerProcess
        ] = {}  # by token, in the order in which they are read
        self._heard: deque[bytes] = deque()  # packets of the template that are acted on
        self._reading = False

    # --- life ---

    def start(self) -> None:
        """Have the template process started; it warms up while the caller goes on.

        Raises:
            PoolError: No process can be started.
        """
        self._loop = asyncio.get_running_loop()
        self._left = Condition(lambda: not self.workers)
        call_again(self)
        try:
            self._template = fork_server.start(self.environment or None)
            self.environment = self._template.environment
        except OSError as error:
            raise PoolError(_explain_start(error)) from error
        control = self._template.control
        control.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._loop.add_reader(control, self._on_control)
        self._unanswered = self._looks = 0

    async def close(self) -> None:
        """Let idle workers leave, kill the others, and return when none is left.

        Cancelled: the workers are killed all the same; only the waiting is cut short.
        """
        if self._template is None:
            return
        for worker in list(self.workers.values()):
            worker.take_back()
            worker.stop_reason = worker.stop_reason or "the engine is closing"
            worker.send(ShutDown())
        try:
            await self._left.wait(_CLOSE_SECONDS)
        finally:
            await self._end_template()

    async def _end_template(self) -> None:
        if self._template is None or self._loop is None:
            return
        ended, self._template = self._template, None
        self._loop.remove_reader(ended.control)
        ended.control.close()  # the template kills what is left, and exits
        self._stop_looking()
        left = [worker.pid for worker in self.workers.values()]
        for worker in list(self.workers.values()):
            self._forget(worker)
        self._unreaped.add(ended.pid)
        if await self._reap_all():
            return
        _send(ended, signal.SIGCONT)  # it has been stopped, perhaps
        if await self._reap_all():
            return
        _send(ended, signal.SIGKILL)  # its workers die with it
        for pid in left:
            _kill_group(pid)
        await self._reap_all()

    async def _reap_all(self) -> bool:
        """Whether no template is left after a moment."""
        for _ in range(_REAP_TRIES):
            self._reap()
            if not self._unreaped:
                return True
            await pause(0.001)
        return False

    def _reap(self) -> None:
        """Take note of the exit of templates; one that was killed is heard of a moment before."""
        for pid in list(self._unreaped):
            reaped = pid
            with suppress(ChildProcessError):  # somebody else has
                reaped, _ = os.waitpid(pid, os.WNOHANG)
            if reaped:
                self._unreaped.discard(pid)

    def _reap_until_done(self) -> None:
        self._reap()
        if self._unreaped and self._loop is not None and self._template is not None:
            self._loop.call_later(0.01, self._reap_until_done)

    def start_worker(self) -> WorkerProcess:
        """Have one more worker started. Orders can be sent to it at once.

        Raises:
            PoolError: Out of file descriptors, or the template is gone.
        """
        if self._template is None or self._loop is None:
            message = "the pool is closed, or the process that starts workers could not go on"
            raise PoolError(message)
        self._tokens += 1
        try:
            with no_forks():
                spools = Spool(self._spool_dir), Spool(self._spool_dir)  # first: nothing to close
                worker = self._connect(WorkerProcess(self, self._tokens), spools)
                worker.keep_from_children()
        except OSError as error:
            raise PoolError(_explain_start(error)) from error
        self.workers[worker.token] = worker
        self._expect_answer()
        self._loop.add_reader(worker.reports, self._on_reports, worker)
        return worker

    def _connect(self, worker: WorkerProcess, spools: tuple[Spool, Spool]) -> WorkerProcess:
        assert self._template is not None  # noqa: S101 - start_worker has looked
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        worker.reports.close()
        worker.reports = ours
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        worker.orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        worker.spools = spools
        request = msgpack.packb(["fork", worker.token, _argv()], unicode_errors="surrogateescape")
        files = [spool.descriptor for spool in spools]
        descriptors = [worker.taken_back.fileno(), theirs.fileno(), *files]
        socket.send_fds(self._template.control, [request], descriptors)
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
        """Hear of it again."""
        if self._loop is not None and worker.token in self.workers:
            self._loop.add_reader(worker.reports, self._on_reports, worker)

    # --- what workers do ---

    def kill(self, worker: WorkerProcess, number: int) -> None:
        """Send a signal to the worker's process group."""
        # By way of its parent: only there is the process id certain to be still the worker's.
        if self._template is not None:
            with suppress(OSError):
                self._template.control.send(msgpack.packb(["kill", worker.pid, int(number)]))
            self._expect_answer()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Have all workers stand still within the block, in which this process may be stopped."""
        self._ask_for("suspend")
        try:
            yield
        finally:
            self._ask_for("resume")

    def _ask_for(self, what: str) -> None:
        if self._template is None or self._loop is None:
            return
        try:
            self._template.control.send(msgpack.packb([what]))
        except BlockingIOError:  # soon there is room
            self._loop.call_later(_AGAIN_SECONDS, self._ask_for, what)
        except OSError:  # it is gone, and the workers with it
            return
        self._expect_answer()

    # --- whether the template does what it is asked for ---

    def _expect_answer(self) -> None:
        """Look, from time to time, whether the template has come to what it was just asked for.

        Looks are counted, not seconds: while this process stood still, no answer could be heard.
        """
        if self._template is None or self._loop is None:
            return
        with suppress(OSError):  # where there is no room, others wait for their answer
            self._template.control.send(msgpack.packb(["ping"]))
            self._unanswered += 1
        if self._looking is None:
            self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._template is None or self._loop is None or not self._unanswered:
            self._looks = 0
            return
        self._looks += 1
        self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)
        if self._looks == _WOKEN_LOOKS:
            message = "the process that starts workers does not answer, and is told to go on"
            log.warning(message, pid=self._template.pid)
        if _WOKEN_LOOKS <= self._looks < _KILLED_LOOKS:
            _send(self._template, signal.SIGCONT)
        elif self._looks == _KILLED_LOOKS:
            message = "the process that starts workers does not answer, and is killed"
            log.warning(message, pid=self._template.pid)
            # Its reaper kills it, and all that it has started; that it is gone is heard as ever.
            self._template.control.shutdown(socket.SHUT_RDWR)
            if sys.platform != "linux":  # it has none there
                _send(self._template, signal.SIGKILL)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

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
        self._take_in()
        for worker in list(self.workers.values()):
            if worker.silent and self._template is not None:
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
            self._expect_answer()  # its exit is told by the template
            return
        self._deliver(worker, data)

    def _deliver(self, worker: WorkerProcess, data: bytes) -> None:
        reports = worker.stream.feed(data)
        first = reports[0] if reports else None
        if isinstance(first, Ready):  # it may be quicker than the template's word of it
            self._on_forked(worker.token, first.pid)
            del reports[0]
        if reports:
            self._listener.on_reports(worker, reports)

    def _on_control(self) -> None:
        assert self._template is not None  # noqa: S101 - the callback is removed with it
        try:
            packet = self._template.control.recv(_PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._on_template_gone()
            return
        self._looks = 0
        self._heard.append(packet)
        self._take_in()

    def _take_in(self) -> None:
        """Act on what the template said; a packet stays until that is done, see `call_again`."""
        while self._heard:
            try:
                self._act_on(self._heard[0])
            except Exception:
                self._heard.popleft()  # it would fail again
                raise
            self._heard.popleft()

    def _act_on(self, packet: bytes) -> None:
        match msgpack.unpackb(packet):
            case ["pong"]:
                self._unanswered -= 1
            case ["forked", token, pid]:
                self._on_forked(token, pid)
            case ["failed", token, why]:
                worker = self.workers.get(token)
                if worker is not None:
                    self._on_exited(worker, f"could not be started: {why}")
            case [what, pid, *more] if (worker := self._by_pid.get(pid)) is not None:
                self._on_changed(worker, what, *more)

    def _on_changed(self, worker: WorkerProcess, what: str, number: int = 0) -> None:
        match what:
            case "exited":
                self._on_exited(worker, _how_it_ended(number))
            case "stopped":
                self._listener.on_stopped(worker, f"by {_name_of(number)}")
            case "continued":
                self._listener.on_continued(worker)

    def _on_forked(self, token: int, pid: int) -> None:
        worker = self.workers.get(token)
        if worker is None or worker.pid:
            return
        self._failed_starts = 0
        worker.pid = pid
        self._by_pid[pid] = worker
        if worker.stop_reason:
            self.kill(worker, signal.SIGKILL)

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

    def _on_template_gone(self) -> None:
        """The template was killed; its workers died with it."""
        log.warning("the process that starts workers is gone, and is started anew")
        assert self._template is not None and self._loop is not None  # noqa: S101, PT018 - as above
        self._loop.remove_reader(self._template.control)
        self._template.control.close()
        self._unreaped.add(self._template.pid)
        self._template = None
        lost = list(self.workers.values())
        for worker in lost:
            _kill_group(worker.pid)  # the template would have done it
        broken = self._start_anew()
        self._reap_until_done()
        for worker in lost:
            self._on_exited(worker, "died together with the process that starts workers")
        if broken is not None:
            self._listener.on_broken(broken)

    def _start_anew(self) -> PoolError | None:
        """A template in place of the one that is gone; before anybody asks for new workers."""
        self._failed_starts += 1
        if self._failed_starts >= _FAILED_STARTS:
            return PoolError("the process that starts workers ends before it has started one")
        try:
            self.start()
        except PoolError as error:
            return error
        return None

    def __repr__(self) -> str:
        return f"<WorkerPool {len(self.workers)} of {self.size} workers>"


def _argv() -> list[str]:
    """The program's arguments, unless they are too long for a packet: then its name alone."""
    return sys.argv if sum(map(len, sys.argv)) < _ARGV_CHARACTERS else sys.argv[:1]


def _send(ended: fork_server.ForkServerProcess, number: int) -> None:
    """Send a signal to a template and its reaper, which nobody else reaps."""
    with suppress(OSError):
        os.killpg(ended.pid, number)


def _kill_group(pid: int) -> None:
    """Kill what a worker's steps have started; its process id names their group."""
    if pid:
        with suppress(OSError):
            os.killpg(pid, signal.SIGKILL)


def _explain_start(error: OSError) -> str:
    """Why no worker process could be started, and what to do."""
    message = f"cannot start a worker process: {error.strerror}"
    if error.errno == errno.EMFILE:
        message += "; let this process open more files, as with `ulimit -n 4096`"
    elif error.filename is not None:
        why = explain_write(error.filename, error, doing="make a file in")
        message = f"cannot start a worker process: {why}"
    return message


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
