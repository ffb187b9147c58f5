"""Waits that come to their end, also where the call that was to end them is lost.

A signal's handler may raise an exception anywhere, as Ctrl-C does. asyncio then breaks off the
callback that it carries out, and carries it out no more: one that was to wake somebody, a timer, or
a step of the loop's own. If the loop goes on, as it does at the end of a program for tasks to end,
who waits for that call waits for ever.

So nothing of an engine waits for a call. It waits for a *condition*, which can be looked at at any
time. Who changes what it depends on has it looked at, and that is how nearly every wait ends. All
conditions of an event loop are looked at again from time to time while an engine is at work, and as
soon as all asyncio tasks are cancelled. Parts that rely on being called back put that right first.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Executor
    from concurrent.futures import Future as ThreadFuture

Result = TypeVar("Result")


class CalledBack(Protocol):
    """A part that relies on calls of the event loop."""

    def call_again(self) -> None:
        """Do what a call that is overdue was to do; harmless where none was lost."""


class _Waits:
    """What is waited for on one event loop."""

    def __init__(self) -> None:
        self.conditions: set[Condition] = set()
        self.parts: WeakSet[CalledBack] = WeakSet()
        self.soon: asyncio.Handle | None = None

    def look(self) -> None:
        self.soon = None
        for part in list(self.parts):
            part.call_again()
        for condition in list(self.conditions):
            condition.look()


_waits: WeakKeyDictionary[asyncio.AbstractEventLoop, _Waits] = WeakKeyDictionary()


def _waits_on(loop: asyncio.AbstractEventLoop) -> _Waits:
    found = _waits.get(loop)
    if found is None:
        found = _waits[loop] = _Waits()
    return found


def look_again(loop: asyncio.AbstractEventLoop) -> None:
    """Make good for what was lost, on this event loop, whose thread calls."""
    _waits_on(loop).look()


def look_again_soon(loop: asyncio.AbstractEventLoop) -> None:
    """The same in the loop's next turn; many calls are one."""
    waits = _waits_on(loop)
    if waits.soon is not None:
        waits.soon.cancel()  # and not passed over because of it, which may itself be lost
    with suppress(RuntimeError):  # the loop is closed
        waits.soon = loop.call_soon(waits.look)


def call_again(part: CalledBack) -> None:
    """Have this part asked, too, on the event loop that runs, for as long as somebody holds it."""
    _waits_on(asyncio.get_running_loop()).parts.add(part)


class Condition:
    """Something to wait for on the event loop that runs."""

    def __init__(self, came: Callable[[], bool]) -> None:
        """Look at `came`, which is cheap, whenever it may have changed."""
        self._came = came
        self._loop = asyncio.get_running_loop()
        self._waits = _waits_on(self._loop)
        self._waiters: list[tuple[asyncio.Future[None], float | None]] = []  # each with its end

    def look(self, *_: object) -> None:
        """It may have come: wake who waits for it, if so."""
        if not self._waiters:
            return
        came, now = self._came(), self._loop.time()
        for waiter, end in self._waiters:
            if (came or (end is not None and end <= now)) and not waiter.done():
                waiter.set_result(None)

    async def wait(self, seconds: float | None = None) -> bool:
        """Return when it has come, at once if it has; after so long at the latest.

        Whether it has come.
        """
        if self._came():
            return True
        waiter: asyncio.Future[None] = self._loop.create_future()
        end = None if seconds is None else self._loop.time() + seconds
        # No timeout, which would have to cancel the task: see `OrderlyTask`.
        timer = None if end is None else self._loop.call_at(end, self.look)
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
        return self._came()

    def __repr__(self) -> str:
        return f"<Condition {len(self._waiters)} waiting>"


async def until(
    came: Callable[[], bool],
    *,
    by: Iterable[asyncio.Future[Any]] = (),
    seconds: float | None = None,
) -> None:
    """Wait until it has come; looked at when one of `by` is done. So long at the most."""
    condition, futures = Condition(came), list(by)
    for future in futures:
        future.add_done_callback(condition.look)
    try:
        await condition.wait(seconds)
    finally:
        for future in futures:
            future.remove_done_callback(condition.look)


async def pause(seconds: float) -> None:
    """Wait so long."""
    await until(lambda: False, seconds=seconds)


async def thread_done(future: ThreadFuture[Result]) -> Result:
    """What comes of something that threads do.

    Raises:
        Exception: Whatever it has raised.

    Cancelled: it is not begun, unless it was.
    """
    loop = asyncio.get_running_loop()
    condition = Condition(future.done)

    def look(_: object) -> None:
        with suppress(RuntimeError):  # the program has closed the event loop without waiting
            loop.call_soon_threadsafe(condition.look)

    if not future.done():
        future.add_done_callback(look)
    try:
        await condition.wait()
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()


async def in_thread(threads: Executor, function: Callable[..., Result], /, *args: object) -> Result:
    """Have it done in one of the threads, and wait for it: `thread_done`."""
    return await thread_done(threads.submit(function, *args))
