"""Says so when machines that do not share a named limit use it at the same time.

That is so with an object store, where limits belong to a machine. A thread asks the store.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.thread_pool import Threads
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    OthersOf = Callable[[str], Sequence[str]]
    """Notes that this machine uses a limit, and returns the names of the others that do."""

LOOK_SECONDS: Final = 10.0
"""How often it asks about a limit in use: that costs two requests."""


class UnsharedLimits:
    """Looks for other machines that use the same limits; for one engine."""

    def __init__(self, others_of: OthersOf) -> None:
        """Start no thread yet."""
        self._others_of = others_of
        self._threads = Threads(1, "asyncflow-limits")
        self._due: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()

    def look_at(self, limits: Iterable[str]) -> None:
        """Ask about limits that are in use, unless that was done a moment ago. Does not wait."""
        now = time.monotonic()
        for limit in limits:
            if now >= self._due.get(limit, 0.0):
                self._due[limit] = now + LOOK_SECONDS
                with suppress(RuntimeError, AsyncflowError):  # it is closing, or has no thread
                    self._threads.submit(self._look, limit)

    def _look(self, limit: str) -> None:
        try:
            hosts = self._others_of(limit)
        except (OSError, AsyncflowError):
            return  # it is tried again
        for host in hosts:
            if (limit, host) not in self._said:
                self._said.add((limit, host))
                log.warning(
                    f"the limit {limit} is used on {host} as well, and machines do not share it: "
                    "each of them keeps to it by itself"
                )

    def close(self) -> None:
        """Ask nothing more. Does not wait."""
        self._threads.close()

    def __repr__(self) -> str:
        return f"<UnsharedLimits {', '.join(self._due)}>"
