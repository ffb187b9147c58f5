"""What engines, the client and the command line need of a store's named limits.

A folder has them as files with locks (`asyncflow.store.limit_files`), and an object store as
objects (`asyncflow.store.object_store.shared_limit`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asyncflow.errors import LimitError
    from asyncflow.store.limit_files import Bounds, LimitUse


class EngineLimit(Protocol):
    """One limit, open in one engine. Nothing here waits but `leave`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def look_seconds(self) -> float:
        """How often a run that waits should try again, if nobody wakes it."""

    def bounds(self) -> Bounds:
        """The bounds that `asyncflow limit set` has set.

        Raises:
            LimitError: The limit is damaged.
        """

    def watch(self, on_news: Callable[[], object]) -> None:
        """Call `on_news`, in any thread, when a run that waits should try again."""

    # --- places ---

    def take_below(self, at_once: int, taken: Collection[int]) -> int | None:
        """Take a place below `at_once` that is none of `taken`; None if none is free.

        Raises:
            LimitError: The limit cannot be used.
        """

    def free_place(self, number: int, *, unused: bool = False) -> None:
        """Give a place back; `unused` says that its task did not begin after all."""

    def keep_only(self, places: Collection[int], ticket: int | None) -> None:
        """Give back all places and tickets but these. Harmless if there are no others."""

    def lost(self) -> LimitError | None:
        """Why this engine no longer has the places that its tasks have; None if it has them."""

    # --- the queue of engines ---

    def join_line(self) -> int:
        """Join the queue, and return the ticket.

        Raises:
            LimitError: The limit cannot be used.
        """

    def leave_line(self, ticket: int) -> None:
        """Leave the queue."""

    def is_preceded(self, ticket: int | None) -> bool:
        """Whether an engine with an earlier ticket waits; without a ticket, whether any does."""

    def expect(self, run: int, at_once: int, ready: int) -> None:
        """So many tasks of a run wait for a place below `at_once`; 0 if none waits any more."""

    def let_others(self, run: int) -> None:
        """Tasks of a run wait for another limit: others may have what no task of this engine has.

        Until `expect` says again that they wait here.
        """

    # --- the rate ---

    def begin_one(self, per_second: float, slack: float, now: float) -> float:
        """Count one start now, and return 0; or return how many seconds it has to wait.

        One may come up to `slack` seconds early. `now` is seconds since 1970.

        Raises:
            LimitError: The limit cannot be used.
        """

    def undo_one(self, per_second: float) -> None:
        """Take back a start that was counted but did not happen."""

    def hasten(self, per_second: float, now: float) -> None:
        """The rate was changed: the next start comes no later than this one says.

        Raises:
            LimitError: The limit cannot be used.
        """

    # --- looking and leaving ---

    def in_use(self) -> int:
        """How many places other engines have taken, as far as this one knows."""

    def leave(self, *, wait: bool = True) -> None:
        """Return when others may have all that this engine had, or cannot be told now.

        Without `wait`, return when that has begun: so several limits can be left at once.
        """

    def close(self) -> None:
        """Release everything without waiting. Harmless when repeated."""


class LimitStore(Protocol):
    """The named limits of a store."""

    def names(self) -> list[str]:
        """The names of the limits that there are, sorted.

        Raises:
            LimitError: They cannot be listed.
        """

    def open(self, name: str, *, grace_seconds: float) -> EngineLimit:
        """Open a limit for an engine whose tasks end within `grace_seconds` when told to.

        Raises:
            LimitError: No limit can have that name, or it cannot be used.
        """

    def look(self, name: str) -> LimitUse:
        """The bounds of a limit, and how much of it is in use.

        Raises:
            LimitError: There is none with that name, or it cannot be read.
        """

    def set_bounds(self, name: str, bounds: Bounds) -> None:
        """Set new bounds; a missing limit is made, and a damaged one mended.

        Raises:
            LimitError: No limit can have that name, or it cannot be written.
        """
