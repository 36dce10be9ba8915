"""Teams: the card is as documented, below 28 KB, and hostile text stays text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import EXAMPLES, NASTY, TYPES, WIDE, body, hostile, message, rendered, worst
from messages import settings as webhook
from receiver import Answer, Receiver

from agentd.clock import SystemClock
from agentd.deliver.sender import Sender
from agentd.errors import DeliveryDelayed, DeliveryRefused

TEAMS = webhook("teams")

# As adaptivecards.io documents version 1.4, for what we use of it, in the envelope that a Workflows webhook takes.
RUN = {
    "type": "object",
    "required": ["type", "text"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "TextRun"},
        "text": {"type": "string", "minLength": 1},
        "weight": {"enum": ["Lighter", "Default", "Bolder"]},
        "size": {"enum": ["Default", "Small", "Medium", "Large", "ExtraLarge"]},
        "fontType": {"enum": ["Default", "Monospace"]},
        "isSubtle": {"type": "boolean"},
        "italic": {"type": "boolean"},
    },
}
TEXT = {
    "type": "object",
    "required": ["type", "inlines"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "RichTextBlock"},
        "spacing": {"enum": ["Default", "None", "Small", "Medium", "Large", "ExtraLarge", "Padding"]},
        "inlines": {"type": "array", "minItems": 1, "items": RUN},
    },
}
CONTAINER = {
    "type": "object",
    "required": ["type", "items"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "Container"},
        "style": {"enum": ["default", "emphasis", "good", "attention", "warning", "accent"]},
        "bleed": {"type": "boolean"},
        "items": {"type": "array", "items": TEXT},
    },
}
ACTION = {
    "type": "object",
    "required": ["type", "url", "title"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "Action.OpenUrl"},
        "title": {"type": "string", "minLength": 1},
        "url": {"type": "string", "pattern": r"^https?://\S+$"},
    },
}
CARD = {
    "type": "object",
    "required": ["$schema", "type", "version", "body"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "http://adaptivecards.io/schemas/adaptive-card.json"},
        "type": {"const": "AdaptiveCard"},
        "version": {"const": "1.4"},
        "fallbackText": {"type": "string"},
        "msteams": {"const": {"width": "Full"}},
        "body": {"type": "array", "minItems": 1, "items": {"oneOf": [TEXT, CONTAINER]}},
        "actions": {"type": "array", "minItems": 1, "maxItems": 6, "items": ACTION},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["type", "attachments"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "message"},
        "attachments": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["contentType", "content"],
                "additionalProperties": False,
                "properties": {
                    "contentType": {"const": "application/vnd.microsoft.card.adaptive"},
                    "contentUrl": {"type": "null"},
                    "content": CARD,
                },
            },
        },
    },
}
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def card(told: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = told["attachments"][0]["content"]
    return content


def lines(told: dict[str, Any]) -> Iterator[str]:
    for block in card(told)["body"]:
        for line in block.get("items", [block]):
            yield "".join(run["text"] for run in line["inlines"])


@pytest.mark.parametrize("type", TYPES)
def test_every_event_is_a_card_as_documented(type: str) -> None:
    """A workflow that cannot read its input fails where only its owner looks."""
    VALIDATOR.validate(body(message(type), TEAMS))


@pytest.mark.parametrize(
    ("type", "title", "style"),
    [
        ("alert.firing", "Firing: shop", "attention"),
        ("alert.updated", "Update: shop", "attention"),
        ("alert.reminder", "Still firing: shop", "attention"),
        ("alert.escalated", "Escalated: shop", "attention"),
        ("alert.flapping", "Flapping: shop", "attention"),
        ("alert.resolved", "Resolved: shop", "good"),
        ("group.firing", "Firing: 2 alerts (team=web)", "attention"),
        ("group.resolved", "Resolved: 2 alerts (team=web)", "good"),
        ("goal.finding", "Finding: morning-review", "warning"),
        ("agentd.test", "Test: agentd on web-1", "emphasis"),
    ],
)
def test_each_event_has_its_title_and_style(type: str, title: str, style: str) -> None:
    """A glance must tell good from bad."""
    told = body(message(type), TEAMS)

    assert next(lines(told)) == title
    assert card(told)["fallbackText"] == title
    assert card(told)["body"][0]["style"] == style


def test_a_firing_alert_shows_what_a_person_needs() -> None:
    """Whoever is woken wants to know what, where, since when, and where to look."""
    told = body(message("alert.firing"), TEAMS)

    shown = list(lines(told))
    for expected in (
        "shop: status == 200 does not hold (status = 503)",
        "Severity: critical",
        "Reason: failed 3 of 5",
        "team: web",
        "does not hold: status == 200",
        "latency_ms: 12.4",
        "9f2c41d0a7b3e865 · trace 4bf92f3577b34da6a3ce929d0e0e4736",
    ):
        assert expected in shown
    assert [action["url"] for action in card(told)["actions"]] == [
        "http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865",
        "http://127.0.0.1:8787/watches/shop",
    ]


def test_a_group_is_cut_to_fit_and_says_how_many_more() -> None:
    """Two hundred alerts do not fit into 28 KB; that there are more must be seen."""
    alerts = [EXAMPLES["alert.firing"] | {"watch": f"w{n}", "summary": "s" * 500} for n in range(200)]

    told = body(message("group.firing", alerts=alerts, firing=300, omitted=100), TEAMS)

    *_, last = lines(told)
    shown = sum(line.startswith("w") for line in lines(told))
    assert 20 < shown < 200
    assert last == f"and {300 - shown} more"


def test_a_models_words_are_marked_as_such() -> None:
    """Nobody may take a guess for a measurement."""
    assert "Analysis by a language model, confidence 80%" in list(lines(body(message("goal.finding"), TEAMS)))


@pytest.mark.parametrize(
    "evil", ["<at>Everyone</at>", "**bold**", "[click](https://evil.example)", "![x](https://evil.example/p.png)"]
)
def test_text_from_outside_stands_where_there_is_no_markup(evil: str) -> None:
    """Text runs know no markdown; a mention would need an entity that the card does not have."""
    told = body(message("alert.firing", summary=evil, labels={evil: evil}), TEAMS)

    assert evil in list(lines(told))
    assert '"TextBlock"' not in json.dumps(told)
    assert "entities" not in card(told)["msteams"]


def test_functions_of_cards_are_not_called() -> None:
    """`{{DATE(…)}}` in a log line would show as what it is not."""
    told = body(message("alert.firing", summary="{{DATE(2017-02-14T06:08:00Z)}} ${x}"), TEAMS)

    assert "{\u200b{DATE(2017-02-14T06:08:00Z)}} $\u200b{x}" in list(lines(told))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(TYPES),
    NASTY,
    st.dictionaries(NASTY, NASTY, max_size=40),
    st.lists(NASTY, max_size=40),
)
def test_limits_hold_for_any_message(type: str, text: str, mapping: dict[str, str], items: list[str]) -> None:
    """Teams drops what is larger, whichever way it counts, and the workflow has said 202 by then."""
    made = rendered(hostile(type, text, mapping, items), TEAMS)

    VALIDATOR.validate(json.loads(made.body))
    assert len(made.body) <= 28 * 1024
    assert len(made.body.decode().encode("utf-16-le")) <= 28 * 1024


async def test_a_failure_told_with_a_good_status_is_one() -> None:
    """Teams has said `error 429` under a 200: without a look at the answer the alert would count as told."""
    failed = (
        b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error %d with ContextId"
    )
    async with Receiver() as receiver:
        url = receiver.url.replace("hook", "workflows/0123456789")
        sender = Sender(webhook("teams", url=url), clock=SystemClock())
        receiver.answers(Answer(200, body=failed % 429), Answer(200, body=failed % 413), Answer(202, body=b""))

        with pytest.raises(DeliveryDelayed, match=r"error 429.*in spite of its status"):
            await sender.send(message("alert.firing"))
        with pytest.raises(DeliveryRefused, match="error 413"):
            await sender.send(message("alert.firing"))
        assert (await sender.send(message("alert.firing"))).status == 202
        await sender.close()


@pytest.mark.parametrize("char", WIDE)
@pytest.mark.parametrize("type", TYPES)
def test_limits_hold_at_the_worst(type: str, char: str) -> None:
    """As long as can be, of what grows most on its way."""
    made = rendered(worst(type, char), TEAMS)

    VALIDATOR.validate(json.loads(made.body))
    assert len(made.body) <= 28 * 1024
    assert len(made.body.decode().encode("utf-16-le")) <= 28 * 1024
