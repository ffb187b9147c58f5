"""The default executor of an engine: warm worker processes on this machine.

Transport only: the scheduler decides which task goes to which worker. Every worker has

    claims    a pipe, see `asyncflow.workers.process.order_reader`
    orders    a packet socket. The kernel keeps orders apart and gives each to one reader. The pool
              keeps the worker's end as well: it can read back what the worker has not yet received,
              even if the worker is stuck.
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
from typing import TYPE_CHECKING, Final

from asyncflow._support.conditions import Condition, call_again
from asyncflow._support.fork_safety import no_forks
from asyncflow.errors import PoolError
from asyncflow.workers.interface import AlikeWorkers, NotNowError
from asyncflow.workers.local import fork_server
from asyncflow.workers.local.fork_server_client import ForkServerClient, explain_start, kill_group
from asyncflow.workers.local.output_polling import POLL_SECONDS, OutputPolling
from asyncflow.workers.local.report_listening import ReportListening
from asyncflow.workers.local.report_teller import ReportTeller
from asyncflow.workers.local.spool import Spool
from asyncflow.workers.local.worker_process import (
    READ_BYTES,
    Exited,
    WorkerProcess,
)
from asyncflow.workers.messages import (
    DESCRIPTORS_CLOSED,
    AttemptKey,
    Ready,
    ShutDown,
)
from asyncflow.workers.report_stream import WholeAttempts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncflow.workers.interface import Kind, WorkerListener

_FEW_REPORTS: Final = 10  # in a whole read: then the next read may be longer
_MOST_READ_BYTES: Final = 1 << 17
_SOCKET_BYTES: Final = 1 << 20  # room for the reports of some thousand short tasks
_READ_SECONDS: Final = 0.0003  # of the event loop at a time
_CLOSE_SECONDS: Final = 6.0  # for idle workers to leave by themselves; at most 5 s
_GONE: Final = "the process that starts workers is gone, and another one is being started"
_SILENT_LOOKS: Final = 20  # from the end of its reports until a worker counts as gone


class WorkerPool(AlikeWorkers):
    """The worker processes of one engine; they live until `close`, or until this process ends."""

    def __init__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> None:
        """Prepare a pool; nothing is started before `start`.

        Args:
            listener: Is told what the workers do.
            size: How many workers there may be at a time.
            scratch: The folder in which the unnamed files for output are made.
            store: Not looked at: processes of this machine reach it as this one does.
        """
        del store
        self.size = size
        """How many workers there may be at a time."""
        self._workers: dict[int, WorkerProcess] = {}  # by token, in the order of their start
        self._by_pid: dict[int, WorkerProcess] = {}
        self._spare: WorkerProcess | None = None  # started before the first run had tasks
        self._scratch = scratch
        self._listener = listener
        self._tokens = 0
        self._fork_server = ForkServerClient(self)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched: set[int] = set()
        self._readable: dict[int, WorkerProcess] = {}  # by token, in the order they are read
        self._reading: asyncio.Handle | None = None  # the call that reads soon
        self._listening: ReportListening | None = None  # once it is started
        self._output = OutputPolling(self._workers.values)
        self._teller = ReportTeller(
            listener,
            on_begun=self._output.look_later,
            on_more=self._read_later,
            on_exit=self._tell_exit,
        )

    # --- life ---

    async def start(self) -> None:
        """Start the fork server; it warms up while the caller goes on.

        If it was forked by a command that will run a flow, the first worker starts now, too: it is
        up by the time at which the run has a task.

        Raises:
            PoolError: No process can be started.
        """
        is_for_run = fork_server.is_preforked()
        self._loop = asyncio.get_running_loop()
        self._listening = ReportListening(self._loop, self._on_readable)
        self._output.start(self._loop, self._teller.tell)
        self._left = Condition(lambda: not self._workers)
        call_again(self)
        self._fork_server.start()
        if is_for_run:
            with suppress(PoolError):  # whoever needs a worker meets the error
                self._spare = self._fork_worker()

    @property
    def workers(self) -> Collection[WorkerProcess]:
        """The present workers, in the order of their start."""
        return [worker for worker in self._workers.values() if worker is not self._spare]

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables with which workers begin."""
        return self._fork_server.environment

    async def close(self) -> None:
        """Let idle workers leave, kill the others, and return when none is left.

        Cancelled: the workers are killed all the same; only the wait is shortened.
        """
        if self._fork_server.is_pausing:
            await self._end_fork_server()
        if not self._fork_server.is_up:
            return
        self._teller.output_is_dropped = True
        for worker in list(self._workers.values()):
            worker.take_back()
            self.resume(worker)
            worker.stop_reason = worker.stop_reason or "the engine is closing"
            worker.send(ShutDown())
        try:
            await self._left.wait(_CLOSE_SECONDS)
        finally:
            await self._end_fork_server()

    async def _end_fork_server(self) -> None:
        ended = self._fork_server.disconnect()
        self._output.close()
        if self._listening is not None:
            self._listening.close()
        left = [worker.pid for worker in self._workers.values()]
        for worker in list(self._workers.values()):
            self._forget(worker)
        await self._fork_server.wait_ended(ended, left)

    def start_worker(self, kind: Kind = None) -> WorkerProcess:
        """Have one more worker started. Orders can be sent to it at once.

        Raises:
            NotNowError: The fork server was killed, and another one will be started.
            PoolError: Out of file descriptors, or no fork server can be started.
        """
        del kind  # there is only one
        if self._fork_server.is_pausing:
            raise NotNowError(_GONE)
        if not self._fork_server.is_up or self._listening is None:
            message = "the pool is closed, or the process that starts workers has failed"
            raise PoolError(message)
        spare, self._spare = self._spare, None
        worker = spare or self._fork_worker()
        self._listening.begin(worker)
        return worker

    def _fork_worker(self) -> WorkerProcess:
        """A worker whose process is being started, and whose reports are not yet received.

        Raises:
            PoolError: As `start_worker`.
        """
        self._tokens += 1
        try:
            with no_forks():
                spools = Spool(self._scratch), Spool(self._scratch)  # first: nothing to close
                worker = WorkerProcess(self, self._tokens, spools)
                _connect(worker, self._fork_server)
                worker.keep_from_children()
        except (BrokenPipeError, ConnectionError) as error:  # we shall hear of its end
            raise NotNowError(_GONE) from error
        except OSError as error:
            raise PoolError(explain_start(error)) from error
        self._workers[worker.token] = worker
        self._fork_server.expect_answer()
        return worker

    def pause(self, worker: WorkerProcess) -> None:
        """Receive no reports of a worker for now; it waits when the socket is full."""
        worker.paused = True
        self._readable.pop(worker.token, None)
        if self._listening is not None:
            self._listening.end(worker)

    def resume(self, worker: WorkerProcess) -> None:
        """Receive its reports again."""
        worker.paused = False
        if self._listening is None or worker.token not in self._workers:
            return
        if not (worker.has_exited or worker.silent):
            self._listening.begin(worker)
        self._read_later(worker)

    # --- what workers do ---

    def kill(self, worker: WorkerProcess, number: int, *, is_late: bool = False) -> None:
        """Send a signal to the worker's process group, perhaps because its task is out of time."""
        self._fork_server.kill(worker.pid, number, is_late=is_late)

    def suspended(self) -> AbstractContextManager[None]:
        """Stop all workers within the block, in which this process may be stopped."""
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

    def _on_readable(self, workers: Iterable[WorkerProcess]) -> None:
        """There is something to read: read it now, if reading has not taken long in this turn."""
        for worker in workers:
            self._readable[worker.token] = worker
        if self._reading is None:
            self._read_some()

    def _read_later(self, worker: WorkerProcess) -> None:
        """There is more of a worker: read it soon, in turn with others."""
        self._readable[worker.token] = worker
        self._read_soon()

    def give_back(self, worker: WorkerProcess, attempts: Sequence[AttemptKey]) -> None:
        """Report that these attempts will not begin; soon, but not within this call."""
        self._teller.give_back(worker, attempts)
        self._read_soon()

    def _read_soon(self) -> None:
        if self._reading is None and self._loop is not None:
            self._reading = self._loop.call_soon(self._read_some)

    def _read_some(self) -> None:
        """Read for a moment, then let the application have a turn of the loop."""
        self._reading = None
        self._teller.tell_given_back()
        until = time.monotonic() + _READ_SECONDS
        while self._readable and time.monotonic() < until:
            token = next(iter(self._readable))
            self._read(self._readable.pop(token))
        if self._readable or time.monotonic() >= until:
            self._read_soon()  # until then, what is announced waits

    def call_again(self) -> None:
        """Read reports and note exits, in case the callback that should do it was lost."""
        self._teller.broken_off()
        for worker in self._workers.values():
            if worker.untold and not worker.paused:
                self._readable[worker.token] = worker
        if self._reading is not None:
            self._reading.cancel()  # else it would go on beside the one that follows
        if self._reading is not None or self._readable or self._teller.has_given_back:
            self._read_some()
        if self._listening is not None:
            self._listening.look_if_overdue(POLL_SECONDS)
        self._output.look_if_overdue()
        self._fork_server.take_in()
        for worker in list(self._workers.values()):
            if worker.silent and self._fork_server.is_up:
                worker.silent += 1
                if worker.silent > _SILENT_LOOKS:
                    self._on_exited(worker, "ended")

    def _read(self, worker: WorkerProcess) -> None:
        if self._listening is None:
            return
        if worker.untold or worker.has_exited or worker.silent:
            self._listening.announce(worker)
            self._teller.tell(worker)
            return  # then the others; the loop announces remaining data again
        with self._teller.receiving(worker):
            try:
                data = worker.reports.recv(worker.read_bytes)
            except BlockingIOError:
                self._listening.announce(worker)
                return
            except OSError:
                data = b""
            if not data:
                self._listening.end(worker)
                worker.silent = 1
                self._fork_server.expect_answer()  # the fork server reports its exit
                return
            is_all = len(data) < worker.read_bytes
            reports = self._take_in(worker, data)
            # As long as reports are large, such as those with hundreds of artifacts.
            few = not is_all and reports < _FEW_REPORTS
            worker.read_bytes = min(4 * len(data), _MOST_READ_BYTES) if few else READ_BYTES
            self._teller.tell(worker)
            if is_all:
                self._listening.pace(worker)
            elif not worker.paused and self._listening.is_paced(worker):
                self._readable[worker.token] = worker  # there is more

    def _take_in(self, worker: WorkerProcess, data: bytes) -> int:
        """Keep the reports that are complete with these bytes; return how many they are."""
        reports = worker.stream.feed_together(data)
        worker.untold += reports
        if reports and isinstance(reports[0], Ready):  # perhaps before the fork server's report
            self.on_forked(worker.token, reports[0].pid)
        return sum([2 * len(each.begun) if type(each) is WholeAttempts else 1 for each in reports])

    # --- what the fork server says ---

    def on_not_forked(self, token: int, why: str) -> None:
        """The worker of this token could not be started."""
        worker = self._workers.get(token)
        if worker is not None:
            self._on_exited(worker, f"could not be started: {why}")

    def on_changed(self, pid: int, what: str, number: int = 0) -> None:
        """A worker has exited, was stopped, or goes on."""
        worker = self._by_pid.get(pid)
        if worker is None or (worker is self._spare and what != "exited"):
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
        worker = self._workers.get(token)
        if worker is None or worker.pid:
            return
        self._fork_server.note_forked()
        worker.pid = pid
        self._by_pid[pid] = worker
        if worker.stop_reason:
            self.kill(worker, signal.SIGKILL)

    def on_fork_server_gone(self) -> None:
        """The fork server was killed, and its workers with it. Go on with a new one."""
        lost = list(self._workers.values())
        for worker in lost:
            kill_group(worker.pid)  # the fork server would have done it
        broken = self._fork_server.start_anew()
        for worker in lost:
            worker.ended_with_others = True
            self._on_exited(worker, "died together with the process that starts workers")
        if broken is not None or not self._fork_server.is_pausing:
            self.on_fork_server_back(broken)

    def on_fork_server_back(self, broken: PoolError | None) -> None:
        """Another fork server was started after a pause, or there will be none."""
        if broken is None:
            self._listener.on_room()
        else:
            self._listener.on_broken(broken)

    def _on_exited(self, worker: WorkerProcess, how: str) -> None:
        if worker is self._spare:  # nobody knows of it
            self._spare = None
            self._forget(worker)
            self._left.look()
            return
        if not worker.has_exited:
            with self._teller.receiving(worker), suppress(OSError):  # what it has said last
                while data := worker.reports.recv(READ_BYTES):
                    self._take_in(worker, data)
            if self._listening is not None:
                self._listening.end(worker)
            worker.untold.append(Exited(how, worker.output.sizes()))
            worker.has_exited = True
        self._teller.tell(worker)

    def _tell_exit(self, worker: WorkerProcess, how: str) -> None:
        self._teller.tell_given_back()
        self._listener.on_exit(worker, how)
        self._forget(worker)
        self._left.look()

    def _forget(self, worker: WorkerProcess) -> None:
        self._workers.pop(worker.token, None)
        self._by_pid.pop(worker.pid, None)
        self._readable.pop(worker.token, None)
        if self._listening is not None:
            self._listening.end(worker)
        self.watch_room(worker, wanted=False)
        for end in (worker.orders, worker.taken_back, worker.reports, worker.claims):
            end.close()

    def __repr__(self) -> str:
        return f"<WorkerPool {len(self._workers)} of {self.size} workers>"


def _connect(worker: WorkerProcess, fork_server: ForkServerClient) -> None:
    """Give a worker its socket, and ask the fork server for its process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    worker.reports.close()
    worker.reports = ours
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    worker.orders.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    files = [spool.descriptor for spool in worker.spools]
    descriptors = [worker.taken_back.fileno(), theirs.fileno(), *files, worker.claims.number]
    fork_server.fork(worker.token, descriptors)
    theirs.close()
    for end in (worker.orders, ours):
        end.setblocking(False)  # noqa: FBT003 - the socket's own signature
    # The worker's end keeps blocking for the worker; here it is read with MSG_DONTWAIT only.


def _how_it_ended(status: int) -> str:
    """The meaning of a wait status, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code == DESCRIPTORS_CLOSED:
        return (
            "had to exit: its step has closed file descriptors that are the worker's, as "
            "os.closerange(3, 256) does; close only those that the step has opened"
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
