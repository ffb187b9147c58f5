"""A clock that skips waits."""

from __future__ import annotations

import asyncio
from selectors import DefaultSelector
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selectors import SelectorKey


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
