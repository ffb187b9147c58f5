"""The ready tasks of a run, in the order in which they are taken.

An entry is a task, the items of a foreach, or a gang. So a foreach over a hundred thousand items
needs one entry here and not a hundred thousand. The newest entry is first: deepest first, to keep
few splits open.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from asyncflow.scheduling.planned_tasks import (
    GangTasks,
    ItemTasks,
    PlannedTask,
    insert_items,
    next_of,
    size_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from asyncflow.scheduling.commands import CloneTask, RetryTask
    from asyncflow.scheduling.planned_tasks import OpenTasks, Source, TakenItems


class ReadyQueue:
    """Ready tasks, of each step so many."""

    def __init__(self) -> None:
        self.ready = 0
        """How many tasks could be taken now."""
        self.additions = 0
        """How often tasks have become ready."""
        self._sources: deque[Source] = deque()
        self._ready_of: Counter[str] = Counter()  # of each step

    def __len__(self) -> int:
        return len(self._sources)

    # --- what is next ---

    def next_step(self) -> str | None:
        """The step of the next task; None if nothing is ready."""
        return self._sources[0].step if self._sources else None

    def next_gang(self) -> int:
        """How many nodes of a gang are next; 0 if the next task is of none."""
        source = self._sources[0] if self._sources else None
        return len(source.nodes) if isinstance(source, GangTasks) else 0

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of other steps first, as these must not begin now; False if none is ready."""
        if not any(self._ready_of[step] for step in self._ready_of if step not in steps):
            return False
        while self._sources[0].step in steps:  # they stay behind, so that none is skipped twice
            self._sources.rotate(-1)
        return True

    def take(self) -> PlannedTask | GangTasks | None:
        """The next task, or the gang that is next as a whole; None if nothing is ready."""
        if not self._sources:
            return None
        source = self._sources[0]
        if isinstance(source, GangTasks):
            self._sources.popleft()
            self._count(source.step, -len(source.nodes))
            return source
        self.ready -= 1
        self._ready_of[source.step] -= 1
        return next_of(self._sources)

    def take_items(self, most: int, tasks: OpenTasks) -> TakenItems | None:
        """The next tasks, as long as they are new ones for items of the same foreach.

        `tasks` gives them their ids.
        """
        source = self._sources[0] if self._sources else None
        if not isinstance(source, ItemTasks):
            return None
        number = min(most, source.count - source.next)
        taken = tasks.take_items(source, number)
        if source.next >= source.count:
            self._sources.popleft()
        self._count(source.step, -number)
        return taken

    # --- what becomes ready ---

    def push(self, source: Source) -> None:
        """Add tasks, which are next."""
        self._sources.appendleft(source)
        self.additions += 1
        more = 1 if isinstance(source, PlannedTask) else size_of(source)
        self.ready += more
        self._ready_of[source.step] += more

    def push_more(self, items: ItemTasks, more: int) -> None:
        """Add tasks to those of a generator that has yielded more items."""
        if items.next >= items.count:
            insert_items(self._sources, items)
        self.additions += 1
        items.count += more
        self._count(items.step, more)

    def clone(self, _limit: int) -> list[CloneTask | RetryTask]:
        """What is taken over from another run; see `ResumedQueue`."""
        return []

    def clear(self) -> list[Source]:
        """Remove and return all entries."""
        removed = list(self._sources)
        self._sources.clear()
        self.ready = 0
        self._ready_of.clear()
        return removed

    def _append(self, source: PlannedTask | GangTasks) -> None:
        """Add tasks, which are last."""
        self._sources.append(source)
        self.additions += 1
        self._count(source.step, size_of(source))

    def _count(self, step: str, more: int) -> None:
        self.ready += more
        self._ready_of[step] += more
