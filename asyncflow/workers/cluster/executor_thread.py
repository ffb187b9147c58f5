"""A thread with an event loop, on which an executor talks to its cluster.

The client of a cluster's engine keeps its loop busy at times, and the application's loop must not
wait for it. It also keeps the links alive while the application blocks its own loop.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

Result = TypeVar("Result")


class ExecutorThread:
    """An event loop that turns in a thread of its own until `stop`."""

    def __init__(self) -> None:
        """Start it."""
        ready: Future[asyncio.AbstractEventLoop] = Future()
        self._ready = ready
        self._thread = Thread(target=self._run, name="asyncflow-cluster", daemon=True)
        self._thread.start()
        self.loop = ready.result()
        """The loop."""

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        self._ready.set_result(asyncio.get_running_loop())
        await self._stopped.wait()

    def run(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Run a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """Cancel what still runs on the loop, and let the thread end. Harmless when repeated."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._stopped.set)

    @property
    def has_ended(self) -> bool:
        """Whether the thread is gone."""
        return not self._thread.is_alive()

    def __repr__(self) -> str:
        return f"<ExecutorThread {'ended' if self.has_ended else 'running'}>"
