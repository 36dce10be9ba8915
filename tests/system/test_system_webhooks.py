"""Receivers that refuse, go away for good, or are tried out; and what nobody may ever read."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from around import Target
from stage import Stage


def shop(target: Target, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "http": {"url": target.url}, "expect": ["status == 200"], "recover_after": 1, **more}


async def test_a_refused_message_becomes_a_dead_letter_that_can_be_sent_again(tmp_path: Path) -> None:
    """A receiver that says 400 will say it for ever: no hammering, nothing forgotten, a person decides."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)])
        stage.hook.answers(400)
        target.status = 503
        daemon = await stage.start()
        await daemon.logged("delivery_refused", status=400)

        (dead,) = await stage.outbox("--state", "dead")
        assert (dead["type"], dead["webhook"], dead["last_status"], dead["attempts"]) == (
            "alert.firing",
            "hook",
            400,
            1,
        )
        shown = (await stage.cli("outbox", "show", dead["id"], "--output", "json")).json
        assert shown["data"]["watch"] == "shop"
        retried = await stage.cli("outbox", "retry", dead["id"])
        assert retried.code == 0, retried.err

        await stage.hook.message("alert.firing")
        await daemon.logged("delivered", id=dead["id"])
        assert stage.hook.ids == [dead["id"]], "under its old id"
        assert await stage.outbox() == []
        assert (await stage.cli("outbox", "retry", "msg_nobody")).code == 1


async def test_a_receiver_that_is_gone_is_disabled_until_a_person_enables_it(tmp_path: Path) -> None:
    """410 means: never again. What waits meanwhile is not lost, and comes in order; a restart changes nothing."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)])
        stage.hook.answers(410)
        target.status = 503
        daemon = await stage.start()
        await daemon.logged("webhook_disabled")
        target.status = 200
        await daemon.logged("alert_resolved")
        assert (await stage.cli("status", "--output", "json")).json["outbox"]["disabled_webhooks"] == ["hook"]
        waiting = await stage.outbox("--state", "waiting")
        assert [(each["type"], each["note"]) for each in waiting] == [
            ("alert.firing", "disabled"),
            ("alert.resolved", "disabled"),
        ]

        assert await daemon.stop() == 0
        daemon = await stage.start()
        await target.looked_at()
        assert len(stage.hook.requests) == 1, "nothing was sent after the 410"
        enabled = await stage.cli("webhook", "enable", "hook")
        assert enabled.code == 0, enabled.err

        await stage.hook.message("alert.resolved", watch="shop")
        kinds = [each["type"] for each in stage.hook.messages() if each["data"]["watch"] == "shop"]
        assert kinds == ["alert.firing", "alert.resolved"]
        assert stage.hook.requests[0].id == stage.hook.taken[0].id


async def test_a_webhook_is_tried_out_by_a_marked_sample(tmp_path: Path) -> None:
    """Before the first real alert, and with the receiver's own words when it does not work."""
    async with Stage(tmp_path) as stage:
        stage.configure([])
        await stage.start()

        worked = await stage.cli("webhook", "test", "hook")
        stage.hook.answers(500)
        failed = await stage.cli("webhook", "test", "hook")
        unknown = await stage.cli("webhook", "test", "hok")

        assert (worked.code, failed.code, unknown.code) == (0, 1, 1)
        assert "hook took it: status 200" in worked.out
        assert "500" in failed.err
        assert "known: hook" in unknown.err
        (message,) = stage.hook.messages()
        assert (message["type"], message["data"]["webhook"]) == ("agentd.test", "hook")
        assert await stage.outbox() == [], "a sample is not kept"


async def test_messages_wait_for_a_receiver_over_a_restart_and_go_out_when_it_is_back(tmp_path: Path) -> None:
    """The daemon and its receiver are often down together, after a power cut for one."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target), shop(target) | {"name": "other"}])
        await stage.hook.stop()
        target.status = 503
        daemon = await stage.start()
        for watch in ("shop", "other"):
            await daemon.logged("alert_firing", watch=watch)
        await daemon.logged("delivery_delayed", attempt=2, within_s=30)
        assert await daemon.stop() == 0

        await stage.hook.start()
        await stage.start()

        for watch in ("shop", "other"):
            await stage.hook.message("alert.firing", watch=watch, within_s=30)


async def test_no_secret_is_written_down_anywhere(tmp_path: Path) -> None:
    """Logs go to many places, and so do stores and backups; secrets belong to none of them."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        secrets = {
            "CANARY_URL": "canary-of-the-url-1f8a",
            "CANARY_HEADER": "canary-of-the-header-77c2",
            "CANARY_PROBE": "canary-of-the-probe-90bd",
            "CANARY_PING": "canary-of-the-ping-3e5d",
        }
        stage.environment |= secrets
        key = stage.hook.secret.removeprefix("whsec_")
        stage.configure(
            [
                shop(target) | {"http": {"url": target.url, "headers": {"X-Key": "${env:CANARY_PROBE}"}}},
                {"name": "dead-end", "http": {"url": "http://127.0.0.1:1/${env:CANARY_PROBE}"}},
                {"name": "job", "heartbeat": {"expect_every": "1h", "token": "${env:CANARY_PING}"}},
            ],
            daemon={"log_level": "debug"},
            webhooks={
                "hook": {
                    "url": f"{stage.hook.url}?key=${{env:CANARY_URL}}",
                    "secret": "${env:HOOK_SECRET}",
                    "headers": {"Authorization": "Bearer ${env:CANARY_HEADER}"},
                },
                "nowhere": {"url": "http://127.0.0.1:1/${env:CANARY_URL}", "secret": "${env:HOOK_SECRET}"},
            },
            alerting={"notify": ["hook", "nowhere"]},
        )
        stage.hook.answers(500, 400)
        target.status = 503
        daemon = await stage.start()
        await daemon.logged("delivery_delayed", webhook="nowhere")
        await daemon.logged("delivery_refused", webhook="hook", within_s=30)
        target.status = 200
        await stage.hook.message("alert.resolved", watch="shop", within_s=30)
        said = [
            await stage.cli(*words.split())
            for words in (
                "status --output json",
                "watches --output json",
                "alerts --all --output json",
                "outbox list --output json",
                "webhook test nowhere",
                "check",
                "test dead-end",
                "doctor",
            )
        ]
        assert await daemon.stop() == 0

        assert all(
            (name in request.headers.get("authorization", "")) == (name == "canary-of-the-header-77c2")
            for request in stage.hook.requests
            for name in secrets.values()
        ), "they were used"
        shown = "\n".join([*daemon.lines, *(each.out + each.err for each in said)]).encode()
        places = {"what was said": shown} | {
            str(path): path.read_bytes() for path in stage.state_dir.rglob("*") if path.is_file()
        }
        assert len(places) > 3
        for place, content in places.items():
            for canary in [*(each.encode() for each in secrets.values()), key.encode(), base64.b64decode(key)]:
                assert canary not in content, f"{canary!r} stands in {place}"
