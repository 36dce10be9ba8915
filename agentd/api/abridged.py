"""
What is shown to callers whom nobody knows: on loopback they may read.

In: views as known callers get them. Out: the views without what agents read and said.
Promise: what a tool put out, a line of a log, a quote, a person's question and its answer are for known callers alone.
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
    """One alert alone: without the lines of its log, and with its runs and history in outline."""
    view = abridged_alert(view)
    runs = [abridged_run(run) for run in view.get("runs", ())]
    history = [abridged_event(each) for each in view.get("history", ())]
    return {**view, "runs": runs, "history": history, "evidence": []}


def abridged_event(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What happened; of a run not what it answered."""
    return event if event.get("run") is None else {**event, "summary": None}


def abridged_watch(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """One watch alone, with its alerts, runs and findings in outline."""
    return {
        **view,
        "alerts": [abridged_alert(each) for each in view.get("alerts", ())],
        "runs": [abridged_run(run) for run in view.get("runs", ())],
        "findings": [{**each, "finding": _outline(each.get("finding"))} for each in view.get("findings", ())],
    }


def abridged_templates(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """The kinds of lines, without a line of them."""
    return {**view, "templates": [{**each, "samples": []} for each in view.get("templates", ())]}


def abridged_message(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as it is stored, with the findings of its alerts in one sentence each."""
    data = view.get("data")
    if not isinstance(data, Mapping):
        return view
    data = _without_lines(abridged_alert(data))
    if isinstance(alerts := data.get("alerts"), list):
        data = {**data, "alerts": [_without_lines(abridged_alert(each)) for each in alerts]}
    return {**view, "data": data}


def abridged_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run in a list: what a watch's run found in one sentence; nothing of what a person asked and was answered."""
    if run["watch"] == _ASKED_BY_PEOPLE:
        return {**run, "goal": None, "summary": None}
    # Without a status the sentence is the beginning of an answer.
    return {**run, "summary": run["summary"] if run["status"] is not None else None}


def _without_lines(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**alert, "evidence": []} if alert.get("evidence") else alert


def _outline(finding: Any) -> Any:
    return {key: finding[key] for key in _OF_FINDING if key in finding} if isinstance(finding, Mapping) else None
