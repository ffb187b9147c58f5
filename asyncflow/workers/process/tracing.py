"""Has the spans that a step makes belong to the span of its attempt, see `asyncflow.otel`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow._support.trace_context import STATE, span_of_attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.workers.messages import AttemptKey


def enter_span(trace: Mapping[str, str], key: AttemptKey) -> None:
    """Make the attempt's span the current one of this context.

    Nothing, if OpenTelemetry is not installed here: then nobody makes spans.
    """
    name = span_of_attempt(trace, key.task, key.attempt)
    if name is None:
        return
    with suppress(ImportError):
        from opentelemetry import context
        from opentelemetry import trace as api

        state = api.TraceState.from_header([trace[STATE]]) if trace.get(STATE) else None
        flags = api.TraceFlags(name.flags)
        span = api.SpanContext(name.trace_id, name.span_id, True, flags, state)  # noqa: FBT003 - `is_remote`
        context.attach(api.set_span_in_context(api.NonRecordingSpan(span)))
