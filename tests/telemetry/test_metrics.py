"""Numbers become text through the OpenTelemetry SDK and its Prometheus reader."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from agentd.telemetry.catalogue import CATALOGUE, Numbers
from agentd.telemetry.metrics import Rendering
from agentd.telemetry.tally import Spread

FROM_THE_START = {
    (metric.name, tuple(sorted(zip(metric.labels, labels, strict=True))))
    for metric in CATALOGUE
    for labels in metric.always
}


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def numbers_of_all_kinds() -> Numbers:
    numbers = Numbers()
    numbers.put("agentd_build_info", 1, "1.2", "3.11")
    numbers.put("agentd_checks_total", 7, "http", "ok")
    numbers.put("agentd_watch_up", 0, 'a "b"\n\\c', "tcp")
    spread = Spread((0.5, 1.0))
    for value in (0.25, 0.5, 4.0):
        spread.add(value)
    numbers.put("agentd_check_duration_seconds", spread.seen(), "http")
    return numbers


def test_every_kind_comes_out_as_it_was_put_in() -> None:
    """Counters, gauges and the histograms that no observable instrument of the SDK could give."""
    found = samples(Rendering(instance="web-1", since_s=0.0).text(numbers_of_all_kinds()))

    assert {key: value for key, value in found.items() if key not in FROM_THE_START} == {
        ("agentd_build_info", (("python", "3.11"), ("version", "1.2"))): 1.0,
        ("agentd_checks_total", (("kind", "http"), ("verdict", "ok"))): 7.0,
        ("agentd_watch_up", (("kind", "tcp"), ("watch", 'a "b"\n\\c'))): 0.0,
        ("agentd_check_duration_seconds_bucket", (("kind", "http"), ("le", "0.5"))): 2.0,
        ("agentd_check_duration_seconds_bucket", (("kind", "http"), ("le", "1.0"))): 2.0,
        ("agentd_check_duration_seconds_bucket", (("kind", "http"), ("le", "+Inf"))): 3.0,
        ("agentd_check_duration_seconds_count", (("kind", "http"),)): 3.0,
        ("agentd_check_duration_seconds_sum", (("kind", "http"),)): 4.75,
    }


def test_nothing_is_left_of_the_numbers_before() -> None:
    """A watch that is gone must not be told of for ever."""
    rendering = Rendering(instance="web-1", since_s=0.0)
    rendering.text(numbers_of_all_kinds())

    assert set(samples(rendering.text(Numbers()))) == FROM_THE_START


def test_the_registry_of_other_libraries_is_left_alone() -> None:
    """A daemon in somebody's process must not put its numbers among theirs, nor theirs among its own."""
    before = set(REGISTRY._names_to_collectors)
    Rendering(instance="a", since_s=0.0).text(numbers_of_all_kinds())
    text = Rendering(instance="b", since_s=0.0).text(numbers_of_all_kinds())

    assert set(REGISTRY._names_to_collectors) == before
    assert b"python_info" not in text


def test_an_instrument_of_the_sdk_comes_out_beside_ours() -> None:
    """What a library measures through OpenTelemetry belongs to the daemon's numbers."""
    rendering = Rendering(instance="web-1", since_s=0.0)
    rendering.meter_provider.get_meter("library").create_counter("library_calls").add(3, {"kind": "x"})

    found = samples(rendering.text(numbers_of_all_kinds()))

    assert found["library_calls_total", (("kind", "x"),)] == 3.0
    assert found["agentd_checks_total", (("kind", "http"), ("verdict", "ok"))] == 7.0


def test_who_turns_the_sdk_off_still_gets_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SDK_DISABLED is meant for traces to a collector; an empty /metrics would look like a dead daemon."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    rendering = Rendering(instance="web-1", since_s=0.0)

    for _ in range(2):
        found = samples(rendering.text(numbers_of_all_kinds()))
        assert found["agentd_checks_total", (("kind", "http"), ("verdict", "ok"))] == 7.0


def test_a_daemon_that_nobody_asks_loads_no_library_for_metrics() -> None:
    """An idle daemon has to stay below 64 MiB; these would take 3."""
    libraries = ("prometheus_client", "opentelemetry.sdk.metrics", "opentelemetry.exporter")
    heavy = (*libraries, "agentd.daemon.gauging", "agentd.telemetry.catalogue")
    code = f"import sys, agentd.daemon.app; print([name for name in sys.modules if name.startswith({heavy})])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
