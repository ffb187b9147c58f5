"""Passes on the usual reports of a worker: tasks have begun, are being stored, have succeeded.

A worker with short tasks sends many of these, and they are read together. What they mean for its
slot, for the counts of its run and for the run itself is then noted once for all of them. Whatever
else there is to do about a task, such as a time limit, is not done here: its reports are left to
the `ReportRouter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.scheduling.facts import Ran
from asyncflow.workers.messages import Started, Storing, Succeeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import AssignedTask, WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.messages import ReportMessage

_TOGETHER: Final = 32  # tasks in one fact, at most: a batch takes facts while there is time
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

    def pass_on(self, slot: WorkerSlot, reports: Sequence[ReportMessage], at: int) -> int:
        """Pass on those from place `at` on that are usual, and about tasks of one run.

        Returns the place of the first that was left.
        """
        if slot.isolated:
            return at
        source, told = None, _Told(slot, self._loop.time())
        tasks, storing = slot.tasks, slot.storing
        number, count = at, len(reports)
        while number < count:
            report = reports[number]
            if not isinstance(report, _PLAIN):
                break
            assigned = tasks.get(report.key) or storing.get(report.key)
            if (
                assigned is None
                or assigned.timer is not None
                or assigned.timeout
                or assigned.grant is not None
                or assigned.yields
            ):
                break
            if source is not assigned.source:
                if source is not None or report.key.run not in slot.imported:
                    break
                source = assigned.source
            if type(report) is not Storing:
                number = told.note(reports, number, assigned)
                continue
            if tasks.pop(report.key, None) is not None:  # the run is not told
                storing[report.key], slot.storing_bytes = assigned, report.size
                told.storing.append(assigned)
            number += 1
        if source is not None:
            self._tell(slot, source, told)
        return number

    def _tell(self, slot: WorkerSlot, source: TaskSource, told: _Told) -> None:
        slot.blocker = None
        if told.facts or told.storing:
            slot.note_begun(source.number)
        if told.began:
            source.on_started(told.began, slot.worker.pid, slot.worker.node)
        if told.ended or told.storing:
            slot.on_ended([*told.ended, *told.storing])
        if told.storing and not slot.has_enough:
            self.made_room = True
        if told.ended or told.stored:
            if not slot.storing:
                slot.storing_bytes = 0
            if self._assigner.on_ended(slot, source, [*told.ended, *told.stored]):
                self.made_room = True
        if told.ended or told.storing:
            self._on_free(slot)
        if told.facts:
            source.tell(*told.facts)


class _Told:
    """What some reports of a worker say about tasks of one run."""

    __slots__ = ("_now", "_ran", "_slot", "began", "ended", "facts", "stored", "storing")

    def __init__(self, slot: WorkerSlot, now: float) -> None:
        self._slot, self._now = slot, now
        self.facts: list[Started | Succeeded | Ran] = []
        """What the run is told."""
        self._ran: list[tuple[Started, Succeeded]] | None = None  # of the last fact, if it is such
        self.began: list[int] = []
        """They have begun, and not ended."""
        self.ended: list[AssignedTask] = []
        """They have ended, and had nothing that was uploaded."""
        self.storing: list[AssignedTask] = []
        """Their steps have ended, and their values are being uploaded."""
        self.stored: list[AssignedTask] = []
        """They have ended, and their values were uploaded."""

    def note(self, reports: Sequence[ReportMessage], at: int, assigned: AssignedTask) -> int:
        """Note the report at this place, and the next one if that ends the task that has begun.

        Returns the place of the first that was left.
        """
        report = reports[at]
        if type(report) is Started:
            ended = reports[at + 1] if at + 1 < len(reports) else None
            if type(ended) is Succeeded and ended.key == report.key:
                self._note_ran(report, ended, assigned)
                return at + 2
            assigned.started, assigned.since = True, self._now
            self.began.append(report.key.task)
            self.facts.append(report)
        elif type(report) is Succeeded:
            if self._slot.tasks.pop(report.key, None) is None:
                del self._slot.storing[report.key]
                self.stored.append(assigned)
            else:
                self.ended.append(assigned)
            self.facts.append(report)
        self._ran = None
        return at + 1

    def _note_ran(self, begun: Started, ended: Succeeded, assigned: AssignedTask) -> None:
        """A task has begun and ended."""
        slot = self._slot
        if slot.tasks.pop(begun.key, None) is None:
            del slot.storing[begun.key]
            self.stored.append(assigned)
        else:
            self.ended.append(assigned)
        if self._ran is None or len(self._ran) >= _TOGETHER:
            self._ran = []
            self.facts.append(Ran(slot.worker.pid, slot.worker.node, self._ran))
        self._ran.append((begun, ended))
