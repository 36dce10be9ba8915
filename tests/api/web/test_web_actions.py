"""What forms of the page do, in whose name, and where one is after."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pagestage import COOKIE_VALUE, FINGERPRINT, KEY, NEAR, OPERATOR, READER, Seen, Stage

from agentd.api.caller import NOBODY
from agentd.api.service import Conflict, NotFound
from agentd.errors import StoreError

BY = "key ops"
ACTIONS: list[tuple[str, dict[str, str], tuple[Any, ...], str]] = [
    ("/watches/shop/check", {}, ("check", "shop", BY), "/watches/shop?done=checked"),
    (
        "/watches/shop/pause",
        {"lasting": "1h", "reason": "work\x1b\n"},
        ("pause", "shop", BY, 3600.0, "work"),
        "/watches/shop?done=paused",
    ),
    ("/watches/shop/pause", {"lasting": ""}, ("pause", "shop", BY, None, ""), "/watches/shop?done=paused"),
    ("/watches/shop/resume", {}, ("resume", "shop", BY), "/watches/shop?done=resumed"),
    (
        f"/alerts/{FINGERPRINT}/ack",
        {"comment": "on it"},
        ("ack", [FINGERPRINT], BY, "on it", False),
        f"/alerts/{FINGERPRINT}?done=acked",
    ),
    (
        f"/alerts/{FINGERPRINT}/ack",
        {"undo": "1"},
        ("ack", [FINGERPRINT], BY, "", True),
        f"/alerts/{FINGERPRINT}?done=unacked",
    ),
    (
        "/silences",
        {"matchers": 'watch=shop  rule="a b"', "lasting": "4h", "reason": "swap"},
        ("silence", ("watch=shop", 'rule="a b"'), timedelta(hours=4), "swap", BY),
        "/alerts?done=silenced",
    ),
    ("/silences/9f2c/end", {}, ("end_silence", "9f2c", BY), "/alerts?done=unsilenced"),
    ("/outbox/msg_1/retry", {}, ("retry", "msg_1", None, BY), "/outbox?done=retried"),
    ("/outbox/retry", {}, ("retry", None, None, BY), "/outbox?done=retried_all&n=3"),
    ("/outbox/retry", {"webhook": "ops"}, ("retry", None, "ops", BY), "/outbox?done=retried_all&n=3"),
    ("/outbox/msg_1/drop", {}, ("drop", "msg_1", BY), "/outbox?done=dropped"),
    ("/webhooks/ops/enable", {}, ("enable", "ops", BY), "/outbox?done=enabled"),
    ("/webhooks/ops/test", {}, ("test", "ops", BY), "/outbox?done=tested"),
    ("/runs/run_1/cancel", {}, ("cancel", "run_1", BY), "/runs/run_1?done=cancelled"),
]


@pytest.mark.parametrize(("path", "fields", "asked", "after"), ACTIONS)
async def test_a_form_does_what_it_says_and_leads_back(
    path: str, fields: dict[str, str], asked: tuple[Any, ...], after: str
) -> None:
    """Without a script, too: a redirect, so that to load the page again does not do it again."""
    stage = Stage()

    answer = await stage.send(path, **fields)

    assert stage.ports.asked == [asked]
    assert answer.status_code == 303
    assert answer.headers["location"] == after


@pytest.mark.parametrize(("path", "fields", "asked", "after"), ACTIONS)
@pytest.mark.parametrize("caller", [NEAR, NOBODY, READER])
async def test_who_may_not_act_does_not(
    path: str, fields: dict[str, str], asked: tuple[Any, ...], after: str, caller: Any
) -> None:
    stage = Stage(caller)

    answer = await stage.send(path, **fields)

    assert stage.ports.asked == []
    assert answer.status_code == 403
    assert "html" in answer.headers["content-type"]


async def test_a_form_of_another_session_does_nothing() -> None:
    stage = Stage()

    answer = await stage.client.post("/watches/shop/check", data={"csrf": "forged"})

    assert answer.status_code == 403
    assert stage.ports.asked == []


async def test_one_returns_to_the_page_one_came_from() -> None:
    stage = Stage()

    answer = await stage.send(f"/alerts/{FINGERPRINT}/ack", back="/?state=failing&done=old&n=4")

    assert answer.headers["location"] == "/?state=failing&done=acked"


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
async def test_a_form_leads_nowhere_else(back: str) -> None:
    """Or a form elsewhere could send people to where it likes."""
    answer = await Stage().send("/watches/shop/check", back=back)

    assert answer.headers["location"] == "/watches/shop?done=checked"


@pytest.mark.parametrize(
    ("error", "status"),
    [(Conflict("shop is <paused>"), 409), (NotFound("no <such>"), 404), (StoreError("the disk is <full>"), 503)],
)
async def test_what_cannot_be_done_is_a_page_that_says_why(error: Exception, status: int) -> None:
    stage = Stage()
    stage.ports.fails = error

    answer = await stage.client.post(
        "/watches/shop/pause",
        data={"csrf": OPERATOR.csrf},
        headers={"Referer": "http://127.0.0.1/watches/shop?span=7d"},
    )

    assert answer.status_code == status
    page = Seen.of(answer.text)
    assert str(error) in page.text
    assert "/watches/shop?span=7d" in page.links


@pytest.mark.parametrize("lasting", ["soon", "-1h", "0s", "9999999d"])
async def test_a_time_that_is_none_is_told(lasting: str) -> None:
    stage = Stage()

    answer = await stage.send("/watches/shop/pause", lasting=lasting)

    assert answer.status_code == 422
    assert stage.ports.asked == []


async def test_a_silence_lasts_some_time() -> None:
    answer = await Stage().send("/silences", matchers="watch=shop", lasting="")

    assert answer.status_code == 422


async def test_what_was_done_is_seen_at_once() -> None:
    """The page from before, kept for a second, would show that nothing has happened."""
    stage = Stage()
    await stage.see("/")
    stage.views.alerts[0]["acked_by"] = "ops"

    await stage.send(f"/alerts/{FINGERPRINT}/ack", back="/")

    assert "acknowledged by ops" in (await stage.see("/")).text


# Signing in.


async def test_a_key_opens_a_session() -> None:
    stage = Stage(NEAR)

    answer = await stage.client.post("/login", data={"key": f" {KEY}\r\n", "next": "/watches/shop?span=7d"})

    assert answer.status_code == 303
    assert answer.headers["location"] == "/watches/shop?span=7d&done=welcome"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"agentd_session={COOKIE_VALUE};")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    assert "Secure" not in cookie  # http on loopback would not send it back


async def test_a_cookie_is_for_https_alone_once_the_page_is() -> None:
    """A reload may put a proxy in front: nobody waits for a restart with a cookie that goes over the wire bare."""
    stage = Stage(NEAR)
    await stage.client.get("/login")
    stage.sessions.secure = True

    answer = await stage.client.post("/login", data={"key": KEY})

    assert "Secure" in answer.headers["set-cookie"]
    assert stage.ports.logins == [("ops", True, "127.0.0.1")]


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example/", "/login?next=/login", "/\t/evil.example", ""]
)
async def test_signing_in_leads_nowhere_else(to: str) -> None:
    """A link to our page must not end on one that only looks like it."""
    answer = await Stage(NEAR).client.post("/login", data={"key": KEY, "next": to})

    assert answer.headers["location"] == "/?done=welcome"


async def test_a_wrong_key_is_told_and_not_repeated() -> None:
    """Nor is it written down: it may be a password for something else."""
    stage = Stage(NEAR)
    answer = await stage.client.post("/login", data={"key": "wrong-<key>", "next": "/alerts"})

    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert "wrong-" not in answer.text
    assert dict(Seen.of(answer.text).forms)["/login"]["next"] == "/alerts"
    assert stage.ports.logins == [("", False, "127.0.0.1")]


async def test_too_many_tries_are_told_to_wait() -> None:
    stage = Stage(NEAR)
    stage.sessions.too_many = True

    answer = await stage.client.post("/login", data={"key": KEY})

    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"


async def test_signing_out_ends_the_session_on_both_sides() -> None:
    stage = Stage()
    stage.client.cookies.set("agentd_session", COOKIE_VALUE)

    answer = await stage.send("/logout")

    assert stage.sessions.closed == [COOKIE_VALUE]
    assert answer.headers["location"] == "/?done=bye"
    assert 'agentd_session=""' in answer.headers["set-cookie"]
    assert "Max-Age=0" in answer.headers["set-cookie"]
