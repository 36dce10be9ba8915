"""
Traces: one run is one trace, and the decision to keep it is taken when it is over.

In: spans, made with `Traces.tracer`. Out: kept traces, to a collector (`otlp.py`) and to the embedded store.
Promise: a trace that holds a failure, or the attribute `agentd.keep`, is kept whole; of the others the share `sample`,
chosen by trace id, so that every process chooses the same. Nothing here blocks, and everything that collects is bounded
and counts what it lets go.

A trace may come in parts: a delivery that follows an alert minutes later carries the run's `traceparent` as its parent.
Each part is judged when its own local root ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as ApiSpan
from opentelemetry.trace import Status, StatusCode, Tracer, get_current_span, set_tracer_provider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentd import __version__
from agentd.telemetry.embedded import KEEP, WATCH, EmbeddedSpans, RunSpan, compact
from agentd.telemetry.otlp import OtlpQueue
from agentd.telemetry.redact import redact

__all__ = [
    "KEEP",
    "WATCH",
    "EmbeddedSpans",
    "RunSpan",
    "TraceStats",
    "Traces",
    "context_from",
    "current_ids",
    "open_traces",
    "traceparent",
]

_MOST_OPEN = 10_000
_MOST_SPANS = 2_000
_MOST_REMEMBERED = 2_000
_LONGEST_VALUE = 4096
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class TraceStats:
    """
    Of spans: exported (a collector took them), queued (for it), dropped (queue full, collector dead, trace too long).
    Of traces: kept and sampled_out (by decision), open (not over yet), evicted (too many were open).
    """

    exported: int
    dropped: int
    queued: int
    kept: int
    sampled_out: int
    open: int
    evicted: int


def open_traces(
    *,
    otlp_endpoint: str | None,
    sample: float,
    instance: str,
    keep: EmbeddedSpans | Callable[[list[RunSpan]], None] | None,
) -> Traces:
    """
    Start tracing.

    otlp_endpoint: base URL of a collector, `http://host:4318`, or None.
    sample: the share of healthy traces to keep, 0 … 1.
    instance: becomes `service.instance.id`.
    keep: takes the spans of each kept trace, root last; an `EmbeddedSpans` also chooses among them. Called where the
    root ends, so it must not block.
    """
    exporter = None if otlp_endpoint is None else OtlpQueue(otlp_endpoint)
    return Traces(exporter, sample=sample, instance=instance, keep=keep)


class Traces:
    """The tracer, and what became of its spans."""

    def __init__(
        self,
        exporter: OtlpQueue | None,
        *,
        sample: float,
        instance: str,
        keep: EmbeddedSpans | Callable[[list[RunSpan]], None] | None,
    ) -> None:
        if keep is not None and not isinstance(keep, EmbeddedSpans):
            keep = EmbeddedSpans(keep, every_s=0)
        self._exporter = exporter
        self._collector = TraceCollector(exporter, keep, sample)
        # Attributes quote what targets send; cutting them is no news, and not one log line each.
        logging.getLogger("opentelemetry.attributes").setLevel(logging.ERROR)
        # Our own SIGTERM path closes it; the SDK's atexit hook would wait for a dead collector.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {"service.name": "agentd", "service.instance.id": instance, "service.version": __version__}
            ),
            shutdown_on_exit=False,
            span_limits=SpanLimits(max_attribute_length=_LONGEST_VALUE, max_span_attribute_length=_LONGEST_VALUE),
        )
        self._provider.add_span_processor(self._collector)
        self.tracer: Tracer = self._provider.get_tracer("agentd", __version__)

    def use_everywhere(self) -> None:
        """Let every library of this process trace here: for a process that is ours alone, once."""
        set_tracer_provider(self._provider)

    def stats(self) -> TraceStats:
        exporter, collector = self._exporter, self._collector
        return TraceStats(
            exported=exporter.exported if exporter else 0,
            dropped=(exporter.dropped if exporter else 0) + collector.dropped,
            queued=exporter.queued if exporter else 0,
            kept=collector.kept,
            sampled_out=collector.sampled_out,
            open=collector.open,
            evicted=collector.evicted,
        )

    async def close(self, timeout_s: float) -> None:
        """Send what waits for the collector, for at most `timeout_s` seconds."""
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close, timeout_s)


class _Part:
    """The ended spans of a trace whose local root is still open."""

    __slots__ = ("failed", "roots", "spans")

    def __init__(self) -> None:
        self.roots = 0
        self.failed = False
        self.spans: list[ReadableSpan] = []


class TraceCollector(SpanProcessor):
    """Gathers the spans of each trace until its root ends, then keeps or forgets it."""

    def __init__(self, exporter: OtlpQueue | None, keep: EmbeddedSpans | None, sample: float) -> None:
        self._exporter = exporter
        self._keep = keep
        # As OpenTelemetry's TraceIdRatioBased: the low 64 bits against the share of 2^64.
        self._bound = round(sample * 2**64)
        self._parts: dict[int, _Part] = {}
        self._remembered: dict[int, None] = {}
        self._lock = threading.Lock()
        self.kept = 0
        self.sampled_out = 0
        self.evicted = 0
        self.dropped = 0

    @property
    def open(self) -> int:
        return len(self._parts)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        parent = span.parent
        if parent is not None and not parent.is_remote:
            return
        trace_id = span.get_span_context().trace_id
        with self._lock:
            part = self._parts.get(trace_id)
            if part is None:
                if len(self._parts) >= _MOST_OPEN:
                    self._evict()
                part = self._parts[trace_id] = _Part()
            part.roots += 1

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        if context is None:
            return
        trace_id = context.trace_id
        part = self._parts.get(trace_id)
        if part is None:
            self._late(trace_id, span)
            return
        if span.status.status_code is StatusCode.ERROR:
            part.failed = True
        parent = span.parent
        if parent is not None and not parent.is_remote:
            if len(part.spans) < _MOST_SPANS:
                part.spans.append(span)
            else:
                self.dropped += 1
            return
        part.spans.append(span)
        if KEEP in (span.attributes or ()):
            part.failed = True
        with self._lock:
            part.roots -= 1
            if part.roots > 0 or self._parts.pop(trace_id, None) is None:
                return
        # The delivery of a kept run's alert is kept with it, though nothing failed in the delivery itself.
        self._decide(trace_id, part.spans, part.failed or trace_id in self._remembered)

    def _late(self, trace_id: int, span: ReadableSpan) -> None:
        """A span that outlived its root goes the way of its trace; of healthy ones the store wants no stragglers."""
        if span.status.status_code is StatusCode.ERROR or trace_id in self._remembered:
            self._decide(trace_id, [span], failed=True)
        elif self._exporter is not None and self._sampled(trace_id):
            _redact(span)
            self._exporter.put([span])

    def _sampled(self, trace_id: int) -> bool:
        return (trace_id & 0xFFFFFFFFFFFFFFFF) < self._bound

    def _decide(self, trace_id: int, spans: list[ReadableSpan], failed: bool) -> None:
        if not failed and not self._sampled(trace_id):
            self.sampled_out += 1
            return
        self.kept += 1
        if failed:
            self._remember(trace_id)
        for span in spans:
            _redact(span)
        if self._exporter is not None:
            self._exporter.put(spans)
        if self._keep is not None and self._keep.wants(spans[-1], failed):
            try:
                self._keep([compact(span) for span in spans])
            except Exception:
                # A full or closing store must not fail the run whose trace this is.
                self.dropped += len(spans)

    def _remember(self, trace_id: int) -> None:
        with self._lock:
            self._remembered[trace_id] = None
            if len(self._remembered) > _MOST_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]

    def _evict(self) -> None:
        oldest = next(iter(self._parts))
        self.dropped += len(self._parts.pop(oldest).spans)
        self.evicted += 1


def _redact(span: ReadableSpan) -> None:
    """Exceptions bring text from anywhere: their messages and stack traces may quote a URL or a header."""
    if span.status.description is not None:
        span._status = Status(span.status.status_code, redact(span.status.description)[:_LONGEST_VALUE])
    for event in span.events:
        attributes = event.attributes or {}
        event._attributes = {key: _redacted(value) for key, value in attributes.items()}


def _redacted(value: Any) -> Any:
    return redact(value) if isinstance(value, str) else value


def traceparent(span: ApiSpan) -> str:
    """The span's identity as a W3C `traceparent`: for headers, payloads and outbox rows."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"


def context_from(parent: str | None) -> Context:
    """The context that makes a new span a child of `parent`, a `traceparent`; empty when there is none to be read."""
    if not parent:
        return Context()
    return _PROPAGATOR.extract({"traceparent": parent}, Context())


def current_ids() -> tuple[str, str] | None:
    """(trace id, span id) of the span we are in, in hex, or None outside of any."""
    context = get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
