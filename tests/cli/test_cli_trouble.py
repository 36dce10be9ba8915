"""What the commands say when messages cannot go out."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Agentd
from running import running
from test_cli import agentd, shop, web, write

from agentd.daemon.app import Daemon
from agentd.memory import meta, outbox, webhooks
from agentd.memory.store import Store
from agentd.records import Delivery, EventType

__all__ = ["agentd", "web"]

HOOKS: dict[str, Any] = {
    "webhooks": {"ops": {"url": "http://127.0.0.1:9/"}, "chat": {"url": "http://127.0.0.1:9/x"}},
    "alerting": {"notify": ["ops"]},
}


@pytest.fixture
def store(tmp_path: Path, web: str) -> Path:
    """A store of a daemon that is gone: `ops` disabled, a message for it, one for a webhook that is gone, one dead."""
    write(tmp_path, shop(web), **HOOKS)
    asyncio.run(_fill(tmp_path / "s"))
    return tmp_path / "s"


async def _fill(folder: Path, held: str | None = None) -> None:
    now = datetime.now(UTC)
    store = await Store.open(folder)

    def change(c: Any) -> None:
        for webhook in ("ops", "gone", "chat"):
            outbox.put(c, Delivery(f"msg_{webhook}", webhook, "shop", EventType.FIRING, "{}", now, now, "f"))
        outbox.bury(c, "msg_chat", now=now, error="status 400")
        webhooks.disable(c, "ops", "status 410", now)
        if held:
            meta.put(c, meta.HELD, held)

    await store.state.write(change)
    await store.close()


def test_status_begins_with_the_trouble(agentd: Agentd, store: Path) -> None:
    """One look at the first lines must do."""
    said = agentd("status")

    lines = said.out.splitlines()
    assert lines[0].startswith("webhook ops is disabled: status 410; 1 message waits;")
    assert lines[1].startswith("1 message waits for webhook gone, which the configuration does not name")
    assert lines[2].startswith("1 message is undeliverable to chat")
    assert lines[3].startswith("state")
    assert agentd("status", "-o", "json").json["trouble"] == lines[:3]


def test_outbox_list_says_what_a_message_waits_for(agentd: Agentd, store: Path) -> None:
    """A time in the past under NEXT TRY explains nothing."""
    rows = {row["webhook"]: row for row in agentd("outbox", "list", "-o", "json").json["deliveries"]}

    assert {name: (row["state"], row["note"]) for name, row in rows.items()} == {
        "ops": ("waiting", "disabled"),
        "gone": ("waiting", "no such webhook"),
        "chat": ("dead", None),
    }
    shown = agentd("outbox", "list").out
    assert " disabled " in shown
    assert " no such webhook " in shown
    assert " waiting " not in shown


def test_an_empty_answer_says_what_it_is_empty_of(agentd: Agentd, store: Path) -> None:
    """ "Every message was taken" was said of a list that was filtered."""
    assert agentd("outbox", "list", "--state", "claimed").out == "No claimed messages.\n"
    assert agentd("outbox", "list", "--state", "waiting", "--webhook", "chat").out == "No waiting messages for chat.\n"
    unknown = agentd("outbox", "list", "--webhook", "opps")
    assert unknown.code == 1
    assert "no webhook 'opps'; known: chat, ops" in unknown.err


def test_doctor_finds_fault_with_what_nobody_was_told(agentd: Agentd, store: Path) -> None:
    """A store may be sound and its alerts unheard."""
    said = agentd("doctor", "-o", "json")

    assert said.code == 1
    errors = {finding["what"]: finding for finding in said.json if finding["level"] == "error"}
    assert "ops is disabled: status 410" in errors["webhook"]["text"]
    assert "agentd webhook enable ops" in errors["webhook"]["cure"]
    assert "dead letters for chat" in errors["outbox"]["text"]


def test_doctor_resume_asks_the_daemon_that_runs(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """The daemon itself says to type it."""
    path = write(tmp_path, shop(web), **HOOKS)
    asyncio.run(_fill(tmp_path / "s", held="restored"))
    with running(path) as daemon:
        assert agentd("outbox", "retry", "--all", "--webhook", "opps").code == 1
        assert "nothing is sent: restored" in agentd("status").out
        assert agentd("doctor", "resume").out == "sending goes on\n"
        assert agentd("doctor", "resume").out == "nothing was held back\n"
        assert isinstance(daemon, Daemon)
        assert daemon.held is None
    assert agentd("doctor", "resume").out == "nothing was held back\n"


def test_watches_say_why_they_are_not_looked_at(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """With the daemon and without it: who paused what until when, and what stands disabled in the file."""
    path = write(tmp_path, shop(web), shop(web, name="off", enabled=False), **HOOKS)
    with running(path):
        assert "replaces" not in agentd("pause", "shop", "--for", "2h", "--reason", "move").out
        again = agentd("pause", "shop", "--reason", "long move").out
        assert again.startswith("shop is paused until somebody resumes it; this replaces the pause by ")
        live = agentd("watches").out
        shape = [set(view) for view in agentd("watches", "-o", "json").json["watches"]]
    offline = agentd("watches").out

    for table in (live, offline):
        assert "until somebody resumes it: long move" in table
        paused, disabled = table.splitlines()[1:]
        assert " paused " in paused
        assert " disabled " in disabled
    assert [set(view) for view in agentd("watches", "-o", "json").json["watches"]] == shape


def test_of_a_delivered_message_no_words_are_shown(agentd: Agentd, store: Path) -> None:
    """They are not kept; `null` at the end reads as if something were wrong."""

    async def deliver() -> None:
        opened = await Store.open(store)
        now = datetime.now(UTC)

        def change(c: Any) -> None:
            outbox.put(c, Delivery("msg_done", "other", "shop", EventType.FIRING, "{}", now, now, "f"))
            outbox.done(c, "msg_done", now, 204)

        await opened.state.write(change)
        await opened.close()

    asyncio.run(deliver())
    said = agentd("outbox", "show", "msg_done")

    assert said.code == 0
    assert "delivered" in said.out
    assert "null" not in said.out
