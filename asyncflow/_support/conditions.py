"""Waits that end even if the callback that should end them is lost.

A signal handler may raise an exception anywhere, as Ctrl-C does. If it does so in a callback of
asyncio, that callback is lost: one that should wake a task, a timer, or a step of the loop itself.
The loop may go on afterwards, as it does at the end of a program. A task that waits for that
callback then waits for ever.

So the engine never waits for a callback. It waits for a *condition*, which can be checked at any
time. Code that changes a condition has it checked at once, and nearly every wait ends that way. In
addition, all conditions of an event loop are checked from time to time while an engine works, and
when all asyncio tasks are cancelled. Components that rely on callbacks first repair lost ones.

The call that wakes a task is a callback, too. A waiter repeats it with each check until the task
goes on (`asyncflow._support.waiter`).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from asyncflow._support.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor
    from concurrent.futures import Future as ThreadFuture

Result = TypeVar("Result")

_AT_ONCE: Final = 50  # conditions that are checked in one turn of the loop: some 0.1 ms
_LOST_SECONDS: Final = 0.2  # a timer that is so late was lost
_REST_SECONDS: Final = 0.0001  # for each timer: they are looked at the less often, the more


class CalledBack(Protocol):
    """A component that relies on callbacks of the event loop."""

    def call_again(self) -> None:
        """Do the work of a callback that was lost. Harmless if none was."""


class _Waits:
    """All waits on one event loop."""

    def __init__(self) -> None:
        self.conditions: set[Condition] = set()
        self.parts: WeakSet[CalledBack] = WeakSet()
        self.timers: WeakSet[SureTimer] = WeakSet()
        self._rests_until = 0.0
        self.soon: asyncio.Handle | None = None

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        self.soon = None
        for part in list(self.parts):
            part.call_again()
        self._ring_lost(loop.time())
        self._look_at(loop, list(self.conditions))

    def _ring_lost(self, now: float) -> None:
        """Ring the timers that should have rung long ago."""
        if now < self._rests_until:
            return
        self._rests_until = now + _REST_SECONDS * len(self.timers)
        for timer in [each for each in self.timers if each.when < now - _LOST_SECONDS]:
            timer.ring_again()

    def _look_at(self, loop: asyncio.AbstractEventLoop, conditions: list[Condition]) -> None:
        """Check some of them, and the others in the next turns of the loop.

        If that call is lost, whoever looks again begins anew.
        """
        for condition in conditions[:_AT_ONCE]:
            condition.look_again()
        rest = conditions[_AT_ONCE:]
        if rest:
            loop.call_soon(self._look_at, loop, rest)


_waits: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waits] = WeakKeyDictionary()


def _waits_on(loop: asyncio.AbstractEventLoop) -> _Waits:
    found = _waits.get(loop)
    if found is None:
        found = _waits[loop] = _Waits()
    return found


def look_again(loop: asyncio.AbstractEventLoop) -> None:
    """Repair lost callbacks of this event loop; called in its thread."""
    _waits_on(loop).look(loop)


def look_again_soon(loop: asyncio.AbstractEventLoop) -> None:
    """Do the same in the loop's next turn; several calls count as one."""
    waits = _waits_on(loop)
    if waits.soon is not None:
        waits.soon.cancel()  # a new one: the earlier one may be lost
    with suppress(RuntimeError):  # the loop is closed
        waits.soon = loop.call_soon(waits.look, loop)


def call_again(part: CalledBack, loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Register a component with the event loop that runs, or another; while it is referenced."""
    _waits_on(loop or asyncio.get_running_loop()).parts.add(part)


def call_no_more(part: CalledBack, loop: asyncio.AbstractEventLoop) -> None:
    """Forget a component that relies on no callback any more."""
    _waits_on(loop).parts.discard(part)


def _nothing() -> None:
    """Do nothing: in place of the function of a timer that was cancelled."""


class SureTimer:
    """A timer that rings again if its call was lost, or broken off by an exception.

    Whoever sets it keeps it, and cancels it when the call has done all that there is to do.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        function: Callable[..., object],
        *arguments: object,
    ) -> None:
        """Call the function after so many seconds; it may be called again until `cancel`."""
        self.when = loop.time() + seconds
        """When it rings, by the loop's clock."""
        self._loop = loop
        self._function: Callable[..., object] = function
        self._arguments = arguments
        self._timers = _waits_on(loop).timers
        self._handle = loop.call_later(seconds, function, *arguments)
        self._timers.add(self)

    def ring_again(self) -> None:
        """Call the function now, and not at its time."""
        self._handle.cancel()
        self.when = self._loop.time()
        self._function(*self._arguments)

    def cancel(self) -> None:
        """Do not call the function any more, nor refer to it. Harmless when repeated."""
        self._handle.cancel()
        self._timers.discard(self)
        self._function, self._arguments = _nothing, ()

    def __repr__(self) -> str:
        return f"<SureTimer at {self.when:.3f}>"


class Condition:
    """A condition to wait for on the running event loop."""

    def __init__(self, holds: Callable[[], bool]) -> None:
        """Create it; `holds` is called whenever its answer may have changed: it must be cheap."""
        self._holds = holds
        self._loop = asyncio.get_running_loop()
        self._waits = _waits_on(self._loop)
        self._waiters: list[tuple[Waiter[None], float | None]] = []  # each with its end

    def look(self, *_: object) -> None:
        """Check the condition, and wake the waiters if it holds."""
        if not self._waiters:
            return
        holds, now = self._holds(), self._loop.time()
        for waiter, end in self._waiters:
            if (holds or (end is not None and end <= now)) and not waiter.done():
                waiter.set_result(None)

    def look_again(self) -> None:
        """Check the condition, and wake waiters again whose wake-up call was lost."""
        for waiter, _ in self._waiters:
            waiter.wake_again()
        self.look()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until the condition holds, for at most `seconds`; return whether it does."""
        if self._holds():
            return True
        waiter: Waiter[None] = Waiter(loop=self._loop)
        end = None if seconds is None else self._loop.time() + seconds
        # No timeout, which would have to cancel the task: see `UncancellableTask`.
        # It does not look at the clock, which may differ from the timer's by a rounding error.
        timer = None if end is None else self._loop.call_at(end, _wake, waiter)
        self._waiters.append((waiter, end))
        self._waits.conditions.add(self)
        try:
            await waiter
        finally:
            self._waiters.remove((waiter, end))
            if not self._waiters:
                self._waits.conditions.discard(self)
            if timer is not None:
                timer.cancel()
        return self._holds()

    def forget(self) -> None:
        """Never hold again: nobody waits any more."""
        self._holds = lambda: False

    def __repr__(self) -> str:
        return f"<Condition {len(self._waiters)} waiting>"


def _wake(waiter: Waiter[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def until(
    holds: Callable[[], bool],
    *,
    by: Iterable[asyncio.Future[Any]] = (),
    seconds: float | None = None,
) -> None:
    """Wait until `holds()` is true, for at most `seconds`; checked when any of `by` is done."""
    condition, futures = Condition(holds), list(by)
    for future in futures:
        future.add_done_callback(condition.look)
    try:
        await condition.wait(seconds)
    finally:
        for future in futures:
            future.remove_done_callback(condition.look)


async def pause(seconds: float) -> None:
    """Wait for that many seconds."""
    await until(lambda: False, seconds=seconds)


async def thread_done(future: ThreadFuture[Result], *, seconds: float | None = None) -> Result:
    """The result of work that threads do, for which this waits for at most `seconds`.

    Raises:
        TimeoutError: The work takes longer. If it has not begun, it is not begun.
        Exception: Whatever the work raised.

    Cancelled: work that has not begun is not begun; work that has begun goes on.
    """
    loop = asyncio.get_running_loop()
    condition = Condition(future.done)

    def look(_: object) -> None:
        with suppress(RuntimeError):  # the program closed the event loop without waiting
            loop.call_soon_threadsafe(condition.look)

    if not future.done():
        future.add_done_callback(look)
    try:
        if not await condition.wait(seconds):
            future.cancel()
            raise TimeoutError
    except asyncio.CancelledError:
        future.cancel()
        raise
    finally:
        condition.forget()  # the future refers to the condition: else neither would be freed
    return future.result()


async def in_thread(threads: Executor, function: Callable[..., Result], /, *args: object) -> Result:
    """Call the function in one of the threads and wait for its result, as `thread_done` does."""
    return await thread_done(threads.submit(function, *args))
