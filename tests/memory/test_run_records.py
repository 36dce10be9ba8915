"""Records of runs, and whole outputs of tools: what was kept comes back, whatever strangers wrote."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest

from agentd.agent.port import Record
from agentd.memory import events, notes, outputs, run_records
from agentd.memory.migrate import migrate, steps
from agentd.memory.retention import Retention
from agentd.memory.run_records import RunLine
from agentd.memory.store import Store
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
MIB = 2**20


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("history"), "test", before=lambda: None)
    yield connection
    connection.close()


def test_a_record_comes_back_as_it_was(c: apsw.Connection) -> None:
    """A replay that is given other words than the run was proves nothing."""
    lines = [
        RunLine(0, 0.0, "job", {"goal": "Größe, 日本 \N{PILE OF POO}"}),
        RunLine(1, 0.25, "model", {"text": "long " * 50_000, "null": None, "n": 1.5}),
        RunLine(2, 1.5, "result", {"output": [1, "a", {"b": False}]}),
    ]
    run_records.save(c, "r1", NOW, lines[:2])
    run_records.save(c, "r1", NOW, lines[2:])
    run_records.save(c, "r2", NOW, lines[:1])

    assert run_records.of(c, "r1") == lines
    assert run_records.of(c, "r1", after=0, limit=1) == lines[1:2]
    assert run_records.of(c, "r1", kinds=("job", "result")) == [lines[0], lines[2]]
    assert run_records.count(c, "r1") == 3


def test_the_agent_s_own_records_fit(c: apsw.Connection) -> None:
    """Both rooms name the same four fields; neither imports the other."""
    run_records.save(c, "r1", NOW, [Record(0, 0.0, "job", {"goal": "look"})])

    assert run_records.of(c, "r1") == [RunLine(0, 0.0, "job", {"goal": "look"})]


def test_a_line_that_is_kept_stays_as_it_is(c: apsw.Connection) -> None:
    """A record that can be written over proves nothing either."""
    run_records.save(c, "r1", NOW, [RunLine(0, 0.0, "job", {"goal": "first"})])
    run_records.save(c, "r1", NOW, [RunLine(0, 9.0, "job", {"goal": "second"})])

    assert run_records.of(c, "r1")[0].data == {"goal": "first"}


def test_long_lines_take_little_room(c: apsw.Connection) -> None:
    """Prompts repeat themselves from step to step; months of runs have to fit."""
    run_records.save(c, "r1", NOW, [RunLine(0, 0.0, "prompt", {"text": "the same words " * 10_000})])

    ((stored,),) = c.execute("SELECT data FROM run_records").fetchall()
    assert isinstance(stored, bytes)
    assert len(stored) < 5000


def test_a_flood_is_bounded(c: apsw.Connection) -> None:
    """A run that goes mad must not take the whole history with it."""
    flood = [RunLine(seq, 0.0, "event", {}) for seq in range(run_records.MAX_LINES - 1, run_records.MAX_LINES + 50)]
    run_records.save(c, "r1", NOW, [RunLine(0, 0.0, "x" * 999, {"text": "é" * 3 * MIB, "half": "\ud800"}), *flood])

    lines = run_records.of(c, "r1")

    assert [line.seq for line in lines] == [0, run_records.MAX_LINES - 1]
    assert len(lines[0].data["text"]) < MIB
    assert lines[0].data["text"].endswith("…")
    assert lines[0].data["half"] == "?"


def test_a_gap_is_seen() -> None:
    """Retention takes the oldest lines first, a full disk any: such a record cannot be run again."""
    lines = [RunLine(seq, 0.0, "x", {}) for seq in range(5)]

    assert run_records.is_whole(lines)
    assert run_records.is_whole(lines[1:])
    assert not run_records.is_whole(lines[2:])
    assert not run_records.is_whole(lines[:2] + lines[3:])
    assert not run_records.is_whole([])


def test_bytes_that_nobody_packed_are_said_to_be_so(c: apsw.Connection) -> None:
    """A record that cannot be read is an error of this run, with words, not a crash of zlib."""
    run_records.save(c, "r1", NOW, [RunLine(0, 0.0, "x", {"text": "x" * 5000})])
    c.execute("UPDATE run_records SET data = x'00112233'")

    with pytest.raises(ValueError, match="cannot be unpacked"):
        run_records.of(c, "r1")


def test_a_bomb_of_zeros_is_not_unpacked_whole(c: apsw.Connection) -> None:
    """Four megabytes of file must not become four gigabytes of memory."""
    outputs.save(c, "r1", "e1", NOW, "x")
    packing = zlib.compressobj()
    bomb = b"".join(packing.compress(b"0" * MIB) for _ in range(80)) + packing.flush()
    c.execute("UPDATE outputs SET data = ?", (bomb,))

    assert len(outputs.get(c, "r1", "e1") or "") == 64 * MIB


def test_an_output_is_kept_whole_by_its_id(c: apsw.Connection) -> None:
    """Evidence is checked against what the tool really said, not against what the model got to see of it."""
    outputs.save(c, "r1", "e1", NOW, "line\n" * 50_000)
    outputs.save(c, "r1", "e2", NOW, "ü")
    outputs.save(c, "r2", "e1", NOW, "z" * 3 * MIB)

    assert outputs.get(c, "r1", "e1") == "line\n" * 50_000
    assert outputs.get(c, "r1", "e9") is None
    assert [(row.id, row.bytes) for row in outputs.of(c, "r1")] == [("e1", 250_000), ("e2", 2)]
    assert len(outputs.get(c, "r2", "e1") or "") == outputs.MAX_OUTPUT


def note_all(c: apsw.Connection, at: datetime, run: str = "r") -> None:
    run_records.save(c, run, at, [RunLine(0, 0.0, "job", {})])
    outputs.save(c, run, "e1", at, "x")
    about: dict[str, Any] = {"at": at, "run": run, "watch": "w", "fingerprint": None}
    notes.add_tool_result(c, **about, step=1, tool="t", output="disk")
    notes.add_final(c, **about, answer="disk full")


def kept(c: apsw.Connection) -> dict[str, int]:
    tables = {
        table: c.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0] for table in ("run_records", "outputs")
    }
    return {str(name): int(number) for name, number in (tables | notes.counts(c)).items() if number}


def test_what_was_found_outlives_how_it_was_found(tmp_path: Path) -> None:
    """`memory.runs` ends the record of a run, `memory.events` what is known of the incident."""

    async def story(clock: FakeClock) -> None:
        store = await Store.open(tmp_path, clock=clock, ballast_bytes=65536, reserve_bytes=0)
        await store.history.write(lambda c: note_all(c, NOW + timedelta(days=400), "of a wrong clock"))
        await store.history.write(lambda c: note_all(c, NOW - timedelta(days=91), "old"))
        for number in range(120):
            await store.history.write(partial(note_all, at=NOW - timedelta(days=31), run=f"r{number}"))
        await store.history.write(lambda c: note_all(c, NOW, "new"))

        await store.housekeeping(NOW)

        assert await store.history.read(kept) == {"run_records": 1, "outputs": 1, "tool_result": 1, "final": 121}
        assert len(await store.history.read(lambda c: notes.search(c, "full", limit=500))) == 121
        await store.close()

    clock = FakeClock(NOW)
    clock.run(story(clock))


def test_records_never_push_out_incidents(tmp_path: Path) -> None:
    """A month of talkative runs must not cost what is known of last year's outages."""

    async def story(clock: FakeClock) -> None:
        keep = Retention(max_size=6 * MIB)
        store = await Store.open(tmp_path, clock=clock, keep=keep, ballast_bytes=65536, reserve_bytes=0)

        def flood(c: apsw.Connection) -> None:
            about: dict[str, Any] = {"at": NOW, "run": "r", "watch": "w", "fingerprint": "f"}
            for number in range(50):
                events.append(c, "alert.firing", NOW, watch="w", fingerprint="f")
                notes.add_final(c, **about, answer=f"disk {number} full")
            for number in range(600):
                noise = " ".join(f"{number * 7919 * place % 99991:x}" for place in range(900))
                run_records.save(c, f"r{number}", NOW, [RunLine(0, 0.0, "x", {"text": noise})])
                outputs.save(c, f"r{number}", "e1", NOW, noise)
                notes.add_tool_result(c, **about, step=1, tool="t", output=noise)

        await store.history.write(flood)
        before = await store.history.read(kept)
        for _ in range(3):
            await store.housekeeping(NOW)

        after = await store.history.read(kept)
        assert after["final"] == 50
        assert len(await store.history.read(events.last)) == 50
        for table in ("run_records", "outputs", "tool_result"):
            assert 0 < after[table] < before[table]
        await store.close()

    clock = FakeClock(NOW)
    clock.run(story(clock))
