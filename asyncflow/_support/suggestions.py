"""Suggestions for misspelt names. It imports nothing else of asyncflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'alpha'?` if one of the known names is close, else nothing."""
    import difflib

    by_case = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), by_case)
    if not close:
        return ""
    # Of several close names, take the one with the same beginning: `rum` is `run` rather than `rm`.
    best = max(close, key=lambda each: each[:2] == name[:2].lower())
    return f"; did you mean {by_case[best]!r}?"
