"""An engine on an event loop of its own thread, for code that has no loop, or is not to wait."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from asyncflow.engine.engine import Engine

Result = TypeVar("Result")


class EngineThread:
    """A thread with an event loop, on which an engine is open until `close`.

    It is a daemon, so that a program that forgets to close it can end.
    """

    def __init__(self, make: Callable[[], Engine]) -> None:
        """Prepare it; `make` makes the engine, in that thread."""
        self._make = make
        self._opened: Future[Engine] = Future()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="asyncflow-runner", daemon=True)

    def open(self) -> Engine:
        """Start the thread, and return its engine as soon as it is open.

        Raises:
            AsyncflowError: The engine cannot be opened.
        """
        self._thread.start()
        return self._opened.result()

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Have the engine's loop run a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        """Close the engine, which cancels what is running, and wait for the thread's end."""
        if os.getpid() != self._pid or not self._thread.is_alive():
            return
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _work(self) -> None:
        try:
            asyncio.run(self._keep_open())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _keep_open(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self._make() as engine:
            self._opened.set_result(engine)
            await self._over.wait()
