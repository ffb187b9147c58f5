"""The order in which runs are served: by priority, and in turn within a priority.

No I/O. Each run that may have a ready task waits in one of several queues, such as that of `async
def` steps or that of `def` steps, depending on its next task, because room for one kind is not room
for another. A run that was served goes to the end of its queue. Finding the next run takes time
proportional to the logarithm of the number of waiting runs.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable


class Served(Protocol):
    """Something that can wait in a queue."""

    number: int
    """Identifies it."""

    @property
    def priority(self) -> int:
        """Higher priorities are served first."""


Item = TypeVar("Item", bound=Served)

Line: TypeAlias = "Hashable"
"""Names a queue: whether its tasks are async, and what else they need."""
_FIRST: Final = False  # the queue of an item of which nothing is known yet

_Place = tuple[int, int, int]  # smaller is earlier: negated priority, ticket, number


class FairTurns(Generic[Item]):
    """Decides who is served next."""

    def __init__(self) -> None:
        self._tickets = 0
        self._lines: dict[Line, list[_Place]] = {}  # heaps
        self._waiting: dict[int, tuple[Item, Line, _Place]] = {}

    def __contains__(self, item: Item) -> bool:
        return item.number in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item) -> None:
        """Add it at the end of its queue. Harmless if it waits already."""
        if item.number not in self._waiting:
            self._tickets += 1
            self._put(item, (-item.priority, self._tickets, item.number), _FIRST)

    def remove(self, item: Item) -> None:
        """Remove it from its queue. Harmless if it does not wait."""
        self._waiting.pop(item.number, None)  # its old place is skipped when its turn comes

    def next(self, shut: Collection[Line] = ()) -> Item | None:
        """The first in the queues that are not `shut`."""
        first: _Place | None = None
        for name, line in self._lines.items():
            if name in shut:
                continue
            while line and not self._holds(line[0], name):
                heappop(line)
            if line and (first is None or line[0] < first):
                first = line[0]
        return self._waiting[first[2]][0] if first is not None else None

    def in_line(self, item: Item, line: Line) -> bool:
        """Whether it waits in this queue; if not, move it there, keeping its place."""
        _, present, place = self._waiting[item.number]
        if present == line:
            return True
        self._put(item, place, line)
        return False

    def line_of(self, item: Item) -> Line | None:
        """The queue in which it waits, if it does."""
        waiting = self._waiting.get(item.number)
        return None if waiting is None else waiting[1]

    def served(self, item: Item) -> None:
        """End its turn: it goes to the end of its queue."""
        _, line, _ = self._waiting[item.number]
        self._tickets += 1
        self._put(item, (-item.priority, self._tickets, item.number), line)

    def _put(self, item: Item, place: _Place, line: Line) -> None:
        heappush(self._lines.setdefault(line, []), place)
        self._waiting[item.number] = item, line, place  # last: it waits only with a place

    def _holds(self, place: _Place, line: Line) -> bool:
        """Whether this place is still valid."""
        found = self._waiting.get(place[2])
        return found is not None and found[1] == line and found[2] == place

    def __repr__(self) -> str:
        return f"<FairTurns of {len(self)}>"
