"""Where the spans of a run belong in a trace, by the W3C's Trace Context; no OpenTelemetry here.

A run's first event has its `traceparent`. The ids of the spans of attempts are derived from it, so
that a worker knows the span of the attempt that it runs, and nothing has to be sent to it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
ATTEMPTS: Final = "attempts"
DERIVED: Final = "derived"
"""The value of `ATTEMPTS` if the ids of the spans of attempts are derived."""

_VERSION_0: Final = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class SpanName(NamedTuple):
    """Identifies a span."""

    trace_id: int
    span_id: int
    flags: int
    """1 if it is sampled."""

    def traceparent(self) -> str:
        """As text."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.flags:02x}"


def span_of_run(trace: Mapping[str, str]) -> SpanName | None:
    """The span that `RunStarted.trace` names; None if it names none that is valid."""
    found = _VERSION_0.fullmatch(trace.get(PARENT, ""))
    if found is None:
        return None
    name = SpanName(*(int(text, 16) for text in found.groups()))
    return name if name.trace_id and name.span_id else None


def span_of_attempt(trace: Mapping[str, str], task_id: int, attempt: int) -> SpanName | None:
    """The span that what an attempt traces belongs to: the attempt's, or else the run's."""
    run = span_of_run(trace)
    if run is None or trace.get(ATTEMPTS) != DERIVED:
        return run
    return run._replace(span_id=derived_id(run, task_id, attempt))


def derived_id(run: SpanName, task_id: int, attempt: int) -> int:
    """The id of the span of an attempt."""
    import hashlib  # few runs are traced

    text = f"{run.trace_id:032x}-{run.span_id:016x}/{task_id}/{attempt}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") or 1
