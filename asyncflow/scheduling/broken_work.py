"""What the dispatcher is at work on, so that nothing is lost in silence if that is broken off.

A signal handler of the application may raise an exception anywhere, so also in the middle of a
callback of the engine: a task has left its worker slot, and its run has not been told. Nobody can
tell then what is missing. So the dispatcher notes what it is at work on. If that is broken off, the
runs concerned end with an error, can be resumed, and have nothing that others wait for.

The exception itself tells of it as a rule. If a second one broke off its handling, the note is
still there, and is found when conditions are checked: see `asyncflow._support.conditions`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.conditions import call_again
from asyncflow.errors import AsyncflowError
from asyncflow.workers.messages import (
    CardsChanged,
    Failed,
    GaveBack,
    Logged,
    NotStored,
    Started,
    Storing,
    Succeeded,
    Yielded,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import WorkerSlot
    from asyncflow.workers.messages import ReportMessage


def description_of(error: BaseException) -> str:
    """An exception in a few words."""
    return f"{type(error).__name__}: {error}"


_WHY: Final = "what it has may be lost: an exception broke off what was done for it"
_GIVEN_UP: Final = "an exception broke off what was done for a worker; its runs end"
_ABOUT_ATTEMPTS: Final = (
    Started,
    Logged,
    Succeeded,
    Failed,
    GaveBack,
    Yielded,
    CardsChanged,
    Storing,
    NotStored,
)


def check_not_given_up(by: str) -> None:
    """Refuse to go on with a run of which something may be lost; `by` is empty if nothing is.

    Raises:
        AsyncflowError: This exception has broken off what was to be done for the run.
    """
    if by:
        message = (
            "the engine failed: an exception, which a signal handler may have raised, broke off "
            f"what it had to do for the run ({by}); the run can be resumed"
        )
        raise AsyncflowError(message)


class BrokenWork:
    """The work of a dispatcher that is under way, and how to give it up."""

    __slots__ = ("__weakref__", "_runs", "reports", "sent_to", "slot", "source", "was_broken_off")

    def __init__(self, runs: Mapping[int, TaskSource]) -> None:
        """Nothing is under way."""
        self._runs = runs
        self.was_broken_off = False
        """Whether some was: then runs may have left their queue. Whoever adds them sets it back."""
        self.slot: WorkerSlot | None = None
        """The worker of which something is being handled."""
        self.reports: Sequence[ReportMessage] = ()
        """What is being handled of its reports."""
        self.source: TaskSource | None = None
        """The run of which a task is being sent to a worker."""
        self.sent_to: Sequence[WorkerSlot] = ()
        """The worker, or those of a gang."""
        call_again(self)

    def call_again(self) -> None:
        """Give up what is still noted: nothing is under way when this is called."""
        if self.slot is not None or self.source is not None:
            self.give_up("an exception")

    def give_up(self, by: str) -> None:
        """End the runs concerned: `by` is the exception that has broken off what is under way."""
        if self.slot is None and self.source is None:
            return  # whoever was called has given it up
        if self.source is not None:
            self.source.give_up(by)
            for slot in self.sent_to:  # it may count as sent and not have been: it would never end
                if slot.of_run(self.source.number):
                    self.give_up_worker(slot, by)
        if self.slot is not None:
            self.give_up_worker(self.slot, by, self.reports)
        self.was_broken_off = True
        # last: else it is done again
        self.slot, self.reports, self.source, self.sent_to = None, (), None, ()

    def give_up_worker(
        self, slot: WorkerSlot, by: str, reports: Sequence[ReportMessage] = ()
    ) -> None:
        """End a worker, and the runs that have tasks there, or of which it has reported these."""
        keys = [*slot.tasks, *slot.storing]
        keys += [report.key for report in reports if isinstance(report, _ABOUT_ATTEMPTS)]
        runs = {key.run: self._runs[key.run] for key in keys if key.run in self._runs}
        for source in runs.values():
            source.give_up(by)
        if runs:
            names = ", ".join(source.pathspec for source in runs.values())
            log.warning(_GIVEN_UP, pid=slot.worker.pid, by=by, runs=names)
        slot.worker.destroy(_WHY)
        for assigned in (*slot.storing.values(), *slot.tasks.values()):
            if assigned.grant is not None:  # others may wait for it
                assigned.grant.release()
                assigned.grant = None

    def __repr__(self) -> str:
        return f"<BrokenWork on {self.slot or self.source}>"
