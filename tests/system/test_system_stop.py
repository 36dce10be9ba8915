"""How it ends, and what keeps it from beginning: drained on SIGTERM, alone on its state, plain about what is wrong."""

from __future__ import annotations

import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from around import Target
from loopback import free_port
from receiver import Answer
from stage import Stage

IDLE = {"name": "idle", "host": {"disk": "/"}, "every": "24h"}


def shop(target: Target, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "http": {"url": target.url}, "expect": ["status == 200"], **more}


async def test_what_is_being_sent_at_sigterm_is_sent_to_its_end_and_never_again(tmp_path: Path) -> None:
    """A deployment must not double a page, nor cut one off."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)])
        stage.hook.answers(Answer(delay_s=2))
        target.status = 503
        daemon = await stage.start()
        await stage.news.until(lambda: stage.hook.requests, "a message is under way")

        daemon.signal(signal.SIGTERM)
        await daemon.noted("STOPPING")
        assert stage.hook.taken == []
        assert await daemon.ended() == 0
        assert len(stage.hook.taken) == 1
        assert await stage.outbox() == []

        target.status = 200
        await stage.start()
        await stage.hook.message("alert.resolved")
        assert [request.json["type"] for request in stage.hook.requests] == ["alert.firing", "alert.resolved"]


async def test_a_receiver_that_never_answers_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """systemd would kill what does not end; the message goes out in the next life, under its old id."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)], daemon={"drain_timeout": "1s"})
        stage.hook.answers(Answer(hang=True))
        target.status = 503
        daemon = await stage.start()
        await stage.news.until(lambda: stage.hook.requests, "a message is under way")

        assert await daemon.stop(within_s=10) == 0
        await stage.start()

        await stage.hook.message("alert.firing")
        first, second = stage.hook.requests
        assert (first.id, first.body) == (second.id, second.body)


async def test_the_service_manager_hears_the_whole_life(tmp_path: Path) -> None:
    """What systemd waits for, in its order, and the watchdog fed from the beginning."""
    async with Stage(tmp_path) as stage:
        stage.configure([IDLE])
        daemon = await stage.start(WATCHDOG_USEC="400000")
        await stage.news.until(lambda: sum("WATCHDOG" in note for note in daemon.notes) >= 3, "three pings")

        assert await daemon.stop() == 0

        words = [next(iter(note)) for note in daemon.notes]
        assert words.index("READY") < words.index("STOPPING")
        assert "1 watches" in daemon.notes[words.index("READY")]["STATUS"]


async def test_ctrl_c_is_a_clean_end_too(tmp_path: Path) -> None:
    """People try it on a terminal first."""
    async with Stage(tmp_path) as stage:
        stage.configure([IDLE])
        daemon = await stage.start()

        daemon.signal(signal.SIGINT)

        assert await daemon.ended() == 0


async def test_a_second_daemon_on_the_same_state_says_who_owns_it(tmp_path: Path) -> None:
    """Two would send everything twice."""
    async with Stage(tmp_path) as stage:
        stage.configure([IDLE])
        first = await stage.start()
        stage.configure([IDLE], api={"listen": [f"unix:{tmp_path}/other.sock"]})

        second = await stage.spawn()

        assert await second.ended() == 1
        (line,) = second.lines
        assert f"agentd with pid {first.pid} owns it" in line
        assert str(stage.state_dir) in line
        assert first.alive
        assert (await stage.api("GET", "/health")).status_code == 200


async def test_a_port_in_use_is_said_in_one_line(tmp_path: Path) -> None:
    """Not a traceback: the reader wants to know which port, and what to do."""
    async with Stage(tmp_path) as stage:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            stage.configure([IDLE], api={"listen": [f"unix:{tmp_path}/api.sock", f"127.0.0.1:{port}"]})

            daemon = await stage.spawn()

            assert await daemon.ended() == 1
        (line,) = daemon.lines
        assert f"127.0.0.1:{port}" in line
        assert "choose another" in line


async def test_a_state_dir_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    """The most common mistake of a first installation."""
    async with Stage(tmp_path) as stage:
        stage.state_dir = tmp_path / "file" / "state"
        if os.getuid() == 0:
            (tmp_path / "file").write_text("root may write anywhere, but not into a file")
        else:
            (tmp_path / "file").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
        stage.configure([IDLE])

        daemon = await stage.spawn()

        assert await daemon.ended() == 1
        (line,) = daemon.lines
        assert str(stage.state_dir) in line
        assert "name another state_dir" in line


async def test_a_missing_configuration_is_said_in_one_line(tmp_path: Path) -> None:
    """Started in the wrong folder."""
    async with Stage(tmp_path) as stage:
        stage.path = tmp_path / "nowhere.yaml"

        daemon = await stage.spawn()

        assert await daemon.ended() == 2
        (line,) = daemon.lines
        assert str(stage.path) in line


@pytest.mark.parametrize("way", ["tcp", "socket"])
async def test_a_heartbeat_ends_the_alert_of_its_silence(tmp_path: Path, way: str) -> None:
    """A nightly job speaks up over TCP with its token, or on the machine itself without one."""
    async with Stage(tmp_path) as stage:
        port, pace = free_port(), await stage.target()
        stage.environment["PING"] = "a-token-of-the-job"
        stage.configure(
            [
                {
                    "name": "backup",
                    "heartbeat": {"expect_every": "1s", "grace": "0s", "token": "${env:PING}"},
                    "fail_after": 1,
                    "recover_after": 1,
                },
                shop(pace),
            ],
            api={"listen": [f"unix:{tmp_path}/api.sock", f"127.0.0.1:{port}"]},
        )
        await stage.start()
        # Silence counts from the first look on; its own next one is up to ten seconds off.
        await stage.api("POST", "/api/v1/watches/backup/check")
        await pace.looked_at(8)  # more than a second
        await stage.api("POST", "/api/v1/watches/backup/check")
        firing = await stage.hook.message("alert.firing")
        assert "no heartbeat ever" in firing["data"]["summary"]

        if way == "socket":
            answer = await stage.api("POST", "/api/v1/heartbeat/backup")
            assert answer.status_code == 200
        else:
            over_tcp = f"http://127.0.0.1:{port}"
            beat = f"{over_tcp}/api/v1/heartbeat/backup"
            assert await stage.post(beat) == 401
            assert await stage.post(beat, Authorization="Bearer a-wrong-one") == 403
            assert await stage.post(f"{beat}?token=a-wrong-one") == 403
            assert await stage.post(f"{over_tcp}/api/v1/heartbeat/nobody") == 401
            for other in ("reload", "watches/backup/check", "watches/backup/pause", "webhooks/hook/test"):
                assert await stage.post(f"{over_tcp}/api/v1/{other}") == 401
            assert stage.hook.messages("alert.resolved") == []
            assert await stage.post(beat, Authorization="Bearer a-token-of-the-job") == 200

        resolved = await stage.hook.message("alert.resolved")
        assert resolved["data"]["fingerprint"] == firing["data"]["fingerprint"]
