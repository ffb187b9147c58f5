"""A call of the event loop that can tell when it is due."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class TimedCall:
    """A call of a function at a time of the event loop's clock, in seconds.

    The handles of asyncio's loop tell their time as well. Those of uvloop do not if that time is
    less than half a millisecond away: they are no timers then, and have no `when`.
    """

    __slots__ = ("_handle", "when")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, when: float, function: Callable[[], object]
    ) -> None:
        """Have the function called; soon, if the time is past."""
        self.when: Final = when
        """When it is due, whether or not it was called by now."""
        self._handle = loop.call_at(when, function)

    def is_overdue(self, now: float, seconds: float) -> bool:
        """Whether it was due more than so many seconds ago."""
        return now - self.when > seconds

    def cancel(self) -> None:
        """Call the function no more. Harmless when repeated, or after the call."""
        self._handle.cancel()

    def __repr__(self) -> str:
        return f"<TimedCall at {self.when:.3f}>"
