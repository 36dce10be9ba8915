"""Text, numbers, moments and addresses as the page shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentd.api.web import forms, looks, text
from agentd.errors import ConfigError

WRITTEN = "\u0645\u0631\u062d\u0628\u0627 \u0645\u06cc\u200c\u062e \U0001f469\u200d\U0001f4bb Z\u00fcrich"
"""Arabic, Persian with the joiner that it needs, an emoji made of two, German."""
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("gpj\u202eexe", "gpj<U+202E>exe"),
        ("a\u200bb", "a<U+200B>b"),
        ("\x1b[2J", "<U+001B>[2J"),
        ("\ud800", "\N{REPLACEMENT CHARACTER}"),
        ("two\r\nlines\tand a tab", "two\nlines\tand a tab"),
        (WRITTEN, WRITTEN),
        ("e" + "\u0301" * 500 + "nd", "e" + "\u0301" * 4 + "nd"),
        ("x" * 5000, "x" * 4000 + "…"),
    ],
)
def test_text_is_shown_without_its_tricks(written: str, shown: str) -> None:
    """And what people really write stays as it is."""
    assert text.shown(written) == shown


def test_what_is_shown_on_one_line_stays_there() -> None:
    assert text.one_line("a\nb\u2028c  d") == "a b c d"
    assert len(text.one_line("x" * 10**6, 50)) == 51


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (1.25, "1.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (75, "1 min 15 s"),
        (900, "15 min"),
        (3600, "1 h"),
        (5400, "1 h 30 min"),
        (90_000, "1 d 1 h"),
        (86400 * 400, "400 d"),
        (float("nan"), text.NOTHING),
        (None, text.NOTHING),
        (True, text.NOTHING),
    ],
)
def test_durations_are_said_in_units_that_fit(seconds: Any, words: str) -> None:
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 ms"), (0.85, "850 µs"), (12.34, "12.3 ms"), (312.7, "313 ms"), (1240, "1.24 s"), ("x", text.NOTHING)],
)
def test_latencies_are_said_in_units_that_fit(value: Any, words: str) -> None:
    assert text.milliseconds(value) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100 %"), (0.999999, "99.99 %"), (0.9712, "97.1 %"), (0.0, "0.0 %"), (None, text.NOTHING)],
)
def test_only_the_whole_is_a_hundred_percent(share: float | None, words: str) -> None:
    assert text.percent(share) == words


def test_an_unknown_price_is_no_zero() -> None:
    assert [text.usd(value) for value in (None, 0, 0.00001, 0.0123, 1234.5)] == [
        "unknown",
        "$0",
        "$0.000010",
        "$0.0123",
        "$1,234.50",
    ]


def test_moments_are_said_from_now() -> None:
    assert text.relative(NOW - timedelta(minutes=3), NOW) == "3 min ago"
    assert text.relative(NOW + timedelta(hours=2), NOW) == "in 2 h"
    assert text.relative(NOW, NOW) == "now"
    assert text.moment("2026-03-01T12:00:00.000Z") == NOW
    assert text.moment("yesterday") is None
    assert text.moment(None) is None


@pytest.mark.parametrize(
    "address",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//x",
        "https://a b",
        'https://a"onx',
        "ftp://a",
        "https://" + "a" * 3000,
    ],
)
def test_only_what_leads_to_the_web_is_a_link(address: str) -> None:
    assert text.web_link(address) is None


def test_a_link_to_the_web_is_one() -> None:
    assert text.web_link("https://wiki.example/a?b=c#d") == "https://wiki.example/a?b=c#d"


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert text.to("watches", "a/../b?c#d") == "/watches/a%2F..%2Fb%3Fc%23d"
    assert text.with_query("/x", q="a&b", none=None, empty="") == "/x?q=a%26b"


@pytest.mark.parametrize(
    "address",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:alert(1)",
        " /x",
        "/a\nSet-Cookie: x",
        "/a b",
        "/login",
        "/logout",
        "",
        "/é",
    ],
)
def test_only_an_address_of_ours_is_followed(address: str) -> None:
    assert forms.own_path(address, "/home") == "/home"


def test_an_address_of_ours_is_followed() -> None:
    assert forms.own_path("/watches/shop?span=7d&q=a%20b") == "/watches/shop?span=7d&q=a%20b"


def test_a_notice_takes_the_place_of_the_last_one() -> None:
    assert forms.after("/a", "acked") == "/a?done=acked"
    assert forms.after("/a?x=1&done=old&n=3", "retried_all", 2) == "/a?x=1&done=retried_all&n=2"


def test_matchers_are_split_where_no_quotes_are() -> None:
    typed = 'watch=shop  rule="a \\" b" x=~"c|d"'

    assert forms.split_matchers(typed) == ("watch=shop", 'rule="a \\" b"', 'x=~"c|d"')


def test_what_mutes_an_alert_is_typed_so_that_it_is_read_again() -> None:
    from agentd.alert.silence import parse_matchers

    row = {"watch": "shop", "rule": 'a "b" \\', "by": [("host", "web 2"), ("path", "")]}
    typed = looks.matchers_for(row)

    found = parse_matchers(forms.split_matchers(typed))
    assert [(each.name, each.value) for each in found] == [
        ("watch", "shop"),
        ("rule", 'a "b" \\'),
        ("host", "web 2"),
        ("path", ""),
    ]


def test_a_time_to_last_is_read() -> None:
    assert forms.read_lasting(" 90m ") == timedelta(minutes=90)
    assert forms.read_lasting("  ") is None
    with pytest.raises(ConfigError):
        forms.read_lasting("0s")


def test_settings_are_shown_key_by_key() -> None:
    tree = {"a": {"b": [1, 2], "c": []}, "d": [{"name": "x", "e": None}, {"f": True}], "g": {}}

    assert list(looks.leaves(tree)) == [
        ("a.b", "1, 2"),
        ("a.c", "none"),
        ("d.x.name", "x"),
        ("d.x.e", text.NOTHING),
        ("d.1.f", "yes"),
        ("g", "none"),
    ]


def test_a_value_comes_from_where_what_it_lies_in_comes_from() -> None:
    origins = {"api": "a.yaml:1", "api.listen": "overlay"}

    assert looks.origin_of("api.listen", origins) == "overlay"
    assert looks.origin_of("api.keys.x", origins) == "a.yaml:1"
    assert looks.origin_of("memory.size", origins) == ""


def test_lists_and_watches_come_from_somewhere_too() -> None:
    """The configuration counts what is shown by its name."""
    origins = {"api.listen[0]": "a.yaml:3", "api.listen[1]": "a.yaml:4", "watches[1]": "b.yaml:9", "x[0].y": "a.yaml:7"}
    found = looks.spelled_origins(origins, {"watches": [{"name": "shop"}, {"name": "mail"}]})

    keys = ("api.listen", "watches.mail.http.url", "watches.shop.every", "x.0.y")
    assert [looks.origin_of(key, found) for key in keys] == ["a.yaml:3", "b.yaml:9", "", "a.yaml:7"]


def test_sizes_are_shown_as_they_are_written() -> None:
    """Nobody reads nine digits of bytes."""
    tree = {"memory_limit": 512 * 2**20, "max_size": 2**30, "max_body": 1500, "memory": None, "other": 1024}

    assert [value for _, value in looks.leaves(tree)] == ["512MiB", "1GiB", "1500B", text.NOTHING, "1024"]


def test_the_last_bar_is_of_this_moment() -> None:
    """What failed a second ago is not added up yet; uptime is of what is."""
    view = {"name": "shop", "kind": "http", "verdict": "failing", "strip": ["ok", None]}

    assert looks.watch_row(view)["strip"] == ["ok", "failing"]
    assert looks.watch_row(view)["uptime"] == 1.0
    assert looks.watch_row(view | {"verdict": "ok"})["strip"] == ["ok", None]


def test_what_a_target_answered_is_shown_as_json() -> None:
    """It sent JSON; another language's spelling of it would mislead."""
    assert text.scalar({"status": "UP", "ok": True}) == '{"status": "UP", "ok": true}'
    assert text.scalar([{"a": None}, "b", True]) == '{"a": null}, b, true'
