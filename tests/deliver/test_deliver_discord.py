"""Discord: its limits hold, hostile text stays text, and what it drops is noticed."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import EXAMPLES, NASTY, TYPES, WIDE, body, hostile, message, worst
from messages import settings as webhook
from receiver import Answer, Receiver

from agentd.clock import SystemClock
from agentd.deliver.formats import discord, load
from agentd.deliver.sender import Sender
from agentd.errors import DeliveryRefused

DISCORD = webhook("discord")

# As discord.com/developers/docs documents "Execute Webhook", the embed object and its limits, for what we use of them.
SCHEMA = {
    "type": "object",
    "required": ["content", "embeds", "allowed_mentions"],
    "additionalProperties": False,
    "properties": {
        "content": {"type": "string", "minLength": 1, "maxLength": 2000},
        "allowed_mentions": {
            "type": "object",
            "required": ["parse"],
            "additionalProperties": False,
            "properties": {"parse": {"type": "array", "maxItems": 0}},
        },
        "embeds": {
            "type": "array",
            "minItems": 1,
            "maxItems": 10,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "description": {"type": "string", "minLength": 1, "maxLength": 4096},
                    "color": {"type": "integer", "minimum": 0, "maximum": 0xFFFFFF},
                    "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT[\d:.]+Z$"},
                    "footer": {
                        "type": "object",
                        "required": ["text"],
                        "properties": {"text": {"type": "string", "minLength": 1, "maxLength": 2048}},
                    },
                    "fields": {
                        "type": "array",
                        "maxItems": 25,
                        "items": {
                            "type": "object",
                            "required": ["name", "value"],
                            "properties": {
                                "name": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"\S"},
                                "value": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"\S"},
                                "inline": {"type": "boolean"},
                            },
                        },
                    },
                },
            },
        },
    },
}
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def within_discords_limits(told: dict[str, Any]) -> None:
    VALIDATOR.validate(told)
    assert units(told["content"]) <= 2000
    total = 0
    for embed in told["embeds"]:
        assert units(embed["description"]) <= 4096
        total += units(embed["description"]) + units(embed.get("footer", {}).get("text", ""))
        total += sum(units(field["name"]) + units(field["value"]) for field in embed["fields"])
    assert total <= 6000


def said(told: dict[str, Any]) -> str:
    (embed,) = told["embeds"]
    fields = [f"{field['name']}: {field['value']}" for field in embed["fields"]]
    return "\n".join([told["content"], embed["description"], *fields, embed.get("footer", {}).get("text", "")])


@pytest.mark.parametrize("type", TYPES)
def test_every_event_is_a_message_that_discord_takes(type: str) -> None:
    """A 400 buries the message for good."""
    within_discords_limits(body(message(type), DISCORD))


@pytest.mark.parametrize(
    ("type", "title", "colour"),
    [
        ("alert.firing", "**Firing: shop**", 0xA30200),
        ("alert.updated", "**Update: shop**", 0xA30200),
        ("alert.reminder", "**Still firing: shop**", 0xA30200),
        ("alert.escalated", "**Escalated: shop**", 0xA30200),
        ("alert.flapping", "**Flapping: shop**", 0xA30200),
        ("alert.resolved", "**Resolved: shop**", 0x2EB67D),
        ("group.firing", "**Firing: 2 alerts (team=web)**", 0xA30200),
        ("group.resolved", "**Resolved: 2 alerts (team=web)**", 0x2EB67D),
        ("goal.finding", "**Finding: morning-review**", 0xDAA038),
        ("agentd.test", "**Test: agentd on web-1**", 0x868E96),
    ],
)
def test_each_event_has_its_title_and_colour(type: str, title: str, colour: int) -> None:
    """A glance at the phone must tell good from bad."""
    told = body(message(type), DISCORD)

    assert told["content"] == title
    assert told["embeds"][0]["color"] == colour


def test_a_firing_alert_shows_what_a_person_needs() -> None:
    """Whoever is woken wants to know what, where, since when, and where to look."""
    shown = said(body(message("alert.firing"), DISCORD))

    for expected in (
        "status == 200 does not hold (status = 503)",
        "does not hold: `status == 200`",
        r"latency\_ms = `12.4`",
        "Severity: critical",
        "Since: 2026-11-20T09:00:03.000Z",
        "team: web",
        "[page](<http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865>)",
        "9f2c41d0a7b3e865 · trace 4bf92f3577b34da6a3ce929d0e0e4736",
    ):
        assert expected in shown


def test_an_alert_that_no_longer_flaps_is_told_as_such() -> None:
    """The same event says that it begins and that it ends."""
    told = body(message("alert.flapping", flapping=False, state="resolved"), DISCORD)

    assert told["content"] == "**No longer flapping: shop**"
    assert told["embeds"][0]["color"] == 0x2EB67D


def test_a_group_that_is_too_long_says_how_many_more() -> None:
    """Twenty lines are read; a number says the rest, counting what the message itself left out."""
    alerts = [EXAMPLES["alert.firing"] | {"watch": f"w{n}"} for n in range(30)]

    shown = said(body(message("group.firing", alerts=alerts, firing=42, omitted=12), DISCORD))

    assert "Firing: 42 alerts" in shown
    assert "**w19** (critical)" in shown
    assert "**w20**" not in shown
    assert "and 22 more" in shown


def test_a_models_words_are_marked_as_such() -> None:
    """Nobody may take a guess for a measurement."""
    shown = said(body(message("goal.finding"), DISCORD))

    assert "*Analysis by a language model, confidence 80%*" in shown
    assert "claim: All 312 errors name the same upstream. \\[e1, e3\\]" in shown


@pytest.mark.parametrize(
    ("evil", "shown"),
    [
        ("@everyone <@123> <@&4>", r"\@everyone \<\@123\> \<\@&4\>"),
        ("[click](https://evil.example)", "\\[click\\](https:\u200b//evil.example)"),
        ("**bold** _it_ ~~no~~ ||hid||", r"\*\*bold\*\* \_it\_ \~\~no\~\~ \|\|hid\|\|"),
        ("# head > quote `code`", r"\# head \> quote \`code\`"),
        ("discord.gg/abc", "discord\u200b.gg/abc"),
        ("a \\", "a \\\\"),
    ],
)
def test_text_from_outside_is_no_markup(evil: str, shown: str) -> None:
    """Who can write a log line must not be able to ring everybody, nor to put a link under a harmless word."""
    told = body(message("alert.firing", summary=evil, watch=evil), DISCORD)

    assert told["content"] == f"**Firing: {shown}**"
    assert told["embeds"][0]["description"].startswith(f"{shown}\n")
    assert told["allowed_mentions"] == {"parse": []}


def test_long_text_is_not_cut_inside_an_escape() -> None:
    """A backslash that lost its character would set the next markup free."""
    assert discord.escape("*" * 100, 6) == r"\*\*…"
    assert discord.escape("a" * 10, 10) == "a" * 10
    assert units(discord.escape("😀" * 100, 11)) <= 11


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(TYPES),
    NASTY,
    st.dictionaries(NASTY, NASTY, max_size=40),
    st.lists(NASTY, max_size=40),
)
def test_limits_hold_for_any_message(type: str, text: str, mapping: dict[str, str], items: list[str]) -> None:
    """Discord answers 400 to an oversize message, and the alert would be lost for good."""
    within_discords_limits(body(hostile(type, text, mapping, items), DISCORD))


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("https://discord.com/api/webhooks/1/t", "https://discord.com/api/webhooks/1/t?wait=true"),
        (
            "https://discord.com/api/webhooks/1/t?thread_id=5",
            "https://discord.com/api/webhooks/1/t?thread_id=5&wait=true",
        ),
        ("https://discord.com/api/webhooks/1/t?wait=false", "https://discord.com/api/webhooks/1/t?wait=false"),
    ],
)
def test_discord_is_asked_to_confirm(url: str, called: str) -> None:
    """Without `wait` it answers 204 before it has looked at the message, and then may drop it."""
    assert load("discord").address(url, DISCORD) == called


async def test_what_discord_refuses_is_refused() -> None:
    """With `wait` the 400 comes while we can still see it."""
    async with Receiver() as receiver:
        receiver.answers(Answer(400, body=b'{"embeds": ["0"]}'))
        sender = Sender(webhook("discord", url=receiver.url), clock=SystemClock())

        with pytest.raises(DeliveryRefused, match="answered 400"):
            await sender.send(message("alert.firing"))
        await sender.send(message("alert.firing"))
        await sender.close()

    assert {request.path for request in receiver.requests} == {"/hook?wait=true"}


@pytest.mark.parametrize("char", WIDE)
@pytest.mark.parametrize("type", TYPES)
def test_limits_hold_at_the_worst(type: str, char: str) -> None:
    """As long as can be, of what grows most on its way."""
    within_discords_limits(body(worst(type, char), DISCORD))
