"""One engine's part of a limit's rate, in an object store.

A rate is divided, as places are: an engine with 400,000 of the 1,000,000 slices starts 0.4 times as
many tasks per second as the limit says, and spaces them evenly by its own clock. So no start needs
a request, and no two clocks are compared.

An engine that gives up its slices may have started a task a moment before. It writes into the
object for how long that start counts, as seconds of the whole rate, and whoever takes slices next
waits as long. The store's clock tells how much of this time has passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.store.object_store.limit_state import SLICES, LimitState

if TYPE_CHECKING:
    from asyncflow.store.object_store.limit_state import Entry

_SOON_SECONDS: Final = 2.0  # owed seconds that are waited for without asking the store's clock
_NEVER: Final = float("-inf")


class RateShare:
    """The slices that an engine has, and when it may start the next task."""

    def __init__(self, needed_seconds: float) -> None:
        """Have none; a rate counts as needed for so long after the last task that asked for it."""
        self._needed_seconds = needed_seconds
        self._per_second, self._asked_at = 0.0, _NEVER
        self.slices = 0
        """How many it may use now; never more than its entry has."""
        self._next_at = _NEVER
        self._debt = 0.0  # owed seconds that it has taken over, or is just taking over

    def needed(self, now: float) -> float:
        """The tasks per second of the step that needs the rate; 0 if none does."""
        return self._per_second if now - self._asked_at < self._needed_seconds else 0.0

    def seconds_until_start(self, per_second: float, slack: float, now: float) -> float | None:
        """Count a task that starts now, and return 0; or in how many seconds it may start.

        None without any slices. A task may start `slack` seconds early.
        """
        self._per_second, self._asked_at = per_second, now
        if not self.slices:
            return None
        if self._next_at - slack > now:
            return self._next_at - slack - now
        self._next_at = max(now, self._next_at) + SLICES / self.slices / per_second
        return 0.0

    def undo_one(self, per_second: float) -> None:
        """Take back a start that was counted but did not happen."""
        if self.slices:
            self._next_at -= SLICES / self.slices / per_second

    def hasten(self, per_second: float, now: float) -> None:
        """The rate was changed: the next start comes no later than this one says."""
        if self.slices:
            self._next_at = min(self._next_at, now + SLICES / self.slices / per_second)

    def set_slices(self, slices: int, now: float) -> None:
        """Have so many from now on; the time until the next start becomes longer or shorter."""
        if slices and self.slices and self._next_at > now:
            self._next_at = now + (self._next_at - now) * self.slices / slices
        self.slices = slices

    def on_written(self, slices: int, now: float) -> None:
        """The newest version of the object gives it so many."""
        self.set_slices(slices, now)
        if slices:
            self._next_at = max(self._next_at, now + self._debt * SLICES / slices)
            self._debt = 0.0

    def leave(self, state: LimitState, modified: float, now: float) -> LimitState:
        """The state once it has no slices: what its last start owes is in it."""
        seconds = max(0.0, self._next_at - now) * self.slices / SLICES
        return owing(state, seconds + self._debt, modified)

    def share(
        self, state: LimitState, engine: str, now: float, *, modified: float, is_new: bool
    ) -> LimitState:
        """The state with the slices that the engine should have.

        `modified` is when the version was written that is replaced, by the store's clock; 0 if that
        is unknown. `is_new` says that this version has no entry of the engine.
        """
        entry = state.engines[engine]
        others = [each for name, each in state.engines.items() if name != engine]
        sharers = sum(each.rate > 0 for each in others)
        slices = entry.slices
        if entry.rate:
            slices = SLICES // (sharers + 1)
        elif sharers:
            slices = 0
        slices = min(slices, max(entry.slices, SLICES - sum(each.slices for each in others)))
        if slices > entry.slices and state.owed:
            left = state.owed_at(modified)
            if left > _SOON_SECONDS and (is_new or not modified):
                slices = entry.slices  # until the store's clock tells how long that was ago
            else:
                self._debt = max(self._debt, left)
                state = state._replace(owed=0.0, owed_since=0.0)
        elif entry.slices and not slices:
            state = self.leave(state, modified, now)
        engines = {**state.engines, engine: entry._replace(slices=slices)}
        return state._replace(engines=engines)


def owing(state: LimitState, seconds: float, modified: float) -> LimitState:
    """The state with so many owed seconds more; `modified` as above."""
    if seconds <= 0:
        return state
    return state._replace(owed=state.owed_at(modified) + seconds, owed_since=0.0)


def owed_by_dead(entry: Entry, per_second: float) -> float:
    """What an engine owes at most that was not heard of for its whole lease."""
    rate = entry.rate or per_second
    if not entry.slices or not rate:
        return 0.0
    return max(0.0, 1 / rate - entry.lease * entry.slices / SLICES)
