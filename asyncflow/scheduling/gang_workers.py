"""The workers of gangs whose nodes have a worker each: a gang has all of them, or none.

Where idle workers are too few, extra ones are started, for one gang at a time. A gang that needs
more workers than there may be waits for the gangs that run, so that no two of them add up; it holds
nothing while it waits. Extra workers stay for a moment, because the next gang may need them.

Nothing here waits.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from asyncflow._support.conditions import SureTimer
from asyncflow.errors import PoolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from asyncflow.flow.node import Node
    from asyncflow.scheduling.facts import TaskSource
    from asyncflow.scheduling.placement import AllWorkers, WorkerSlot
    from asyncflow.workers.interface import Kind

_EXTRA_SECONDS: Final = 1.0  # how long a worker that only gangs need waits for the next one
_START_TRIES: Final = 5  # times in a row that a run's gang does not get its workers


def has_own_workers(node: Node) -> bool:
    """Whether each node of a step's gangs has a worker of its own."""
    return not node.is_async or "isolate" in node.options


class GangWorkers:
    """The gangs at workers of their own, and the runs whose gangs wait for those to end."""

    def __init__(
        self,
        slots: AllWorkers,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[TaskSource], None],
    ) -> None:
        """Have no gang; `wake` is called with a run whose gang may begin now."""
        self._slots, self._loop, self._wake = slots, loop, wake
        self.running = 0
        self._begun = 0
        self._retiring: SureTimer | None = None
        self._waiting: dict[int, TaskSource] = {}
        self._failed: Counter[int] = Counter()  # by run: failed starts in a row

    def may_begin(self, source: TaskSource, step: str, count: int, kind: Kind = None) -> bool:
        """Whether a gang may have so many workers; if not, its run is woken when others end."""
        if not (self.running or self._slots.resting) or not has_own_workers(source.graph[step]):
            return True
        if self._slots.of_kind(kind).has_room_for(
            count, unused="isolate" in source.graph[step].options
        ):
            return True
        self._waiting[source.number] = source
        return False

    def gather(
        self, source: TaskSource, step: str, count: int, kind: Kind = None
    ) -> Sequence[WorkerSlot]:
        """The workers for a gang; none if the executor may have more of them soon.

        Raises:
            PoolError: One of them cannot be started. After a few times in a row the run has failed.
        """
        there, unused = self._slots.of_kind(kind), "isolate" in source.graph[step].options
        may_grow = not there.size or self._slots.executor.is_growing(kind)
        if may_grow and not there.has_room_for(count, unused=unused):
            return ()
        try:
            slots = there.gather(count, unused=unused)
        except PoolError as error:
            self._failed[source.number] += 1
            if self._failed[source.number] > _START_TRIES:
                message = f"a gang of {count} tasks cannot have its workers: {error}"
                source.abandon(PoolError(message))
            self._waiting[source.number] = source
            raise
        self._failed.pop(source.number, None)
        return slots

    def begin(self) -> None:
        """A gang has got its workers."""
        self.running += 1
        self._begun += 1

    def end(self) -> None:
        """The last node of a gang has ended: those that wait may begin, or the extra workers go."""
        self.running = max(0, self.running - 1)  # a release that was broken off is repeated
        self.wake_waiting()
        self._retiring = SureTimer(self._loop, _EXTRA_SECONDS, self._retire_extra, self._begun)

    def wake_waiting(self) -> None:
        """Let the runs try again whose gangs wait."""
        for source in list(self._waiting.values()):
            self._wake(source)
            self._waiting.pop(source.number, None)  # last: an exception must not lose the run

    def forget(self, source: TaskSource) -> None:
        """A run has ended."""
        self._waiting.pop(source.number, None)
        self._failed.pop(source.number, None)

    def _retire_extra(self, begun: int) -> None:
        """Let extra workers end, unless a gang has needed them since."""
        if not self.running and self._begun == begun:
            self._slots.retire_extra()
        if self._retiring is not None and self._begun == begun:
            self._retiring.cancel()

    def __repr__(self) -> str:
        return f"<GangWorkers: {self.running} gangs run, {len(self._waiting)} runs wait>"
