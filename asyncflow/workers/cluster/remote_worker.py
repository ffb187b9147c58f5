"""A worker on a node, and the node, as the engine sees them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from asyncflow.workers.messages import (
    Failed,
    GaveBack,
    Opening,
    Ready,
    ReportStream,
    Started,
    StartItems,
    StartTask,
    Succeeded,
    begun_by,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from asyncflow.workers.cluster.agent_connection import AgentConnection
    from asyncflow.workers.cluster.interface import Shape
    from asyncflow.workers.messages import AttemptKey, OrderMessage, ReportMessage


class _SentAttempt:
    """An attempt that was sent to a worker, and has not ended."""

    __slots__ = ("has_begun", "number", "step")

    def __init__(self, number: int, step: str) -> None:
        self.number = number
        """How many messages were posted to its node before it."""
        self.step = step
        self.has_begun = False


class ClusterNode:
    """Room for workers at one agent."""

    def __init__(self, connection: AgentConnection, name: str) -> None:
        self.connection: Final = connection
        self.name: Final = name
        """The node's name, for people and for events."""
        self.slots: Counter[Shape] = Counter()
        """How many workers its leases are for, by what these need."""
        self.facts: Mapping[str, Any] = {}
        """What its agent has told of itself; empty until it has said anything."""
        self.is_up = False
        """Whether workers may be started here."""
        self.workers: dict[int, RemoteWorker] = {}
        """Its workers, by token."""
        self.idle_since: float | None = None
        """Since when none of its workers has had an attempt, as far as was noticed."""
        self.posted = 0
        """How many messages were posted to it."""
        self._pathspecs: dict[int, str] = {}  # of the runs that its workers know

    def free(self, shape: Shape) -> int:
        """How many more workers of a shape may be started here; negative after a large gang."""
        there = sum(worker.shape == shape for worker in self.workers.values())
        return self.slots[shape] - there

    @property
    def is_idle(self) -> bool:
        """Whether none of its workers has an attempt."""
        return all(worker.is_idle for worker in self.workers.values())

    def post(self, *message: Any) -> None:
        """Have a message sent to its agent."""
        self.posted += 1
        self.connection.post(*message)

    def note_run(self, opening: Opening) -> None:
        """A run becomes known here."""
        self._pathspecs[opening.run] = f"{opening.flow}/{opening.run_id}"

    def unheard_of(self) -> Iterator[str]:
        """The pathspecs of the tasks that may have begun here, although nobody said so."""
        for worker in self.workers.values():
            for attempt, step in worker.unheard_of(self.connection.taken):
                yield f"{self._pathspecs.get(attempt.run, '?')}/{step}/{attempt.task}"

    def __repr__(self) -> str:
        size = self.slots.total()
        state = f"{len(self.workers)} of {size} workers" if self.is_up else "starting"
        return f"<ClusterNode {self.name} {state}>"


class RemoteWorker:
    """A worker of an agent, as the engine sees it."""

    takes_several = True

    def __init__(self, node: ClusterNode, token: int, shape: Shape) -> None:
        self.stop_reason = ""
        """Why it should end; empty while it may get tasks."""
        self.pid = 0
        """Its process id on its node; 0 while unknown."""
        self.token: Final = token
        self.shape: Final = shape
        self.where: Final = node
        self._reports = ReportStream()
        self._sent: dict[AttemptKey, _SentAttempt] = {}
        node.workers[token] = self
        node.post("start", token)

    @property
    def name(self) -> str:
        """Its process, and where that is."""
        return f"process {self.pid} on {self.where.name}"

    @property
    def node(self) -> str:
        """The name of its node."""
        return self.where.name

    @property
    def is_up(self) -> bool:
        """Whether it has reported that it accepts orders."""
        return bool(self.pid)

    @property
    def is_idle(self) -> bool:
        """Whether it has no attempt."""
        return not self._sent

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""
        if isinstance(order, StartTask | StartItems):
            if order.opening:
                self.where.note_run(Opening(*order.opening))
            for key in begun_by(order):
                self._sent[key] = _SentAttempt(self.where.posted, order.step)
        self.where.post("order", self.token, order)

    def take_back(self) -> None:
        """Take back the tasks that it has not received; each is reported as `GaveBack`."""
        self.where.post("take_back", self.token)

    def ask_to_stop(self, attempt: AttemptKey, why: str, *, is_late: bool = False) -> None:
        """End the attempt soon, if the agent finds that the worker runs it."""
        self.where.post("ask_to_stop", self.token, attempt, why, is_late)

    def destroy(self, why: str, attempt: AttemptKey | None = None) -> None:
        """End it at once; with `attempt`, only if the agent finds that it runs that."""
        self.where.post("destroy", self.token, attempt, why)

    def pause(self) -> None:
        """Report nothing of it for now, except what is on its way."""
        self.where.post("pause", self.token)

    def resume(self) -> None:
        """Report again."""
        self.where.post("resume", self.token)

    def unpack(self, data: bytes) -> list[ReportMessage]:
        """Unpack its reports, and note which attempts have begun and ended."""
        reports = self._reports.feed(data)
        for report in reports:
            self.note(report)
        return reports

    def note(self, report: ReportMessage) -> None:
        """Note what a report says of its attempts."""
        match report:
            case Started():
                if report.key in self._sent:
                    self._sent[report.key].has_begun = True
            case Succeeded() | Failed() | GaveBack():
                self._sent.pop(report.key, None)
            case Ready():
                self.pid = report.pid
            case _:
                pass

    def unheard_of(self, taken: int) -> Iterator[tuple[AttemptKey, str]]:
        """The attempts that may have begun, although nobody said so, and their steps.

        The node may have got the first `taken` messages.
        """
        for attempt, sent in self._sent.items():
            if not sent.has_begun and sent.number < taken:
                yield attempt, sent.step

    def __repr__(self) -> str:
        return f"<RemoteWorker {self.pid or 'starting'} on {self.where.name}>"
