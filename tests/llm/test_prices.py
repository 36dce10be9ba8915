"""Prices: the config's before the table's, unknown never zero, and no table kept in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentd.llm import prices
from agentd.llm.port import Usage
from agentd.llm.settings import ModelSettings


def model(provider: str = "anthropic", name: str = "claude-sonnet-4-5", **more: Any) -> ModelSettings:
    return ModelSettings.model_validate({"provider": provider, "model": name, **more})


@pytest.fixture(scope="module", autouse=True)
def _asked_once() -> None:
    """One child for all that the tests ask for."""
    prices.load([model(), model("openai", "gpt-5-mini"), LOCAL, model("openai", "nonsense"), GROQ])


LOCAL = model("openai-compatible", "qwen3-8b", base_url="http://127.0.0.1:8000/v1")
GROQ = model("openai-compatible", "llama-3.3-70b-versatile", base_url="https://api.groq.com/openai/v1")
PRICED = model("openai-compatible", "mine", price={"input": 2, "output": 10, "cached_input": 0.5})


def test_price_of_the_config_is_used_as_it_stands() -> None:
    """Who rents a model knows better than any table what it costs."""
    assert prices.cost(PRICED, Usage(1_000_000, 100_000, cached_tokens=400_000)) == pytest.approx(1.2 + 0.2 + 1.0)


def test_cached_tokens_without_a_price_of_their_own_cost_what_others_do() -> None:
    """Taking them as free would let a budget run over."""
    plain = model("openai-compatible", "mine", price={"input": 2, "output": 10})

    assert prices.cost(plain, Usage(1_000_000, 0, cached_tokens=900_000)) == pytest.approx(2.0)


def test_more_cached_tokens_than_tokens_cost_no_less_than_nothing() -> None:
    """What a provider counts is not ours to trust: a negative cost would fill the budget up."""
    assert prices.cost(PRICED, Usage(1000, 0, cached_tokens=10**9)) == pytest.approx(0.0005)


def test_a_price_of_zero_is_zero_and_known() -> None:
    """One's own GPU costs nothing by the token, and a budget in USD is no reason to refuse it."""
    free = model("openai-compatible", "mine", price={"input": 0, "output": 0})

    assert prices.cost(free, Usage(5000, 5000)) == 0.0
    assert prices.known(free)


@pytest.mark.parametrize("unknown", [LOCAL, model("openai", "nonsense")], ids=["own server", "unknown name"])
def test_unknown_price_is_none(unknown: ModelSettings) -> None:
    """Zero would mean that no budget ever ends."""
    assert not prices.known(unknown)
    assert prices.cost(unknown, Usage(1000, 1000)) is None
    assert prices.quote(unknown, 1000, 1000) is None


def test_the_table_knows_the_large_providers() -> None:
    """Without this everybody would copy price lists into the config."""
    dollars = prices.cost(model("openai", "gpt-5-mini"), Usage(1_000_000, 0))

    assert dollars is not None
    assert 0 < dollars < 10
    assert prices.known(model())
    assert prices.known(GROQ)


def test_a_long_question_has_the_price_of_long_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some providers take double for the whole call above a length."""
    monkeypatch.setitem(
        prices._rates,
        ("anthropic", "tiered", ""),
        (prices.Rate(0, 3, 15, 0.3, 3.75), prices.Rate(200_000, 6, 22.5, 0.6, 7.5)),
    )
    tiered = model(name="tiered")

    assert prices.cost(tiered, Usage(200_000, 1000)) == pytest.approx(0.6 + 0.015)
    assert prices.cost(tiered, Usage(200_001, 1000)) == pytest.approx(1.200006 + 0.0225)


def test_what_is_put_into_a_cache_has_its_own_price() -> None:
    """Anthropic takes a quarter more for it; a budget that counts it like the rest runs over."""
    fresh, kept = Usage(1000, 10), Usage(1000, 10, cached_tokens=600, cache_written_tokens=400)

    assert prices.cost(model(), fresh) == pytest.approx(0.003 + 0.00015)
    assert prices.cost(model(), kept) == pytest.approx(600 * 0.3e-6 + 400 * 3.75e-6 + 0.00015)
    assert prices.quote(model(), 1000, 10) == pytest.approx(0.00375 + 0.00015)


def test_a_quote_counts_nothing_as_cached() -> None:
    """What is reserved must be enough when the cache has forgotten us."""
    assert prices.quote(PRICED, 1_000_000, 100_000) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("usd", "tokens", "names"), [(5.0, None, ("local",)), (5.0, 10_000, ()), (None, None, ()), (None, 5, ())]
)
def test_a_budget_in_usd_alone_cannot_hold_what_has_no_price(
    usd: float | None, tokens: int | None, names: tuple[str, ...]
) -> None:
    """Such a budget would be a promise that nobody keeps; a budget in tokens beside it does."""
    assert prices.unpriced({"default": model(), "local": LOCAL, "own": PRICED}, usd=usd, tokens=tokens) == names


def test_asking_does_not_load_the_table() -> None:
    """The daemon asks at load and must stay small for months."""
    program = (
        "import sys\n"
        "from agentd.llm import prices\n"
        "from agentd.llm.settings import ModelSettings\n"
        "assert prices.known(ModelSettings(provider='openai', model='gpt-5-mini'))\n"
        "assert not [name for name in sys.modules if name.startswith(('genai_prices', 'httpx'))]\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_module_in_the_working_folder_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon may be started anywhere, also where others can write."""
    (tmp_path / "json.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)

    assert prices.known(model("openai", "gpt-4o-mini"))


def test_a_child_that_fails_leaves_prices_unknown_and_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No memory for a child must neither keep the daemon from starting nor stop every call for seconds."""
    wanted = model("openai", "gpt-4.1-mini")
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nonexistent/python")
        broken.setattr(prices, "_ask_at", 0.0)
        assert not prices.known(wanted)
        assert prices.unpriced({"default": wanted}, usd=5.0, tokens=None) == ()
        assert prices.loaded([wanted])
        assert len([each for each in caplog.records if each.message == "prices_unknown"]) == 1

    assert prices.known(wanted)
