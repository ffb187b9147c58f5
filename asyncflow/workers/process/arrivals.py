"""The inputs of a join that has begun before the last of them: they come one after the other."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

from asyncflow.workers.packed_numbers import unpack_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence


class Arrivals:
    """Where the inputs of one attempt are, in the order in which they arrived."""

    def __init__(self, inputs: bytes) -> None:
        """Begin with those that had arrived when the attempt was ordered."""
        self._places = array("Q")  # three numbers for each, as in `MoreInputs`
        self._changed = asyncio.Event()
        self.are_all = False
        """Whether no more will come."""
        self._places.extend(unpack_numbers(inputs))

    def add(self, inputs: bytes, *, are_last: bool) -> None:
        """Some more have arrived."""
        self._places.extend(unpack_numbers(inputs))
        self.are_all = are_last
        self._changed.set()

    def __len__(self) -> int:
        return len(self._places) // 3

    def place(self, number: int) -> tuple[int, int]:
        """The offsets of the n-th input's result, and of the record with its item."""
        return self._places[3 * number], self._places[3 * number + 1]

    def in_order(self) -> Sequence[int]:
        """The numbers of all inputs, in the order of their items."""
        indexes = self._places[2::3]
        return array("I", sorted(range(len(indexes)), key=indexes.__getitem__))

    async def wait(self, number: int) -> bool:
        """Wait until there are more than `number`; False if that will not be."""
        while len(self) <= number and not self.are_all:
            self._changed.clear()
            await self._changed.wait()
        return len(self) > number

    async def wait_for_all(self) -> None:
        """Wait until no more will come."""
        while not self.are_all:
            await self.wait(len(self))

    def __repr__(self) -> str:
        return f"<Arrivals: {len(self)}{', all' if self.are_all else ''}>"
