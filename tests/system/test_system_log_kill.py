"""
kill -9 at any moment, while logs are written at full speed and rotated in every way: each line acts exactly once.

Longer: AGENTD_TEST_KILLS=1000. Again with the same moments: AGENTD_TEST_SEED.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from log_oracle import Heard, complaints
from receiver import Answer
from rotating import (
    Log,
    Rotation,
    Writer,
    and_compress,
    by_rename,
    copy_and_cut,
    copy_and_cut_at_rest,
    delay_compress,
    delete_when_read,
    link,
    turn_link,
    turn_link_when_read,
    twice,
    with_date,
)
from stage import Daemon, Stage
from stored import is_at_rest, story_of

KILLS = int(os.environ.get("AGENTD_TEST_KILLS", "20"))
SEED = int(os.environ.get("AGENTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
RULES = [
    {"name": "marked", "type": "any", "match": r"MARK id=(?P<id>\S+)", "by": ["id"], "resolve_after": "500ms"},
    {"name": "counted", "type": "any", "match": r"^(?P<log>\w+) .*COUNT", "by": ["log"], "resolve_after": "500ms"},
]


def watch(folder: Path) -> dict[str, Any]:
    """By a pattern that names the links and the files that they lead to, too."""
    log = {"files": [f"{folder}/*.log"], "format": "plain", "start_at": "start"}
    return {"name": "app", "log": log, "rules": RULES}


def moody(chance: random.Random) -> Answer | int:
    moods = [Answer(503), Answer(reset=True), Answer(200, delay_s=0.2), Answer(404), Answer(500)]
    return 204 if chance.random() < 0.97 else chance.choice(moods)


class Rotator:
    """Rotates each log in its own way, now and again."""

    def __init__(self, writer: Writer, ways: Mapping[str, Rotation], chance: random.Random) -> None:
        self._writer, self._ways, self._chance = writer, ways, chance
        self._over = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for name, log in self._writer.logs.items():
                group.create_task(self._rotate(log, self._ways[name]))

    async def _rotate(self, log: Log, rotate: Rotation) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.05, 1.0)):
                    await self._over.wait()
            log.rotations += 1
            await rotate(self._writer, log)

    def end(self) -> None:
        self._over.set()


async def one_life(stage: Stage, chance: random.Random) -> Daemon:
    daemon = await stage.spawn()
    if chance.random() < 0.85:
        await daemon.ready()
        await stage.api("POST", "/api/v1/webhooks/hook/enable")  # no back-off: more is sent
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(chance.uniform(0.0, 1.0)):
            await daemon.process.wait()
            pytest.fail(daemon.tail())
    await daemon.kill()
    return daemon


async def acted_on(stage: Stage, log: Log) -> bool:
    """Whether a daemon says within some seconds that it has committed what came of the last line."""
    identity = f"id={log.name}-{log.last} "

    def look() -> bool:
        return any(
            identity in f"{each['summary']} "
            for life in stage.daemons[-5:]
            for each in reversed(life.logs("alert_firing", rule="marked"))
        )

    with contextlib.suppress(pytest.fail.Exception):
        return await stage.news.until(look, f"{identity} has been acted on", within_s=5)
    return False


async def all_is_told(stage: Stage, heard: Heard, writer: Writer, within_s: float) -> None:
    """
    Until the story of every line is whole and the daemon has nothing more to tell, or so long.

    A number of messages does not say it: of lines that a cut has lost some were read in time, and are told of too.
    """
    due = sum(len(log.marked()) - sum(map(log.is_lost, log.marked())) for log in writer.logs.values())

    def look() -> bool:
        if heard.listen().resolved < due or heard.open:
            return False
        return not any(complaints(heard, writer.logs)) and is_at_rest(stage.state_dir)

    until = time.monotonic() + within_s
    while time.monotonic() < until:
        # A message that was tried in many lives is put off for minutes when it fails once more: late, and not lost.
        await stage.api("POST", "/api/v1/webhooks/hook/enable")
        with contextlib.suppress(pytest.fail.Exception):  # the oracle says it better
            await stage.news.until(look, "all was told", within_s=2)
            return


async def tell_of(stage: Stage, folder: Path, ways: Mapping[str, Rotation], kills: int) -> tuple[Heard, Writer]:
    chance = random.Random(SEED)
    stage.configure([watch(folder)])
    stage.hook.otherwise = lambda request: moody(chance)
    heard = Heard(stage.hook)
    writer = Writer(folder, list(ways), stage.news)
    for name in ways.keys() & {"linked", "turned"}:
        link(writer.logs[name], folder / f"{name}-20260105-1767600000.log")
    began = time.monotonic()
    async with writer.running():
        # Nothing is promised of files that were rotated away before they were seen for the first time.
        daemon = await stage.start()
        for log in writer.logs.values():
            writer.go(log)
            await writer.pause(log)
            assert await acted_on(stage, log)
        await daemon.kill()
        rotator = Rotator(writer, ways, chance)
        rotating = asyncio.create_task(rotator.run())
        for log in writer.logs.values():
            writer.go(log)
        for _ in range(kills):
            await one_life(stage, chance)
            assert not rotating.done()
        daemon = await stage.start()
        rotator.end()
        await rotating
        for log in writer.logs.values():
            await writer.pause(log)
    print(f"{time.monotonic() - began:.1f} s until the last is written")
    stage.hook.otherwise = 200
    await all_is_told(stage, heard, writer, within_s=30 + kills)
    print(f"{time.monotonic() - began:.1f} s until all was told")
    assert await daemon.stop() == 0
    return heard, writer


def tell_more(stage: Stage, wrong: Sequence[str]) -> None:
    """Print what the store has kept of the alerts that somebody complains of: it tells what is late from a loss."""
    about = [match[0] for each in wrong if (match := re.match(r"\w+-\d+(?=: )", each)) is not None]
    for identity in list(dict.fromkeys(about))[:5]:
        print(f"{identity}:", *story_of(stage.state_dir, stage.daemons, identity), sep="\n")


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * KILLS)
async def test_each_line_acts_once_however_logs_are_rotated_and_however_often_it_is_killed(tmp_path: Path) -> None:
    """The promise that positions are stored for, with the state that came of the lines."""
    print(f"AGENTD_TEST_SEED={SEED}")
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Stage(tmp_path) as stage:
        ways: dict[str, Rotation] = {
            "renamed": by_rename,
            "packed": and_compress,
            "delayed": delay_compress,
            "twice": twice,
            "dated": with_date,
            "copied": copy_and_cut_at_rest,
            "deleted": delete_when_read(lambda log: acted_on(stage, log)),
            "linked": turn_link,
            "turned": turn_link_when_read(lambda log: acted_on(stage, log)),
        }
        heard, writer = await tell_of(stage, folder, ways, KILLS)
        wrong = list(complaints(heard, writer.logs))
        lines = sum(log.last for log in writer.logs.values())
        print(f"{lines} lines, {sum(len(log.marked()) for log in writer.logs.values())} alerts,", end=" ")
        print({log.name: log.rotations for log in writer.logs.values()}, f"{len(stage.hook.requests)} requests")
        tell_more(stage, wrong)
        assert not wrong, f"{len(wrong)} complaints\n" + "\n".join(wrong[:40])
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * KILLS)
async def test_copying_and_cutting_under_a_writer_loses_what_is_in_between_and_nothing_else(tmp_path: Path) -> None:
    """
    What is written between the end of the copy and the cut stands in no file: no reader can promise it.

    Those lines are known here: they are missing in copy and file. They may have been read before the cut; all others
    must have been, once.
    """
    print(f"AGENTD_TEST_SEED={SEED}")
    folder = tmp_path / "logs"
    folder.mkdir()
    async with Stage(tmp_path) as stage:
        ways: dict[str, Rotation] = {f"copied{number}": copy_and_cut for number in range(3)}
        heard, writer = await tell_of(stage, folder, ways, max(3, KILLS // 3))
        wrong = list(complaints(heard, writer.logs))
        lost = [len(lost) for log in writer.logs.values() for lost in log.lost]
        missing = sum(
            not heard.by_line.get(f"{log.name}-{number}") for log in writer.logs.values() for number in log.marked()
        )
        print(f"{sum(log.last for log in writer.logs.values())} lines, {len(lost)} times copied and cut,", end=" ")
        print(f"{sum(lost)} lines in between, at most {max(lost)}; {missing} of the marked ones were missing")
        tell_more(stage, wrong)
        assert not wrong, f"{len(wrong)} complaints\n" + "\n".join(wrong[:40])
        assert sum(lost), "nobody wrote meanwhile, so nothing was shown"
        notes = [note["note"] for life in stage.daemons for note in life.logs("log_note")]
        for log in writer.logs.values():
            # Read from the copy, or without finding our place in one: in either case that something may be missing.
            said = [note for note in notes if note.startswith(f"{log.path}: ") and "cut back" in note]
            assert said or not any(log.lost), f"{log.name} has lost lines, and nobody is told: {notes}"
    shutil.rmtree(folder)
