"""Tells of a run that waits for a limit and gets nothing of it, so that nobody need ask why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

PATIENCE_SECONDS: Final = 2.0
"""That a run waits before it is told of: a limit is there to be waited for."""


class Waiter(Protocol):
    """A run, as a limit needs it."""

    number: int

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""


@dataclass(slots=True)
class _Wait:
    waiter: Waiter
    since: float
    told: bool = False


class Patience:
    """Which runs wait for one limit, and since when; each is told of once until `begin_anew`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        has_some: Callable[[Waiter], bool],
        tell: Callable[[Waiter], object],
    ) -> None:
        """`has_some` says whether a run has something of the limit: then it does move."""
        self._loop, self._has_some, self._tell = loop, has_some, tell
        self._waits: dict[int, _Wait] = {}
        self._timer: asyncio.TimerHandle | None = None

    def refused(self, waiter: Waiter) -> None:
        """It has been refused, perhaps not for the first time."""
        if waiter.number not in self._waits:
            self._waits[waiter.number] = _Wait(waiter, self._loop.time())
            self._start()

    def granted(self, waiter: Waiter) -> None:
        """It has got what it waited for; should it be refused again, it begins to wait anew."""
        wait = self._waits.get(waiter.number)
        if wait is not None and not wait.told:
            del self._waits[waiter.number]

    def forget(self, waiter: Waiter) -> None:
        """It has ended."""
        self._waits.pop(waiter.number, None)

    def begin_anew(self) -> None:
        """The limit is another one now: what was told of it holds no longer."""
        for wait in self._waits.values():
            wait.told, wait.since = False, self._loop.time()
        self._start()

    def close(self) -> None:
        """Nobody is told of anything any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._timer is None and any(not wait.told for wait in self._waits.values()):
            self._timer = self._loop.call_later(PATIENCE_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for wait in self._waits.values():
            is_long = now - wait.since >= PATIENCE_SECONDS
            if is_long and not wait.told and not self._has_some(wait.waiter):
                wait.told = True
                self._tell(wait.waiter)
        self._start()
