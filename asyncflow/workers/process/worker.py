"""The child process: receives orders, runs steps, stores their artifacts, reports.

A worker runs one `def` task at a time, or as many `async def` tasks as it is sent, side by side on
its event loop. `run_task` runs an attempt, and `async_tasks` has the event loop. The engine gets
refs only. A worker is single-threaded unless a step makes threads. It ends when its engine closes
the socket; if it is stuck, the fork server kills it.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from contextvars import copy_context
from threading import RLock
from typing import TYPE_CHECKING, Any

from asyncflow._support.guarded_descriptor import Descriptor, Descriptors
from asyncflow.flow import loader
from asyncflow.flow.log_records import name_tasks_in_records
from asyncflow.workers.messages import (
    DESCRIPTORS_CLOSED,
    AttemptKey,
    Blocked,
    CancelTask,
    CloseRun,
    GaveBack,
    MoreInputs,
    Opened,
    Opening,
    Ping,
    Pong,
    Ready,
    ShutDown,
    StartTask,
    Succeeded,
    Warned,
    YieldMore,
    new_started,
    pack_report,
    pack_to_store,
    pack_wrote,
)
from asyncflow.workers.process import environment, output_capture
from asyncflow.workers.process.async_tasks import AsyncSteps
from asyncflow.workers.process.finalization import disown, finalize
from asyncflow.workers.process.order_reader import OrderReader
from asyncflow.workers.process.resource_usage import UsageMeter
from asyncflow.workers.process.run import OpenRun, item_text_of
from asyncflow.workers.process.run_task import TaskAttempt, failed
from asyncflow.workers.process.shared_resources import SharedResources
from asyncflow.workers.process.thread_context import install_thread_propagation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Context

    from asyncflow.flow.current import TaskContext
    from asyncflow.workers.messages import OrderMessage, ReportMessage
    from asyncflow.workers.process.stop_signals import StopSignals


def main(descriptors: Sequence[int], argv: Sequence[str], signals: StopSignals) -> None:
    """Run as a worker.

    `descriptors` are those of orders, reports, the two spool files and the claims.
    """
    orders, reports, out, err, claims = descriptors
    output_capture.install(out, err)
    os.close(out)
    os.close(err)
    output_capture.flush_c_streams()
    faulthandler.enable(file=2)  # so that the log of a task that crashes shows where
    loader.mark_worker()
    disown()
    sys.argv[:] = argv
    install_thread_propagation()
    name_tasks_in_records()
    ends = socket.socket(fileno=orders), socket.socket(fileno=reports)
    worker = Worker(*ends, signals, OrderReader(ends[0], claims))
    signals.install()
    # a step that asks for a terminal gets an error,
    for number in (signal.SIGTTIN, signal.SIGTTOU):
        # and is not stopped, although this process is in the background
        signal.signal(number, signal.SIG_IGN)
    environment.remember()
    try:
        worker.serve()
    except SystemExit:  # SIGTERM came between two steps
        finalize(worker.warn)
        raise
    except Exception:
        worker.check_descriptors()
        raise
    finalize(worker.warn, worker.close)


class Worker:
    """One worker process, between its two sockets."""

    def __init__(
        self,
        orders: socket.socket,
        reports: socket.socket,
        signals: StopSignals,
        reader: OrderReader | None = None,
    ) -> None:
        self._orders, self._reports = orders, reports
        self._order_reader = reader or OrderReader(orders)
        opened = [*self._order_reader.opened, Descriptor(reports.fileno())]
        numbered = [(each.number, each) for each in opened]
        self._own = Descriptors([*numbered, *output_capture.standard()])
        self.signals = signals
        self._is_asked, self._is_late = (lambda: signals.asked), (lambda: signals.is_late)
        self._runs: dict[int, OpenRun] = {}
        self._pid = os.getpid()
        self._async: AsyncSteps | None = None
        self._unsent: list[bytes] = []
        self._wrote: tuple[str, int, Sequence[bytes]] | None = None  # and was not told
        self._kept: list[OrderMessage] = []  # those that came while a generator waited
        self._sending = RLock()  # the output of async tasks in threads is sent from there
        self.holder = SharedResources(self._warn_of_shared)
        self.meter = self._new_meter()
        self._context = copy_context()  # including changes by the imports of flows
        self.closing = False

    def serve(self) -> None:
        """Carry out orders until the engine closes the socket or says `ShutDown`."""
        self.report(Ready(self._pid))
        while not self.closing:
            try:
                order = self._receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                self.report()
                self.meter.note_pause()
                if self._async is not None and self.holder.needs_loop:
                    self._async.wait()
                    continue
                order = self._receive()
            if type(order) is StartTask:
                self._start(order)
            else:
                self.carry_out(order)
        self.report()

    def close(self) -> None:
        """Close shared resources, and the files of all runs."""
        self._let_go()
        for run in self._runs.values():
            run.close()

    def carry_out(self, order: OrderMessage) -> None:
        """Carry out one order, to the end."""
        match order:
            case StartTask():
                self._start(order)
            case CloseRun():
                self.meter.note_pause()
                self._close_run(order.run)
            case ShutDown():
                self.closing = True
            case Ping():
                self.report(Pong())
            case CancelTask() | YieldMore() | MoreInputs():  # it has ended meanwhile
                pass

    def _close_run(self, number: int) -> None:
        run = self._runs.pop(number, None)
        if run is None:
            return
        run.close()
        if run.has_own_class and self.holder.has(run.flow_class):
            others = (other for other in self._runs.values() if other.has_own_class)
            if all(other.flow_class is not run.flow_class for other in others):
                self._let_go(run.flow_class)

    def _let_go(self, cls: type | None = None) -> None:
        """Close shared resources: those of one flow class, or all."""
        if self._async is not None:
            self._async.let_go(cls)
        else:
            self.holder.close(cls)

    def _warn_of_shared(self, flow: str, name: str, error: str) -> None:
        facts = {"flow": flow, "shared": name, "error": error}
        self.warn("a shared resource has failed", facts)

    def warn(self, event: str, facts: dict[str, Any]) -> None:
        """Report something for the library's log, if the engine is there to receive it."""
        with suppress(OSError):
            self.report(Warned(event, facts))

    def on_blocked(self, task: TaskContext | None, seconds: float, where: str) -> None:
        """Report that the loop is blocked, or turns again; called from the watchdog's thread."""
        if task is None:
            if where:
                facts = {"seconds": round(seconds, 1), "line": where}
                self.warn("something blocks the event loop of async steps", facts)
            return
        for number, run in list(self._runs.items()):
            if (run.order.flow, run.order.run_id) == (task.flow_name, task.run_id):
                key = AttemptKey(number, int(task.task_id), task.attempt)
                self.report(Blocked(key, seconds, where))
                if where and self._async is not None:
                    self.report(*self._async.give_back())

    def receive_nowait(self) -> OrderMessage | None:
        """The next order if there is one."""
        try:
            return self._receive(socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _receive(self, flags: int = 0) -> OrderMessage:
        order = self._order_reader.next(flags)
        if order is None:
            self.closing = True
            return ShutDown()
        if isinstance(order, StartTask) and order.key.run not in self._runs:
            self._runs[order.key.run] = self._new_run(Opening(*order.opening))
        return order

    def _new_meter(self) -> UsageMeter:
        return UsageMeter()

    def _new_run(self, opening: Opening) -> OpenRun:
        return OpenRun(opening, self._pid, self.report_first)

    def wait_for_more(self, key: AttemptKey) -> int:
        """Wait until the generator of a `def` step may go on; return up to how many items.

        Raises:
            SystemExit: The engine is gone.
        """
        while True:
            order = self._receive()
            match order:
                case YieldMore() if order.key == key:
                    return order.upto
                case StartTask():  # it was on its way when the first items were reported
                    self.report(GaveBack(order.key))
                case CloseRun() | ShutDown():
                    if self.closing:
                        raise SystemExit
                    self._kept.append(order)
                case _:
                    self.carry_out(order)

    def check_descriptors(self, run: OpenRun | None = None) -> None:
        """Restore descriptors 1 and 2 after a step, and end this process if the step closed ours.

        Without our descriptors no report could be sent; or another file could be open in the place
        of one that the next value is written to.
        """
        own = self._own
        if own.are_whole() if run is None else run.is_whole(own):
            return
        is_back = output_capture.put_back()
        if not (is_back and (own.are_whole() if run is None else run.is_whole(own))):
            os._exit(DESCRIPTORS_CLOSED)

    @property
    def order_descriptor(self) -> int:
        """The descriptor that becomes readable with the next order."""
        return self._orders.fileno()

    def report(self, *messages: ReportMessage) -> None:
        """Send reports to the engine at once, after those of `report_soon`."""
        with self._sending:
            wrote = self._wrote
            try:
                data = b"".join([*self._unsent, *map(self._pack, messages)])
            except BaseException:
                self._wrote = wrote  # what the first of them had told
                raise
            if data:
                self._reports.sendall(data)
            self._unsent.clear()
            self.signals.release()

    def report_first(self, segment: str, end: int, blobs: Sequence[bytes]) -> None:
        """Tell what has to be uploaded before whatever is reported next; called in any thread."""
        with self._sending:
            if self._wrote is not None:
                self._unsent.append(pack_wrote(*self._wrote))
            self._wrote = segment, end, blobs

    def report_soon(self, message: ReportMessage) -> None:
        """Send a report to the engine together with the next one, but before anything is run.

        Until then SIGTERM waits: it could be meant for the *next* task, whose run may be
        ending, and must not destroy the result of this one.
        """
        self.signals.hold()
        with self._sending:
            self._unsent.append(self._pack(message))

    def _pack(self, message: ReportMessage) -> bytes:
        """Pack a report, with what has to be uploaded before."""
        if self._wrote is None:
            return pack_report(message)
        segment, end, blobs = self._wrote
        if type(message) is Succeeded and not blobs:
            packed = pack_to_store(message, segment, end)
        else:
            packed = pack_wrote(segment, end, blobs) + pack_report(message)
        self._wrote = None  # last: it is told with the next report if this one cannot be packed
        return packed

    def _tell_start(self, run: OpenRun, order: StartTask) -> None:
        """Report that a task begins, as `report` does, after what waits to be told."""
        text, unsent = item_text_of(run, order.stack, order.path), self._unsent
        with self._sending:
            unsent.append(self._pack(new_started((order.key, text))))
            self._reports.sendall(b"".join(unsent))
            unsent.clear()
            self.signals.release()

    def _start(self, order: StartTask) -> None:
        run = self._runs[order.key.run]
        self._tell_start(run, order)
        began = time.perf_counter()
        try:
            environment.put_back_settings()
            if not run.is_open and self.open(run):
                began = time.perf_counter()
                self.report(Opened(run.order.run))
            run.kept.put_back()
            is_async = run.graph.nodes[order.step].is_async
        except BaseException as error:  # noqa: BLE001 - whatever the user's module raises at import
            self.check_descriptors(run)
            self.report(failed(order, began, error, output_capture.spooled()))
            return
        if is_async:
            self.meter.note_pause()
            if self._async is None:
                self._async = AsyncSteps(self, run.order.blocked_seconds)
            self._async.run(run, order)
        else:
            # Together with the next task's start, if that order is here: one system call instead of
            # two.
            self.meter.begin()
            attempt = TaskAttempt(self, run, order, began, self._is_asked, self._is_late)
            ended = environment.own_context(self._context).run(attempt.carry_out_now)
            self.report_soon(ended)
            if self._kept:
                kept, self._kept = self._kept, []
                for waiting in kept:
                    self.carry_out(waiting)

    def open(self, run: OpenRun) -> bool:
        """Load the run's flow; return whether it was imported just now."""
        is_new = self._context.run(run.open)
        if is_new:
            self.meter.note_other_work()
        return is_new

    def own_context(self) -> Context:
        """The context in which a task begins."""
        return environment.own_context(self._context)

    def run_of(self, order: StartTask) -> OpenRun:
        return self._runs[order.key.run]
