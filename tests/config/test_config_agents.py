"""
Agents in the configuration: tools, models and budgets that do not fit together are told at load, with place and cure.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.agent.tools import BUILT_IN
from agentd.config.agent_checks import BUILT_IN_TOOLS

MODEL = (
    "models: {default: {provider: local, base_url: 'http://127.0.0.1:1/v1', model: m, price: {input: 0, output: 0}}}\n"
)
GOAL = "watches: [{name: review, every: 1h, goal: look}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_the_tools_of_the_configuration_are_those_of_the_agent() -> None:
    """Config and agent stand on one floor and cannot ask each other."""
    assert tuple(tool.name for tool in BUILT_IN) == BUILT_IN_TOOLS


def test_an_old_name_of_a_provider_is_understood(folder: Folder) -> None:
    """`local` is what other programs call a server of one's own."""
    assert folder.load(TOLD + MODEL + GOAL).config.models["default"].provider == "openai-compatible"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("agent: {tools: [http_gett]}\n", "agent.tools[0]", "there is no tool"),
        ("agent: {tools: [grafana.query]}\n", "agent.tools[0]", "there is no tool"),
        ("agent: {model: defualt}\n", "agent.model", "there is no model"),
        ("agent: {files: {allow: [srv]}}\n", "agent.files.allow[0]", "no absolute path"),
        ("agent: {mcp: {g: {tools: [x]}}}\n", "agent.mcp.g", "neither `command` nor `url`"),
        ("agent: {mcp: {g: {command: [a], url: 'http://a/', tools: [x]}}}\n", "agent.mcp.g", "names both"),
    ],
)
def test_what_agents_may_not_be_told(text: str, key: str, words: str, folder: Folder) -> None:
    """A misspelt tool is a run without it, noticed in the middle of an incident."""
    problem = folder.problem(TOLD + MODEL + text + GOAL)

    assert (problem.key, words in problem.what) == (key, True)
    assert problem.line > 0


@pytest.mark.parametrize(
    ("watch", "key", "words"),
    [
        ("every: 1h, goal: look, tools: [run_command]", "watches[0].tools[0]", "can only narrow"),
        (
            "every: 1h, goal: look, tools: [http_get], runbook: [{tool: dns_lookup}]",
            "watches[0].runbook[0].tool",
            "may be",
        ),
        ("every: 1h, goal: look, investigate: why", "watches[0].investigate", "has a goal already"),
        ("every: 1h, goal: look, model: nobody", "watches[0].model", "there is no model"),
        (
            "tcp: {host: a, port: 1}, investigate: {goal: why, tools: [write_file]}",
            "watches[0].investigate.tools[0]",
            "can only narrow",
        ),
    ],
)
def test_a_watch_asks_for_no_more_than_is_allowed(watch: str, key: str, words: str, folder: Folder) -> None:
    """What may be done stands in one place, for whoever audits it."""
    problem = folder.problem(TOLD + MODEL + f"watches: [{{name: w, {watch}}}]\n")

    assert (problem.key, words in problem.what) == (key, True)


def test_a_tool_of_a_server_is_named_with_it(folder: Folder) -> None:
    """As it appears in the registry."""
    mcp = "agent: {tools: [grafana.query], mcp: {grafana: {command: [mcp-grafana], tools: [query]}}}\n"

    assert folder.load(TOLD + MODEL + mcp + GOAL).config.agent.tools == ("grafana.query",)


def test_a_model_that_cannot_be_asked_is_told_at_load(folder: Folder) -> None:
    """Azure has no address of its own; the first incident would have shown it."""
    problem = folder.problem(TOLD + "models: {a: {provider: azure, model: x}}\n" + GOAL)

    assert problem.key == "models.a"
    assert "https://NAME.openai.azure.com" in problem.cure


@pytest.mark.parametrize(
    ("budget", "key"),
    [
        ("budgets: {run: {usd: 1}}\n", "budgets.run.usd"),
        ("budgets: {daemon_per_day: {usd: 1}}\n", "budgets.daemon_per_day.usd"),
        ("budgets: {watch_per_day: {usd: 1, tokens: 1000}}\n", None),
        ("budgets: {run: {tokens: 1000}}\n", None),
    ],
)
def test_dollars_alone_hold_no_model_of_unknown_price(budget: str, key: str | None, folder: Folder) -> None:
    """An unknown price is not zero: such a budget would never be reached."""
    model = "models: {m: {provider: local, base_url: 'http://127.0.0.1:1/v1', model: mine}}\n"
    text = TOLD + model + budget + GOAL

    if key is None:
        folder.load(text)
    else:
        assert folder.problem(text).key == key


def test_a_watchs_own_budget_is_held_to_the_same(folder: Folder) -> None:
    """It takes the place of the one that holds for all."""
    model = "models: {m: {provider: local, base_url: 'http://127.0.0.1:1/v1', model: mine}}\n"
    watch = "watches: [{name: w, every: 1h, goal: look, budget: {usd: 1}}]\n"

    assert folder.problem(TOLD + model + watch).key == "watches[0].budget.usd"


def test_a_missing_key_keeps_nobody_from_starting(folder: Folder) -> None:
    """Alerts do not hang on a model."""
    model = "models: {m: {provider: openai, model: x, api_key: '${env:NOT_THERE}'}}\n"

    warnings = folder.warnings(TOLD + model + GOAL)

    assert "NOT_THERE is not set" in warnings["models.m.api_key"]


def test_who_asks_for_an_analysis_without_a_model_is_told(folder: Folder) -> None:
    """It works, and gathers evidence alone; few mean that."""
    assert "no model is configured" in folder.warnings(TOLD + GOAL)["watches[0].goal"]


def test_one_failed_review_counts(folder: Folder) -> None:
    """Three in a row, as for probes, would be three days."""
    (goal,) = folder.load(TOLD + MODEL + "defaults: {fail_after: 5}\n" + GOAL).config.goals

    assert (goal.fail_after.needed, goal.recover_after) == (1, 1)


def test_runs_are_bounded_where_nothing_is_said(folder: Folder) -> None:
    """Money is bounded before it is spent, also by those who never thought of it."""
    budgets = folder.load(TOLD + MODEL + GOAL).config.budgets

    assert (budgets.run.tokens, budgets.run.time) == (100_000, timedelta(minutes=5))
    assert budgets.daemon_per_day.tokens == 2_000_000


def test_the_folder_of_prompts_is_meant_from_the_file(folder: Folder) -> None:
    """The daemon's own working folder is nobody's."""
    loaded = folder.load(TOLD + MODEL + "agent: {prompts: prompts.d/}\n" + GOAL)

    assert loaded.config.agent.prompts == folder.path / "prompts.d"


def test_a_provider_whose_library_is_missing_is_told(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the first incident would show it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    text = TOLD + "models: {m: {provider: gemini, model: gemini-2.5-flash}}\n" + GOAL

    assert "library that is not installed" in folder.warnings(text)["models.m.provider"]


@pytest.mark.parametrize(
    ("host", "words", "cure"),
    [
        ("https://shop.example", "is an address", "shop.example"),
        ("shop.example/health", "has a path", "shop.example"),
        ("shop.example:8443", "has a port", "shop.example"),
    ],
)
def test_a_host_is_a_host(host: str, words: str, cure: str, folder: Folder) -> None:
    """With a scheme, a path or a port it would allow nothing, and say nothing."""
    problem = folder.problem(TOLD + MODEL + f"agent: {{http: {{allow: ['{host}']}}}}\n" + GOAL)

    assert (problem.key, words in problem.what, cure in problem.cure) == ("agent.http.allow[0]", True, True)


@pytest.mark.parametrize("host", ["*", "*.shop.example", "shop.example", "10.0.0.0/8", "::1", "fd00::/8", "[::1]"])
def test_every_kind_of_host_may_be_allowed(host: str, folder: Folder) -> None:
    """Names, patterns, addresses and networks."""
    folder.load(TOLD + MODEL + f"agent: {{http: {{allow: ['{host}']}}}}\n" + GOAL)


def test_a_goal_expects_nothing(folder: Folder) -> None:
    """Conditions compare what a probe saw; those of a goal were never looked at."""
    problem = folder.problem(TOLD + MODEL + "watches: [{name: w, every: 1h, goal: look, expect: ['status == 200']}]\n")

    assert problem.key == "watches[0].expect"
    assert "report: state" in problem.cure


@pytest.mark.parametrize(
    ("budgets", "watch", "key"),
    [
        ("run: {tokens: 3999}", "", "budgets.run.tokens"),
        ("run: {tokens: 4000}", "", None),
        ("run: {tokens: 0}", "", None),
        ("daemon_per_day: {tokens: 10}", "", "budgets.daemon_per_day.tokens"),
        ("", ", budget: {tokens: 100}", "watches[0].budget.tokens"),
        ("", ", model: small, budget: {tokens: 100}", None),
        ("run: {usd: 0.001}", "", "budgets.run.usd"),
        ("run: {usd: 0.1}", "", None),
    ],
)
def test_a_budget_that_pays_for_no_call_is_warned_of(budgets: str, watch: str, key: str | None, folder: Folder) -> None:
    """What a call may cost at most is set aside before it is made: every one would be refused."""
    base = "provider: local, base_url: 'http://127.0.0.1:1/v1', model: m, price: {input: 0, output: 10}"
    small = f", small: {{{base}, max_tokens: 100}}" if "small" in watch else ""
    text = f"models: {{default: {{{base}}}{small}}}\nbudgets: {{{budgets}}}\n"
    warned = folder.warnings(TOLD + text + f"watches: [{{name: w, every: 1h, goal: look{watch}}}]\n")

    assert {name: "for no call" in what for name, what in warned.items()} == ({key: True} if key else {})
