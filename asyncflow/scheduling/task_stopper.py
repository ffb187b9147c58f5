"""Has tasks end that are to: those out of time, and those of a run that is ending.

A `def` task ends with its worker. An async one is asked to, and has the grace from when its
worker's loop has heard of it. If the loop hears nothing, because some task blocks it, the task
counts as ended all the same, on time: its worker may have it a while longer, as a *ghost* of which
nothing more is told. The worker is killed for a task that does not end though it was asked to, and
for one that blocks the loop itself, but for no other's sake.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow.workers.messages import CancelTask

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from asyncflow.workers.messages import OrderMessage

_LONG_IMPORT_SECONDS: Final = 10.0
DEAF_SECONDS: Final = 1.0  # a loop that turns hears of a cancellation within milliseconds

Attempt = tuple[int, int, int]  # run, task, attempt


class Stoppable(Protocol):
    """A task that a worker has."""

    is_async: bool
    timed_out: bool
    importing: float
    stopped: str
    timer: asyncio.TimerHandle | None

    @property
    def attempt(self) -> Attempt:
        """Which attempt of which task."""

    @property
    def lateness(self) -> str:
        """What is to be said when it has had its time."""

    def stop_timer(self) -> None:
        """Nothing need be done about the task any more."""


class Stopped(Protocol):
    """Who carries it out."""

    def send(self, order: OrderMessage) -> None:
        """Give an order, without waiting."""

    def kill(self, number: int, why: str) -> None:
        """Send a signal to the worker."""


class RunningAt(Protocol):
    """A worker, and who blocks its loop."""

    blocker: Attempt | None

    @property
    def worker(self) -> Any:
        """It is `Stopped`."""

    def at_work(self) -> object:
        """Of `def` tasks the one that is running, once those not received have been taken back."""


class Stopper:
    """Ends tasks, and workers that do not let them end."""

    def __init__(
        self,
        later: Callable[..., asyncio.TimerHandle],
        grace_seconds: float,
        *,
        has: Callable[[Any, Attempt], bool],
        disown: Callable[[Any, Attempt], None],
        take_back: Callable[[Any], object],
    ) -> None:
        """Work for a dispatcher.

        Args:
            later: `call_later` of the engine's loop.
            grace_seconds: How long a task has to end once it was asked to.
            has: Whether a worker has the attempt still, be it as a ghost.
            disown: Tell the run that the attempt has ended, unless that is done; it is a ghost.
            take_back: Have back what the worker has not begun.
        """
        self._later, self._grace_seconds = later, grace_seconds
        self._has, self._disown, self._take_back = has, disown, take_back
        self.suspended_seconds = 0.0
        """How long, in all, tasks have stood still together with the engine."""

    def time_limit(self, place: RunningAt, task: Stoppable, seconds: float) -> None:
        """The task has so long to end by itself."""
        self._set_timer(task, seconds, self._on_timeout, place, task)

    def import_limit(
        self, place: RunningAt, task: Stoppable, seconds: float, warn: Callable[[float], None]
    ) -> None:
        """The flow may be imported for so long; at first there is a warning."""
        first = min(_LONG_IMPORT_SECONDS, seconds / 2)
        self._set_timer(task, first, self._on_long_import, place, task, seconds, first, warn)

    def _on_long_import(
        self,
        place: RunningAt,
        task: Stoppable,
        seconds: float,
        first: float,
        warn: Callable[[float], None],
    ) -> None:
        warn(first)
        self._set_timer(task, seconds - first, self._on_import_timeout, place, task, seconds)

    def _on_import_timeout(self, place: RunningAt, task: Stoppable, seconds: float) -> None:
        self._take_back(place)
        task.timed_out, task.importing = True, seconds
        place.worker.kill(signal.SIGTERM, task.lateness)  # so that it tells where it was
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, task.lateness)

    def _set_timer(
        self, task: Stoppable, seconds: float, callback: Callable[..., None], *args: Any
    ) -> None:
        task.stop_timer()  # there is one for a task
        before = self.suspended_seconds
        task.timer = self._later(seconds, self._on_timer, task, before, callback, args)

    def _on_timer(
        self, task: Stoppable, before: float, callback: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        missed = self.suspended_seconds - before
        if missed:  # the task has that long still
            self._set_timer(task, missed, callback, *args)
        else:
            callback(*args)

    def stop(self, place: RunningAt, task: Stoppable, reason: str) -> None:
        """Have a task end because its run does."""
        task.stopped = reason
        if task.is_async:
            place.worker.send(CancelTask(*task.attempt))
        else:
            place.worker.kill(signal.SIGTERM, reason)
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, reason)

    def _on_timeout(self, place: RunningAt, task: Stoppable) -> None:
        if task.is_async:
            task.timed_out = True
            place.worker.send(CancelTask(*task.attempt, is_late=True))
            self._set_timer(task, DEAF_SECONDS, self._on_deaf, place, task)
            return
        self._take_back(place)
        if place.at_work() is task:  # else it has just ended, and a kill would hit the next one
            task.timed_out = True
            place.worker.kill(signal.SIGKILL, task.lateness)

    def _on_deaf(self, place: RunningAt, task: Stoppable) -> None:
        """The worker's loop has not heard of it: it is blocked, by this task or another."""
        if self._has(place, task.attempt):
            self._disown(place, task.attempt)
            self._set_timer(task, self._grace_seconds, self._end_grace, place, task, task.lateness)

    def heard(self, place: RunningAt, task: Stoppable) -> None:
        """The worker's loop turns, and has asked the task to end."""
        reason = task.stopped or task.lateness
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, reason)

    def _end_grace(self, place: RunningAt, task: Stoppable, reason: str) -> None:
        if not self._has(place, task.attempt):
            return
        if place.blocker in {None, task.attempt}:
            place.worker.kill(signal.SIGKILL, reason)
        else:
            self._disown(place, task.attempt)
