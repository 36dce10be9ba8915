"""Alerts come back from the store as they went in."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime

import apsw

from agentd.memory import alerts
from agentd.memory.migrate import migrate, steps
from agentd.records import Alert, AlertStatus, Evidence, Place, Reason, Severity

NOW = datetime(2026, 1, 5, 12, 0, 0, 123456, tzinfo=UTC)

FULL = Alert(
    "f1", "web-1", "shop", Severity.CRITICAL, "rule", {"ip": "::1"}, {"team": "wéb"}, AlertStatus.FIRING, "0111", 1,
    NOW, NOW, NOW, NOW, Reason.THRESHOLD, "failed 3 of 5", "shop: down", {"status": 503, "x": [1.5, None]}, ("a", "b"),
    7, "anna", "silence", True, ("ops", "pager"), "t1",
    (Evidence(Place("/var/log/a", 12), "a liné"), Evidence(Place("journal", None, "s=1"), "b")), NOW, 2, "0110",
    {"status": "problem", "summary": "the pool is empty"}, {"usd": 0.04, "tokens": 9120},
)  # fmt: skip


def store() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    return connection


def test_an_alert_comes_back_as_it_was_saved() -> None:
    """A streak that changes over a restart is an alert lost, or one too many."""
    c = store()
    plain = Alert("f0", "web-1", "db", Severity.INFO)

    alerts.save(c, FULL)
    alerts.save(c, plain)

    assert alerts.load_all(c) == [plain, FULL]
    assert alerts.get(c, "f1") == FULL


def test_every_field_of_an_alert_is_tried() -> None:
    """A field added to the record and forgotten in the store would be lost at the next restart."""
    plain = Alert("f0", "web-0", "db", Severity.INFO)

    assert [field.name for field in fields(Alert) if getattr(FULL, field.name) == getattr(plain, field.name)] == []


def test_saving_again_replaces() -> None:
    """One alert is one row."""
    c = store()
    alerts.save(c, FULL)
    alerts.save(c, Alert("f1", "web-1", "shop", Severity.INFO))

    assert alerts.load_all(c) == [Alert("f1", "web-1", "shop", Severity.INFO)]


def test_a_deleted_alert_is_gone() -> None:
    """A watch that was removed leaves nothing behind."""
    c = store()
    alerts.save(c, FULL)

    assert alerts.delete(c, "f1")
    assert not alerts.delete(c, "f1")
    assert alerts.get(c, "f1") is None


def test_text_that_utf8_cannot_hold_is_kept_as_far_as_possible() -> None:
    """A target that answers with broken bytes must not keep its own alert from being stored."""
    c = store()

    alerts.save(c, Alert("f1", "web-1", "shop", Severity.INFO, summary="bad \udcff byte", values={"\udcff": "\ud800"}))

    kept = alerts.get(c, "f1")
    assert kept is not None
    assert kept.summary == "bad ? byte"
