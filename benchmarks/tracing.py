"""What OpenTelemetry costs: a run whose attempts have spans, beside the same run without.

Both are measured in turn on one warm engine. Spans go through the SDK's batch processor to an
exporter that drops them, so what a collector takes is not included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import anyio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from asyncflow import Engine, otel
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

WORKERS = 2


class _Dropping(SpanExporter):
    """Takes spans, and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Drop them."""
        del spans
        return SpanExportResult.SUCCESS


async def compare(tasks: int, rounds: int) -> None:
    """Print rates and CPU times with and without spans, and their ratios."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Dropping(), max_queue_size=4 * tasks))
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(store=folder, workers=WORKERS) as engine:
            await engine.run(NoOps, width=tasks)
            for traced in [False, True] * rounds:
                spans = otel.instrument(engine, tracer_provider=provider) if traced else None
                began, cpu_began = time.perf_counter(), time.process_time()
                with spans or nullcontext():
                    await engine.run(NoOps, width=tasks)
                rates[traced].append(tasks / (time.perf_counter() - began))
                cpu[traced].append((time.process_time() - cpu_began) / tasks * 1e6)
    provider.shutdown()
    print(f"{tasks} tasks, {WORKERS} workers, median of {rounds} rounds")
    for traced, name in ((False, "without spans"), (True, "with spans")):
        rate, used = statistics.median(rates[traced]), min(cpu[traced])
        print(f"{name}: {rate:.0f} tasks/s, at least {used:.0f} µs of the engine for each")
    ratio = statistics.median(rates[True]) / statistics.median(rates[False])
    print(f"ratio of the rates {ratio:.2f}")


def main(tasks: int = 3000, rounds: int = 5) -> None:
    """Measure it."""
    anyio.run(compare, tasks, rounds)


if __name__ == "__main__":
    main()
