"""The order in which runs are served: by priority, and in turn within a priority.

Pure. Each run that may have a ready task waits in one of two lines, that of `async def` steps or
that of `def` steps, depending on its next task, because room for one kind is no room for the
other. A run that was served goes to the end of its line. Finding the next run costs the logarithm
of how many wait.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection


class Served(Protocol):
    """What can wait in line."""

    number: int
    """Names it."""

    @property
    def priority(self) -> int:
        """The higher, the earlier."""


Item = TypeVar("Item", bound=Served)

_Place = tuple[int, int, int]  # smaller is earlier: negated priority, ticket, number


class FairTurns(Generic[Item]):
    """Who is served next."""

    def __init__(self) -> None:
        self._tickets = 0
        self._lines: dict[bool, list[_Place]] = {False: [], True: []}  # heaps
        self._waiting: dict[int, tuple[Item, bool, _Place]] = {}

    def __contains__(self, item: Item) -> bool:
        return item.number in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item) -> None:
        """Put it at the end of its line. Harmless if it waits already."""
        if item.number not in self._waiting:
            self._tickets += 1
            self._put(item, (-item.priority, self._tickets, item.number), is_async=False)

    def remove(self, item: Item) -> None:
        """Take it out of its line. Harmless if it does not wait."""
        self._waiting.pop(item.number, None)  # its place is passed over when it comes up

    def next(self, shut: Collection[bool] = ()) -> Item | None:
        """The first in the lines that are not shut."""
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
        """Whether it waits in this line; if not, it changes to it and keeps its place."""
        _, line, place = self._waiting[item.number]
        if line is is_async:
            return True
        self._put(item, place, is_async=is_async)
        return False

    def served(self, item: Item) -> None:
        """Its turn is over: it goes to the end of its line."""
        _, is_async, _ = self._waiting[item.number]
        self._tickets += 1
        self._put(item, (-item.priority, self._tickets, item.number), is_async=is_async)

    def _put(self, item: Item, place: _Place, *, is_async: bool) -> None:
        self._waiting[item.number] = item, is_async, place
        heappush(self._lines[is_async], place)

    def _holds(self, place: _Place, *, is_async: bool) -> bool:
        """Whether this place is still taken."""
        found = self._waiting.get(place[2])
        return found is not None and found[1] is is_async and found[2] == place

    def __repr__(self) -> str:
        return f"<FairTurns of {len(self)}>"
