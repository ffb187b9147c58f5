"""Workers without processes: the test decides the outcome and duration of each task."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

from asyncflow.values import ITEM_DIGEST_BYTES, Outcome
from asyncflow.workers.interface import AHEAD, AlikeWorkers
from asyncflow.workers.messages import (
    AttemptKey,
    CancelTask,
    Failed,
    GaveBack,
    MoreInputs,
    Opened,
    Ping,
    Pong,
    Ready,
    ShutDown,
    Started,
    StartItems,
    StartTask,
    Succeeded,
    Yielded,
    pack_report,
)
from asyncflow.workers.report_stream import Reports, ReportStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.workers.interface import Kind, WorkerListener
    from asyncflow.workers.messages import OrderMessage, ReportMessage

_NOTHING: Final = (0, 0)  # of both streams: a simulated task prints nothing


@dataclass(frozen=True, slots=True)
class Act:
    """What a simulated worker does with an attempt of a task."""

    seconds: float = 0.0
    """How long the attempt takes."""
    fanout: int | None = None
    """How many items a successful foreach returns."""
    choice: str = ""
    """The step that a successful condition chooses."""
    yields: int = 0
    """How many items the generator of a foreach yields, one by one, before the attempt ends."""
    error: str = ""
    """The message of the `ValueError` that it fails with; empty for success."""
    caught: bool = False
    """Whether the worker handles that failure itself, as for a step with `@catch`."""
    dies: bool = False
    """Whether the worker is killed before the attempt ends."""
    is_async: bool = False
    """Whether the worker accepts further tasks meanwhile."""


class SimulatedExecutor(AlikeWorkers):
    """Workers without processes; `play` decides the outcome and duration of each attempt.

    A join that reads its inputs as they arrive is played when all have arrived; the order that
    `play` gets has them all.
    It takes the place of the pool of workers, on the event loop that runs when it is made. `deaf`
    is how many seconds a worker lives on after it was asked to stop a task.
    """

    def __init__(
        self,
        listener: WorkerListener,
        play: Callable[[StartTask], Act],
        *,
        size: int,
        deaf: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.size = size
        """How many workers there may be at a time."""
        self.workers: list[SimulatedWorker] = []
        """The workers that are alive."""
        self.environment: Mapping[str, str] = {}
        """The environment variables that workers begin with: none."""
        self.listener, self.play, self.deaf = listener, play, deaf
        self._pids = count(1)

    async def start(self) -> None:
        """Nothing is needed to start workers."""

    async def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            worker.exit("ended with its executor")

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Change nothing: the clock stands still while nobody waits."""
        yield

    def start_worker(self, kind: Kind = None) -> SimulatedWorker:
        """Start a worker; it accepts orders at once."""
        del kind  # there is only one
        worker = SimulatedWorker(self, next(self._pids))
        self.workers.append(worker)
        return worker

    def __repr__(self) -> str:
        return f"<SimulatedExecutor {len(self.workers)} workers>"


class SimulatedWorker:
    """A simulated worker: runs one `def` task at a time, or many async ones."""

    takes_several = True
    ahead = AHEAD

    def __init__(self, executor: SimulatedExecutor, pid: int) -> None:
        self.pid = pid
        """Its number: it has no process."""
        self.is_up = self.is_heard = True
        """It takes no time to start."""
        self.stop_reason = ""
        self.ended_with_others = False
        """Why it is being killed; empty while it is not."""
        self._paused = False
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._orders: deque[OrderMessage] = deque()  # sent, but not received
        self._running: dict[AttemptKey, tuple[StartTask, Act, asyncio.TimerHandle]] = {}
        self._awaiting: dict[AttemptKey, StartTask] = {}  # joins, with the inputs that they have
        self._unheard: list[ReportMessage] = [Ready(pid)]
        self._opened: set[int] = set()  # runs whose flow a real worker would have imported
        self._closing = False
        self._gone = False
        self._loop.call_soon(self._receive)

    @property
    def name(self) -> str:
        """Which one it is."""
        return f"simulated worker {self.pid}"

    @property
    def node(self) -> str:
        """Empty: it is simulated here."""
        return ""

    # --- what the dispatcher does with it ---

    @property
    def is_idle(self) -> bool:
        """Whether it has no attempt."""
        return not (self._orders or self._running or self._awaiting)

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""
        orders = order.orders() if isinstance(order, StartItems) else [order]
        for each in orders:
            self._orders.append(each)
            self._loop.call_soon(self._receive)

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""
        taken = [order for order in self._orders if isinstance(order, StartTask)]
        self._orders = deque(each for each in self._orders if not isinstance(each, StartTask))
        self._unheard += [GaveBack(order.key) for order in taken]
        self._loop.call_soon(self.speak)

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:  # noqa: ARG002 - it reports nothing
        """End the worker after its `deaf` seconds, if the attempt is running."""
        self.take_back()
        if self._has(attempt):
            self._end_after(self._executor.deaf(), "was killed by SIGTERM", why)

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """End the worker; with `attempt`, only if that is running."""
        self.take_back()
        if attempt is None or self._has(attempt):
            self._end_after(0.0, "was killed by SIGKILL", why)

    def _end_after(self, seconds: float, how: str, why: str) -> None:
        self.stop_reason = self.stop_reason or why
        self._loop.call_later(seconds, self.exit, how)

    def pause(self) -> None:
        """Report nothing of it for now."""
        self._paused = True

    def resume(self) -> None:
        """Report again."""
        self._paused = False
        self.speak()

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
        if self._unheard and not self._paused and not self._gone:
            told, self._unheard = b"".join(map(pack_report, self._unheard)), []
            reports = Reports(ReportStream().feed_together(told))
            self._executor.listener.on_reports(self, reports)

    def _receive(self) -> None:
        while self._orders and not self._gone and not self._is_busy():
            match order := self._orders.popleft():
                case StartTask():
                    self._begin(order)
                case CancelTask(key):
                    self._cancel(key)
                case MoreInputs():
                    self._arrive(order)
                case ShutDown():
                    self._closing = True
                case Ping():
                    self._unheard.append(Pong())
                case _:
                    pass
        self.speak()
        if self._closing and not self._running and not self._awaiting:
            self.exit("exited")

    def _is_busy(self) -> bool:
        return any(not act.is_async for _, act, _ in self._running.values())

    def _begin(self, order: StartTask) -> None:
        self._unheard.append(Started(order.key))
        if order.key.run not in self._opened:
            self._opened.add(order.key.run)
            self._unheard.append(Opened(order.key.run))
        if order.awaits:
            self._awaiting[order.key] = order
        else:
            self._play(order)

    def _arrive(self, more: MoreInputs) -> None:
        if more.key not in self._awaiting:
            return
        order = self._awaiting.pop(more.key)
        order = order._replace(inputs=order.inputs + more.inputs)
        if more.are_last:
            self._play(order)
        else:
            self._awaiting[more.key] = order

    def _play(self, order: StartTask) -> None:
        self._go_on(order, self._executor.play(order), 0)

    def _go_on(self, order: StartTask, act: Act, index: int) -> None:
        """Wait until the generator yields the item with this index, or until the attempt ends."""
        after, then = act.seconds / (act.yields + 1), partial(self._yield, order.key, index)
        if index == act.yields:
            then = partial(self._end, order.key)
        self._running[order.key] = order, act, self._loop.call_later(after, then)

    def _yield(self, key: AttemptKey, index: int) -> None:
        order, act, _ = self._running[key]
        manifest = b"" if index else b"\x80"
        digests = index.to_bytes(ITEM_DIGEST_BYTES, "little")
        self._unheard.append(Yielded(key, index, 1, b"", manifest, digests))
        self._go_on(order, act, index + 1)
        self.speak()

    def _has(self, attempt: AttemptKey) -> bool:
        return attempt in self._running or attempt in self._awaiting

    def _end(self, key: AttemptKey) -> None:
        order, act, _ = self._running[key]
        if act.dies:
            self.exit("was killed by SIGKILL")
            return
        del self._running[key]
        self._unheard.append(_report(order, act))
        self._receive()

    def _cancel(self, key: AttemptKey) -> None:
        order = self._awaiting.pop(key, None)
        if key in self._running:
            order, _, timer = self._running.pop(key)
            timer.cancel()
        if order is not None:
            self._unheard.append(_report(order, Act(error="cancelled")))

    def __repr__(self) -> str:
        return f"<SimulatedWorker {self.pid}{' stop_reason' if self.stop_reason else ''}>"


def _report(order: StartTask, act: Act) -> ReportMessage:
    if act.error:
        failure = "ValueError", act.error, ""
        kept = Outcome() if act.caught else None
        return Failed(
            order.key, act.seconds, *failure, may_retry=True, spooled=_NOTHING, outcome=kept
        )
    outcome = Outcome(fanout=act.fanout, choice=act.choice)
    return Succeeded(order.key, act.seconds, outcome, _NOTHING)
