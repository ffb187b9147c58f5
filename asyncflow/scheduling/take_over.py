"""Takes over the finished tasks of the origin of a resumed run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.conditions import in_thread
from asyncflow.scheduling.commands import CloneTask, RetryTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.scheduling.facts_to_events import Batch, Recorder
    from asyncflow.scheduling.plan import Plan
    from asyncflow.scheduling.resume import OriginRun, TakenTask
    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.values import Outcome

_BATCH_TASKS: Final = 128  # a batch of them takes the event loop some 3 ms


class TakenOver(NamedTuple):
    """Some tasks of the origin, as the new run has them."""

    batch: Batch
    """The records of finished tasks."""
    waiting: list[RetryTask]
    """Tasks that go on waiting for their next attempt."""


class TakeOver:
    """What remains to be taken over from one origin run."""

    def __init__(
        self, origin: OriginRun, plan: Plan, recorder: Recorder, services: RunServices
    ) -> None:
        self._origin, self._plan = origin, plan
        self._recorder, self._services = recorder, services

    async def take(self, new_batch: Callable[[], Batch]) -> TakenOver | None:
        """Take over some tasks that are ready and finished in the origin; None if none is left.

        The caller journals them, and only then asks again.

        Raises:
            JournalError: The origin's journal is damaged.
        """
        commands = self._plan.clone(_BATCH_TASKS)
        if not commands:
            return None
        clones = [command for command in commands if isinstance(command, CloneTask)]
        origin, batch = self._origin, new_batch()
        taken = await in_thread(
            self._services.disk,
            lambda wanted: [_taken(origin, clone) for clone in wanted],
            clones,
        )
        await self._services.loop_budget.turn()
        for clone, (task, outcome) in zip(clones, taken, strict=True):
            text = origin.item_text(clone.step, clone.path)
            origin_task = task.origin.run_id, task.result.task_id
            at = self._recorder.cloned(clone, outcome, origin_task, batch, text)
            task.note(outcome.manifest, at)
        return TakenOver(batch, [each for each in commands if isinstance(each, RetryTask)])

    def begin(self, manifest: bytes) -> None:
        """Note what the first event of the new run says."""
        self._origin.begin(manifest)

    def close(self) -> None:
        """Close the origin's journal."""
        self._origin.close()


def _taken(origin: OriginRun, clone: CloneTask) -> tuple[TakenTask, Outcome]:
    """A task of the origin, and its result for the journal of the new run."""
    task = origin.result(clone.step, clone.path)
    return task, task.result.outcome._replace(manifest=task.manifest())
