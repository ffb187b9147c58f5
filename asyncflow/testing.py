"""Fakes for tests: a clock that skips waits, threads that run inline, simulated workers.

They take the place of the real parts under the engine's real driver and dispatcher. What would take
hours and many processes then takes milliseconds and one thread, and is the same each time:

    loop = FakeClockLoop()
    loop.run_until_complete(asyncio.sleep(3600))  # at once; loop.time() says 3600.0

`FakeClockLoop` alone is of use for any code that waits. A `Dispatcher` takes the other two in place
of its threads and of its pool of workers. A store needs no fake: use a real one in a temporary
folder; a run in it costs some milliseconds.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from concurrent.futures import Executor as ThreadExecutor
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from selectors import DefaultSelector
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from asyncflow.values import Outcome
from asyncflow.workers.messages import (
    CancelTask,
    Failed,
    Opened,
    Order,
    Ping,
    Pong,
    Ready,
    ShutDown,
    Started,
    StartTask,
    Succeeded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from selectors import SelectorKey

    from asyncflow.workers.messages import OrderMessage, ReportMessage

Result = TypeVar("Result")

_NOTHING: Final = (0, 0)  # of both streams: a simulated task prints nothing


# --- the clock ----------------------------------------------------------------------------------


class StuckError(Exception):
    """Every task waits for something that cannot come: on a real loop, for ever."""


class _SkippingSelector(DefaultSelector):
    """Lets time pass instead of waiting for it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckError(StuckError.__doc__)
            self.now += timeout
        return ready


class FakeClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time starts at 0 and advances only when all tasks wait, and then at once.

    It knows nothing of other threads: results from them may come at any of its times.

    Raises, from whatever runs it: `StuckError` when no task waits for a point in time, so that the
    wait would never end.
    """

    def __init__(self) -> None:
        self._clock = _SkippingSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        """Seconds since the loop was made, as all timers count them."""
        return self._clock.now


# --- threads ------------------------------------------------------------------------------------


class InlineExecutor(ThreadExecutor):
    """Runs each function at once, in the caller's thread, in place of a pool of threads."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Call the function; the future that is returned is done."""
        future: Future[Result] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to its reader
            future.set_exception(error)
        return future


# --- workers ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Act:
    """What a simulated worker does with an attempt of a task."""

    seconds: float = 0.0
    """How long the attempt takes."""
    fanout: int | None = None
    """How many items a successful foreach returns."""
    error: str = ""
    """The message of the `ValueError` that it fails with; empty for success."""
    caught: bool = False
    """Whether the worker handles that failure itself, as for a step with `@catch`."""
    dies: bool = False
    """Whether the worker is killed before the attempt ends."""
    is_async: bool = False
    """Whether the worker accepts further tasks meanwhile."""


class Listener(Protocol):
    """Is told what workers report: a `Dispatcher`."""

    def on_reports(self, worker: Any, reports: Sequence[ReportMessage]) -> None:
        """Handle the worker's reports."""

    def on_exit(self, worker: Any, how: str) -> None:
        """Handle a worker's exit; all its reports came before."""


class SimulatedExecutor:
    """Workers without processes; `play` decides the outcome and duration of each attempt.

    It takes the place of the pool of workers, on the event loop that runs when it is made. `deaf`
    is how many seconds a worker survives a SIGTERM.
    """

    def __init__(
        self,
        listener: Listener,
        play: Callable[[StartTask], Act],
        *,
        size: int,
        deaf: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.size = size
        """How many workers there may be at a time."""
        self.workers: list[SimulatedWorker] = []
        """The workers that are alive."""
        self.listener, self.play, self.deaf = listener, play, deaf
        self._pids = count(1)

    def start_worker(self) -> SimulatedWorker:
        """Start a worker; it accepts orders at once."""
        worker = SimulatedWorker(self, next(self._pids))
        self.workers.append(worker)
        return worker

    def pause(self, worker: SimulatedWorker) -> None:
        """Stop receiving a worker's reports for now."""
        worker.paused = True

    def resume(self, worker: SimulatedWorker) -> None:
        """Receive its reports again."""
        worker.paused = False
        worker.speak()

    def __repr__(self) -> str:
        return f"<SimulatedExecutor {len(self.workers)} workers>"


class SimulatedWorker:
    """A simulated worker: runs one `def` task at a time, or many async ones."""

    def __init__(self, executor: SimulatedExecutor, pid: int) -> None:
        self.pid = pid
        self.stop_reason = ""
        """Why it is being killed; empty while it is not."""
        self.paused = False
        self.spools = (Silence(), Silence())
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._orders: deque[OrderMessage] = deque()  # sent, but not received
        self._running: dict[tuple[int, int], tuple[StartTask, Act, asyncio.TimerHandle]] = {}
        self._unheard: list[ReportMessage] = [Ready(pid)]
        self._opened: set[int] = set()  # runs whose flow a real worker would have imported
        self._closing = False
        self._gone = False
        self._loop.call_soon(self._receive)

    # --- called by the dispatcher ---

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""
        self._orders.append(order)
        self._loop.call_soon(self._receive)

    def take_back(self) -> list[list[Any]]:
        """Return the start orders that it has not received, raw; other orders stay."""
        taken = [order for order in self._orders if isinstance(order, StartTask)]
        self._orders = deque(each for each in self._orders if not isinstance(each, StartTask))
        return [[Order.START_TASK, *order] for order in taken]

    def spooled(self) -> tuple[int, int]:
        """How many bytes of output wait: none."""
        return _NOTHING

    def has_more(self) -> bool:
        """Whether a report waits: never, because reports are delivered at once."""
        return False

    def kill(self, number: int, why: str) -> None:
        """Kill it: at once, or after its `deaf` seconds if the signal asks it to end."""
        self.stop_reason = self.stop_reason or why
        wait = self._executor.deaf() if number == signal.SIGTERM else 0.0
        self._loop.call_later(wait, self.exit, f"was killed by {signal.Signals(number).name}")

    # --- its own work ---

    def exit(self, how: str) -> None:
        """Exit, even while tasks run. Harmless when repeated."""
        if self._gone:
            return
        self.speak()
        self._gone = True
        for _, _, timer in self._running.values():
            timer.cancel()
        self._executor.workers.remove(self)
        self._executor.listener.on_exit(self, how)

    def speak(self) -> None:
        """Deliver the waiting reports."""
        if self._unheard and not self.paused and not self._gone:
            told, self._unheard = self._unheard, []
            self._executor.listener.on_reports(self, told)

    def _receive(self) -> None:
        while self._orders and not self._gone and not self._is_busy():
            match self._orders.popleft():
                case StartTask() as order:
                    self._begin(order)
                case CancelTask(run, task_id):
                    self._cancel(run, task_id)
                case ShutDown():
                    self._closing = True
                case Ping():
                    self._unheard.append(Pong())
                case _:
                    pass
        self.speak()
        if self._closing and not self._running:
            self.exit("exited")

    def _is_busy(self) -> bool:
        return any(not act.is_async for _, act, _ in self._running.values())

    def _begin(self, order: StartTask) -> None:
        self._unheard.append(Started(order.run, order.task_id, order.attempt))
        if order.run not in self._opened:
            self._opened.add(order.run)
            self._unheard.append(Opened(order.run))
        act = self._executor.play(order)
        key = order.run, order.task_id
        timer = self._loop.call_later(act.seconds, self._end, key)
        self._running[key] = order, act, timer

    def _end(self, key: tuple[int, int]) -> None:
        order, act, _ = self._running[key]
        if act.dies:
            self.exit("was killed by SIGKILL")
            return
        del self._running[key]
        self._unheard.append(_report(order, act))
        self._receive()

    def _cancel(self, run: int, task_id: int) -> None:
        if (run, task_id) in self._running:
            order, act, timer = self._running.pop((run, task_id))
            timer.cancel()
            self._unheard.append(_report(order, Act(act.seconds, error="cancelled")))

    def __repr__(self) -> str:
        return f"<SimulatedWorker {self.pid}{' stop_reason' if self.stop_reason else ''}>"


class Silence:
    """The output of a worker that prints nothing."""

    def read(self, offset: int, count: int) -> bytes:  # noqa: ARG002 - there is no output
        """Return no output."""
        return b""


def _report(order: StartTask, act: Act) -> ReportMessage:
    key = order.run, order.task_id, order.attempt
    if act.error:
        failure = "ValueError", act.error, ""
        kept = Outcome() if act.caught else None
        return Failed(*key, act.seconds, *failure, may_retry=True, spooled=_NOTHING, outcome=kept)
    return Succeeded(*key, act.seconds, Outcome(fanout=act.fanout), _NOTHING)
