"""The gangs of one run that have been taken: each ends as a whole.

A gang's nodes report their ends one by one. They are kept here until all nodes have ended, and only
then go to the journal, in one write. So a node that had succeeded can be tried again together with
one that failed, and nobody has seen that it had. The first failure stops the others.

    nodes run ──► all have ended ──┬──► each has a result: all have succeeded
                                   ├──► one has failed: all have failed, or are tried again
                                   └──► a failure is caught: its stand-in is to come
                                             │
                                             └──► stand-ins run ──► all have ended, as above

A node that failed with its worker has no result, and gets one from a *stand-in* if the failure is
caught. Its failure is recorded, so that the stand-in can begin; the ends of the others are kept
until the last stand-in has ended too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.errors import TaskCancelledError
from asyncflow.scheduling.commands import Verdict
from asyncflow.scheduling.facts import Lost
from asyncflow.values import last_index_of
from asyncflow.workers.messages import Failed, Succeeded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from asyncflow.scheduling.commands import BeginTask
    from asyncflow.workers.messages import AttemptKey, StartTask

_STOPPED = f"{TaskCancelledError.__module__}.{TaskCancelledError.__qualname__}"
_ENDING = "the run is ending"

End = Succeeded | Failed | Lost


def has_result(end: End) -> bool:
    """Whether a node has ended with artifacts: it has succeeded, or its worker caught a failure."""
    return isinstance(end, Succeeded) or (isinstance(end, Failed) and end.outcome is not None)


class Gang:
    """The nodes of one gang, and how those that have ended did."""

    def __init__(self, tasks: Sequence[BeginTask], orders: Sequence[StartTask]) -> None:
        self.index_of = {task.task_id: last_index_of(task.path) for task in tasks}
        """The index of each node, by its task's id."""
        self.orders = {order.key.task: order for order in orders}
        """The order of each node."""
        self.attempts = {order.key.task: order.key for order in orders}
        """The latest attempt of each node, or its stand-in."""
        self.running = set(self.orders)
        """The ids of the nodes that workers have, or whose stand-ins they have."""
        self.awaited: set[int] = set()
        """The ids of the nodes whose stand-ins are to come."""
        self.cause: Failed | Lost | None = None
        """The first failure; while stand-ins are awaited or run, the first of theirs."""
        self.has_stand_ins = False
        """Whether a failure was caught, and stand-ins are needed."""
        self._is_given_up = False
        self._ends: list[End] = []

    @property
    def why_stopped(self) -> str:
        """Why its other nodes are stopped."""
        if self.cause is None:
            return _ENDING
        return f"node {self.index_of[self.cause.key.task]} of its gang has failed"

    @property
    def has_ended(self) -> bool:
        """Whether all nodes have ended, and no stand-in is to come."""
        return not self.running and not self.awaited

    @property
    def held_back(self) -> int:
        """How many nodes have ended, and have not been recorded."""
        return len(self._ends)

    def add(self, end: End) -> None:
        """Note the end of a node, or of its stand-in."""
        self.running.discard(end.key.task)
        self._ends.append(end)
        if self.cause is None and not isinstance(end, Succeeded):
            self.cause = end

    def begin_stand_in(self, attempt: AttemptKey) -> None:
        """The stand-in of a node was taken."""
        self.awaited.discard(attempt.task)
        self.running.add(attempt.task)
        self.attempts[attempt.task] = attempt

    def await_again(self, task_id: int) -> None:
        """The stand-in of a node has not begun, and will be taken again."""
        self.running.discard(task_id)
        self.awaited.add(task_id)

    def give_up(self) -> None:
        """The stand-ins that are awaited will not come, since the run is ending."""
        self.awaited.clear()
        self._is_given_up = True

    def settle(self, verdict: Verdict) -> list[tuple[End, Verdict | None]]:
        """What is to be recorded now that it has ended, and what follows from each end.

        `verdict` is what happens to the node that failed first: it happens to all others as well.
        If the failure is caught, only the nodes without a result have failed, and their stand-ins
        are awaited.
        """
        ends, self._ends = self._ends, []
        if not self._is_given_up and all(has_result(end) for end in ends):
            return [(end, None if isinstance(end, Succeeded) else Verdict.CATCH) for end in ends]
        if verdict is Verdict.CATCH:
            failures = [end for end in ends if not has_result(end)]
            self._ends = [end for end in ends if has_result(end)]
            self.awaited = {end.key.task for end in failures}
            self.has_stand_ins, self.cause = True, None
            return [(end, verdict) for end in failures]
        ends.sort(key=lambda end: end is not self.cause)  # the run fails for the first reason
        return [(self._without_result(end), verdict) for end in ends]

    def _without_result(self, end: End) -> End:
        if isinstance(end, Failed):
            return end._replace(outcome=None)
        if isinstance(end, Lost):
            return end
        why = f"it had succeeded, but {self.why_stopped}"
        return Lost(end.key, _STOPPED, why, may_retry=False, seconds=end.seconds)


class Gangs:
    """The gangs of a run, by the ids of their nodes."""

    def __init__(self) -> None:
        self._of: dict[int, Gang] = {}

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Gang]:
        return iter({id(gang): gang for gang in self._of.values()}.values())

    def begin(self, tasks: Sequence[BeginTask], orders: Sequence[StartTask]) -> None:
        """Add a gang that is taken."""
        gang = Gang(tasks, orders)
        self._of.update(dict.fromkeys(gang.orders, gang))

    def begin_stand_in(self, attempt: AttemptKey) -> None:
        """A stand-in was taken; it may be that of a node."""
        gang = self._of.get(attempt.task)
        if gang is not None:
            gang.begin_stand_in(attempt)

    def of(self, attempt: AttemptKey) -> Gang | None:
        """The gang of a running attempt; None if it is of none."""
        gang = self._of.get(attempt.task)
        if gang is None or attempt.task not in gang.running:
            return None
        return gang if gang.attempts[attempt.task] == attempt else None

    def end(self, gang: Gang) -> None:
        """Remove a gang that is recorded."""
        for task_id in gang.index_of:
            del self._of[task_id]

    def give_up(self) -> list[Gang]:
        """The gangs that have ended now that the run does: their stand-ins will not come."""
        waiting = [gang for gang in self if gang.awaited]
        for gang in waiting:
            gang.give_up()
        return [gang for gang in waiting if gang.has_ended]

    @property
    def held_back(self) -> int:
        """How many nodes have ended, and have not been recorded."""
        return sum(gang.held_back for gang in self)

    def again(self, task_id: int) -> StartTask | None:
        """The order of a node that its worker has not begun, if its gang goes on."""
        gang = self._of.get(task_id)
        if gang is None or gang.cause is not None or gang.has_stand_ins:
            return None
        return gang.orders[task_id]

    def given_back(self, task_id: int, *, stopping: bool) -> Lost | None:
        """The end of a node that did not begin, and will not.

        None for a task that is none, and for a stand-in that is ready again: that is every one
        unless the run is `stopping`, or another one has failed.
        """
        gang = self._of.get(task_id)
        if gang is None:
            return None
        if gang.has_stand_ins and gang.cause is None and not stopping:
            gang.await_again(task_id)
            return None
        return Lost(gang.attempts[task_id], _STOPPED, gang.why_stopped, may_retry=True)

    def __repr__(self) -> str:
        gangs: Collection[Gang] = list(self)
        return f"<Gangs: {len(gangs)}>"
