"""The doctor sees what is wrong, changes nothing, and puts a backup back so that nothing goes out twice."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import apsw
import pytest

from agentd.errors import StoreBusy, StoreError
from agentd.memory import doctor, meta, outbox
from agentd.memory.doctor import Finding, Level
from agentd.memory.store import Store
from agentd.records import Delivery, EventType
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


async def opened(path: Path) -> Store:
    return await Store.open(path, clock=FakeClock(NOW), ballast_bytes=4096, reserve_bytes=0)


async def well(path: Path, value: str = "v") -> Store:
    store = await opened(path)
    await store.state.write(lambda c: meta.put(c, "k", value))
    await store.back_up(NOW)
    return store


def wrong(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings if finding.level is not Level.OK and finding.what != "disk"}


async def test_a_sound_store_has_no_complaints(tmp_path: Path) -> None:
    """A doctor who always finds something is not listened to."""
    store = await well(tmp_path / "s")

    running = doctor.examine(tmp_path / "s", NOW)
    await store.close()
    stopped = doctor.examine(tmp_path / "s", NOW)

    assert wrong(running) == {}
    assert wrong(stopped) == {}
    assert f"pid {os.getpid()}" in running[0].text
    assert stopped[0].text == "no agentd runs on it"


async def test_the_doctor_sees_what_is_wrong(tmp_path: Path) -> None:
    """Each finding names the thing and the cure."""
    folder = tmp_path / "s"
    store = await well(folder)
    late = Delivery("m1", "ops", "a", EventType.FIRING, "{}", NOW - timedelta(hours=2), NOW)
    await store.state.write(lambda c: outbox.put(c, late))
    await store.state.write(lambda c: outbox.put(c, Delivery("m2", "ops", "b", EventType.FIRING, "{}", NOW, NOW)))
    await store.state.write(lambda c: outbox.bury(c, "m2", now=NOW, error="x"))
    await store.state.write(lambda c: meta.put(c, meta.HELD, "restored"))
    await store.close()
    folder.chmod(0o755)
    (folder / "ballast").unlink()
    (folder / "history.db").write_bytes(b"nothing of the kind " * 500)

    found = wrong(doctor.examine(folder, NOW + timedelta(days=2)))

    assert set(found) == {"rights", "ballast", "history", "backups", "held", "outbox"}
    assert all(finding.cure for finding in found.values())


async def test_damaged_state_is_found_and_restored(tmp_path: Path) -> None:
    """The whole way: damage, refusal, doctor, restore, held, resume."""
    await (await well(tmp_path)).close()
    (tmp_path / "state.db").write_bytes(b"nothing of the kind " * 500)
    with pytest.raises(StoreError, match="agentd doctor"):
        await opened(tmp_path)
    assert wrong(doctor.examine(tmp_path, NOW))["state"].level is Level.ERROR

    (copy,) = (tmp_path / "backups").iterdir()
    kept = doctor.restore(tmp_path, copy, NOW)

    assert kept.read_bytes().startswith(b"nothing of the kind")
    store = await opened(tmp_path)
    assert await store.state.read(lambda c: meta.get(c, "k")) == "v"
    assert "restored" in (await store.state.read(meta.held) or "")
    await store.close()
    assert doctor.resume(tmp_path)
    assert not doctor.resume(tmp_path)


@pytest.mark.parametrize("name", ["history.db", "other.db"])
async def test_only_a_state_file_is_put_in_its_place(tmp_path: Path, name: str) -> None:
    """The history lies right beside it, and is as sound."""
    await (await well(tmp_path)).close()
    other = apsw.Connection(str(tmp_path / "other.db"))
    other.execute("CREATE TABLE meta (x); PRAGMA user_version = 1")
    other.close()

    with pytest.raises(StoreError, match="not a state file of agentd"):
        doctor.restore(tmp_path, tmp_path / name, NOW)

    store = await opened(tmp_path)
    assert await store.state.read(lambda c: meta.get(c, "k")) == "v"
    await store.close()


async def test_a_restore_forgets_what_came_after_the_backup(tmp_path: Path) -> None:
    """The WAL of the newer state must not seep into the restored file."""
    store = await well(tmp_path, "old")
    for number in range(20):
        await store.state.write(partial(meta.put, key=str(number), value="x" * 1000))
    await store.close()
    (copy,) = (tmp_path / "backups").iterdir()
    store = await opened(tmp_path)
    await store.state.write(lambda c: meta.put(c, "k", "new"))
    wal = (tmp_path / "state.db-wal").read_bytes()
    await store.close()
    (tmp_path / "state.db-wal").write_bytes(wal)

    kept = doctor.restore(tmp_path, copy, NOW)

    store = await opened(tmp_path)
    assert await store.state.read(lambda c: meta.get(c, "k")) == "old"
    assert await store.state.read(lambda c: meta.get(c, "3")) is None
    await store.close()
    assert kept.exists()


async def test_nothing_is_restored_under_a_running_daemon(tmp_path: Path) -> None:
    """It would go on writing into a file that has no name any more."""
    store = await well(tmp_path)
    (copy,) = (tmp_path / "backups").iterdir()

    with pytest.raises(StoreBusy):
        doctor.restore(tmp_path, copy, NOW)
    with pytest.raises(StoreBusy):
        doctor.resume(tmp_path)
    await store.close()


async def test_a_damaged_backup_is_not_restored(tmp_path: Path) -> None:
    """Trading one damaged file for another helps nobody."""
    await (await well(tmp_path)).close()
    (copy,) = (tmp_path / "backups").iterdir()
    copy.write_bytes(copy.read_bytes()[:5000])

    with pytest.raises(StoreError, match="damaged"):
        doctor.restore(tmp_path, copy, NOW)
    with pytest.raises(StoreError, match="no such backup"):
        doctor.restore(tmp_path, tmp_path / "typo.db", NOW)

    store = await opened(tmp_path)
    assert await store.state.read(lambda c: meta.get(c, "k")) == "v"
    await store.close()


def test_a_missing_directory_is_said_and_not_made(tmp_path: Path) -> None:
    """A doctor changes nothing."""
    assert [finding.level for finding in doctor.examine(tmp_path / "x", NOW)] == [Level.ERROR]
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_closed_to_us_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same complaint seven times hides what to do."""

    def closed(path: object) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", closed)

    (finding,) = doctor.examine(tmp_path, NOW)

    assert finding.text.endswith("cannot be looked at: Permission denied")
    assert "as the service's user" in finding.cure
