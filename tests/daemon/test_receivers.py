"""Webhooks that take nothing: whom we tell of them, when, and when no more."""

from __future__ import annotations

from datetime import UTC, datetime

from agentd.daemon.receivers import WEBHOOK_PATIENCE, Receivers
from agentd.deliver.outlet import OutletHealth
from agentd.memory.webhooks import Health

PATIENCE_S = WEBHOOK_PATIENCE.total_seconds()
THEN = datetime(2026, 1, 1, tzinfo=UTC)
WELL = OutletHealth("ok", 0, 1, 0, 0, 0, None, None)
UNTRIED = OutletHealth("ok", 0, 0, 0, 0, 0, None, None)
FAILING = OutletHealth("failing", 0, 1, 3, 0, 3, "status 503", None)


def stored(name: str, *, disabled: str | None = None, failing: bool = False) -> dict[str, Health]:
    return {name: Health(name, THEN if disabled else None, disabled, THEN if failing else None, None)}


def test_a_disabled_webhook_is_told_of_at_once() -> None:
    """Nothing will come of waiting: only a person can mend it."""
    found = Receivers().judge({"ops": WELL, "chat": WELL}, stored("ops", disabled="status 410"), 0.0)

    assert found["chat"] is None
    assert "agentd webhook enable ops" in (found["ops"] or "")


def test_one_that_fails_gets_a_quarter_of_an_hour() -> None:
    """A receiver that restarts is no news."""
    receivers = Receivers()

    assert receivers.judge({"ops": FAILING}, {}, 100.0) == {}
    assert receivers.judge({"ops": FAILING}, {}, 99.0 + PATIENCE_S) == {}
    assert receivers.judge({"ops": FAILING}, {}, 100.0 + PATIENCE_S) == {
        "ops": "webhook ops takes no message: status 503"
    }
    assert receivers.judge({"ops": WELL}, {}, 115.0 + PATIENCE_S) == {"ops": None}
    assert receivers.judge({"ops": FAILING}, {}, 130.0 + PATIENCE_S) == {}, "it counts anew"


def test_one_that_is_gone_is_forgotten() -> None:
    """When it comes back under its name, its old failures are no longer its own."""
    receivers = Receivers()
    receivers.judge({"ops": FAILING}, {}, 0.0)

    assert receivers.judge({}, {}, 10.0) == {}
    assert receivers.judge({"ops": FAILING}, {}, PATIENCE_S + 1) == {}


def test_a_restart_mends_no_receiver() -> None:
    """Its alert must neither end nor fire anew because we began to count again."""
    receivers, before = Receivers(), stored("ops", failing=True)

    assert receivers.judge({"ops": UNTRIED}, before, 0.0) == {}
    assert "before the last start" in (receivers.judge({"ops": UNTRIED}, before, PATIENCE_S)["ops"] or "")
    assert receivers.judge({"ops": WELL}, before, PATIENCE_S) == {"ops": None}, "a message arrived, whatever is stored"


def test_none_works_when_each_is_known_to_be_broken() -> None:
    """Then nobody can be told, and the outgoing heartbeat has to be withheld."""
    receivers = Receivers()

    assert not receivers.none_works(()), "nothing was judged yet"
    receivers.judge({}, {}, 0.0)
    assert not receivers.none_works(()), "who names no webhook wants no messages"
    receivers.judge({"ops": FAILING, "chat": FAILING}, {}, 0.0)
    assert not receivers.none_works({"ops"}), "chat may yet come back"
    assert receivers.none_works({"ops", "chat"}), "both alerts have been firing since before the last start"
    receivers.judge({"ops": FAILING, "chat": WELL}, {}, PATIENCE_S)
    assert not receivers.none_works({"ops", "chat"}), "chat works, whatever its alert still says"
    receivers.judge({"ops": FAILING, "chat": WELL}, stored("chat", disabled="status 410"), PATIENCE_S)
    assert receivers.none_works(())
