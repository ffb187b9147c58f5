"""What an engine asks of whoever traces its runs, see `asyncflow.otel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.events.types import RunStarted


class RunTrace(Protocol):
    """The trace of a run that is being started."""

    def begin(self, started: RunStarted, origin: Mapping[str, str]) -> Mapping[str, str]:
        """Begin the run's span, just before its first event is written; called in a thread.

        Args:
            started: That event, as yet without `trace`.
            origin: The `trace` of the run that it resumes; empty if there is none.

        Returns:
            What to keep as `RunStarted.trace`.
        """

    def give_up(self) -> None:
        """The run could not be started."""


RunTracer = Callable[[], RunTrace]
"""Called in the task that starts a run."""
