"""
What a span costs: our collector, with each of its sinks, beside the SDK's own batch processor.

A run is a root and three children with four attributes each, started the way the main path does. Median of five
alternating rounds of CPU time, so background threads count too. The aim: at most 15 µs a span, all in.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Tracer, set_span_in_context

from agentd.telemetry.traces import WATCH, EmbeddedSpans, RunSpan, open_traces

RUNS = 3000
ROUNDS = 5
SPANS_A_RUN = 4


class Null(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def nowhere(spans: list[RunSpan]) -> None:
    pass


def work(tracer: Tracer) -> None:
    for number in range(RUNS):
        run = tracer.start_span("check", attributes={WATCH: f"watch-{number % 500}", "agentd.trigger": "interval"})
        context = set_span_in_context(run)
        for name in ("probe http", "conditions", "commit"):
            span = tracer.start_span(name, context=context, attributes={"peer": "192.0.2.1:443"})
            span.set_attributes({"status": 200, "latency_ms": 12.4, "http_version": "1.1"})
            span.end()
        run.end()


def cpu_us(tracer: Tracer) -> float:
    start = time.process_time()
    work(tracer)
    return (time.process_time() - start) / (RUNS * SPANS_A_RUN) * 1e6


def stock() -> Tracer:
    provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource({}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Null()))
    return provider.get_tracer("bench")


def ours(sample: float, keep: EmbeddedSpans | Callable[[list[RunSpan]], None] | None) -> Tracer:
    return open_traces(otlp_endpoint=None, sample=sample, instance="bench", keep=keep).tracer


def main() -> None:
    ways = {
        "SDK, batch processor, null exporter": stock(),
        "agentd, healthy runs sampled out": ours(0.0, None),
        "agentd, one healthy run a watch in 10 s stored": ours(1.0, EmbeddedSpans(nowhere)),
        "agentd, every run stored": ours(1.0, nowhere),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, tracer in ways.items():
            times[name].append(cpu_us(tracer))
    base = statistics.median(next(iter(times.values())))
    print(f"{'CPU a span':<50} {'µs':>6} {'ratio':>6}")
    for name, rounds in times.items():
        middle = statistics.median(rounds)
        print(f"{name:<50} {middle:>6.1f} {middle / base:>6.2f}")


if __name__ == "__main__":
    main()
