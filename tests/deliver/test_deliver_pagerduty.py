"""PagerDuty: an incident for each group, opened and closed by one key, within the limits of Events API v2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import EXAMPLES, NASTY, TYPES, WIDE, body, hostile, message, rendered, worst
from messages import settings as webhook
from receiver import Answer, Receiver

from agentd.clock import SystemClock
from agentd.deliver.formats import Message, pagerduty
from agentd.deliver.sender import Sender
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.records import EventType

KEY = "e93facc04764012d7bfb002500d5d1a6"
PAGER = webhook("pagerduty", routing_key=KEY)

# As developer.pagerduty.com documents an alert event, and its limits.
LINK = {
    "type": "object",
    "required": ["href"],
    "properties": {"href": {"type": "string", "pattern": r"^https?://\S+$"}, "text": {"type": "string"}},
}
SCHEMA = {
    "type": "object",
    "required": ["routing_key", "event_action", "dedup_key"],
    "additionalProperties": False,
    "properties": {
        "routing_key": {"type": "string", "minLength": 32, "maxLength": 32},
        "event_action": {"enum": ["trigger", "resolve"]},
        "dedup_key": {"type": "string", "minLength": 1, "maxLength": 255},
        "client": {"type": "string"},
        "client_url": {"type": "string", "pattern": r"^https?://\S+$"},
        "links": {"type": "array", "items": LINK},
        "payload": {
            "type": "object",
            "required": ["summary", "severity", "source"],
            "additionalProperties": False,
            "properties": {
                "summary": {"type": "string", "minLength": 1, "maxLength": 1024},
                "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT[\d:.]+Z$"},
                "severity": {"enum": ["critical", "warning", "error", "info"]},
                "source": {"type": "string", "minLength": 1},
                "component": {"type": "string", "minLength": 1},
                "group": {"type": "string"},
                "class": {"type": "string"},
                "custom_details": {"type": "object"},
            },
        },
    },
    "if": {"properties": {"event_action": {"const": "trigger"}}},
    "then": {"required": ["payload"]},
}
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def events(told: Message) -> list[dict[str, Any]]:
    made = rendered(told, PAGER)
    return [json.loads(each) for each in (made.body, *made.more)]


def actions(told: Message) -> list[str]:
    return [event["event_action"] for event in events(told)]


@pytest.mark.parametrize("type", TYPES)
def test_every_event_is_one_as_documented(type: str) -> None:
    """PagerDuty answers 400 to anything else, and nobody would be paged."""
    for event in events(message(type)):
        VALIDATOR.validate(event)


@pytest.mark.parametrize(
    ("type", "done"),
    [
        ("alert.firing", ["trigger"]),
        ("alert.updated", ["trigger"]),
        ("alert.reminder", ["trigger"]),
        ("alert.escalated", ["trigger"]),
        ("alert.flapping", ["trigger"]),
        ("alert.resolved", ["resolve"]),
        ("group.firing", ["trigger"]),
        ("group.resolved", ["resolve"]),
        ("goal.finding", ["trigger"]),
        ("agentd.test", ["trigger", "resolve"]),
    ],
)
def test_what_fires_triggers_and_the_all_clear_resolves(type: str, done: list[str]) -> None:
    """An incident that nobody closes is one that somebody works on in vain. A test leaves nothing open."""
    assert actions(message(type)) == done


def test_a_trigger_says_what_a_person_needs() -> None:
    """This is what is read out on the phone at three in the morning."""
    (event,) = events(message("alert.firing"))

    payload = event["payload"]
    assert payload["summary"] == "Firing: shop: shop: status == 200 does not hold (status = 503)"
    assert (payload["severity"], payload["source"], payload["component"]) == ("critical", "web-1", "shop")
    assert payload["timestamp"] == "2026-11-20T09:00:03.000Z"
    assert payload["custom_details"]["does not hold"] == ["status == 200"]
    assert payload["custom_details"]["value latency_ms"] == "12.4"
    assert payload["custom_details"]["team"] == "web"
    assert event["links"] == [
        {"href": "http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865", "text": "page"},
        {"href": "http://127.0.0.1:8787/watches/shop", "text": "watch"},
    ]
    assert event["client_url"] == "http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865"


@pytest.mark.parametrize("severity", ["info", "warning", "critical"])
def test_severities_are_pagerdutys_own(severity: str) -> None:
    """PagerDuty has these three words too, and routes by them."""
    assert events(message("alert.firing", severity=severity))[0]["payload"]["severity"] == severity


def keys(told: Sequence[Message]) -> set[str]:
    return {event["dedup_key"] for each in told for event in events(each)}


def test_a_group_is_one_incident_whether_one_alert_is_told_or_five() -> None:
    """The first is told alone, then two as a group, then the last alone: what opened it must be what closes it."""
    life = ["alert.firing", "group.firing", "alert.updated", "alert.reminder", "group.resolved", "alert.resolved"]

    assert len(keys([message(type) for type in life])) == 1


def test_other_groups_webhooks_and_machines_have_incidents_of_their_own() -> None:
    """The all clear of one must not close what still fires in another."""
    one = message("alert.firing")
    others = [
        message("alert.firing", lane='{"watch":"blog"}'),
        replace(one, webhook="night"),
        message("alert.firing", instance="web-2"),
        message("goal.finding"),
        message("agentd.test"),
    ]

    assert len(keys([one, *others])) == 6


def test_flapping_that_ends_well_closes_the_incident() -> None:
    """The event that opened it comes a second time to say that it is over."""
    assert actions(message("alert.flapping", flapping=False, state="resolved")) == ["resolve"]
    assert actions(message("alert.flapping", flapping=False, state="firing")) == ["resolve"]
    assert actions(message("alert.flapping", flapping=True, state="ok")) == ["trigger"]


def test_flapping_is_an_incident_of_its_own() -> None:
    """That one member is steady again must not close the incident of a group in which others fire."""
    steady = message("alert.flapping", flapping=False, state="resolved")

    assert len(keys([message("alert.firing"), steady])) == 2
    assert len(keys([message("alert.flapping", flapping=True, state="firing"), steady])) == 1


def test_events_that_are_over_before_they_are_told_are_an_incident_still() -> None:
    """One-off log events are the message; a resolve alone would be news of nothing."""
    assert actions(message("group.resolved", reason="first")) == ["trigger", "resolve"]


def test_a_finding_that_all_is_well_closes_the_one_before() -> None:
    """Nobody resolves a finding, so the next one does."""
    finding = EXAMPLES["goal.finding"]["finding"] | {"status": "ok"}
    well = message("goal.finding", finding=finding)

    assert actions(well) == ["resolve"]
    assert keys([well]) == keys([message("goal.finding")])


def test_a_models_words_are_marked_as_such() -> None:
    """Nobody may take a guess for a measurement."""
    (event,) = events(message("goal.finding"))

    assert event["payload"]["summary"].startswith("Finding: morning-review: by a language model: The payment service")
    assert "Analysis by a language model, confidence 80%" in event["payload"]["custom_details"]


def test_a_large_group_says_how_many_more() -> None:
    """What is cut must be counted."""
    alerts = [EXAMPLES["alert.firing"] | {"watch": f"w{n}", "summary": "é" * 2000} for n in range(400)]

    (event,) = events(message("group.firing", alerts=alerts, omitted=5))

    details = event["payload"]["custom_details"]
    assert len(details["alerts"]) + details["and more alerts"] == 405


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(TYPES),
    NASTY,
    st.dictionaries(NASTY, NASTY, max_size=40),
    st.lists(NASTY, max_size=40),
)
def test_limits_hold_for_any_message(type: str, text: str, mapping: dict[str, str], items: list[str]) -> None:
    """An event that is too large is refused, and nobody would be paged."""
    made = rendered(hostile(type, text, mapping, items), PAGER)

    for each in (made.body, *made.more):
        assert len(each) <= 512_000
        VALIDATOR.validate(json.loads(each))


async def test_events_of_one_message_go_out_in_order_and_again_when_one_fails() -> None:
    """PagerDuty takes one event a request, and knows a repeated one by its key."""
    async with Receiver() as receiver:
        sender = Sender(webhook("pagerduty", url=receiver.url, routing_key=KEY), clock=SystemClock())
        receiver.answers(Answer(202, body=b'{"status": "success"}'), Answer(503))

        with pytest.raises(DeliveryDelayed, match="answered 503"):
            await sender.send(message("agentd.test"))
        await sender.send(message("agentd.test"))
        await sender.close()

    assert [each.json["event_action"] for each in receiver.requests] == ["trigger", "resolve"] * 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"status": "throttled", "message": "later"}', DeliveryDelayed),
        (b'{"status": "invalid event", "message": "no"}', DeliveryRefused),
        (b'{"status": "success", "dedup_key": "x"}', None),
        (b"", None),
    ],
)
async def test_a_202_that_is_none_is_an_error(answer: bytes, error: type[Exception] | None) -> None:
    """The status of the body decides: it is `success`, or a short error."""
    async with Receiver() as receiver:
        sender = Sender(webhook("pagerduty", url=receiver.url, routing_key=KEY), clock=SystemClock())
        receiver.otherwise = Answer(202, body=answer)

        if error is None:
            assert (await sender.send(message("alert.firing"))).status == 202
        else:
            with pytest.raises(error, match="in spite of its status"):
                await sender.send(message("alert.firing"))
        await sender.close()


async def test_the_key_is_read_at_sending_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a secret: a rotated one works without a reload, and no answer may carry it into the log."""
    async with Receiver() as receiver:
        given = webhook("pagerduty", url=receiver.url, routing_key="${env:PD_KEY}")
        sender = Sender(given, clock=SystemClock())

        with pytest.raises(DeliveryDelayed, match="PD_KEY is not set"):
            await sender.send(message("alert.firing"))
        monkeypatch.setenv("PD_KEY", "mistyped")
        with pytest.raises(DeliveryDelayed, match="no integration key; put the 32 characters"):
            await sender.send(message("alert.firing"))
        monkeypatch.setenv("PD_KEY", f"{KEY}\n")
        receiver.answers(Answer(400, body=f"bad key {KEY}".encode()))
        with pytest.raises(DeliveryRefused) as refused:
            await sender.send(message("alert.firing"))
        await sender.close()

    assert KEY not in str(refused.value)
    assert receiver.requests[0].json["routing_key"] == KEY


def test_a_wrong_key_is_found_at_load() -> None:
    """What is wrong must be seen by `agentd check`, not by the page that did not come."""
    given = webhook("pagerduty", routing_key="${env:PD_KEY}")

    (problem,) = given.unusable({"PD_KEY": "short"})
    assert problem[0] == ("routing_key",)
    assert not list(given.unusable({"PD_KEY": KEY}))
    assert not list(given.unusable({}))


def test_a_message_without_a_group_goes_by_its_alert() -> None:
    """Messages that wait from before groups were kept, and those of tests, name none."""
    told = replace(message("alert.firing"), lane="")

    assert pagerduty.incident(told) == pagerduty.incident(replace(told, type=EventType.RESOLVED))
    assert pagerduty.incident(told) != pagerduty.incident(
        replace(told, data=dict(told.data) | {"fingerprint": "other"})
    )
    assert body(told, PAGER)["event_action"] == "trigger"


@pytest.mark.parametrize("char", WIDE)
@pytest.mark.parametrize("type", TYPES)
def test_limits_hold_at_the_worst(type: str, char: str) -> None:
    """As long as can be, of what grows most on its way."""
    made = rendered(worst(type, char), PAGER)

    for each in (made.body, *made.more):
        assert len(each) <= 512_000
        VALIDATOR.validate(json.loads(each))
