"""Passes on the usual reports of a worker: tasks have begun, are being stored, have succeeded.

A worker with short tasks sends many of these, and they are read together. What they mean for its
slot, for the counts of its run and for the run itself is then noted once for all of them. Whatever
else there is to do about a task, such as a time limit, is not done here: its reports are left to
the `ReportRouter`.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from asyncflow.scheduling.assigned_tasks import AssignedItems
from asyncflow.scheduling.facts import Ran
from asyncflow.workers.messages import Started, Storing, Succeeded
from asyncflow.workers.report_stream import WholeAttempts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from asyncflow.scheduling.assigned_tasks import AssignedTask
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.messages import ReportMessage

_PLAIN: Final = (Succeeded, Started, Storing)  # a union in `isinstance` takes three times as long


class PlainReports:
    """Passes reports on that say nothing unusual."""

    def __init__(
        self,
        assigner: TaskAssigner,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[WorkerSlot], None],
    ) -> None:
        """Tell the assigner which tasks have ended; `on_free` is called after steps have ended."""
        self._assigner, self._loop, self._on_free = assigner, loop, on_free
        self.made_room = False
        """Whether tasks may begin that could not before; whoever assigns them sets it back."""

    def pass_on(
        self, slot: WorkerSlot, reports: Sequence[ReportMessage | WholeAttempts], at: int
    ) -> int:
        """Pass on those from place `at` on that are usual, and about tasks of one run.

        Returns the place of the first that was left.
        """
        if slot.isolated:
            return at
        told, number, count = _Told(slot, self._loop.time()), at, len(reports)
        while number < count and told.take(reports[number]):
            number += 1
        if told.source is not None:
            self._tell(slot, told.source, told)
        return number

    def _tell(self, slot: WorkerSlot, source: TaskSource, told: _Told) -> None:
        slot.blocker = None
        if told.facts or told.stores:
            slot.note_begun(source.number)
        if told.began:
            source.on_started(told.began, slot.worker.pid, slot.worker.node)
        if told.freed:
            slot.on_ended(told.seconds)
        if told.stores and not slot.has_enough:
            self.made_room = True
        if told.ended:
            if not slot.storing:
                slot.storing_bytes = 0
            if self._assigner.on_ended(slot, source, told.ended):
                self.made_room = True
        if told.freed:
            self._on_free(slot)
        if told.facts:
            source.tell(*told.facts)


class _Told:
    """What some reports of a worker say about tasks of one run."""

    __slots__ = ("_now", "_slot", "began", "ended", "facts", "freed", "seconds", "source", "stores")

    def __init__(self, slot: WorkerSlot, now: float) -> None:
        self._slot, self._now = slot, now
        self.source: TaskSource | None = None
        """The run, once a report was taken."""
        self.facts: list[Started | Succeeded | Ran] = []
        """What the run is told."""
        self.began: list[int] = []
        """The tasks that have begun, and not ended."""
        self.ended: dict[str, int] = {}
        """By step, how many tasks have ended that have nothing that is being uploaded."""
        self.freed = False
        """Whether steps have ended, so that the worker is free for others."""
        self.seconds = 0.0
        """How long the tasks of these steps were expected to take."""
        self.stores = False
        """Whether the values of one of them are being uploaded."""

    def take(self, report: ReportMessage | WholeAttempts) -> bool:
        """Note a report; False if it is unusual, of another run, or if more is to be done."""
        if type(report) is WholeAttempts:
            return self._take_whole(report)
        if not isinstance(report, _PLAIN):
            return False
        slot, key = self._slot, report.key
        assigned = slot.tasks.get(key) or slot.storing.get(key)
        if (
            assigned is None
            or assigned.timer is not None
            or assigned.timeout
            or assigned.grant is not None
            or assigned.yields
            or (assigned.source is not self.source and not self._begin(assigned.source))
        ):
            return False
        if type(report) is Started:
            alone = slot.task(key) or slot.stored(key)
            if alone is not None:
                alone.started, alone.since = True, self._now
            self.began.append(key.task)
            self.facts.append(report)
        else:
            self._end(report, assigned)
        return True

    def _begin(self, source: TaskSource) -> bool:
        """Take reports of this run, if no others were taken; False if that must not be."""
        if self.source is not None or source.number not in self._slot.imported:
            return False
        self.source = source
        return True

    def _end(
        self, report: Started | Succeeded | Storing, assigned: AssignedTask | AssignedItems
    ) -> None:
        """A task's step has ended, or its values are stored."""
        slot, key = self._slot, report.key
        was_there = slot.tasks.pop(key, None) is not None
        if was_there:
            self.freed = True
            self.seconds += assigned.expected
        if type(report) is Storing:
            if was_there:  # the run is not told
                slot.storing[key], slot.storing_bytes = assigned, report.size
                self.stores = True
        elif type(report) is Succeeded:
            if not was_there:
                del slot.storing[key]
            self.ended[assigned.step] = self.ended.get(assigned.step, 0) + 1
            self.facts.append(report)

    def _take_whole(self, attempts: WholeAttempts) -> bool:
        """Note attempts that have begun and ended, if all came in packets.

        The values of all were being uploaded, or those of none.
        """
        slot, keys, begin = self._slot, attempts.keys, 0
        there = slot.tasks if keys[0] in slot.tasks else slot.storing
        packets: list[Any] = [*map(there.get, keys)]
        for each in set(packets):
            if type(each) is not AssignedItems or each.timeout:
                return False
            if each.source is not self.source and not self._begin(each.source):
                return False
        for key in keys:
            del there[key]
        was_there = there is slot.tasks
        self.freed = self.freed or was_there
        for items, some in groupby(packets):
            number = len([*some])
            self.seconds += number * items.expected if was_there else 0.0
            self.ended[items.step] = self.ended.get(items.step, 0) + number
            ran = attempts.slice(begin, begin + number) if number < len(keys) else attempts
            self.facts.append(Ran(slot.worker.pid, slot.worker.node, ran))
            begin += number
        return True
