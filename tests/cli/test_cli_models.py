"""`agentd models` as a person types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import Agentd
from modelserver import ModelServer, Reply
from test_cli_task import HOSTILE, agentd, configured, models, path, server

__all__ = ["agentd", "models", "path", "server"]

KEY = "sk-verysecretkey123"


@pytest.fixture
def three(tmp_path: Path, models: ModelServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with a key, one whose key is missing, one that needs none."""
    monkeypatch.setenv("AGENTD_TEST_KEY", KEY)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    price = {"input": 100, "output": 200}
    local: dict[str, Any] = {"provider": "openai-compatible", "base_url": models.url, "model": "test-model"}
    found: dict[str, dict[str, Any]] = {
        "large": {"provider": "openai", "model": "m", "base_url": models.url, "api_key": "${env:AGENTD_TEST_KEY}"},
        "far": {"provider": "deepseek", "model": "m", "base_url": models.url, "price": price},
        "local": {**local, "protocol": "json", "context_tokens": 8192, "fallback": ["large"]},
    }
    found["large"]["price"] = price
    return configured(tmp_path, models.url, models=found, agent={"model": "local"})


def test_the_configured_models(agentd: Agentd, three: Path) -> None:
    """Which there are, whether they can be asked at all, and which one is."""
    rows = {row["name"]: row for row in agentd("models", "-o", "json").json["models"]}

    assert {name: row["key"] for name, row in rows.items()} == {
        "large": "present",
        "far": "missing",
        "local": "not needed",
    }
    assert {name: row["price_known"] for name, row in rows.items()} == {"large": True, "far": True, "local": False}
    assert rows["local"] | {"model": ""} == {
        "name": "local",
        "provider": "openai-compatible",
        "model": "",
        "key": "not needed",
        "price_known": False,
        "context_tokens": 8192,
        "protocol": "json",
        "fallback": ["large"],
        "default": True,
    }
    table = agentd("models").out
    assert "not needed" in table
    assert "unknown" in table
    assert KEY not in table


def test_no_models(agentd: Agentd, tmp_path: Path, models: ModelServer) -> None:
    """It is allowed, and what it means is said."""
    configured(tmp_path, models.url, models={})

    assert "agents gather evidence" in agentd("models").out


def test_each_is_really_asked(agentd: Agentd, three: Path, models: ModelServer) -> None:
    """The one test that counts before the night in which one is needed; no other may answer in its place."""
    models.otherwise = lambda asked: 503 if asked.json["model"] == "test-model" else f"Paris{HOSTILE}"

    said = agentd("models", "--ask")

    assert said.code == 1
    far, large, local = said.out.splitlines()[1:]
    assert "Paris" in large
    assert "15 tokens, $0.0020" in large
    assert "FAILED" in far
    assert "DEEPSEEK_API_KEY is empty" in far
    assert "FAILED" in local
    assert "503" in local
    assert all(each.isprintable() or each == "\n" for each in said.out)
    assert KEY not in said.out
    assert len(models.requests) == 2, "once each, and nobody for another"


def test_all_that_answer_are_a_success(agentd: Agentd, path: Path, models: ModelServer) -> None:
    """A deploy script asks by the exit code."""
    models.answers(Reply(text="Paris"))

    said = agentd("models", "--ask", "-o", "json")

    assert said.code == 0
    (row,) = said.json["models"]
    assert (row["answer"]["text"], row["answer"]["usd"], row["answer"]["error"]) == ("Paris", 0.002, None)


def test_what_a_provider_offers(agentd: Agentd, three: Path, models: ModelServer) -> None:
    """At the address that the configuration names."""
    models.models = ["a-large", "a-small"]

    assert agentd("models", "--provider", "openai").out == "a-large\na-small\n"
    assert models.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    refused = agentd("models", "--provider", "deepseek")
    assert refused.code == 1
    assert "has no key" in refused.err
    assert agentd("models", "--provider", "nobody").code == 2


def test_a_provider_without_an_address(agentd: Agentd, tmp_path: Path, models: ModelServer) -> None:
    """It says where to write one."""
    configured(tmp_path, models.url, models={})

    said = agentd("models", "--provider", "openai-compatible")

    assert said.code == 2
    assert "base_url" in said.err
    assert agentd("models", "--provider", "bedrock").code == 2
