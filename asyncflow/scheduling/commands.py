"""The decisions of a run's plan: commands to its driver, and verdicts on failed attempts."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from asyncflow._quick_classes import NamedTuple
from asyncflow.values import Failure, Status

if TYPE_CHECKING:
    from collections.abc import Sequence


class Verdict(StrEnum):
    """What happens to a task whose attempt failed."""

    RETRY = "retry"
    CATCH = "catch"
    FAIL = "fail"


class BeginTask(NamedTuple):
    """Run an attempt of a task."""

    step: str
    task_id: int
    attempt: int
    path: tuple[int, ...]
    stack: tuple[int, ...]
    """For each foreach index in `path`, the id of the task that fanned out; for the join of a
    foreach one more, whose items its inputs are for."""
    inputs: Sequence[int]
    """Ids of the tasks that this one follows, in the order of branches or items; 0 is the run."""
    caught: Failure | None = None
    """The failure of the attempt before, which a stand-in passes on instead of running the step."""
    parents: tuple[int, ...] = ()
    """As in `TaskStarted`."""
    awaits: bool = False
    """Whether further inputs will come; then they are in the order in which they came."""


class BeginItems(NamedTuple):
    """Run the first attempts of the tasks for consecutive items of a foreach."""

    step: str
    first: int
    """The id of the first task; those of the others follow."""
    number: int
    """How many they are."""
    outer: tuple[int, ...]
    """Their path, without the index of the item."""
    item: int
    """The index of the first task's item."""
    stack: tuple[int, ...]
    splitter: int
    """The id of the task that fanned out."""


class RecordedTasks(NamedTuple):
    """The fields of records that say that attempts have begun, or have succeeded."""

    values: Sequence[Sequence[Any]]
    ran: Sequence[int] = ()
    """The ids of the tasks, if these are both records of each, and all are of one packet."""


class FurtherInputs(NamedTuple):
    """Inputs that have come since a join has begun, for its worker to be told."""

    task_id: int
    attempt: int
    inputs: Sequence[int]
    """The ids of the tasks, in the order in which they have ended."""
    are_last: bool


class CloneTask(NamedTuple):
    """Take a task over from the origin run."""

    step: str
    task_id: int
    path: tuple[int, ...]
    parents: tuple[int, ...] = ()
    """As in `TaskStarted`."""


class RetryTask(NamedTuple):
    """Order another attempt, to begin after so many seconds."""

    step: str
    task_id: int
    attempt: int
    path: tuple[int, ...]
    after_seconds: float


class HandOn(NamedTuple):
    """Order a stand-in that passes a caught failure on, unless the task has succeeded by now."""

    task_id: int


class StopTasks(NamedTuple):
    """The run is ending early: tasks that have not begun must not begin."""

    reason: str
    running: bool = True
    """Whether to stop running tasks, too."""
    waiting: Sequence[int] = ()
    """Running tasks to stop in any case: they wait for inputs that will not come."""


class FinishRun(NamedTuple):
    """Write the run's last event: none of its tasks runs any more."""

    status: Status
    failure: Failure | None = None
    reason: str = ""
    by_shutdown: bool = False
    """Whether a cancelled run had to stop with its engine."""


Command = RetryTask | HandOn | StopTasks | FinishRun
