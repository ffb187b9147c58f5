"""A clock that skips the waits before retries, so that a test of them takes no time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVarTuple, Unpack

from asyncflow.scheduling.retry_timers import RetryTimers

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

Arguments = TypeVarTuple("Arguments")


class RetryClock:
    """Skips the waits of `@retry(minutes_between_retries=…)` in the runs that are given it."""

    def __init__(self) -> None:
        """Skip nothing yet."""
        self.waits: list[float] = []
        """The seconds of each wait that was skipped, in order."""

    def make_loop(self) -> asyncio.AbstractEventLoop:
        """An event loop for an engine, in which these waits take no time."""
        return _Loop(self)

    def __repr__(self) -> str:
        return f"<RetryClock, {sum(self.waits):g} s skipped>"


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: RetryClock) -> None:
        super().__init__()
        self._skipped = clock.waits

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if isinstance(getattr(callback, "__self__", None), RetryTimers):
            self._skipped.append(delay)
            delay = 0.0
        return super().call_later(delay, callback, *args, context=context)
