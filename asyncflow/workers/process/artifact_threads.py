"""Threads that store and read for async tasks, so that the event loop goes on.

There are few, so that few values are encoded at a time. A job runs in the context of the task that
started it: what the user's `__reduce__` prints there is that task's output.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import copy_context
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow._support.thread_pool import Threads
from asyncflow.workers.process.stop_signals import block_stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

Result = TypeVar("Result")

_MOST: Final = 4
"""More threads would need more memory and compete for the interpreter."""


class OffLoop:
    """Runs long calls in threads. Create it in the thread of the event loop."""

    def __init__(self) -> None:
        """Create it; threads are started when needed."""
        self._threads = Threads(_MOST, "asyncflow-store", prepare=block_stop_signals)
        self._loop_thread = get_ident()
        self._checks: dict[bytes, Future[None]] = {}

    def __repr__(self) -> str:
        return f"<OffLoop {self._threads!r}, {len(self._checks)} checks>"

    async def to_the_end(self, call: Callable[[], Result], stop: Callable[[], object]) -> Result:
        """Run the call in a thread, and return its result.

        Cancelled: `stop` is called, which may shorten the call; the cancellation goes on once no
        thread is in the call any more.
        """
        job = self._submit(call)
        try:
            await _end_of(job)
        except asyncio.CancelledError:
            stop()
            job.cancel()
            with suppress(asyncio.CancelledError):
                await ended([job])
            raise
        return job.result()

    async def run(self, call: Callable[[], Result], going_on: set[Future[Any]]) -> Result:
        """Run the call in a thread; while it runs, its job is in `going_on`.

        Cancelled: a call that has not begun is not begun; one that has begun goes on, and its
        result is dropped.
        """
        job = self._submit(call)
        going_on.add(job)
        job.add_done_callback(going_on.discard)
        try:
            await _end_of(job)
        except asyncio.CancelledError:
            job.cancel()
            raise
        return job.result()

    def _submit(self, call: Callable[[], Result]) -> Future[Result]:
        return self._threads.submit(copy_context().run, call)

    # --- checks -----------------------------------------------------------------------------------

    def check(self, digest: bytes, check: Callable[[], None]) -> Future[None] | None:
        """Check the bytes with a digest, once for all tasks that ask meanwhile.

        If it returns None, the check is done: in another thread than the loop's it runs at once.
        """
        if get_ident() != self._loop_thread:
            check()
            return None
        going_on = self._checks.get(digest)
        if going_on is None:
            going_on = self._checks[digest] = self._threads.submit(check)
            going_on.add_done_callback(lambda _: self._checks.pop(digest, None))
        return going_on

    async def checked(self, checks: list[Future[None]]) -> None:
        """Return once all the bytes are known to be undamaged.

        Raises:
            ArtifactCorruptError: Some are not.
        """
        while checks:
            await _end_of(checks[-1])
            checks.pop().result()


async def ended(jobs: Iterable[Future[Any]]) -> None:
    """Return once all jobs are done, even if cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    for job in tuple(jobs):
        while not job.done():
            try:
                await _end_of(job)
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled


async def _end_of(job: Future[Any]) -> None:
    """Wait for a job. If the wait is cancelled, the job goes on for others."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(ended.set)

    job.add_done_callback(tell)
    await ended.wait()
