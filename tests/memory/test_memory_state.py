"""The small tables of the state store: each keeps what it was told, and no more than it should."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import apsw
import pytest

from agentd.memory import audit, heartbeats, ledger, meta, pauses, webhooks
from agentd.memory.heartbeats import Beat
from agentd.memory.ledger import ProbeRow, Run, RunState
from agentd.memory.migrate import migrate, steps
from agentd.memory.pauses import Pause
from agentd.records import Verdict

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("state"), "test", before=lambda: None)
    yield connection
    connection.close()


def test_a_disabled_webhook_stays_so_until_enabled(c: apsw.Connection) -> None:
    """A receiver that said 410 must not be called again after a restart."""
    webhooks.disable(c, "ops", "410 Gone", NOW)

    assert webhooks.disabled(c) == {"ops": "410 Gone"}
    assert webhooks.enable(c, "ops")
    assert not webhooks.enable(c, "ops")
    assert webhooks.disabled(c) == {}


def test_failing_since_is_the_first_failure(c: apsw.Connection) -> None:
    """ "Down for two days" must not become "down for a minute" with each retry or restart."""
    webhooks.worked(c, "ops", NOW)
    webhooks.failed(c, "ops", LATER)
    webhooks.failed(c, "ops", LATER + timedelta(hours=5))

    assert webhooks.health(c)["ops"].failing_since == LATER
    webhooks.worked(c, "ops", LATER + timedelta(hours=6))
    assert webhooks.health(c)["ops"].failing_since is None
    webhooks.forget(c, "ops")
    assert webhooks.health(c) == {}


def test_a_run_goes_from_queue_to_end(c: apsw.Connection) -> None:
    """The ledger is where a person sees what the agent did and when."""
    ledger.queue(c, Run("r1", "review", "cron", NOW))
    ledger.queue(c, Run("r2", "review", "cron", LATER))

    assert [run.id for run in ledger.queued(c, NOW)] == ["r1"]
    assert ledger.start(c, "r1", NOW)
    assert not ledger.start(c, "r1", NOW)
    assert ledger.end(c, "r1", LATER, RunState.COMPLETED, trace_id="t")
    assert not ledger.end(c, "r1", LATER, RunState.FAILED)
    assert ledger.get(c, "r1") == Run("r1", "review", "cron", NOW, RunState.COMPLETED, NOW, LATER, None, "t")
    assert ledger.last_due(c, "review") == LATER
    assert [run.id for run in ledger.runs(c, watch="review")] == ["r2", "r1"]


def test_runs_of_a_dead_process_are_interrupted(c: apsw.Connection) -> None:
    """After kill -9 a run that says "running" for ever would block the next one."""
    ledger.queue(c, Run("r1", "review", "cron", NOW))
    ledger.start(c, "r1", NOW)
    ledger.queue(c, Run("r2", "review", "cron", NOW))

    assert ledger.interrupt_all_running(c, LATER) == 1
    assert [run.state for run in ledger.runs(c)] == [RunState.QUEUED, RunState.INTERRUPTED]


def test_old_runs_go_but_never_queued_ones(c: apsw.Connection) -> None:
    """Retention must not forget what is still to be done."""
    for number in range(10):
        ledger.queue(c, Run(str(number), "w", "cron", NOW))
        if number < 8:
            ledger.end(c, str(number), NOW + timedelta(days=number), RunState.COMPLETED)

    assert ledger.trim(c, NOW + timedelta(days=2), max_rows=4) == 4
    assert {run.id for run in ledger.runs(c)} == {"4", "5", "6", "7", "8", "9"}


def test_probe_rows_come_back(c: apsw.Connection) -> None:
    """A restart must know what was last looked at."""
    rows = [ProbeRow("a", NOW, LATER, Verdict.BLIND), ProbeRow("b")]
    ledger.save_probes(c, rows)
    ledger.save_probes(c, rows[:1])

    assert ledger.load_probes(c) == {"a": rows[0], "b": rows[1]}
    ledger.forget_probe(c, "a")
    assert list(ledger.load_probes(c)) == ["b"]


def test_heartbeats_come_back(c: apsw.Connection) -> None:
    """A backup job that reported yesterday is not overdue because we restarted."""
    rows = [Beat("backup", NOW, False, "exit 1", 7, LATER, 1), Beat("z", NOW)]
    heartbeats.save(c, rows)

    assert heartbeats.load(c) == rows
    heartbeats.delete(c, "backup")
    assert heartbeats.load(c) == rows[1:]


def test_meta_keeps_single_facts(c: apsw.Connection) -> None:
    """How long nobody watched is told from the last sign of life."""
    assert meta.alive_at(c) is None
    meta.stamp_alive(c, NOW)
    meta.put(c, meta.HELD, "restored")

    assert meta.alive_at(c) == NOW
    assert meta.held(c) == "restored"
    assert meta.delete(c, meta.HELD)
    assert not meta.delete(c, meta.HELD)


def test_a_deed_is_short_and_each_of_its_texts_is_one_line(c: apsw.Connection) -> None:
    """What a request names is anybody's text: a line break would make a second deed of it for who reads the trail."""
    audit.append(c, "eve\nroot", "drop", "msg_1\n2026 root drop all\x1b[2J" + "x" * 9000, "why\r\n" * 9000, NOW)

    (deed,) = audit.rows(c)
    assert deed.who == "eve root"
    assert deed.target.startswith("msg_1 2026 root drop all [2J")
    assert len(deed.target) == audit.MAX_TARGET
    assert len(deed.detail) == 2000
    assert deed.detail.isprintable()
    assert audit.about(c, deed.target + "beyond", ["drop"]) == [deed]


def test_the_audit_trail_is_kept_and_bounded(c: apsw.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who acknowledged what must be findable; a script that pauses in a loop must not fill the disk."""
    monkeypatch.setattr(audit, "MAX_ROWS", 3)
    for number in range(5):
        audit.append(c, "uid:0", "pause", f"w{number}", "why", NOW + timedelta(days=number))

    assert [deed.target for deed in audit.rows(c)] == ["w4", "w3", "w2"]
    assert [deed.target for deed in audit.rows(c, before=4, limit=1)] == ["w2"]
    assert audit.trim(c, NOW + timedelta(days=3)) == 1
    assert [deed.target for deed in audit.rows(c)] == ["w4", "w3"]


def test_a_pause_ends_by_itself_or_by_hand(c: apsw.Connection) -> None:
    """A forgotten pause is a watch that nobody watches."""
    short, endless = Pause("a", "anna", NOW, LATER, "deploy"), Pause("b", "anna", NOW)
    pauses.save(c, short)
    pauses.save(c, endless)

    assert pauses.load(c) == {"a": short, "b": endless}
    assert pauses.expire(c, NOW) == []
    assert pauses.expire(c, LATER) == ["a"]
    assert pauses.delete(c, "b")
    assert not pauses.delete(c, "b")
