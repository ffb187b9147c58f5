"""What the dispatcher needs of an executor and of a run, and what it tells a run.

`asyncflow.workers.local.pool` fulfils the one and `asyncflow.scheduling.run_driver` the other,
without being imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncflow.workers.messages import OrderMessage

# --- what is needed of an executor --------------------------------------------------------------


class SpoolFile(Protocol):
    """Where a worker's output of one stream lies."""

    def read(self, offset: int, count: int) -> bytes:
        """Up to so many bytes."""


class WorkerLink(Protocol):
    """A worker as the dispatcher needs it."""

    pid: int
    stop_reason: str

    @property
    def spools(self) -> tuple[SpoolFile, SpoolFile]:
        """Its output, one for each stream."""

    def send(self, order: OrderMessage) -> None:
        """Give an order, without waiting."""

    def take_back(self) -> list[list[Any]]:
        """The orders to start a task that it has not received."""

    def spooled(self) -> tuple[int, int]:
        """How much output there is."""

    def has_more(self) -> bool:
        """Whether it has said something that has not been heard yet."""

    def kill(self, number: int, why: str) -> None:
        """Send it a signal, and to all that its steps have started."""


class Executor(Protocol):
    """Where tasks run."""

    size: int

    def start_worker(self) -> WorkerLink:
        """One more worker; orders can be sent to it at once."""

    def pause(self, worker: Any) -> None:
        """Hear no more of a worker for now."""

    def resume(self, worker: Any) -> None:
        """Hear of it again."""
