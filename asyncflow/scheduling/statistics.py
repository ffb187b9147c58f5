"""The numbers of an engine: counted as things happen, and returned as a frozen value."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS: Final = 10  # events per second are averaged over this time


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The numbers of an engine at one moment."""

    runs: int = 0
    """Running runs."""
    runs_waiting: int = 0
    """Starts that wait because of `max_runs` or the limit on open files."""
    tasks_waiting: int = 0
    """Ready tasks that wait for a worker."""
    tasks_running: int = 0
    """Tasks that workers have, including those queued at a busy worker."""
    workers_idle: int = 0
    workers_busy: int = 0
    events: int = 0
    """Events written to journals since the engine was opened."""
    events_per_second: float = 0.0
    """Events per second over the last ten seconds, or since the engine was opened if that is
    less."""
    bytes_written: int = 0
    """Bytes written to journals since then, including artifacts of up to 1 KiB.

    Larger artifacts are in segments and blobs, and are not counted: they never pass through the
    engine.
    """


class Meter:
    """Counts events and bytes. Counting takes a few additions, whatever was counted before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.events = 0
        self.bytes = 0
        self._clock = clock
        self._began = clock()
        # counts of the current second and those before it, in a ring
        self._counts = [0] * (_SECONDS + 1)
        self._second = int(self._began)

    def count(self, events: int, size: int) -> None:
        """Count events that were written, and their bytes."""
        self.events += events
        self.bytes += size
        self._turn(self._clock())
        self._counts[self._second % len(self._counts)] += events

    def per_second(self) -> float:
        """Events per second, averaged over recent seconds."""
        now = self._clock()
        self._turn(now)
        covered = min(now - self._began, _SECONDS + now - int(now))
        return sum(self._counts) / covered if covered > 0 else 0.0

    def _turn(self, now: float) -> None:
        """Drop the counts of seconds that are too long ago."""
        second = int(now)
        for passed in range(self._second + 1, min(second, self._second + len(self._counts)) + 1):
            self._counts[passed % len(self._counts)] = 0
        self._second = second
