"""Calls a subscriber's callback with each event, one call at a time."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final, Self

from asyncflow._support import log
from asyncflow._support.event_loop import SureTask, check_loop
from asyncflow._support.tracebacks import describe_exception
from asyncflow.engine.subscription import Subscription
from asyncflow.events.types import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


_AGAIN_SECONDS: Final = 1.0  # then a callback that survived a cancellation is cancelled again


class Callback:
    """A callback for events. `stop()` ends the calls, and so does leaving the `with` block.

    It is called for one event at a time, in order within each run. A slow callback delays only
    itself. An exception that it raises is logged, and the calls go on. `SystemExit` and
    `KeyboardInterrupt` end the program, as in any other task, and end the calls; so does a
    cancellation of its own asyncio task.
    """

    def __init__(self, subscription: Subscription[Any], callback: Callable[[Any], object]) -> None:
        self._subscription = subscription
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self.task: SureTask[None] = SureTask(self._call_for_each(), name=repr(self))
        """The task that calls it."""
        self.done = asyncio.Event()
        """Set once the last call has returned."""

    def stop(self) -> None:
        """End the calls. A call that has begun is completed. Harmless when repeated.

        Raises:
            AsyncflowError: It is called on another event loop than its engine's, or in another
                thread.
        """
        check_loop(self._loop)
        self._subscription.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def name(self) -> str:
        """The callback's name in the log."""
        return getattr(self._callback, "__qualname__", None) or repr(self._callback)

    async def _call_for_each(self) -> None:
        """Call it for each event until there are no more. Its exceptions are logged, not raised."""
        try:
            # While events are ready nothing here waits, so a cancellation would not be noticed.
            while not self.task.cancelling() and (event := await self._next()) is not None:
                await self._call(event)
        finally:
            if self.task.cancelling() and not self._subscription.closed:
                log.warning("a callback was cancelled: it is called no more", callback=self.name)
            self._subscription.close()
            self.done.set()

    async def _next(self) -> Event | None:
        while True:
            try:
                return await anext(self._subscription, None)
            except Exception as error:  # noqa: BLE001 - an error of one run; there may be others
                self._complain("a callback misses events that could not be read", error)

    async def _call(self, event: Event) -> None:
        try:
            answer = self._callback(event)
            if inspect.isawaitable(answer):
                await answer
        except asyncio.CancelledError as error:
            if self.task.cancelling():
                raise
            self._complain("a callback waited for something that was cancelled", error, event)
        except Exception as error:  # noqa: BLE001 - any exception of the callback's
            self._complain("a callback raised", error, event)

    def _complain(self, what: str, error: BaseException, event: Event | None = None) -> None:
        told = {"about": f"{type(event).__name__} {event.seq} of {event.pathspec}"} if event else {}
        text = describe_exception(error).traceback.rstrip()
        log.warning(what, callback=self.name, **told, traceback=text)

    def abort(self) -> None:
        """Cancel the running call, and make no more."""
        self._subscription.close()
        self.task.cancel()

    def __repr__(self) -> str:
        state = "stopped" if self._subscription.closed else "listening"
        return f"<Callback {self.name} {state}>"
