"""
Metrics through the OpenTelemetry SDK: numbers become its data points, and its Prometheus reader puts them into text.

In: `Numbers`, taken at one moment. Out: the text format of Prometheus.
Promise: nothing of this is imported before somebody asks (2.5 MiB, 50 ms), so `Rendering` is to be made and used on a
thread. What agentd counts it counts itself (`tally.py`); the SDK is handed the sums, as its specification means a
MetricProducer to, for an instrument of the SDK takes microseconds for each event and remembers every label that it ever
saw. Instruments that a library makes with `meter_provider` come out beside ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, generate_latest

from agentd import __version__
from agentd.telemetry import catalogue
from agentd.telemetry.catalogue import METRICS, Numbers
from agentd.telemetry.tally import Labels, Seen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_BY_THE_SDK = "agentd_build_info"
"""Made with an instrument: a reader is called only when the SDK has something itself."""
_UNITS = {"seconds": "s", "bytes": "By"}
_CUMULATIVE = AggregationTemporality.CUMULATIVE


class _Reader(PrometheusMetricReader):
    """The SDK's, which also hands on what is not measured by instruments. ours: to be set before each collection."""

    ours: tuple[ResourceMetrics, ...] = ()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: object) -> None:
        found = MetricsData([*metrics_data.resource_metrics, *self.ours])
        self.ours = ()
        super()._receive_metrics(found, timeout_millis, **more)

    def hand_on(self) -> None:
        """Where the SDK has nothing of its own, and so did not call: it may be disabled by OTEL_SDK_DISABLED."""
        if self.ours:
            self._receive_metrics(MetricsData(()))


class Rendering:
    """instance: becomes `service.instance.id`. since: when counting began, seconds since the epoch."""

    def __init__(self, *, instance: str, since_s: float) -> None:
        self._registry = CollectorRegistry()  # the global one holds what any library has put there
        self._reader = _Reader(disable_target_info=True, scope_info_enabled=False, registry=self._registry)
        self._resource = Resource.create(
            {"service.name": "agentd", "service.instance.id": instance, "service.version": __version__}
        )
        self._scope = InstrumentationScope("agentd", __version__)
        self._since_ns = int(since_s * 1e9)
        self._lock = threading.Lock()
        self._build: dict[Labels, float | Seen] = {}
        self.meter_provider = MeterProvider([self._reader], self._resource, shutdown_on_exit=False)
        meter = self.meter_provider.get_meter("agentd", __version__)
        meter.create_observable_gauge(_BY_THE_SDK, [self._observe], description=METRICS[_BY_THE_SDK].what)

    def text(self, numbers: Numbers) -> bytes:
        """In the text format of Prometheus, UTF-8. Takes about 20 µs for each series."""
        with self._lock:
            self._build = numbers.values[_BY_THE_SDK]
            self._reader.ours = (self._points(numbers),)
            text: bytes = generate_latest(self._registry)
            if not text:
                self._reader.hand_on()
                text = generate_latest(self._registry)
            return text

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        names = METRICS[_BY_THE_SDK].labels
        for labels, value in self._build.items():
            if not isinstance(value, Seen):
                yield Observation(value, dict(zip(names, labels, strict=True)))

    def _points(self, numbers: Numbers) -> ResourceMetrics:
        now_ns = time.time_ns()
        found = [
            _metric(METRICS[name], series, self._since_ns, now_ns)
            for name, series in numbers.values.items()
            if series and name != _BY_THE_SDK
        ]
        return ResourceMetrics(self._resource, [ScopeMetrics(self._scope, found, "")], "")


def _metric(metric: catalogue.Metric, series: dict[Labels, float | Seen], since_ns: int, now_ns: int) -> Metric:
    unit = _UNITS.get(metric.name.removesuffix("_total").rpartition("_")[2], "")
    plain: list[NumberDataPoint] = []
    spread: list[HistogramDataPoint] = []
    for labels, value in series.items():
        attributes = dict(zip(metric.labels, labels, strict=True))
        if isinstance(value, Seen):
            spread.append(_spread(value, attributes, since_ns, now_ns))
        else:
            plain.append(NumberDataPoint(attributes, since_ns, now_ns, value))
    if metric.kind == "histogram":
        return Metric(metric.name, metric.what, unit, Histogram(spread, _CUMULATIVE))
    if metric.kind == "counter":
        return Metric(metric.name, metric.what, unit, Sum(plain, _CUMULATIVE, is_monotonic=True))
    return Metric(metric.name, metric.what, unit, Gauge(plain))


def _spread(seen: Seen, attributes: dict[str, str], since_ns: int, now_ns: int) -> HistogramDataPoint:
    # Nobody keeps the least and the most of all time; NaN says so, and no exporter of ours writes them.
    unknown = float("nan")
    return HistogramDataPoint(
        attributes, since_ns, now_ns, seen.count, seen.total, seen.counts, seen.bounds, unknown, unknown
    )
