"""
What is shown to callers whom nobody knows: on loopback they may read.

In: views as known callers get them. Out: the views without what agents read and said.
Promise: what a tool put out, a quote of it, a person's question and its answer are for known callers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_FINDING = ("status", "severity", "summary", "confidence", "analysis", "unverified")
_ASKED_BY_PEOPLE = "task"


def abridged_alert(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an agent found in one sentence, without claims, quotes and next steps."""
    found = alert.get("finding")
    return alert if found is None else {**alert, "finding": _outline(found)}


def abridged_alert_page(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """One alert alone: also its runs and what its history says of findings."""
    view = abridged_alert(view)
    runs = [abridged_run(run) for run in view.get("runs", ())]
    return {**view, "runs": runs, "history": [abridged_alert(each) for each in view.get("history", ())]}


def abridged_watch(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """One watch alone, with its alerts and runs."""
    alerts = [abridged_alert(each) for each in view.get("alerts", ())]
    return {**view, "alerts": alerts, "runs": [abridged_run(run) for run in view.get("runs", ())]}


def abridged_message(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as it is stored, with the findings of its alerts in one sentence each."""
    data = view.get("data")
    if not isinstance(data, Mapping):
        return view
    data = abridged_alert(data)
    if isinstance(alerts := data.get("alerts"), list):
        data = {**data, "alerts": [abridged_alert(each) for each in alerts]}
    return {**view, "data": data}


def abridged_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run in a list: what a watch's run found in one sentence; nothing of what a person asked and was answered."""
    if run["watch"] == _ASKED_BY_PEOPLE:
        return {**run, "goal": None, "summary": None}
    # Without a status the sentence is the beginning of an answer.
    return {**run, "summary": run["summary"] if run["status"] is not None else None}


def _outline(finding: Any) -> Any:
    return {key: finding[key] for key in _OF_FINDING if key in finding} if isinstance(finding, Mapping) else None
