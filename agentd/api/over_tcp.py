"""
What is shown over TCP, where whoever reaches the port may read.

In: paths, and views as the unix socket gives them. Out: whether the path is answered there; the views without what
agents read and said.
Promise: what a tool put out, a quote of it, a person's question and its answer stay on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

REFUSED = "over TCP the record of a run is not shown; use the command line on the machine itself"

_RECORDS = ("/api/v1/runs/", "/api/v1/tasks/")
_OF_FINDING = ("status", "severity", "summary", "confidence", "analysis", "unverified")
_ASKED_BY_PEOPLE = "task"


def is_record(path: str) -> bool:
    """Whether the path is that of one run, or of a part of it."""
    return path.startswith(_RECORDS)


def abridged_alert(alert: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an agent found in one sentence, without claims, quotes and next steps."""
    found = alert.get("finding")
    return alert if found is None else {**alert, "finding": _outline(found)}


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
