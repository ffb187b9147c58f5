"""Ages and times as people type them: `2d`, `90m`, `2026-11-27`, `2026-11-27 08:30`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")


def _seconds(text: str) -> float | None:
    match = _AGE.fullmatch(text)
    return None if match is None else float(match[1]) * _UNITS[match[2]]


def age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The age that an option names, in seconds."""
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is None:
        message = f"{value!r} is not an age: write 30d, 12h, 90m or 45s"
        raise click.BadParameter(message, ctx, param)
    return seconds


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> datetime | None:
    """The time that an option names: so long ago, or at a time in the local time zone."""
    if value is None:
        return None
    seconds = _seconds(value)
    try:
        if seconds is not None:
            return datetime.now(UTC) - timedelta(seconds=seconds)
        return datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        message = f"{value!r} is no time: write 2d, 12h or 90m for so long ago, or 2026-11-27 08:30"
        raise click.BadParameter(message, ctx, param) from None
