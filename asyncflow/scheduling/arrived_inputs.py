"""The inputs of a join that reads them as they arrive."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_ARRIVALS: Final = 2048  # that a join is told at a time: 48 KiB


class ArrivedInputs:
    """The ids of the tasks that have ended, in that order, and how many the join was told."""

    __slots__ = ("_arrived", "_ended", "_told")

    def __init__(self) -> None:
        self._arrived: array[int] = array("I")
        self._told = 0
        self._ended = False  # whether the join has been told that no more will come

    def add(self, task_id: int) -> bool:
        """Add an input; return whether it is the first."""
        self._arrived.append(task_id)
        return len(self._arrived) == 1

    def begin(self) -> Sequence[int]:
        """The inputs with which an attempt of the join begins; more will come."""
        first = self._arrived[:MAX_ARRIVALS]
        self._told, self._ended = len(first), False
        return first

    def news(self, *, are_all: bool) -> Iterator[tuple[Sequence[int], bool]]:
        """What the join has not been told, and whether that ends it.

        Args:
            are_all: Whether no more will arrive.
        """
        arrived = self._arrived
        while self._told < len(arrived) or (are_all and not self._ended):
            some = arrived[self._told : self._told + MAX_ARRIVALS]
            self._told += len(some)
            self._ended = are_all and self._told == len(arrived)
            yield some, self._ended
