"""The store as a whole: one owner, backups, retention, and what happens when the disk is full."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import apsw
import pytest

from agentd.clock import to_us
from agentd.errors import StoreBusy, StoreError, StoreFull
from agentd.memory import backup, events, ledger, meta, outbox, results, retention, rollups, spans
from agentd.memory import store as store_module
from agentd.memory.ledger import Run, RunState
from agentd.memory.retention import Retention
from agentd.memory.store import Store
from agentd.records import CheckResult, Delivery, EventType, Verdict
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
MIB = 2**20


async def small(path: Path, clock: FakeClock | None = None, keep: Retention | None = None) -> Store:
    return await Store.open(path, clock=clock or FakeClock(NOW), keep=keep, ballast_bytes=64 * 1024, reserve_bytes=0)


def put_many(c: apsw.Connection, count: int, size: int) -> None:
    for number in range(count):
        meta.put(c, f"k{number}", "x" * size)


def run(story: Callable[[FakeClock], Coroutine[object, object, None]]) -> None:
    clock = FakeClock(NOW)
    clock.run(story(clock))


async def test_the_state_directory_is_private(tmp_path: Path) -> None:
    """Bodies of private health pages end up in there."""
    store = await small(tmp_path / "a" / "state")
    await store.close()

    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a" / "state").iterdir()}
    assert modes == {"lock": 0o600, "state.db": 0o600, "history.db": 0o600, "ballast": 0o600}


async def test_a_second_owner_is_refused_by_name(tmp_path: Path) -> None:
    """Two daemons on one outbox would send everything twice."""
    store = await small(tmp_path)

    with pytest.raises(StoreBusy, match=f"pid {os.getpid()}"):
        await small(tmp_path)

    await store.close()
    await (await small(tmp_path)).close()


async def test_a_dead_owner_does_not_keep_the_store(tmp_path: Path) -> None:
    """After kill -9 the next start must not need a person to remove a lock file."""
    code = """
import sys, time
from pathlib import Path
from agentd.memory.store import lock
lock(Path(sys.argv[1]))
print(flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(StoreBusy, match=f"pid {child.pid}"):
            await small(tmp_path)
        child.kill()

    await (await small(tmp_path)).close()


async def test_a_command_reads_beside_the_daemon_and_without_it(tmp_path: Path) -> None:
    """`agentd alerts` must work in both cases, and neither make nor change anything."""
    store = await small(tmp_path)
    await store.state.write(lambda c: meta.put(c, "k", "v"))

    for _ in range(2):
        reader = await Store.open(tmp_path, read_only=True)
        assert await reader.state.read(lambda c: meta.get(c, "k")) == "v"
        with pytest.raises(StoreError, match="reading only"):
            await reader.state.write(lambda c: meta.put(c, "k", "w"))
        await reader.close()
        await store.close()

    with pytest.raises(StoreError, match="no such file"):
        await Store.open(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_the_state_is_backed_up_every_six_hours(tmp_path: Path) -> None:
    """A disk error in the state file must cost hours of state, not all of it; three copies are enough."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock)
        for hour in range(25):
            await store.state.write(partial(meta.put, key="hour", value=str(hour)))
            await store.housekeeping(clock.now())
            clock.tick(3600.0)
        await store.close()

        copies = backup.listed(tmp_path / "backups", "state")
        assert [backup.made_at(copy).hour for copy in copies] == [0, 6, 12]
        newest = apsw.Connection(str(copies[-1]), flags=apsw.SQLITE_OPEN_READONLY)
        assert meta.get(newest, "hour") == "24"
        newest.close()

    run(story)


def test_backups_go_on_while_the_state_is_written(tmp_path: Path) -> None:
    """A copy that starts over with each commit would never end on a busy daemon."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock)
        await store.state.write(lambda c: put_many(c, 3000, 2000))
        copying = asyncio.create_task(store.back_up(clock.now()))
        written = 0
        while not copying.done():
            await store.state.write(partial(meta.put, key="busy", value=str(written)))
            written += 1
        await store.close()

        assert backup.check(copying.result()) is None
        assert 0 < written < 2000

    run(story)


def test_a_damaged_copy_keeps_the_older_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last good backup must not be pushed out by three bad ones."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock)
        good = [await store.back_up(clock.now()) for _ in range(3)]
        monkeypatch.setattr(backup, "check", lambda path: "page 7 is torn")
        with pytest.raises(StoreError, match="page 7"):
            await store.back_up(clock.now())
        await store.close()

        assert backup.listed(tmp_path / "backups", "state") == sorted(good)
        assert len(list((tmp_path / "backups").iterdir())) == 3

    run(story)


def result(number: int, at: datetime) -> CheckResult:
    return CheckResult(f"w{number % 3}", at, Verdict.OK, 0.01, 5.0)


def test_history_goes_by_age(tmp_path: Path) -> None:
    """Months of uptime in a bounded store: raw results for a day, roll-ups for long."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock, Retention(events=timedelta(days=2)))
        old = NOW - timedelta(days=3)
        await store.history.write(lambda c: results.insert(c, [result(n, old) for n in range(1700)]))
        await store.history.write(lambda c: results.insert(c, [result(n, NOW) for n in range(300)]))
        await store.history.write(lambda c: events.append(c, "old", old))
        await store.history.write(lambda c: events.append(c, "new", NOW))
        await store.state.write(lambda c: ledger.queue(c, Run("r", "w", "api", old, kind="task")))
        await store.state.write(lambda c: ledger.end(c, "r", old - timedelta(days=40), RunState.COMPLETED))

        await store.housekeeping(NOW)

        raw = await store.history.read(lambda c: c.execute("SELECT count(*) FROM results").fetchall())
        assert raw == [(300,)]
        days = await store.history.read(lambda c: rollups.series(c, "w0", old, NOW, timedelta(days=1)))
        assert sum(point.count for point in days) == 667
        assert [event.kind for event in await store.history.read(events.last)] == ["new"]
        assert await store.state.read(ledger.runs) == []
        await store.close()

    run(story)


def test_rows_from_a_wrong_future_do_not_stay(tmp_path: Path) -> None:
    """A clock that was a year ahead for a minute must not stop retention for a year."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock)
        ahead = NOW + timedelta(days=365)
        await store.history.write(lambda c: results.insert(c, [result(0, ahead), result(0, NOW - timedelta(days=3))]))

        await store.housekeeping(NOW)

        assert await store.history.read(lambda c: results.last(c, "w0")) == []
        await store.close()

    run(story)


def test_each_table_has_a_quota_of_its_own(tmp_path: Path) -> None:
    """A flood of traces must not push out the roll-ups and events of the year."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock, Retention(max_size=6 * MIB))
        await store.history.write(lambda c: [events.append(c, "e", NOW) for _ in range(100)])

        def flood(c: apsw.Connection) -> None:
            for number in range(600):
                root = {"trace_id": f"{number:032x}", "name": f"w{number}", "start_us": to_us(NOW), "attributes": {}}
                spans.save(c, [{**root, "data": "x" * 16_000}])

        await store.history.write(flood)
        before = await store.history.read(retention.used_bytes)
        for _ in range(3):
            await store.housekeeping(NOW)

        kept = await store.history.read(lambda c: len(spans.last(c, limit=1000)))
        assert before > 9 * MIB
        assert 0 < kept < 150
        assert len(await store.history.read(events.last)) == 100
        await store.history.alone(store_module.cut_wal)
        assert (tmp_path / "history.db").stat().st_size < 6 * MIB
        await store.close()

    run(story)


def test_housekeeping_never_touches_what_waits(tmp_path: Path) -> None:
    """However small the store may be: alerts and unsent messages stay."""

    async def story(clock: FakeClock) -> None:
        store = await small(tmp_path, clock, Retention(max_size=1))
        one = Delivery("m1", "ops", "a", EventType.FIRING, "{}", NOW - timedelta(days=400), NOW, "f")
        await store.state.write(lambda c: outbox.put(c, one))

        await store.housekeeping(NOW)

        assert [row.delivery.id for row in await store.state.read(outbox.rows)] == ["m1"]
        await store.close()

    run(story)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a tmpfs of 2 MiB")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    waste = disk / "waste"
    with waste.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return waste


async def tiny(disk: Path) -> Store:
    return await Store.open(disk / "s", clock=FakeClock(NOW), ballast_bytes=512 * 1024, reserve_bytes=16 * 1024)


@pytest.mark.root
async def test_a_full_disk_still_takes_alert_state(tiny_disk: Path) -> None:
    """The night the disk fills up is the night the alert about it must get out."""
    store = await tiny(tiny_disk)
    told: list[bool] = []
    store.on_full.append(told.append)
    waste = fill(tiny_disk)

    for number in range(100):
        await store.state.write(partial(meta.put, key=f"k{number}", value="x" * 500))
    assert store.full
    assert told == [True]
    assert not store.history.post(lambda c: None)
    assert store.history.counts.dropped == 1
    assert not await store.recover()

    waste.unlink()
    await store.housekeeping(NOW)

    assert not store.full
    assert told == [True, False]
    assert (tiny_disk / "s" / "ballast").stat().st_blocks * 512 >= 512 * 1024
    assert store.history.post(lambda c: None)
    await store.history.write(lambda c: None)
    assert await store.state.read(lambda c: c.execute("SELECT count(*) FROM meta").fetchall()) == [(100,)]
    await store.close()


@pytest.mark.root
async def test_what_does_not_fit_any_more_is_refused_whole(tiny_disk: Path) -> None:
    """With the ballast gone too, a write says StoreFull, nothing of it is there, and it works once there is room."""
    store = await tiny(tiny_disk)
    waste = fill(tiny_disk)

    with pytest.raises(StoreFull):
        await store.state.write(lambda c: put_many(c, 1000, 2000))
    good = await asyncio.gather(
        *(store.state.write(partial(meta.put, key=f"g{n}", value="x")) for n in range(20)), return_exceptions=True
    )
    kept = await store.state.read(lambda c: c.execute("SELECT count(*) FROM meta").fetchall())
    assert kept == [(good.count(None),)]

    waste.unlink()
    assert await store.recover()
    await store.state.write(lambda c: meta.put(c, "after", "x"))
    await store.close()
    assert backup.check(tiny_disk / "s" / "state.db") is None


@pytest.mark.root
async def test_a_start_on_a_full_disk_works(tiny_disk: Path) -> None:
    """A reboot is the first thing people try; it must not end in a daemon that does not come up."""
    await (await tiny(tiny_disk)).close()
    fill(tiny_disk)

    store = await tiny(tiny_disk)
    await store.state.write(lambda c: meta.put(c, "k", "v"))

    assert store.full
    assert await store.state.read(lambda c: meta.get(c, "k")) == "v"
    await store.close()


@pytest.mark.root
async def test_history_stops_before_the_last_byte(tiny_disk: Path) -> None:
    """State needs the last room; history must leave it."""
    store = await tiny(tiny_disk)
    waste = fill(tiny_disk)
    os.truncate(waste, waste.stat().st_size - 12 * 1024)

    store.check_room()

    assert store.full
    assert (tiny_disk / "s" / "ballast").exists()
    assert not store.history.post(lambda c: None)
    await store.close()


@pytest.mark.root
async def test_a_read_only_disk_can_be_read(tiny_disk: Path) -> None:
    """The state of a machine that died is looked at from a copy or a read-only mount."""
    store = await tiny(tiny_disk)
    await store.state.write(lambda c: meta.put(c, "k", "v"))
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)

    reader = await Store.open(tiny_disk / "s", read_only=True)

    assert await reader.state.read(lambda c: meta.get(c, "k")) == "v"
    await reader.close()
