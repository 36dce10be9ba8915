"""
What the page and the API read beyond lists: one watch, one alert, one run, what is public. A port, as `service.py` is.

Every method gives plain JSON values. Moments are texts of ISO 8601 in UTC, as everywhere; what is not known is null.
Promise: each answer is bounded, and nothing in it is a secret of the configuration.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

Json = dict[str, Any]
Span = Literal["1h", "24h", "7d", "30d"]


class Reading(Protocol):
    async def watch(self, name: str) -> Json:
        """
        The watch's view, as in the list of watches, with more:

        description: text. public: bool. settings: its part of the configuration as it is written, with what
        `defaults` added, secrets as `***`, references to secrets (`${env:…}`) as they stand.
        check: the last one or null: {"at", "verdict": "ok" | "failing" | "blind", "summary", "duration_ms", "alert",
        "values": {name: value cut short}, "conditions": [{"text", "ok": true | false | null when it was not asked}]}.
        blind_since: since when nobody could look, or null.
        uptime: {"24h", "7d", "30d": share of known time that was ok, 0 to 1, or null}.
        alerts: views of its alerts that are current, worst first, at most 200; more_alerts: how many are left out.
        silences: those that mute it now, as in the list of silences.
        rules: of a log or the journal: [{"name", "severity", "resolve_after_s", "firing": how many alerts}], else [].
        runs: its last 20, as in the list of runs.
        findings: the last 5 that its runs came to: [{"run", "at", "finding": {"status", "severity", "summary",
        "claims", "next_steps", "confidence", …}}].

        Of a watch that is not enabled the same, with nothing measured. Raises NotFound.
        """
        ...

    async def series(self, name: str, span: Span) -> Json:
        """
        What was measured:

        {"watch", "kind", "span", "from", "to", "step_s", "source": "results" | "rollups",
        "value": {"name": "latency", "unit": "ms"}, or null when nothing of the kind is measured,
        "points": [{"at": begin of the step, "count", "ok", "failing", "blind" (counts), "min", "mean", "p95", "max"
        (of `value`, or null; p95 null from results)}], oldest first, steps without any check left out,
        "bars": ["ok" | "failing" | "blind" | "paused" | null: nothing is known], oldest first, 60 for an hour, else
        90, "bars_from", "bar_s": seconds of each,
        "pauses": [{"from", "to": null while it lasts, "by", "reason"}], oldest first, those that touch the span}.

        Of a log, the journal or a goal nothing is timed: `value` is null, counts and bars say whether it was ok. A
        log's points are looks at its alerts once a minute, not lines. Raises NotFound; ConfigError for another span.
        """
        ...

    async def history(self, *, watch: str | None, fingerprint: str | None, before: str | None, limit: int) -> Json:
        """
        What happened, newest first: {"events": [...], "next": what to pass as `before` for more, or null}.

        An event: {"id", "at", "kind": "alert.firing" | "alert.resolved" | "alert.pending" | "alert.updated" | … |
        "run.completed" | "run.failed" | …, "watch", "fingerprint", "rule", "severity", "before", "after" (states),
        "reason", "reason_text", "summary", "trace_id", "run": id of the run, of a run}; what it has not is null.
        fingerprint: whole. Raises ConfigError for a `before` that no answer gave.
        """
        ...

    async def alert(self, fingerprint: str) -> Json:
        """
        The alert's view, as in the list of alerts, with more:

        last_at: event time of the newest line, of a log rule. escalated: steps of escalation taken.
        evidence: [{"file", "offset" or "cursor", "line"}], of log rules.
        history: its last 50 events, as `history` gives them; history_next: as its `next`.
        deliveries: messages about it, newest first, at most 50, as in the list of the outbox, also those that were
        delivered (`state`: "waiting" | "claimed" | "dead" | "delivered"); those of a group that it is in have
        `fingerprint` null.
        runs: the last 20 that looked into it. silences: those that mute it now.
        watch_view: the view of its watch, or null when there is none (any more).

        Of an alert that is over and forgotten, found by its whole fingerprint, what history knows. Raises NotFound.
        The first digits are enough, four at least, when no other alert begins so.
        """
        ...

    async def run_page(self, id: str) -> Json:
        """
        One run as a timeline of its graph, with what it cost:

        {"run": the run as in the list of runs, with "goal" whole, "answer", "finding", "plan", "asked", "trace_id",
        "tool_calls", "input_tokens", "output_tokens", "cached_tokens", "artifacts", "took_s",
        "total_s": length of the timeline in seconds,
        "lanes": in the order in which they began: [{"id": of the step, unique, "label": such as `read_file /etc/hosts`
        or the model's name, "kind": "model" | "tool" | "note", "start_s", "end_s": seconds since the run began (equal
        for a note), "ok": true | false | null while it is under way or for a note, "detail": one or a few lines,
        "tokens": input and output or null, "usd": or null, "depends_on": ids of lanes that it waited for,
        "attempts"}],
        "more_lanes": how many are left out beyond 1000,
        "spans": of its trace, if kept: [{"name", "start_s": since the first span, "end_s", "status": "unset" | "ok" |
        "error", "status_text", "depth": 0 for a root}], oldest first, at most 500,
        "whole": no line of its record is missing}.

        Raises NotFound.
        """
        ...

    async def memory(self, query: str | None, limit: int) -> Json:
        """
        What agents remember: {"query", "notes": [{"id", "type": "final" | "tool_result", "at", "run", "watch",
        "fingerprint", "tool": null of a final, "step", "text": what is searched, cut at 500 characters, "snippet": the
        place that was found, the words in [brackets], or null, "finding": of a final, or null}], "worked": [{"kind",
        "worker", "shape", "model", "runs", "successes", "latency_s", "tokens", "usd", "last_at"}] (averages of a run;
        the most frequent first), "sizes": {"notes": {type: count}, "runs": {state: count}, "state_bytes",
        "history_bytes", "spent_today": {"usd", "tokens", "calls", "unknown_calls"}}}.

        query: notes that have all these words, best first; None: the newest ones. limit: of notes, and of worked.
        """
        ...

    async def audit(self, before: str | None, limit: int) -> Json:
        """
        What operators did, newest first: {"deeds": [{"id", "at", "who", "action", "target", "detail"}], "next": what
        to pass as `before` for more, or null}. Raises ConfigError for a `before` that no answer gave.
        """
        ...

    async def public(self) -> Json:
        """
        What anybody may see: {"instance", "at", "state": "ok" | "failing" | "paused" (all are) | "unknown",
        "watches": [{"name", "state": "ok" | "failing" | "paused" | "unknown" (nobody could look), "uptime_30d": share
        or null, "bars": 90 of "ok" | "failing" | "blind" | null, oldest first, 8 hours each}], "more_watches": how
        many beyond 200} of watches with `public: true` only; nothing that a target said. `failing` is what fires: a
        single failing check is none. May be some seconds old.
        """
        ...

    async def public_watch(self, name: str) -> Json:
        """One of those, with "uptime": {"24h", "7d", "30d"}. NotFound, the same whether it is private or not there."""
        ...
