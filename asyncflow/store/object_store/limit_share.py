"""What one engine has of a limit in an object store, and what it asks and gives back next.

Nothing here makes a request, reads a clock or waits: `asyncflow.store.object_store.shared_limit`
does. So any order of answers can be tested.

These rules keep the bound:

* An engine uses a place only if a version of the object gives the place to it, and only if it has
  renewed its entry within `patience` seconds of its own clock.
* A place that it gives back is out of use before the request is made. It is never used again
  before another version has given it anew: the request may be carried out at any later time.
* An entry is taken out only if its `beats` were the same for `lease` seconds by the clock of
  whoever takes it out, and only over the very version in which they are still the same.
* An engine whose entry was taken out waits until its tasks have ended before it writes a new one.

`now` is a clock that nobody can set. `awake` is one that also counts the time in which the machine
sleeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asyncflow.store.object_store.limit_places import Places, below
from asyncflow.store.object_store.limit_rate import RateShare, owed_by_dead, owing
from asyncflow.store.object_store.limit_state import MOST_WANTS, Entry, LimitState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_SPARE_PLACES: Final = 1000  # that an engine without neighbours has for tasks to come
_NEVER: Final = float("-inf")


class Timing(NamedTuple):
    """How many seconds an engine waits for what."""

    renew: float = 10.0
    """An entry is written again after that."""
    patience: float = 60.0
    """An engine that could not renew its entry for so long uses it no more."""
    lease: float = 90.0
    """Others take out an entry that was not renewed for so long."""
    stop: float = 25.0
    """There is so much time between the two, and the grace of tasks; else the lease is longer."""
    look: float = 1.0
    """How often the object is read while tasks of this engine or others wait."""
    turn: float = 2.0
    """How long an engine keeps a place if there are fewer places than engines."""
    idle: float = 30.0
    """An engine without a task under the limit leaves after that."""
    silent: float = 25.0
    """Others have the turn of an engine that was not heard of for so long."""


class Look(NamedTuple):
    """The request to read the object."""


class _Turn:
    """How long an engine may keep its places where there are fewer than engines.

    It begins with the first task. Until then the engine may wait for other limits of the task, for
    as long again.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = self._ends_unused = _NEVER
        self._uses = 0

    def begin(self, now: float) -> None:
        """It has got places, and had none."""
        self._ends = self._ends_unused = now + 2 * self._seconds
        self._uses = 0

    def note_use(self, now: float) -> None:
        """A task has taken a place."""
        self._uses += 1
        if self._uses == 1:
            self._ends = now + self._seconds

    def undo_use(self) -> None:
        """The task did not begin after all."""
        self._uses -= 1
        if not self._uses:
            self._ends = self._ends_unused

    def is_over(self, now: float) -> bool:
        return now >= self._ends


class LimitShare:
    """One engine's part of one limit."""

    def __init__(self, engine: str, host: str, timing: Timing) -> None:
        """Have nothing yet, and know nothing of the object."""
        self.engine, self._host, self.timing = engine, host, timing
        self.state = LimitState()
        """The version that was seen or written last."""
        self.version: str | None = None
        """Names that version; empty if there is no object, None if it must be read first."""
        self.is_in = False
        """Whether the object has an entry of this engine, as far as it knows."""
        self.is_lost = False
        """Whether the entry was lost while tasks were under the limit; until these have ended."""
        self._modified = 0.0  # when that version was written, by the store's clock; 0 if unknown
        self._beats = 0
        self._sent: dict[int, float] = {}  # when each entry was sent whose arrival is not known
        self._confirmed = _NEVER  # when the last entry was sent that has arrived
        self._observed: dict[str, tuple[int, float]] = {}  # `beats` of others, and since when
        self._looked_at = self._written_at = _NEVER
        self._places = Places()
        self._used_at = _NEVER
        self._turn = _Turn(timing.turn)
        self.gives_idle = False
        """Whether it gives back all that no task has with the next request, unless tasks wait."""
        self.rate = RateShare(timing.renew)
        """Its part of the limit's rate."""

    def __repr__(self) -> str:
        return f"<LimitShare {self._places!r}>"

    # --- using what it has ---

    @property
    def has(self) -> tuple[frozenset[int], int]:
        """The places that it has, in use or not, and its millionths of the rate."""
        return self._places.held, self.rate.slices

    @property
    def uses(self) -> frozenset[int]:
        """The places that its tasks have."""
        return frozenset(self._places.used)

    @property
    def places_in_use(self) -> int:
        """How many places its tasks have."""
        return len(self._places.used)

    @property
    def is_anybody_waiting(self) -> bool:
        """Whether tasks of this engine wait."""
        return self._places.is_anybody_waiting

    @property
    def may_be_in(self) -> bool:
        """Whether the object may have an entry of this engine.

        The answer to a request may be lost that has made one; only the object tells.
        """
        return self.is_in or (self.version is None and bool(self._sent))

    def is_alive(self, awake: float) -> bool:
        """Whether its entry counts for others, too."""
        return self.is_in and not self.is_lost and awake - self._confirmed < self.timing.patience

    def take(self, bound: int, now: float, awake: float) -> int | None:
        """Take a place below a bound for a task; None if there is none now."""
        self._used_at = now
        if self.is_alive(awake):
            place = self._places.take(bound)
            if place is not None:
                self._turn.note_use(now)
            return place
        self._places.note_bound(bound)
        return None

    def give_back(self, place: int, now: float, *, unused: bool = False) -> bool:
        """A task has ended; whether its place is for others, who should get it soon.

        `unused` says that it did not begin after all.
        """
        self._used_at = now
        if unused:
            self._turn.undo_use()
        return self._places.free(place)

    def expect(self, run: int, bound: int, ready: int) -> None:
        """So many tasks of a run wait for a place below a bound; none wait if `ready` is 0."""
        self._places.expect(run, bound, ready)

    def begin_one(self, per_second: float, slack: float, now: float, awake: float) -> float:
        """Count a task that starts now under a rate, and return 0; or how many seconds to wait."""
        self._used_at = now
        if not self.is_alive(awake):
            self.rate.set_slices(0, now)
        seconds = self.rate.seconds_until_start(per_second, slack, now)
        return self.timing.look if seconds is None else seconds

    def undo_one(self, per_second: float) -> None:
        """Take back a start that was counted but did not happen."""
        self.rate.undo_one(per_second)

    # --- when ---

    def is_busy(self, now: float) -> bool:
        """Whether a place or a start may soon change hands."""
        return (
            self._places.is_anybody_waiting
            or self.rate.needed(now) > 0  # tasks under a rate nearly always wait
            or (self.is_in and any(entry.is_waiting for _, entry in self.state.others(self.engine)))
        )

    def seconds_until_look(self, now: float) -> float:
        """In how many seconds it should read the object; infinite if never."""
        if self.version is None:
            return 0.0 if self.may_be_in or self.is_busy(now) else float("inf")
        if not self.is_busy(now):
            return float("inf")
        return max(0.0, self._looked_at + self.timing.look - now)

    def seconds_until_due(self, now: float) -> float:
        """In how many seconds `next_request` may have one, if nothing else happens."""
        write = self._written_at + self.timing.renew - now if self.is_in else float("inf")
        return max(0.0, min(self.seconds_until_look(now), write))

    # --- what it is told of the object ---

    def on_seen(self, state: LimitState, version: str, modified: float, now: float) -> None:
        """The object was read."""
        if state.owed and not state.owed_since:
            state = state._replace(owed_since=modified)
        self.state, self.version, self._modified = state, version, modified
        self._looked_at = now
        self._observed = _observed(self._observed, state, self.engine, now)
        mine = state.engines.get(self.engine)
        if mine is None:
            if self.is_in:
                self.lose()
            self._adopt(frozenset(), now)
            self.rate.set_slices(0, now)
            return
        arrived = [beats for beats in self._sent if beats <= mine.beats]
        for beats in arrived:
            self._confirmed = max(self._confirmed, self._sent.pop(beats))
        self.is_in = True
        self._adopt(mine.places, now)
        self.rate.set_slices(min(self.rate.slices, mine.slices), now)

    def on_written(self, state: LimitState, version: str, sent: float, now: float) -> None:
        """A draft, sent at `sent` by the clock `awake`, is the newest version of the object."""
        self.state, self.version, self._modified = state, version, 0.0
        self._looked_at = self._written_at = now
        self._confirmed = max(self._confirmed, sent)
        self._sent.clear()
        self._observed = _observed(self._observed, state, self.engine, now)
        mine = state.engines.get(self.engine)
        self.is_in = mine is not None
        self._adopt(frozenset() if mine is None else mine.places, now)
        self.rate.on_written(0 if mine is None else mine.slices, now)
        self._places.most_used = len(self._places.used)

    def on_unknown(self) -> None:
        """A draft was refused, or nobody knows: read the object before anything else."""
        self.version = None

    def lose(self) -> None:
        """Others may have its places: use none of them any more."""
        self.is_in, self.is_lost = False, bool(self._places.used)
        if self.is_lost:
            self.version = None
        self._places.lose()
        self.rate.slices = 0

    def _adopt(self, places: frozenset[int], now: float) -> None:
        if places and not self._places.held:
            self._turn.begin(now)
        self._places.adopt(places)

    # --- what it writes next ---

    def next_request(
        self, now: float, awake: float, *, leave: bool = False
    ) -> Look | LimitState | None:
        """What to ask the store now: read the object, write this over it, or nothing.

        With `leave`, its entry is to be taken out.
        """
        if self.version is not None:
            draft = self._draft(now, awake, leave=leave)
            if draft is not None:
                return draft
        return Look() if self.seconds_until_look(now) <= 0 else None

    def _draft(self, now: float, awake: float, *, leave: bool) -> LimitState | None:
        """What to write over the version that it knows; None if there is no need to.

        What it gives back is out of use from now on. An engine that has had nothing to do for long
        leaves.
        """
        places = self._places
        if self.is_lost:
            if places.used:
                return None
            self.is_lost = False
        silent = {
            name for name, (_, since) in self._observed.items() if now - since >= self.timing.silent
        }
        state = self._without_dead(now)
        mine = self.state.engines.get(self.engine)
        demand, needs_rate = places.demand(), self.rate.needed(now) > 0
        needed = bool(demand) or needs_rate
        if leave or (not needed and now - self._used_at >= self.timing.idle):
            return self._left(state, now) if mine is not None and not places.used else None
        demand = demand[: _wants_left(state, self.engine)]
        if mine is None and not (demand or needs_rate):
            return None
        renews = mine is None or now - self._written_at >= self.timing.renew
        entry = self._entry(mine, demand, now)
        if mine is None or (not mine.wants and demand):
            entry = entry._replace(since=state.changes + 1)
        state = _with(state, self.engine, entry)
        if self._is_turn_over(state, silent, now):
            entry = entry._replace(since=state.changes + 1)
            state = _with(state, self.engine, entry)
        places.allowed = self._allowances(state, silent)
        given = places.idle_for_others()
        if renews and not places.is_anybody_waiting:
            given |= places.needless()
        if self.gives_idle and not places.is_anybody_waiting:
            given |= places.idle
        self.gives_idle = False
        state = _with(state, self.engine, entry._replace(places=entry.places - given))
        state = self._with_more(state, silent)
        state = self.rate.share(
            state, self.engine, now, modified=self._modified, is_new=mine is None
        )
        if not renews and mine is not None and self._is_alike(state, silent, mine):
            return None
        places.give(given)
        self._beats += 1
        self._sent[self._beats] = awake
        entry = state.engines[self.engine]._replace(beats=self._beats)
        self.rate.set_slices(min(self.rate.slices, entry.slices), now)
        return _with(state, self.engine, entry)._replace(changes=state.changes + 1)

    def _entry(self, mine: Entry | None, demand: Sequence[tuple[int, int]], now: float) -> Entry:
        """Its entry as it is now, before anything is given back or taken."""
        return Entry(
            self._host,
            self._beats,
            self.timing.lease,
            self._places.held - self._places.returning,
            tuple(demand),
            mine.since if mine is not None else 0,
            self.rate.needed(now),
            min(self.rate.slices, mine.slices) if mine is not None else 0,
        )

    def _without_dead(self, now: float) -> LimitState:
        """The state without engines that were not heard of for their whole lease."""
        state = self.state
        for name, entry in self.state.others(self.engine):
            if now - self._observed[name][1] >= entry.lease:
                engines = {other: each for other, each in state.engines.items() if other != name}
                owed = owed_by_dead(entry, self.rate.needed(now))
                state = owing(state._replace(engines=engines), owed, self._modified)
        return state

    def _left(self, state: LimitState, now: float) -> LimitState:
        """The state without its entry; nothing of it is used any more."""
        state = self.rate.leave(state, self._modified, now)
        self.rate.set_slices(0, now)
        self._places.give(self._places.held)
        engines = {name: entry for name, entry in state.engines.items() if name != self.engine}
        return state._replace(engines=engines, changes=state.changes + 1)

    # --- sharing with others ---

    def _is_turn_over(self, state: LimitState, silent: Collection[str], now: float) -> bool:
        """Whether it has had its turn, where there are fewer places than engines."""
        if not self._turn.is_over(now):
            return False
        for bound in _bounds(state):
            shares = state.shares(bound, silent)
            # also what it is giving back: the request may have been refused
            has_any = below(self._places.held, bound) > 0
            if has_any and shares[self.engine] and _is_any_without(state, bound, shares):
                return True
        return False

    def _allowances(self, state: LimitState, silent: Collection[str]) -> list[tuple[int, int]]:
        """How many places it may keep below each bound for which others want some."""
        bounds = {
            bound
            for name, entry in state.others(self.engine)
            for bound, _ in entry.wants
            if name not in silent and entry.demand(bound) > entry.below(bound)
        }
        return [(bound, state.shares(bound, silent)[self.engine]) for bound in sorted(bounds)]

    def _with_more(self, state: LimitState, silent: Collection[str]) -> LimitState:
        """The state with the free places that it should have."""
        entry = state.engines[self.engine]
        is_alone = len(state.engines) == 1
        for bound, number in entry.wants if self._places.is_anybody_waiting else ():
            if is_alone:
                share = min(bound, number + _SPARE_PLACES)
            else:
                share = state.shares(bound, silent)[self.engine]
            more = state.free_places(bound, share - entry.below(bound))
            # What it gives back may not come back with the same request.
            more = [place for place in more if place not in self._places.held]
            entry = entry._replace(places=entry.places | frozenset(more))
            state = _with(state, self.engine, entry)
        return state

    def _is_alike(self, state: LimitState, silent: Collection[str], mine: Entry) -> bool:
        """Whether a draft has nothing that matters now to anybody else."""
        entry = state.engines[self.engine]
        if len(state.engines) != len(self.state.engines) or entry.places != mine.places:
            return False
        if (entry.since, entry.slices, entry.rate > 0) != (mine.since, mine.slices, mine.rate > 0):
            return False
        if len(state.engines) == 1:
            return True
        for bound in _bounds(state):
            shares = state.shares(bound, silent)
            shares[self.engine] = 0  # if others get as much as before, it need not say what it has
            if shares != self.state.shares(bound, silent) | {self.engine: 0}:
                return False
        return True


def _with(state: LimitState, engine: str, entry: Entry) -> LimitState:
    return state._replace(engines={**state.engines, engine: entry})


def _observed(
    before: Mapping[str, tuple[int, float]], state: LimitState, engine: str, now: float
) -> dict[str, tuple[int, float]]:
    """The beats of the other engines, and since when each has them."""
    observed = {}
    for name, entry in state.others(engine):
        beats, since = before.get(name, (-1, now))
        observed[name] = (entry.beats, since if beats == entry.beats else now)
    return observed


def _wants_left(state: LimitState, engine: str) -> int:
    """How many wishes an engine may have beside those of others, so that all can be read."""
    return MOST_WANTS - sum(len(entry.wants) for _, entry in state.others(engine))


def _bounds(state: LimitState) -> set[int]:
    return {bound for entry in state.engines.values() for bound, _ in entry.wants}


def _is_any_without(state: LimitState, bound: int, shares: Mapping[str, int]) -> bool:
    """Whether an engine wants a place below a bound, and has neither one nor a share."""
    return any(
        entry.demand(bound) and not shares[name] and not entry.below(bound)
        for name, entry in state.engines.items()
    )
