"""Workers that receive, report and end when a test says so, in place of an executor's."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from asyncflow.workers.interface import AHEAD, AlikeWorkers
from asyncflow.workers.messages import AttemptKey, GaveBack, StartItems, StartTask

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.workers.interface import Kind, WorkerListener
    from asyncflow.workers.messages import OrderMessage


class ManualWorker:
    """A worker that does nothing by itself but to give back what it has not received."""

    is_up = is_heard = True
    node = ""
    takes_several = True
    ahead = AHEAD

    def __init__(self, executor: ManualExecutor, pid: int) -> None:
        self.pid, self.name, self.stop_reason = pid, f"worker {pid}", ""
        self.ended_with_others = False
        self.waiting: deque[OrderMessage] = deque()  # orders that it has not received
        self.received: deque[StartTask] = deque()  # and not ended, for tests that end tasks in turn
        self.sent: list[OrderMessage] = []  # all orders, as they came
        self.verbs: list[str] = []  # how it was asked to end, whenever that has hit it
        self._last: AttemptKey | None = None
        self._executor = executor

    @property
    def orders(self) -> list[StartTask]:
        """The tasks that it has not received."""
        return [order for order in self.waiting if isinstance(order, StartTask)]

    @property
    def tasks(self) -> list[tuple[int, int]]:
        """What it has, begun or not: run and task of each."""
        return [order.key[:2] for order in (*self.received, *self.orders)]

    def receive(self) -> StartTask:
        """Take orders up to the next task."""
        while not isinstance(order := self.waiting.popleft(), StartTask):
            pass
        self.received.append(order)
        self._last = order.key
        return order

    # --- what the scheduler does with it ---

    @property
    def is_idle(self) -> bool:
        return not self.tasks

    def send(self, order: OrderMessage) -> None:
        self.sent.append(order)
        self.waiting += order.orders() if isinstance(order, StartItems) else [order]

    def take_back(self) -> None:
        back = [GaveBack(order.key) for order in self.orders]
        self.waiting = deque(order for order in self.waiting if not isinstance(order, StartTask))
        if back:
            self._executor.loop.call_soon(self._executor.listener.on_reports, self, back)

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:
        self._hit("ask_to_stop", why, attempt)

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        self._hit("destroy", why, attempt)

    def _hit(self, verb: str, why: str, attempt: AttemptKey | None) -> None:
        self.take_back()
        if attempt in {None, self._last}:
            self.stop_reason = self.stop_reason or why
            self.verbs.append(verb)

    def pause(self) -> None:
        self._executor.heard.append(("pause", self.pid))

    def resume(self) -> None:
        self._executor.heard.append(("resume", self.pid))


class ManualExecutor(AlikeWorkers):
    """An executor of such workers."""

    def __init__(self, listener: WorkerListener, *, size: int, loop: Any = None) -> None:
        self.listener, self.size = listener, size
        self.loop = loop or asyncio.get_running_loop()
        self.workers: list[ManualWorker] = []  # all that were ever started
        self.environment: Mapping[str, str] = {}
        self.heard: list[tuple[str, int]] = []  # pauses and resumptions

    async def start(self) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is to be done."""

    def start_worker(self, kind: Kind = None) -> ManualWorker:
        self.workers.append(ManualWorker(self, 100 + len(self.workers)))
        return self.workers[-1]

    def suspended(self) -> Any:
        return nullcontext()
