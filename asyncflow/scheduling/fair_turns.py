"""The order in which runs are served: by priority, and in turn within a priority.

No I/O. Each run that may have a ready task waits in one of two queues, that of `async def` steps or
that of `def` steps, depending on its next task, because room for one kind is not room for the
other. A run that was served goes to the end of its queue. Finding the next run takes time
proportional to the logarithm of the number of waiting runs.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection


class Served(Protocol):
    """Something that can wait in a queue."""

    number: int
    """Identifies it."""

    @property
    def priority(self) -> int:
        """Higher priorities are served first."""


Item = TypeVar("Item", bound=Served)

_Place = tuple[int, int, int]  # smaller is earlier: negated priority, ticket, number


class FairTurns(Generic[Item]):
    """Decides who is served next."""

    def __init__(self) -> None:
        self._tickets = 0
        self._lines: dict[bool, list[_Place]] = {False: [], True: []}  # heaps
        self._waiting: dict[int, tuple[Item, bool, _Place]] = {}

    def __contains__(self, item: Item) -> bool:
        return item.number in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item) -> None:
        """Add it at the end of its queue. Harmless if it waits already."""
        if item.number not in self._waiting:
            self._tickets += 1
            self._put(item, (-item.priority, self._tickets, item.number), is_async=False)

    def remove(self, item: Item) -> None:
        """Remove it from its queue. Harmless if it does not wait."""
        self._waiting.pop(item.number, None)  # its old place is skipped when its turn comes

    def next(self, shut: Collection[bool] = ()) -> Item | None:
        """The first in the queues that are not `shut`."""
        first: _Place | None = None
        for is_async, line in self._lines.items():
            if is_async in shut:
                continue
            while line and not self._holds(line[0], is_async=is_async):
                heappop(line)
            if line and (first is None or line[0] < first):
                first = line[0]
        return self._waiting[first[2]][0] if first is not None else None

    def in_line(self, item: Item, *, is_async: bool) -> bool:
        """Whether it waits in this queue; if not, move it there, keeping its place."""
        _, line, place = self._waiting[item.number]
        if line is is_async:
            return True
        self._put(item, place, is_async=is_async)
        return False

    def served(self, item: Item) -> None:
        """End its turn: it goes to the end of its queue."""
        _, is_async, _ = self._waiting[item.number]
        self._tickets += 1
        self._put(item, (-item.priority, self._tickets, item.number), is_async=is_async)

    def _put(self, item: Item, place: _Place, *, is_async: bool) -> None:
        self._waiting[item.number] = item, is_async, place
        heappush(self._lines[is_async], place)

    def _holds(self, place: _Place, *, is_async: bool) -> bool:
        """Whether this place is still valid."""
        found = self._waiting.get(place[2])
        return found is not None and found[1] is is_async and found[2] == place

    def __repr__(self) -> str:
        return f"<FairTurns of {len(self)}>"
