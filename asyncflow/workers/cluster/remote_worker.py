"""A worker on a node, and the node, as the engine sees them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncflow.workers.cluster.report_pace import PACE_SECONDS
from asyncflow.workers.interface import AHEAD, Ahead
from asyncflow.workers.messages import (
    Failed,
    GaveBack,
    Opening,
    Ready,
    Started,
    StartItems,
    StartTask,
    Succeeded,
    begun_by,
)
from asyncflow.workers.report_stream import Reports, ReportStream, WholeAttempts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from asyncflow.workers.cluster.agent_connection import AgentConnection
    from asyncflow.workers.cluster.interface import Shape
    from asyncflow.workers.messages import AttemptKey, OrderMessage, ReportMessage


_OVER: Final = Succeeded, Failed, GaveBack
_AHEAD_SECONDS: Final = 0.1
_MOST_AWAY_SECONDS: Final = 0.4
_LATENCIES: Final = 4  # for reports and orders to pass, each perhaps behind another message
_AHEAD_TASKS: Final = 512
_PATIENCES: Final = (64, 0.016), (8, 0.004)
"""With so many tasks at a worker, its further orders may wait so many seconds for more of them."""


class _Sent(NamedTuple):
    """An order that was sent to a worker, and that not all attempts of have begun."""

    number: int
    """How many messages were posted to its node before it."""
    step: str


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

    def post(self, *message: Any, patience: float = 0.0) -> None:
        """Have a message sent to its agent within so many seconds, or with the next one."""
        self.posted += 1
        self.connection.post(*message, patience=patience)

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
        self.ended_with_others = False
        """Why it should end; empty while it may get tasks."""
        self.pid = 0
        """Its process id on its node; 0 while unknown."""
        self.token: Final = token
        self.shape: Final = shape
        self.where: Final = node
        self._reports = ReportStream()
        self._sent: dict[AttemptKey, _Sent | None] = {}  # None once it has begun, until it ends
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
    def ahead(self) -> Ahead:
        """How much it gets in advance: the more, the farther its node is."""
        away = min(_LATENCIES * self.where.connection.latency, _MOST_AWAY_SECONDS)
        late = PACE_SECONDS + away  # by so much what is heard of it is older
        return Ahead(_AHEAD_SECONDS + away, _AHEAD_TASKS, AHEAD.patience + late)

    @property
    def is_up(self) -> bool:
        """Whether it has reported that it accepts orders."""
        return bool(self.pid)

    @property
    def is_heard(self) -> bool:
        """Whether its node answers at present."""
        return self.where.connection.is_answering

    @property
    def is_idle(self) -> bool:
        """Whether it has no attempt."""
        return not self._sent

    def send(self, order: OrderMessage) -> None:
        """Send an order, without waiting."""
        patience = 0.0
        if isinstance(order, StartTask | StartItems):
            if order.opening:
                self.where.note_run(Opening(*order.opening))
            there = len(self._sent)
            patience = next((seconds for tasks, seconds in _PATIENCES if there >= tasks), 0.0)
            sent = _Sent(self.where.posted, order.step)
            self._sent.update(dict.fromkeys(begun_by(order), sent))
        self.where.post("order", self.token, order, patience=patience)

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

    def unpack(self, data: bytes) -> Reports:
        """Unpack its reports, and note which attempts have begun and ended."""
        parts = self._reports.feed_together(data)
        for part in parts:
            if isinstance(part, WholeAttempts):
                for key in part.keys:
                    self._sent.pop(key, None)
            else:
                self.note(part)
        return Reports(parts)

    def note(self, report: ReportMessage) -> None:
        """Note what a report says of its attempts."""
        if isinstance(report, Started):
            if report.key in self._sent:
                self._sent[report.key] = None
        elif isinstance(report, _OVER):
            self._sent.pop(report.key, None)
        elif isinstance(report, Ready):
            self.pid = report.pid

    def unheard_of(self, taken: int) -> Iterator[tuple[AttemptKey, str]]:
        """The attempts that may have begun, although nobody said so, and their steps.

        The node may have got the first `taken` messages.
        """
        for attempt, sent in self._sent.items():
            if sent is not None and sent.number < taken:
                yield attempt, sent.step

    def __repr__(self) -> str:
        return f"<RemoteWorker {self.pid or 'starting'} on {self.where.name}>"
