"""The application's handle of one run."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, overload

from asyncflow._support.event_loop import check_loop, run_to_completion
from asyncflow.engine.subscription import Channel, Subscription
from asyncflow.errors import RunCancelledError, RunFailedError, UnguardedRunError
from asyncflow.events.selection import EventFilter, EveryRecord, Wish
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Sequence

    from asyncflow._support.settings import Settings
    from asyncflow.client import Run
    from asyncflow.engine.exit_hooks import ExitHooks
    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event
    from asyncflow.scheduling.run_driver import RunDriver
    from asyncflow.store.interface import StoredRun
    from asyncflow.values import Failure

_UNGUARDED: Final = f"{UnguardedRunError.__module__}.{UnguardedRunError.__qualname__}"
_LOOKED_AT_RECORDS: Final = 1000  # for an error's text, while the event loop waits


class FailureObserver:
    """Warns if a run fails and nobody waited for it, looked at it or watched it.

    The run's handle refers to it, and so does the engine until the run ends. The warning comes when
    both references are gone: a handle may be looked at later, or be dropped at once.
    """

    __slots__ = ("failed", "noticed")

    def __init__(self) -> None:
        self.noticed = False
        """Whether somebody waited for the run, looked at it or watched it."""
        self.failed = ""
        """The pathspec of the run once it has failed; empty before."""

    def __del__(self) -> None:
        if self.failed and not self.noticed:
            message = f"{self.failed} failed, and nobody waited for its handle or watched its end"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)


class RunHandle:
    """A run that was started: watch it, wait for it, cancel it.

    Awaiting the handle is `wait()`. A handle may be dropped: the run goes on. If it then fails, and
    nobody has ever waited for it, looked at it through the handle or watched its events, Python
    shows a `ResourceWarning`.
    """

    def __init__(
        self,
        driver: RunDriver,
        channel: Channel,
        settings: Settings,
        observer: FailureObserver,
        hooks: ExitHooks | None = None,
    ) -> None:
        self._driver = driver
        self._channel = channel
        self._settings = settings
        self._observer = observer
        self._hooks = hooks
        self._loop = asyncio.get_running_loop()

    @property
    def run_id(self) -> str:
        """Names the run within its flow."""
        return self._driver.identity.run_id

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self._driver.identity.flow}/{self.run_id}"

    @property
    def status(self) -> Status:
        """The run's status now."""
        self._observer.noticed = True
        return self._status

    @property
    def _status(self) -> Status:
        return Status.INTERRUPTED if self._driver.error is not None else self._driver.plan.status

    @property
    def run(self) -> Run:
        """The client's view of the run; it can be used while the run goes on."""
        self._observer.noticed = True
        from asyncflow.client.objects import known_run

        return known_run(self._driver.identity.stored)

    async def wait(self) -> Run:
        """Wait for the run's end, and for its exit hooks.

        Raises:
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: The run was cancelled.
            AsyncflowError: The run could not go on, for example because the disk is full; or its
                engine was entered on another event loop.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        await self.ended()
        return self._result()

    async def ended(self) -> Status:
        """Wait for the run's end, like `wait`, and return its status: a failure is not raised.

        Raises:
            AsyncflowError: The run could not go on.
        """
        check_loop(self._loop)
        self._observer.noticed = True
        try:
            await self._driver.finished.wait()
        except asyncio.CancelledError:
            self._driver.cancel("the task that waited for it was cancelled")
            await run_to_completion(self._driver.finished.wait())
            raise
        if self._hooks is not None:
            await self._hooks.wait()
        if self._driver.error is not None:
            raise self._driver.error
        return self._status

    @property
    def running_tasks(self) -> list[str]:
        """The tasks that have begun and not ended, as `step/task`, in the order of their start."""
        return self._driver.running_tasks

    def __await__(self) -> Generator[Any, None, Run]:
        return self.wait().__await__()

    def cancel(
        self, reason: str = "cancelled by the program", *, by_shutdown: bool = False
    ) -> None:
        """Stop the run. Await the handle to know when it has stopped.

        It may be called in any thread, and by a signal handler. Harmless when the run has ended.

        Args:
            reason: Kept in the run's last event.
            by_shutdown: Whether the run has to stop only because its program does. Then
                `Engine.resume_interrupted` takes it up.
        """
        cancel = partial(self._driver.cancel, reason, by_shutdown=by_shutdown)
        with suppress(RuntimeError):  # the event loop is closed, so the run has ended
            # On the loop itself, too: a signal may interrupt any line.
            self._loop.call_soon_threadsafe(cancel)

    @overload
    def events(self, *, since: int = 0) -> Subscription[Event]: ...
    @overload
    def events(self, *types: type[Wish], since: int = 0) -> Subscription[Wish]: ...
    def events(self, *types: type[Event], since: int = 0) -> Subscription[Any]:
        """Every event of the run, or those of some types, past and future; ends with the run.

        It starts with the first event, or with the first whose `seq` is higher than `since`.
        """
        return self._subscribe(EventFilter(types, since))

    def _subscribe(self, event_filter: EventFilter[Any]) -> Subscription[Any]:
        check_loop(self._loop)
        self._observer.noticed = True
        subscription = Subscription(
            event_filter, loop=self._loop, buffer=self._settings.event_buffer
        )
        subscription.follow(self._channel, start=self._channel.first)
        return subscription

    def batches(self) -> AsyncIterator[Sequence[Event]]:
        """Every event of the run from the first, in lists as published; ends with the run."""
        return self.events().batches()

    def _news(self) -> AsyncIterator[Sequence[Publication]]:
        """The same without an event for each: records as they were published."""
        return self._subscribe(EveryRecord()).batches()

    def _result(self) -> Run:
        driver = self._driver
        finish = driver.finish
        if finish is None or finish.status is Status.SUCCEEDED:
            return self.run
        if finish.status is Status.CANCELLED:
            message = f"{self.pathspec} was cancelled: {finish.reason}"
            raise RunCancelledError(message, run=self.run)
        raise RunFailedError(
            explain_failure(driver.identity.stored, finish.failure),
            run=self.run,
            failure=finish.failure,
        )

    def __repr__(self) -> str:
        return f"<RunHandle {self.pathspec} {self._status}>"


def explain_failure(run: StoredRun, failure: Failure | None) -> str:
    """The message for a failed run: what failed, where its log is, and how to go on."""
    from asyncflow.client.resume_hint import logs_command, resume_command, step_to_repeat

    pathspec = run.pathspec
    if failure is None:
        return f"{pathspec} failed"
    # the file has to be mended, and then the flow starts anew
    if failure.exception_type == _UNGUARDED:
        return f"{pathspec} failed: {failure.message}"
    where = f"{pathspec}/{failure.step}/{failure.task_id}" if failure.task_id else pathspec
    repeat = step_to_repeat(run, failure, _LOOKED_AT_RECORDS)
    lines = [
        f"{where} failed in attempt {failure.attempt}: {failure.exception_type}: {failure.message}",
        failure.traceback.rstrip(),
        f"Its log: {logs_command(where, run)}",
        f"To go on from here: {resume_command(run, repeat)}",
    ]
    return "\n".join(line for line in lines if line)
