"""The exporter against real collectors: a good one, a dead one, one that hangs, one that fails at first."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentd.telemetry.otlp import OtlpQueue
from agentd.telemetry.traces import Traces

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # a request given up on leaves its socket to the GC


class Collector:
    """Takes OTLP requests and answers with the statuses it was told, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.statuses = list(statuses)
        self.changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces"
                status = collector.statuses.pop(0) if collector.statuses else 200
                if status == 200:
                    with collector.changed:
                        collector.requests.append(ExportTraceServiceRequest.FromString(body))
                        collector.changed.notify_all()
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def names(self) -> list[str]:
        return [
            span.name
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def wait_for(self, done: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(done, timeout=20), "the collector waited in vain"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def make_collector() -> Iterator[Callable[..., Collector]]:
    opened: list[Collector] = []

    def make(*statuses: int) -> Collector:
        opened.append(Collector(*statuses))
        return opened[-1]

    yield make
    for collector in opened:
        collector.close()


@pytest.fixture
def dead_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def hanging_port() -> Iterator[int]:
    """Connects, and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield int(listener.getsockname()[1])


def tracing(queue: OtlpQueue) -> Traces:
    return Traces(queue, sample=1.0, instance="web-1", keep=None)


def test_spans_reach_the_collector_with_the_resource(make_collector: Callable[..., Collector]) -> None:
    """What a backend groups by must be right: service, instance, version."""
    collector = make_collector()
    queue = OtlpQueue(collector.url, linger_s=0.01)

    with tracing(queue).tracer.start_as_current_span("check", attributes={"agentd.watch": "shop"}):
        pass
    collector.wait_for(lambda: bool(collector.requests))

    [resource] = collector.requests[0].resource_spans
    values = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert values["service.name"] == "agentd"
    assert values["service.instance.id"] == "web-1"
    assert values["service.version"]
    [span] = resource.scope_spans[0].spans
    assert span.name == "check"
    assert len(span.trace_id) == 16


async def test_closing_sends_what_still_waits(make_collector: Callable[..., Collector]) -> None:
    """The last runs before a stop are the ones that say why it was stopped."""
    collector = make_collector()
    traces = tracing(OtlpQueue(collector.url, linger_s=3600))

    for number in range(5):
        traces.tracer.start_span(f"check-{number}").end()
    await traces.close(timeout_s=20)

    assert collector.names() == [f"check-{number}" for number in range(5)]
    assert traces.stats().exported == 5
    assert traces.stats().queued == traces.stats().dropped == 0


def test_a_collector_that_fails_gets_the_batch_again(make_collector: Callable[..., Collector]) -> None:
    """A restart of the collector must not cost the traces of that moment."""
    collector = make_collector(500, 500)
    queue = OtlpQueue(collector.url, linger_s=0.01, retry_base_s=0.01)

    tracing(queue).tracer.start_span("check").end()
    collector.wait_for(lambda: bool(collector.requests))

    queue.close(timeout_s=20)
    assert collector.names() == ["check"]
    assert (queue.exported, queue.dropped, queue.queued) == (1, 0, 0)


@pytest.mark.parametrize("port", ["dead_port", "hanging_port"])
def test_a_dead_or_hanging_collector_costs_only_the_oldest_traces(port: str, request: pytest.FixtureRequest) -> None:
    """Neither memory nor the caller may depend on a collector."""
    queue = OtlpQueue(f"http://127.0.0.1:{request.getfixturevalue(port)}", max_spans=100, timeout_s=0.1, linger_s=0.01)
    tracer = tracing(queue).tracer

    for number in range(1000):
        tracer.start_span(f"check-{number}").end()
        assert queue.queued <= 100

    assert queue.dropped >= 900
    queue.close(timeout_s=0)
    assert (queue.exported, queue.queued) == (0, 0)
    assert queue.dropped == 1000
    queue.close(timeout_s=20)  # the request under way ends too, so that its log line is not the next test's
    assert queue.dropped == 1000


def test_a_full_queue_gives_up_the_oldest(make_collector: Callable[..., Collector]) -> None:
    """After an outage the latest runs are the ones people look for."""
    collector = make_collector()
    queue = OtlpQueue(collector.url, max_spans=10, linger_s=3600)
    tracer = tracing(queue).tracer

    for number in range(25):
        tracer.start_span(f"check-{number}").end()
    queue.close(timeout_s=20)

    assert collector.names() == [f"check-{number}" for number in range(15, 25)]
    assert (queue.exported, queue.dropped) == (10, 15)


def test_an_outage_is_logged_in_a_few_words(dead_port: int, caplog: pytest.LogCaptureFixture) -> None:
    """A collector that is down for a night must not fill the log, nor may its URL's password stand there."""
    with caplog.at_level(logging.DEBUG):
        queue = OtlpQueue(f"http://me:hunter22@127.0.0.1:{dead_port}", timeout_s=0.1, linger_s=0.01, retry_cap_s=0.01)
        tracing(queue).tracer.start_span("check").end()
        queue.close(timeout_s=20)

    ours = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in ours] == ["otlp_failing"]
    assert "hunter22" not in str(ours[0].__dict__)
    assert queue.dropped == 1


def test_without_an_endpoint_no_exporter_is_imported() -> None:
    """requests and protobuf cost an idle daemon megabytes that it never gives back."""
    code = (
        "import sys\n"
        "from agentd.telemetry.traces import open_traces\n"
        "traces = open_traces(otlp_endpoint=None, sample=1.0, instance='x', keep=None)\n"
        "traces.tracer.start_span('check').end()\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('requests', 'google', 'urllib3')])\n"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "[]"
