"""What `agentd alerts` and `agentd status` say of agents, as a person types them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from commands import Agentd, typed

from agentd.memory import alerts as alert_rows
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
