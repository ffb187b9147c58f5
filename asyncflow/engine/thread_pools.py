"""The threads of an engine: for what would keep its event loop waiting."""

from __future__ import annotations

from typing import Final

from asyncflow._support.conditions import thread_done
from asyncflow._support.thread_pool import Threads

_DISK_THREADS: Final = 4  # journals that wait on the disk at once
_HOOK_THREADS: Final = 8  # each waits for a process; none is started before there is a hook
# when nothing waits on the disk: more threads would only take the interpreter from the loop
_WRITING_THREADS: Final = 1


class ThreadPools:
    """The threads of an engine, by what they do."""

    def __init__(self, *, durable: bool) -> None:
        """Start none yet; `durable` says whether each write waits on the disk."""
        self.disk = Threads(_DISK_THREADS if durable else _WRITING_THREADS, "asyncflow-disk")
        """Write journals."""
        self.syncs = Threads(_DISK_THREADS, "asyncflow-sync")
        """Wait until what was written is on the disk."""
        # of its own: reading what a large run has finished takes seconds
        self.makers = Threads(1, "asyncflow-start")
        """Creates runs."""
        self.hooks = Threads(_HOOK_THREADS, "asyncflow-exit-hooks")
        """Wait for exit hooks."""

    def begin(self) -> None:
        """Start those that every engine needs: now, when a lack of memory is still only an error.

        Raises:
            AsyncflowError: The system cannot start one.
        """
        for threads in (self.disk, self.syncs, self.makers):
            threads.begin()

    async def close(self) -> None:
        """Return once all threads have ended; a slow disk may delay them."""
        for end in [end for threads in self._all for end in threads.close()]:
            await thread_done(end)
        self.shutdown()  # idle threads, so waiting is short

    def shutdown(self) -> None:
        """End the threads, and wait for them."""
        for threads in self._all:
            threads.shutdown()

    @property
    def _all(self) -> tuple[Threads, ...]:
        return self.disk, self.syncs, self.makers, self.hooks

    def __repr__(self) -> str:
        return f"<ThreadPools {', '.join(map(repr, self._all))}>"
