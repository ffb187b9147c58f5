"""How much has happened in an engine: counted as it happens, and told as a frozen value."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS: Final = 10  # that events per second are counted over


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """How an engine stands at a moment."""

    runs: int = 0
    """Runs that are going on."""
    runs_waiting: int = 0
    """Starts that wait because there are as many as may be: `max_runs`, or what files allow."""
    tasks_waiting: int = 0
    """Tasks that could begin if there were room for them."""
    tasks_running: int = 0
    """Tasks that workers have: those at hand for a worker that is busy are counted too."""
    workers_idle: int = 0
    workers_busy: int = 0
    events: int = 0
    """Events that came into journals since the engine was opened."""
    events_per_second: float = 0.0
    """The same over the last ten seconds, or since it was opened if that is less."""
    bytes_written: int = 0
    """Bytes that came into journals since then, artifacts of up to 1 KiB among them.

    Larger ones lie in segments and blobs and are not counted: they never pass through the engine.
    """


class Meter:
    """Counts events and bytes. It costs a few additions to count, whatever was counted before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.events = 0
        self.bytes = 0
        self._clock = clock
        self._began = clock()
        self._counts = [0] * (_SECONDS + 1)  # of the current second and those before it, in a ring
        self._second = int(self._began)

    def count(self, events: int, size: int) -> None:
        """So many events were written, in so many bytes."""
        self.events += events
        self.bytes += size
        self._turn(self._clock())
        self._counts[self._second % len(self._counts)] += events

    def per_second(self) -> float:
        """Events per second of late."""
        now = self._clock()
        self._turn(now)
        covered = min(now - self._began, _SECONDS + now - int(now))
        return sum(self._counts) / covered if covered > 0 else 0.0

    def _turn(self, now: float) -> None:
        """Forget what is too long ago."""
        second = int(now)
        for passed in range(self._second + 1, min(second, self._second + len(self._counts)) + 1):
            self._counts[passed % len(self._counts)] = 0
        self._second = second
