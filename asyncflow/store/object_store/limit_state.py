"""A named limit in an object store: what its object says, and what each engine may have of it.

```
PREFIX/limits/NAME/shared    JSON, replaced as a whole, and only over the version that was read
  {"version": 1,
   "word": a random text, other in each version,
   "changes": how many versions there were,
   "set": {"at_once": 5, "per_second": null},       what `asyncflow limit set` says
   "owed": [seconds, since],                        see `LimitState`
   "engines": {ID: {"host": "node-7", "beats": 12, "lease": 90.0,
                    "places": [[0, 2], [4, 5]], "wants": [[5, 7]], "since": 3,
                    "rate": 0.0, "slices": 0}}}
```

A limit of n at a time has the places 0 to n-1, and a place is in one entry at the most. `places`
has ranges without their ends. No version has the same bytes as another, because a store may name a
version by the hash of its bytes: a request that is carried out late must find another version.

Everything here is a value or a function of values: no clock, no request.
"""

from __future__ import annotations

import json
import os
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncflow.errors import LimitError
from asyncflow.store.limit_files import Bounds
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

LIMITS: Final = "limits"
"""The folder of the objects."""
SLICES: Final = 1_000_000
"""The parts into which a rate is divided; a millionth of it is the least that an engine has."""
_SHARED: Final = "shared"  # a note of an earlier version has a `-` in its name
_PARTS: Final = 3
_VERSION: Final = 1
_LONGEST_LEASE_SECONDS: Final = 86_400.0
MOST_PLACES: Final = 100_000
"""A limit has no more places, whatever it is set to: so the object has a size that can be read."""
MOST_WANTED: Final = 1_000_000
"""The most places that an engine asks for."""
MOST_BYTES: Final = 4 << 20
"""A larger object is damaged: one of 100,000 places, each in a range of its own, has half of it."""
MOST_WANTS: Final = 1_000
"""How many wishes all engines may have: whoever shares takes the square of it in steps."""


def object_of(name: str) -> str:
    """The name of a limit's object.

    Raises:
        LimitError: No limit can have that name.
    """
    if not LIMIT_NAME.fullmatch(name):
        raise LimitError(f"{name!r} cannot be the name of a limit")
    return f"{LIMITS}/{name}/{_SHARED}"


def is_limit(name: str) -> bool:
    """Whether an object is a limit's, and no note that an earlier version has left there."""
    parts = name.split("/")
    return len(parts) == _PARTS and parts[0] == LIMITS and parts[2] == _SHARED


class Entry(NamedTuple):
    """What one engine has of a limit, and what it wants."""

    host: str
    beats: int
    """How often the engine has written its entry."""
    lease: float
    """Who sees the same `beats` for so many seconds may take the entry out."""
    places: frozenset[int] = frozenset()
    """The places that nobody else may use."""
    wants: tuple[tuple[int, int], ...] = ()
    """For each bound of its steps: how many places below it would be in use, if they were free."""
    since: int = 0
    """The `changes` at which it began to wait for its turn."""
    rate: float = 0.0
    """The tasks per second of its step under a rate; 0 if it needs none."""
    slices: int = 0
    """How many millionths of the rate it has."""

    def below(self, bound: int) -> int:
        """How many of its places lie below a bound."""
        return sum(place < bound for place in self.places)

    def demand(self, bound: int) -> int:
        """How many places below a bound it would use."""
        asked = max((min(most, number) for most, number in self.wants if most <= bound), default=0)
        larger = max((number for most, number in self.wants if most > bound), default=0)
        return min(bound, max(asked, min(larger, self.below(bound))))

    @property
    def in_use(self) -> int:
        """How many of its places are in use, as far as it has said."""
        return min(len(self.places), max((number for _, number in self.wants), default=0))

    @property
    def is_hungry(self) -> bool:
        """Whether tasks of it wait, even if the limit gives nothing to anybody."""
        return any(number > self.below(bound) for bound, number in self.wants)

    @property
    def is_waiting(self) -> bool:
        """Whether it wants more than it has."""
        unmet = any(self.demand(bound) > self.below(bound) for bound, _ in self.wants)
        return unmet or (self.rate > 0 and not self.slices)


class LimitState(NamedTuple):
    """One version of the object."""

    bounds: Bounds = Bounds()
    """What `asyncflow limit set` has set."""
    changes: int = 0
    engines: Mapping[str, Entry] = {}
    owed: float = 0.0
    """For so many seconds nobody may start a task under the rate.

    Engines that are gone have started the last ones a moment before.
    """
    owed_since: float = 0.0
    """From when on these seconds count, by the store's clock; 0 for when this was written."""

    def with_bounds(self, bounds: Bounds) -> LimitState:
        """The next version, in which somebody has set other bounds.

        What is owed was counted by the former rate. No start owes more than the new one says.
        """
        owed = self.owed
        if bounds.per_second is not None:
            owed = min(owed, 1 / bounds.per_second)
        elif self.bounds.per_second is not None:
            owed = 0.0
        return self._replace(bounds=bounds, changes=self.changes + 1, owed=owed)

    def others(self, engine: str) -> Iterator[tuple[str, Entry]]:
        """The entries of all engines but one."""
        return ((name, entry) for name, entry in self.engines.items() if name != engine)

    def owed_at(self, modified: float) -> float:
        """What of the owed seconds is left when the store's clock says `modified`.

        A store may cut its times to whole seconds.
        """
        passed = max(0.0, modified - self.owed_since - 1) if self.owed_since else 0.0
        return max(0.0, self.owed - passed)

    def shares(self, bound: int, silent: Collection[str] = ()) -> dict[str, int]:
        """How many places below a bound each engine should have.

        Nobody gets more than it wants. Those who could have more differ by one at the most. If
        there are fewer places than engines, each of those who have waited longest gets one.
        `silent` ones get nothing that they do not have.
        """
        demands = {
            name: entry.below(bound) if name in silent else entry.demand(bound)
            for name, entry in self.engines.items()
        }
        shares: dict[str, int] = dict.fromkeys(demands, 0)
        pending = {name: demand for name, demand in demands.items() if demand}
        left = bound
        while pending:
            level = left // len(pending)
            modest = {name: demand for name, demand in pending.items() if demand <= level}
            if not modest:
                break
            shares |= modest
            left -= sum(modest.values())
            pending = {name: demand for name, demand in pending.items() if name not in modest}
        if pending:
            level, more = divmod(left, len(pending))

            def order(name: str) -> tuple[bool, int, str]:
                entry = self.engines[name]
                return (level > 0 and entry.below(bound) <= level, entry.since, name)

            for position, name in enumerate(sorted(pending, key=order)):
                shares[name] = level + (position < more)
        return shares

    def free_places(self, bound: int, most: int) -> Sequence[int]:
        """Up to `most` of the lowest places below a bound that nobody has."""
        if most <= 0:
            return ()
        taken = {place for entry in self.engines.values() for place in entry.places}
        lowest = (place for place in count() if place not in taken)
        return [place for place in islice(lowest, min(most, bound)) if place < bound]


def pack(state: LimitState) -> bytes:
    """The bytes of a version: no two calls give the same."""
    data = {
        "version": _VERSION,
        "word": os.urandom(8).hex(),
        "changes": state.changes,
        "set": {"at_once": state.bounds.at_once, "per_second": state.bounds.per_second},
        "owed": [round(state.owed, 6), state.owed_since],
        "engines": {
            name: {**entry._asdict(), "places": _ranges(entry.places)}
            for name, entry in state.engines.items()
        },
    }
    return json.dumps(data).encode()


def unpack(data: bytes, name: str) -> LimitState:
    """The version with these bytes. It takes 40 times their memory at the most.

    Raises:
        LimitError: It is damaged, or a later version of asyncflow wrote it.
    """
    state = unpack_whole(data, name)
    if state is None:
        raise damaged(name)
    return state


def unpack_whole(data: bytes, name: str) -> LimitState | None:
    """The same, or None if it is damaged.

    Raises:
        LimitError: A later version of asyncflow wrote it.
    """
    if len(data) > MOST_BYTES:
        return None
    try:
        found = json.loads(data)
        version = found["version"]
        if isinstance(version, int) and version > _VERSION:
            message = f"a later version of asyncflow wrote the limit {name!r}: upgrade asyncflow"
            raise LimitError(message)
        return _state(found) if version == _VERSION else None
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,  # thousands of brackets
    ):
        return None


def damaged(name: str) -> LimitError:
    """The error for a limit that cannot be read."""
    message = (
        f"the limit {name!r} is damaged: set it again with `asyncflow limit set {name} N`, or "
        f"`asyncflow limit unset {name}`"
    )
    return LimitError(message)


def _state(found: Any) -> LimitState:
    taken: set[int] = set()
    engines = {str(key): _entry(each, taken) for key, each in found["engines"].items()}
    owed, since = map(float, found["owed"])
    wants = sum(len(entry.wants) for entry in engines.values())
    slices = sum(entry.slices for entry in engines.values())
    if wants > MOST_WANTS or slices > SLICES or not _is_time(owed) or not _is_time(since):
        raise ValueError
    return LimitState(_bounds(found["set"]), int(found["changes"]), engines, owed, since)


def _is_time(seconds: float) -> bool:
    return 0 <= seconds < float("inf")


def _bounds(found: Any) -> Bounds:
    at_once, per_second = found["at_once"], found["per_second"]
    if at_once is not None and not 0 <= int(at_once) <= MOST_AT_ONCE:
        raise ValueError
    if per_second is not None and not LEAST_PER_SECOND <= float(per_second) <= MOST_PER_SECOND:
        raise ValueError
    return Bounds(
        None if at_once is None else int(at_once),
        None if per_second is None else float(per_second),
    )


def _entry(found: Any, taken: set[int]) -> Entry:
    """One entry; `taken` are the places of those before it, to which its own are added."""
    places: set[int] = set()
    for start, end in found["places"]:
        # Each place is counted once, so no number of ranges takes more memory than that.
        if not 0 <= start <= end <= MOST_PLACES or not taken.isdisjoint(range(start, end)):
            raise ValueError
        taken.update(range(start, end))
        places.update(range(start, end))
    slices, lease, rate = int(found["slices"]), float(found["lease"]), float(found["rate"])
    if slices < 0 or not 0 < lease <= _LONGEST_LEASE_SECONDS:
        raise ValueError
    if rate and not LEAST_PER_SECOND <= rate <= MOST_PER_SECOND:
        raise ValueError
    wants = tuple((int(bound), int(number)) for bound, number in found["wants"])
    if not all(0 <= bound <= MOST_PLACES and 0 <= most <= MOST_WANTED for bound, most in wants):
        raise ValueError
    return Entry(
        host=str(found["host"]),
        beats=int(found["beats"]),
        lease=lease,
        places=frozenset(places),
        wants=wants,
        since=int(found["since"]),
        rate=rate,
        slices=slices,
    )


def _ranges(places: Iterable[int]) -> list[list[int]]:
    ranges: list[list[int]] = []
    for place in sorted(places):
        if ranges and ranges[-1][1] == place:
            ranges[-1][1] = place + 1
        else:
            ranges.append([place, place + 1])
    return ranges
