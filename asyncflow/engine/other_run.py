"""The handle of a run that this engine does not run: another one does, or it has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asyncflow._support.conditions import in_thread
from asyncflow._support.event_loop import check_loop
from asyncflow._support.thread_pool import reading_thread
from asyncflow.client.event_stream import EventStream
from asyncflow.engine.run_handle import RunHandle, explain_failure
from asyncflow.errors import RunCancelledError, RunFailedError, RunNotActiveError
from asyncflow.events.types import RunCancelled, RunFailed, RunSucceeded
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow._support.thread_pool import Threads
    from asyncflow.client import Run
    from asyncflow.events.selection import EventFilter
    from asyncflow.events.types import Event
    from asyncflow.store.interface import StoredRun


class OtherRunHandle(RunHandle):
    """A run that was found by its key: watch it, wait for it, cancel it.

    It follows the run's journal. If the task that waits for it is cancelled, the run goes on.
    """

    def __init__(self, stored: StoredRun, threads: Threads) -> None:
        """Follow this run; messages to its engine are sent in one of the threads."""
        self._stored, self._threads = stored, threads
        self._loop = asyncio.get_running_loop()

    @property
    def run_id(self) -> str:
        """Names the run within its flow."""
        return self._stored.run_id

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return self._stored.pathspec

    @property
    def status(self) -> Status:
        """The run's status now, read from its journal."""
        return self.run.status

    @property
    def _status(self) -> Status:
        return self.status

    @property
    def running_tasks(self) -> list[str]:
        """The tasks that have begun and not ended, as `step/task`, read from the journal."""
        return [f"{each.parent.id}/{each.id}" for each in self.run.tasks(status="running")]

    @property
    def run(self) -> Run:
        """The client's view of the run."""
        from asyncflow.client.namespaces import without_namespace
        from asyncflow.client.objects import Run

        with without_namespace():
            return Run(self.pathspec, store=self._stored.store.location)

    async def wait(self) -> Run:
        """Wait for the run's end.

        Raises:
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: The run was cancelled.
            RunInterruptedError: Its engine is gone without recording an end.
        """
        ending = await self._ending()
        if isinstance(ending, RunFailed):
            failure = ending.failure
            text = await in_thread(reading_thread(), explain_failure, self._stored, failure)
            raise RunFailedError(text, run=self.run, failure=failure)
        if isinstance(ending, RunCancelled):
            message = f"{self.pathspec} was cancelled: {ending.reason}"
            raise RunCancelledError(message, run=self.run)
        return self.run

    async def ended(self) -> Status:
        """Wait for the run's end, like `wait`, and return its status: a failure is not raised.

        Raises:
            RunInterruptedError: Its engine is gone without recording an end.
        """
        await self._ending()
        return self.status

    async def _ending(self) -> Event | None:
        check_loop(self._loop)
        ending: Event | None = None
        async for event in self.events(RunSucceeded, RunFailed, RunCancelled):
            ending = event
        return ending

    def cancel(
        self,
        reason: str = "cancelled by the program",
        *,
        by_shutdown: bool = False,  # noqa: ARG002 - its engine is another one, and goes on
    ) -> None:
        """Ask the run's engine to stop it. Await the handle to know when it has stopped.

        It may be called in any thread. Harmless when the run has ended. `by_shutdown` has no
        effect: the end of this program is no reason for the run to stop.
        """
        self._threads.submit(_cancel, self.run, reason)

    def _subscribe(self, event_filter: EventFilter[Any]) -> Any:
        check_loop(self._loop)
        return EventStream(self.run.follower(event_filter))

    def __repr__(self) -> str:
        return f"<OtherRunHandle {self.pathspec}>"


def _cancel(run: Run, reason: str) -> None:
    try:
        run.cancel(reason, seconds=0.0)
    except RunNotActiveError:
        return
