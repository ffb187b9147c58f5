"""OpenTelemetry: a span for each run and each attempt of a task.

    from asyncflow import otel

    async with Engine() as engine:
        otel.instrument(engine)
        await engine.run(Flow)

It needs `opentelemetry-api` alone (`asyncflow-engine[otel]`). Where spans go is decided by the
tracer provider that the program has set.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self

from asyncflow._support import log
from asyncflow._support.trace_context import (
    ATTEMPTS,
    DERIVED,
    PARENT,
    STATE,
    SpanName,
    derived_id,
    span_of_run,
)
from asyncflow._support.version import VERSION
from asyncflow.errors import AsyncflowError
from asyncflow.events.types import (
    ENDINGS,
    RunCancelled,
    RunFailed,
    RunStarted,
    TaskEvent,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    to_microseconds,
)
from asyncflow.values import Status

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace as traces
except ImportError as error:
    message = "asyncflow.otel needs opentelemetry-api: pip install 'asyncflow-engine[otel]'"
    raise ImportError(message) from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from asyncflow.engine.engine import Engine
    from asyncflow.events.types import Event

__all__ = ["Instrumentation", "instrument"]


def instrument(
    engine: Engine, *, tracer_provider: traces.TracerProvider | None = None
) -> Instrumentation:
    """Make spans of the engine's runs, for those that start from now on.

    A span `run FLOW` for each run, and in it one for each attempt of a task, with the step's name.
    They begin and end at the times of the run's events. A run's span is the child of the span in
    which it was started; that of a resumed run has a link to the span of the run that it resumes.
    Spans that a step makes, in whatever process, belong to the span of its attempt.

    Args:
        engine: An open engine.
        tracer_provider: Makes the spans; the program's global provider if left out.

    Raises:
        EngineClosedError: The engine is not open.
        AsyncflowError: The engine is instrumented already, or was entered on another event loop.
    """
    if engine.tracer is not None:
        raise AsyncflowError("this engine is instrumented already: stop that first")
    return Instrumentation(engine, tracer_provider)


class Instrumentation:
    """Makes spans of an engine's runs until it is stopped; `instrument` makes it.

    Usable in a `with` statement, at whose end it is stopped. It ends with its engine by itself.
    """

    def __init__(self, engine: Engine, provider: traces.TracerProvider | None) -> None:
        self._engine, self._provider = engine, provider
        self._runs: dict[str, _RunSpans] = {}
        kinds = (TaskStarted, TaskSucceeded, TaskFailed, *ENDINGS)
        self._callback = engine.on(kinds, self._on_event)
        self._callback.task.add_done_callback(lambda _: self._end_all())
        engine.tracer = self._new_run

    def stop(self) -> None:
        """Make no more spans. Those of runs that go on end now. Harmless when repeated."""
        if self._engine.tracer == self._new_run:
            self._engine.tracer = None
        self._callback.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def _new_run(self) -> _NewTrace:
        provider = self._provider or traces.get_tracer_provider()
        return _NewTrace(provider.get_tracer("asyncflow", VERSION), self._runs)

    def _on_event(self, event: Event) -> None:
        run = self._runs.get(f"{event.flow}/{event.run_id}")
        if run is None:  # it was started before
            return
        match event:
            case TaskStarted():
                run.begin_attempt(event)
            case TaskSucceeded():
                run.end_attempt(event, Status.SUCCEEDED)
            case TaskFailed():
                run.fail_attempt(event)
            case _:
                del self._runs[event.pathspec]
                run.end(event)

    def _end_all(self) -> None:
        """End the spans of runs that have no last event."""
        for run in self._runs.values():
            run.break_off()
        self._runs.clear()

    def __repr__(self) -> str:
        return f"<Instrumentation of {self._engine!r}>"


class _NewTrace:
    """The span of a run that is being started, see `RunTrace`."""

    def __init__(self, tracer: traces.Tracer, runs: dict[str, _RunSpans]) -> None:
        self._tracer, self._runs = tracer, runs
        self._within = contexts.get_current()
        self._begun = ""

    def begin(self, started: RunStarted, origin: Mapping[str, str]) -> Mapping[str, str]:
        try:
            return self._begin(started, origin)
        except Exception as error:  # noqa: BLE001 - whatever the program's provider raises: the run goes on
            log.warning("a run is not traced", run=started.pathspec, error=repr(error))
            return {}

    def _begin(self, started: RunStarted, origin: Mapping[str, str]) -> Mapping[str, str]:
        attributes = _of_event(started)
        if started.tags:
            attributes["asyncflow.tags"] = list(started.tags)
        if started.origin_run_id:
            attributes["asyncflow.origin_run_id"] = started.origin_run_id
        if started.key:
            attributes["asyncflow.key"] = started.key
        span = self._tracer.start_span(
            f"run {started.flow}",
            self._within,
            attributes=attributes,
            links=_links_to(origin),
            start_time=_nanoseconds(started),
        )
        context = span.get_span_context()
        if not context.is_valid:  # there is no provider
            return {}
        name = SpanName(context.trace_id, context.span_id, context.trace_flags & 0xFF)
        trace = {PARENT: name.traceparent()}
        if context.trace_state:
            trace[STATE] = context.trace_state.to_header()
        if _names_spans(self._tracer):
            trace[ATTEMPTS] = DERIVED
        self._begun = started.pathspec
        self._runs[self._begun] = _RunSpans(self._tracer, span, name)
        return trace

    def give_up(self) -> None:
        self._runs.pop(self._begun, None)  # a span that has not ended goes nowhere


class _RunSpans:
    """The open spans of a run."""

    def __init__(self, tracer: traces.Tracer, span: traces.Span, name: SpanName) -> None:
        self._tracer, self._span, self._name = tracer, span, name
        self._within = traces.set_span_in_context(span, contexts.Context())
        self._attempts: dict[tuple[str, int], traces.Span] = {}

    def begin_attempt(self, event: TaskStarted | TaskFailed) -> traces.Span:
        attributes = _of_event(event)
        if event.path:
            attributes["asyncflow.path"] = list(event.path)
        if event.item:
            attributes["asyncflow.item"] = event.item
        with _naming(derived_id(self._name, int(event.task_id), event.attempt)):
            span = self._tracer.start_span(
                event.step, self._within, attributes=attributes, start_time=_nanoseconds(event)
            )
        self._attempts[event.task_id, event.attempt] = span
        return span

    def end_attempt(self, event: TaskSucceeded | TaskFailed, status: Status) -> None:
        span = self._attempts.pop((event.task_id, event.attempt), None)
        if span is not None:  # else its failure was caught, and has ended it
            if event.cpu_seconds is not None:
                span.set_attribute("asyncflow.cpu_seconds", event.cpu_seconds)
            if event.peak_memory is not None:
                span.set_attribute("asyncflow.peak_memory", event.peak_memory)
            span.set_attribute("asyncflow.status", str(status))
            span.end(_nanoseconds(event))

    def fail_attempt(self, event: TaskFailed) -> None:
        span = self._attempts.get((event.task_id, event.attempt))
        if span is None:  # its worker died before it began
            span = self.begin_attempt(event)
        if event.was_stopped:
            self.end_attempt(event, Status.CANCELLED)
            return
        span.set_attribute("asyncflow.will_retry", event.will_retry)
        span.set_attribute("asyncflow.caught", event.caught)
        _note_failure(span, event)
        self.end_attempt(event, Status.FAILED)

    def end(self, event: Event) -> None:
        status = Status.SUCCEEDED
        if isinstance(event, RunFailed):
            status = Status.FAILED
            _note_failure(self._span, event)
        elif isinstance(event, RunCancelled):
            status = Status.CANCELLED
            self._span.set_attribute("asyncflow.reason", event.reason)
        self._span.set_attribute("asyncflow.status", str(status))
        self._end_open(_nanoseconds(event))

    def break_off(self) -> None:
        """End the spans of a run without a last event, now."""
        self._span.set_attribute("asyncflow.status", str(Status.INTERRUPTED))
        self._end_open(None)

    def _end_open(self, time: int | None) -> None:
        for span in self._attempts.values():
            span.set_attribute("asyncflow.status", str(Status.INTERRUPTED))
            span.end(time)
        self._attempts.clear()
        self._span.end(time)


def _of_event(event: Event) -> dict[str, Any]:
    """The attributes that say what a span is of."""
    attributes: dict[str, Any] = {
        "asyncflow.flow": event.flow,
        "asyncflow.run_id": event.run_id,
        "asyncflow.pathspec": event.pathspec,
    }
    if isinstance(event, TaskEvent):
        attributes["asyncflow.step"] = event.step
        attributes["asyncflow.task_id"] = event.task_id
        attributes["asyncflow.attempt"] = event.attempt
    return attributes


def _note_failure(span: traces.Span, event: TaskFailed | RunFailed) -> None:
    """Mark a span as failed, as OpenTelemetry's conventions for exceptions say."""
    span.set_attribute("error.type", event.exception_type)
    span.add_event(
        "exception",
        {
            "exception.type": event.exception_type,
            "exception.message": event.message,
            "exception.stacktrace": event.traceback,
        },
        timestamp=_nanoseconds(event),
    )
    said = f"{event.exception_type}: {event.message}"
    span.set_status(traces.Status(traces.StatusCode.ERROR, said))


def _links_to(origin: Mapping[str, str]) -> list[traces.Link]:
    name = span_of_run(origin)
    if name is None:
        return []
    flags = traces.TraceFlags(name.flags)
    return [traces.Link(traces.SpanContext(name.trace_id, name.span_id, True, flags))]  # noqa: FBT003 - `is_remote`


def _nanoseconds(event: Event) -> int:
    return to_microseconds(event.time) * 1000


# --- spans with a known id ----------------------------------------------------------------------
#
# A worker knows the id of the span of its attempt by itself, see `derived_id`. In the API there is
# no way to begin a span with a given id. The SDK's tracers ask their `id_generator`, which a
# program may replace; ours answers with the wanted id where there is one. With a tracer of another
# kind, spans that steps make belong to the run's span.

_wanted: Final[ContextVar[int]] = ContextVar("asyncflow_span_id", default=0)


@contextmanager
def _naming(span_id: int) -> Iterator[None]:
    """Within the block, spans of a tracer that allows it have this id."""
    token = _wanted.set(span_id)
    try:
        yield
    finally:
        _wanted.reset(token)


class _SpanIds:
    """An `IdGenerator` of the SDK that answers with the wanted id."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def generate_span_id(self) -> int:
        return _wanted.get() or int(self._generator.generate_span_id())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def _names_spans(tracer: Any) -> bool:
    """Whether the tracer can begin spans with a given id, from now on."""
    generator = getattr(tracer, "id_generator", None)
    if not hasattr(generator, "generate_span_id"):
        return False
    if not isinstance(generator, _SpanIds):
        tracer.id_generator = _SpanIds(generator)
    return True
