"""What starts a watch besides its schedule: the start, alerts, hooks, files and units, through the public config."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
import yaml
from house import House, Shop, Tell, http, tell
from loopback import free_port, serving
from standardwebhooks import Webhook

from agentd.api.service import Forbidden, NoSecret, NotFound, TooMany
from agentd.config.loader import load
from agentd.daemon.app import Daemon
from agentd.memory import spans
from agentd.schedule.bus import Event
from agentd.schedule.units import Units

__all__ = ["tell"]  # the fixture, by its name

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"deploy": {"secret": SECRET}}


async def triggers(house: House, daemon: Daemon, watch: str) -> list[str]:
    """What the traces say of why the watch was looked at, oldest first; each once."""
    daemon.recorder.flush()
    await house.clock.settle()

    def read(connection: apsw.Connection) -> list[Any]:
        rows = reversed(spans.last(connection, watch=watch))
        return [spans.trace(connection, row.trace_id)[-1] for row in rows]

    roots = await daemon.store.history.read(read)
    return list(dict.fromkeys(root["attributes"]["agentd.trigger"] for root in roots))


def test_a_watch_is_looked_at_when_the_daemon_starts(tell: Tell) -> None:
    """`on: [startup]`: once a start, and not at a reload."""

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served, on=["startup"]))
            for starts in (1, 2):
                async with house.living() as daemon:
                    await daemon.reload()
                    await house.clock.advance(600)
                    assert shop.looks == starts

    tell(story)


def test_an_alert_starts_a_watch_and_so_does_its_end(tell: Tell) -> None:
    """When the disk is full one wants to know at once whether the database still writes, and not in an hour."""

    async def story(house: House) -> None:
        shop, base = Shop(), Shop()
        async with serving(shop.answer) as served, serving(base.answer) as other:
            house.write(http(served), http(other, "base", on=["alert:shop"]))
            async with house.living() as daemon:
                await house.clock.advance(600)
                assert base.looks == 0
                for up, looks in ((False, 1), (True, 2)):
                    shop.up = up
                    await house.clock.advance(600)
                    assert base.looks == looks
                base.up = False
                shop.up = False
                await house.clock.advance(600)
                assert await triggers(house, daemon, "base") == ["on alert:shop"]

    tell(story)


def test_watches_that_start_each_other_come_to_rest(tell: Tell) -> None:
    """Each fails at the first look: without protection they would look at each other for ever."""

    async def story(house: House) -> None:
        one, two = Shop(), Shop()
        one.up = two.up = False
        async with serving(one.answer) as first, serving(two.answer) as second:
            house.write(
                http(first, "one", on=["alert:two", "hook:deploy"], fail_after=1),
                http(second, "two", on=["alert:one"], fail_after=1),
                api={"hooks": HOOK},
            )
            async with house.living() as daemon:
                await daemon.events.hook("deploy", headers={}, body=nothing, trusted=True)
                await house.clock.advance(60)

                assert (one.looks, two.looks) == (1, 1)
                assert (await daemon.control.status())["events"]["circular"] == 1

    tell(story)


async def nothing() -> bytes:
    return b""


def test_a_log_rule_starts_a_watch(tell: Tell, tmp_path: Path) -> None:
    """`log:WATCH/RULE`: when the rule's alert fires, and when it is over nothing starts."""

    async def story(house: House) -> None:
        shop, log = Shop(), tmp_path / "app.log"
        log.touch()
        rules = [
            {"name": "broken", "type": "any", "match": "broken", "resolve_after": "1m"},
            {"name": "other", "type": "any", "match": "other"},
        ]
        async with serving(shop.answer) as served:
            house.write(
                {"name": "app", "log": {"files": [str(log)]}, "rules": rules},
                http(served, on=["log:app/broken"]),
            )
            async with house.living():
                await house.clock.advance(10)
                log.write_text("other\n")
                await house.clock.advance(10)
                assert shop.looks == 0
                with log.open("a") as file:
                    file.write("broken\n")
                await house.clock.advance(300)
                assert shop.looks == 1

    tell(story)


def test_a_file_starts_a_watch_whatever_happens_to_it(tell: Tell, tmp_path: Path) -> None:
    """A flag that a deploy leaves, a certificate that is renewed: replaced as well as written."""

    async def story(house: House) -> None:
        shop, flag = Shop(), tmp_path / "flag"
        async with serving(shop.answer) as served:
            house.write(http(served, on=[f"file:{flag}"]))
            async with house.living() as daemon:
                await house.clock.advance(10)
                assert shop.looks == 0
                for looks, change in enumerate(("create", "change", "replace", "remove"), 1):
                    if change == "replace":
                        (tmp_path / "new").write_text("new")
                        os.replace(tmp_path / "new", flag)
                    elif change == "remove":
                        flag.unlink()
                    else:
                        flag.write_text(change)
                    await house.clock.advance(10)
                    assert (change, shop.looks) == (change, looks)
                assert daemon.events.trouble() == []

    tell(story)


def test_a_file_that_cannot_be_looked_at_is_told_as_trouble(tell: Tell, tmp_path: Path) -> None:
    """Who waits for it should know that nothing will come."""

    async def story(house: House) -> None:
        shop, loop = Shop(), tmp_path / "loop"
        loop.symlink_to(loop)
        async with serving(shop.answer) as served:
            house.write(http(served, on=[f"file:{loop}"]))
            async with house.living() as daemon:
                await house.clock.advance(10)
                (trouble,) = (await daemon.control.status())["trouble"]
                assert trouble.startswith(f"file:{loop}: cannot be looked at: ")
                loop.unlink()
                await house.clock.advance(10)
                assert (await daemon.control.status())["trouble"] == []

    tell(story)


def test_a_reload_changes_what_is_waited_for(tell: Tell, tmp_path: Path) -> None:
    """Also what is looked at: files of the old configuration are let go of."""

    async def story(house: House) -> None:
        shop = Shop()
        one, two = tmp_path / "one", tmp_path / "two"
        async with serving(shop.answer) as served:
            house.write(http(served, on=[f"file:{one}"]))
            async with house.living() as daemon:
                await house.clock.advance(10)
                house.write(http(served, on=[f"file:{two}", "hook:deploy"]), api={"hooks": HOOK})
                assert await daemon.reload() is None
                assert daemon.note == "", "hooks need no restart"
                await house.clock.advance(10)
                one.touch()
                await house.clock.advance(10)
                assert shop.looks == 0
                two.touch()
                await house.clock.advance(10)
                assert shop.looks == 1
                answer = await daemon.events.hook("deploy", headers={}, body=nothing, trusted=True)
                assert answer == {"accepted": True, "started": ["shop"]}

                house.write(http(served, every="1h"))
                assert await daemon.reload() is None
                await house.clock.advance(10)
                assert [task.get_name() for task in asyncio.all_tasks() if "events:" in task.get_name()] == []

    tell(story)


def test_a_unit_that_fails_starts_a_watch(tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All units of all watches are one question to systemd, at most every ten seconds."""
    asked, failed = tmp_path / "asked", tmp_path / "failed"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f"""#!/bin/sh
echo "$@" >>{asked}
for unit; do
  case $unit in
    *.service) echo "Id=$unit"; echo LoadState=loaded
      if grep -qs "$unit" {failed}; then echo ActiveState=failed; else echo ActiveState=active; fi; echo;;
  esac
done
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    looking, look = 0, Units.look

    async def counted(self: Units, timeout_s: float) -> tuple[list[tuple[str, str]], str | None]:
        nonlocal looking
        looking += 1
        try:
            return await look(self, timeout_s)
        finally:
            looking -= 1

    monkeypatch.setattr(Units, "look", counted)

    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.clock.busy.append(lambda: looking > 0)  # a process is nothing that the fake clock would wait for
            house.write(http(served, on=["unit:nginx"]), http(served, "till", on=["unit:redis.service"]))
            async with house.living():
                await house.clock.advance(60)
                assert len(asked.read_text().splitlines()) <= 7
                failed.write_text("nginx.service\n")
                await house.clock.advance(60)
                assert shop.looks == 1
                failed.write_text("")
                await house.clock.advance(60)
                failed.write_text("nginx.service\nredis.service\n")
                await house.clock.advance(60)
                assert shop.looks == 3

    tell(story)


def test_a_paused_watch_is_started_by_nothing(tell: Tell) -> None:
    async def story(house: House) -> None:
        shop = Shop()
        async with serving(shop.answer) as served:
            house.write(http(served, on=["hook:deploy", "startup"]), api={"hooks": HOOK})
            async with house.living() as daemon:
                await daemon.control.pause("shop", by="eve", for_s=None, reason="")
            looks = shop.looks
            async with house.living() as daemon:
                answer = await daemon.events.hook("deploy", headers={}, body=nothing, trusted=True)
                await house.clock.advance(60)

                assert answer["started"] == []
                assert shop.looks == looks

    tell(story)


@pytest.mark.parametrize("calls", [1, 10])
def test_calls_during_one_look_lead_to_one_look_more(tell: Tell, calls: int) -> None:
    """A look that began before the call may have seen what was before it; ten calls need no ten looks."""

    async def story(house: House) -> None:
        gate, looks = asyncio.Event(), 0

        async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal looks
            await reader.readuntil(b"\r\n\r\n")
            looks += 1
            await gate.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

        async with serving(slow) as served:
            house.write(http(served, on=["hook:deploy"]), api={"hooks": HOOK})
            async with house.living() as daemon:
                manual = daemon.scheduler.run_now("shop")
                await house.clock.settle()
                for _ in range(calls):
                    await daemon.events.hook("deploy", headers={}, body=nothing, trusted=True)
                    await house.clock.settle()
                assert looks == 1
                gate.set()
                await house.clock.settle()
                await manual

                assert looks == 2

    tell(story)


def test_a_hook_is_called_over_tcp_by_its_secret(tell: Tell) -> None:
    """The whole way, as a deploy script goes it: a signature, a token, a replay, too many, too much."""

    async def story(house: House) -> None:
        shop, port = Shop(), free_port()
        async with serving(shop.answer) as served, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            hooks = {"deploy": {"secret": SECRET, "rate": "3/m"}}
            house.write(http(served, on=["hook:deploy"]), api={"hooks": hooks, "listen": [f"127.0.0.1:{port}"]})
            async with house.living():
                url, body, now = "/api/v1/hooks/deploy", '{"ref": "main"}', house.clock.now()
                signed = {
                    "webhook-id": "msg_1",
                    "webhook-timestamp": str(int(now.timestamp())),
                    "webhook-signature": Webhook(SECRET).sign("msg_1", now, body),
                }
                bearer = {"Authorization": f"Bearer {SECRET}"}

                answer = await client.post(url, content=body, headers=signed)
                assert (answer.status_code, answer.json()) == (202, {"accepted": True, "started": ["shop"]})
                assert (await client.post(url, content=body, headers=signed)).status_code == 409
                assert (await client.post(url, content=body + " ", headers=signed)).status_code == 403
                assert (await client.post(url, content=body)).status_code == 401
                assert (await client.get(url, headers=bearer)).status_code == 405
                assert (await client.post("/api/v1/hooks/other", headers=bearer)).status_code == 403
                large = await client.post(url, content=b"x" * (256 * 1024 + 1), headers=bearer)
                assert large.status_code == 413
                most = await client.post(url, content=b"x" * (256 * 1024), headers=bearer)
                assert most.status_code == 202
                assert (await client.post(url, headers=bearer)).status_code == 202
                refused = await client.post(url, headers=bearer)
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
                await house.clock.advance(20)
                assert (await client.post(url, headers=bearer)).status_code == 202
                await house.clock.settle()
                assert shop.looks > 1

    tell(story)


def test_where_a_missing_token_should_be_is_for_the_log_alone(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody may report over TCP: they learn no path, and cannot fill the log."""

    async def story(house: House) -> None:
        token = house.folder / "token"
        token.write_text("s3cret")
        beat = {"expect_every": "1h", "grace": "10m", "token": f"${{file:{token}}}"}
        house.write({"name": "job", "heartbeat": beat})
        async with house.living() as daemon:
            token.unlink()
            for _ in range(3):
                with pytest.raises(NoSecret) as caught:
                    await daemon.control.beat("job", token="s3cret", ok=True, message="", trusted=False)
                assert str(token) not in str(caught.value)

    tell(story)
    (logged,) = [record for record in caplog.records if record.message == "heartbeat_token_missing"]
    assert "token" in logged.__dict__["error"]


def test_who_has_no_token_cannot_tell_which_heartbeats_there_are(tell: Tell) -> None:
    """The names of jobs say what is done here, and when it is worth to come."""

    async def story(house: House) -> None:
        beat = {"expect_every": "1h", "grace": "10m"}
        house.write(
            {"name": "job", "heartbeat": beat | {"token": "s3cret"}},
            {"name": "local", "heartbeat": beat},
            {"name": "exists", "http": {"url": "http://127.0.0.1:9/"}},
        )
        async with house.living() as daemon:
            said = set()
            for watch in ("job", "local", "exists", "nothing"):
                for token in (None, "", "wrong"):
                    with pytest.raises(Forbidden) as refused:
                        await daemon.control.beat(watch, token=token, ok=True, message="", trusted=False)
                    said.add(str(refused.value))
            (words,) = said
            assert "`api.socket_access` gives the scope operate" in words, "what to do about it"
            await daemon.control.beat("job", token="s3cret", ok=True, message="", trusted=False)
            for watch in ("exists", "nothing"):
                with pytest.raises(NotFound):
                    await daemon.control.beat(watch, token=None, ok=True, message="", trusted=True)

    tell(story)


def test_heartbeats_have_a_rate(tell: Tell) -> None:
    """Each is a write to the disk, and a loop in a script is quickly written."""

    async def story(house: House) -> None:
        beat = {"expect_every": "1h", "grace": "10m", "rate": "2/m"}
        house.write({"name": "job", "heartbeat": beat}, {"name": "other", "heartbeat": beat})
        async with house.living() as daemon:

            async def report(watch: str = "job") -> None:
                await daemon.control.beat(watch, token=None, ok=True, message="", trusted=True)

            await report()
            await report()
            with pytest.raises(TooMany):
                await report()
            await report("other")
            await house.clock.advance(30)
            await report()

    tell(story)


@asynccontextmanager
async def alertmanager(folder: Path, url: str) -> AsyncIterator[int]:
    """Debian's own, which posts to us with a token. Gives its port."""
    port = free_port()
    hook = {"url": url, "http_config": {"authorization": {"credentials": "a plain token"}}, "send_resolved": True}
    config = {
        "route": {"receiver": "us", "group_by": ["zone"], "group_wait": "10ms", "group_interval": "100ms"},
        "receivers": [{"name": "us", "webhook_configs": [hook]}],
    }
    (folder / "am.yml").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        "prometheus-alertmanager",
        f"--config.file={folder}/am.yml",
        f"--storage.path={folder}/am",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"Listening on" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()


async def test_a_real_alertmanager_is_understood(tmp_path: Path) -> None:
    """`on: hook:am`: what it posts starts watches, with its alerts in the event, firing and resolved."""
    port = free_port()
    config = tmp_path / "agentd.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "daemon": {"state_dir": str(tmp_path / "state")},
                "api": {"listen": [f"127.0.0.1:{port}"], "hooks": {"am": {"secret": "a plain token"}}},
                "watches": [{"name": "load", "host": {"load": True}, "on": ["hook:am"], "expect": []}],
            }
        )
    )
    daemon = Daemon(config, load(config), handle_signals=False)
    run = asyncio.create_task(daemon.run())
    got: asyncio.Queue[Event] = asyncio.Queue()
    try:
        async with asyncio.timeout(60), alertmanager(tmp_path, f"http://127.0.0.1:{port}/api/v1/hooks/am") as theirs:
            await daemon.ready.wait()
            daemon.events.bus.subscribe("test", ["hook:am"], got.put)
            async with httpx.AsyncClient(trust_env=False) as client:
                alert = {"labels": {"alertname": "Down", "zone": "dmz"}, "annotations": {"summary": "it is down"}}
                began = {"startsAt": datetime.now(UTC).isoformat()}
                url = f"http://127.0.0.1:{theirs}/api/v2/alerts"
                for status, more in (("firing", {}), ("resolved", {"endsAt": datetime.now(UTC).isoformat()})):
                    (await client.post(url, json=[alert | began | more])).raise_for_status()
                    said = (await got.get()).data["alertmanager"]
                    (told,) = said["alerts"]
                    assert (said["status"], told["status"]) == (status, status)
                    assert told["labels"] == alert["labels"]
                    assert told["annotations"] == {"summary": "it is down"}
                    assert len(told["fingerprint"]) == 16
                    assert (told["ends_at"] is None) == (status == "firing")
            assert daemon.pipeline.checks >= 1
    finally:
        daemon.stop()
        assert await run == 0
