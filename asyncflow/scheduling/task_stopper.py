"""Stops tasks: those over their time limit, and those of a run that is ending.

A `def` task ends with its worker. An async task is asked to end, and its grace begins when its
worker's event loop has received that. If a task blocks the loop, the loop receives nothing. The
attempt then counts as ended all the same, on time: it is *abandoned*, and nothing that it does
later counts, although its worker may run it a while longer.

A worker is killed for a task that does not end in its grace, and for one that blocks the loop
itself. It is not killed for a task that another one keeps from ending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow.workers.messages import CancelTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow._support.conditions import SureTimer
    from asyncflow.workers.interface import WorkerLink
    from asyncflow.workers.messages import AttemptKey

_LONG_IMPORT_SECONDS: Final = 10.0
DEAF_SECONDS: Final = 1.0  # a loop that is not blocked receives an order within milliseconds


class Stoppable(Protocol):
    """A task that a worker has."""

    is_async: bool
    timed_out: bool
    importing: float
    stopped: str
    timer: SureTimer | None

    @property
    def key(self) -> AttemptKey:
        """Which attempt of which task."""

    @property
    def lateness(self) -> str:
        """The reason to kill its worker once its time is over."""

    def stop_timer(self) -> None:
        """Cancel its timer, if any."""


class RunningAt(Protocol):
    """A worker slot: a worker, and the attempt that blocks its event loop."""

    blocker: AttemptKey | None

    @property
    def worker(self) -> WorkerLink:
        """The worker."""


class Stopper:
    """Stops tasks, and kills workers that do not let them end."""

    def __init__(
        self,
        later: Callable[..., SureTimer],
        grace_seconds: float,
        *,
        has: Callable[[Any, AttemptKey], bool],
        disown: Callable[[Any, AttemptKey], None],
    ) -> None:
        """Work for a dispatcher.

        Args:
            later: Sets a timer of the engine's loop, as `call_later` does.
            grace_seconds: How long a task has to end once it was asked to.
            has: Whether a worker still has the attempt, even as an abandoned one.
            disown: Abandon the attempt: report its end to its run, unless that is done.
        """
        self._later, self._grace_seconds = later, grace_seconds
        self._has, self._disown = has, disown
        self._suspended_seconds = 0.0

    def add_suspended(self, seconds: float) -> None:
        """All tasks were stopped for so long, together with the engine: no time limit counts it."""
        self._suspended_seconds += seconds

    def time_limit(self, place: RunningAt, task: Stoppable, seconds: float) -> None:
        """Stop the task if it has not ended after so long."""
        self._set_timer(task, seconds, self._on_timeout, place, task)

    def import_limit(
        self, place: RunningAt, task: Stoppable, seconds: float, warn: Callable[[float], None]
    ) -> None:
        """Stop the task if its flow is not imported after so long; warn once before."""
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
        task.timed_out, task.importing = True, seconds
        # so that its traceback shows where it was
        place.worker.ask_to_stop(task.key, task.lateness)
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, task.lateness)

    def _set_timer(
        self, task: Stoppable, seconds: float, callback: Callable[..., None], *args: Any
    ) -> None:
        task.stop_timer()  # a task has one at a time
        before = self._suspended_seconds
        task.timer = self._later(seconds, self._on_timer, task, before, callback, args)

    def _on_timer(
        self, task: Stoppable, before: float, callback: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        missed = self._suspended_seconds - before
        if missed:  # the task still has that long
            self._set_timer(task, missed, callback, *args)
        else:
            ringing = task.timer
            callback(*args)
            if ringing is not None:
                ringing.cancel()  # last: if an exception breaks this off, it rings again

    def stop(self, place: RunningAt, task: Stoppable, reason: str) -> None:
        """Stop a task because its run is ending."""
        task.stopped = reason
        if task.is_async:
            place.worker.send(CancelTask(task.key))
        else:
            place.worker.ask_to_stop(task.key, reason)
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, reason)

    def _on_timeout(self, place: RunningAt, task: Stoppable) -> None:
        task.timed_out = True
        if task.is_async:
            place.worker.send(CancelTask(task.key, is_late=True))
            self._set_timer(task, DEAF_SECONDS, self._on_deaf, place, task)
        else:
            why = task.lateness
            place.worker.ask_to_stop(task.key, why, is_late=True)
            self._set_timer(task, self._grace_seconds, self._end_grace, place, task, why)

    def _on_deaf(self, place: RunningAt, task: Stoppable) -> None:
        """The worker's loop has received nothing: this task blocks it, or another one does."""
        if self._has(place, task.key):
            self._disown(place, task.key)
            self._set_timer(task, self._grace_seconds, self._end_grace, place, task, task.lateness)

    def heard(self, place: RunningAt, task: Stoppable) -> None:
        """The worker's loop has asked the task to end: its grace begins."""
        reason = task.stopped or task.lateness
        self._set_timer(task, self._grace_seconds, self._end_grace, place, task, reason)

    def _end_grace(self, place: RunningAt, task: Stoppable, reason: str) -> None:
        if not self._has(place, task.key):
            return
        if not task.is_async:
            place.worker.destroy(reason, task.key)
        elif place.blocker in {None, task.key}:
            place.worker.destroy(reason)
        else:
            self._disown(place, task.key)
