"""How many spans of time overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Span: TypeAlias = tuple[float, float]


def most_at_once(spans: list[Span]) -> int:
    """The largest number of spans that overlap at one moment; each is its beginning and its end."""
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


async def most_in_any(spans_of_a_run: Callable[[], Awaitable[list[Span]]], enough: int) -> int:
    """The largest number at one moment of several runs, which end once it is `enough`.

    A busy machine may begin the tasks of one run one by one, though more could run together.
    """
    found = 0
    for _ in range(50):
        found = max(found, most_at_once(await spans_of_a_run()))
        if found >= enough:
            break
    return found
