"""A line on a terminal that says how far a long command is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Self

from asyncflow.cli.stdout_errors import draw_on_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

_REDRAW_SECONDS: Final = 0.1


class ProgressLine:
    """Shows on a terminal how far a command is, if it takes longer than a second."""

    def __init__(self) -> None:
        self._on = sys.stderr is not None and sys.stderr.isatty()
        self._next = time.monotonic() + 1.0  # a short command needs none
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            draw_on_stderr("\r\x1b[K")

    def show(self, text: Callable[[], str]) -> None:
        """Redraw the line with this text, if it is time to."""
        now = time.monotonic()
        if self._on and now >= self._next:
            self._next, self._drawn = now + _REDRAW_SECONDS, True
            draw_on_stderr(f"\r\x1b[K{text()}")
