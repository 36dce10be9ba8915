"""Slack: its limits hold, and hostile text stays text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import TYPES, WIDE, worst

from agentd.deliver.formats import Message, slack
from agentd.deliver.payload import examples, sample_test
from agentd.deliver.webhook import WebhookSettings
from agentd.records import EventType

NOW = datetime(2026, 11, 20, 9, 0, 3, tzinfo=UTC)
SETTINGS = WebhookSettings.model_validate({"url": "${credential:slack}", "format": "slack"})
EXAMPLES = {example["type"]: example["data"] for example in examples()}


def rendered(type: str, data: Mapping[str, Any]) -> dict[str, Any]:
    message = Message("msg_1", EventType(type), NOW, data)
    body: dict[str, Any] = json.loads(asyncio.run(slack.render(message, SETTINGS)).body)
    return body


def attachment(body: dict[str, Any]) -> dict[str, Any]:
    (one,) = body["attachments"]
    assert isinstance(one, dict)
    return one


def texts(body: dict[str, Any]) -> list[str]:
    found = [body["text"], attachment(body)["fallback"]]
    for block in attachment(body)["blocks"]:
        found += [element["text"] for element in [block.get("text"), *block.get("elements", [])] if element]
    return found


@pytest.mark.parametrize(
    ("type", "title", "colour"),
    [
        ("alert.firing", "Firing: shop", "#a30200"),
        ("alert.updated", "Update: shop", "#a30200"),
        ("alert.reminder", "Still firing: shop", "#a30200"),
        ("alert.resolved", "Resolved: shop", "#2eb67d"),
        ("alert.escalated", "Escalated: shop", "#a30200"),
        ("alert.flapping", "Flapping: shop", "#a30200"),
        ("group.firing", "Firing: 2 alerts (team=web)", "#a30200"),
        ("group.resolved", "Resolved: 2 alerts (team=web)", "#2eb67d"),
        ("goal.finding", "Finding: morning-review", "#daa038"),
        ("agentd.test", "Test: agentd on web-1", "#868e96"),
    ],
)
def test_each_event_has_its_title_and_colour(type: str, title: str, colour: str) -> None:
    """A glance at the phone must tell good from bad."""
    body = rendered(type, EXAMPLES[type])

    assert body["text"] == title
    assert attachment(body)["color"] == colour
    assert attachment(body)["blocks"][0]["text"]["text"] == title


def test_a_firing_alert_shows_what_a_person_needs() -> None:
    """Whoever is woken wants to know what, where, since when, and where to look."""
    shown = "\n".join(texts(rendered("alert.firing", EXAMPLES["alert.firing"])))

    for expected in (
        "status == 200 does not hold (status = 503)",
        "*Severity:* critical",
        "*Instance:* web-1",
        "*Reason:* failed 3 of 5",
        "*Since:* 2026-11-20T09:00:03.000Z",
        "*team:* web",
        "latency_ms = `12.4`",
        "<http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865|page>",
    ):
        assert expected in shown


@pytest.mark.parametrize(
    "field", ["summary", "watch", "instance", "reason_text", "severity", "fingerprint", "trace_id"]
)
@pytest.mark.parametrize(
    "hostile",
    [
        "<!here> hi",
        "<!channel>",
        "<@U123>",
        "@here @channel @Everyone",
        "<https://evil.example|click>",
        "&lt;!here&gt;",
    ],
)
def test_text_from_outside_mentions_nobody_and_links_nothing(field: str, hostile: str) -> None:
    """Who can write a log line must not be able to ring every phone in the company."""
    body = rendered("alert.firing", EXAMPLES["alert.firing"] | {field: hostile, "links": {}})

    for text in texts(body):
        assert "<" not in text
        assert ">" not in text
        for mention in ("@here", "@channel", "@Everyone"):
            assert mention not in text


def test_hostile_keys_values_and_links_are_text_too() -> None:
    """Label names, body keys and link names come from outside as well."""
    evil = "<!here>`*@here"
    data = EXAMPLES["alert.firing"] | {
        "labels": {evil: evil},
        "values": {evil: {evil: evil}},
        "failed": [evil],
        "evidence": [{"line": evil}],
        "links": {evil: "https://x.example/?a=1&b=2", "js": "javascript:alert(1)", "esc": "https://x.example/|<!here>"},
    }

    shown = "\n".join(texts(rendered("alert.firing", data)))

    assert "<!" not in shown
    assert "@here" not in shown
    assert "javascript" not in shown
    assert shown.count("<") == 1
    assert "<https://x.example/?a=1&amp;b=2|&lt;!here&gt;`*@\u200bhere>" in shown


def test_slack_is_told_to_parse_nothing() -> None:
    """Escaping covers markup; these switches cover what Slack recognises by itself."""
    body = rendered("alert.firing", EXAMPLES["alert.firing"])

    assert (body["unfurl_links"], body["unfurl_media"], body["link_names"], body["parse"]) == (
        False,
        False,
        False,
        "none",
    )
    markdown = [block["text"] for block in attachment(body)["blocks"] if block["type"] == "section"]
    assert all(text["verbatim"] for text in markdown)


def test_a_group_lists_its_alerts() -> None:
    """Twenty alerts of one cause are one message, which counts what it does not show."""
    alerts = [EXAMPLES["alert.firing"] | {"watch": f"w{n}"} for n in range(30)]
    group = EXAMPLES["group.firing"] | {"alerts": alerts, "firing": 40, "resolved": 2, "omitted": 12}

    body = rendered("group.firing", group)

    assert body["text"] == "Firing: 40 alerts, 2 resolved (team=web)"
    assert attachment(body)["color"] == "#a30200"
    assert texts(body)[-2:] == ["and 22 more", "<http://127.0.0.1:8787/alerts|page>"]


def test_a_group_stored_by_an_earlier_version_is_still_told() -> None:
    """An upgrade must not bury what waits in the outbox."""
    body = rendered("group.firing", {"group": {"team": "web"}, "alerts": [EXAMPLES["alert.firing"]]})

    assert body["text"] == "Firing: 1 alert (team=web)"


def test_a_reminder_of_a_group_is_told_as_one() -> None:
    """Nobody is to think that it is new."""
    assert rendered("group.firing", EXAMPLES["group.firing"] | {"reason": "repeat"})["text"].startswith("Still firing")


def test_the_members_that_resolved_say_so() -> None:
    """In a group that fires, some may be well again."""
    alerts = [EXAMPLES["alert.firing"], EXAMPLES["alert.resolved"]]

    shown = texts(rendered("group.firing", EXAMPLES["group.firing"] | {"alerts": alerts}))

    assert "*shop* (critical): shop: status == 200 does not hold (status = 503)" in shown
    assert any(line.startswith("*shop* (resolved): shop: ok again") for line in shown)


@pytest.mark.parametrize("type", list(EXAMPLES))
def test_every_event_is_within_slacks_limits(type: str) -> None:
    """Slack answers 400 to anything else, and the message would be lost for good."""
    within_slacks_limits(rendered(type, EXAMPLES[type]))


def test_a_models_words_are_marked_as_such() -> None:
    """Nobody may take a guess for a measurement."""
    shown = "\n".join(texts(rendered("goal.finding", EXAMPLES["goal.finding"])))

    assert "_Analysis by a language model, confidence 80%_" in shown
    assert "• next: Look at the connection pool of payment-2." in shown


@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (b"ok", "taken"),
        (b'{"ok": true}', "taken"),
        (b'{"ok": false, "error": "invalid_auth"}', "later"),
        (b"", "taken"),
        (b"[false]", "taken"),
        (b"\xff{", "taken"),
    ],
)
def test_a_200_that_says_no_is_an_error(answer: bytes, taken: str) -> None:
    """Slack's Web API answers 200 to everything: an address of that kind must not look as if it worked."""
    assert slack.judge(200, answer) == taken


def within_slacks_limits(body: dict[str, Any]) -> None:
    blocks = attachment(body)["blocks"]
    assert len(blocks) <= 50
    for block in blocks:
        if block["type"] == "header":
            assert 1 <= len(block["text"]["text"]) <= 150
        elif block["type"] == "section":
            assert 1 <= len(block["text"]["text"]) <= 3000
        else:
            assert len(block["elements"]) <= 10
            assert all(len(element["text"]) <= 3000 for element in block["elements"])


NASTY = st.text(alphabet=st.sampled_from("ab<>&`*@here \n\x00\u202e€"), max_size=4000)


@settings(deadline=None, max_examples=60)
@given(NASTY, st.dictionaries(NASTY, NASTY, max_size=60), st.lists(NASTY, max_size=60))
def test_limits_hold_for_any_alert(text: str, mapping: dict[str, str], items: list[str]) -> None:
    """Slack answers 400 to an oversize message, and the alert would be lost for good."""
    data = EXAMPLES["alert.firing"] | {"summary": text, "watch": text, "labels": mapping, "values": mapping}
    data |= {"failed": items, "evidence": [{"line": line} for line in items], "links": mapping}

    within_slacks_limits(rendered("alert.firing", data))
    within_slacks_limits(rendered("group.firing", EXAMPLES["group.firing"] | {"group": mapping, "alerts": [data] * 60}))


def test_long_text_is_not_cut_inside_an_entity() -> None:
    """Half an entity would show as rubbish, and a following character could complete another."""
    assert slack.escape("&" * 100, 12) == "&amp;&amp;…"
    assert slack.escape("x" * 10, 10) == "x" * 10


def test_a_test_message_needs_no_alert() -> None:
    """`agentd webhook test` must work before anything ever failed."""
    body = rendered("agentd.test", sample_test("ops", "web-1"))

    assert "Nothing is wrong" in texts(body)[-1]


@pytest.mark.parametrize("char", WIDE)
@pytest.mark.parametrize("type", TYPES)
def test_limits_hold_at_the_worst(type: str, char: str) -> None:
    """As long as can be, of what grows most on its way."""
    told = worst(type, char)

    within_slacks_limits(rendered(type, told.data))
