"""The places of a limit that one engine has, and its tasks that wait for some, in an object store.

Each place is in use by a task, idle, or being given back. `LimitShare` decides which are which.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush

from asyncflow.store.object_store.limit_state import MOST_PLACES, MOST_WANTED


class Places:
    """The places of one engine."""

    def __init__(self) -> None:
        """Have none."""
        self.held: frozenset[int] = frozenset()
        """All that its entry has, as far as it knows."""
        self.used: set[int] = set()
        """Those that tasks have; after a loss, also such as its entry no longer has."""
        self.returning: set[int] = set()
        """Those that it gives back: out of use for good, though its entry may still have them."""
        self.allowed: list[tuple[int, int]] = []
        """How many it may keep below a bound while others want some."""
        self.most_used = 0
        """How many were in use at a time since the last renewal."""
        self._idle: list[int] = []  # a heap
        self._counts: dict[int, int] = {}  # what `_kept` has counted, by bound
        self._bound = 0  # of the task that asked last
        self._runs: dict[int, tuple[int, int]] = {}  # bound and ready tasks of runs that wait
        self._waiting: Counter[int] = Counter()  # the same, by bound

    def __repr__(self) -> str:
        return f"<Places {len(self.used)} of {len(self.held)} in use>"

    # --- tasks ---

    @property
    def is_anybody_waiting(self) -> bool:
        """Whether tasks wait."""
        return bool(self._runs)

    def take(self, bound: int) -> int | None:
        """Give the lowest idle place to a task, if it is below its bound."""
        self.note_bound(bound)
        if not self._idle or self._idle[0] >= bound:
            return None
        place = self._idle[0]
        self.used.add(place)
        heappop(self._idle)  # last: an exception of a signal handler must not lose the place
        self.most_used = max(self.most_used, len(self.used))
        return place

    def note_bound(self, bound: int) -> None:
        """A task has asked that cannot have any place now."""
        self._bound = min(bound, MOST_PLACES)

    def free(self, place: int) -> bool:
        """A task has ended; whether its place is for others."""
        if place not in self.used:
            return False
        self.used.discard(place)
        if place not in self.held or place in self._idle[:1]:  # then its taking was broken off
            return False
        if any(place < bound and self._kept(bound) > most for bound, most in self.allowed):
            self.returning.add(place)
            for bound in self._counts:
                self._counts[bound] -= place < bound
            return True
        heappush(self._idle, place)
        return False

    def expect(self, run: int, bound: int, ready: int) -> None:
        """So many tasks of a run wait for a place below a bound; none wait if `ready` is 0."""
        before, number = self._runs.pop(run, (0, 0))
        if number:
            self._waiting[before] -= number
            if not self._waiting[before]:
                del self._waiting[before]
        bound = min(bound, MOST_PLACES)
        if ready:
            self._runs[run] = bound, ready
            self._waiting[bound] += ready

    def demand(self) -> list[tuple[int, int]]:
        """For each bound: how many places below it would be in use, if they were free."""
        asked, ready = [], 0
        for bound in sorted(self._waiting):
            ready += self._waiting[bound]
            asked.append((bound, min(below(self.used, bound) + ready, MOST_WANTED)))
        last = max(self._bound, max(self.used) + 1) if self.used else 0
        if last > max(self._waiting, default=0):
            asked.append((last, min(len(self.used) + ready, MOST_WANTED)))
        return asked

    # --- what it has ---

    def adopt(self, places: frozenset[int]) -> None:
        """The engine's entry has these."""
        self.held = places
        self.returning &= places
        self._find_idle()

    def lose(self) -> None:
        """Use none any more. What was being given back stays out of use."""
        self.held, self._idle = frozenset(), []
        self._counts.clear()

    def give(self, places: set[int] | frozenset[int]) -> None:
        """Give back some that no task has."""
        self.returning |= places
        self._find_idle()

    def _find_idle(self) -> None:
        self._idle = sorted(self.held - self.used - self.returning)
        self._counts.clear()

    def _kept(self, bound: int) -> int:
        """How many places below a bound it has and does not give back.

        They are counted once: an engine may have 100,000, and asks at the end of each task.
        """
        kept = self._counts.get(bound)
        if kept is None:
            kept = below(self.held, bound) - below(self.returning, bound)
            self._counts[bound] = kept
        return kept

    def idle_for_others(self) -> set[int]:
        """The places that no task has and that it may not keep."""
        given: set[int] = set()
        for bound, most in self.allowed:
            over = self._kept(bound) - below(given, bound) - most
            idle = [place for place in sorted(self._idle) if place < bound and place not in given]
            given |= set(idle[-over:] if over > 0 else ())
        return given

    @property
    def idle(self) -> set[int]:
        """The places that no task has."""
        return set(self._idle)

    def needless(self) -> set[int]:
        """The places that no task has had since the last renewal."""
        return set(sorted(self._idle)[max(0, self.most_used - len(self.used)) :])


def below(places: set[int] | frozenset[int], bound: int) -> int:
    """How many of these places lie below a bound."""
    return sum(place < bound for place in places)
