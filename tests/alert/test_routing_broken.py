"""Of a webhook that takes nothing, people hear by way of the others."""

from __future__ import annotations

from datetime import timedelta

from agentd.alert.identity import fingerprint
from agentd.alert.routing import NOBODY, Escalate, Routing, Wish
from agentd.records import Alert, Severity

ROUTING = Routing(notify=("ops", "chat"), webhooks=("audit", "chat", "ops"))


def about(webhook: str) -> Alert:
    rule = f"webhook:{webhook}"
    return Alert(fingerprint("web-1", "agentd", rule), "web-1", "agentd", Severity.CRITICAL, rule)


def test_it_is_not_told_to_the_broken_one() -> None:
    """It would lie in the outbox of that very webhook."""
    assert ROUTING.of(about("ops"), Wish()).notify == ("chat",)
    assert ROUTING.of(about("audit"), Wish()).notify == ("ops", "chat"), "who is told anyway"


def test_when_only_the_broken_one_would_be_told_all_others_are() -> None:
    """Somebody has to hear of it, and there is a way."""
    alone = Routing(notify=("ops",), webhooks=("audit", "chat", "ops"))

    assert alone.of(about("ops"), Wish()).notify == ("audit", "chat")


def test_the_only_webhook_tells_nobody_of_itself() -> None:
    """The outgoing heartbeat is withheld for that."""
    assert Routing(notify=("ops",), webhooks=("ops",)).of(about("ops"), Wish()).notify == ()


def test_who_wants_no_messages_gets_none() -> None:
    """A configuration that tells nobody is no mistake of ours to mend."""
    assert Routing(webhooks=("audit", "ops")).of(about("ops"), Wish()).notify == ()
    assert ROUTING.of(about("ops"), NOBODY).notify == ()


def test_escalation_spares_the_broken_one_too() -> None:
    """It escalates because it lasts, and it lasts because that webhook is broken."""
    later = (Escalate(timedelta(minutes=30), ("ops", "audit"), Severity.CRITICAL),)
    routing = Routing(notify=("chat",), escalate=later, webhooks=("audit", "chat", "ops"))

    (step,) = routing.of(about("ops"), Wish()).escalate

    assert (step.notify, step.severity) == (("audit",), Severity.CRITICAL)
