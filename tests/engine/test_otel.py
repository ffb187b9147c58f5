"""Spans of runs and attempts, and of what steps make within them."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, StatusCode

from asyncflow import FlowSpec, Parameter, catch, current, events, otel, retry, step
from asyncflow.errors import AsyncflowError, ParameterError, RunFailedError
from asyncflow.events.types import to_microseconds
from tests.support.command_line import asyncflow


def tracing_into(path):
    """A tracer whose spans are lines of a file."""
    provider = TracerProvider()
    out = open(path, "a", encoding="utf-8")  # noqa: SIM115, PTH123 - as long as the provider
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(None) + "\n")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("a step's own")


class Traced(FlowSpec):
    file = Parameter("file", default="")

    @step
    def start(self):
        with tracing_into(self.file).start_as_current_span("in start"):
            self.names = ["one", "two"]
        self.next(self.each, foreach="names")

    @step
    async def each(self):
        with tracing_into(self.file).start_as_current_span(f"in {self.input}"):
            await anyio.sleep(0.01)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @retry(times=1, seconds=0)
    @step
    def end(self):
        if current.retry_count == 0:
            raise ValueError("once")


class Failing(FlowSpec):
    @catch(var="failure", print_exception=False)
    @step
    def start(self):
        json.loads("{}")["caught"]
        self.next(self.end)

    @step
    def end(self):
        raise ValueError("for good")


class Waiting(FlowSpec):
    @step
    async def start(self):
        await anyio.sleep(60)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def exporter():
    """Where the program's spans go."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter):
    """The program's provider of tracers."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


@pytest.fixture
async def traced(engine, provider):
    """The engine, whose runs are traced within the test."""
    with otel.instrument(engine, tracer_provider=provider):
        yield engine


async def spans_of(run_id, exporter):
    """The finished spans of a run, once its own is among them; that comes first."""
    with anyio.fail_after(180):
        while True:
            found = [
                span
                for span in exporter.get_finished_spans()
                if span.attributes.get("asyncflow.run_id") == run_id
            ]
            if any(span.name.startswith("run ") for span in found):
                return sorted(found, key=lambda span: span.start_time)
            await anyio.sleep(0.005)


def times_of(run, kind):
    """The times of a run's events of one kind, in nanoseconds."""
    return [to_microseconds(event.time) * 1000 for event in run.events(kind)]


async def test_runs_and_attempts_have_spans_with_the_times_of_their_events(
    traced, exporter, tmp_path
):
    """A span for the run, and below it one for each attempt; they begin and end with the events."""
    run = await traced.run(Traced, file=str(tmp_path / "spans"), tags=["nightly"])
    whole, *attempts = await spans_of(run.id, exporter)
    assert whole.name == "run Traced"
    assert whole.attributes["asyncflow.tags"] == ("nightly",)
    assert whole.attributes["asyncflow.status"] == "succeeded"
    assert [whole.start_time] == times_of(run, events.RunStarted)
    assert [whole.end_time] == times_of(run, events.RunSucceeded)
    assert {span.name for span in attempts} == {"start", "each", "join", "end"}
    assert {span.parent.span_id for span in attempts} == {whole.context.span_id}
    assert sorted(span.start_time for span in attempts) == times_of(run, events.TaskStarted)
    ended = [*times_of(run, events.TaskSucceeded), *times_of(run, events.TaskFailed)]
    assert sorted(span.end_time for span in attempts) == sorted(ended)
    places = {
        (span.attributes["asyncflow.path"], span.attributes["asyncflow.item"])
        for span in attempts
        if span.name == "each"
    }
    assert places == {((0,), "'one'"), ((1,), "'two'")}
    first, second = (span for span in attempts if span.name == "end")
    assert (first.status.status_code, second.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert first.attributes["error.type"] == "ValueError"
    assert first.attributes["asyncflow.will_retry"]
    (told,) = first.events
    assert told.name == "exception"
    assert 'raise ValueError("once")' in told.attributes["exception.stacktrace"]


async def test_what_a_step_traces_belongs_to_its_attempt(traced, exporter, tmp_path):
    """Spans made in workers, by `def` steps and by async steps at once, are below the attempts."""
    file = tmp_path / "spans"
    run = await traced.run(Traced, file=str(file))
    whole, *attempts = await spans_of(run.id, exporter)
    made = {span["name"]: span for span in map(json.loads, file.read_text().splitlines())}
    assert set(made) == {"in start", "in one", "in two"}
    belongs = {
        made[name]["parent_id"]: made[name]["context"]["trace_id"]
        for name in ("in start", "in one", "in two")
    }
    ids = {f"0x{span.context.span_id:016x}" for span in attempts if span.name in {"start", "each"}}
    assert set(belongs) == ids
    assert set(belongs.values()) == {f"0x{whole.context.trace_id:032x}"}


async def test_a_run_belongs_to_the_span_in_which_it_was_started(traced, exporter, provider):
    """A request that starts a run has it in its trace."""
    with provider.get_tracer("service").start_as_current_span("POST /orders") as request:
        handle = await traced.start(Failing)
    with pytest.raises(RunFailedError):
        await handle
    whole, start, end = await spans_of(handle.run_id, exporter)
    assert whole.parent.span_id == request.get_span_context().span_id
    assert whole.attributes["error.type"] == end.attributes["error.type"] == "ValueError"
    assert whole.status.status_code == StatusCode.ERROR
    assert start.attributes["asyncflow.caught"]
    assert start.attributes["error.type"] == "KeyError"


async def test_a_resumed_run_links_to_its_origin(traced, exporter):
    """The span of the run that resumes has a trace of its own, and a link to the earlier one's."""
    with pytest.raises(RunFailedError) as failed:
        await traced.run(Failing)
    origin, *_ = await spans_of(failed.value.run.id, exporter)
    with pytest.raises(RunFailedError) as again:
        await traced.resume(Failing, origin=failed.value.run)
    whole, *attempts = await spans_of(again.value.run.id, exporter)
    assert [link.context.span_id for link in whole.links] == [origin.context.span_id]
    assert whole.attributes["asyncflow.origin_run_id"] == failed.value.run.id
    assert [span.name for span in attempts] == ["end"]
    assert whole.context.trace_id != origin.context.trace_id


async def test_a_cancelled_run_has_a_status_and_no_error(traced, exporter):
    """Neither the run's span nor that of the stopped attempt is a failure."""
    handle = await traced.start(Waiting)
    async for _ in handle.events(events.TaskStarted):
        handle.cancel("enough")
    whole, attempt = await spans_of(handle.run_id, exporter)
    assert whole.attributes["asyncflow.reason"] == "enough"
    for span in (whole, attempt):
        assert span.attributes["asyncflow.status"] == "cancelled"
        assert span.status.status_code == StatusCode.UNSET
        assert "error.type" not in span.attributes


async def test_a_stopped_instrumentation_ends_the_spans_of_runs_that_go_on(
    engine, exporter, provider
):
    """Nothing is traced after it, and no span stays open."""
    instrumentation = otel.instrument(engine, tracer_provider=provider)
    handle = await engine.start(Waiting)
    async for _ in handle.events(events.TaskStarted):
        break
    instrumentation.stop()
    spans = await spans_of(handle.run_id, exporter)
    assert {span.attributes["asyncflow.status"] for span in spans} == {"interrupted"}
    handle.cancel()
    await handle.ended()
    later = await engine.start(Waiting)
    later.cancel()
    await later.ended()
    assert dict(next(iter(later.run.events(events.RunStarted))).trace) == {}
    assert len(exporter.get_finished_spans()) == len(spans)


async def test_an_engine_is_instrumented_once(traced, provider):
    """A second time would give every span twice."""
    with pytest.raises(AsyncflowError, match="instrumented already"):
        otel.instrument(traced, tracer_provider=provider)


async def test_a_run_that_cannot_be_started_has_no_span(traced, exporter):
    """Its error is told where it was started."""
    with pytest.raises(ParameterError):
        await traced.run(Traced, unknown=1)
    assert exporter.get_finished_spans() == ()


async def test_without_a_provider_a_run_is_not_traced(engine):
    """Nothing is kept with the run, so its workers do not load OpenTelemetry."""
    with (
        otel.instrument(engine, tracer_provider=NoOpTracerProvider()),
        pytest.raises(RunFailedError) as failed,
    ):
        await engine.run(Failing)
    (started,) = failed.value.run.events(events.RunStarted)
    assert dict(started.trace) == {}


async def test_a_tracer_that_chooses_all_ids_has_what_steps_trace_below_the_run(
    engine, exporter, provider, tmp_path
):
    """Where the span of an attempt cannot have a known id, the run's span is the parent."""

    class Other(NoOpTracerProvider):
        def get_tracer(self, *args, **kwargs):
            inner = provider.get_tracer("other")

            class Tracer:
                start_span = staticmethod(inner.start_span)

            return Tracer()

    file = tmp_path / "spans"
    with otel.instrument(engine, tracer_provider=Other()):
        run = await engine.run(Traced, file=str(file))
        whole, *_ = await spans_of(run.id, exporter)
    made = [json.loads(line) for line in file.read_text().splitlines()]
    assert {span["parent_id"] for span in made} == {f"0x{whole.context.span_id:016x}"}


PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
from asyncflow import FlowSpec, step

out = open(__file__ + ".spans", "a")
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(None) + "\\n")
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))


class Told(FlowSpec):
    @step
    def start(self):
        with trace.get_tracer("own").start_as_current_span("inside"):
            self.x = 1
        self.next(self.end)

    @step
    def end(self):
        pass
"""


def test_the_command_line_traces_with_the_provider_of_the_flows_file(store, tmp_path):
    """The spans of the command and those of its workers are one trace."""
    file = tmp_path / "told.py"
    file.write_text(PROGRAM)
    assert asyncflow("run", file, "--otel", "--quiet").status == 0
    spans = [json.loads(line) for line in Path(f"{file}.spans").read_text().splitlines()]
    named = {span["name"]: span for span in spans}
    assert set(named) == {"run Told", "start", "inside", "end"}
    assert named["inside"]["parent_id"] == named["start"]["context"]["span_id"]
    assert named["start"]["parent_id"] == named["run Told"]["context"]["span_id"]
