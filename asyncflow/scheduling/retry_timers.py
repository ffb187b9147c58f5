"""The waits of tasks before their next attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asyncflow._support.conditions import SureTimer

if TYPE_CHECKING:
    from collections.abc import Callable


class RetryTimers:
    """One timer for each task of a run that waits for its next attempt."""

    def __init__(self, on_due: Callable[[int], None]) -> None:
        """Start no timer yet; `on_due` is called with the id of a task whose wait is over."""
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._timers: dict[int, SureTimer] = {}

    def start(self, task_id: int, seconds: float) -> None:
        self._timers[task_id] = SureTimer(self._loop, seconds, self._end, task_id)

    def close(self) -> None:
        """Stop all timers: a running one would keep the run in memory until it fires."""
        for timer in self._timers.values():
            timer.cancel()

    def _end(self, task_id: int) -> None:
        timer = self._timers.get(task_id)
        if timer is not None:
            self._on_due(task_id)  # first: if an exception breaks it off, the timer rings again
            timer.cancel()
            self._timers.pop(task_id, None)
