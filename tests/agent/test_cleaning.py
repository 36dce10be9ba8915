"""
What tools say is cleaned of secrets away from the loop, and nothing waits for it that need not.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from agent_run import Desk, FunctionTool, call, final

from agentd.agent import acting, cleaning, inbox
from agentd.agent.cleaning import PIECE_CHARS, Said, cleaned, redacted, redacted_all
from agentd.agent.evidence import Fence
from agentd.agent.replay import replay
from agentd.fleet.messages import Result
from agentd.telemetry.redact import redact, redact_all
from agentd.testing import ScriptedModel

LINE = "2026-01-01T00:00:00Z shop[71]: request 17 took 12 ms path=/cart\n"
LARGE = LINE * 4000
KEY = "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEAxyz\n" * 3000 + "-----END RSA PRIVATE KEY-----\n"
FENCE = Fence("run-1")


@pytest.mark.parametrize("lead", range(PIECE_CHARS - 96, PIECE_CHARS + 32, 16))
def test_no_secret_is_cut_in_two_by_the_pieces(lead: int) -> None:
    """Half a key in a record is a leak."""
    before = ("x" * 15 + "\n") * (lead // 16)
    for secret in (KEY, 'password: "hunter2\nhunter3\nhunter4"\n', "db token=abc123456789\n"):
        text = before + secret + LARGE + secret

        assert redacted(text) == redact(text)


def test_long_texts_are_searched_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search holds up every other thread until it ends."""
    longest = []

    def counting(text: str) -> str:
        longest.append(len(text))
        return redact(text)

    monkeypatch.setattr(cleaning, "redact", counting)

    redacted(LARGE)

    assert max(longest) <= 2 * PIECE_CHARS


def test_values_under_a_secrets_name_are_starred_however_deep() -> None:
    """Pieces change nothing of what is a secret."""
    value = {
        "text": LARGE,
        "password": ["x"],
        "deep": [{"api_key": "y", "n": 1, "url": "http://a:b@c/"}],
        "token": None,
    }

    assert redacted_all(value) == redact_all(value)


def test_a_result_is_cleaned_the_same_when_it_comes_from_the_record() -> None:
    """A replay has to see what was seen."""
    for output in (LARGE + "password=hunter2x", {"text": LARGE, "token": "t"}, [KEY, LARGE], LARGE * 3):
        result, text = cleaned(Result("s1.1", "look", output), 262_144, FENCE)

        assert cleaned(result, 262_144, FENCE, recorded=True) == (result, text)
        assert "MIIE" not in text.text


class Held:
    """Cleaning that waits until it is let go. threads: on which large outputs were cleaned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.begun = threading.Event()
        self.threads: list[str] = []
        monkeypatch.setattr(acting, "cleaned", self._cleaned)

    def _cleaned(self, result: Result, *args: Any, **options: Any) -> tuple[Result, Said]:
        if result.output == LARGE:
            self.threads.append(threading.current_thread().name)
            self.begun.set()
            self.go.wait(10)
        return cleaned(result, *args, **options)

    async def until_begun(self) -> None:
        async with asyncio.timeout(5):
            while not self.begun.is_set():
                await asyncio.sleep(0)


def desk(*answers: Any) -> tuple[Desk, ScriptedModel]:
    model = ScriptedModel(call("look"), *answers)
    return Desk(model, FunctionTool("look", lambda input, context: LARGE), kind="task"), model


async def test_a_large_output_is_cleaned_away_from_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs of a host share its loop."""
    held = Held(monkeypatch)
    held.go.set()
    run, _ = desk(final("seen"))

    outcome = await run.run()

    assert outcome.answer == "seen"
    assert held.threads
    assert all(name.startswith("cleaning") for name in held.threads)


async def test_cancelling_does_not_wait_for_outputs_to_be_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second is promised, however much the tools said."""
    held = Held(monkeypatch)
    run, _ = desk(final("never"))
    working = asyncio.create_task(run.run())
    await held.until_begun()

    assert run.running.agent is not None
    run.running.agent.cancel("enough")
    async with asyncio.timeout(5):
        outcome = await working
    held.go.set()

    assert outcome.state == "cancelled"
    assert [result["error"] for result in run.keeper.of("result")] == ["cancelled"]
    replayed = await replay(run.keeper.records)
    assert replayed.divergences == ()


async def test_what_has_come_when_somebody_steers_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result was there already; only the look for secrets was not over."""
    monkeypatch.setattr(inbox, "GIVE_UP_S", 0.0)
    held = Held(monkeypatch)
    run, model = desk(final("both"))
    working = asyncio.create_task(run.run())
    await held.until_begun()

    assert run.running.agent is not None
    run.running.agent.steer("and the database")
    run.running.agent.steer("and the cache")
    for _ in range(20):
        await asyncio.sleep(0)
    held.go.set()
    outcome = await working

    assert outcome.answer == "both"
    assert run.keeper.of("result")[0]["error"] is None
    assert [message.content for message in model.requests[1].messages[-2:]] == ["and the database", "and the cache"]
    assert (await replay(run.keeper.records)).divergences == ()
