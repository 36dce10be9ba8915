"""
What Prometheus' Alertmanager posts to a webhook, read: version 4 of its format.

In: the body of a hook's call, from anybody. Out: the alerts in it, in few and known keys, or None for any other body.
(prometheus.io/docs/alerting/latest/configuration, "webhook_config")
"""

from __future__ import annotations

from typing import Any


def read_alertmanager(body: Any) -> dict[str, Any] | None:
    """
    status, receiver, group_key, group_labels, truncated (alerts left out by the sender), and alerts: each of them with
    status, fingerprint, labels, annotations, starts_at, ends_at (None while it fires), url.
    """
    if not isinstance(body, dict) or body.get("version") != "4" or not isinstance(body.get("alerts"), list):
        return None
    alerts = [_alert(each) for each in body["alerts"]]
    if None in alerts:
        return None
    truncated = body.get("truncatedAlerts")
    return {
        "status": _text(body.get("status")),
        "receiver": _text(body.get("receiver")),
        "group_key": _text(body.get("groupKey")),
        "group_labels": _texts(body.get("groupLabels")),
        "truncated": truncated if isinstance(truncated, int) else 0,
        "alerts": alerts,
    }


def _alert(raw: Any) -> dict[str, Any] | None:
    if not isinstance(raw, dict) or raw.get("status") not in ("firing", "resolved"):
        return None
    firing = raw["status"] == "firing"  # Go's zero time stands for "not ended"
    return {
        "status": raw["status"],
        "fingerprint": _text(raw.get("fingerprint")),
        "labels": _texts(raw.get("labels")),
        "annotations": _texts(raw.get("annotations")),
        "starts_at": _text(raw.get("startsAt")),
        "ends_at": None if firing else _text(raw.get("endsAt")),
        "url": _text(raw.get("generatorURL")),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> dict[str, str]:
    return {name: each for name, each in value.items() if isinstance(each, str)} if isinstance(value, dict) else {}
