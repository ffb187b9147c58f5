"""What the dispatcher needs of an executor and its workers.

`asyncflow.workers.local.pool` fulfils it, without being imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncflow.workers.messages import OrderMessage

# --- what is needed of an executor --------------------------------------------------------------


class SpoolFile(Protocol):
    """Where a worker's output of one stream lies."""

    def read(self, offset: int, count: int) -> bytes:
        """Return up to so many bytes."""


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
        """The number of bytes in each of its output files."""

    def has_more(self) -> bool:
        """Whether it has sent reports that have not been read yet."""

    def kill(self, number: int, why: str) -> None:
        """Send a signal to it and to everything that its steps have started."""


class Executor(Protocol):
    """Where tasks run."""

    size: int

    def start_worker(self) -> WorkerLink:
        """Start one more worker; orders can be sent to it at once."""

    def pause(self, worker: Any) -> None:
        """Stop reading the worker's reports for now."""

    def resume(self, worker: Any) -> None:
        """Read its reports again."""
