"""What `agentd alerts` and `agentd status` say of agents, as a person types them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Agentd, typed

from agentd.memory import alerts as alert_rows
from agentd.memory import ledger, spend
from agentd.memory.ledger import Run
from agentd.memory.store import Store
from agentd.records import Alert, AlertStatus, Severity

HOSTILE = "the pool \x1b[2Jis empty"


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    path = tmp_path / "agentd.yaml"
    watches = [{"name": "shop", "http": {"url": "http://127.0.0.1/"}}]
    path.write_text(yaml.safe_dump({"daemon": {"state_dir": str(tmp_path / "s")}, "watches": watches}))
    return typed(monkeypatch, capsys, path)


def firing(folder: Path, *, found: bool) -> None:
    """An alert that an agent has looked into, or not."""
    finding = {"status": "problem", "severity": "warning", "summary": HOSTILE} if found else None
    cost = {"run": "run_5f1c", "usd": 0.01} if found else None
    now = datetime.now(UTC)
    state, severity = AlertStatus.FIRING, Severity.CRITICAL
    alert = Alert("f1aa", "web-1", "shop", severity, status=state, started_at=now, finding=finding, cost=cost)

    async def write() -> None:
        store = await Store.open(folder / "s", ballast_bytes=65536)
        await store.state.write(lambda c: alert_rows.save(c, alert))
        await store.close()

    asyncio.run(write())


def test_alerts_show_what_an_agent_found(agentd: Agentd, tmp_path: Path) -> None:
    """Whoever looks at what fires should not have to know that somebody has found out why."""
    firing(tmp_path, found=True)

    said = agentd("alerts").out

    assert "FOUND" in said
    assert "the pool \\x1b[2Jis empty" in said
    assert "run_5f1c" in said, "`agentd runs run_5f1c` has the rest"


def test_alerts_without_findings_have_no_column_for_them(agentd: Agentd, tmp_path: Path) -> None:
    """Most have no agents."""
    firing(tmp_path, found=False)

    assert "FOUND" not in agentd("alerts").out


def test_alerts_as_json_have_all_of_it(agentd: Agentd, tmp_path: Path) -> None:
    """Programs read the claims as well."""
    firing(tmp_path, found=True)

    (alert,) = agentd("alerts", "-o", "json").json["alerts"]

    assert alert["finding"]["summary"] == HOSTILE
    assert alert["cost"]["run"] == "run_5f1c"


def write(folder: Path, **more: Any) -> None:
    """The configuration, with what agents need."""
    watches = [{"name": "shop", "http": {"url": "http://127.0.0.1/"}}]
    plain = {"daemon": {"state_dir": str(folder / "s")}, "watches": watches}
    (folder / "agentd.yaml").write_text(yaml.safe_dump(plain | more))


def stored(folder: Path, *, runs: bool) -> None:
    """A store in which agents spent something today: one run waits, one is under way."""

    def fill(c: Any) -> None:
        now = datetime.now(UTC)
        for number in range(2 if runs else 0):
            ledger.queue(c, Run(f"run_{number}", "shop", "cron", now))
        if runs:
            ledger.start(c, "run_0", now)
            spend.reserve(
                c, id="1", day=spend.day_of(now), watch="shop", run="run_0", model="m", tokens=9120, usd_nano=40_000_000
            )

    async def change() -> None:
        store = await Store.open(folder / "s", ballast_bytes=65536)
        await store.state.write(fill)
        await store.close()

    asyncio.run(change())


MODELS = {"local": {"provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "model": "m"}}


def test_status_says_what_agents_do_and_have_spent(agentd: Agentd, tmp_path: Path) -> None:
    """One look has to tell whether something is asked just now, and what is left of today's money."""
    write(tmp_path, models=MODELS, budgets={"daemon_per_day": {"usd": 5, "tokens": 2_000_000}})
    stored(tmp_path, runs=True)

    said = agentd("status").out
    (line,) = [line for line in said.splitlines() if line.startswith("agents")]

    assert "running 1, queued 1, model local" in line
    assert "spent today (UTC) $0.0400 of $5, 9,120 of 2,000,000 tokens" in line
    view = agentd("status", "-o", "json").json["agents"]
    assert view == {
        "running": 1,
        "queued": 1,
        "model": "local",
        "today": {
            "usd": 0.04,
            "usd_limit": 5.0,
            "tokens": 9120,
            "tokens_limit": 2_000_000,
            "calls": 1,
            "calls_of_unknown_price": 0,
        },
        "host_pid": None,
    }


def test_status_without_agents_says_nothing_of_them(agentd: Agentd, tmp_path: Path) -> None:
    """Most have none, and need not read of what they do not use."""
    stored(tmp_path, runs=False)

    assert not [line for line in agentd("status").out.splitlines() if line.startswith("agents")]
    assert "agents" not in agentd("status", "-o", "json").json


def test_status_of_runs_that_nothing_is_configured_for_any_more(agentd: Agentd, tmp_path: Path) -> None:
    """What was asked before still costs."""
    stored(tmp_path, runs=True)

    assert "running 1, queued 1, model none" in agentd("status").out
