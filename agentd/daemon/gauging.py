"""
Where each number of the metrics comes from.

In: the daemon's parts, as they are now. Out: values, put into `Numbers`.
Promise: `at_once` and `of_watches` read what is kept anyway, on the loop, and give the loop its turns; `of_store` is
one read of the state store; `Machine` asks the kernel and belongs on a thread.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import resource
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from agentd import __version__
from agentd.clock import EPOCH
from agentd.deliver.outcome import OUTCOMES
from agentd.memory import ledger, outbox, spend
from agentd.memory.store import BACKUPS, HISTORY, STATE
from agentd.pipeline.keeper import Breath
from agentd.pipeline.watches import LogWatch, Watch
from agentd.records import AlertStatus, Severity, Verdict
from agentd.telemetry.catalogue import Numbers
from agentd.telemetry.tally import Admitted

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

_OF_LOGS = {
    "agentd_log_lines_total": "lines",
    "agentd_log_bytes_total": "bytes",
    "agentd_log_behind_bytes": "behind_bytes",
    "agentd_log_files": "files",
    "agentd_log_lines_truncated_total": "truncated",
    "agentd_log_lines_undecodable_total": "undecodable",
    "agentd_log_losses_total": "lost",
}
_ALWAYS_IN_LOGS = ("lines", "bytes", "behind_bytes", "truncated", "undecodable", "lost")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def at_once(daemon: Daemon, numbers: Numbers) -> None:
    """What takes no time to read."""
    put, put_all = numbers.put, numbers.put_all
    put("agentd_build_info", 1, __version__, platform.python_version())
    put("agentd_ready", daemon.ready.is_set())
    put("agentd_config_last_reload_successful", daemon.refused is None)
    put("agentd_config_last_reload_success_timestamp_seconds", _since_epoch(daemon.reloaded_at))
    put("agentd_outbox_held", daemon.held is not None)
    put("agentd_event_listeners", daemon.ring.listeners)
    put("agentd_memory_limit_bytes", daemon.config.daemon.memory_limit)

    scheduler = daemon.scheduler
    stats = scheduler.stats()
    put("agentd_scheduler_lag_seconds", scheduler.lag_s.seen())
    put("agentd_scheduler_overlaps_total", stats.overlaps)
    put("agentd_scheduler_overdue_seconds", scheduler.overdue_s())
    put("agentd_checks_in_flight", stats.in_flight)
    put("agentd_loop_lag_seconds", scheduler.loop_lag_s())

    pipeline = daemon.pipeline
    put_all("agentd_checks_total", pipeline.verdicts)
    put_all("agentd_check_duration_seconds", pipeline.took_s)
    for kind in {watch.kind for watch in daemon.pipeline.watches.values() if not isinstance(watch, LogWatch)}:
        for verdict in Verdict:
            put("agentd_checks_total", 0, kind, verdict.value)
    put_all("agentd_alert_transitions_total", pipeline.transitions)

    outcomes = daemon.courier.outcomes
    put("agentd_outbox_unrecorded", outcomes.unrecorded)
    put_all("agentd_delivery_attempts_total", outcomes.attempts)
    put_all("agentd_delivery_retries_total", outcomes.retries)
    put_all("agentd_dead_letters_total", outcomes.buried)
    put_all("agentd_delivery_duration_seconds", outcomes.took_s)
    put_all("agentd_delivery_delay_seconds", outcomes.waited_s)

    _runs(daemon, numbers)
    store = daemon.store
    put("agentd_store_full", store.full)
    put("agentd_store_limit_bytes", store.keep.max_size)
    put("agentd_store_dropped_total", store.history.counts.dropped)
    put("agentd_store_dropped_total", store.history.counts.failed_posts)
    put("agentd_store_dropped_total", daemon.recorder.dropped)
    for name, database in (("state", store.state), ("history", store.history)):
        put("agentd_store_pending_writes", database.pending, name)
        put("agentd_store_commits_total", database.counts.commits, name)

    spans = daemon.traces.stats()
    put("agentd_spans_exported_total", spans.exported)
    put("agentd_spans_dropped_total", spans.dropped)
    put("agentd_spans_queued", spans.queued)


def _runs(daemon: Daemon, numbers: Numbers) -> None:
    put, runs = numbers.put, daemon.agents.runs
    ended = Counter[str]()
    for (_, state), count in runs.ended:
        ended[state] += int(count)
    put("ai_agent_tasks_total", runs.begun)
    put("ai_agent_tasks_completed_total", ended["completed"])
    put("ai_agent_tasks_failed_total", ended["failed"] + ended["interrupted"])
    put("ai_agent_active_tasks", len(runs.active))
    put("agentd_runs", len(runs.active), "running")
    numbers.put_all("agentd_runs_ended_total", runs.ended)
    asked = runs.asked
    numbers.put_all("agentd_model_calls_total", asked.calls)
    numbers.put_all("agentd_model_call_duration_seconds", asked.took_s)
    numbers.put_all("agentd_model_tokens_total", asked.tokens)
    numbers.put_all("agentd_model_cost_usd_total", asked.usd)
    budget = daemon.agents.config.budgets.daemon_per_day
    if budget.usd is not None:
        put("agentd_budget_limit_usd", budget.usd)
    if budget.tokens is not None:
        put("agentd_budget_limit_tokens", budget.tokens)


async def of_watches(daemon: Daemon, numbers: Numbers, admitted: Admitted) -> None:
    """Watches and alerts. admitted: which watches have series of their own."""
    now, breath = daemon.clock.now(), Breath()
    watches = daemon.pipeline.watches
    admitted.keep(watches.keys())
    verdicts = Counter(ok=0, failing=0, blind=0, waiting=0)
    for watch in list(watches.values()):
        verdicts[watch.verdict.value if watch.verdict else "waiting"] += 1
        _one(watch, admitted.label(watch.name), numbers, now)
        await breath.take()
    for verdict, count in verdicts.items():
        numbers.put("agentd_watches", count, verdict)
    numbers.put("agentd_watches_paused", len(daemon.keeping.paused))

    states = Counter((state, severity) for state in _STATES for severity in Severity)
    states.subtract(list(states))
    muted = 0
    for alert in list(daemon.pipeline.alerts.values()):
        if alert.status in _STATES:
            states[alert.status, alert.severity] += 1
            muted += alert.status is AlertStatus.FIRING and alert.muted_by is not None
        await breath.take()
    for (state, severity), count in states.items():
        numbers.put("agentd_alerts", count, state.value, severity.value)
    numbers.put("agentd_alerts_muted", muted)


_STATES = (AlertStatus.PENDING, AlertStatus.FIRING, AlertStatus.RESOLVED)


def _one(watch: Watch, label: str, numbers: Numbers, now: datetime) -> None:
    last = watch.last
    if last is None:
        return
    verdict, labels, put_at = last.judgement.verdict, (label, watch.kind), numbers.put_at
    if watch.verdict not in (None, Verdict.BLIND):
        put_at("agentd_watch_up", labels, verdict is Verdict.OK)
    put_at("agentd_watch_blind", labels, verdict is Verdict.BLIND)
    put_at("agentd_watch_last_check_timestamp_seconds", labels, _since_epoch(last.at))
    if not isinstance(watch, LogWatch):
        put_at("agentd_watch_last_check_duration_seconds", labels, last.observation.duration_s)
        return
    values = last.observation.values
    if "lines" not in values:
        return  # it could not be opened, or is let go of
    for name, key in _OF_LOGS.items():
        if key in values or key in _ALWAYS_IN_LOGS:
            numbers.put(name, values.get(key, 0), label)
    if (work := watch.work) is not None:
        since = work.unread_since
        lag_s = 0.0 if since is None else max(0.0, (now - since).total_seconds())
        numbers.put("agentd_log_lag_seconds", lag_s, label)
        if work.learning is not None:
            numbers.put("agentd_log_templates", work.learning.known, label)


def of_webhooks(daemon: Daemon, numbers: Numbers, admitted: Admitted) -> None:
    """admitted: which of them have series of their own."""
    health = daemon.courier.health()
    admitted.keep(health.keys())
    for name, found in health.items():
        label = admitted.label(name)
        numbers.put("agentd_webhook_up", found.state == "ok", label)
        numbers.put("agentd_outbox_in_flight", found.in_flight, label)
        # There from the start: Prometheus sees no rise in a counter that begins with its first event.
        for outcome in OUTCOMES:
            numbers.put("agentd_delivery_attempts_total", 0, label, outcome)
        numbers.put("agentd_delivery_retries_total", 0, label)
        numbers.put("agentd_dead_letters_total", 0, label)


def of_store(connection: apsw.Connection, numbers: Numbers, admitted: Admitted, now: datetime) -> None:
    """On a reader's thread. Messages for a webhook that the configuration has no more are those of `other`."""
    counts = {**dict.fromkeys(admitted.names, outbox.Counts(0, 0)), **outbox.counts(connection)}
    since = outbox.waiting_since(connection, counts.keys())
    for webhook, count in counts.items():
        label = admitted.label(webhook)
        numbers.put("agentd_outbox_messages", count.waiting, label, "waiting")
        numbers.put("agentd_outbox_messages", count.dead, label, "dead")
        age_s = (now - since[webhook]).total_seconds() if webhook in since else 0.0
        numbers.put("agentd_outbox_oldest_seconds", max(0.0, age_s), label)
    numbers.put("agentd_runs", ledger.waiting(connection), "queued")
    spent = spend.today(connection, spend.day_of(now))
    numbers.put("agentd_budget_spent_usd", spent.usd)
    numbers.put("agentd_budget_spent_tokens", spent.tokens)


class Machine:
    """What the kernel says of this process and of the disk. On a thread, one at a time."""

    def __init__(self) -> None:
        self._asked_s = self._cpu_s = 0.0
        self._cpu_percent = 0.0
        self._started_s: float | None = None

    def read(self, store: Path, numbers: Numbers) -> None:
        """store: its folder."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            self._process(numbers)
        for generation, seen in enumerate(gc.get_stats()):
            numbers.put("python_gc_collections_total", seen["collections"], str(generation))
        with contextlib.suppress(OSError):
            room = os.statvfs(store)
            numbers.put("agentd_store_free_bytes", room.f_bavail * room.f_frsize)
        for name, file in (("state", STATE), ("history", HISTORY)):
            for part, path in (("main", store / file), ("wal", store / f"{file}-wal")):
                with contextlib.suppress(OSError):
                    numbers.put("agentd_store_bytes", path.stat().st_size, name, part)
        for path in (store / BACKUPS).glob("*"):
            with contextlib.suppress(OSError):
                numbers.put("agentd_store_bytes", path.stat().st_size, "backups", "main")

    def _process(self, numbers: Numbers) -> None:
        # proc_pid_stat(5): the name, in brackets, may hold anything; behind it are the fields from the third on.
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        threads, started_ticks, virtual, resident = (int(fields[number - 3]) for number in (20, 22, 23, 24))
        if self._started_s is None:
            up_s = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / _TICKS
            self._started_s = time.time() - up_s
        cpu_s = time.process_time()
        numbers.put("process_start_time_seconds", round(self._started_s, 2))
        numbers.put("process_cpu_seconds_total", cpu_s)
        numbers.put("process_resident_memory_bytes", resident * _PAGE)
        numbers.put("process_virtual_memory_bytes", virtual)
        numbers.put("process_threads", threads)
        numbers.put("process_open_fds", len(os.listdir("/proc/self/fd")))
        numbers.put("process_max_fds", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        numbers.put("ai_agent_memory_usage_mb", round(resident * _PAGE / 2**20, 3))
        numbers.put("ai_agent_cpu_usage_percent", self._percent(cpu_s))

    def _percent(self, cpu_s: float) -> float:
        """Since the last time; of two who ask within a second the other is told the same."""
        now_s = time.time()
        before_s = self._asked_s or self._started_s or now_s
        if now_s - before_s >= 1.0:
            self._cpu_percent = round(100 * (cpu_s - self._cpu_s) / (now_s - before_s), 2)
            self._asked_s, self._cpu_s = now_s, cpu_s
        return max(0.0, self._cpu_percent)


def _since_epoch(at: datetime) -> float:
    return (at - EPOCH).total_seconds()
