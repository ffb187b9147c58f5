"""The child process: receive an order, run the step, write its artifacts, answer.

A worker takes one `def` task at a time, or as many `async def` tasks as it is sent, side by side on
its event loop. What a task inherits and hands on is the business of
`asyncflow.workers.process.task`; the engine sees refs only. A worker is single-threaded unless a
step makes threads, and it ends when its engine closes the socket (the template kills it should it
be stuck).
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
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow._support.tracebacks import (
    describe_exception,
    too_long,
    why_no_terminal,
    with_final_line,
)
from asyncflow.errors import TaskTimeoutError
from asyncflow.flow import loader
from asyncflow.flow.decorators import options_of
from asyncflow.workers.messages import (
    DESCRIPTORS_CLOSED,
    Blocked,
    CancelTask,
    CloseRun,
    Failed,
    GaveBack,
    Logged,
    Opened,
    Opening,
    Ping,
    Pong,
    Ready,
    ShutDown,
    Started,
    StartTask,
    Stopping,
    Succeeded,
    Warned,
    pack_report,
    unpack_order,
)
from asyncflow.workers.process import environment, output_capture
from asyncflow.workers.process.finalization import disown, finalize
from asyncflow.workers.process.shared_resources import SharedResources
from asyncflow.workers.process.task import RunView, TaskView, ending_forks
from asyncflow.workers.process.thread_context import install_thread_propagation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from asyncflow.flow.current import TaskContext
    from asyncflow.workers.messages import OrderMessage, ReportMessage
    from asyncflow.workers.process.artifact_threads import OffLoop
    from asyncflow.workers.process.stop_signals import StopSignals
    from asyncflow.workers.process.task import Stored

_PACKET_BYTES: Final = 1 << 18
_STOP: Final = frozenset({signal.SIGTERM})
_ORDERS: Final = 64  # taken in one go, then the tasks have a turn


def main(descriptors: Sequence[int], argv: Sequence[str], signals: StopSignals) -> None:
    """Live as a worker; `descriptors` are those of orders, reports and the two spool files."""
    orders, reports, out, err = descriptors
    output_capture.install(out, err)
    os.close(out)
    os.close(err)
    output_capture.flush_c_streams()
    faulthandler.enable(file=2)  # of a task that crashes, its log shows where
    loader.mark_worker()
    disown()
    sys.argv[:] = argv
    install_thread_propagation()
    worker = Worker(socket.socket(fileno=orders), socket.socket(fileno=reports), signals)
    signals.install()
    for number in (signal.SIGTTIN, signal.SIGTTOU):  # who asks for a terminal is refused it, and
        signal.signal(number, signal.SIG_IGN)  # not stopped: this process is in the background
    environment.remember()
    try:
        worker.serve()
    except SystemExit:  # SIGTERM has come between two steps
        finalize(worker.warn)
        raise
    except Exception:
        worker.check_descriptors()
        raise
    finalize(worker.warn, worker.close)


class Worker:
    """One worker process, between its two sockets."""

    def __init__(self, orders: socket.socket, reports: socket.socket, signals: StopSignals) -> None:
        self._orders, self._reports = orders, reports
        self._sockets = Descriptor(orders.fileno()), Descriptor(reports.fileno())
        self.signals = signals
        self._runs: dict[int, RunView] = {}
        self._pid = os.getpid()
        self._async: AsyncSteps | None = None
        self._unsent: list[bytes] = []
        self._sending = RLock()  # what an async task prints in a thread is sent from there
        self.holder = SharedResources(self._warn_of_shared)
        self._context = copy_context()  # with what the imports of flows set
        self.closing = False

    def serve(self) -> None:
        """Carry out orders until the engine closes the socket or says so."""
        self.report(Ready(self._pid))
        while not self.closing:
            order = self.receive_nowait()
            if order is None:
                self.report()
                if self._async is not None and self.holder.needs_loop:
                    self._async.wait()
                    continue
                order = self._received(self._orders.recv(_PACKET_BYTES))
            self.carry_out(order)
        self.report()

    def close(self) -> None:
        """Close what tasks shared, and the files of all runs."""
        self._let_go()
        for run in self._runs.values():
            run.close()

    def carry_out(self, order: OrderMessage) -> None:
        """Do what one order says, to the end."""
        match order:
            case StartTask():
                self._start(order)
            case CloseRun():
                self._close_run(order.run)
            case ShutDown():
                self.closing = True
            case Ping():
                self.report(Pong())
            case CancelTask():  # it has ended meanwhile
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
        """Close what tasks shared: that of one flow class, or all."""
        if self._async is not None:
            self._async.let_go(cls)
        else:
            self.holder.close(cls)

    def _warn_of_shared(self, flow: str, name: str, error: str) -> None:
        facts = {"flow": flow, "shared": name, "error": error}
        self.warn("something shared has failed", facts)

    def warn(self, event: str, facts: dict[str, Any]) -> None:
        """Have the engine note something in the library's log, if it is there to hear it."""
        with suppress(OSError):
            self.report(Warned(event, facts))

    def on_blocked(self, task: TaskContext | None, seconds: float, where: str) -> None:
        """The loop does not turn, or does so again; called from the watchdog's thread."""
        if task is None:
            if where:
                facts = {"seconds": round(seconds, 1), "line": where}
                self.warn("something blocks the event loop of async steps", facts)
            return
        for number, run in list(self._runs.items()):
            if (run.order.flow, run.order.run_id) == (task.flow_name, task.run_id):
                key = number, int(task.task_id), task.attempt
                self.report(Blocked(*key, seconds, where))
                if where and self._async is not None:
                    self.report(*self._async.give_back())

    def receive_nowait(self) -> OrderMessage | None:
        """The next order if there is one."""
        try:
            return self._received(self._orders.recv(_PACKET_BYTES, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None

    def _received(self, packet: bytes) -> OrderMessage:
        if not packet:
            self.closing = True
            return ShutDown()
        order = unpack_order(packet)
        if isinstance(order, StartTask) and order.run not in self._runs:
            self._runs[order.run] = RunView(Opening(*order.opening), self._pid)
        return order

    def check_descriptors(self, run: RunView | None = None) -> None:
        """Put back what a step has done to 1 and 2, and end this process if it closed ours.

        Nothing could be told any more, or something else could be open in the place of a file that
        the next value is written to.
        """
        orders, reports = self._sockets
        whole = orders.is_whole() and reports.is_whole() and (run is None or run.is_whole())
        if not (output_capture.put_back() and whole):
            os._exit(DESCRIPTORS_CLOSED)

    @property
    def order_descriptor(self) -> int:
        """What an event loop waits on for the next order."""
        return self._orders.fileno()

    def report(self, *messages: ReportMessage) -> None:
        """Tell the engine something at once, after what was to be told with it."""
        with self._sending:
            data = b"".join([*self._unsent, *map(pack_report, messages)])
            if data:
                self._reports.sendall(data)
            if self._unsent:
                self._unsent.clear()
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP)

    def report_soon(self, message: ReportMessage) -> None:
        """Tell the engine something together with what comes next, but before anything is run.

        Until then the worker does not end by SIGTERM: it could have received the next task by now,
        and that one's run may be ending, which must not cost this one its result.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        with self._sending:
            self._unsent.append(pack_report(message))

    def _start(self, order: StartTask) -> None:
        run = self._runs[order.run]
        self.report(Started(order.run, order.task_id, order.attempt))
        began = time.perf_counter()
        try:
            environment.put_back_settings()
            if self.open(run):
                began = time.perf_counter()
                self.report(Opened(run.order.run))
            run.kept.put_back()
            is_async = run.graph[order.step].is_async
        except BaseException as error:  # noqa: BLE001 - whatever the user's module raises at import
            self.check_descriptors(run)
            self.report(failed(order, began, error, output_capture.spooled()))
            return
        if is_async:
            if self._async is None:
                self._async = AsyncSteps(self, run.order.blocked_seconds)
            self._async.run(run, order)
        else:
            # With the next task's start, if that is at hand: one system call instead of two.
            attempt = TaskAttempt(self, run, order, began, is_asked=lambda: self.signals.asked)
            self.report_soon(self.own_context().run(attempt.carry_out_now))

    def open(self, run: RunView) -> bool:
        """Have the run's flow at hand; whether it has just been imported."""
        return self._context.run(run.open)

    def own_context(self) -> Context:
        """The context that a task begins with."""
        return environment.own_context(self._context)

    def run_of(self, order: StartTask) -> RunView:
        """The run that the order belongs to."""
        return self._runs[order.run]


class TaskAttempt:
    """One attempt of a task: runs its step and stores what that made; what comes of it is told."""

    def __init__(
        self,
        worker: Worker,
        run: RunView,
        order: StartTask,
        began: float,
        *,
        is_asked: Callable[[], bool],
        is_late: Callable[[], bool] = lambda: False,
        off_loop: OffLoop | None = None,
    ) -> None:
        """Run nothing yet.

        Args:
            worker: Where it is run.
            run: What it is part of.
            order: Which attempt it is.
            began: When it began, by `perf_counter`.
            is_asked: Tells whether the engine has asked it to end.
            is_late: Tells whether that was because its time was over.
            off_loop: Of an async step.
        """
        self._worker, self._run, self._order, self._began = worker, run, order, began
        self._is_asked, self._is_late, self._off_loop = is_asked, is_late, off_loop
        self._task: TaskView | None = None

    def carry_out_now(self) -> ReportMessage:
        """The same for a `def` step, which awaits nothing."""
        try:
            self.carry_out().send(None)
        except StopIteration as end:
            report: ReportMessage = end.value
            return report
        raise AssertionError("a `def` step was awaited")

    async def carry_out(self) -> ReportMessage:
        """What comes of it, good or bad."""
        worker, run, order = self._worker, self._run, self._order
        asked, holder = run.graph[order.step].shared, worker.holder
        try:
            task = self._task = TaskView(run, order, self._off_loop)
            with task.entered():
                with ending_forks():
                    if order.caught:
                        task.hand_on(order.caught)
                    elif self._off_loop is None:  # here, for else a StopIteration became another
                        task.call(holder.open(run.flow_class, asked) if asked else {})
                    else:
                        shared = await holder.open_async(run.flow_class, asked) if asked else {}
                        await task.call_async(shared)
                        await task.loads_ended()  # what they print is the task's
                worker.check_descriptors(run)
                manifest, fanout, items = await self._store(task)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a step are failures like any other
            worker.check_descriptors(run)
            return await self._failure(error)
        seconds = time.perf_counter() - self._began
        key = order.run, order.task_id, order.attempt
        return Succeeded(*key, seconds, manifest, fanout, items, self._printed())

    async def _store(self, task: TaskView) -> Stored:
        if self._off_loop is None:
            return task.persist()
        if task.is_stored_at_once():
            stored = task.persist()
        else:
            stored = await task.store(self._is_caught_late)
            self._worker.check_descriptors(self._run)  # others were at work meanwhile
        await task.checked()
        return stored

    async def _failure(self, error: BaseException) -> Failed:
        """What to tell of a failure: with the task's artifacts, if the step's `@catch` is for it.

        Where they cannot be kept, a stand-in hands on the failure without them.
        """
        task, signals = self._task, self._worker.signals
        damage: BaseException | None = None
        if self._off_loop is None:
            error = signals.outlast(error)
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # until it is told, see `report_soon`
        else:
            error = await signals.outlast_on_loop(error)
            if task is not None:
                with suppress(BaseException):  # it is cancelled, and fails all the same
                    await task.loads_ended()
            if task is not None and not self._is_asked():
                damage = await task.damage()
        retried = retry_on(self._run, self._order)
        report = failed(self._order, self._began, damage or error, self._printed(), retried)
        if task is None or damage:
            return report
        told = self._late(report, retried) if self._is_asked() else report
        if told is None or not task.catches(may_retry=told.may_retry):
            return report
        try:
            with task.entered():
                task.hand_on((told.attempt, told.exception_type, told.message, told.traceback))
                manifest, _, _ = await self._store(task)
        except BaseException as second:  # noqa: BLE001 - whatever the artifacts' own methods raise
            why = describe_exception(second)
            text = f"What this attempt has set is not kept: {why.type}: {why.message}"
            print(text, file=sys.stderr)  # noqa: T201 - into the task's log
            return report._replace(spooled=self._printed())
        return told._replace(manifest=manifest, spooled=self._printed())

    def _is_caught_late(self) -> bool:
        """Whether it was cancelled because it was late, and its step's `@catch` is for that."""
        on = retry_on(self._run, self._order)
        task = self._task
        return self._is_late() and task is not None and task.catches(may_retry=retries_late(on))

    def _late(self, report: Failed, on: tuple[type[BaseException], ...]) -> Failed | None:
        """The failure as the engine tells it, which has cancelled an async step that was too late.

        None where its time was not over: then its run is ending, and nothing is caught.
        """
        if not self._is_late():
            return None
        limit = self._run.graph[self._order.step].options["timeout"]
        name = f"{TaskTimeoutError.__module__}.{TaskTimeoutError.__qualname__}"
        message = too_long(limit["seconds"])
        return report._replace(
            exception_type=name,
            message=message,
            traceback=with_final_line(report.traceback, name, message),
            may_retry=retries_late(on),
        )

    def _printed(self) -> tuple[int, int]:
        return output_capture.spooled() if self._off_loop is None else output_capture.written()


def retry_on(run: RunView, order: StartTask) -> tuple[type[BaseException], ...]:
    """The exceptions that the step's `@retry` is for; none means all."""
    options = options_of(getattr(run.flow_class, order.step, None))
    return options.retry_on if options is not None else ()


def retries_late(on: tuple[type[BaseException], ...]) -> bool:
    """Whether a `@retry` for these exceptions is for an attempt whose time was over."""
    return not on or issubclass(TaskTimeoutError, on)


def failed(
    order: StartTask,
    began: float,
    error: BaseException,
    spooled: tuple[int, int],
    on: tuple[type[BaseException], ...] = (),
) -> Failed:
    """A failure as data, whatever the exception does when it is looked at."""
    described = describe_exception(error).with_note(why_no_terminal(error))
    seconds = time.perf_counter() - began
    may_retry = not on or isinstance(error, on)
    key = order.run, order.task_id, order.attempt
    return Failed(*key, seconds, *described, may_retry, spooled)


def _stop_loop(serving: Any) -> None:
    serving.get_loop().stop()


class AsyncSteps:
    """The event loop of a worker, on which `async def` tasks run side by side.

    It is entered with the first of them and left after the last; while it runs it takes orders. If
    they have left something async open, it is left only when something else is to be done.
    """

    def __init__(self, worker: Worker, blocked_seconds: float) -> None:
        import asyncio  # noqa: PLC0415 - start-up time: a flow of `def` steps never needs it

        from asyncflow._support.event_loop import UncancellableTask  # noqa: PLC0415 - the same
        from asyncflow.workers.process.artifact_threads import OffLoop  # noqa: PLC0415 - the same
        from asyncflow.workers.process.blocked_loop import Watchdog  # noqa: PLC0415 - the same

        self._asyncio = asyncio
        self._orderly_task = UncancellableTask  # a step may cancel all tasks that it finds
        self._worker = worker
        self._runner = asyncio.Runner()
        self._off_loop = OffLoop()
        self._tasks: dict[tuple[int, int, int], Any] = {}  # by run, task and attempt
        self._waiting: dict[tuple[int, int, int], Sequence[Started | Opened]] = {}
        """Those that have not come to their first line, and what is to be told there."""
        self._asked: dict[tuple[int, int, int], bool] = {}
        """Those that the engine has cancelled, and whether because their time was over."""
        self._later: list[OrderMessage] = []  # orders that cannot be carried out on the loop
        self._idle = asyncio.Event()
        self._serving = False
        self._closing: set[Any] = set()  # of what tasks shared
        self._watchdog = Watchdog(blocked_seconds, worker.on_blocked) if blocked_seconds else None

    def run(self, run: RunView, order: StartTask) -> None:
        """Run a task and all that come while it runs; then carry out what had to wait."""
        self._enter(lambda: self._begin(run, order, ()))

    def wait(self) -> None:
        """Wait for an order here, where what tasks have left open has its turns meanwhile."""
        self._enter(lambda: None)

    def _enter(self, begin: Callable[[], object]) -> None:
        loop = self._runner.get_loop()
        serving = self._orderly_task(self._serve(begin), loop=loop)
        self._worker.signals.on_loop = True
        while not serving.done():
            # A SystemExit or KeyboardInterrupt of a task that a step has made comes out here as
            # well; the step that waits for it is told, and the others go on.
            # A loop that a step has stopped goes on: it is that of other tasks, too.
            with suppress(SystemExit, KeyboardInterrupt):
                serving.add_done_callback(_stop_loop)
                loop.run_forever()
            serving.remove_done_callback(_stop_loop)
        self._worker.signals.on_loop = False
        serving.result()
        later, self._later = self._later, []
        for waiting in later:
            self._worker.carry_out(waiting)

    async def _serve(self, begin: Callable[[], object]) -> None:
        loop = self._asyncio.get_running_loop()
        loop.add_reader(self._worker.order_descriptor, self._take_orders)
        self._serving = True
        try:
            begin()
            while self._is_needed():  # between the last one's end and here another may have begun
                self._idle.clear()
                await self._idle.wait()
        finally:
            self._serving = False
            loop.remove_reader(self._worker.order_descriptor)

    def _is_needed(self) -> bool:
        if self._tasks or self._closing:
            return True
        return self._worker.holder.needs_loop and not self._later

    def let_go(self, cls: type | None) -> None:
        """Close what tasks shared, on this loop; at once if it is not running."""
        closing = self._worker.holder.close_async(cls)
        if not self._serving:
            self._runner.run(closing)
            return
        task = self._orderly_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._let_gone)

    def _let_gone(self, task: Any) -> None:
        self._closing.discard(task)
        self._idle.set()

    def _take_orders(self) -> None:
        taken = 0
        while taken < _ORDERS:
            taken += 1
            order = self._worker.receive_nowait()
            if order is None:
                return
            self._take(order)
            if self._waits():
                return

    def _take(self, order: OrderMessage) -> None:
        match order:
            case StartTask():
                self._begin_or_keep(order)
            case CancelTask():
                task = self._tasks.get((order.run, order.task_id, order.attempt))
                if task is not None:
                    self._worker.report(Stopping(order.run, order.task_id, order.attempt))
                    self._asked[order.run, order.task_id, order.attempt] = order.is_late
                    task.cancel()
            case Ping():
                self._worker.carry_out(order)
            case CloseRun() if all(run != order.run for run, *_ in self._tasks):
                self._worker.carry_out(order)
            case _:
                self._keep(order)
                if isinstance(order, ShutDown):
                    for task in self._tasks.values():
                        task.cancel()

    def _keep(self, order: OrderMessage) -> None:
        self._later.append(order)
        self._idle.set()

    def _waits(self) -> bool:
        """Whether there is something that is to be done before any further task."""
        return any(not isinstance(order, CloseRun) for order in self._later)

    def _begin_or_keep(self, order: StartTask) -> None:
        run = self._worker.run_of(order)
        try:
            run.read()
            is_async = run.graph[order.step].is_async
        except BaseException:  # noqa: BLE001 - it fails again, and properly, when it is carried out
            is_async = False
        if not is_async:
            self._keep(order)
            # The next ones stay where they can be taken back, until the loop has been left.
            self._asyncio.get_running_loop().remove_reader(self._worker.order_descriptor)
            return
        started = Started(order.run, order.task_id, order.attempt)
        if not run.is_open:  # what takes long now is the import, and the engine is to know
            self._worker.report(started)
        began = time.perf_counter()
        try:
            # The time of the first task counts from its first line as well.
            if not self._tasks:
                environment.put_back_settings()
            untold = Opened(order.run) if self._worker.open(run) else started
            if not self._tasks:
                run.kept.put_back()
        except BaseException as error:  # noqa: BLE001 - whatever the user's module raises at import
            self._worker.check_descriptors(run)
            self._worker.report(failed(order, began, error, output_capture.written()))
            return
        self._begin(run, order, (untold,))

    def give_back(self) -> list[GaveBack]:
        """Have no attempt begin that waits for the loop to turn; from the watchdog's thread.

        Each is taken from `_waiting` once: here, or where it begins.
        """
        waiting = [key for key, untold in list(self._waiting.items()) if Started(*key) in untold]
        return [GaveBack(*key) for key in waiting if self._waiting.pop(key, None) is not None]

    def _begin(self, run: RunView, order: StartTask, untold: Sequence[Started | Opened]) -> None:
        loop = self._asyncio.get_running_loop()
        task = loop.create_task(
            self._run_task(run, order),
            name=f"{order.step}/{order.task_id}",
            context=self._worker.own_context(),
        )
        key = order.run, order.task_id, order.attempt
        self._tasks[key], self._waiting[key] = task, untold
        if self._watchdog is not None:
            self._watchdog.watch()
        task.add_done_callback(lambda _: self._ended(key, order))

    def _ended(self, key: tuple[int, int, int], order: StartTask) -> None:
        del self._tasks[key]
        self._asked.pop(key, None)
        untold = self._waiting.pop(key, None)
        if untold is not None:  # it was cancelled before its first line, and has told nothing
            error = self._asyncio.CancelledError()
            end = failed(order, time.perf_counter(), error, output_capture.written())
            self._worker.report(*untold, end)
        if not self._tasks:
            self._idle.set()
            if self._watchdog is not None:
                self._watchdog.rest()

    async def _run_task(self, run: RunView, order: StartTask) -> None:
        worker, key = self._worker, (order.run, order.task_id, order.attempt)
        untold = self._waiting.pop(key, None)
        if untold is None:  # it was given back
            return
        if untold:
            worker.report(*untold)
        began = time.perf_counter()

        def send(stream: int, data: bytes) -> None:
            worker.report(Logged(order.run, order.task_id, order.attempt, stream, data))

        lines = output_capture.LineSink(send)
        token = output_capture.sink.set(lines)
        attempt = TaskAttempt(
            worker,
            run,
            order,
            began,
            is_asked=lambda: key in self._asked,
            is_late=lambda: self._asked.get(key, False),
            off_loop=self._off_loop,
        )
        try:
            report = await attempt.carry_out()
        finally:
            output_capture.sink.reset(token)
        lines.close()
        worker.report(report)
