"""A real model, however small, comes from a goal to a finding: no fake shows that what we ask for can be answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from agents import ended, run_of
from llama import CONTEXT_TOKENS, MODEL, LlamaServer
from stage import Stage

pytestmark = pytest.mark.timeout(600)

WITHIN_S = 400.0
LINES = """\
2026-01-31T09:00:01Z shop[812]: INFO started, 4 workers
2026-01-31T09:12:40Z shop[812]: WARN /var/lib/shop is 97% full
2026-01-31T09:14:02Z shop[812]: ERROR cannot write order 1841: No space left on device
2026-01-31T09:14:07Z shop[812]: ERROR cannot write order 1842: No space left on device
"""


@pytest.fixture
def log() -> Iterator[Path]:
    """Where a path is short: a small model must copy it."""
    with TemporaryDirectory(prefix="shop", dir="/tmp") as folder:
        path = Path(folder, "shop.log")
        path.write_text(LINES)
        yield path


async def test_a_real_model_comes_from_a_goal_to_its_finding(tmp_path: Path, log: Path) -> None:
    """Prompt, actions, grammar, reading of answers, evidence: all of it must suit a model that nobody scripted."""
    watch = {
        "name": "review",
        "goal": f"Read the file {log} with read_file. Then say what is wrong with the shop.",
        "on": ["startup"],
        "report": "each",
    }
    async with Stage(tmp_path) as stage, LlamaServer(tmp_path) as llama:
        stage.configure(
            [watch],
            models={"default": settings(llama)},
            agent={"tools": ["read_file"], "files": {"allow": [str(log.parent)]}, "max_steps": 6},
            budgets={"run": {"time": "6m", "tokens": 100_000}},
        )
        daemon = await stage.start()

        message = await stage.hook.message("goal.finding", within_s=WITHIN_S)

        (run,) = await ended(stage)
        view = await run_of(stage, run["id"])
        show(view)
        records = {kind: [each["data"] for each in view["record"] if each["kind"] == kind] for kind in KINDS}
        assert run["state"] == "completed", run
        assert daemon.alive
        # The finding is its own, and of the form that was asked for.
        finding = message["data"]["finding"]
        assert finding["analysis"] is None
        assert finding["status"] in ("ok", "problem", "unclear")
        assert finding["severity"] in ("info", "warning", "critical")
        assert finding["summary"]
        assert finding["confidence"] is None or 0 <= finding["confidence"] <= 1
        # What it cites is there, what it quotes stands there.
        for claim in finding["claims"]:
            assert all(quote in LINES or "shop.log" in quote for quote in claim["quotes"]), claim
        # Its calls were JSON actions, and reached the tool.
        (prompt,) = records["prompt"]
        assert prompt["native"] is False
        assert prompt["grammar"] is True
        assert all("tool_calls" not in each["answer"] for each in records["model"] if "answer" in each)
        assert [each for each in records["result"] if each["tool"] == "read_file"]
        # Its server's own count, not ours.
        used = [each["usage"] for each in records["model"] if "usage" in each]
        assert used
        assert not any(each["estimated"] for each in used)
        assert message["data"]["cost"]["tokens"] == sum(each["input_tokens"] + each["output_tokens"] for each in used)


KINDS = ("prompt", "model", "result")


def settings(llama: LlamaServer) -> dict[str, Any]:
    """As somebody would write it who has a small model of his own; the same answers each time."""
    own = {"provider": "openai-compatible", "base_url": llama.url, "model": MODEL, "protocol": "json"}
    return {**own, "context_tokens": CONTEXT_TOKENS, "max_tokens": 2000, "temperature": 0, "timeout": "4m"}


def show(view: dict[str, Any]) -> None:
    """What it said and how fast, for people to judge."""
    for line in view["record"]:
        data = line["data"]
        if line["kind"] == "model":
            said = data.get("answer", {}).get("content") or data.get("error")
            print(f"\n{data['model']} ({data['duration_s']:.0f} s, {data.get('usage')}): {said}")
        elif line["kind"] in ("observation", "decision", "finding"):
            print(f"\n{line['kind']}: {data.get('text') or data}")
