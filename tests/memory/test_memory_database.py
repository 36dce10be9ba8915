"""One writer, grouped commits, readers beside it: what a caller may rely on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import apsw
import pytest

from agentd.errors import StoreError
from agentd.memory import backup
from agentd.memory.database import MAX_POSTS, Database
from agentd.memory.migrate import Migration
from agentd.testing import FakeClock

ONE = (Migration(1, "begin", "CREATE TABLE t (n INTEGER PRIMARY KEY, x TEXT CHECK (x <> 'bad')) STRICT"),)
TWO = (*ONE, Migration(2, "more", "ALTER TABLE t ADD COLUMN y TEXT; CREATE TABLE u (n INTEGER) STRICT"))


def put(c: apsw.Connection, x: str) -> int:
    c.execute("INSERT INTO t (x) VALUES (?)", (x,))
    return c.last_insert_rowid()


def everything(c: apsw.Connection) -> list[str]:
    return [str(row[0]) for row in c.execute("SELECT x FROM t ORDER BY n")]


async def state(path: Path, migrations: tuple[Migration, ...] = ONE) -> Database:
    return await Database.open(path / "state.db", migrations=migrations, durable=True)


async def history(path: Path) -> Database:
    return await Database.open(path / "history.db", migrations=ONE, durable=False)


async def test_a_write_is_there_for_the_next_read(tmp_path: Path) -> None:
    """Who was told "done" must find it done."""
    async with contextlib.AsyncExitStack() as stack:
        db = await state(tmp_path)
        stack.push_async_callback(db.close)

        assert await db.write(lambda c: put(c, "a")) == 1
        assert await db.read(everything) == ["a"]


async def test_writes_that_wait_share_a_commit(tmp_path: Path) -> None:
    """One fsync for fifty alerts, not fifty: the difference between 2,000 and 40,000 writes a second."""
    db = await state(tmp_path)
    before = db.counts.commits

    numbers = await asyncio.gather(*(db.write(lambda c: put(c, "x")) for _ in range(50)))

    assert sorted(numbers) == list(range(1, 51))
    assert db.counts.commits - before <= 3
    assert db.counts.changes == 50
    await db.close()


async def test_a_failing_change_undoes_only_itself(tmp_path: Path) -> None:
    """One alert with an impossible value must not take forty-nine good ones with it."""
    db = await state(tmp_path)

    def half(c: apsw.Connection) -> None:
        put(c, "half")
        raise ValueError("mine")

    results = await asyncio.gather(
        db.write(lambda c: put(c, "a")),
        db.write(lambda c: put(c, "bad")),
        db.write(half),
        db.write(lambda c: next(iter(()))),
        db.write(lambda c: put(c, "b")),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [int, StoreError, ValueError, StoreError, int]
    assert await db.read(everything) == ["a", "b"]
    await db.close()


async def test_a_cancelled_write_happens_whole_or_not_at_all(tmp_path: Path) -> None:
    """A caller that gives up must leave neither half a change nor a stuck writer."""
    db = await state(tmp_path)
    held, go = threading.Event(), threading.Event()

    def hold(c: apsw.Connection) -> None:
        held.set()
        go.wait()

    def two(c: apsw.Connection) -> None:
        put(c, "one")
        put(c, "two")

    first = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(held.wait)
    given_up = asyncio.create_task(db.write(two))
    await asyncio.sleep(0)
    given_up.cancel()
    go.set()
    await first

    await db.write(lambda c: put(c, "after"))
    assert given_up.cancelled()
    assert await db.read(everything) in (["after"], ["one", "two", "after"])
    await db.close()


async def test_a_read_sees_one_moment(tmp_path: Path) -> None:
    """A page that counts and then lists must not show 3 of 4."""
    db = await state(tmp_path)
    await db.write(lambda c: put(c, "a"))
    looked, go = threading.Event(), threading.Event()

    def twice(c: apsw.Connection) -> tuple[int, int]:
        first = len(everything(c))
        looked.set()
        go.wait()
        return first, len(everything(c))

    reading = asyncio.create_task(db.read(twice))
    await asyncio.to_thread(looked.wait)
    await db.write(lambda c: put(c, "b"))
    go.set()

    assert await reading == (1, 1)
    assert await db.read(everything) == ["a", "b"]
    await db.close()


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    """A query by mistake in the wrong place must not change alert state behind the writer's back."""
    db = await state(tmp_path)

    with pytest.raises(StoreError, match="readonly"):
        await db.read(lambda c: put(c, "a"))
    await db.close()


async def test_posts_are_bounded_and_counted(tmp_path: Path) -> None:
    """History that cannot keep up must cost memory no more than so much, and be seen to have gaps."""
    db = await history(tmp_path)
    held, go = threading.Event(), threading.Event()

    def hold(c: apsw.Connection) -> None:
        held.set()
        go.wait()

    first = asyncio.create_task(db.write(hold))
    await asyncio.to_thread(held.wait)
    for _ in range(MAX_POSTS + 7):
        db.post(lambda c: put(c, "x"))
    go.set()
    await first
    await db.write(lambda c: None)

    assert db.counts.dropped == 7
    assert db.pending == 0
    assert len(await db.read(everything)) == MAX_POSTS
    await db.close()


async def test_close_finishes_what_is_queued_and_leaves_one_file(tmp_path: Path) -> None:
    """After a clean stop the state is one file that can be copied."""
    db = await history(tmp_path)
    for _ in range(100):
        db.post(lambda c: put(c, "x"))
    await db.close()
    await db.close()

    assert [path.name for path in tmp_path.iterdir()] == ["history.db"]
    again = await history(tmp_path)
    assert len(await again.read(everything)) == 100
    await again.close()
    with pytest.raises(StoreError, match="closed"):
        await db.write(lambda c: None)
    assert not db.post(lambda c: None)


def test_a_loop_that_is_gone_stops_the_writer(tmp_path: Path) -> None:
    """Nobody is left to be told: the thread must end, not spin or raise."""

    async def leave() -> Database:
        db = await state(tmp_path)
        db.post(lambda c: put(c, "x"))
        return db

    db = asyncio.run(leave())
    db.post(lambda c: put(c, "y"))
    assert db._thread is not None
    db._thread.join(10)

    assert not db._thread.is_alive()


def test_the_fake_clock_waits_for_the_writer(tmp_path: Path) -> None:
    """Tests of a year's work must find each write done before the clock moves on."""
    clock = FakeClock()

    async def story() -> list[str]:
        db = await state(tmp_path)
        clock.busy.append(lambda: db.pending > 0)
        for number in range(5):
            db.post(partial(put, x=str(number)))
            await clock.advance(1)
            assert db.pending == 0
        rows = await db.read(everything)
        await db.close()
        return rows

    assert clock.run(story()) == ["0", "1", "2", "3", "4"]


async def test_files_are_private(tmp_path: Path) -> None:
    """State holds what targets answered; other users have no business there."""
    db = await state(tmp_path)
    await db.write(lambda c: put(c, "a"))

    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o600"}
    await db.close()


async def test_a_migration_backs_up_first(tmp_path: Path) -> None:
    """An upgrade that turns out wrong must be reversible."""
    db = await state(tmp_path)
    await db.write(lambda c: put(c, "a"))
    await db.close()

    db = await state(tmp_path, TWO)

    (copy,) = backup.listed(tmp_path / "backups", "state")
    old = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    assert old.pragma("user_version") == 1
    assert everything(old) == ["a"]
    old.close()
    assert await db.read(lambda c: c.pragma("user_version")) == 2
    await db.close()


async def test_a_failing_migration_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    """Half a schema step is a store that neither version can read."""
    await (await state(tmp_path)).close()
    broken = (*ONE, Migration(2, "broken", "CREATE TABLE u (n INTEGER); INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(StoreError, match=r"schema step 2 \(broken\)"):
        await state(tmp_path, broken)

    db = await state(tmp_path)
    assert await db.read(lambda c: c.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'u'").fetchall()) == [
        (0,)
    ]
    await db.close()


async def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    """An older agentd would misread it; both versions are named so that a person knows which to install."""
    await (await state(tmp_path, TWO)).close()

    with pytest.raises(StoreError, match=r"schema 2, this agentd knows up to 1"):
        await state(tmp_path)
    with pytest.raises(StoreError, match=r"schema 2, this agentd knows up to 1"):
        await Database.open_readonly(tmp_path / "state.db", migrations=ONE)


async def test_damaged_history_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Losing history must not stop alerting; what was damaged stays for a look, the newest two."""
    for number in range(4):
        (tmp_path / "history.db").write_bytes(b"no database at all " * 1000)
        clock = FakeClock(datetime(2026, 1, 1 + number, tzinfo=UTC))
        db = await Database.open(tmp_path / "history.db", migrations=ONE, durable=False, clock=clock)
        await db.write(lambda c: put(c, "a"))
        await db.close()

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["history.db", "history.db.damaged-20260103T000000", "history.db.damaged-20260104T000000"]
    assert "history_replaced" in caplog.text


async def test_damaged_state_is_refused_untouched(tmp_path: Path) -> None:
    """Only a person may decide to give up alert state; the message says how."""
    (tmp_path / "state.db").write_bytes(b"no database at all " * 1000)

    with pytest.raises(StoreError, match="agentd doctor"):
        await state(tmp_path)

    assert (tmp_path / "state.db").read_bytes() == b"no database at all " * 1000


async def test_history_damaged_while_in_use_is_begun_anew(tmp_path: Path) -> None:
    """A bad sector in month three must not end history until somebody restarts us."""
    db = await history(tmp_path)
    await db.write(lambda c: [put(c, "a" * 50) for _ in range(20_000)])
    await db.alone(lambda c: c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE))
    size = (tmp_path / "history.db").stat().st_size
    with (tmp_path / "history.db").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    for _ in range(3):
        with contextlib.suppress(StoreError):
            await db.read(everything)
        with contextlib.suppress(StoreError):
            await db.write(lambda c: put(c, "new"))

    assert db.counts.replaced == 1
    assert "new" in await db.read(everything)
    await db.close()


async def test_reading_without_a_daemon_changes_nothing(tmp_path: Path) -> None:
    """`agentd alerts` on a stopped daemon's state must work and leave it as it is."""
    db = await state(tmp_path)
    await db.write(lambda c: put(c, "a"))
    await db.close()

    reader = await Database.open_readonly(tmp_path / "state.db", migrations=ONE)
    assert await reader.read(everything) == ["a"]
    with pytest.raises(StoreError, match="reading only"):
        await reader.write(lambda c: put(c, "b"))
    await reader.close()


async def test_reading_beside_a_daemon_sees_its_wal(tmp_path: Path) -> None:
    """The newest alerts stand in the WAL, not in the file."""
    db = await state(tmp_path)
    await db.write(lambda c: put(c, "a"))

    reader = await Database.open_readonly(tmp_path / "state.db", migrations=ONE)

    assert await reader.read(everything) == ["a"]
    await reader.close()
    await db.close()


async def test_reading_a_missing_store_says_so(tmp_path: Path) -> None:
    """A typing error in --state-dir must not create an empty store."""
    with pytest.raises(StoreError, match="no such file"):
        await Database.open_readonly(tmp_path / "state.db", migrations=ONE)

    assert list(tmp_path.iterdir()) == []


WRITER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_memory_database import put, state

async def main():
    db = await state(Path(sys.argv[1]))
    async def one(worker):
        number = 0
        while True:
            name = f"{{worker}}-{{number}}"
            await db.write(lambda c: put(c, name))
            print(name, flush=True)
            number += 1
    await asyncio.gather(*(one(worker) for worker in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """The one promise everything else stands on."""
    code = WRITER.format(tests=str(Path(__file__).parent))
    chance = random.Random(7)
    for round_ in range(20):
        folder = tmp_path / str(round_)
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            told = [child.stdout.readline() for _ in range(chance.randrange(1, 300))]
            child.send_signal(signal.SIGKILL)
            told += child.stdout.readlines()
        c = apsw.Connection(str(folder / "state.db"))
        kept = set(everything(c))
        assert c.pragma("integrity_check") == "ok"
        c.close()

        assert {line.decode().strip() for line in told if line.endswith(b"\n")} <= kept


async def test_state_is_synced_at_every_commit_and_history_is_not(tmp_path: Path) -> None:
    """kill -9 loses nothing either way, a power cut does: alert state waits for the disk, history need not."""
    state_db, history_db = await state(tmp_path), await history(tmp_path)

    assert await state_db.alone(lambda c: c.pragma("synchronous")) == 2
    assert await history_db.alone(lambda c: c.pragma("synchronous")) == 1
    await state_db.close()
    await history_db.close()


async def test_a_disk_that_is_gone_ends_no_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a write must hear that it failed; a writer that died in silence would hold up everything."""
    database = await Database.open(tmp_path / "state.db", migrations="state", durable=True)
    try:

        def gone(path: Path) -> int:
            raise OSError(5, "Input/output error")

        def change(c: apsw.Connection) -> None:
            raise apsw.IOError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr("agentd.memory.database.free_bytes", gone)
            with pytest.raises(StoreError):
                await asyncio.wait_for(database.write(change), 10)

        assert await asyncio.wait_for(database.write(lambda c: 7), 10) == 7
    finally:
        await database.close()
