"""Fewer garbage collections while much data passes through."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG_OBJECTS: Final = 20_000  # some 2 MB: a collection then takes some 2 ms


_lock: Final = Lock()
_blocks: Final[list[tuple[int, int, int]]] = []
"""Of each block that is open, what the thresholds are to be once all are left."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Within the block, collect garbage only once many more objects have been made.

    For loops over records, each of which is looked at and forgotten: a collection finds nothing
    there. It stays off if it is off, and an application that wants fewer still gets them.

    The thresholds are those of the whole process. Blocks may overlap in any order, as those of two
    threads do: the last one that is left restores what the first one found. What the application
    itself sets meanwhile stays.
    """
    with _lock:
        before = gc.get_threshold()
        _blocks.append(_blocks[0] if _blocks else before)
        if before[0]:
            gc.set_threshold(max(before[0], _YOUNG_OBJECTS), *before[1:])
    try:
        yield
    finally:
        with _lock:
            first = _blocks.pop()
            ours = max(first[0], _YOUNG_OBJECTS), *first[1:]
            if not _blocks and gc.get_threshold() == ours:
                gc.set_threshold(*first)
