"""
Every metric there is: its name, what it counts, and by what.

Out: `Metric`s by name, and `Numbers`, which takes their values at one moment. Promise: nothing is given out that does
not stand here, with exactly these labels; no label takes free text. Units are base units, and end the name, but for two
names that others have fixed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

from agentd.telemetry.tally import Labels, Seen

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class Metric:
    """
    merge: what becomes of two values with the same labels, as of all watches beyond the bound. always: label values of
    series that are there from the start, at 0, so that the first event is a rise and not a beginning.
    """

    name: str
    kind: Kind
    what: str
    labels: Labels = ()
    merge: Merge = "sum"
    always: tuple[Labels, ...] = ()


def _counter(name: str, what: str, *labels: str, always: Iterable[Labels] = ()) -> Metric:
    return Metric(name, "counter", what, labels, always=tuple(always))


def _gauge(name: str, what: str, *labels: str, merge: Merge = "sum") -> Metric:
    return Metric(name, "gauge", what, labels, merge)


def _histogram(name: str, what: str, *labels: str) -> Metric:
    return Metric(name, "histogram", what, labels)


CATALOGUE: tuple[Metric, ...] = (
    # The service, under names that others have fixed.
    _counter(
        "ai_agent_requests_total",
        "Requests that the API answered.",
        "method",
        "route",
        "status",
        always=[("GET", "/metrics", "200")],
    ),
    _histogram("ai_agent_request_duration_seconds", "Time from a request to the end of its answer.", "method", "route"),
    _counter("ai_agent_tasks_total", "Runs of agents that began, whoever asked for them."),
    _counter("ai_agent_tasks_completed_total", "Runs of agents that came to their end."),
    _counter("ai_agent_tasks_failed_total", "Runs of agents that failed or were interrupted."),
    _gauge("ai_agent_active_tasks", "Runs of agents under way."),
    _gauge("ai_agent_cpu_usage_percent", "CPU that the daemon took since it was asked last, in percent of one core."),
    _gauge("ai_agent_memory_usage_mb", "Resident memory of the daemon, in units of 1,048,576 bytes."),
    # The daemon itself.
    _gauge("agentd_build_info", "1; the labels say what runs.", "version", "python"),
    _gauge("agentd_ready", "1 when checks run, 0 while the daemon starts or stops."),
    _gauge("agentd_config_last_reload_successful", "1 when the configuration that was read last is in use."),
    _gauge("agentd_config_last_reload_success_timestamp_seconds", "When the configuration in use was read."),
    _gauge("agentd_outbox_held", "1 while messages are held back since a restore."),
    _histogram("agentd_loop_lag_seconds", "How late the event loop turned, looked at every second."),
    _gauge("agentd_memory_limit_bytes", "Resident memory above which the daemon restarts itself; 0: none."),
    _gauge("agentd_event_listeners", "Listeners to the stream of events."),
    _gauge("agentd_api_requests_in_flight", "Requests that the API has not answered to the end."),
    _gauge("process_start_time_seconds", "When the process started."),
    _counter("process_cpu_seconds_total", "CPU time that the process took, in user and system mode."),
    _gauge("process_resident_memory_bytes", "Resident memory of the process."),
    _gauge("process_virtual_memory_bytes", "Address space of the process."),
    _gauge("process_open_fds", "File descriptors that the process has open."),
    _gauge("process_max_fds", "File descriptors that the process may open."),
    _gauge("process_threads", "Threads of the process."),
    _counter("python_gc_collections_total", "Runs of Python's cycle collector.", "generation"),
    # Watches and checks.
    _gauge("agentd_watches", "Watches by what was found last; `waiting` ones were not looked at yet.", "verdict"),
    _gauge("agentd_watches_paused", "Watches that somebody has paused."),
    _gauge("agentd_watch_up", "1 when the watch was found well last, 0 when failing.", "watch", "kind", merge="min"),
    _gauge("agentd_watch_blind", "1 when the watch could not be looked at last.", "watch", "kind", merge="max"),
    _gauge(
        "agentd_watch_last_check_timestamp_seconds", "When the watch was looked at last.", "watch", "kind", merge="min"
    ),
    _gauge("agentd_watch_last_check_duration_seconds", "How long the last look took.", "watch", "kind", merge="max"),
    _counter("agentd_checks_total", "Checks done.", "kind", "verdict"),
    _histogram("agentd_check_duration_seconds", "How long checks took to look.", "kind"),
    _histogram("agentd_scheduler_lag_seconds", "How long after it was due a check began."),
    _counter("agentd_scheduler_overlaps_total", "Times that were skipped because the last run was still on."),
    _gauge("agentd_scheduler_overdue_seconds", "For how long the job that is due first has been waiting."),
    _gauge("agentd_checks_in_flight", "Checks under way."),
    # Alerts.
    _gauge("agentd_alerts", "Alerts by state and severity.", "state", "severity"),
    _gauge("agentd_alerts_muted", "Firing alerts that nobody hears of: silenced, in maintenance, explained, flapping."),
    _counter(
        "agentd_alert_transitions_total",
        "Changes of alerts, by the state they led to.",
        "state",
        "severity",
        always=product(("firing", "resolved"), ("info", "warning", "critical")),
    ),
    # Messages.
    _gauge("agentd_outbox_messages", "Messages in the outbox: `waiting`, or `dead` letters.", "webhook", "state"),
    _gauge("agentd_outbox_oldest_seconds", "For how long the oldest message waits.", "webhook", merge="max"),
    _gauge("agentd_outbox_in_flight", "Messages being sent.", "webhook"),
    _gauge("agentd_outbox_unrecorded", "Outcomes of sending that the store has not taken yet."),
    _gauge("agentd_webhook_up", "1 while the webhook takes messages, 0 while it fails.", "webhook", merge="min"),
    _counter(
        "agentd_delivery_attempts_total",
        "Attempts to send, by outcome: `delivered`, `delayed` (will be tried again), `refused`, `expired`, `disabled`.",
        "webhook",
        "outcome",
    ),
    _counter("agentd_delivery_retries_total", "Attempts that were not the first of their message.", "webhook"),
    _counter("agentd_dead_letters_total", "Messages that were given up.", "webhook"),
    _histogram("agentd_delivery_duration_seconds", "Time from a request to its answer, of those delivered.", "webhook"),
    _histogram("agentd_delivery_delay_seconds", "Time from the making of a message to its delivery.", "webhook"),
    # Logs.
    _counter("agentd_log_lines_total", "Lines read since the log was opened.", "watch"),
    _counter("agentd_log_bytes_total", "Bytes read since the log was opened.", "watch"),
    _gauge("agentd_log_behind_bytes", "Bytes of the log that are known and not read.", "watch"),
    _gauge("agentd_log_lag_seconds", "For how long the log has not been read to its end.", "watch", merge="max"),
    _gauge("agentd_log_files", "Files that are followed.", "watch"),
    _gauge("agentd_log_templates", "Kinds of lines that are known.", "watch"),
    _counter("agentd_log_lines_truncated_total", "Lines that were cut because they are too long.", "watch"),
    _counter("agentd_log_lines_undecodable_total", "Lines that are no text.", "watch"),
    _counter("agentd_log_losses_total", "Times when lines may have been missed.", "watch"),
    # Agents.
    _gauge("agentd_runs", "Runs of agents that are not over.", "state"),
    _counter("agentd_runs_ended_total", "Runs of agents that are over.", "kind", "state"),
    _counter("agentd_model_calls_total", "Calls of models; `ok`, or how they failed.", "model", "outcome"),
    _histogram("agentd_model_call_duration_seconds", "How long calls of models took.", "model"),
    _counter(
        "agentd_model_tokens_total", "Tokens: `input`, `output`; `cached` ones are among the input.", "model", "kind"
    ),
    _counter(
        "agentd_model_cost_usd_total", "US dollars that calls of models took, as far as prices are known.", "model"
    ),
    _gauge("agentd_budget_limit_usd", "US dollars that may be spent in a day (UTC)."),
    _gauge("agentd_budget_spent_usd", "US dollars spent, or set aside, today (UTC)."),
    _gauge("agentd_budget_limit_tokens", "Tokens that may be spent in a day (UTC)."),
    _gauge("agentd_budget_spent_tokens", "Tokens spent, or set aside, today (UTC)."),
    # The store.
    _gauge("agentd_store_bytes", "Size of the store's files.", "file", "part"),
    _gauge("agentd_store_limit_bytes", "Size that the whole store may take."),
    _gauge("agentd_store_free_bytes", "Room on the disk that holds the store."),
    _gauge("agentd_store_full", "1 while the disk is full: history is not kept."),
    _gauge("agentd_store_readable", "1 when the store answered; numbers that it keeps are missing otherwise."),
    _gauge("agentd_store_pending_writes", "Changes that are not on disk yet.", "file"),
    _counter("agentd_store_commits_total", "Transactions committed.", "file"),
    _counter("agentd_store_dropped_total", "Changes to history that found no room to wait, or failed."),
    _histogram(
        "agentd_store_write_duration_seconds", "How long transactions took, to the end of their commit.", "file"
    ),
    # Traces.
    _counter("agentd_spans_exported_total", "Spans that a collector took."),
    _counter("agentd_spans_dropped_total", "Spans given up: the queue is full, the collector is down."),
    _gauge("agentd_spans_queued", "Spans that wait for a collector."),
)

METRICS = {metric.name: metric for metric in CATALOGUE}


class Numbers:
    """
    The values of all metrics at one moment, put in by whoever has them.

    values: by metric and label values, a number, or what was seen of a spread. part: of numbers that stand elsewhere,
    so without the series that are always there.
    """

    def __init__(self, *, part: bool = False) -> None:
        self.values: dict[str, dict[Labels, float | Seen]] = {}
        for metric in CATALOGUE:
            self.values[metric.name] = dict.fromkeys(() if part else metric.always, 0.0)

    def put(self, name: str, value: float | Seen, *labels: str) -> None:
        """A value; what is no finite number is left out. KeyError, ValueError: the catalogue has it otherwise."""
        self.put_at(name, labels, value)

    def put_at(self, name: str, labels: Labels, value: float | Seen) -> None:
        """The same, with labels that may be those of other metrics too: of thousands of series that saves as many."""
        metric = METRICS[name]
        if len(labels) != len(metric.labels) or isinstance(value, Seen) is not (metric.kind == "histogram"):
            raise ValueError(f"{name}: does not go with {labels!r} and {value!r}; the catalogue says how")
        series = self.values[name]
        before = series.get(labels)
        if isinstance(value, Seen):
            series[labels] = before + value if isinstance(before, Seen) else value
        elif not math.isfinite(value):
            return
        elif before is None or isinstance(before, Seen):
            series[labels] = value
        elif metric.merge == "sum":
            series[labels] = before + value
        else:
            series[labels] = max(before, value) if metric.merge == "max" else min(before, value)

    def update(self, others: Numbers) -> None:
        """What others, a part, have: over what is here."""
        for name, series in others.values.items():
            self.values[name] |= series

    def put_all(self, name: str, series: Iterable[tuple[Labels, float]] | Iterable[tuple[Labels, Seen]]) -> None:
        for labels, value in series:
            self.put_at(name, labels, value)
