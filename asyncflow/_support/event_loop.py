"""The event loop of an engine: checks that a call is on it, and awaits work to its end."""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asyncflow._support.conditions import call_again, call_no_more, look_again_soon, until
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextlib import AbstractContextManager

Result = TypeVar("Result")


def loop_here() -> asyncio.AbstractEventLoop:
    """The running event loop.

    Raises:
        AsyncflowError: No event loop of asyncio is running.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        message = (
            "no event loop of asyncio runs here, and asyncflow needs one; under trio, have a "
            "thread do it: await trio.to_thread.run_sync(asyncflow.run_sync, TheFlow)"
        )
        raise AsyncflowError(message) from None


def check_loop(own: asyncio.AbstractEventLoop) -> None:
    """Refuse a call on another event loop than the engine's, or in another thread than its own.

    Raises:
        AsyncflowError: The loop or the thread is another one.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        if not own.is_running():
            return  # no other task runs then, and nothing can wait here
        message = (
            "this engine is used in the thread of the event loop that entered it, and this is "
            "another one: hand the call to that loop with `loop.call_soon_threadsafe(…)` or "
            "`asyncio.run_coroutine_threadsafe(…, loop)`"
        )
        raise AsyncflowError(message) from None
    if running is not own:
        message = (
            "this engine was entered on another event loop than the one that runs here: open an "
            "engine on each loop, or hand the call to the engine's own with "
            "`asyncio.run_coroutine_threadsafe(…, loop)`"
        )
        raise AsyncflowError(message)


async def run_to_completion(
    work: Coroutine[Any, Any, Result], tasks: set[asyncio.Task[Any]] | None = None
) -> tuple[Result, asyncio.CancelledError | None]:
    """Await `work` to its end despite cancellation; return its result and the cancellation.

    A cancel scope's shield is not enough: `Task.cancel()` and `asyncio.timeout` pass through it.
    The work itself is not cancelled either: it goes on even when nobody waits for it any more.
    """
    task = UncancellableTask(work)
    tasks = set() if tasks is None else tasks
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    cancelled = None
    with _shield():
        while not task.done():
            try:
                await until(task.done, by=[task])
            except asyncio.CancelledError as error:
                cancelled = error
    return task.result(), cancelled


def _shield() -> AbstractContextManager[object]:
    """A shield from the cancel scopes of anyio that this call is made in.

    Nothing if the program does not use anyio: its first scope takes 10 ms of imports.
    """
    if "anyio" not in sys.modules:
        return nullcontext()
    import anyio

    return anyio.CancelScope(shield=True)


class SureTask(asyncio.Task[Result]):
    """A task that begins even if the call that should begin it was lost."""

    def __init__(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = loop or asyncio.get_running_loop()
        self._own_context = copy_context()
        self._tries = 1  # how often the loop was given its first step
        super().__init__(work, loop=loop, name=name, context=self._own_context)
        call_again(self, loop)

    @property
    def _has_begun(self) -> bool:
        return self.done() or inspect.getcoroutinestate(self._work) != inspect.CORO_CREATED

    @property
    def _work(self) -> Coroutine[Any, Any, Result]:
        return cast("Coroutine[Any, Any, Result]", self.get_coro())

    def call_again(self) -> None:
        """Begin if the call that should do it was lost, as `CalledBack` says."""
        if self._has_begun:
            call_no_more(self, self.get_loop())
        else:  # the loop keeps the order of calls: the first step, if it is there, comes before
            self.get_loop().call_soon(self._begin_again, self._tries)

    def _begin_again(self, tries: int) -> None:
        if self._has_begun or tries != self._tries:
            return
        self._tries += 1
        callbacks, cancellations = self._callbacks or (), self.cancelling()
        name, context = self.get_name(), self._own_context
        super().__init__(self._work, loop=self.get_loop(), name=name, context=context)
        for function, context in callbacks:
            self.add_done_callback(function, context=context)
        if cancellations:
            self.cancel()


class UncancellableTask(SureTask[Result]):
    """A task that is asked to end instead of being cancelled.

    No exception is thrown into it, so timeouts and cancel scopes have no effect inside it: code
    that is to be cancelled by one needs a task of its own. Inside, await only conditions of
    `asyncflow._support.conditions`: after a lost callback nothing else would wake the task.
    """

    def __init__(
        self,
        work: Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        ask: Callable[[], object] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Create it. A cancellation calls `ask`; without `ask` it is ignored."""
        self._ask = ask
        super().__init__(work, loop=loop, name=name)

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002 - as in the base class
        """Ask the task to end."""
        if not self.done():
            if self._ask is not None:
                self._ask()
            look_again_soon(self.get_loop())  # an exception is lost only when the program ends
        return False
