"""The running joins of a run that read their inputs as they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.scheduling.commands import FurtherInputs
from asyncflow.scheduling.planned_tasks import IllegalEventError

if TYPE_CHECKING:
    from asyncflow.scheduling.planned_tasks import OpenSplit, PlannedTask


class EarlyJoins:
    """Those that run now; a join that has all its inputs may be among them."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[PlannedTask, OpenSplit]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, join: PlannedTask, split: OpenSplit) -> None:
        """A join has begun to read the inputs of a split."""
        self._running[join.id] = join, split

    def fail(self, task_id: int) -> None:
        """A task has failed; it may be one of them."""
        self._running.pop(task_id, None)

    def succeed(self, join: PlannedTask, split: OpenSplit, *, stopping: bool) -> None:
        """A join has succeeded.

        Raises:
            IllegalEventError: Not all its inputs are there, and the run is not being stopped.
        """
        self._running.pop(join.id, None)
        if split.unmet and not stopping:
            message = f"task {join.id} of {join.step} has ended before its inputs"
            raise IllegalEventError(message)

    def waiting(self) -> tuple[int, ...]:
        """The ids of those that wait for further inputs."""
        return tuple(join for join, (_, split) in self._running.items() if split.unmet)

    def arrivals(self) -> list[FurtherInputs]:
        """What they have to be told about inputs that arrive; each is returned once."""
        return [
            FurtherInputs(join.id, join.attempt, inputs, are_last)
            for join, split in self._running.values()
            if split.arrived is not None
            for inputs, are_last in split.arrived.news(are_all=not split.unmet)
        ]

    def __repr__(self) -> str:
        return f"<EarlyJoins: {len(self)} running>"
