"""Charts in Vega, and timelines of events."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.card_content.component import (
    CardComponent,
    Images,
    Part,
    error_part,
    optional,
    part_of,
    plain_number,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_INLINE_BYTES: Final = 2 << 10  # a longer specification is stored once, whatever else changes
_MOST_FACTS: Final = 30
_FACT_BYTES: Final = 2 << 10
_MOST_EVENTS: Final = 1_000
_MOST_PAYLOADS: Final = 20


class VegaChart(CardComponent):
    """A chart, as a specification of Vega-Lite or Vega.

    It shows data that is within the specification: nothing is loaded from elsewhere.

    Args:
        spec: The specification, or anything whose `to_dict` gives it, such as a chart of Altair.
        show_controls: Whether it can be saved as an image.
    """

    def __init__(self, spec: Any, show_controls: bool = False) -> None:  # noqa: FBT001, FBT002 - Metaflow's signature
        self._spec, self._show_controls = spec, show_controls

    @classmethod
    def from_altair_chart(cls, altair_chart: Any) -> VegaChart:
        """A chart of Altair."""
        return cls(altair_chart)

    def update(self, spec: Any = None) -> None:
        """Replace the specification."""
        if spec is not None:
            self._spec = spec

    def _part(self, images: Images, depth: int) -> Part:
        spec = self._spec
        if hasattr(spec, "to_dict"):
            spec = spec.to_dict()
        if isinstance(spec, str):
            spec = json.loads(spec)
        if not isinstance(spec, dict):
            return error_part("VegaChart takes a specification as a dict, or a chart of Altair")
        if "width" not in spec and "$schema" in spec and "/vega/" in str(spec["$schema"]):
            pass  # Vega itself has no such width
        elif "width" not in spec and not depth and not _COMPOSED & spec.keys():
            spec = {**spec, "width": "container"}
        packed = json.dumps(spec, ensure_ascii=False, default=_as_json).encode(
            "utf-8", "backslashreplace"
        )
        shown = packed.decode() if len(packed) <= _INLINE_BYTES else images.add(packed)
        return {"kind": "vega", "spec": shown, "controls": bool(self._show_controls)}


_COMPOSED: Final = frozenset({"hconcat", "vconcat", "concat", "facet", "repeat"})
"""What a specification has that is of several charts: those have no common width."""


def _as_json(value: Any) -> Any:
    """What a value of NumPy or of a date is in JSON."""
    for name in ("item", "tolist", "isoformat"):
        convert = getattr(value, name, None)
        if callable(convert):
            return convert()
    return str(value)


class EventsTimeline(CardComponent):
    """What has happened, the last on top.

    Args:
        title: What stands above it.
        max_events: How many are shown; older ones are only counted.
    """

    def __init__(self, title: str | None = None, max_events: int = 100) -> None:
        self._title, self._max_events = title, max_events
        self._events: list[tuple[float, dict[str, Any], dict[str, Any], str, str]] = []
        self._count = 0
        self._first: float | None = None
        self._last: float | None = None
        self._finished = False

    def update(
        self,
        event_data: Mapping[str, Any],
        style_theme: str | None = None,
        priority: str | None = None,
        payloads: Mapping[str, Any] | None = None,
        finished: bool | None = None,  # noqa: FBT001 - Metaflow's signature
    ) -> None:
        """Add an event.

        Args:
            event_data: Names and short values that say what has happened.
            style_theme: `success`, `warning`, `error`, `info`, `primary`, `secondary`, `tool_call`
                or `ai_response`.
            priority: `low`, `normal`, `high` or `critical`.
            payloads: Names and components that can be unfolded.
            finished: Whether this was the last one.
        """
        now = time.time()
        self._count += 1
        self._first = now if self._first is None else self._first
        self._last = now
        if finished is not None:
            self._finished = bool(finished)
        facts = dict(event_data) if hasattr(event_data, "keys") else {"event": event_data}
        style = optional(style_theme), optional(priority)
        self._events.insert(0, (now, facts, dict(payloads or {}), *style))
        del self._events[min(max(int(self._max_events), 1), _MOST_EVENTS) :]

    def get_stats(self) -> dict[str, Any]:
        """How many events there were, how many are shown, and how fast they came."""
        stats = {
            "total_events": self._count,
            "displayed_events": len(self._events),
            "last_update": self._last,
            "first_event": self._first,
            "finished": self._finished,
        }
        runtime = (self._last or 0) - (self._first or 0)
        if runtime > 0:
            stats["events_per_minute"] = round(self._count / runtime * 60, 1)
            stats["total_runtime_seconds"] = round(runtime, 1)
        return stats

    def _part(self, images: Images, depth: int) -> Part:
        return {
            "kind": "timeline",
            "title": optional(self._title),
            "total": self._count,
            "finished": self._finished,
            "first": self._first,
            "last": self._last,
            "events": [
                {
                    "time": when,
                    "theme": theme,
                    "priority": priority,
                    "facts": [_fact(*each) for each in islice(facts.items(), _MOST_FACTS)],
                    "payloads": [
                        [text(name, _FACT_BYTES), part_of(each, images, depth + 1)]
                        for name, each in islice(payloads.items(), _MOST_PAYLOADS)
                    ],
                }
                for when, facts, payloads, theme, priority in list(self._events)
            ],
        }


def _fact(name: object, value: object) -> list[Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [text(name, _FACT_BYTES), plain_number(value)]
    return [text(name, _FACT_BYTES), text(value, _FACT_BYTES)]
