"""
Where to read on: the addresses in messages, of the pages about an alert, its watch and the run that looked into it.

In: the web address under which people reach the page, without a slash at its end; None when nobody can. Out: addresses
by name, `page` first: it is the one that formats with room for one show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from agentd.records import Alert

_ALERTS = "/alerts/"


def alert_links(base: str | None, alert: Alert, *, of_watch: bool = True) -> dict[str, str]:
    """of_watch: its watch has a page. `run`: where an agent looked into it."""
    if not base:
        return {}
    links = {"page": f"{base}{_ALERTS}{_quoted(alert.fingerprint)}"}
    if of_watch:
        links["watch"] = f"{base}/watches/{_quoted(alert.watch)}"
    run = (alert.cost or {}).get("run")
    if isinstance(run, str) and run and alert.finding is not None:
        links["run"] = f"{base}/runs/{_quoted(run)}"
    return links


def finding_links(base: str | None, *, watch: str, run: str) -> dict[str, str]:
    """Of what a goal came to: its page is that of the run."""
    if not base:
        return {}
    page = f"{base}/runs/{_quoted(run)}"
    return {"page": page, "watch": f"{base}/watches/{_quoted(watch)}", "run": page}


def group_links(alerts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of several alerts, as payloads have them: the list of all; {} where they have no page, or not one."""
    bases = {str((alert.get("links") or {}).get("page", "")).rpartition(_ALERTS)[0] for alert in alerts}
    base = bases.pop() if len(bases) == 1 else ""
    return {"page": f"{base}/alerts"} if base else {}


def _quoted(name: str) -> str:
    return quote(name, safe="")
