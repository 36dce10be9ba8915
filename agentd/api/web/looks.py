"""
Views as pages need them: every key is there, long things are cut, states are words.

In: JSON values of the ports. Out: plain dicts for the templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from agentd.api.views import shown_detail, shown_state
from agentd.api.web import plots
from agentd.api.web.text import moment, number, one_line, scalar, usd, web_link

Json = Mapping[str, Any]

WORDS = {
    "ok": "up",
    "failing": "down",
    "blind": "cannot look",
    "waiting": "waiting",
    "paused": "paused",
    "disabled": "disabled",
}
"""What the page calls the states of a watch that something answers to."""
_OTHER_WORDS = {"ok": "ok", "failing": "failing"}
"""Of a log, a host or a goal one does not say that it is up."""
_ANSWERING = frozenset({"http", "tcp", "tls", "dns", "systemd", ""})
FILTERS = ("failing", "blind", "paused", "waiting", "disabled", "ok")
_DETAIL_CHARS = 300
_MOST_DEPTH = 12
MOST_LABELS = 12
_SIZES = frozenset({"memory_limit", "max_size", "max_body", "max_output", "memory", "max_line"})


def watch_row(view: Json) -> dict[str, Any]:
    """One watch in the overview. state: of FILTERS."""
    state = shown_state(view)
    strip = list(view.get("strip") or ())
    if not any(strip):  # of a log nothing is measured, and what has just begun has no past
        strip = []
    uptime = view.get("uptime")
    share = uptime.get("24h") if isinstance(uptime, Mapping) else None
    of_strip = plots.share_ok(strip)
    # Checks are added up some seconds later; the last bar is of this moment.
    if strip and (state in ("failing", "paused") or (state == "blind" and strip[-1] != "failing")):
        strip[-1] = state
    log = view.get("log")
    return {
        "name": str(view["name"]),
        "kind": view.get("kind") or "",
        "state": state,
        "word": word_of(state, str(view.get("kind") or "")),
        "detail": one_line(shown_detail({"summary": "", "pause": None, "log": None, **view}), _DETAIL_CHARS),
        "labels": labels(view.get("labels")),
        "alert": view.get("alert") or "ok",
        "severity": view.get("severity") or "",
        "latency_ms": view.get("latency_ms"),
        "log": dict(log) if isinstance(log, Mapping) else None,
        "checked_at": view.get("checked_at"),
        "next_at": view.get("next_at"),
        "strip": strip,
        "uptime": share if share is not None else of_strip,
        "uptime_span": "24 h" if share is not None else "90 min",
        "spark": plots.spark(list(view.get("spark") or ())),
        "enabled": view.get("enabled", True) is not False,
        "paused": bool(view.get("paused")),
        "pause": view.get("pause"),
        "notify": [one_line(each, 100) for each in view.get("notify") or ()],
    }


def word_of(state: str, kind: str) -> str:
    words = WORDS if kind in _ANSWERING else WORDS | _OTHER_WORDS
    return words.get(state, state)


def labels(found: Any) -> list[tuple[str, str]]:
    if not isinstance(found, Mapping):
        return []
    return [(one_line(name, 60), one_line(value, 120)) for name, value in list(found.items())[:MOST_LABELS]]


def matches(row: Json, *, name: str, state: str, label: str) -> bool:
    """name: part of it. state: of FILTERS. label: `key`, `key=value`, or a part of either; empty: all."""
    if name and name.lower() not in f"{row['name']} {row['kind']}".lower():
        return False
    if state and row["state"] != state and not (state == "firing" and row["alert"] == "firing"):
        return False
    if not label:
        return True
    key, equals, value = (part.strip().lower() for part in label.partition("="))
    known = [(name.lower(), text.lower()) for name, text in row["labels"]]
    if equals:
        return any(key == name and value in text for name, text in known)
    return any(key in name or key in text for name, text in known)


def alert_row(view: Json) -> dict[str, Any]:
    finding = view.get("finding")
    return {
        "fingerprint": str(view.get("fingerprint") or ""),
        "watch": str(view.get("watch") or ""),
        "rule": view.get("rule"),
        "by": labels(view.get("by")),
        "state": view.get("state") or "ok",
        "severity": view.get("severity") or "",
        "summary": one_line(view.get("summary") or view.get("reason_text") or "", 600),
        "reason_text": one_line(view.get("reason_text") or "", 300),
        "since": view.get("started_at") or view.get("pending_since") or view.get("blind_since"),
        "started_at": view.get("started_at"),
        "pending_since": view.get("pending_since"),
        "blind_since": view.get("blind_since"),
        "ended_at": view.get("ended_at"),
        "occurrences": view.get("occurrences") or 0,
        "acked_by": view.get("acked_by"),
        "muted_by": view.get("muted_by"),
        "flapping": bool(view.get("flapping")),
        "finding": finding_look(finding) if isinstance(finding, Mapping) else None,
        "labels": labels(view.get("labels")),
        "instance": view.get("instance") or "",
        "values": values(view.get("values")),
        "failed": [one_line(each, 500) for each in list(view.get("failed") or ())[:30]],
        "told": [one_line(each, 100) for each in list(view.get("told") or ())[:30]],
        "cost": view.get("cost") if isinstance(view.get("cost"), Mapping) else None,
        "trace_id": view.get("trace_id"),
    }


def cost_parts(cost: Json) -> list[str]:
    """What a finding cost: `$0.048`, `13 389 tokens`, `3 calls`; what is not known is left out."""
    parts = [usd(cost["usd"])] if cost.get("usd") is not None else []
    for key, one, many in (("tokens", "token", "tokens"), ("model_calls", "call", "calls")):
        if isinstance(count := cost.get(key), int):
            parts.append(f"{number(count)} {one if count == 1 else many}")
    return parts


def values(found: Any, most: int = 40) -> list[tuple[str, str]]:
    if not isinstance(found, Mapping):
        return []
    return [(one_line(name, 80), scalar(value)) for name, value in list(found.items())[:most]]


def finding_look(finding: Json) -> dict[str, Any]:
    """What an agent found. claims and next_steps: None where they are not shown to who asks."""
    sources = finding.get("sources") if isinstance(finding.get("sources"), Mapping) else {}
    claims = finding.get("claims")
    return {
        "status": one_line(finding.get("status") or "unclear", 40),
        "severity": one_line(finding.get("severity") or "", 40),
        "summary": str(finding.get("summary") or ""),
        "confidence": finding.get("confidence"),
        "analysis": finding.get("analysis"),
        "unverified": bool(finding.get("unverified")),
        "claims": None
        if claims is None
        else [_claim(each, sources) for each in claims[:50] if isinstance(each, Mapping)],
        "next_steps": [str(each) for each in (finding.get("next_steps") or ())[:30]],
    }


def _claim(claim: Json, sources: Json | Any) -> dict[str, Any]:
    return {
        "text": str(claim.get("text") or ""),
        "evidence": [
            (one_line(each, 20), one_line(sources.get(each, ""), 200))
            for each in list(claim.get("evidence") or ())[:20]
        ],
        "quotes": [str(each) for each in list(claim.get("quotes") or ())[:20]],
        "unverified": bool(claim.get("unverified")),
    }


def event_row(event: Json) -> dict[str, Any]:
    """One transition. In one level or with its `data` beneath, as the store keeps it."""
    data = event.get("data")
    flat = {**(data if isinstance(data, Mapping) else {}), **event}
    kind = str(flat.get("kind") or flat.get("type") or "")
    return {
        "at": flat.get("at"),
        "kind": kind,
        "word": kind.partition(".")[2] or kind,
        "watch": flat.get("watch"),
        "fingerprint": flat.get("fingerprint"),
        "rule": flat.get("rule"),
        "before": flat.get("before"),
        "after": flat.get("after") or kind.partition(".")[2],
        "severity": flat.get("severity") or "",
        "text": one_line(flat.get("summary") or flat.get("finding") or flat.get("error") or "", 400),
        "reason": one_line(flat.get("reason_text") or "", 200),
        "run": flat.get("run"),
    }


def run_row(run: Json) -> dict[str, Any]:
    began, ended = moment(run.get("started_at")), moment(run.get("ended_at"))
    return {
        "id": str(run.get("id") or run.get("task_id") or ""),
        "watch": run.get("watch"),
        "kind": run.get("kind") or "",
        "trigger": run.get("trigger") or "",
        "state": run.get("state") or "",
        "goal": one_line(run.get("goal") or "", 300),
        "fingerprint": run.get("fingerprint"),
        "due_at": run.get("due_at"),
        "started_at": run.get("started_at"),
        "ended_at": run.get("ended_at"),
        "took_s": (ended - began).total_seconds() if began and ended else None,
        "status": run.get("status"),
        "summary": one_line(run.get("summary") or "", 400),
        "error": one_line(run.get("error") or "", 400),
        "steps": run.get("steps"),
        "model_calls": run.get("model_calls"),
        "tokens": run.get("tokens"),
        "usd": run.get("usd"),
        "models": [one_line(each, 100) for each in list(run.get("models") or ())[:20]],
    }


def delivery_row(view: Json) -> dict[str, Any]:
    keys = ("id", "webhook", "lane", "type", "state", "note", "fingerprint", "created_at", "due_at", "attempts")
    more = ("last_error", "last_status", "ended_at", "superseded")
    return {key: view.get(key) for key in (*keys, *more)}


def deed_row(deed: Json) -> dict[str, Any]:
    """What somebody did; where what is told of it is JSON, in words: `limits.usd: 5, name: x`."""
    detail = str(deed.get("detail") or "")
    if detail.startswith("{"):
        with suppress(ValueError, RecursionError):
            detail = "; ".join(f"{key}: {value}" for key, value in leaves(json.loads(detail)))
    return {
        "id": deed.get("id"),
        "at": deed.get("at"),
        "who": one_line(deed.get("who") or "", 100),
        "action": one_line(deed.get("action") or "", 60),
        "target": one_line(deed.get("target") or "", 200),
        "detail": one_line(detail, 300),
    }


def silence_row(view: Json) -> dict[str, Any]:
    return {
        **{key: view.get(key) for key in ("id", "state", "starts_at", "ends_at", "author", "reason", "ended_by")},
        "matchers": [one_line(each, 300) for each in view.get("matchers") or ()],
    }


def matchers_for(alert: Json) -> str:
    """What mutes this alert and no other kind, as one types it."""
    parts = [f"watch={alert['watch']}"]
    if alert.get("rule"):
        parts.append(f"rule={_quoted(str(alert['rule']))}")
    parts += [f"{name}={_quoted(value)}" for name, value in alert.get("by") or ()]
    return " ".join(parts)


def _quoted(value: str) -> str:
    if value and not set(value) & set("\"'{},=!~\\ \t\n"):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def leaves(value: Any, path: str = "", depth: int = 0) -> Iterable[tuple[str, str]]:
    """A tree of settings as dotted keys and values, at most some levels deep."""
    if isinstance(value, Mapping) and value and depth < _MOST_DEPTH:
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}" if path else str(key), depth + 1)
    elif _is_list(value) and depth < _MOST_DEPTH and any(isinstance(each, Mapping) for each in value):
        for index, each in enumerate(value):
            name = each.get("name") if isinstance(each, Mapping) else None
            yield from leaves(each, f"{path}.{name if isinstance(name, str) else index}", depth + 1)
    elif _is_list(value):
        yield path, ", ".join(scalar(each) for each in value) or "none"
    elif isinstance(value, Mapping):
        if path:
            yield path, "none" if not value else "…"
    elif path.rpartition(".")[2] in _SIZES and isinstance(value, int) and value >= 1024:
        yield path, _size(value)
    else:
        yield path, scalar(value)


def _size(count: int) -> str:
    """As one writes it, such as `512MiB`."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count % size == 0:
            return f"{count // size}{unit}"
    return f"{count}B"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def check_look(check: Json, kind: str) -> dict[str, Any]:
    verdict = str(check.get("verdict") or "waiting")
    return {
        "at": check.get("at"),
        "verdict": verdict,
        "word": word_of(verdict, kind),
        "summary": one_line(check.get("summary") or "", 1000),
        "duration_ms": check.get("duration_ms"),
        "values": values(check.get("values"), 60),
        "conditions": [
            {"text": one_line(each.get("text") or "", 500), "ok": each.get("ok")}
            for each in list(check.get("conditions") or ())[:50]
        ],
    }


def evidence_groups(evidence: Iterable[Json]) -> list[dict[str, Any]]:
    """Lines of logs, those of one place together."""
    groups: dict[str, list[str]] = {}
    for each in list(evidence)[:200]:
        place = one_line(each.get("file") or ("the journal" if each.get("cursor") else "a log"), 300)
        groups.setdefault(place, []).append(one_line(each.get("line") or "", 2000))
    return [{"place": place, "lines": lines} for place, lines in groups.items()]


def links(found: Any) -> list[dict[str, str]]:
    """Only what leads to the web."""
    if not isinstance(found, Mapping):
        return []
    known = [(name, web_link(value)) for name, value in list(found.items())[:20]]
    return [{"text": one_line(name, 100), "href": href} for name, href in known if href is not None]


def spelled_origins(origins: Mapping[str, Any], config: Json) -> dict[str, Any]:
    """The origins by the keys that `leaves` gives: of a list by its key, of a watch by its name."""
    found = dict(origins)
    watches: Any = config.get("watches")
    names = [each.get("name") for each in watches if isinstance(each, Mapping)] if isinstance(watches, list) else []
    for key, origin in origins.items():
        base, bracket, rest = key.partition("[")
        if not bracket:
            continue
        index, _, below = rest.partition("]")
        if base == "watches":
            if index.isdecimal() and int(index) < len(names):
                found[f"watches.{names[int(index)]}"] = origin
        else:
            found.setdefault(f"{base}.{index}{below}" if below else base, origin)
    return found


def origin_of(key: str, origins: Mapping[str, Any]) -> str:
    """Where the value comes from: of the key itself, or of what it lies in."""
    while key:
        if (found := origins.get(key)) is not None:
            return one_line(found, 300)
        key = key.rpartition(".")[0]
    return ""
