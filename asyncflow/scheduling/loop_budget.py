"""Shares the application's event loop: a little work in each turn of the loop, not all at once.

asyncio runs everything that is ready before it polls for anything new. If two hundred runs have
work at once, each takes a fraction of a millisecond, and a request of the application waits for the
sum. So a run waits here before each piece of work. Each turn of the loop admits as many pieces as
take about half a millisecond; the number follows from the length of recent turns. Pieces differ,
and other work of the engine takes time of the same turn: so a piece that was admitted looks at the
clock before it begins. If the time of the turn is over, and another piece has had its turn, it
waits for the next turn, before all others. Work that can be interrupted, such as assigning tasks,
goes on until `until()` and leaves the rest for the next turn.

A request of the application waits for two to three turns, because a timer or a socket that is ready
wakes a task only in the turn after. So its delay is a multiple of what is allowed here.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import Final

from asyncflow._support.conditions import call_again
from asyncflow._support.waiter import Waiter

_TURN_SECONDS: Final = 0.0005  # the time of a loop's turn above which fewer pieces are admitted
# the time of a turn after which work under way stops as soon as it can, and no piece begins
_WORK_SECONDS: Final = 0.0003
# the same while no other run waits: of a batch with more facts, each costs less
_ALONE_SECONDS: Final = 0.0005
_LOST_SECONDS: Final = 0.1  # a turn that lasts longer means that the call that ends it was lost
_MOST: Final = 4  # a piece takes up to half a millisecond, which is known only afterwards


class LoopBudget:
    """Admits pieces of work, a few in each turn of the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # a heap, by number and by how often it was let go on
        self._waiters: list[tuple[int, int, Waiter[None]]] = []
        self._waiting: set[Waiter[None]] = set()  # also those that were let go on, until they do
        self._numbers = count()
        self._at_once = _MOST  # pieces admitted in a turn
        self._admitted = 0  # admitted in this turn
        self._has_begun = False  # whether a piece has begun in this turn
        self._let_go = 0  # of those that waited, how many go on in this turn and have not begun
        self._turn_began = 0.0
        self._turning: asyncio.Handle | None = None  # the call that begins the next turn
        call_again(self)

    async def turn(self) -> None:
        """Wait until there is time for a piece of work; return at once if there is."""
        first = not (self._waiters or self._let_go)  # else it would pass those
        if not first or self._admitted >= self._at_once or self._is_late:
            number = next(self._numbers)
            for again in count():
                waiter: Waiter[None] = Waiter(loop=self._loop)
                heappush(self._waiters, (number, again, waiter))
                self._waiting.add(waiter)
                try:
                    self._watch()
                    await waiter
                finally:
                    self._waiting.discard(waiter)
                self._let_go -= 1
                if not self._is_late:
                    break  # else others have taken the time: it keeps its number
        else:
            self._admitted += 1
            self._watch()
        self._has_begun = True

    @property
    def _is_late(self) -> bool:
        """Whether the time of this turn is over, and a piece has had its share of it."""
        return self._has_begun and self._loop.time() - self._turn_began > _WORK_SECONDS

    def until(self) -> float:
        """When work in this turn of the loop should stop, by the loop's clock."""
        self._watch()
        return self._turn_began + (_WORK_SECONDS if self._waiters else _ALONE_SECONDS)

    def _watch(self) -> None:
        """Count turns of the loop as long as there is work."""
        if self._turning is None:
            self._turn_began = self._loop.time()
            self._turning = self._loop.call_soon(self._next)

    def _next(self) -> None:
        """Begin the next turn of the loop."""
        now = self._loop.time()
        if now - self._turn_began > _TURN_SECONDS:
            self._at_once = max(1, self._at_once // 2)
        elif self._admitted >= self._at_once:
            self._at_once = min(self._at_once + 1, _MOST)
        self._turn_began, self._admitted, self._has_begun, self._let_go = now, 0, False, 0
        try:
            while self._waiters and self._admitted < self._at_once:
                waiter = self._waiters[0][-1]
                if not waiter.done():  # otherwise the waiter was cancelled
                    waiter.set_result(None)
                    self._admitted += 1
                    self._let_go += 1
                heappop(self._waiters)  # last: an exception above must not lose the waiter
        finally:  # also if a signal handler raised an exception right here
            goes_on = bool(self._admitted or self._waiters)
            self._turning = self._loop.call_soon(self._next) if goes_on else None

    def call_again(self) -> None:
        """Begin the next turn, and let go on who should, if the call that should do it was lost."""
        for waiter in self._waiting:
            waiter.wake_again()
        if self._turning and self._loop.time() - self._turn_began > _LOST_SECONDS:
            self._turning.cancel()  # else it would go on beside the one that follows
            self._next()

    def __repr__(self) -> str:
        return f"<LoopBudget {self._at_once} at once, {len(self._waiters)} waiting>"
