"""What a run is told of its tasks, and what the dispatcher asks of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from asyncflow.workers.messages import Failed, Logged, Started, Succeeded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asyncflow.errors import AsyncflowError
    from asyncflow.flow.graph import Graph
    from asyncflow.workers.messages import Opening, StartTask


# --- what a run is told -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a running task is gone, or was stopped because of it."""

    task_id: int
    exception_type: str
    how: str
    may_retry: bool
    seconds: float = 0.0
    """How long it had taken, without the import of its flow."""
    traceback: str = ""
    """Where an async task was when it was stopped."""


Fact = Started | Logged | Succeeded | Failed | Lost


class TaskSource(Protocol):
    """A run as the dispatcher needs it."""

    number: int
    graph: Graph
    backlog_bytes: int

    @property
    def priority(self) -> int:
        """Runs of a higher priority are served first."""

    @property
    def max_running_tasks(self) -> int:
        """How many of its tasks may be assigned to workers at a time; 0 for any number."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""

    @property
    def expected(self) -> Mapping[str, float]:
        """For each step that ended at least once: seconds for a task."""

    @property
    def opening(self) -> Opening:
        """What makes the run known to a worker."""

    @property
    def ready(self) -> int:
        """How many tasks could be taken now."""

    @property
    def congested(self) -> bool:
        """Whether its journal lags so far behind that no further task should begin."""

    def next_step(self) -> str | None:
        """The step of the task that would be taken next."""

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of another step first; False if none is ready."""

    def take(self) -> StartTask | None:
        """The next ready task as an order; None when it has to be prepared first."""

    def give_back(self, task_id: int) -> None:
        """A task that was taken has not begun: it is ready again."""

    def seated(self, task_id: int, pid: int) -> None:
        """The task has begun in this process."""

    def tell(self, fact: Fact) -> None:
        """A fact has come in."""

    def abandon(self, error: AsyncflowError) -> None:
        """The run cannot go on."""
