"""Passes on the usual reports of a worker: tasks have begun, are being stored, have succeeded.

A worker with short tasks sends many of these, and they are read together. What they mean for its
slot, for the counts of its run and for the run itself is then noted once for all of them. Whatever
else there is to do about a task, such as a time limit, is not done here: its reports are left to
the `ReportRouter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from asyncflow.workers.messages import Started, Storing, Succeeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import AssignedTask, WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.messages import ReportMessage

_PLAIN: Final = frozenset((Started, Storing, Succeeded))
_Plain = Started | Storing | Succeeded


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
        tasks, storing, imported = slot.tasks, slot.storing, slot.imported
        number = at
        maybe_plain = cast("Sequence[_Plain]", reports[at:] if at else reports)
        for report in maybe_plain:
            if type(report) not in _PLAIN:
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
                if source is not None or report.key.run not in imported:
                    break
                source = assigned.source
            if isinstance(report, Storing):  # the run is not told
                if tasks.pop(report.key, None) is not None:
                    storing[report.key], slot.storing_bytes = assigned, report.size
                    told.storing.append(assigned)
            else:
                told.note(report, assigned)
            number += 1
        if source is not None:
            self._tell(slot, source, told)
        return number

    def _tell(self, slot: WorkerSlot, source: TaskSource, told: _Told) -> None:
        slot.blocker = None
        if told.began:
            slot.has_begun = True
            if source.number in slot.opened:
                slot.known.add(source.number)
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
        if told.reports:
            source.tell(*told.reports)


class _Told:
    """What some reports of a worker say about tasks of one run."""

    __slots__ = ("_now", "_slot", "began", "ended", "reports", "stored", "storing")

    def __init__(self, slot: WorkerSlot, now: float) -> None:
        self._slot, self._now = slot, now
        self.reports: list[Started | Succeeded] = []
        """What the run is told."""
        self.began: list[int] = []
        self.ended: list[AssignedTask] = []
        """They have ended, and had nothing that was uploaded."""
        self.storing: list[AssignedTask] = []
        """Their steps have ended, and their values are being uploaded."""
        self.stored: list[AssignedTask] = []
        """They have ended, and their values were uploaded."""

    def note(self, report: Started | Succeeded, assigned: AssignedTask) -> None:
        """Note a report, and which list of the slot has its task; `_tell` does the rest."""
        slot, key = self._slot, report.key
        if type(report) is Started:
            assigned.started, assigned.since = True, self._now
            self.began.append(key.task)
        elif slot.tasks.pop(key, None) is None:
            del slot.storing[key]
            self.stored.append(assigned)
        else:
            self.ended.append(assigned)
        self.reports.append(report)
