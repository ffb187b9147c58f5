"""The event loop of a worker, on which `async def` tasks run side by side."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow.workers.messages import (
    UNKNOWN_USAGE,
    CancelTask,
    CloseRun,
    GaveBack,
    Logged,
    MoreInputs,
    Opened,
    Ping,
    ShutDown,
    Started,
    StartTask,
    Stopping,
    YieldMore,
)
from asyncflow.workers.process import environment, output_capture
from asyncflow.workers.process.run import item_text_of
from asyncflow.workers.process.run_task import TaskAttempt, TaskHost, ToldAsync, failed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextvars import Context

    from asyncflow.flow.current import TaskContext
    from asyncflow.workers.messages import AttemptKey, OrderMessage, ReportMessage, Usage
    from asyncflow.workers.process.arrivals import Arrivals
    from asyncflow.workers.process.run import OpenRun

_ORDERS: Final = 64  # received in one go; then the tasks have a turn


class AsyncTaskHost(TaskHost, Protocol):
    """What the event loop needs of its worker: orders, reports, and runs."""

    @property
    def order_descriptor(self) -> int:
        """The file descriptor that becomes readable with the next order."""

    def receive_nowait(self) -> OrderMessage | None: ...

    def carry_out(self, order: OrderMessage) -> None:
        """Carry out one order, to the end."""

    def report(self, *messages: ReportMessage) -> None:
        """Send reports to the engine at once."""

    def run_of(self, order: StartTask) -> OpenRun:
        """The run to which the order belongs."""

    def open(self, run: OpenRun) -> bool:
        """Load the run's flow; return whether it was imported just now."""

    def own_context(self) -> Context:
        """The context in which a task begins."""

    def on_blocked(self, task: TaskContext | None, seconds: float, where: str) -> None:
        """Report that the loop is blocked, or turns again."""


def _stop_loop(serving: Any) -> None:
    serving.get_loop().stop()


class AsyncSteps:
    """The event loop of a worker, on which `async def` tasks run side by side.

    It is entered with the first task and left after the last; while it runs it receives orders. If
    async resources are open, it is left only when something else has to be done.
    """

    def __init__(self, worker: AsyncTaskHost, blocked_seconds: float) -> None:
        import asyncio

        from asyncflow._support.event_loop import UncancellableTask
        from asyncflow.workers.process.artifact_threads import OffLoop
        from asyncflow.workers.process.blocked_loop import Watchdog

        self._asyncio = asyncio
        self._orderly_task = UncancellableTask  # a step may cancel all tasks that it finds
        self._worker = worker
        self._runner = asyncio.Runner()
        self._off_loop = OffLoop()
        self._tasks: dict[AttemptKey, Any] = {}  # by run, task and attempt
        self._begun = 0  # how many tasks have begun, in all
        self._waiting: dict[AttemptKey, Sequence[Started | Opened]] = {}
        """Tasks that have not begun yet, and the reports to send when they do."""
        self._asked: dict[AttemptKey, bool] = {}
        """Tasks that the engine has cancelled, and whether they were out of time."""
        self._more: dict[AttemptKey, int] = {}
        """Tasks whose generators may go on, and up to how many items."""
        self._yielding: dict[AttemptKey, Any] = {}  # what their waiting generators wait for
        self._arrivals: dict[AttemptKey, Arrivals] = {}
        """The inputs of joins that have begun before the last of them."""
        self._later: list[OrderMessage] = []  # orders that cannot be carried out on the loop
        self._idle = asyncio.Event()
        self._serving = False
        self._closing: set[Any] = set()  # of closing shared resources
        self._watchdog = Watchdog(blocked_seconds, worker.on_blocked) if blocked_seconds else None

    def run(self, run: OpenRun, order: StartTask) -> None:
        """Run a task, and all that come meanwhile; then carry out the orders that had to wait."""
        self._enter(lambda: self._begin(run, order, ()))

    def wait(self) -> None:
        """Wait for an order on the loop, so that open shared resources can run meanwhile."""
        self._enter(lambda: None)

    def close(self) -> None:
        """Close the loop. For a worker that is not a process, which the kernel would clean up."""
        self._runner.close()

    def _enter(self, begin: Callable[[], object]) -> None:
        loop = self._runner.get_loop()
        serving = self._orderly_task(self._serve(begin), loop=loop)
        self._worker.signals.on_loop = True
        while not serving.done():
            # A SystemExit or KeyboardInterrupt of an asyncio task that a step has made comes out
            # here as well; the step that awaits it gets it, and the other tasks go on. A loop that
            # a step has stopped goes on, because it is that of other tasks, too.
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
            while self._is_needed():  # another task may have begun since the last one ended
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
        """Close shared resources, on this loop; at once if it is not running."""
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
                task = self._tasks.get(order.key)
                if task is not None:
                    self._worker.report(Stopping(order.key))
                    self._asked[order.key] = order.is_late
                    task.cancel()
            case YieldMore() | MoreInputs():
                self._tell(order)
            case Ping():
                self._worker.carry_out(order)
            case CloseRun() if all(key.run != order.run for key in self._tasks):
                self._worker.carry_out(order)
            case _:
                self._keep(order)
                if isinstance(order, ShutDown):
                    for task in self._tasks.values():
                        task.cancel()

    def _tell(self, order: YieldMore | MoreInputs) -> None:
        if isinstance(order, MoreInputs):
            if (arrivals := self._arrivals.get(order.key)) is not None:
                arrivals.add(order.inputs, are_last=order.are_last)
        elif order.key in self._tasks:
            self._more[order.key] = order.upto
            if (waiting := self._yielding.get(order.key)) is not None:
                waiting.set()

    def _keep(self, order: OrderMessage) -> None:
        self._later.append(order)
        self._idle.set()

    def _waits(self) -> bool:
        """Whether an order has to be carried out before any further task."""
        return any(not isinstance(order, CloseRun) for order in self._later)

    def _begin_or_keep(self, order: StartTask) -> None:
        run = self._worker.run_of(order)
        try:
            run.read()
            is_async = run.graph[order.step].is_async
        except BaseException:  # noqa: BLE001 - it fails again, and is reported, when it is carried out
            is_async = False
        if not is_async:
            self._keep(order)
            # Leave later orders where they can be taken back, until the loop has been left.
            self._asyncio.get_running_loop().remove_reader(self._worker.order_descriptor)
            return
        started = Started(order.key, item_text_of(run, order.stack, order.path))
        if not run.is_open:  # a long wait now is the import, and the engine must know that
            self._worker.report(started)
        began = time.perf_counter()
        try:
            # The first task's time counts from its first line as well.
            if not self._tasks:
                environment.put_back_settings()
            untold = Opened(order.key.run) if self._worker.open(run) else started
            if not self._tasks:
                run.kept.put_back()
        except BaseException as error:  # noqa: BLE001 - whatever the user's module raises at import
            self._worker.check_descriptors(run)
            self._worker.report(failed(order, began, error, output_capture.written()))
            return
        self._begin(run, order, (untold,))

    def give_back(self) -> list[GaveBack]:
        """Give back the attempts that wait for the blocked loop; called in the watchdog's thread.

        Each is taken from `_waiting` once: here, or where it begins.
        """
        waiting = [
            key
            for key, untold in list(self._waiting.items())
            if any(isinstance(each, Started) for each in untold)
        ]
        return [GaveBack(key) for key in waiting if self._waiting.pop(key, None) is not None]

    def _begin(self, run: OpenRun, order: StartTask, untold: Sequence[Started | Opened]) -> None:
        loop = self._asyncio.get_running_loop()
        task = loop.create_task(
            self._run_task(run, order),
            name=f"{order.step}/{order.key.task}",
            context=self._worker.own_context(),
        )
        key = order.key
        self._begun += 1
        self._tasks[key], self._waiting[key] = task, untold
        if order.awaits:
            from asyncflow.workers.process.arrivals import Arrivals

            self._arrivals[key] = Arrivals(order.inputs)
        if self._watchdog is not None:
            self._watchdog.watch()
        task.add_done_callback(lambda _: self._ended(key, order))

    def _ended(self, key: AttemptKey, order: StartTask) -> None:
        del self._tasks[key]
        self._asked.pop(key, None)
        self._more.pop(key, None)
        self._arrivals.pop(key, None)
        untold = self._waiting.pop(key, None)
        if untold is not None:  # it was cancelled before its first line, and has reported nothing
            error = self._asyncio.CancelledError()
            end = failed(order, time.perf_counter(), error, output_capture.written())
            self._worker.report(*untold, end)
        if not self._tasks:
            self._idle.set()
            if self._watchdog is not None:
                self._watchdog.rest()

    async def _wait_for_more(self, key: AttemptKey) -> int:
        """Wait until the task's generator may go on; return up to how many items."""
        waiting = self._yielding[key] = self._asyncio.Event()
        try:
            if key not in self._more:
                await waiting.wait()
            return self._more.pop(key)
        finally:
            del self._yielding[key]

    async def _run_task(self, run: OpenRun, order: StartTask) -> None:
        worker, key = self._worker, order.key
        untold = self._waiting.pop(key, None)
        if untold is None:  # it was given back
            return
        if untold:
            worker.report(*untold)
        began, number = time.perf_counter(), self._begun
        is_alone = len(self._tasks) == 1
        if is_alone:
            worker.meter.begin()

        def used() -> Usage:
            """What the task has used, if no other one has shared the loop with it."""
            if is_alone and number == self._begun:
                return worker.meter.end()
            worker.meter.note_other_work()
            return UNKNOWN_USAGE

        def send(stream: int, data: bytes) -> None:
            worker.report(Logged(key, stream, data))

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
            told=ToldAsync(lambda: self._wait_for_more(key), self._arrivals.get(key), used),
        )
        try:
            report = await attempt.carry_out()
        finally:
            output_capture.sink.reset(token)
        lines.close()
        worker.report(report)
