"""Numbers, times, sizes and lists in words, as descriptions and errors have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow._support.suggestions import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

_NAMED: Final = 8  # the most names of a long list in an error or a drawing


def some_of(names: Iterable[str], meant: str = "") -> str:
    """Names, as an error lists them; with the one that is like `meant`, which is not there."""
    listed = list(names)
    hint = did_you_mean(meant, listed) if meant else ""
    if len(listed) > _NAMED:
        listed[_NAMED - 1 :] = [f"{len(listed) - _NAMED + 1} more"]
    return (", ".join(listed) or "nothing") + hint


def how_many(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def how_long(seconds: float) -> str:
    """`8 ms`, `1.5 s`, `2 min 3 s`, `1 h 5 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def local_time(time: datetime) -> str:
    """`2026-11-27 09:52:02`, where this program runs."""
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def how_large(size: float) -> str:
    """`12 bytes`, `1.5 KiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
