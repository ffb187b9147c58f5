"""The gangs of one run that are at workers: each ends as a whole.

A gang's nodes report their ends one by one. They are kept here until the last one has ended, and
only then go to the journal, in one write. So a node that had succeeded can be tried again together
with one that failed, and nobody has seen that it had. The first failure stops the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asyncflow.errors import TaskCancelledError
from asyncflow.scheduling.commands import Verdict
from asyncflow.scheduling.facts import GangEnded, Lost
from asyncflow.values import last_index_of
from asyncflow.workers.messages import Failed, Succeeded

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asyncflow.scheduling.commands import BeginTask
    from asyncflow.workers.messages import AttemptKey, StartTask

_STOPPED = f"{TaskCancelledError.__module__}.{TaskCancelledError.__qualname__}"

End = Succeeded | Failed | Lost


class Gang:
    """The nodes of one gang that have been taken, and how those that have ended did."""

    def __init__(self, tasks: Sequence[BeginTask], orders: Sequence[StartTask]) -> None:
        self.attempt = tasks[0].attempt
        self.index_of = {task.task_id: last_index_of(task.path) for task in tasks}
        """The index of each node, by its task's id."""
        self.orders = {order.key.task: order for order in orders}
        """The order of each node."""
        self.running = set(self.orders)
        """The ids of the nodes that have not ended."""
        self.cause: Failed | Lost | None = None
        """The first failure."""
        self._ends: list[End] = []

    @property
    def why_stopped(self) -> str:
        """Why its other nodes are stopped, once one has failed."""
        index = self.index_of[self.cause.key.task] if self.cause is not None else 0
        return f"node {index} of its gang has failed"

    def add(self, end: End) -> None:
        """Note the end of a node."""
        self.running.discard(end.key.task)
        self._ends.append(end)
        if self.cause is None and not isinstance(end, Succeeded):
            self.cause = end

    def ended(self, verdict: Verdict | None) -> GangEnded:
        """What is to be recorded once all have ended.

        `verdict` is what happens to the node that failed first: it happens to all others as well,
        but where the failure is caught, a node that has succeeded has succeeded.
        """
        cause = self.cause
        if cause is None or verdict is None:
            return GangEnded(self._ends, failed=False)
        others = [end for end in self._ends if end is not cause]
        return GangEnded([cause, *(self._like(cause, end, verdict) for end in others)], failed=True)

    def _like(self, cause: Failed | Lost, end: End, verdict: Verdict) -> End:
        if isinstance(end, Lost):
            return replace(end, may_retry=cause.may_retry)
        if isinstance(end, Failed):
            kept = end.outcome if verdict is Verdict.CATCH else None
            return end._replace(may_retry=cause.may_retry, outcome=kept)
        if verdict is Verdict.CATCH:
            return end
        why = f"it had succeeded, but {self.why_stopped}"
        return Lost(end.key, _STOPPED, why, cause.may_retry, end.seconds)


class Gangs:
    """The gangs of a run, by the ids of their nodes."""

    def __init__(self) -> None:
        self._of: dict[int, Gang] = {}

    def __len__(self) -> int:
        return len(self._of)

    def begin(self, tasks: Sequence[BeginTask], orders: Sequence[StartTask]) -> None:
        """Add a gang that is taken."""
        gang = Gang(tasks, orders)
        self._of.update(dict.fromkeys(gang.orders, gang))

    def of(self, attempt: AttemptKey) -> Gang | None:
        """The gang of an attempt; None if it is of none."""
        gang = self._of.get(attempt.task)
        return gang if gang is not None and gang.attempt == attempt.attempt else None

    def end(self, gang: Gang) -> None:
        """Remove a gang whose nodes have all ended."""
        for task_id in gang.index_of:
            del self._of[task_id]

    def again(self, task_id: int) -> StartTask | None:
        """The order of a node that its worker has not begun, if its gang goes on."""
        gang = self._of.get(task_id)
        return gang.orders[task_id] if gang is not None and gang.cause is None else None

    def given_back(self, task_id: int) -> Lost | None:
        """The end of a node that did not begin, and will not; None for a task that is none."""
        gang = self._of.get(task_id)
        if gang is None:
            return None
        why = gang.why_stopped if gang.cause else "the run is ending"
        return Lost(gang.orders[task_id].key, _STOPPED, why, may_retry=True)

    def __repr__(self) -> str:
        gangs: Collection[int] = {id(gang) for gang in self._of.values()}
        return f"<Gangs: {len(gangs)}>"
