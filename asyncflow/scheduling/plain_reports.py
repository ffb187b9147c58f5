"""Passes on the usual reports of a worker: tasks have begun, and have succeeded.

A worker with short tasks sends many of these, and they are read together. What they mean for its
slot, for the counts of its run and for the run itself is then noted once for all of them. Whatever
else there is to do about a task, such as a time limit, is not done here: its reports are left to
the `ReportRouter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.workers.messages import Started, Succeeded

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import AssignedTask, WorkerSlot
    from asyncflow.scheduling.task_assigner import TaskAssigner
    from asyncflow.workers.messages import ReportMessage

_PLAIN: Final = (Started, Succeeded)


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
        source, now = None, self._loop.time()
        tasks, imported = slot.tasks, slot.imported
        told: list[Started | Succeeded] = []
        began: list[int] = []
        ended: list[AssignedTask] = []
        for report in reports[at:] if at else reports:
            if not isinstance(report, _PLAIN):
                break
            key = report.key
            assigned = tasks.get(key)
            if (
                assigned is None
                or assigned.timer is not None
                or assigned.timeout
                or assigned.grant is not None
                or assigned.yields
            ):
                break
            if source is not assigned.source:
                if source is not None or key.run not in imported:
                    break
                source = assigned.source
            if type(report) is Started:
                assigned.started, assigned.since = True, now
                began.append(key.task)
            else:
                del tasks[key]  # the rest of it in `_tell`
                ended.append(assigned)
            told.append(report)
        if source is not None:
            self._tell(slot, source, told, began, ended)
        return at + len(told)

    def _tell(
        self,
        slot: WorkerSlot,
        source: TaskSource,
        told: Sequence[Started | Succeeded],
        began: Sequence[int],
        ended: Sequence[AssignedTask],
    ) -> None:
        slot.blocker = None
        if began:
            slot.has_begun = True
            if source.number in slot.opened:
                slot.known.add(source.number)
            source.on_started(began, slot.worker.pid, slot.worker.node)
        if ended:
            slot.on_ended(ended)
            if self._assigner.on_ended(slot, source, ended):
                self.made_room = True
            self._on_free(slot)
        source.tell(*told)
