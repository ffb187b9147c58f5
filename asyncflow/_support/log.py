"""The library's own log: what happens to the engine itself, which no run's journal records.

It goes to the standard logger `asyncflow`, so that the application decides where it appears. By
default, only warnings are shown, on stderr.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

NAME = "asyncflow"
"""The logger's name."""


@cache
def _logger() -> Any:
    import logging

    import structlog

    return structlog.wrap_logger(
        logging.getLogger(NAME),
        processors=[structlog.stdlib.filter_by_level, _render],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _render(_: object, __: str, facts: MutableMapping[str, Any]) -> tuple[Any, Any]:
    """Render a message with its facts as text; programs find the facts as attributes, too."""
    event, traceback = facts.pop("event"), facts.pop("traceback", "")
    told = ", ".join(f"{name}: {value}" for name, value in facts.items())
    lines = [f"{event} ({told})" if told else event, *([traceback] if traceback else [])]
    return ("\n".join(lines),), {"extra": {"facts": dict(facts)}}


def info(event: str, /, **facts: object) -> None:
    """Log an event that the engine has handled by itself."""
    _say("info", event, facts)


def warning(event: str, /, **facts: object) -> None:
    """Log an event that somebody may want to investigate."""
    _say("warning", event, facts)


def _say(level: str, event: str, facts: dict[str, object]) -> None:
    import logging  # asyncio has loaded it, and it takes a tenth of what structlog does

    if not logging.getLogger(NAME).isEnabledFor(getattr(logging, level.upper())):
        return
    try:
        logger = _logger()
    except (OSError, MemoryError):
        # There may be no descriptor left, which is one of the things to log.
        (text,), more = _render(None, level, {"event": event, **facts})
        getattr(logging.getLogger(NAME), level)("%s", text, **more)
    else:
        getattr(logger, level)(event, **facts)
