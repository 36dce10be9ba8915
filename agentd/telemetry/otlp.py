"""
Send finished traces to an OpenTelemetry collector, from a thread of its own.

In: the spans of one trace at a time. Out: OTLP over HTTP.
Promise: `put` never blocks and the queue never grows past its bound; while the collector is down or slow the oldest
traces are given up and counted. The exporter and what it drags in is imported by the thread, and only if there is
an endpoint.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agentd.pacing import full_jitter
from agentd.telemetry.redact import redact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("agentd.telemetry")

_BATCH_SPANS = 512
_TRIES = 8


class OtlpQueue:
    """
    endpoint: base URL of the collector, `http://host:4318`; `/v1/traces` is appended unless it stands there.
    max_spans: the queue's bound. linger_s: how long a batch may wait for company. timeout_s: of one request.
    retry_base_s, retry_cap_s: waits between tries, doubling with full jitter. A batch is given up after eight tries.
    Headers and certificates come from the standard OTEL_EXPORTER_OTLP_… variables.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        max_spans: int = 8192,
        linger_s: float = 1.0,
        timeout_s: float = 10.0,
        retry_base_s: float = 1.0,
        retry_cap_s: float = 60.0,
    ) -> None:
        base = endpoint.rstrip("/")
        self._url = base if base.endswith("/v1/traces") else f"{base}/v1/traces"
        self._max_spans = max_spans
        self._linger_s = linger_s
        self._timeout_s = timeout_s
        self._retry_base_s = retry_base_s
        self._retry_cap_s = retry_cap_s
        self._traces: deque[Sequence[ReadableSpan]] = deque()
        self._queued = 0
        self._lock = threading.Lock()
        self._more = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._exporter: SpanExporter | None = None
        self._deadline: float | None = None
        self.exported = 0
        self.dropped = 0

    @property
    def queued(self) -> int:
        """Spans that wait or are being sent."""
        return self._queued

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        """Queue one trace; makes room by giving up the oldest. Never blocks."""
        if self._closing.is_set() or len(spans) > self._max_spans:
            self.dropped += len(spans)
            return
        with self._lock:
            while self._traces and self._queued + len(spans) > self._max_spans:
                lost = len(self._traces.popleft())
                self._queued -= lost
                self.dropped += lost
            if self._queued + len(spans) > self._max_spans:
                self.dropped += len(spans)
                return
            self._traces.append(spans)
            self._queued += len(spans)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)
            self._thread.start()
        if self._queued >= _BATCH_SPANS:
            self._more.set()

    def close(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds; the rest counts as dropped. Blocks, so not for the loop."""
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        self._more.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._abandon()

    def _abandon(self) -> None:
        with self._lock:
            self.dropped += self._queued
            self._queued = 0
            self._traces.clear()

    def _run(self) -> None:
        try:
            self._exporter = self._open()
        except Exception:
            log.exception("otlp_unavailable", extra={"endpoint": redact(self._url)})
            self._closing.set()
            self._abandon()
            return
        while True:
            self._more.wait(self._linger_s)
            self._more.clear()
            while batch := self._take():
                self._send(batch)
            if self._closing.is_set() and not self._traces:
                break
        self._exporter.shutdown()

    def _open(self) -> SpanExporter:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        # The exporter logs every failed try at length; one line when it begins and one when it ends is enough.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        return OTLPSpanExporter(endpoint=self._url, timeout=self._timeout_s)

    def _take(self) -> list[ReadableSpan]:
        batch: list[ReadableSpan] = []
        with self._lock:
            while self._traces and (not batch or len(batch) + len(self._traces[0]) <= _BATCH_SPANS):
                batch.extend(self._traces.popleft())
        return batch

    def _send(self, batch: list[ReadableSpan]) -> None:
        sent = False
        for attempt in range(1, _TRIES + 1):
            if self._deadline is not None and time.monotonic() >= self._deadline:
                break
            sent = self._try(batch)
            if sent:
                if attempt > 1:
                    log.info("otlp_recovered", extra={"attempts": attempt})
                break
            if attempt == 1:
                log.warning("otlp_failing", extra={"endpoint": redact(self._url), "queued": self._queued})
            wait_s = full_jitter(attempt, base_s=self._retry_base_s, cap_s=self._retry_cap_s)
            if self._closing.wait(wait_s):
                # Closing: one more try is all there is time for.
                sent = self._try(batch)
                break
        with self._lock:
            # close() may have given up on this batch, and counted it, while the request hung.
            settled = min(len(batch), self._queued)
            self._queued -= settled
            if sent:
                self.exported += len(batch)
                self.dropped -= len(batch) - settled
            else:
                self.dropped += settled

    def _try(self, batch: list[ReadableSpan]) -> bool:
        from opentelemetry.sdk.trace.export import SpanExportResult

        assert self._exporter is not None
        try:
            return self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            log.warning("otlp_error", extra={"error": redact(str(error))})
            return False
