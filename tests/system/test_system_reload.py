"""A new configuration is gone over to, or refused, while the daemon runs; a restart changes nothing either."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from around import Target
from stage import Daemon, Stage

CEL_PROBLEM = "status =="


def shop(target: Target, **more: Any) -> dict[str, Any]:
    return {"name": "shop", "http": {"url": target.url}, "expect": ["status == 200"], **more}


async def hang_up(daemon: Daemon) -> dict[str, str]:
    """SIGHUP; returns what the service manager hears once it is over."""
    heard = len(daemon.notes)
    before = time.monotonic_ns() // 1000
    daemon.signal(signal.SIGHUP)
    reloading = await daemon.noted("RELOADING", after=heard)
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    over = await daemon.noted("READY", after=heard)
    assert daemon.notes.index(over) > daemon.notes.index(reloading)
    return over


def line_of(path: Path, text: str) -> tuple[int, int]:
    """Line and column, from 1, of a text in the file."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if text in line:
            return number, line.index(text) + 1
    raise AssertionError(f"{text!r} is not in {path}")


def break_syntax(stage: Stage, target: Target) -> list[str]:
    text = stage.path.read_text().replace("webhooks:", "webhooks: [", 1)
    stage.path.write_text(text)
    return [f"{stage.path}:"]


def dangle(stage: Stage, target: Target) -> list[str]:
    stage.configure([shop(target, notify=["nobody"])])
    line, column = line_of(stage.path, "- nobody")
    return [f'{stage.path}:{line}:{column + 2}: watches[0].notify[0]: there is no webhook "nobody"']


def write_bad_cel(stage: Stage, target: Target) -> list[str]:
    stage.configure([shop(target) | {"expect": [CEL_PROBLEM, "colour == 1"]}])
    first, column = line_of(stage.path, f"- {CEL_PROBLEM}")
    second, _ = line_of(stage.path, "- colour")
    return [
        f"{stage.path}:{first}:{column + 2}: watches[0].expect[0]: ",
        f"{stage.path}:{second}:{column + 2}: watches[0].expect[1]: ",
    ]


def all_at_once(stage: Stage, target: Target) -> list[str]:
    stage.configure([shop(target, notify=["nobody"], colour="red") | {"expect": [CEL_PROBLEM]}])
    return [f"{stage.path}:{line_of(stage.path, text)[0]}:" for text in ("- nobody", f"- {CEL_PROBLEM}", "colour: red")]


@pytest.mark.parametrize("spoil", [break_syntax, dangle, write_bad_cel, all_at_once])
async def test_a_wrong_configuration_is_refused_and_the_old_one_runs_on(tmp_path: Path, spoil: Any) -> None:
    """A slip in an editor must not end the watching, and must not go unnoticed."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)])
        daemon = await stage.start()
        expected = spoil(stage, target)

        over = await hang_up(daemon)

        assert "reload refused" in over["STATUS"]
        assert str(stage.path) in over["STATUS"]
        await daemon.logged("reload_refused")
        checked = await stage.cli("check")
        assert checked.code == 2
        for problem in expected:
            assert any(line.startswith(problem) for line in checked.out.splitlines()), (problem, checked.out)
            assert any(each["problem"].startswith(problem) for each in daemon.logs("reload_problem"))
        await target.looked_at()
        target.status = 503
        await stage.hook.message("alert.firing")


async def test_a_daemon_will_not_start_on_a_wrong_configuration(tmp_path: Path) -> None:
    """Where, what, and how to mend, for every mistake at once, and exit code 2 for whoever started it."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        expected = all_at_once(stage, target)

        daemon = await stage.spawn()

        assert await daemon.ended() == 2
        for problem in expected:
            assert any(line.startswith(problem) for line in daemon.lines), (problem, daemon.lines)


async def test_a_streak_goes_on_over_a_reload(tmp_path: Path) -> None:
    """Two failures before and one after are three: editing another watch must not give a dead service more time."""
    async with Stage(tmp_path) as stage:
        target, other = await stage.target(), await stage.target()
        stage.configure([shop(target)])
        target.status, target.allowed = 503, 2
        daemon = await stage.start()
        await stage.news.until(lambda: target.arrived == 3, "the third check is under way")

        stage.configure([shop(target), {"name": "other", "http": {"url": other.url}}])
        await hang_up(daemon)
        await daemon.logged("reloaded")
        target.allowed = 3

        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["reason_text"] == "failed 3 times in a row"
        assert len(target.hits) == 3
        await other.reaches(1)


async def test_a_changed_notify_holds_from_the_next_incident_on(tmp_path: Path) -> None:
    """Whoever was told that it is down hears that it is up, though others hear of it by now."""
    async with Stage(tmp_path) as stage:
        target, other = await stage.target(), await stage.add_hook("other")
        stage.configure([shop(target)])
        daemon = await stage.start()
        target.status = 503
        await stage.hook.message("alert.firing")

        stage.configure([shop(target, notify=["other"])])
        await hang_up(daemon)
        target.status = 200
        await stage.hook.message("alert.resolved")
        target.status = 503
        await other.message("alert.firing")
        target.status = 200
        await other.message("alert.resolved")

        assert await daemon.stop() == 0
        assert [each["type"] for each in stage.hook.messages()] == ["alert.firing", "alert.resolved"]
        assert [each["type"] for each in other.messages()] == ["alert.firing", "alert.resolved"]


async def test_the_alert_of_a_removed_watch_resolves_with_that_reason(tmp_path: Path) -> None:
    """An alert that nobody looks after any more would stay red for ever in somebody's tool."""
    async with Stage(tmp_path) as stage:
        target, other = await stage.target(), await stage.add_hook("other")
        stage.configure([shop(target, notify=["other"]), {"name": "calm", "http": {"url": target.url + "calm"}}])
        target.answer = lambda path: 200 if path == "/calm" else 503
        daemon = await stage.start()
        firing = await other.message("alert.firing")

        stage.configure([{"name": "calm", "http": {"url": target.url + "calm"}}])
        await hang_up(daemon)

        resolved = await other.message("alert.resolved")
        assert resolved["data"]["reason"] == "watch_removed"
        assert resolved["data"]["fingerprint"] == firing["data"]["fingerprint"]
        shop_hits = sum(hit.path == "/" for hit in target.hits)
        await target.looked_at(3)
        assert sum(hit.path == "/" for hit in target.hits) <= shop_hits + 1, "one may have been under way"
        assert stage.hook.requests == []
        assert await stage.alerts() == []


async def test_a_watch_removed_while_we_were_down_resolves_too(tmp_path: Path) -> None:
    """The configuration is often changed together with an upgrade, when nothing runs."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target)])
        target.status = 503
        daemon = await stage.start()
        await stage.hook.message("alert.firing")
        assert await daemon.stop() == 0

        stage.configure([])
        await stage.start()

        assert (await stage.hook.message("alert.resolved"))["data"]["reason"] == "watch_removed"


async def test_a_kill_in_the_middle_of_a_streak_changes_nothing(tmp_path: Path) -> None:
    """A daemon that is killed again and again must not watch a service die without a word."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target, fail_after=5)])
        target.status, target.allowed = 503, 3
        daemon = await stage.start()
        # The fourth check begins only after the third was committed.
        await stage.news.until(lambda: target.arrived == 4, "the fourth check is under way")
        await daemon.kill()
        answered = len(target.hits)

        target.allowed = float("inf")
        await stage.start()

        firing = (await stage.hook.message("alert.firing"))["data"]
        assert (firing["reason_text"], firing["occurrences"]) == ("failed 5 times in a row", 5)
        assert answered == 3


async def test_a_stop_in_the_middle_of_a_streak_changes_nothing(tmp_path: Path) -> None:
    """The check that was under way counts too: it is let to its end."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target, fail_after=5)])
        target.status, target.allowed = 503, 3
        daemon = await stage.start()
        await stage.news.until(lambda: target.arrived == 4, "the fourth check is under way")
        daemon.signal(signal.SIGTERM)
        await daemon.noted("STOPPING")
        target.allowed = 4
        assert await daemon.ended() == 0
        assert (len(target.hits), stage.hook.requests) == (4, [])

        target.allowed = 5
        await stage.start()

        firing = (await stage.hook.message("alert.firing"))["data"]
        assert (firing["reason_text"], firing["occurrences"]) == ("failed 5 times in a row", 5)
        assert len(target.hits) == 5


async def test_a_recovery_in_the_middle_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Resolving, too, takes as many good checks as configured, over however many lives."""
    async with Stage(tmp_path) as stage:
        target = await stage.target()
        stage.configure([shop(target, fail_after=1, recover_after=4)])
        target.status = 503
        daemon = await stage.start()
        await stage.hook.message("alert.firing")
        target.allowed, target.status = target.arrived + 2, 200
        await stage.news.until(lambda: target.arrived > target.allowed, "a check is under way")
        good = [hit.answered for hit in target.hits].count(200)
        await daemon.kill()

        target.allowed = target.arrived + 4 - good
        await stage.start()

        resolved = await stage.hook.message("alert.resolved")
        assert resolved["data"]["reason_text"] == "ok 4 times in a row"
