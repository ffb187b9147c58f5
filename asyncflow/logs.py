"""The library's own log: what happens to the engine itself, which no run's journal tells.

It goes to the standard logger `asyncflow`, so that the application decides what becomes of it; by
default warnings are shown on stderr, and the rest is not.
"""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _logger() -> Any:
    import logging  # noqa: PLC0415 - start-up time: most engines have nothing to say

    import structlog  # noqa: PLC0415 - the same

    render = structlog.processors.KeyValueRenderer(key_order=["event"])
    return structlog.wrap_logger(
        logging.getLogger("asyncflow"),
        processors=[structlog.stdlib.filter_by_level, render],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def info(event: str, /, **facts: object) -> None:
    """Note something that the engine has dealt with by itself."""
    _logger().info(event, **facts)


def warning(event: str, /, **facts: object) -> None:
    """Note something that somebody may want to look into."""
    _logger().warning(event, **facts)
