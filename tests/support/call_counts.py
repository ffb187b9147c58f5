"""Counts calls of functions: what code costs, whatever else the machine does."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Within the block, the list's only number grows with each call in this thread.

    Calls of Python's own functions count as well, as far as the interpreter tells of them.
    """
    calls = [0]

    def note(_frame: Any, event: str, _argument: Any) -> None:
        calls[0] += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
