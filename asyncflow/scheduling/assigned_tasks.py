"""Tasks that were sent to a worker: alone, or as a packet for items of a foreach."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, final

from asyncflow._support.tracebacks import too_long

if TYPE_CHECKING:
    from asyncflow._support.conditions import SureTimer
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.workers.messages import AttemptKey, StartTask


class Held(Protocol):
    """What a task holds while a worker has it."""

    def release(self) -> None:
        """The worker no longer has it."""


class AssignedTask:
    """A task that was sent to a worker."""

    __slots__ = (
        "expected",
        "grant",
        "importing",
        "is_async",
        "isolated",
        "key",
        "since",
        "source",
        "started",
        "step",
        "stopped",
        "timed_out",
        "timeout",
        "timer",
        "yields",
    )

    def __init__(
        self,
        source: TaskSource,
        key: AttemptKey,
        step: str,
        *,
        is_async: bool,
        expected: float,
        timeout: float,
        isolated: bool,
    ) -> None:
        self.source, self.key, self.step = source, key, step
        self.is_async, self.expected = is_async, expected
        self.started = False
        self.since = 0.0
        self.timeout, self.isolated = timeout, isolated
        self.timed_out = False
        self.importing = 0.0  # the limit of its flow's import in seconds, once exceeded
        self.stopped = ""
        self.yields = False  # whether its generator yields items, for which other tasks can begin
        self.grant: Held | None = None
        self.timer: SureTimer | None = None

    @classmethod
    def of(
        cls, source: TaskSource, order: StartTask, *, is_async: bool, expected: float
    ) -> AssignedTask:
        """The task of an order."""
        return cls(
            source,
            order.key,
            order.step,
            is_async=is_async,
            expected=expected,
            timeout=0.0 if order.caught else _seconds_of(source, order.step),
            isolated="isolate" in source.graph[order.step].options,
        )

    @property
    def lateness(self) -> str:
        """The reason to kill its worker once its time is over."""
        if self.importing:
            return f"a task of {self.step} waited too long for its flow to be imported"
        return f"a task of {self.step} took longer than {self.timeout:g} s"

    @property
    def why_late(self) -> str:
        """Which time limit it has exceeded."""
        if self.importing:
            return (
                f"importing the flow took longer than {self.importing:g} s "
                "(the setting import_seconds)"
            )
        return too_long(self.timeout)

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@final
class AssignedItems:
    """The `def` tasks of one order that were sent to a worker together.

    A task of them is an `AssignedTask` once something concerns it alone.
    """

    __slots__ = ("expected", "source", "step", "timeout")

    is_async: ClassVar = False
    started: ClassVar = False
    since: ClassVar = 0.0
    timer: ClassVar = None
    grant: ClassVar = None
    yields: ClassVar = False
    """As those of each of its tasks that nothing concerned alone."""

    def __init__(self, source: TaskSource, step: str, expected: float) -> None:
        self.source, self.step, self.expected = source, step, expected
        self.timeout = _seconds_of(source, step)

    def task(self, key: AttemptKey) -> AssignedTask:
        """One of them."""
        return AssignedTask(
            self.source,
            key,
            self.step,
            is_async=False,
            expected=self.expected,
            timeout=self.timeout,
            isolated=False,
        )


def _seconds_of(source: TaskSource, step: str) -> float:
    """How long a task of the step may take; 0 for any time."""
    limit = source.graph[step].options.get("timeout")
    return float(limit["seconds"]) if isinstance(limit, dict) else 0.0
