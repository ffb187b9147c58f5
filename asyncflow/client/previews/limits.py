"""How much a preview may read, compute and say."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Final, Self

_MOST_PARTS: Final = 100_000  # ten for each name of the widest frame that is shown


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewLimits:
    """The bounds of one preview."""

    characters: int = 2_000
    """Of its text."""
    items: int = 100
    """Of each container."""
    rows: int = 20
    """Of a table."""
    columns: int = 100
    depth: int = 12
    """Of containers within each other."""
    operations: int = 50_000
    """Opcodes that are read: each makes at most one small object."""
    seconds: float = 0.2
    bytes_read: int = 1 << 20
    until: float = 0.0
    """When the time is over; set by `begun`."""
    _parts: list[int] = field(default_factory=lambda: [_MOST_PARTS], repr=False, compare=False)

    def begun(self) -> Self:
        """The same, from now on."""
        until = time.monotonic() + self.seconds
        return replace(self, until=until, _parts=[_MOST_PARTS])

    def count(self, parts: int = 1) -> None:
        """Count parts of a value that are looked at: types, arrays, columns, names.

        A part may stand in many places of a value. So the tree that is walked can be larger than
        the bytes by any factor, and it is the steps of the walk that are counted.

        Raises:
            ValueError: They are more than any table needs.
        """
        self._parts[0] -= parts
        if self._parts[0] < 0:
            raise ValueError("it has too many parts to be looked at")

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return bool(self.until) and time.monotonic() > self.until
