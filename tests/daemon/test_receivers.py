"""Webhooks that take nothing: whom we tell of them, when, and when no more."""

from __future__ import annotations

from agentd.daemon.selfwatch import WEBHOOK_PATIENCE, Receivers
from agentd.deliver.outlet import OutletHealth

PATIENCE_S = WEBHOOK_PATIENCE.total_seconds()
WELL = OutletHealth("ok", 0, 1, 0, 0, 0, None, None)
FAILING = OutletHealth("failing", 0, 1, 3, 0, 3, "status 503", None)


def test_a_disabled_webhook_is_told_of_at_once() -> None:
    """Nothing will come of waiting: only a person can mend it."""
    found = Receivers().judge({"ops": WELL, "chat": WELL}, {"ops": "status 410"}, 0.0)

    assert found["chat"] is None
    assert "agentd webhook enable ops" in (found["ops"] or "")


def test_one_that_fails_gets_a_quarter_of_an_hour() -> None:
    """A receiver that restarts is no news."""
    receivers = Receivers()

    assert receivers.judge({"ops": FAILING}, {}, 100.0) == {"ops": None}
    assert receivers.judge({"ops": FAILING}, {}, 99.0 + PATIENCE_S) == {"ops": None}
    assert receivers.judge({"ops": FAILING}, {}, 100.0 + PATIENCE_S) == {
        "ops": "webhook ops takes no message: status 503"
    }
    assert receivers.judge({"ops": WELL}, {}, 115.0 + PATIENCE_S) == {"ops": None}
    assert receivers.judge({"ops": FAILING}, {}, 130.0 + PATIENCE_S) == {"ops": None}, "it counts anew"


def test_one_that_is_gone_is_forgotten() -> None:
    """When it comes back under its name, its old failures are no longer its own."""
    receivers = Receivers()
    receivers.judge({"ops": FAILING}, {}, 0.0)

    assert receivers.judge({}, {}, 10.0) == {}
    assert receivers.judge({"ops": FAILING}, {}, PATIENCE_S + 1) == {"ops": None}
