"""Has a run's journal synced to the disk in the background, at most once in `sync_seconds`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow._support.conditions import thread_done
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future as ThreadFuture

    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.store.interface import JournalAppender


class JournalSync:
    """The syncs of one journal: one at a time, in a thread."""

    def __init__(
        self,
        journal: JournalAppender,
        services: RunServices,
        *,
        goes_on: Callable[[], bool],
        on_failed: Callable[[AsyncflowError], None],
    ) -> None:
        """Sync nothing yet.

        Args:
            journal: What is synced.
            services: The threads, and how long the journal may stay unsynced.
            goes_on: Whether the run goes on; else no further sync is begun after a slow one.
            on_failed: Called when the disk has refused.
        """
        self._journal, self._services = journal, services
        self._goes_on, self._on_failed = goes_on, on_failed
        self._loop = asyncio.get_running_loop()
        self._synced_at = self._loop.time()
        self._due: asyncio.TimerHandle | None = None
        self._again = False
        self._syncing: ThreadFuture[None] | None = None

    def written(self) -> None:
        """Something was written: sync it before `sync_seconds` are over."""
        if self._due is not None:
            return
        wait = self._synced_at + self._services.sync_seconds - self._loop.time()
        self._due = self._loop.call_later(max(0.0, wait), self._sync)

    async def close(self) -> None:
        """Begin no sync any more, and wait for the one under way."""
        if self._due is not None:
            self._due.cancel()
        if self._syncing is not None:
            with suppress(Exception):  # `_on_synced` hears of it
                await thread_done(self._syncing)

    def _sync(self) -> None:
        self._due = None
        if self._syncing is not None:  # a slow disk still syncs what was written before
            self._again = True
            return
        self._synced_at = self._loop.time()
        self._syncing = self._services.syncs.submit(self._journal.sync)
        self._syncing.add_done_callback(self._tell_of_sync)

    def _tell_of_sync(self, synced: ThreadFuture[None]) -> None:
        """Called in the thread that has synced."""
        with suppress(RuntimeError):  # the program has closed the event loop without waiting
            self._loop.call_soon_threadsafe(self._on_synced, synced)

    def _on_synced(self, synced: ThreadFuture[None]) -> None:
        self._syncing = None
        error = synced.exception()
        if isinstance(error, AsyncflowError):
            self._on_failed(error)
        elif self._again and self._goes_on():
            self._again = False
            self.written()
