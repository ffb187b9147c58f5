"""A future whose awaiting task can be woken again if the call that should wake it was lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextvars import Context

Result = TypeVar("Result")


class Waiter(asyncio.Future[Result]):
    """A future that one task awaits, once.

    A future of asyncio forgets its callbacks when it is done. If a signal handler raises an
    exception while the future hands them to the event loop, or before the loop calls them, the
    task is never woken, and a cancellation does not reach it. This one remembers them until the
    task goes on: `wake_again` repeats what was lost.

    It has no method of Python's own for what asyncio calls when the task begins to wait: an
    exception there would leave a task that waits for nothing.
    """

    _to_wake: Sequence[tuple[Callable[[Any], object], Context]] = ()
    _has_gone_on = False

    def set_result(self, result: Result, /) -> None:
        """End the wait."""
        self._to_wake = self._callbacks or self._to_wake
        super().set_result(result)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """End the wait with an exception."""
        self._to_wake = self._callbacks or self._to_wake
        super().set_exception(exception)

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the wait; what the task does to be cancelled."""
        self._to_wake = self._callbacks or self._to_wake
        return super().cancel(msg)

    def wake_again(self) -> None:
        """Wake the task again, if this is done and the task does not know. Harmless otherwise."""
        if self.done() and not self._has_gone_on and self._to_wake:
            # The loop keeps the order of calls: what should wake the task, if it is there, is
            # called before this.
            self.get_loop().call_soon(self._wake)

    def _wake(self) -> None:
        if not self._has_gone_on:
            for wake_up, context in self._to_wake:
                context.run(wake_up, self)

    def __await__(self) -> Generator[Any, None, Result]:
        try:
            return (yield from super().__await__())
        finally:
            self._has_gone_on, self._to_wake = True, ()
            if not self.done():  # the task was closed: its reference to itself ends here
                for wake_up, _ in self._callbacks or ():
                    self.remove_done_callback(wake_up)

    __iter__ = __await__
