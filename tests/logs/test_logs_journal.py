"""The journal, written by a real journald: every entry once, whatever happens to its files."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journald import Journald, needs_journald

from agentd.clock import SystemClock
from agentd.errors import ConfigError
from agentd.logs import journal_reader
from agentd.logs.journal import Journal, open_journal
from agentd.logs.journal_entry import JournalParser
from agentd.logs.port import Batch
from agentd.logs.settings import JournalSource
from agentd.testing import FakeClock

pytestmark = needs_journald

MIB = 1024 * 1024

AS_NOBODY = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from systemd import id128, journal
from agentd.logs.journal import open_journal
from agentd.logs.settings import JournalSource

os.setgroups([])
os.setgid(65534)
os.setuid(65534)
source = open_journal(JournalSource(start_at="start"), positions={}, now=lambda: datetime.now(UTC),
                      monotonic=lambda: 0.0, path=Path(sys.argv[1]))
batch = source.read(1 << 20)
text = batch.blocks[0].text
print(batch.blind)
print(batch.caught_up)
print(b"seen" in text, b"hidden" in text)
"""


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    # No compression of files apart, nothing of its own sizes: what a test removes is all that is removed.
    running = Journald(tmp_path / "journal", ["SystemMaxFileSize=8M", "SystemMaxUse=400M"])
    yield running
    running.stop()


class Reader:
    """A source whose positions are committed with each batch, as the pipeline does it."""

    def __init__(self, folder: Path, positions: dict[str, str] | None = None, **settings: Any) -> None:
        self.folder = folder
        self.settings = JournalSource.model_validate({"start_at": "start"} | settings)
        self.positions: dict[str, str] = positions if positions is not None else {}
        self.notes: list[str] = []
        self.batches: list[Batch] = []
        self.clock: FakeClock | SystemClock = SystemClock()
        self.source = self.open()

    def open(self) -> Journal:
        clock = self.clock
        self.source = open_journal(
            self.settings, positions=dict(self.positions), now=clock.now, monotonic=clock.monotonic, path=self.folder
        )
        return self.source

    def once(self, most_bytes: int = MIB) -> list[str]:
        batch = self.source.read(most_bytes)
        self.batches.append(batch)
        self.notes += batch.notes
        for stream, position in batch.positions.items():
            assert position is not None
            self.positions[stream] = position
        return messages(batch)

    def all(self, most_bytes: int = MIB) -> list[str]:
        """Messages up to the end; journald's own left out."""
        found = self.once(most_bytes)
        while self.batches[-1].more:
            found += self.once(most_bytes)
        return [each for each in found if not each.startswith(("System Journal (", "Journal started", "Journal stop"))]

    @property
    def last(self) -> Batch:
        return self.batches[-1]

    async def restart(self) -> None:
        await self.source.close()
        self.open()


def messages(batch: Batch) -> list[str]:
    """Text by entry, after a look at whether the block is put together as it must."""
    found = []
    for block in batch.blocks:
        starts, cursors, fields = block.starts, block.cursors, block.fields
        assert starts is not None
        assert cursors is not None
        assert fields is not None
        assert len(starts) == len(cursors) == len(fields)
        assert block.text.endswith(b"\n")
        ends = [*starts[1:], len(block.text)]
        found += [block.text[start : end - 1].decode() for start, end in zip(starts, ends, strict=True)]
    return found


def numbered(start: int, end: int) -> list[str]:
    return [f"number {number}" for number in range(start, end)]


async def test_every_entry_comes_once_over_restarts(journald: Journald) -> None:
    """What acts on a line must act once, wherever a batch ended."""
    reader = Reader(journald.folder)
    seen = []

    for begin in range(0, 60, 20):
        journald.send(*numbered(begin, begin + 20))
        journald.sync()
        seen += [each for each in reader.once(100) if each.startswith("number")]
        await reader.restart()
        seen += [each for each in reader.once(100) if each.startswith("number")]
    await reader.restart()
    seen += reader.all(100)

    assert seen == numbered(0, 60)
    assert reader.notes == []


async def test_a_batch_that_was_not_committed_comes_again(journald: Journald) -> None:
    """A crash between reading and commit must lose nothing."""
    reader = Reader(journald.folder)
    journald.send("one")
    journald.sync()
    committed = dict(reader.positions)
    assert reader.all() == ["one"]

    reader.positions = committed
    await reader.restart()

    assert reader.all() == ["one"]


async def test_rotation_and_a_killed_journald_lose_nothing(journald: Journald) -> None:
    """Files are renamed and replaced under the reader, in every order."""
    reader = Reader(journald.folder)
    seen = reader.all()
    number = 0
    for happens in (journald.rotate, journald.kill, journald.rotate, journald.kill, journald.rotate, journald.stop):
        journald.send(*numbered(number, number + 50))
        journald.sync()
        if number % 100:
            seen += reader.all()
        happens()
        if happens != journald.rotate:
            journald.start()
        journald.send(*numbered(number + 50, number + 100))
        journald.sync()
        number += 100
        if number % 300 == 0:
            await reader.restart()
        seen += reader.all()

    assert seen == numbered(0, number)
    assert reader.source.counters.lost == 0
    assert reader.notes == []


async def test_the_first_entry_of_a_match_is_not_lost(journald: Journald) -> None:
    """The trap of libsystemd: at the tail of a match without entries it waits for ever."""
    reader = Reader(journald.folder, start_at="end", match={"APP": "shop"})
    journald.send("before", APP="other")
    journald.send("old", "old", APP="other")
    journald.sync()
    assert reader.all() == []
    assert list(reader.positions) == ["journal"]

    journald.send(*numbered(0, 50), APP="shop")
    journald.sync()

    assert reader.all() == numbered(0, 50)


async def test_an_end_that_is_stored_holds_over_a_restart(journald: Journald) -> None:
    """What comes while we are down, after the first start, is new even if nothing was ever read."""
    journald.send("old", APP="shop")
    journald.sync()
    reader = Reader(journald.folder, start_at="end", match={"APP": "shop"})
    assert reader.all() == []
    await reader.source.close()
    journald.send("new", APP="shop")
    journald.sync()

    reader.open()

    assert reader.all() == ["new"]


async def test_a_journal_that_comes_later_is_read_from_then(journald: Journald, tmp_path: Path) -> None:
    """At boot we may be first; and a journal that could not be seen at first has no old news when it can be."""
    later = tmp_path / "later"
    reader = Reader(later, start_at="end")
    journald.send("old")
    journald.sync()
    assert reader.all() == []
    assert "there is no journal in" in str(reader.last.blind)
    assert reader.last.caught_up is None
    await reader.restart()

    journald.send("new")
    journald.sync()
    journald.folder.rename(later)
    await reader.restart()

    assert reader.all() == ["new"]
    assert reader.last.blind is None


async def test_vacuumed_entries_are_told_and_reading_goes_on(journald: Journald) -> None:
    """Nobody can read them any more; that there were some, and how many, must not be hidden."""
    reader = Reader(journald.folder)
    journald.send("read")
    journald.sync()
    reader.all()
    await reader.source.close()
    journald.send(*numbered(0, 10))
    journald.rotate()
    journald.send("left")
    journald.sync()
    journald.vacuum()

    reader.open()

    assert reader.all() == ["left"]
    assert reader.source.counters.lost == 1
    (note,) = reader.notes
    assert note.startswith(("10 entries of the journal, written between ", "11 entries of the journal"))
    assert note.endswith("were removed before they were read")


async def test_entries_vacuumed_while_we_are_behind_are_told(journald: Journald) -> None:
    """A flood can outrun the reader."""
    journald.send(*numbered(0, 10))
    journald.sync()
    reader = Reader(journald.folder)
    assert len(reader.once(20)) < 10
    journald.rotate()
    journald.send("left")
    journald.sync()
    journald.vacuum()

    assert reader.all()[-1] == "left"
    assert reader.source.counters.lost == 1


async def test_a_vacuum_of_what_was_read_is_no_loss(journald: Journald) -> None:
    """It happens every day; a note each time would be noise."""
    reader = Reader(journald.folder)
    journald.send("read")
    journald.sync()
    reader.all()
    journald.rotate()
    journald.send("more")
    journald.sync()
    journald.vacuum()

    assert reader.all() == ["more"]
    journald.rotate()
    reader.all()
    journald.vacuum()
    await reader.restart()

    assert reader.all() == []
    assert reader.notes == []


async def test_a_quiet_match_moves_on_with_the_journal(journald: Journald) -> None:
    """A match that last saw something a year ago would otherwise tell of losses at every start."""
    clock = FakeClock()
    reader = Reader(journald.folder, match={"APP": "shop"})
    reader.clock = clock
    reader.open()
    journald.send("mine", APP="shop")
    journald.sync()
    assert reader.all() == ["mine"]
    journald.send(*numbered(0, 10))
    journald.sync()

    clock.tick(30)
    reader.all()
    assert reader.last.positions == {}
    clock.tick(31)
    reader.all()
    assert list(reader.last.positions) == ["journal"]

    journald.rotate()
    journald.vacuum()
    clock.tick(61)
    reader.all()
    await reader.restart()
    assert reader.all() == []
    assert reader.notes == []


async def test_damaged_files_are_passed_over(journald: Journald) -> None:
    """A power cut leaves such; one of them must not blind us to all the others."""
    journald.send("first")
    journald.rotate()
    journald.send(*numbered(0, 200))
    journald.rotate()
    journald.send("last")
    journald.sync()
    whole = journald.files()[1]
    data = bytearray(whole.read_bytes())
    middle = 300_000
    data[middle : middle + 100_000] = os.urandom(100_000)
    whole.with_name("system@damaged.journal").write_bytes(data)
    whole.unlink()
    for name, content in (("empty", b""), ("short", bytes(data[:1000])), ("junk", os.urandom(100_000))):
        whole.with_name(f"system@{name}.journal").write_bytes(content)
    whole.with_name("system@folder.journal").mkdir()

    found = Reader(journald.folder).all()

    assert found[0] == "first"
    assert found[-1] == "last"


async def test_a_stored_position_that_is_no_cursor_is_told(journald: Journald) -> None:
    """A store that was meddled with must not stop the watch."""
    journald.send("old")
    journald.sync()
    reader = Reader(journald.folder, {"journal": "gibberish"}, start_at="end")

    assert reader.all() == []
    assert reader.source.counters.lost == 1
    assert "cannot be read ('gibberish'); going on from its end" in reader.notes[0]


async def test_copied_into_other_files_it_is_the_same_entry(journald: Journald, tmp_path: Path) -> None:
    """At boot journald copies /run's journal to /var: the entries get new numbers, the last one read stays read."""
    journald.send(*numbered(0, 5))
    journald.sync()
    reader = Reader(journald.folder)
    assert reader.all(20) == numbered(0, 5)
    journald.send("new")
    journald.sync()
    position = reader.positions["journal"]
    parts = dict(part.split("=") for part in position.split(";"))
    renumbered = position.replace(parts["s"], "0" * 32).replace(f"i={parts['i']};", "i=7;")

    other = Reader(journald.folder, {"journal": renumbered})

    assert other.all() == ["new"]
    assert other.notes == []


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, "a b c d e"),
        ({"match": {"APP": "one"}}, "a b"),
        ({"match": {"APP": ["one", "two"]}}, "a b c d"),
        ({"match": {"APP": ["one", "two"], "ZONE": "x"}}, "a c"),
        ({"priority": "warning"}, "a c"),
        ({"priority": "emerg"}, ""),
        ({"match": {"APP": "one"}, "priority": "err"}, "a"),
        ({"boot": "current", "match": {"ZONE": "x"}}, "a c"),
        ({"units": ["other.service"]}, ""),
        ({"units": ["*"], "match": {"APP": "three"}}, ""),
    ],
)
async def test_what_is_chosen(journald: Journald, settings: dict[str, Any], wanted: str) -> None:
    """Values of one field are alternatives; everything else must hold together."""
    journald.send("a", APP="one", ZONE="x", PRIORITY="3")
    journald.send("b", APP="one", ZONE="y", PRIORITY="5")
    journald.send("c", APP="two", ZONE="x", PRIORITY="4")
    journald.send("d", APP="two", ZONE="y", PRIORITY="6")
    journald.send("e", APP="three")
    journald.sync()

    assert Reader(journald.folder, **settings).all() == wanted.split()


async def test_entries_of_an_earlier_boot_can_be_left_out(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever went wrong before the reboot is over."""
    journald.send("of this boot")
    journald.sync()
    monkeypatch.setattr(journal_reader, "boot_id", lambda: "0" * 32)

    assert Reader(journald.folder, boot="current").all() == []


def test_a_match_on_what_is_no_field_is_refused() -> None:
    """It would match nothing for ever, in silence."""
    with pytest.raises(ConfigError, match="'transport' is no field of the journal; write one in capitals"):
        Reader(Path("/nowhere"), match={"transport": "kernel"})


async def test_fields_of_an_entry(journald: Journald) -> None:
    """By these names rules ask; all must fit JSON."""
    journald.entry(
        [
            ("MESSAGE", "disk is on fire"),
            ("PRIORITY", "2"),
            ("SYSLOG_IDENTIFIER", "kernelish"),
            ("ERRNO", "5"),
            ("TAG", "a"),
            ("TAG", "b"),
            ("BINARY", b"\xff\n\xfe"),
            ("UNIT", "claimed.service"),
        ]
    )
    journald.sync()
    reader = Reader(journald.folder, match={"ERRNO": "5"})
    before = datetime.now(UTC)
    reader.once()

    block = reader.last.blocks[0]
    assert block.fields is not None
    fields = block.fields[0]
    plain = json.loads(json.dumps(dict(fields)))
    assert {name: plain[name] for name in ("message", "priority", "severity", "program", "errno", "pid")} == {
        "message": "disk is on fire",
        "priority": 2,
        "severity": "crit",
        "program": "kernelish",
        "errno": "5",
        "pid": os.getpid(),
    }
    assert sorted(plain["tag"]) == ["a", "b"]
    assert plain["binary"] == "?\n?"
    assert plain["transport"] == plain["_transport"] == "journal"
    assert plain["hostname"]
    assert len(plain) == len(fields)
    assert "nothing" not in fields
    assert "ERRNO" not in fields
    assert block.fields[0].get("nothing") is None

    parser = JournalParser()
    at = parser.time("", fields, before)
    assert at is not None
    assert abs((at - before).total_seconds()) < 60
    assert parser.time("", plain, before) == at
    assert parser.time("", None, before) is None
    assert parser.fields("text") == {"message": "text"}


async def test_a_message_of_several_lines_is_one_entry(journald: Journald) -> None:
    """A traceback needs no joining here."""
    journald.send("first\nsecond\n", "", "\n\n", "last")
    journald.sync()

    assert Reader(journald.folder).all() == ["first\nsecond", "", "", "last"]


async def test_what_is_no_text_is_replaced_and_counted(journald: Journald) -> None:
    """Anybody on the machine may write anything into the journal."""
    journald.send(b"caf\xe9 \xff\xfe? ok", b"nul \0 here", "caf\u00e9")
    journald.sync()
    reader = Reader(journald.folder)

    assert reader.all() == ["caf? ??? ok", "nul \0 here", "caf\u00e9"]
    assert reader.source.counters.undecodable == 3


async def test_huge_fields_are_cut_and_counted(journald: Journald) -> None:
    """Megabytes in one field would go through every rule, and into the alert; between characters, not through one."""
    journald.send("x" + "\u20ac" * 400_000, b"\xff" * 1_000_000, EXTRA="y" * 200_000, APP="shop")
    journald.sync()
    reader = Reader(journald.folder, match={"APP": "shop"})

    text, bad = reader.all()

    assert text == "x" + "\u20ac" * 21_845
    assert set(bad) == {"?"}
    assert 65_000 < len(bad) <= 65_536
    assert reader.source.counters.truncated == 4


async def test_a_read_is_bounded_and_says_that_there_is_more(journald: Journald) -> None:
    """The log thread serves all watches."""
    journald.send(*("x" * 1000 for _ in range(100)), APP="shop")
    journald.sync()
    reader = Reader(journald.folder, match={"APP": "shop"})

    assert len(reader.once(10_000)) == 10
    assert reader.last.more
    assert reader.last.caught_up is None
    assert len(reader.all(10_000)) == 90
    assert not reader.last.more
    assert reader.last.caught_up is not None
    counters = reader.source.counters
    assert (counters.lines, counters.bytes) == (100, 100_100)
    offsets = [block.offset for batch in reader.batches for block in batch.blocks]
    assert offsets == list(range(0, 100_100, 10_010))


async def test_waiting_ends_when_an_entry_comes(journald: Journald) -> None:
    """Seconds of polling would be seconds of delay; and a descriptor left ringing would burn a core."""
    reader = Reader(journald.folder)
    reader.all()
    waiting = asyncio.create_task(reader.source.wait(60))
    await asyncio.sleep(0)

    journald.send("rings")
    journald.sync()

    async with asyncio.timeout(30):
        await waiting
        while not (found := reader.all()):
            await reader.source.wait(60)
    assert found == ["rings"]
    await reader.source.close()


async def test_waiting_without_news_ends_in_time(journald: Journald) -> None:
    """Nothing may hang on a journal that says nothing; nor may a wait that is cancelled leave its bell behind."""
    reader = Reader(journald.folder)
    reader.all()
    for _ in range(3):
        await reader.source.wait(0.001)
        reader.all()

    await reader.source.close()
    await reader.source.close()

    assert reader.source.read(MIB).blocks == []


async def test_without_inotify_new_files_are_found_all_the_same(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watches are few and shared; a journal that falls silent for ever then would be found in months."""
    monkeypatch.setattr(journal_reader, "listen", lambda reader: None)
    clock = FakeClock()
    reader = Reader(journald.folder)
    reader.clock = clock
    reader.open()
    journald.send(*numbered(0, 5))
    journald.sync()
    seen = reader.all()

    for begin in range(5, 20, 5):
        journald.rotate()
        journald.send(*numbered(begin, begin + 5))
        journald.sync()
        clock.tick(6)
        seen += reader.all()

    assert seen == numbered(0, 20)


def test_closed_files_are_blind_and_what_is_open_is_read(journald: Journald) -> None:
    """libsystemd passes over what it may not open, in silence: we would wait for ever for a sign of trouble."""
    journald.send("seen")
    journald.rotate()
    journald.send("hidden")
    journald.sync()
    # Below /tmp and not in tmp_path, which is closed to others.
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        os.chmod(top, 0o755)
        folder = shutil.copytree(journald.folder, Path(top) / "journal")
        files = sorted(folder.rglob("*.journal"), key=lambda path: path.name == "system.journal")
        for file in files:
            file.chmod(0o644)
        files[-1].chmod(0o600)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, str(folder)], capture_output=True, text=True)

    assert done.stderr == ""
    blind, caught_up, read = done.stdout.splitlines()
    assert blind == (
        f"cannot read {files[-1]}: permission denied; "
        "let the user that agentd runs as be a member of the group systemd-journal"
    )
    assert caught_up == "None"
    assert read == "True False"


def test_without_the_library_it_is_blind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is an extra; the rest of the daemon works without."""
    monkeypatch.setitem(sys.modules, "systemd", None)

    batch = Reader(tmp_path).source.read(MIB)

    assert "systemd-python, which is not installed; install agentd[systemd]" in str(batch.blind)
    assert batch.positions == {}
