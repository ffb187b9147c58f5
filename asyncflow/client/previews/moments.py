"""Times and durations as texts, from the numbers that NumPy, pandas and Arrow store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["date_text", "duration_text", "moment_text", "time_of_day_text"]

_NANOSECONDS: Final = {
    "D": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "us": 1_000,
    "ns": 1,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment_text(value: int, unit: str, *, has_zone: bool = False) -> str:
    """A moment, so many units after 1970; with a zone it is told in UTC."""
    try:
        micro, rest = divmod(value * _NANOSECONDS[unit], 1_000)
        text = str((_EPOCH + timedelta(microseconds=micro)).replace(tzinfo=None))
    except (KeyError, OverflowError, ValueError):
        return _plain(value, unit)
    if rest:
        text = f"{text if '.' in text else text + '.000000'}{rest:03}"
    return f"{text}+00:00" if has_zone else text


def date_text(days: int) -> str:
    """A day, so many after 1970-01-01."""
    try:
        return str((_EPOCH + timedelta(days=days)).date())
    except OverflowError:
        return _plain(days, "D")


def duration_text(value: int, unit: str) -> str:
    """A duration, as Python writes it: `1 day, 2:00:00`."""
    try:
        micro, rest = divmod(value * _NANOSECONDS[unit], 1_000)
        return str(timedelta(microseconds=micro)) if not rest else _plain(value, unit)
    except (KeyError, OverflowError):
        return _plain(value, unit)


def time_of_day_text(value: int, unit: str) -> str:
    """A time of day, so many units after midnight."""
    try:
        micro, rest = divmod(value * _NANOSECONDS[unit], 1_000)
        moment = _EPOCH + timedelta(microseconds=micro)
    except (KeyError, OverflowError):
        return _plain(value, unit)
    if rest or moment.date() != _EPOCH.date():
        return _plain(value, unit)
    return str(moment.time())


def _plain(value: int, unit: str) -> str:
    return f"{value} {unit}".strip()
