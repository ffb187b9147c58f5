"""The application's handle of one run."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, overload

from asyncflow._support.event_loop import check_loop, run_to_completion
from asyncflow.client import Run
from asyncflow.client.resume_hint import logs_command, resume_command, step_to_repeat
from asyncflow.engine.subscription import Channel, Subscription
from asyncflow.errors import RunCancelledError, RunFailedError, UnguardedRunError
from asyncflow.events.selection import EventFilter, Wish
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Sequence
    from pathlib import Path

    from asyncflow._support.settings import Settings
    from asyncflow.events.types import Event
    from asyncflow.scheduling.run_driver import RunDriver
    from asyncflow.values import Failure

_UNGUARDED: Final = f"{UnguardedRunError.__module__}.{UnguardedRunError.__qualname__}"
_LOOKED_AT_RECORDS: Final = 1000  # for an error's text, while the event loop waits


class FailureObserver:
    """Warns if a run fails and nobody has waited for it, looked at it or watched it.

    The run's handle has it, and so does the engine until the run has ended: the warning comes when
    both have let it go, so that a handle may be looked at later, or be dropped at once.
    """

    __slots__ = ("failed", "heard")

    def __init__(self) -> None:
        self.heard = False
        """Whether somebody waited for the run, looked at it or watched it."""
        self.failed = ""
        """The pathspec of a run that has failed."""

    def __del__(self) -> None:
        if self.failed and not self.heard:
            message = f"{self.failed} failed, and nobody waited for its handle or watched its end"
            warnings.warn(message, ResourceWarning, source=self, stacklevel=1)


class RunHandle:
    """A run that was started: watch it, wait for it, cancel it.

    Awaiting the handle is `wait()`. A handle may be dropped: the run goes on. If it then fails, and
    nobody has ever waited for it, looked at it through the handle or watched its events, a
    `ResourceWarning` tells.
    """

    def __init__(
        self, driver: RunDriver, channel: Channel, settings: Settings, ear: FailureObserver
    ) -> None:
        self._driver = driver
        self._channel = channel
        self._settings = settings
        self._ear = ear
        self._loop = asyncio.get_running_loop()

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._driver.identity.run_id

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self._driver.identity.flow}/{self.run_id}"

    @property
    def status(self) -> Status:
        """The run's status now."""
        self._ear.heard = True
        return self._status

    @property
    def _status(self) -> Status:
        return Status.INTERRUPTED if self._driver.error is not None else self._driver.plan.status

    @property
    def run(self) -> Run:
        """The client's view of the run; it can be used while the run goes on."""
        self._ear.heard = True
        return Run(self.pathspec, store=self._driver.identity.store)

    async def wait(self) -> Run:
        """Wait for the run's end.

        Raises:
            RunFailedError: A task failed; the error tells which, and why.
            RunCancelledError: The run was cancelled.
            AsyncflowError: The run could not be brought to an end, such as by a full disk; or its
                engine was entered on another event loop.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        check_loop(self._loop)
        self._ear.heard = True
        try:
            await self._driver.finished.wait()
        except asyncio.CancelledError:
            self._driver.cancel("the task that waited for it was cancelled")
            await run_to_completion(self._driver.finished.wait())
            raise
        return self._result()

    def __await__(self) -> Generator[Any, None, Run]:
        return self.wait().__await__()

    def cancel(self, reason: str = "cancelled by the program") -> None:
        """Stop the run. Await the handle to know when it has stopped.

        It may be called in any thread, and by a signal's handler. Harmless when the run has ended.
        """
        with suppress(RuntimeError):  # the event loop is closed, and with it the run has ended
            # Also on the loop itself: a signal may come in the middle of anything.
            self._loop.call_soon_threadsafe(self._driver.cancel, reason)

    @overload
    def events(self, *, since: int = 0) -> Subscription[Event]: ...
    @overload
    def events(self, one: type[Wish], /, *, since: int = 0) -> Subscription[Wish]: ...
    @overload
    def events(self, *types: type[Event], since: int = 0) -> Subscription[Event]: ...
    def events(self, *types: type[Event], since: int = 0) -> Subscription[Any]:
        """Every event of the run, or those of some types, live or past; ends with the run.

        From the first on, or from behind the one whose `seq` is `since`.
        """
        check_loop(self._loop)
        self._ear.heard = True
        wanted: EventFilter[Event] = EventFilter(types, since)
        subscription = Subscription(wanted, loop=self._loop, buffer=self._settings.event_buffer)
        subscription.follow(self._channel, start=self._channel.first)
        return subscription

    def batches(self) -> AsyncIterator[Sequence[Event]]:
        """Every event of the run from its first on, in lists as they came; ends with the run."""
        return self.events().batches()

    def _result(self) -> Run:
        driver = self._driver
        if driver.error is not None:
            raise driver.error
        finish = driver.finish
        if finish is None or finish.status is Status.SUCCEEDED:
            return self.run
        if finish.status is Status.CANCELLED:
            message = f"{self.pathspec} was cancelled: {finish.reason}"
            raise RunCancelledError(message, run=self.run)
        raise RunFailedError(
            _explain(driver.identity.run_dir / "journal", finish.failure),
            run=self.run,
            failure=finish.failure,
        )

    def __repr__(self) -> str:
        return f"<RunHandle {self.pathspec} {self._status}>"


def _explain(journal: Path, failure: Failure | None) -> str:
    """The message of a failed run: what failed, where its log is, and how to go on."""
    pathspec = f"{journal.parent.parent.name}/{journal.parent.name}"
    if failure is None:
        return f"{pathspec} failed"
    if failure.exception_type == _UNGUARDED:  # what to do is to mend the file, and run it anew
        return f"{pathspec} failed: {failure.message}"
    where = f"{pathspec}/{failure.step}/{failure.task_id}" if failure.task_id else pathspec
    repeat = step_to_repeat(journal, failure, _LOOKED_AT_RECORDS)
    lines = [
        f"{where} failed in attempt {failure.attempt}: {failure.exception_type}: {failure.message}",
        failure.traceback.rstrip(),
        f"Its log: {logs_command(where, journal)}",
        f"To go on from here: {resume_command(pathspec, journal, repeat)}",
    ]
    return "\n".join(line for line in lines if line)
