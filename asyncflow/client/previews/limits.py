"""How much a preview may read, compute and say."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Self


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

    def begun(self) -> Self:
        """The same, from now on."""
        return replace(self, until=time.monotonic() + self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return bool(self.until) and time.monotonic() > self.until
