"""How many spans of time overlap."""

from __future__ import annotations


def most_at_once(spans: list[tuple[float, float]]) -> int:
    """The largest number of spans that overlap at one moment; each is its beginning and its end."""
    edges = sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans])
    most = now = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most
