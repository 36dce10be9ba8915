"""What is kept of the traces, and how it looks."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import Link, Status, StatusCode, set_span_in_context, use_span

from agentd.telemetry import traces as module
from agentd.telemetry.traces import (
    KEEP,
    WATCH,
    EmbeddedSpans,
    RunSpan,
    Traces,
    context_from,
    current_ids,
    open_traces,
    traceparent,
)

Kept = list[list[RunSpan]]


def opened(kept: Kept, *, sample: float = 1.0) -> Traces:
    return open_traces(otlp_endpoint=None, sample=sample, instance="web-1", keep=kept.append)


def run(traces: Traces, *, name: str = "check", failed: bool = False, **attributes: Any) -> str:
    root = traces.tracer.start_span(name, attributes=attributes)
    child = traces.tracer.start_span("probe", context=set_span_in_context(root))
    if failed:
        child.set_status(Status(StatusCode.ERROR, "refused"))
    child.end()
    root.end()
    return f"{root.get_span_context().trace_id:032x}"


def test_a_finished_trace_is_handed_on_whole_root_last() -> None:
    """The store writes a run as one: a half trace cannot be read."""
    kept: Kept = []
    traces = opened(kept)

    trace_id = run(traces)

    [[probe, check]] = kept
    assert [probe["name"], check["name"]] == ["probe", "check"]
    assert probe["trace_id"] == check["trace_id"] == trace_id
    assert probe["parent"] == check["span_id"]
    assert check["parent"] is None
    assert check["start_us"] <= probe["start_us"] <= probe["end_us"] <= check["end_us"]


def test_nothing_is_handed_on_before_the_root_has_ended() -> None:
    """Whether a trace is kept is only known at its end."""
    kept: Kept = []
    traces = opened(kept)

    root = traces.tracer.start_span("check")
    traces.tracer.start_span("probe", context=set_span_in_context(root)).end()

    assert kept == []
    assert traces.stats().open == 1
    root.end()
    assert traces.stats().open == 0


def test_a_failure_anywhere_keeps_the_whole_trace() -> None:
    """Sampling must never lose the runs that somebody will ask about."""
    kept: Kept = []
    traces = opened(kept, sample=0.0)

    run(traces)
    run(traces, failed=True)

    [[probe, check]] = kept
    assert (probe["status"], probe["status_text"]) == ("error", "refused")
    assert check["status"] == "unset"
    assert traces.stats().sampled_out == 1


def test_a_trace_marked_keep_is_kept() -> None:
    """A run that changed an alert is of interest though nothing in it failed."""
    kept: Kept = []
    traces = opened(kept, sample=0.0)

    traces.tracer.start_span("check", attributes={KEEP: True}).end()

    assert len(kept) == 1


def test_about_the_sampled_share_of_healthy_traces_is_kept() -> None:
    """The share is chosen by trace id, so that every process chooses the same."""
    kept: Kept = []
    traces = opened(kept, sample=0.25)

    ids = [run(traces) for _ in range(400)]

    expected = {trace_id for trace_id in ids if int(trace_id[16:], 16) < 2**64 // 4}
    assert {spans[-1]["trace_id"] for spans in kept} == expected
    assert 40 < len(kept) < 160


def test_a_later_part_of_a_kept_trace_is_kept_with_it() -> None:
    """The delivery follows minutes later, with the run as its remote parent."""
    kept: Kept = []
    traces = opened(kept, sample=0.0)
    root = traces.tracer.start_span("check", attributes={KEEP: True})
    parent = traceparent(root)
    root.end()

    traces.tracer.start_span("deliver", context=context_from(parent)).end()

    [[check], [deliver]] = kept
    assert deliver["trace_id"] == check["trace_id"]
    assert deliver["parent"] == check["span_id"]


def test_a_span_that_outlives_the_root_of_a_kept_trace_is_kept() -> None:
    """A cancelled task may end its span after the run is over."""
    kept: Kept = []
    traces = opened(kept, sample=0.0)
    root = traces.tracer.start_span("check", attributes={KEEP: True})
    late = traces.tracer.start_span("late", context=set_span_in_context(root))
    root.end()
    late.end()

    assert [span["name"] for spans in kept for span in spans] == ["check", "late"]
    assert traces.stats().open == 0


def test_traces_that_never_end_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leak of spans must not become a leak of memory."""
    monkeypatch.setattr(module, "_MOST_OPEN", 10)
    traces = opened([])

    leaked = [traces.tracer.start_span("check") for _ in range(25)]

    assert traces.stats().open == 10
    assert traces.stats().evicted == 15
    for span in leaked:
        span.end()
    assert traces.stats().open == 0


def test_the_spans_of_one_trace_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A goal may take thousands of steps."""
    monkeypatch.setattr(module, "_MOST_SPANS", 10)
    kept: Kept = []
    traces = opened(kept)
    root = traces.tracer.start_span("goal")
    for _ in range(25):
        traces.tracer.start_span("step", context=set_span_in_context(root)).end()
    root.end()

    assert len(kept[0]) == 11
    assert kept[0][-1]["name"] == "goal"
    assert traces.stats().dropped == 15


def test_a_sink_that_raises_does_not_fail_the_run() -> None:
    """The store may be full or closing; the check goes on."""

    def refuse(spans: list[RunSpan]) -> None:
        raise OSError("full")

    traces = open_traces(otlp_endpoint=None, sample=1.0, instance="web-1", keep=refuse)

    run(traces)

    assert traces.stats().dropped == 2


def test_attributes_events_and_links_become_plain_values() -> None:
    """The record is written as JSON."""
    kept: Kept = []
    traces = opened(kept)
    other = traces.tracer.start_span("other")
    span = traces.tracer.start_span(
        "deliver", attributes={"status": 200, "hosts": ["a", "b"]}, links=[Link(other.get_span_context())]
    )
    span.add_event("retry", {"after_s": 5.0})
    span.end()

    record = kept[0][0]
    assert record["attributes"] == {"status": 200, "hosts": ["a", "b"]}
    assert record["events"][0]["name"] == "retry"
    assert record["events"][0]["attributes"] == {"after_s": 5.0}
    assert record["links"] == [traceparent(other)]


def test_a_long_value_is_cut_without_a_log_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile body in an attribute must fill neither the store nor the log."""
    kept: Kept = []
    traces = opened(kept)

    run(traces, body="x" * 100_000)

    assert len(kept[0][-1]["attributes"]["body"]) == 4096
    assert not caplog.records


def test_secrets_in_exceptions_do_not_reach_the_trace() -> None:
    """An exception quotes what it was working on, a header or a URL included."""
    kept: Kept = []
    traces = opened(kept)
    with pytest.raises(ValueError, match="Bearer"), traces.tracer.start_as_current_span("deliver"):
        raise ValueError("sent Authorization: Bearer abcdef123456 to https://user:hunter22@example.com/")

    text = str(kept)
    assert "abcdef123456" not in text
    assert "hunter22" not in text
    assert "example.com" in text


def test_one_healthy_trace_a_watch_in_ten_seconds_is_stored() -> None:
    """500 checks a second must not write 500 rows a second; failures are all written."""
    kept: Kept = []
    traces = open_traces(otlp_endpoint=None, sample=1.0, instance="web-1", keep=EmbeddedSpans(kept.append))

    def at(second: int, watch: str, status: StatusCode = StatusCode.OK) -> None:
        span = traces.tracer.start_span("check", attributes={WATCH: watch}, start_time=second * 10**9)
        span.set_status(status)
        span.end(second * 10**9)

    for second in range(100, 121):
        at(second, "shop")
        at(second, "mail")
    at(121, "shop", StatusCode.ERROR)

    stored = [(spans[-1]["attributes"][WATCH], spans[-1]["end_us"] // 10**6) for spans in kept]
    assert stored == [
        *[("shop", 100), ("mail", 100), ("shop", 110), ("mail", 110), ("shop", 120), ("mail", 120)],
        ("shop", 121),
    ]


def test_a_wall_clock_set_back_does_not_mute_a_watch() -> None:
    """Span times are wall times."""
    kept: Kept = []
    policy = EmbeddedSpans(kept.append)
    traces = open_traces(otlp_endpoint=None, sample=1.0, instance="web-1", keep=policy)

    for second in (10_000, 100):
        traces.tracer.start_span("check", attributes={WATCH: "shop"}).end(second * 10**9)

    assert len(kept) == 2


def test_the_ids_of_the_current_span_are_those_of_its_traceparent() -> None:
    """Logs, payloads and headers must name the same trace."""
    traces = opened([])
    span = traces.tracer.start_span("check")

    assert current_ids() is None
    with use_span(span, end_on_exit=True):
        ids = current_ids()

    assert ids is not None
    assert traceparent(span) == f"00-{ids[0]}-{ids[1]}-03"  # sampled, and a random trace id


@pytest.mark.parametrize("text", [None, "", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 10_000])
def test_an_unreadable_traceparent_starts_a_trace_of_its_own(text: str | None) -> None:
    """It comes from an outbox row or a stranger's header; it must not fail the delivery."""
    kept: Kept = []
    traces = opened(kept)

    traces.tracer.start_span("deliver", context=context_from(text)).end()

    assert kept[0][0]["parent"] is None
