"""Apprise: every service it knows, out of our process, and its failures are ours to judge."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from importlib import util
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import NASTY, TYPES, hostile, message
from messages import settings as webhook
from pydantic import ValidationError
from receiver import Answer, Receiver

from agentd.clock import SystemClock
from agentd.deliver.formats import apprise
from agentd.deliver.formats.digest import bounded, digest
from agentd.deliver.sender import Sender, Sent
from agentd.errors import DeliveryDelayed, DeliveryRefused


@pytest.fixture(scope="module", autouse=True)
def no_child_left() -> Iterator[None]:
    yield
    apprise.close()


async def deliver(url: str, type: str = "alert.firing", **given: Any) -> Sent:
    sender = Sender(webhook("apprise", url=url, **given), clock=SystemClock())
    try:
        return await sender.send(message(type))
    finally:
        await sender.close()


def of(receiver: Receiver) -> str:
    """A service of Apprise that a loopback server can play: plain JSON by POST."""
    return f"json://127.0.0.1:{receiver.port}/"


@pytest.mark.parametrize(
    ("type", "title", "kind"),
    [
        ("alert.firing", "Firing: shop", "failure"),
        ("alert.resolved", "Resolved: shop", "success"),
        ("group.firing", "Firing: 2 alerts (team=web)", "failure"),
        ("group.resolved", "Resolved: 2 alerts (team=web)", "success"),
        ("goal.finding", "Finding: morning-review", "warning"),
        ("agentd.test", "Test: agentd on web-1", "info"),
    ],
)
async def test_a_message_arrives_through_the_library(
    monkeypatch: pytest.MonkeyPatch, type: str, title: str, kind: str
) -> None:
    """The url is a secret; it is read at sending and goes to the child over a pipe."""
    async with Receiver() as receiver:
        monkeypatch.setenv("APPRISE_URL", of(receiver))
        await deliver("${env:APPRISE_URL}", type)

        (request,) = receiver.taken
    assert (request.json["title"], request.json["type"]) == (title, kind)


async def test_the_text_says_what_a_person_needs() -> None:
    """Whatever the service, the words are the same."""
    async with Receiver() as receiver:
        await deliver(of(receiver))

    lines = receiver.taken[0].json["message"].splitlines()
    for expected in (
        "shop: status == 200 does not hold (status = 503)",
        "Severity: critical",
        "does not hold: status == 200",
        "latency_ms = 12.4",
        "http://127.0.0.1:8787/alerts/9f2c41d0a7b3e865",
    ):
        assert expected in lines


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_service_can_never_take_is_refused(status: int) -> None:
    """The library says only that it did not work; the service's status stands in its log."""
    async with Receiver() as receiver:
        receiver.answers(status)

        with pytest.raises(DeliveryRefused, match=f"the service answered {status}") as caught:
            await deliver(of(receiver))

    assert caught.value.status == status


async def test_everything_else_is_tried_again() -> None:
    """A service that is down, busy or asks for another password has not taken the alert."""
    async with Receiver() as receiver:
        for status in (401, 404, 500, 503):
            receiver.answers(status)
            with pytest.raises(DeliveryDelayed, match=f"the service answered {status}"):
                await deliver(of(receiver))
        gone = of(receiver)

    with pytest.raises(DeliveryDelayed, match="Apprise could not deliver"):
        await deliver(gone)


async def test_a_url_of_no_service_is_told_without_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody must mend it, and the log must not show what is in it."""
    monkeypatch.setenv("APPRISE_URL", "nosuch://very-secret-token")

    with pytest.raises(DeliveryDelayed, match="knows no service by this url") as caught:
        await deliver("${env:APPRISE_URL}")

    assert "very-secret" not in str(caught.value)


async def test_a_service_that_hangs_is_cut_off_and_the_next_message_goes_through() -> None:
    """Neither the loop nor the thread may wait longer than the webhook's timeout says."""
    async with Receiver() as receiver:
        receiver.answers(Answer(hang=True))

        with pytest.raises(DeliveryDelayed, match="took longer than 1 s"):
            await deliver(of(receiver) + "?rto=60", timeout="1s")
        await deliver(of(receiver))

    assert len(receiver.taken) == 1


async def test_a_hanging_service_delays_no_other_webhook() -> None:
    """Each webhook has a child of its own."""
    async with Receiver() as slow, Receiver() as quick:
        slow.otherwise = Answer(hang=True)
        stuck = Sender(webhook("apprise", url=of(slow) + "?rto=60"), clock=SystemClock())
        waiting = asyncio.create_task(stuck.send(message("alert.firing")))
        hand = apprise._Hand("other")
        apprise._hands["other"] = hand
        request = {"url": of(quick), "title": "t", "body": "b", "type": "info"}

        assert (await hand.ask(request, 30.0))["ok"]

        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_message_given_up_frees_its_thread() -> None:
    """At a stop nobody waits for a service that hangs: its child is killed with the attempt."""
    async with Receiver() as receiver:
        receiver.answers(Answer(hang=True))
        sender = Sender(webhook("apprise", url=of(receiver) + "?rto=600", timeout="2m"), clock=SystemClock())
        waiting = asyncio.create_task(sender.send(message("alert.firing")))
        async with asyncio.timeout(60):
            while not receiver.requests:
                await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

        async with asyncio.timeout(60):
            await deliver(of(receiver))

    assert len(receiver.taken) == 1


async def test_a_child_that_died_is_replaced() -> None:
    """The OOM killer takes the child, not the alerts."""
    async with Receiver() as receiver:
        await deliver(of(receiver))
        process = apprise._hands["ops"].child._child
        assert process is not None
        process.kill()
        process.wait()

        await deliver(of(receiver))

    assert len(receiver.taken) == 2


def test_the_library_is_not_loaded_here() -> None:
    """It takes a second and tens of megabytes, which an idle daemon does not have."""
    code = "import sys; import agentd.deliver.formats.apprise as f; print(sorted(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "'apprise'" not in done.stdout
    assert "'requests'" not in done.stdout


def test_without_the_library_the_configuration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setattr(util, "find_spec", lambda name: None)

    with pytest.raises(ValidationError, match=r"pip install 'agentd\[apprise\]'"):
        webhook("apprise", url="ntfy://topic")


def test_a_url_of_another_kind_is_found_at_load() -> None:
    """The service's name comes first, whichever it is."""
    given = webhook("apprise", url="${env:APPRISE_URL}")

    assert not list(given.unusable({"APPRISE_URL": "ntfy://topic"}))
    assert [path for path, _ in given.unusable({"APPRISE_URL": "topic"})] == [("url",)]
    assert [path for path, _ in webhook("slack", url="${env:U}").unusable({"U": "ntfy://topic"})] == [("url",)]


@pytest.mark.parametrize("evil", ["@everyone", "@here", "<@U123>", "<!channel>", "<#C1>"])
def test_text_from_outside_mentions_nobody(evil: str) -> None:
    """Many services look for mentions in plain text."""
    assert evil not in "\n".join(apprise._lines(digest(message("alert.firing", summary=f"a {evil} b"))))


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(TYPES),
    NASTY,
    st.dictionaries(NASTY, NASTY, max_size=40),
    st.lists(NASTY, max_size=40),
)
def test_the_text_is_bounded_for_any_message(type: str, text: str, mapping: dict[str, str], items: list[str]) -> None:
    """What a service cannot hold is cut by the library; what nobody reads is cut by us."""
    lines = apprise._lines(digest(hostile(type, text, mapping, items)))

    assert 0 < len(bounded(lines, apprise.TEXT_CHARS)) <= apprise.TEXT_CHARS
