"""Shares the application's event loop: a little work in each turn of the loop, not all at once.

asyncio runs everything that is ready before it polls for anything new. If two hundred runs have
work at once, each takes a fraction of a millisecond, and a request of the application waits for the
sum. So a run waits here before each piece of work. As many are let through in a turn of the loop as
take about a millisecond; the number follows from how long recent turns have taken. Work that can be
interrupted, such as assigning tasks, goes on until `until()` and leaves the rest for the next turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from asyncflow._support.conditions import call_again

_TURN_SECONDS: Final = 0.001  # that a turn of the loop may take before fewer are let through
_WORK_SECONDS: Final = 0.0005  # of a turn, after which work under way stops as soon as it can
_LOST_SECONDS: Final = 0.1  # that a turn has lasted when the call that ends it counts as lost
_MOST: Final = 4  # a piece takes up to half a millisecond, which is known only afterwards


class LoopBudget:
    """Lets pieces of work through, a few in each turn of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Future[None]] = deque()
        self._at_once = _MOST  # pieces that are let through in a turn
        self._gone = 0  # let through in this turn
        self._turn_began = 0.0
        self._turning = False
        call_again(self)

    async def turn(self) -> None:
        """Wait until there is time for a piece of work; return at once if there is."""
        if not self._line and self._gone < self._at_once:
            self._gone += 1
            self._watch()
            return
        waiter = self._loop.create_future()
        self._line.append(waiter)
        self._watch()
        await waiter

    def until(self) -> float:
        """When work in this turn of the loop is to stop, by the loop's clock."""
        self._watch()
        return self._turn_began + _WORK_SECONDS

    def _watch(self) -> None:
        """Count turns of the loop as long as there is work."""
        if not self._turning:
            self._turning = True
            self._turn_began = self._loop.time()
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        """A turn of the loop has gone by."""
        now = self._loop.time()
        if now - self._turn_began > _TURN_SECONDS:
            self._at_once = max(1, self._at_once // 2)
        elif self._gone >= self._at_once:
            self._at_once = min(self._at_once + 1, _MOST)
        self._turn_began, self._gone = now, 0
        try:
            while self._line and self._gone < self._at_once:
                waiter = self._line.popleft()
                if not waiter.done():  # else whoever waited was cancelled
                    waiter.set_result(None)
                    self._gone += 1
        finally:  # also if a signal's handler has raised something just here
            self._turning = bool(self._gone or self._line)
            if self._turning:
                self._loop.call_soon(self._next)

    def call_again(self) -> None:
        """Begin the next turn if none has begun for long: the call that was to do it is lost."""
        if self._turning and self._loop.time() - self._turn_began > _LOST_SECONDS:
            self._next()

    def __repr__(self) -> str:
        return f"<LoopBudget {self._at_once} at once, {len(self._line)} waiting>"
