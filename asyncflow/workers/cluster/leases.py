"""Which leases an executor has asked for, and which it gives back: as many as there is work for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple

from asyncflow._support import log
from asyncflow.workers.cluster.interface import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from concurrent.futures import Future

    from asyncflow.workers.cluster.remote_worker import ClusterNode

_UNWISHED_LOOKS: Final = 5  # a second apart, until a request for a lease is withdrawn
_GROWING_SECONDS: Final = 10.0  # how long a gang waits for leases before it shares those there are


class _AskedLease(NamedTuple):
    """A request for a lease."""

    shape: Shape
    slots: int
    since: float


class Leases:
    """The leases of one executor, as far as it decides about them; on the engine's event loop."""

    def __init__(
        self,
        nodes: Callable[[], Collection[ClusterNode]],
        ask: Callable[[Shape, int], Future[None]],
        *,
        most: int,
        slots: int,
        idle_seconds: float | None,
    ) -> None:
        """Ask for none yet.

        Args:
            nodes: The nodes that there are now.
            ask: Asks the cluster for a lease of a shape with so many slots.
            most: How many workers there may be.
            slots: How many workers a lease is for.
            idle_seconds: As in `ClusterExecutor`.
        """
        self._nodes, self._ask = nodes, ask
        self._most, self._slots = most, slots
        self.keeps_all = idle_seconds is None
        """Whether leases are kept to the end; else they come and go with the work."""
        self._idle_seconds = idle_seconds or 0.0
        self._asked: dict[Future[None], _AskedLease] = {}  # leases that are not there yet
        self._wished: dict[Shape, int] = {}  # looks since workers of a shape were wished for
        self._closing = False

    def __len__(self) -> int:
        return len(self._asked)

    def __repr__(self) -> str:
        return f"<Leases {len(self._asked)} asked for>"

    def close(self) -> None:
        """Ask for none any more, and withdraw all requests."""
        self._closing = True
        for asked in list(self._asked):
            asked.cancel()

    def answered(self) -> list[Future[None]]:
        """The requests that were answered; `take` takes them."""
        return [asked for asked in self._asked if asked.done()]

    def take(self, asked: Future[None]) -> Shape | None:
        """The shape that an answered request was for; None if the answer was taken before."""
        of = self._asked.pop(asked, None)
        return None if of is None else of.shape

    def is_growing(self, shape: Shape) -> bool:
        """Whether a lease of the shape was asked for in the last seconds, and is not there."""
        now = time.monotonic()
        return any(
            asked.shape == shape and now - asked.since < _GROWING_SECONDS
            for asked in self._asked.values()
        )

    @property
    def are_late(self) -> bool:
        """Whether one that was asked for does not come."""
        now = time.monotonic()
        return any(now - asked.since > _GROWING_SECONDS for asked in self._asked.values())

    def wish(self, wanted: Mapping[Shape, int]) -> None:
        """Ask for leases, so that there can be so many workers of each shape."""
        for shape, workers in wanted.items():
            self._wished[shape] = 0
            # If all leases are kept, those of the ordinary shape were asked for at the start.
            if not self.keeps_all or shape != Shape():
                self._ask_for(shape, workers)

    def ask_again(self) -> None:
        """Replace what was lost, if all leases are kept. Otherwise the scheduler will wish."""
        if self.keeps_all:
            self._ask_for(Shape(), self._most)

    def _ask_for(self, shape: Shape, workers: int) -> None:
        """Have so many workers' room of a shape in the end, as far as there may be so many."""
        there = sum(node.slots[shape] for node in self._nodes())
        there += sum(each.slots for each in self._asked.values() if each.shape == shape)
        total = there
        if not self.keeps_all:  # one shape has to wait for another's leases to be given back
            total = sum(node.slots.total() for node in self._nodes())
            total += sum(each.slots for each in self._asked.values())
        missing = min(workers - there, self._most - total)
        while missing > 0 and not self._closing:
            slots = 1 if shape.gpu else min(missing, self._slots)
            self._asked[self._ask(shape, slots)] = _AskedLease(shape, slots, time.monotonic())
            missing -= slots

    def look(self) -> None:
        """Withdraw requests that nobody needs any more, and give idle leases back.

        Looks are counted, not seconds: while the application keeps its event loop busy, nobody can
        wish for anything. A request that is withdrawn each time would never be answered.
        """
        if self.keeps_all:
            return
        now = time.monotonic()
        for shape in self._wished:
            self._wished[shape] += 1
        for lease, asked in list(self._asked.items()):
            if self._wished.get(asked.shape, _UNWISHED_LOOKS) > _UNWISHED_LOOKS:
                lease.cancel()
        for node in list(self._nodes()):
            self._release_idle(node, now)

    def _release_idle(self, node: ClusterNode, now: float) -> None:
        if not (node.is_up and node.is_idle):
            node.idle_since = None
        elif node.idle_since is None:
            node.idle_since = now
        elif now - node.idle_since > self._idle_seconds:
            node.is_up = False
            for worker in node.workers.values():
                worker.stop_reason = worker.stop_reason or "its lease is given back"
            log.info("an idle lease is given back", node=node.name)
            node.post("close")
