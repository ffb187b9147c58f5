"""Limits how many runs an engine has at a time. Further runs wait; none is refused.

A run that was admitted must be able to finish, so no more are admitted than the process may have
files open for. Used on one event loop; needs no asyncio task of its own.
"""

from __future__ import annotations

import asyncio
import os
import resource
from heapq import heapify, heappop, heappush
from typing import Final

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
        self._inside = 0
        self._numbers = 0
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap

    @property
    def inside(self) -> int:
        """How many were admitted and have not left."""
        return self._inside

    @property
    def waiting(self) -> int:
        """How many wait to be admitted."""
        return len(self._line)

    def narrow(self, most: int) -> None:
        """Set the limit before the first `enter`; 0 keeps the limit as it is."""
        self._most = min(filter(None, (self._most, most)), default=0)

    async def enter(self, priority: int = 0) -> None:
        """Wait to be admitted.

        Raises:
            EngineClosedError: The engine closes, and nobody is admitted any more.

        Cancelled: nothing has changed.
        """
        if not self._most or (self._inside < self._most and not self._line):
            self._inside += 1
            return
        self._numbers += 1
        place = -priority, self._numbers, asyncio.get_running_loop().create_future()
        heappush(self._line, place)
        try:
            await place[2]
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
                heapify(self._line)
            elif not place[2].cancelled() and place[2].exception() is None:
                self.leave()  # admitted just before the cancellation: pass the place on
            raise

    def leave(self) -> None:
        """Leave, so that the next one is admitted."""
        self._inside -= 1
        while self._line and self._inside < self._most:
            _, _, future = heappop(self._line)
            if not future.done():
                self._inside += 1
                future.set_result(None)

    def close(self) -> None:
        """End all waits with an error."""
        line, self._line = self._line, []
        for _, _, future in line:
            if not future.done():
                future.set_exception(EngineClosedError())

    def __repr__(self) -> str:
        return f"<Admission {self._inside} inside, {len(self._line)} waiting>"
