"""Limits how many runs an engine has at a time. Further runs wait; none is refused.

A run that was admitted must be able to finish, so no more are admitted than the process may have
files open for. Used on one event loop; needs no asyncio task of its own.
"""

from __future__ import annotations

import os
import resource
from heapq import heapify, heappop, heappush
from typing import Final

from asyncflow._support.waiter import Waiter
from asyncflow.errors import EngineClosedError

_RUN_DESCRIPTORS: Final = 2
"""In the engine: the run's journal and its origin's. In a worker: its journal and its segment."""
_SPARE_DESCRIPTORS: Final = 64
_SPARE_SHARE: Final = 4
"""One part in so many of the files is left for the application and its steps, if that is more."""


def runs_that_fit() -> int:
    """How many runs fit into the open files of this process and of each worker; at least one.

    Files that are open now count as taken. 0 means any number.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return 0
    try:
        taken = len(os.listdir("/dev/fd"))  # noqa: PTH208 - only their number matters
    except OSError:  # no descriptor is left even for that
        return 1
    free = limit - taken - max(_SPARE_DESCRIPTORS, limit // _SPARE_SHARE)
    return max(1, free // _RUN_DESCRIPTORS)


class Admission:
    """Admits a limited number at a time: by priority, then in order of arrival."""

    def __init__(self, most: int) -> None:
        self._most = most  # 0 for no limit
        self._inside: set[object] = set()
        self._numbers = 0
        self._line: list[tuple[int, int, Waiter[None], object]] = []  # a heap
        self._waiting: set[Waiter[None]] = set()  # also who was admitted, until that goes on

    @property
    def inside(self) -> int:
        """How many were admitted and have not left."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """How many wait to be admitted."""
        return len(self._line)

    def narrow(self, most: int) -> None:
        """Set the limit before the first `enter`; 0 keeps the limit as it is."""
        self._most = min(filter(None, (self._most, most)), default=0)

    async def enter(self, priority: int = 0, inside: object | None = None) -> object:
        """Wait to be admitted; return what `leave` is given: `inside`, or a new object.

        Raises:
            EngineClosedError: The engine closes, and nobody is admitted any more.

        Cancelled: nothing has changed.
        """
        inside = object() if inside is None else inside
        if not self._most or (len(self._inside) < self._most and not self._line):
            self._inside.add(inside)
            return inside
        self._numbers += 1
        waiter: Waiter[None] = Waiter()
        place = -priority, self._numbers, waiter, inside
        self._waiting.add(waiter)
        try:
            heappush(self._line, place)
            await waiter
        except BaseException:
            if place in self._line:
                self._line.remove(place)
                heapify(self._line)
            self.leave(inside)  # admitted just before: pass the place on
            raise
        finally:
            self._waiting.discard(waiter)
        return inside

    def leave(self, inside: object) -> None:
        """Leave, so that the next one is admitted. Harmless when repeated."""
        self._inside.discard(inside)
        self._admit()

    def call_again(self) -> None:
        """Admit those for whom there is a place, in case a call that should do it was broken off.

        Whoever was admitted is woken again, in case the call that should do that was lost.
        """
        for waiter in self._waiting:
            waiter.wake_again()
        self._admit()

    def _admit(self) -> None:
        """Admit those for whom there is a place. An exception anywhere loses nobody."""
        while self._line:
            _, _, waiter, inside = self._line[0]
            if not waiter.cancelled():
                if len(self._inside) >= self._most and inside not in self._inside:
                    return
                self._inside.add(inside)
                if not waiter.done():
                    waiter.set_result(None)
            heappop(self._line)

    def close(self) -> None:
        """End all waits with an error."""
        while self._line:
            future = self._line[0][2]
            if not future.done():
                future.set_exception(EngineClosedError())
            heappop(self._line)

    def __repr__(self) -> str:
        return f"<Admission {len(self._inside)} inside, {len(self._line)} waiting>"
