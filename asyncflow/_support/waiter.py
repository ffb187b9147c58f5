"""A future whose awaiting task can be woken again if the call that should wake it was lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextvars import Context

Result = TypeVar("Result")


class Waiter(asyncio.Future[Result]):
    """A future that one task awaits, once.

    A future of asyncio forgets its callbacks when it is done. If a signal handler raises an
    exception while the future hands them to the event loop, or before the loop calls them, the
    task is never woken, and a cancellation does not reach it. This one remembers its task until
    that goes on: `wake_again` repeats what was lost.
    """

    _wake_up: Callable[[Any], object] | None = None
    _wake_context: Context | None = None

    def wake_again(self) -> None:
        """Wake the task again, if this is done and the task does not know. Harmless otherwise."""
        if self.done() and self._wake_up is not None:
            self.get_loop().call_soon(self._wake, self, context=self._wake_context)

    def add_done_callback(
        self, function: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Remember what wakes the task; asyncio calls this when the task begins to wait."""
        self._wake_up, self._wake_context = function, context
        super().add_done_callback(self._wake, context=context)

    def _wake(self, _: object) -> None:
        wake_up = self._wake_up
        if wake_up is not None:  # else this is one call too many
            wake_up(self)

    def __await__(self) -> Generator[Any, None, Result]:
        try:
            return (yield from super().__await__())
        finally:
            self._wake_up = self._wake_context = None
            if not self.done():  # the task was closed: its reference to itself ends here
                self.remove_done_callback(self._wake)

    __iter__ = __await__
