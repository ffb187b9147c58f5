"""Wakes a coroutine at once, or in a while, so that more can come together meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from asyncflow._support.timed_call import TimedCall


class Alarm:
    """Rings at the earliest of the times that were asked for, and until it is silenced."""

    def __init__(self) -> None:
        """Be silent, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._rings = asyncio.Event()
        self._timer: TimedCall | None = None

    def ring(self) -> None:
        """Ring now."""
        self._stop_timer()
        self._rings.set()

    def ring_within(self, seconds: float) -> None:
        """Ring after so many seconds at the latest; at once without any."""
        if seconds <= 0.0:
            self.ring()
        elif not self._rings.is_set():
            at = self._loop.time() + seconds
            if self._timer is None or at < self._timer.when:
                self._stop_timer()
                self._timer = TimedCall(self._loop, at, self.ring)

    def ring_at(self, when: float) -> None:
        """Ring at a time of the loop's clock, and not at one that was asked for before."""
        if self._timer is not None and self._timer.when == when:
            return
        self._stop_timer()
        if when <= self._loop.time():
            self.ring()
        elif not self._rings.is_set():
            self._timer = TimedCall(self._loop, when, self.ring)

    def silence(self) -> None:
        """Ring no more, until somebody asks for it again."""
        self._stop_timer()
        self._rings.clear()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until it rings, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rings.wait()

    def __repr__(self) -> str:
        state = "ringing" if self._rings.is_set() else "set" if self._timer else "silent"
        return f"<Alarm {state}>"
