"""Compares two answers, part by part."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

ABSENT = "(absent)"


def differences(theirs: Any, ours: Any) -> dict[str, tuple[Any, Any]]:
    """What is not the same, by its path: Metaflow's and ours."""
    left, right = dict(_parts(theirs)), dict(_parts(ours))
    return {
        path: (left.get(path, ABSENT), right.get(path, ABSENT))
        for path in sorted({*left, *right})
        if left.get(path, ABSENT) != right.get(path, ABSENT)
    }


def _parts(answer: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(answer, dict):
        yield path, answer
        return
    for name, part in answer.items():
        yield from _parts(part, f"{path}/{name}" if path else str(name))


def unexplained(found: Collection[str], reasons: Collection[str]) -> tuple[list[str], list[str]]:
    """Differences that no pattern allows, and patterns that no difference needs."""
    wrong = [path for path in found if not any(_matches(path, each) for each in reasons)]
    stale = [each for each in reasons if not any(_matches(path, each) for path in found)]
    return wrong, stale


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path.replace("[", "<").replace("]", ">"), pattern)
