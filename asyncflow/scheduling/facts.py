"""The facts that a run learns about its tasks, and what the dispatcher asks of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncflow._quick_classes import NamedTuple, dataclass
from asyncflow.workers.messages import (
    CardsChanged,
    Failed,
    Logged,
    Started,
    Succeeded,
    Yielded,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from asyncflow.errors import AsyncflowError
    from asyncflow.flow.graph import Graph
    from asyncflow.workers.messages import AttemptKey, Opening, StartItems, StartTask
    from asyncflow.workers.report_stream import WholeAttempts


# --- facts for a run ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of a running task is gone, or was stopped because of the task."""

    key: AttemptKey
    exception_type: str
    how: str
    may_retry: bool
    seconds: float = 0.0
    """How long the attempt took, without the import of its flow."""
    traceback: str = ""
    """Where the task was when it was stopped."""


class Ran(NamedTuple):
    """Tasks of one packet that have begun and succeeded, and of which the run was told neither.

    One read of their worker has brought both reports: so it is with nearly all of a wide run.
    """

    pid: int
    """The process in which they ran."""
    node: str
    """Its node."""
    attempts: WholeAttempts
    """What the worker has said of each."""

    @property
    def tasks(self) -> list[int]:
        """Their ids."""
        return [task for _, task, _ in self.attempts.keys]


Fact = Started | Logged | Yielded | CardsChanged | Succeeded | Failed | Lost


class ReadyTasks(Protocol):
    """The ready tasks of a run as the dispatcher needs them."""

    @property
    def ready(self) -> int:
        """How many tasks could be taken now."""

    def next_step(self) -> str | None:
        """The step of the next task; None if none may be taken."""

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of another step first; False if none is ready."""

    def take(self) -> StartTask | None:
        """The next ready task as an order; None if it has to be prepared first."""

    def take_items(self, most: int) -> StartItems | None:
        """Up to `most` ready tasks for consecutive items of a foreach; None if others are next."""

    def next_gang(self) -> int:
        """How many nodes of a gang are next, to be taken together; 0 if the next is no node."""

    def take_gang(self) -> list[StartTask]:
        """The nodes of the gang that is next."""

    def again(self, task_id: int) -> StartTask | None:
        """The order of a task that has not begun, if it is a node of a gang that goes on."""

    def give_back(self, task_id: int) -> None:
        """Take back a task that has not begun: it is ready again."""


class TaskSource(Protocol):
    """A run as the dispatcher needs it."""

    number: int
    graph: Graph

    @property
    def priority(self) -> int:
        """Runs of a higher priority are served first."""

    @property
    def max_running_tasks(self) -> int:
        """The most of its tasks that may be assigned to workers at a time; 0 for no limit."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""

    @property
    def expected(self) -> Mapping[str, float]:
        """The seconds that a task takes, for each step that ended at least once."""

    @property
    def opening(self) -> Opening:
        """The message that makes the run known to a worker."""

    @property
    def orders(self) -> ReadyTasks:
        """Its tasks that are ready."""

    @property
    def backlog_bytes(self) -> int:
        """Output that it was told and its journal does not have yet."""

    @property
    def congested(self) -> bool:
        """Whether its journal lags so far behind that no further task should begin."""

    def on_started(self, tasks: Iterable[int], pid: int, node: str) -> None:
        """Note that these tasks have begun in this process of this node."""

    def tell(self, *facts: Fact | Ran) -> None:
        """Add facts."""

    def abandon(self, error: AsyncflowError) -> None:
        """Fail the run: it cannot go on."""

    def give_up(self, by: str) -> None:
        """End the run without a last event: what became of its tasks may be lost.

        `by` is the exception that has broken off what was to be done for the run.
        """
