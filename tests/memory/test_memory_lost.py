"""A state file that is lost is not quietly begun anew; a first start is never refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest

from agentd.errors import StoreError
from agentd.memory import doctor, events, meta
from agentd.memory.doctor import Level
from agentd.memory.store import Store
from agentd.testing import FakeClock

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


async def opened(path: Path) -> Store:
    return await Store.open(path, clock=FakeClock(NOW), ballast_bytes=4096, reserve_bytes=0)


async def used(path: Path, *, backup: bool, history: bool) -> None:
    store = await opened(path)
    await store.state.write(lambda c: meta.put(c, "k", "v"))
    if backup:
        await store.back_up(NOW)
    if history:
        await store.history.write(lambda c: events.append(c, "config.reloaded", NOW))
    await store.close()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def begun(path: Path) -> None:
    path.unlink()
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "WAL")
    connection.close()


HARMS = [emptied, removed, begun]


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(("backup", "history"), [(True, True), (True, False), (False, True)])
async def test_a_lost_state_file_is_refused_with_the_way_out(
    tmp_path: Path, harm: Callable[[Path], None], backup: bool, history: bool
) -> None:
    """Begun anew, it would forget every alert and message without a word."""
    await used(tmp_path, backup=backup, history=history)
    harm(tmp_path / "state.db")

    with pytest.raises(StoreError, match="agentd doctor restore") as refused:
        await opened(tmp_path)

    said = str(refused.value)
    assert ("backups" in said) is backup
    assert ("history.db" in said) is history
    assert "move" in said
    state = [finding for finding in doctor.examine(tmp_path, NOW) if finding.what == "state"]
    assert [finding.level for finding in state] == [Level.ERROR]


@pytest.mark.parametrize("harm", HARMS)
async def test_a_lost_state_file_is_restored(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """The way out that the refusal names."""
    await used(tmp_path, backup=True, history=True)
    harm(tmp_path / "state.db")
    (copy,) = (tmp_path / "backups").glob("state-*")

    doctor.restore(tmp_path, copy, NOW)

    store = await opened(tmp_path)
    assert await store.state.read(lambda c: meta.get(c, "k")) == "v"
    await store.close()


@pytest.mark.parametrize("harm", HARMS)
async def test_who_moves_the_rest_away_begins_anew(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    """The other way out that the refusal names."""
    await used(tmp_path, backup=True, history=True)
    harm(tmp_path / "state.db")
    (tmp_path / "backups").rename(tmp_path / "old-backups")
    (tmp_path / "history.db").rename(tmp_path / "old-history.db")

    store = await opened(tmp_path)

    assert await store.state.read(lambda c: meta.get(c, "k")) is None
    await store.close()


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("history", ["there", "not there", "empty"])
async def test_a_crash_in_the_first_start_locks_nobody_out(
    tmp_path: Path, harm: Callable[[Path], None], history: str
) -> None:
    """Nothing was lost: nothing had been there."""
    await used(tmp_path, backup=False, history=False)
    harm(tmp_path / "state.db")
    if history == "not there":
        (tmp_path / "history.db").unlink()
    elif history == "empty":
        emptied(tmp_path / "history.db")

    await (await opened(tmp_path)).close()
