"""The output of a command as log lines: bounded, started again, gone with us."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentd.clock import SystemClock
from agentd.errors import ConfigError
from agentd.logs import command as command_module
from agentd.logs.command import Command, open_command
from agentd.logs.command_child import Child
from agentd.logs.command_lines import Lines
from agentd.logs.port import Batch, Counters
from agentd.logs.settings import LogSource
from agentd.testing import FakeClock

MIB = 1024 * 1024
DEADLINE_S = 30.0


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def shell(script: str) -> tuple[str, ...]:
    return "sh", "-c", script


class Story:
    """A source that is read as the pipeline does it: read while there is more, else wait."""

    def __init__(
        self, argv: tuple[str, ...], every_s: float | None = None, complete: Any = None, **settings: Any
    ) -> None:
        self.clock = FakeClock()
        self.batches: list[Batch] = []
        self.source: Command = open_command(
            argv,
            LogSource.model_validate({"command": list(argv)} | settings),
            every_s=every_s,
            now=self.clock.now,
            monotonic=self.clock.monotonic,
            complete=complete,
        )

    def read(self, most_bytes: int = MIB) -> Batch:
        self.batches.append(self.source.read(most_bytes))
        return self.batches[-1]

    @property
    def text(self) -> bytes:
        return b"".join(block.text for batch in self.batches for block in batch.blocks)

    @property
    def last(self) -> Batch:
        return self.batches[-1]

    async def until(self, holds: Any, most_bytes: int = MIB) -> None:
        """Read on, in real time, until `holds()`; the fake clock stands still."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                batch = self.read(most_bytes)
                if holds():
                    return
                if not batch.more:
                    await self.source.wait(0.05)

    async def until_over(self, most_bytes: int = MIB) -> None:
        """Until the command that runs now has ended and all of its output is read."""
        await self.until(lambda: self.source._child is None, most_bytes)


@pytest.fixture(autouse=True)
async def no_fd_left() -> AsyncIterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


async def gone(pid: int) -> bool:
    for _ in range(1000):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_lines_come_as_they_are_written() -> None:
    """A line must not wait for the command's end, nor half a line be taken for a whole one."""
    story = Story(shell("echo one; printf tw; sleep 600"))

    await story.until(lambda: story.text == b"one\n")

    block = story.last.blocks[0]
    assert (block.stream, block.offset, block.starts) == ("command", 0, None)
    assert block.file == "sh -c 'echo one; printf tw; sleep 600'"
    assert block.read_at == story.clock.now()
    assert story.last.positions == {}
    story.read()
    assert story.last.caught_up == story.clock.now()
    assert story.last.blind is None
    await story.source.close()
    assert story.text == b"one\n"


async def test_the_last_line_needs_no_newline() -> None:
    """Who ends has said all."""
    story = Story(("printf", "one\ntwo"))

    await story.until_over()

    assert story.text == b"one\ntwo\n"
    assert story.source.counters.lines == 2
    assert story.source.counters.bytes == 7


async def test_all_output_is_read_whatever_the_reads_are_cut_into() -> None:
    """A million bytes through a pipe of 64 KiB, in odd bites."""
    story = Story(shell("seq 1 150000; seq 1 50000 >&2"))

    await story.until_over(most_bytes=7001)

    assert story.text == b"".join(b"%d\n" % number for number in range(1, 150_001))
    offsets = [(block.offset, len(block.text)) for batch in story.batches for block in batch.blocks]
    assert all(offset + size == after for (offset, size), (after, _) in itertools.pairwise(offsets))


async def test_a_command_that_nobody_reads_waits(tmp_path: Path) -> None:
    """When the daemon is behind, memory must not take what the rules cannot."""
    count = tmp_path / "count"
    code = (
        "import sys, os\n"
        f"out = os.open({str(count)!r}, os.O_CREAT | os.O_WRONLY)\n"
        "while True: os.write(1, b'x' * 999 + b'\\n'); os.write(out, b'.')"
    )
    story = Story(python(code))
    await story.until(lambda: len(story.text) > 0, most_bytes=10_000)

    sizes = [-1]
    async with asyncio.timeout(DEADLINE_S):
        while len(sizes) < 20 or sizes[-1] != sizes[-20]:
            await asyncio.sleep(0.01)
            sizes.append(count.stat().st_size)

    assert sizes[-1] < 100 + len(story.text) // 1000
    await story.source.close()


async def test_long_lines_are_cut_and_counted() -> None:
    """One line of a hundred megabytes is one line of 1 KiB, and the next one is whole."""
    story = Story(python("import sys; sys.stdout.write('x' * 100_000_000 + '\\nnext\\n')"), max_line=1024)

    await story.until_over()

    assert story.text == b"x" * 1024 + b"\nnext\n"
    assert story.source.counters.truncated == 1


async def test_what_is_no_text_is_replaced_one_for_one() -> None:
    """Offsets must hold, and RE2 wants valid UTF-8."""
    story = Story(("printf", r"a\377\376b\n\303\251\n\0\n"))

    await story.until_over()

    assert story.text == b"a??b\n\xc3\xa9\n\0\n"
    assert story.source.counters.undecodable == 2


async def test_other_encodings_are_read() -> None:
    """Old programs speak them."""
    story = Story(("printf", r"caf\351\nna\357ve"), encoding="latin-1")

    await story.until_over()

    assert story.text.decode() == "caf\u00e9\nna\u00efve\n"


def test_an_unknown_encoding_is_refused() -> None:
    """At load, not at the first line."""
    for encoding in ("utf-9", "base64"):
        with pytest.raises(ConfigError, match=r"is unknown; write e\.g\. utf-8"):
            Story(("true",), encoding=encoding)


@pytest.mark.parametrize("bite", [1, 2, 3, 5, 8, 13, 100])
def test_lines_do_not_depend_on_how_the_bytes_come(bite: int) -> None:
    """A pipe cuts where it likes."""
    data = "ab\n\ncdefghij\n\u20ac\u20ac\u20ac\u20ac\nlong".encode() + b"\xff" * 20 + b"\n12345678\n123456789\nrest"
    counters = Counters()
    lines = Lines(counters, 8)

    out = b"".join(lines.feed(data[at : at + bite]) for at in range(0, len(data), bite)) + lines.flush()

    assert out == "ab\n\ncdefghij\n\u20ac\u20ac\nlong????\n12345678\n12345678\nrest\n".encode()
    assert (counters.lines, counters.truncated, counters.undecodable) == (8, 3, 4)


async def test_an_entry_waits_for_its_lines_a_second_at_most() -> None:
    """The pipe may be cut in the middle of a traceback; but its last line must not wait for the next error."""

    def complete(text: bytes) -> int:
        return text.rfind(b"\nERROR") + 1

    story = Story(shell("echo ERROR one; echo '  at x'; echo ERROR two; echo '  at y'; sleep 600"), complete=complete)
    await story.until(lambda: story.source.counters.lines == 4)
    assert story.text == b"ERROR one\n  at x\n"
    assert story.last.caught_up is None

    story.clock.tick(1.0)
    story.read()

    assert story.text == b"ERROR one\n  at x\nERROR two\n  at y\n"
    assert story.last.blocks[0].offset == 17
    await story.source.close()


async def test_a_command_that_ends_is_started_again_ever_later() -> None:
    """`kubectl logs -f` ends when its pod does; starting it in a tight loop would burn the machine."""
    story = Story(shell("echo up"))
    pauses = []

    for number in range(1, 10):
        await story.until_over()
        assert story.text == b"up\n" * number
        assert story.last.caught_up is None
        pause, starts = 0.0, story.source._starts
        while story.source._starts == starts:
            pause += 0.5
            story.clock.tick(0.5)
            story.read()
        pauses.append(pause)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(batch.blind is None for batch in story.batches)
    await story.source.close()


async def test_a_command_that_ran_for_long_is_started_again_at_once() -> None:
    """A log stream that is cut once an hour should not miss a minute of it."""
    story = Story(shell("echo up; read x </dev/null; exec sleep 600"))
    await story.until(lambda: story.text == b"up\n")
    story.clock.tick(60)
    assert story.source._child is not None
    story.source._child.signal(9)  # type: ignore[arg-type]  # SIGKILL
    await story.until_over()

    await story.until(lambda: story.text == b"up\nup\n")

    await story.source.close()


async def test_failing_again_and_again_is_blind_and_says_why() -> None:
    """Silence would look like a quiet log."""
    story = Story(shell("echo 'first' >&2; echo 'error: no such pod' >&2; echo >&2; exit 3"))

    for _ in range(2):
        await story.until_over()
        assert story.last.blind is None
        story.clock.tick(60)
    await story.until_over()

    assert story.last.blind == "the command ended with status 3 again and again: error: no such pod"
    assert story.last.caught_up is None


async def test_a_command_that_stays_up_is_seen_again(tmp_path: Path) -> None:
    """Blind must end when its reason has."""
    there = tmp_path / "there"
    story = Story(shell(f"test -e {there} && exec sleep 600"))
    for _ in range(3):
        await story.until_over()
        story.clock.tick(60)
    there.touch()
    await story.until(lambda: story.source._child is not None and story.source._child.started(0))
    assert story.last.blind is not None

    story.clock.tick(10)
    await story.until(lambda: story.last.caught_up is not None)

    assert story.last.blind is None
    await story.source.close()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("agentd-no-such-program",), "cannot run agentd-no-such-program: not found in PATH; write its full path"),
        (("/nowhere/program",), "cannot run /nowhere/program: No such file or directory"),
        (("/etc/passwd",), "cannot run /etc/passwd: Permission denied"),
        (("true", "a\0b"), "cannot run true: embedded null byte"),
    ],
)
async def test_what_cannot_be_started_is_blind_at_once(argv: tuple[str, ...], says: str) -> None:
    """It will not get better by itself, but it is tried again: it may be installed."""
    story = Story(argv)

    await story.until(lambda: story.last.blind is not None)

    assert str(story.last.blind).startswith(says)
    story.clock.tick(60)
    story.read()
    assert story.source._starts == 2
    await story.source.close()


async def test_a_start_that_hangs_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead disk must not stop the log thread, which serves all watches."""
    monkeypatch.setattr(command_module, "_START_WAIT_S", 0.001)
    monkeypatch.setattr(Child, "_start", lambda self: None)
    story = Story(("true",))

    assert story.read().blind is None
    await story.source.wait(0.001)
    story.clock.tick(10)

    assert story.read().blind == "true could not be started within 10 s; is its disk dead?"
    await story.source.close()


async def test_at_intervals_each_run_is_read_whole() -> None:
    """What a run says is new each time, from its start on; silence can be told only up to a run's end."""
    story = Story(shell("echo one; printf two"), every_s=30)
    await story.until_over()
    assert story.text == b"one\ntwo\n"
    assert story.last.caught_up == story.clock.now()

    story.clock.tick(29)
    story.read()
    assert story.source._child is None
    assert story.last.caught_up is None
    story.clock.tick(1)
    await story.until_over()

    assert story.text == b"one\ntwo\n" * 2
    assert [block.offset for batch in story.batches for block in batch.blocks][-1] in (0, 4)


async def test_at_intervals_a_second_failure_is_blind_until_a_run_is_fine(tmp_path: Path) -> None:
    """A run an hour should not take three hours to be missed."""
    there = tmp_path / "there"
    story = Story(shell(f"test -e {there} || kill -15 $$"), every_s=30)
    await story.until_over()
    assert (story.last.blind, story.last.caught_up) == (None, None)
    story.clock.tick(30)
    await story.until_over()
    assert story.last.blind == "the command was ended by signal 15 again and again"

    there.touch()
    story.clock.tick(30)
    await story.until_over()

    assert story.last.blind is None


async def test_a_run_that_never_ends_is_blind() -> None:
    """It would be the last one, and nobody would know."""
    story = Story(("sleep", "600"), every_s=30)
    await story.until(lambda: story.source._child is not None and story.source._child.started(0))
    story.clock.tick(59)
    assert story.read().blind is None

    story.clock.tick(1)

    assert story.read().blind == "sleep is still running after 60 s; it is to run every 30 s"
    await story.source.close()


async def test_close_ends_the_whole_family(tmp_path: Path) -> None:
    """Also a grandchild, and one who does not want to."""
    story = Story(shell("trap '' TERM; sleep 600 & echo $!; echo $$; wait; wait; sleep 600"))
    await story.until(lambda: story.text.count(b"\n") == 2)

    await story.source.close()
    await story.source.close()

    assert [await gone(int(pid)) for pid in story.text.split()] == [True, True]
    assert story.source.read(MIB).blocks == []


async def test_what_a_command_leaves_behind_is_killed() -> None:
    """Otherwise each start would add one, and the one that holds the pipe would keep the end from being seen."""
    story = Story(shell("sleep 600 & echo $!"))

    await story.until_over()

    assert await gone(int(story.text))


async def test_a_command_that_closes_its_output_and_stays_is_ended() -> None:
    """Nothing can come from it any more."""
    story = Story(shell("echo $$; exec >&-; exec sleep 600"))
    await story.until(lambda: story.source._silent_since is not None)
    assert story.last.caught_up is None
    pid = int(story.text)

    story.clock.tick(5)
    await story.until_over()

    assert await gone(pid)


async def test_the_environment_is_clean_and_no_shell_reads_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not inherit our secrets, nor our line to the service manager."""
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("NOTIFY_SOCKET", "x")
    environment, words = Story(("env",)), Story(("echo", "$(id) | *"))

    await environment.until_over()
    await words.until_over()

    assert {line.partition(b"=")[0] for line in environment.text.splitlines()} == {b"PATH", b"LANG"}
    assert words.text == b"$(id) | *\n"


async def test_waiting_ends_when_a_line_comes_or_the_command_ends() -> None:
    """Nothing is polled: an idle command costs nothing."""
    story = Story(shell("read x </dev/null; sleep 0.2; echo late; exec sleep 0.2"))
    clock = SystemClock()
    story.source._monotonic, story.source._now = clock.monotonic, clock.now
    story.read()
    async with asyncio.timeout(DEADLINE_S):
        rounds = 0
        while story.source._child is not None:
            await story.source.wait(600)
            story.read()
            rounds += 1

    assert story.text == b"late\n"
    assert rounds < 10


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    """A reload cancels it at any time."""
    story = Story(("sleep", "600"))
    await story.until(lambda: story.source._child is not None and story.source._child.started(0))
    waiting = asyncio.create_task(story.source.wait(600))
    await asyncio.sleep(0.01)

    waiting.cancel()
    await asyncio.wait([waiting])
    await story.source.close()

    assert waiting.cancelled()


async def test_it_says_since_when_it_can_tell_of_silence() -> None:
    """What a command would have said while it was not watched, nobody knows."""
    story = Story(shell("exit 1"))
    first = story.clock.now()
    await story.until_over()
    assert story.last.since == first

    while story.last.blind is None:
        story.clock.tick(60)
        await story.until_over()
    assert story.last.since is None
    await story.source.close()


async def test_silence_begins_anew_when_blindness_ends(tmp_path: Path) -> None:
    """The hour in which it could not be started is no hour without a line."""
    program = tmp_path / "program"
    story = Story((str(program),))
    await story.until(lambda: story.last.blind is not None)
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    story.clock.tick(3600)
    await story.until(lambda: story.source._child is not None)

    story.clock.tick(60)
    await story.until(lambda: story.last.blind is None)

    assert story.last.since == story.clock.now()
    story.clock.tick(60)
    assert story.read().since == story.batches[-2].since
    await story.source.close()
