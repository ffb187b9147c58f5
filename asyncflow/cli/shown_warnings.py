"""The library's own warnings, shown among the lines of a run's log."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from asyncflow._support import log

if TYPE_CHECKING:
    from collections.abc import Iterator


class ShownWarnings(Protocol):
    """A view that shows warnings."""

    def warn(self, time: datetime, text: str) -> None: ...


class _Handler(logging.Handler):
    def __init__(self, view: ShownWarnings) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.warn(datetime.fromtimestamp(record.created, UTC), record.getMessage())


@contextmanager
def warnings_shown_by(view: ShownWarnings) -> Iterator[None]:
    """Show warnings within the block, unless the flow's file has set up logging itself."""
    logger = logging.getLogger(log.NAME)
    if logger.hasHandlers():
        yield
        return
    handler = _Handler(view)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
