"""What `agentd test` and `agentd watches check` say of agents: what would be asked, or that it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Agentd
from modelserver import ModelServer
from running import running
from test_cli_task import agentd, configured, models, path, server

from agentd.daemon.app import Daemon

__all__ = ["agentd", "models", "path", "server"]

ASKED = {"goal": "Find \x1b[2Jout why.", "tools": ["http_get"], "budget": {"usd": 0.5}, "scenario": "debugging"}


def watching(folder: Path, url: str) -> Path:
    watches = [
        {"name": "review", "cron": "0 6 1 1 *", "goal": "Look at everything.", "runbook": [{"tool": "query_history"}]},
        {"name": "off", "cron": "0 6 1 1 *", "goal": "Look.", "enabled": False},
        {"name": "shop", "host": {"disk": "/"}, "expect": ["disk.used_percent < 0"], "investigate": ASKED},
        {
            "name": "app",
            "log": {"files": [str(folder / "app.log")]},
            "rules": [{"name": "r", "type": "any", "match": "x"}],
            "investigate": {**ASKED, "wait": "30s"},
        },
    ]
    return configured(folder, url, watches=watches)


@pytest.fixture
def watched(tmp_path: Path, path: Path, models: ModelServer) -> Path:
    """The configuration with watches that ask agents."""
    return watching(tmp_path, models.url)


@pytest.fixture
def daemon(watched: Path) -> Iterator[Daemon]:
    with running(watched) as found:
        yield found


def test_a_goal_is_shown_and_not_asked(agentd: Agentd, watched: Path, models: ModelServer) -> None:
    """It costs money; whoever tries it wants to see with what it would be asked, and how it can be."""
    said = agentd("test", "review")

    assert said.code == 0
    assert "goal      Look at everything." in said.out
    assert "model     default" in said.out
    assert "runbook   query_history" in said.out
    assert "budget    100,000 tokens, 5m, 20 steps" in said.out
    assert "tools     http_get, read_file" in said.out
    assert "`agentd watches check review`" in said.out
    assert agentd("test", "review", "-o", "json").json["budget"] == {"usd": None, "tokens": 100_000, "time": "5m"}
    assert models.requests == []


def test_a_disabled_goal_is_said_to_be_so(agentd: Agentd, watched: Path) -> None:
    """And not that this version might not know it."""
    said = agentd("test", "off")

    assert (said.code, "it is disabled (`enabled: false`)" in said.err) == (1, True)


def test_a_look_says_which_agent_the_alert_would_start(agentd: Agentd, watched: Path, models: ModelServer) -> None:
    """The alert is not all that comes of it; what a person wrote paints nothing."""
    said = agentd("test", "shop")

    assert said.code == 3
    assert "starts an agent when it fires (not asked now)" in said.out
    assert "goal      Find \\x1b[2Jout why." in said.out
    assert "tools     http_get\n" in said.out
    assert "budget    $0.5, 100,000 tokens, 5m, 20 steps" in said.out
    assert agentd("test", "shop", "-o", "json").json["investigate"]["scenario"] == "debugging"
    assert models.requests == []


def test_a_file_through_rules_says_so_as_well(agentd: Agentd, watched: Path, tmp_path: Path) -> None:
    """With how long the message would wait."""
    (tmp_path / "app.log").write_text("x\n")

    said = agentd("test", "app", "--log", str(tmp_path / "app.log"))

    assert "starts an agent when it fires" in said.out
    assert "the message waits 30 s for it at most" in said.out


def test_a_goal_is_asked_at_the_daemon(agentd: Agentd, daemon: Daemon, models: ModelServer) -> None:
    """Not once a year alone, as its schedule says."""
    said = agentd("watches", "check", "review")

    assert said.code == 0
    run = said.out.split()[0]
    until = time.monotonic() + 60
    while (view := agentd("runs", run, "-o", "json").json)["ended_at"] is None and time.monotonic() < until:
        pass
    assert (view["watch"], view["trigger"]) == ("review", "manual")


def test_a_watch_is_looked_through_at_the_daemon(agentd: Agentd, daemon: Daemon) -> None:
    """What it sees counts; the exit code says how it went."""
    said = agentd("watches", "check", "shop")

    assert said.code == 3
    assert said.out.startswith("shop: failing: ")
    assert agentd("watches", "check", "shop", "-o", "json").json["check"]["verdict"] == "failing"
    assert agentd("watches", "check", "nosuch").code == 1
    assert "shop" in agentd("watches").out, "the list is as it was"
