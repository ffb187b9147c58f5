"""An executor without processes: the tasks of one flow run in threads of this process.

    engine's loop ── LinkHere ══ two sockets ══ WorkerHere, in the thread that serves

The first worker is served by the thread that calls `Host.serve`, usually that of the test, so that
a step finds its debugger, its mocks and its signals as the test does. Another one, as for the nodes
of a gang, has a thread of its own. It is the code of a worker process, with the messages that that
sends and gets. What belongs to a process is shared with the test: signal handlers, descriptors.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.workers.interface import AHEAD, AlikeWorkers
from asyncflow.workers.local.fork_server import packet_pair
from asyncflow.workers.messages import (
    Failed,
    GaveBack,
    Logged,
    ShutDown,
    StartTask,
    Succeeded,
    pack_order,
    unpack_order,
)
from asyncflow.workers.process import output_capture
from asyncflow.workers.process.resource_usage import NoMeter
from asyncflow.workers.process.run import OpenRun
from asyncflow.workers.process.stop_signals import StopSignals
from asyncflow.workers.process.worker import Worker
from asyncflow.workers.report_stream import ReportStream

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.interface import Kind, WorkerListener
    from asyncflow.workers.messages import AttemptKey, Opening, OrderMessage, ReportMessage
    from asyncflow.workers.process.resource_usage import UsageMeter

_PACKET_BYTES: Final = 1 << 18
_READ_BYTES: Final = 1 << 18


class Host:
    """Serves the workers of one run; makes the executor of its engine."""

    def __init__(self, flow: type[FlowSpec], crash_after: str = "") -> None:
        """Serve nothing yet.

        Args:
            flow: The flow whose tasks are run.
            crash_after: After the first task of this step no other one begins, and nothing more is
                reported.
        """
        self.flow, self.crash_after = flow, crash_after
        self.crashed = False
        """Whether that task has ended."""
        self.error: BaseException | None = None
        """What a step has raised last."""
        self.interrupt: KeyboardInterrupt | None = None
        """The Ctrl-C that has come, in a step or between two."""
        self.cancel: Callable[[], object] = int
        """Cancels the run; may be called in any thread."""
        self._waiting: SimpleQueue[WorkerHere | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._served = False
        self._numbers = count(1)

    def __call__(
        self, listener: WorkerListener, *, size: int, scratch: Path, store: str = ""
    ) -> ExecutorHere:
        """An executor that has not been started."""
        del size, scratch, store  # there is one worker, in this process, and it has no spool files
        return ExecutorHere(self, listener)

    def add(self, orders: socket.socket, reports: socket.socket) -> None:
        """Have a worker served, by the thread in `serve` if that has none."""
        worker = WorkerHere(orders, reports, self, next(self._numbers))
        if not self._served:
            self._served = True
            self._waiting.put(worker)
            return
        thread = threading.Thread(target=self._serve, args=(worker,), name="asyncflow-worker")
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """Have `serve` return; no further worker will come."""
        self._waiting.put(None)

    def serve(self) -> None:
        """Run tasks in this thread until `stop` is called."""
        while (worker := self._waiting.get()) is not None:
            self._serve(worker)
            self._served = False
        for thread in self._threads:
            thread.join()

    def _serve(self, worker: WorkerHere) -> None:
        try:
            worker.serve()
        except OSError:  # the engine is gone
            pass
        except KeyboardInterrupt as error:
            self.note(error)
        worker.end()

    def note(self, error: BaseException) -> None:
        """A step has raised this; Ctrl-C ends the run."""
        self.error = error
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
            self.cancel()

    def __repr__(self) -> str:
        return f"<Host of {self.flow.__name__}>"


class ExecutorHere(AlikeWorkers):
    """Starts workers in threads of this process."""

    size = 1
    environment: Mapping[str, str] = os.environ

    def __init__(self, host: Host, listener: WorkerListener) -> None:
        self.host, self.listener = host, listener
        self._links: list[LinkHere] = []
        self._left = asyncio.Event()

    @property
    def workers(self) -> Collection[LinkHere]:
        """The present workers."""
        return self._links

    @property
    def is_busy(self) -> bool:
        """Whether a task was sent and has not ended."""
        return any(link.running for link in self._links)

    async def start(self) -> None:
        """Do nothing."""

    def start_worker(self, kind: Kind = None) -> LinkHere:
        """Have one more worker served."""
        del kind  # there is only one
        link = LinkHere(self)
        self._links.append(link)
        return link

    def forget(self, link: LinkHere) -> None:
        """A worker has ended."""
        self._links.remove(link)
        self._left.set()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Change nothing: a process that is stopped runs no task."""
        yield

    async def close(self) -> None:
        """Let all workers end, and return when the last step has."""
        for link in list(self._links):
            link.take_back()
            link.send(ShutDown())
        while self._links:
            self._left.clear()
            await self._left.wait()

    def __repr__(self) -> str:
        return f"<ExecutorHere {len(self._links)} workers>"


class LinkHere:
    """A worker in a thread, as the scheduler needs it."""

    stop_reason = ""
    ended_with_others = False
    takes_several = False
    ahead = AHEAD
    is_up = is_heard = True
    name = "this process"
    node = ""

    def __init__(self, executor: ExecutorHere) -> None:
        self._executor = executor
        self.pid = os.getpid()
        self.running: dict[AttemptKey, str] = {}
        """The attempts that were sent and have not ended, with their steps."""
        self._loop = asyncio.get_running_loop()
        self._stream = ReportStream()
        self._backlog: list[bytes] = []
        with no_forks():
            self._orders, self._taken_back = packet_pair()
            self._reports, theirs = socket.socketpair()
            for end in (self._orders, self._taken_back, self._reports, theirs):
                keep_from_children(end)
        self._orders.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._reports.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._loop.add_reader(self._reports, self._read)
        executor.host.add(self._taken_back, theirs)

    @property
    def is_idle(self) -> bool:
        """Whether all attempts that it was sent have ended."""
        return not self.running

    def send(self, order: OrderMessage) -> None:
        """Send an order; it is kept here while the socket is full."""
        if isinstance(order, StartTask):
            self.running[order.key] = order.step
        if self._executor.host.crashed and not isinstance(order, ShutDown):
            return
        self._backlog.append(pack_order(order))
        self._flush()

    def _flush(self) -> None:
        while self._backlog:
            try:
                self._orders.send(self._backlog[0])
            except BlockingIOError:
                self._loop.add_writer(self._orders, self._flush)
                return
            except OSError:  # it is gone, which reading reports
                self._backlog.clear()
                return
            del self._backlog[0]
        self._loop.remove_writer(self._orders)

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""
        packets: list[bytes] = []
        with suppress(BlockingIOError, OSError):
            while packet := self._taken_back.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                packets.append(packet)
        packets += self._backlog
        orders = [(packet, unpack_order(packet)) for packet in packets]
        self._backlog = [packet for packet, order in orders if not isinstance(order, StartTask)]
        self._flush()
        taken = [GaveBack(order.key) for _, order in orders if isinstance(order, StartTask)]
        if taken:
            self._loop.call_soon(self._tell, taken)

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:  # noqa: ARG002 - a thread cannot be stopped
        """Have the worker end when its task has; a `def` step goes on to its end."""
        self.take_back()
        if attempt in self.running and not self.stop_reason:
            self.stop_reason = why
            self.send(ShutDown())  # otherwise it would stay, and be given nothing any more

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """The same: a thread cannot be killed."""
        self.take_back()
        if attempt is None or attempt in self.running:
            self.stop_reason = self.stop_reason or why
            self.send(ShutDown())

    def pause(self) -> None:
        """Receive nothing of it for now."""
        self._loop.remove_reader(self._reports)

    def resume(self) -> None:
        """Receive again."""
        if self._reports.fileno() >= 0:
            self._loop.add_reader(self._reports, self._read)

    def _read(self) -> None:
        try:
            data = self._reports.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._tell(self._stream.feed(data))
            return
        self._loop.remove_reader(self._reports)
        self._loop.remove_writer(self._orders)
        for end in (self._orders, self._taken_back, self._reports):
            end.close()
        self._executor.listener.on_exit(self, "ended")
        self._executor.forget(self)

    def _tell(self, reports: Sequence[ReportMessage]) -> None:
        host, told = self._executor.host, []
        for report in reports:
            if host.crashed:
                break
            told.append(report)
            if isinstance(report, Succeeded | Failed | GaveBack):
                step = self.running.pop(report.key, "")
                host.crashed = isinstance(report, Succeeded) and step == host.crash_after
        if told:
            self._executor.listener.on_reports(self, told)

    def __repr__(self) -> str:
        return f"<LinkHere {len(self.running)} tasks>"


class _RunOfFlow(OpenRun):
    """A run whose flow this process has, and whose environment is this one."""

    def __init__(self, opening: Opening, number: int, flow: type[FlowSpec]) -> None:
        super().__init__(opening, number)
        self._flow = flow

    def _enter_environment(self) -> None:
        """Do nothing: it is the test's own."""

    def _find_class(self, source: Mapping[str, Any]) -> type[FlowSpec]:  # noqa: ARG002 - the signature is the base class's
        return self._flow


class _NoStopSignals(StopSignals):
    """Nobody sends signals to a thread. Notes what steps raise."""

    asked = False
    is_late = False

    def __init__(self, host: Host) -> None:
        self.on_loop = False
        self._host = host

    def hold(self) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def outlast(self, error: BaseException) -> BaseException:
        """The error itself."""
        self._host.note(error)
        return error

    async def outlast_on_loop(self, error: BaseException) -> BaseException:
        """The error itself."""
        return self.outlast(error)


class WorkerHere(Worker):
    """A worker in a thread. What its steps print is also printed where the test prints."""

    def __init__(
        self, orders: socket.socket, reports: socket.socket, host: Host, number: int
    ) -> None:
        super().__init__(orders, reports, _NoStopSignals(host))
        self._host = host
        self._pid = os.getpid() * 1000 + number  # names its files, of which each worker has its own
        self._lines: output_capture.LineSink | None = None

    def end(self) -> None:
        """Close what it has open, and tell the engine that it has ended."""
        self.close()
        if self._async is not None:
            self._async.close()
        self._reports.close()

    def check_descriptors(self, run: OpenRun | None = None) -> None:
        """Do nothing: this process must not end."""

    def report_soon(self, message: ReportMessage) -> None:
        """Report the end of a `def` step, after what it has printed."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
        self._context.run(output_capture.sink.set, None)
        self.report(message)

    def _new_meter(self) -> UsageMeter:
        return NoMeter()  # the engine and the test use the process, too

    def _new_run(self, opening: Opening) -> OpenRun:
        return _RunOfFlow(opening, self._pid, self._host.flow)

    def _start(self, order: StartTask) -> None:
        def send(stream: int, data: bytes) -> None:
            self.report(Logged(order.key, stream, data))

        self._lines = output_capture.LineSink(send)
        self._context.run(output_capture.sink.set, self._lines)
        super()._start(order)


class _Tee:
    """A stream of the test whose output is that of a task as well, if a task prints."""

    def __init__(self, stream: Any, number: int) -> None:
        self._stream, self._number = stream, number

    def write(self, text: str) -> int:
        target = output_capture.sink.get()
        if target is not None:
            target.write(self._number, text.encode("utf-8", "backslashreplace"))
        written: int = self._stream.write(text)
        return written

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        target = output_capture.sink.get()
        if target is not None:
            target.flush(self._number)
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def tasks_have_output() -> Iterator[None]:
    """Within the block, what a task prints is in its log, and where the test prints."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Tee(sys.stdout, 0), _Tee(sys.stderr, 1)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
