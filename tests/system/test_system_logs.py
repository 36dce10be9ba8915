"""
Logs that are watched, seen from outside: an attack, hostile lines, a log that cannot be opened, a full disk, a reload.

Rotation and kill -9 are in test_system_log_kill.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from log_files import LogFile, any_line, has_read, holds, lines_of, numbers, watch
from stage import Daemon, Stage
from test_system_disk import fill, small_disk

END = any_line("end", "^END (?P<n>.*)$", by=["n"])


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "app.log")


async def told(stage: Stage, rule: str, kind: str = "alert.firing", nth: int = 1, **options: Any) -> dict[str, Any]:
    """The nth message of that kind about a rule."""

    def look() -> list[dict[str, Any]]:
        return [each for each in stage.hook.messages(kind) if each["data"]["rule"] == rule][nth - 1 :]

    return (await stage.news.until(look, f"{kind} number {nth} of {rule}", **options))[0]


def of_rule(stage: Stage, rule: str, kind: str = "alert.firing") -> list[dict[str, Any]]:
    """A message whose receipt the daemon did not live to store comes again, under its id: it counts once."""
    once = {request.id: request for request in stage.hook.taken}
    bodies = [stage.hook.verify(request, stage.hook.secret) for request in once.values()]
    return [each for each in bodies if each["type"] == kind and each["data"]["rule"] == rule]


# Hostile lines.


@pytest.mark.parametrize("text", [b"a" * 1_000_000 + b"!", b"a" * 1_000_000], ids=["no match", "match"])
async def test_a_catastrophic_pattern_hangs_nothing(tmp_path: Path, log: LogFile, text: bytes) -> None:
    """With backtracking this line would take longer than the universe has been there."""
    async with Stage(tmp_path) as stage:
        rule = any_line("bad", "(a+)+$")
        stage.configure([watch(log.path, rule, END, log={"max_line": "1MiB", "format": "plain"})])
        await stage.start()
        log.write(text, "END 1")

        await told(stage, "end", within_s=10)
        if not text.endswith(b"!"):
            await told(stage, "bad")
        assert (await numbers(stage))["lines"] == 2
        assert len(of_rule(stage, "bad")) == (not text.endswith(b"!"))


@pytest.mark.slow
async def test_a_line_of_a_hundred_megabytes_is_cut_and_the_next_one_seen(tmp_path: Path, log: LogFile) -> None:
    """A line without an end must cost neither the memory nor the lines behind it."""
    async with Stage(tmp_path) as stage:
        stage.configure([watch(log.path, any_line("head", "^begins here"), END)])
        daemon = await stage.start()
        log.write("END 1")
        await told(stage, "end")
        before = daemon.resident_bytes()
        log.raw(b"begins here")
        for _ in range(100):
            log.raw(b"x" * 1_000_000)
        log.write("", "END 2")

        head, end = await told(stage, "head"), await told(stage, "end", nth=2)
        assert head["data"]["evidence"][0]["offset"] == len("END 1\n")
        assert end["data"]["evidence"][0]["offset"] == len("END 1\nbegins here\n") + 100_000_000
        shown = await numbers(stage)
        assert (shown["lines"], shown["truncated"]) == (3, 1)
        assert daemon.resident_bytes() - before < 20 * 2**20


async def test_nuls_and_broken_utf8_are_counted_and_hide_nothing(tmp_path: Path, log: LogFile) -> None:
    """Whoever attacks chooses the user name, and would like to choose one that hides his address."""
    async with Stage(tmp_path) as stage:
        rule = any_line("failed", r"Failed password for .* from (?P<ip>\S+)", by=["ip"])
        stage.configure([watch(log.path, rule, END)])
        await stage.start()
        log.write(
            b"Failed password for \xff\xfe from 192.0.2.1",
            b"Failed password for \0 root \0\0 from 192.0.2.2",
            b"\0\0\0\0",
            b"Failed password for \xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80 from 192.0.2.3",
            b"\xe2\x80",
            b"END 1",
        )

        end = await told(stage, "end")
        await told(stage, "failed", nth=3)
        failed = sorted(of_rule(stage, "failed"), key=lambda each: str(each["data"]["labels"]["ip"]))
        assert [each["data"]["labels"]["ip"] for each in failed] == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
        assert lines_of(failed)[:2] == [
            "Failed password for ?? from 192.0.2.1",
            "Failed password for \0 root \0\0 from 192.0.2.2",
        ]
        assert end["data"]["evidence"][0]["offset"] == log.path.read_bytes().index(b"END")
        shown = await numbers(stage)
        assert shown["lines"] == 6
        assert shown["undecodable"] >= 3, shown


async def test_lines_dated_long_ago_and_far_ahead_are_taken_as_of_now(tmp_path: Path, log: LogFile) -> None:
    """A clock without a battery, or a writer that lies, must neither keep an alert back nor keep it for ever."""
    async with Stage(tmp_path) as stage:
        stage.configure([watch(log.path, any_line("any", "it is (?P<n>.+)$", by=["n"]), END)])
        await stage.start()
        log.write("1970-01-01T00:00:01Z box app[1]: it is old", "2099-12-31T23:59:59Z box app[1]: it is new", "END 1")

        await told(stage, "end")
        old, new = await told(stage, "any"), await told(stage, "any", nth=2)
        end = await told(stage, "end", "alert.resolved")
        for each in (old, new):
            assert each["data"]["started_at"][:4] == end["data"]["started_at"][:4]
            assert each["data"]["started_at"] <= end["data"]["ended_at"]
        await told(stage, "any", "alert.resolved", nth=2)
        shown = await numbers(stage)
        assert (shown["lines"], shown["far_off"]) == (3, 2)
        assert len(stage.daemons[0].logs("log_note")) >= 1
        said = await stage.cli("watches", "--output", "json")
        assert said.json["watches"][0]["log"]["far_off"] == 2


# A log that cannot be read for a while.


class Unprivileged(Stage):
    """A stage whose daemons may open only what their user may, even for root."""

    async def spawn(self, **environment: str) -> Daemon:
        daemon = Daemon(self.news)
        argv = [sys.executable, "-m", "agentd", "run", "-c", str(self.path)]
        if os.getuid() == 0:
            dropped = "-dac_override,-dac_read_search"
            argv = ["setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}", *argv]
        await daemon.spawn(argv, {**self.environment, **environment}, self.folder)
        self.daemons.append(daemon)
        return daemon


@pytest.mark.parametrize("restart", [False, True], ids=["it stays", "it is started anew"])
async def test_a_log_that_may_not_be_opened_is_blindness_and_read_on_after_it(
    tmp_path: Path, log: LogFile, restart: bool
) -> None:
    """A rotation with the wrong owner: not failing, not silence either, and nothing is passed over afterwards."""
    async with Unprivileged(tmp_path) as stage:
        stage.configure([watch(log.path, END)], defaults={"blind_after": "1s"})
        daemon = await stage.start()
        log.write("END 1")
        await told(stage, "end")
        if restart:
            assert await daemon.stop() == 0
        log.path.rename(log.path.with_name("app.log.1"))
        log.path.touch()
        log.path.chmod(0)
        if restart:
            daemon = await stage.start()
        os.chmod(log.path, 0o200)  # for us to write
        if os.getuid() != 0:
            log.write("END 2", "END 3")
        else:
            log.write("END 2", "END 3")
        blind = await told(stage, "blind")
        assert "Permission denied" in blind["data"]["summary"]
        assert str(log.path) in blind["data"]["summary"]
        assert len(of_rule(stage, "end")) == 1
        log.path.chmod(0o600)

        await told(stage, "end", nth=3)
        resolved = await told(stage, "blind", "alert.resolved")
        assert resolved["data"]["reason"] == "sight_regained"
        assert sorted(lines_of(of_rule(stage, "end"))) == ["END 1", "END 2", "END 3"]


# A full disk.


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small file system")
@pytest.mark.parametrize("kill", [False, True], ids=["it lives on", "it is killed"])
async def test_nothing_is_lost_while_the_store_has_no_room(tmp_path: Path, log: LogFile, kill: bool) -> None:
    """What cannot be stored is not read: the log itself is the queue."""
    with small_disk(tmp_path / "disk", "40m") as disk:
        async with Stage(tmp_path) as stage:
            stage.state_dir = disk / "state"
            stage.configure([watch(log.path, END)])
            daemon = await stage.start()
            log.write("END 0")
            await told(stage, "end")
            fill(disk / "rubbish")
            await daemon.logged("disk_full")
            fill(disk / "rubbish")  # the ballast that was given up, too
            for number in range(1, 2001):
                log.write(f"END {number}")
                if number % 200 == 0:
                    fill(disk / "rubbish")
            await daemon.logged("commit_failed", within_s=30)
            if kill:
                await daemon.kill()
            (disk / "rubbish").unlink()
            if kill:
                daemon = await stage.start()
            else:
                await daemon.logged("disk_has_room", within_s=40)

            ended = stage.hook.taken

            def all_told() -> bool:
                resolved = {each.id for each in ended if b'"alert.resolved"' in each.body and b'"end"' in each.body}
                return len(resolved) >= 2001

            await stage.news.until(all_told, "all lines are told of", within_s=60)
            numbers_told = sorted(int(line.split()[1]) for line in lines_of(of_rule(stage, "end")))
            assert numbers_told == list(range(2001))
            assert len(of_rule(stage, "end", "alert.resolved")) == 2001
            assert await daemon.stop() == 0


# Reloading, and pausing.


async def reload(stage: Stage) -> None:
    assert (await stage.api("POST", "/api/v1/reload")).status_code == 200


async def test_a_reload_keeps_the_place_and_tells_nothing_twice(tmp_path: Path, log: LogFile) -> None:
    """Rules are tuned on a log that does not wait."""
    async with Stage(tmp_path) as stage:
        kept = any_line("kept", "^error (?P<n>.*)$", by=["n"])
        going = any_line("going", "^error", resolve_after="10m")
        changed = any_line("changed", "^error 1", resolve_after="10m")
        other = LogFile(tmp_path / "other.log")
        calm = watch(other.path, any_line("calm", "^error"), name="other")
        stage.configure([watch(log.path, kept, going, changed), calm])
        daemon = await stage.start()
        other.write("one", "two")
        await has_read(stage, daemon, 2, "other")
        log.write("error 1")
        for rule in ("kept", "going", "changed"):
            await told(stage, rule)

        added = any_line("added", "^error (?P<n>.*)$", by=["n"])
        changed = any_line("changed", "^error [12]", resolve_after="3s", severity="critical")
        stage.configure([watch(log.path, kept, changed, added), calm])
        log.write(*(f"error 2-{number}" for number in range(100)))
        await reload(stage)
        log.write(*(f"error 3-{number}" for number in range(100)), "error last")

        removed = await told(stage, "going", "alert.resolved")
        assert removed["data"]["reason"] == "watch_removed"
        await stage.news.until(
            lambda: (
                sum(b'"rule":"kept"' in each.body and b"alert.resolved" in each.body for each in stage.hook.taken)
                >= 202
            ),
            "all that was kept is over",
        )
        before = [f"2-{number}" for number in range(100)]
        after = {*(f"3-{number}" for number in range(100)), "last"}
        assert sorted(each["data"]["labels"]["n"] for each in of_rule(stage, "kept")) == sorted(["1", *before, *after])
        assert len(of_rule(stage, "kept", "alert.resolved")) == 202
        await told(stage, "added", nth=101)
        new = [each["data"]["labels"]["n"] for each in of_rule(stage, "added")]
        assert len(new) == len(set(new)), "none twice"
        assert after <= set(new) <= after | set(before)
        early = [each for each in before if each in new]
        assert early == before[len(before) - len(early) :], "from one moment on"
        over = await told(stage, "changed", "alert.resolved")
        assert len(of_rule(stage, "changed")) == 1
        assert 1 <= over["data"]["occurrences"] <= 101
        assert (await numbers(stage, "other"))["lines"] == 2, "it was not opened anew"


async def test_a_paused_log_is_read_on_when_it_is_resumed(tmp_path: Path, log: LogFile) -> None:
    """A pause is for the people who would be woken, not a hole in what is known."""
    async with Stage(tmp_path) as stage:
        stage.configure([watch(log.path, END)])
        daemon = await stage.start()
        log.write("END 1")
        await told(stage, "end")
        assert (await stage.cli("pause", "app")).code == 0
        log.write("END 2")
        log.path.rename(log.path.with_name("app.log.1"))
        log.write("END 3")
        assert await daemon.stop() == 0
        await stage.start()
        log.write("END 4")
        assert len(of_rule(stage, "end")) == 1
        assert (await stage.cli("resume", "app")).code == 0

        await told(stage, "end", nth=4)
        assert sorted(lines_of(of_rule(stage, "end"))) == ["END 1", "END 2", "END 3", "END 4"]


async def test_a_watch_that_is_removed_resolves_its_alerts_and_is_forgotten(tmp_path: Path, log: LogFile) -> None:
    """When it comes back one day it begins anew, rather than telling of a year at once."""
    async with Stage(tmp_path) as stage:
        rule = any_line("end", "^END (?P<n>.*)$", by=["n"], resolve_after="10m")
        following = watch(log.path, rule, log={"start_at": "end"})
        stage.configure([following])
        daemon = await stage.start()
        await holds(stage, daemon, bool, "it is followed")
        log.write("END 1")
        await told(stage, "end")
        stage.configure([])
        await reload(stage)
        over = await told(stage, "end", "alert.resolved")
        assert over["data"]["reason"] == "watch_removed"
        log.write("END 2")
        stage.configure([following])
        await reload(stage)
        await holds(stage, daemon, bool, "it is followed again")
        log.write("END 3")

        await told(stage, "end", nth=2)
        assert lines_of(of_rule(stage, "end")) == ["END 1", "END 3"]
