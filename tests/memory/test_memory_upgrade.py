"""Stores of the agentd before agents become stores of this one, with all that is in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw

from agentd.memory import backup, events, ledger, notes, results, spend
from agentd.memory.database import Database
from agentd.memory.files import open_writer
from agentd.memory.ledger import Priority, Run, RunOutcome, RunState
from agentd.memory.migrate import migrate, steps, version
from agentd.records import CheckResult, Verdict

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
_QUEUE = """
    INSERT INTO runs (id, watch, trigger, state, due_at, started_at, ended_at, error, trace_id)
    VALUES (?, 'review', 'cron', ?, 1767614400000000, NULL, ?, ?, NULL)"""


def older(path: Path, family: str, schema: int) -> apsw.Connection:
    """A file as an agentd wrote it that knew `schema` steps."""
    connection = open_writer(path, durable=True)
    migrate(connection, steps(family)[:schema], str(path), before=lambda: None)
    return connection


async def test_runs_of_the_older_ledger_stay_and_start(tmp_path: Path) -> None:
    """An upgrade in the night must neither lose what is queued nor rewrite what happened."""
    old = older(tmp_path / "state.db", "state", 3)
    old.execute(_QUEUE, ("waits", "queued", None, None))
    old.execute(_QUEUE, ("runs", "running", None, None))
    old.execute(_QUEUE, ("over", "failed", 1767614500000000, "x"))
    old.close()

    database = await Database.open(tmp_path / "state.db", migrations="state", durable=True)

    assert [run.id for run in await database.read(lambda c: ledger.queued(c, NOW))] == ["waits"]
    assert await database.read(lambda c: ledger.get(c, "waits")) == Run("waits", "review", "cron", NOW)
    over = await database.read(lambda c: ledger.get(c, "over"))
    assert over == Run("over", "review", "cron", NOW, RunState.FAILED, None, NOW + timedelta(seconds=100), "x", None)
    assert over is not None
    assert (over.kind, over.priority, over.outcome) == ("goal", Priority.NORMAL, RunOutcome())
    assert await database.write(lambda c: ledger.interrupt_all_running(c, NOW)) == 1
    await database.write(lambda c: ledger.start(c, "waits", NOW))
    await database.write(lambda c: ledger.end(c, "waits", NOW, RunState.COMPLETED, outcome=RunOutcome(answer="a")))
    assert await database.read(lambda c: spend.today(c, "2026-01-05")) == spend.Spent()
    await database.close()

    (copy,) = backup.listed(tmp_path / "backups", "state")
    kept = apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)
    assert version(kept) == 3
    assert kept.execute("SELECT id FROM runs ORDER BY number").fetchall() == [("waits",), ("runs",), ("over",)]
    kept.close()


async def test_older_history_stays_and_takes_notes(tmp_path: Path) -> None:
    """A year of roll-ups and events must not be set aside for a new table."""
    old = older(tmp_path / "history.db", "history", 2)
    events.append(old, "alert.firing", NOW, watch="shop", fingerprint="f")
    results.insert(old, [CheckResult("shop", NOW, Verdict.OK, 0.1, 5.0)])
    old.close()

    database = await Database.open(tmp_path / "history.db", migrations="history", durable=False)

    assert [event.kind for event in await database.read(events.last)] == ["alert.firing"]
    assert len(await database.read(lambda c: results.last(c, "shop"))) == 1
    await database.write(
        lambda c: notes.add_final(c, at=NOW, run="r", watch="shop", fingerprint="f", answer="disk full")
    )
    assert len(await database.read(lambda c: notes.search(c, "disk"))) == 1
    assert database.counts.replaced == 0
    await database.close()


def test_an_upgraded_file_is_made_as_a_new_one(tmp_path: Path) -> None:
    """Two stores of one version that differ are two products."""
    for family in ("state", "history"):
        schemas = []
        for schema in (0, 1, len(steps(family)) - 1):
            connection = older(tmp_path / f"{family}{schema}.db", family, schema)
            migrate(connection, steps(family), "test", before=lambda: None)
            schemas.append(connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall())
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            connection.close()
        assert schemas[0] == schemas[1] == schemas[2]
