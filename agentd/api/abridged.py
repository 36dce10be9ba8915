"""
What is shown to callers whom nobody knows: on loopback they may read.

In: views as known callers get them. Out: the views without what agents read and said, and what others say to us.
Promise: what a tool put out, a line of a log or a part of it, a quote, a person's question and its answer, the message
of a job, what a receiver answered are for known callers alone. Of an alert of a log the name of its rule and how many
lines there were is left; of what a probe saw, its sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentd.alert.lifecycle import BLIND_RULE
from agentd.watch.heartbeat import REPORTED_FAILURE

_OF_FINDING = ("status", "severity", "summary", "confidence", "analysis", "unverified")
_ASKED_BY_PEOPLE = "task"
_OF_LOGS = ("log", "journal")
_LEFT_OUT = "…"
_MESSAGE = re.compile(f"({re.escape(REPORTED_FAILURE)}): .*", re.DOTALL)
# By these a lane may be told from others; what else names one may be words of a line.
_OF_LANE = ("watch", "rule", "severity", "instance")


def abridged_alert(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an agent found in one sentence, without claims, quotes and next steps; of a log's no words of a line."""
    found = alert.get("finding")
    if found is not None:
        alert = {**alert, "finding": _outline(found)}
    if _is_of_log(alert):
        return {**alert, "summary": _summary(alert), "by": _names(alert.get("by")), "values": {}}
    return _without_message(alert)


def abridged_alert_page(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """One alert alone: without the lines of its log, and with its runs, messages and history in outline."""
    view = abridged_alert(view)
    row = view.get("watch_view")
    return {
        **view,
        "runs": [abridged_run(run) for run in view.get("runs", ())],
        "history": [abridged_event(each) for each in view.get("history", ())],
        "deliveries": [abridged_delivery(each) for each in view.get("deliveries", ())],
        "watch_view": abridged_watch_row(row) if isinstance(row, Mapping) else None,
        "evidence": [],
    }


def abridged_event(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """What happened; of a run not what it answered, of a log no line."""
    if event.get("run") is not None:
        return {**event, "summary": None}
    return {**event, "summary": _summary(event)} if _is_of_log(event) else _without_message(event)


def abridged_watch_row(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A watch in a list, or what is told when it changed: without a line of its log and without a job's message."""
    if view.get("log") is None and view.get("kind") not in _OF_LOGS:
        return _without_message(view)
    return {**view, "summary": "a rule fires"} if view.get("verdict") == "failing" else view


def abridged_watch(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """One watch alone, with its last check, alerts, runs and findings in outline."""
    check = view.get("check")
    return {
        **abridged_watch_row(view),
        "check": _check(check, view) if isinstance(check, Mapping) else None,
        "alerts": [abridged_alert(each) for each in view.get("alerts", ())],
        "runs": [abridged_run(run) for run in view.get("runs", ())],
        "findings": [{**each, "finding": _outline(each.get("finding"))} for each in view.get("findings", ())],
    }


def abridged_templates(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """The kinds of lines, without a line of them."""
    return {**view, "templates": [{**each, "samples": []} for each in view.get("templates", ())]}


def abridged_delivery(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message in a list: of a failed attempt the status alone, not what the receiver answered."""
    if view.get("last_error"):
        status = view.get("last_status")
        view = {**view, "last_error": "not sent" if status is None else f"answered {status}"}
    return {**view, "lane": _lane(view["lane"])} if view.get("lane") else view


def abridged_message(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message as it is stored, with the findings of its alerts in one sentence each, and without words of a log."""
    view, data = abridged_delivery(view), view.get("data")
    if not isinstance(data, Mapping):
        return view
    data = _alert_told(data)
    if isinstance(group := data.get("group"), Mapping):
        data = {**data, "group": {name: value if name in _OF_LANE else _LEFT_OUT for name, value in group.items()}}
    if isinstance(alerts := data.get("alerts"), list):
        data = {**data, "alerts": [_alert_told(each) for each in alerts if isinstance(each, Mapping)]}
    return {**view, "data": data}


def abridged_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """A run in a list: what a watch's run found in one sentence; nothing of what a person asked and was answered."""
    if run["watch"] == _ASKED_BY_PEOPLE:
        return {**run, "goal": None, "summary": None}
    # Without a status the sentence is the beginning of an answer.
    return {**run, "summary": run["summary"] if run["status"] is not None else None}


def _alert_told(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    """An alert as a message tells it: what tells the alerts of one rule apart stands among the labels there."""
    if alert.get("evidence"):
        alert = {**alert, "evidence": []}
    if not _is_of_log(alert):
        return abridged_alert(alert)
    told = {**abridged_alert(alert), "summary": f"{alert.get('watch')}: {_summary(alert)}"}
    told["labels"] = _names(told.get("labels"))
    told.pop("by", None)
    return told


def _is_of_log(view: Mapping[str, Any]) -> bool:
    return view.get("rule") not in (None, BLIND_RULE)


def _summary(view: Mapping[str, Any]) -> str:
    """Of an alert or event of a log: `errors: 5 lines within 10m`."""
    reason = view.get("reason_text")
    return f"{view['rule']}: {reason}" if reason else str(view["rule"])


def _without_message(view: Mapping[str, Any]) -> Mapping[str, Any]:
    """Of a heartbeat: that the job reported failure, not its words."""
    summary = view.get("summary")
    if not isinstance(summary, str) or REPORTED_FAILURE not in summary:
        return view
    return {**view, "summary": _MESSAGE.sub(r"\1", summary)}


def _check(check: Mapping[str, Any], watch: Mapping[str, Any]) -> Mapping[str, Any]:
    values = check.get("values")
    if watch.get("kind") == "heartbeat" and isinstance(values, Mapping):
        check = {**check, "values": {name: value for name, value in values.items() if name != "message"}}
    seen = abridged_watch_row({**check, "kind": watch.get("kind"), "log": watch.get("log")})
    return {**check, "summary": seen.get("summary")}


def _names(found: Any) -> dict[str, str]:
    return dict.fromkeys(found, _LEFT_OUT) if isinstance(found, Mapping) else {}


def _lane(lane: Any) -> Any:
    try:
        named = json.loads(lane)
    except (TypeError, ValueError):
        return lane
    if not isinstance(named, dict) or not named.keys() - set(_OF_LANE):
        return lane
    return json.dumps({name: value if name in _OF_LANE else _LEFT_OUT for name, value in named.items()})


def _outline(finding: Any) -> Any:
    return {key: finding[key] for key in _OF_FINDING if key in finding} if isinstance(finding, Mapping) else None
