"""What the daemon tells its agents: bounded, and no more work than what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentd.agent.job import Job
from agentd.agent.port import ToolFailure
from agentd.alert.lifecycle import Policy
from agentd.clock import SystemClock
from agentd.config.loader import load
from agentd.daemon.runs import answers
from agentd.daemon.runs.answers import Answers
from agentd.memory.store import Store
from agentd.pipeline.watches import calm_alert
from agentd.records import Alert, AlertStatus, Reason

JOB = Job(run="r1", goal="look")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "state")
    yield opened
    await opened.close()


def asked(store: Store, folder: Path, alerts: dict[str, Alert]) -> Answers:
    path = folder / "agentd.yaml"
    path.write_text("watches: []\n")
    config = load(path).config
    return Answers(SimpleNamespace(watches={"ssh": None}, alerts=alerts), store, SystemClock(), lambda: config)


async def test_of_ten_thousand_alerts_only_what_is_told_is_made_ready(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that looks into an attack asks in the midst of it, and every check waits for the answer."""
    calm = calm_alert("i", "ssh", "r", Policy(), {"ip": "x"})
    firing = replace(calm, status=AlertStatus.FIRING, started_at=SystemClock().now(), reason=Reason.MATCHED)
    made = 0

    def view(alert: Alert) -> dict[str, Any]:
        nonlocal made
        made += 1
        return {"fingerprint": alert.fingerprint}

    monkeypatch.setattr(answers, "alert_view", view)
    at = asked(store, tmp_path, {str(n): replace(firing, fingerprint=str(n)) for n in range(10_000)})

    told = await at.ask(JOB, "history", {"kind": "alerts", "limit": 50})

    assert len(told["now"]) == made == 50


@pytest.mark.parametrize(
    "args",
    [{"limit": "many"}, {"limit": None}, {"limit": 1e999}, {"since": "yesterday"}, {"watch": ["ssh"]}, {"watch": {}}],
)
async def test_a_question_that_makes_no_sense_is_told_so(store: Store, tmp_path: Path, args: dict[str, Any]) -> None:
    """It comes from a model; a defect of ours it is not."""
    with pytest.raises(ToolFailure):
        await asked(store, tmp_path, {}).ask(JOB, "history", {"kind": "results", "watch": "ssh", **args})


@pytest.mark.parametrize("args", [{"limit": -1}, {"since": "2026-01-05T12:00:00"}])
async def test_a_bound_of_less_than_nothing_and_a_moment_without_a_zone_are_understood(
    store: Store, tmp_path: Path, args: dict[str, Any]
) -> None:
    """To SQLite a negative limit is none at all."""
    told = await asked(store, tmp_path, {}).ask(JOB, "history", {"kind": "results", "watch": "ssh", **args})

    assert told["newest"] == []
