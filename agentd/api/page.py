"""
The page: one overview, rendered on the server, readable without scripts.

In: the daemon's overview as plain values; all text in it is hostile. Out: HTML in which none of it is markup.
"""

from __future__ import annotations

from html import escape
from typing import Any

from agentd.api.views import shown_detail, shown_state

STYLE = """
:root { color-scheme: light dark; --ok: #2e9e5b; --failing: #d1383d; --blind: #8a6fd1; --none: #8884; --line: #8883; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 68rem; padding: 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .2rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .5rem; }
.muted { opacity: .7; } .state { font-weight: 600; }
.ok { color: var(--ok); } .failing, .firing { color: var(--failing); } .blind, .pending { color: var(--blind); }
ul.trouble { border: 2px solid; color: var(--failing); font-weight: 600; padding: .6rem 1rem .6rem 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .35rem .5rem; vertical-align: top; }
tr { border-top: 1px solid var(--line); } thead tr { border: 0; } th { font-weight: 600; opacity: .7; }
td { overflow-wrap: anywhere; } td.bars { width: 40%; min-width: 8rem; }
svg { display: block; width: 100%; height: 1.4rem; }
rect.ok { fill: var(--ok); } rect.failing { fill: var(--failing); } rect.blind { fill: var(--blind); }
rect.none { fill: var(--none); }
@media (max-width: 40rem) {
  table, tbody, tr, td { display: block; width: 100%; } thead { display: none; }
  td { padding: .15rem 0; } tr { padding: .5rem 0; }
}
"""

_BARS = 90


def render_overview(overview: dict[str, Any], *, style: str) -> str:
    """overview: as `Service.overview` gives it."""
    status = overview["status"]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>agentd on {escape(status["instance"])}</title>
<link rel="stylesheet" href="{escape(style)}">
</head>
<body>
<header>
<h1>agentd on {escape(status["instance"])}</h1>
<p class="muted">{_headline(status)}</p>
</header>
<main>
{_trouble(status["trouble"])}
<h2>Alerts</h2>
{_alerts(overview["alerts"])}{_more(overview["more_alerts"], "alerts")}
<h2>Watches</h2>
{_watches(overview["watches"])}{_more(overview["more_watches"], "watches")}
</main>
</body>
</html>
"""


def _headline(status: dict[str, Any]) -> str:
    outbox = status["outbox"]
    parts = [
        f"version {status['version']}",
        f"up {status['uptime']}",
        f"{status['watches']['total']} watches",
        f"{outbox['waiting']} messages waiting",
    ]
    if outbox["dead"]:
        parts.append(f"{outbox['dead']} undeliverable")
    return " · ".join(escape(str(part)) for part in parts)


def _trouble(lines: list[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="trouble" role="alert">{items}</ul>' if items else ""


def _more(count: int, what: str) -> str:
    return f'<p class="muted">and {count} more; `agentd {what}` lists them all</p>' if count else ""


def _alerts(alerts: list[dict[str, Any]]) -> str:
    if not alerts:
        return '<p class="ok state">All is well.</p>'
    rows = "".join(
        f'<tr><td class="state {escape(alert["state"])}">{escape(alert["state"])}</td>'
        f"<td>{escape(alert['severity'])}</td><td>{escape(alert['watch'])}</td>"
        f"<td>{escape(alert['summary'])}</td>"
        f"<td>{escape(alert['started_at'] or alert['pending_since'] or '')}</td></tr>"
        for alert in alerts
    )
    head = "<thead><tr><th>State</th><th>Severity</th><th>Watch</th><th>What</th><th>Since</th></tr></thead>"
    return f"<table>{head}<tbody>{rows}</tbody></table>"


def _watches(watches: list[dict[str, Any]]) -> str:
    if not watches:
        return "<p>No watches are configured.</p>"
    rows = "".join(_watch(watch) for watch in watches)
    head = "<thead><tr><th>Watch</th><th>State</th><th>Latency</th><th>Last 90 minutes</th></tr></thead>"
    return f"<table>{head}<tbody>{rows}</tbody></table>"


def _watch(watch: dict[str, Any]) -> str:
    verdict = watch["verdict"] or "waiting"
    shown, text = shown_state(watch), shown_detail(watch)
    latency = "" if watch["latency_ms"] is None else f"{watch['latency_ms']:.1f} ms"
    detail = f'<br><span class="muted">{escape(text)}</span>' if text else ""
    return (
        f"<tr><td>{escape(watch['name'])} <span class=muted>{escape(watch['kind'])}</span>{detail}</td>"
        f'<td class="state {escape(verdict)}">{escape(shown)}</td><td>{latency}</td>'
        f'<td class="bars">{_bars(watch["strip"])}</td></tr>'
    )


def _bars(strip: list[str | None]) -> str:
    """strip: one verdict a bar, oldest first; None where nothing was looked at. Without bars, nothing."""
    if not strip:
        return ""
    bars = "".join(
        f'<rect class="{escape(verdict or "none")}" x="{index * 4}" width="3" height="20"/>'
        for index, verdict in enumerate(strip[-_BARS:])
    )
    bad = sum(verdict not in (None, "ok") for verdict in strip)
    label = f"{bad} of the last {len(strip)} minutes were not ok"
    return f'<svg viewBox="0 0 {_BARS * 4} 20" preserveAspectRatio="none" role="img" aria-label="{label}">{bars}</svg>'
