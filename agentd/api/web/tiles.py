"""
What stands in large figures at the top of pages.

In: what the ports say of the whole. Out: dicts of `value`, `name`, `kind` (bad, warn, blind) and `href`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentd.api.web import text

Json = dict[str, Any]

_LATE_MS = 1000


def headline(status: Json, alerts: Sequence[Json], more: int) -> Json:
    firing = sum(alert["state"] == "firing" for alert in alerts)
    if firing:
        kind = "bad" if any(a["state"] == "firing" and a["severity"] == "critical" for a in alerts) else "warn"
        return {"word": f"{firing}{'+' if more else ''} firing", "text": "alerts", "kind": kind}
    if status.get("trouble"):
        return {"word": "Needs a look", "text": "agentd itself", "kind": "warn"}
    if status.get("state") not in ("running", None):
        return {"word": text.one_line(status["state"], 40), "text": "agentd", "kind": "warn"}
    if (status.get("watches") or {}).get("failing"):
        return {"word": "Something is failing", "text": "no alert yet", "kind": "warn"}
    return {"word": "All is well", "text": "no alert is firing", "kind": "ok"}


def status_tiles(status: Json, *, runs: bool) -> list[Json]:
    """runs: whether there is a page of them."""
    watches, outbox, checks = (status.get(key) or {} for key in ("watches", "outbox", "checks"))
    tiles = [
        _tile(watches.get("ok", 0), "up", "/?state=ok"),
        _tile(watches.get("failing", 0), "failing", "/?state=failing", "bad"),
        _tile(watches.get("blind", 0), "cannot look", "/?state=blind", "blind"),
        _tile(watches.get("paused", 0), "paused", "/?state=paused"),
        _tile(outbox.get("waiting", 0), "messages waiting", "/outbox"),
        _tile(outbox.get("dead", 0), "not delivered", "/outbox?state=dead", "bad"),
    ]
    tiles = [tile for tile in tiles if tile["number"] or tile["name"] == "up"]
    if (agents := status.get("agents")) and isinstance(agents.get("today"), Mapping):
        tiles.append(_said(text.usd(agents["today"].get("usd")), "agents today", "/runs" if runs else None))
    if (lag_ms := checks.get("lag_p99_ms")) is not None:
        tiles.append(_said(text.milliseconds(lag_ms), "check lag p99", kind="warn" if lag_ms > _LATE_MS else ""))
    if status.get("uptime"):
        tiles.append(_said(text.one_line(status["uptime"], 30), "agentd is up"))
    return tiles


def _tile(number: Any, name: str, href: str, kind: str = "") -> Json:
    return {"value": text.number(number), "name": name, "href": href, "kind": kind if number else "", "number": number}


def _said(value: str, name: str, href: str | None = None, kind: str = "") -> Json:
    return {"value": value, "name": name, "href": href, "kind": kind}


def agent_tiles(agents: Any) -> list[Json]:
    if not isinstance(agents, Mapping):
        return []
    today = agents.get("today") or {}
    limit = f" of {text.usd(today['usd_limit'])}" if today.get("usd_limit") is not None else ""
    return [
        {"value": text.number(agents.get("running")), "name": "under way"},
        {"value": text.number(agents.get("queued")), "name": "queued"},
        {"value": f"{text.usd(today.get('usd'))}{limit}", "name": "spent today"},
        {"value": text.number(today.get("tokens")), "name": "tokens today"},
        {"value": text.one_line(agents.get("model") or "none", 60), "name": "model"},
    ]


def memory_tiles(sizes: Mapping[str, Any]) -> list[Json]:
    notes, runs = sizes.get("notes") or {}, sizes.get("runs") or {}
    spent = sizes.get("spent_today") or {}
    tiles = [
        {"value": text.number(notes.get("final", 0)), "name": "findings"},
        {"value": text.number(notes.get("tool_result", 0)), "name": "tool results"},
        {"value": text.number(sum(runs.values())), "name": "runs"},
        {"value": text.usd(spent.get("usd")), "name": "spent today"},
    ]
    used = sum(sizes.get(key) or 0 for key in ("state_bytes", "history_bytes"))
    return [*tiles, {"value": f"{used / 2**20:.1f} MiB", "name": "on disk"}]
