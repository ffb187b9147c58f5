"""Syncs a run's journal to the disk in the background, at most once in `sync_seconds`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow._support.conditions import SureTimer, thread_done
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
        """Start nothing yet.

        Args:
            journal: The journal to sync.
            services: The threads, and how long the journal may stay unsynced.
            goes_on: Whether the run goes on; if not, no further sync begins after a slow one.
            on_failed: Called when the disk reports an error.
        """
        self._journal, self._services = journal, services
        self._goes_on, self._on_failed = goes_on, on_failed
        self._loop = asyncio.get_running_loop()
        self._synced_at = self._loop.time()
        self._due: SureTimer | None = None
        self._again = False
        self._syncing: ThreadFuture[None] | None = None

    def written(self) -> None:
        """Records were written: sync them within `sync_seconds`."""
        if self._due is not None:
            return
        wait = self._synced_at + self._services.sync_seconds - self._loop.time()
        self._due = SureTimer(self._loop, max(0.0, wait), self._sync)

    async def close(self) -> None:
        """Begin no further sync, and wait for the running one."""
        if self._due is not None:
            self._due.cancel()
        if self._syncing is not None:
            with suppress(Exception):  # `_on_synced` handles it
                await thread_done(self._syncing)

    def _sync(self) -> None:
        if self._syncing is not None and self._syncing.done():
            self._on_synced(self._syncing)  # the call that tells of it is late, or lost
        if self._syncing is None:
            self._synced_at = self._loop.time()
            self._syncing = self._services.syncs.submit(self._journal.sync)
            self._syncing.add_done_callback(self._tell_of_sync)
        else:  # a slow disk still syncs earlier records
            self._again = True
        if self._due is not None:
            self._due.cancel()  # last: if an exception breaks this off, it is called again
            self._due = None

    def _tell_of_sync(self, synced: ThreadFuture[None]) -> None:
        """Report the end of a sync to the event loop; called in the thread that synced."""
        with suppress(RuntimeError):  # the program closed the event loop without waiting
            self._loop.call_soon_threadsafe(self._on_synced, synced)

    def _on_synced(self, synced: ThreadFuture[None]) -> None:
        if self._syncing is not synced:
            return  # it was noticed without this call
        self._syncing = None
        error = synced.exception()
        if isinstance(error, AsyncflowError):
            self._on_failed(error)
        elif self._again and self._goes_on():
            self._again = False
            self.written()
