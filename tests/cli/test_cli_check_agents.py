"""`agentd check` of what agents are asked and given: what would make their runs vain is said before they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from config_folder import TOLD, Folder

from agentd.cli import cli
from agentd.cli.check_agents import check_agents
from agentd.config.agent_places import check_agent_places
from agentd.errors import Problem

MODEL = "models: {m: {provider: local, base_url: 'http://127.0.0.1:1/v1', model: m, price: {input: 0, output: 0}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def told(folder: Folder, text: str) -> list[Problem]:
    loaded = folder.load(TOLD + text)
    path = folder.path / "agentd.yaml"
    return [*check_agents(path, loaded), *check_agent_places(loaded, path)]


def only(folder: Folder, text: str) -> Problem:
    (one,) = told(folder, text)
    return one


@pytest.mark.parametrize(
    ("watch", "key"),
    [
        ("every: 1h, goal: look, scenario: log_analysys", "watches[0].scenario"),
        (
            "tcp: {host: a, port: 1}, investigate: {goal: look, scenario: log_analysys}",
            "watches[0].investigate.scenario",
        ),
    ],
)
def test_a_scenario_that_is_not_known_is_an_error(watch: str, key: str, folder: Folder) -> None:
    """The run would fail, in the night of the incident."""
    problem = only(folder, f"{MODEL}watches: [{{name: w, {watch}}}]\n")

    assert (problem.key, problem.warning, problem.line > 0) == (key, False, True)
    assert problem.cure == "did you mean `log_analysis`?"


def test_a_scenario_of_the_folder_is_known(folder: Folder) -> None:
    """It is read where a run reads it."""
    folder.write("prompt: Look at the shop.\n", "prompts.d/scenarios/shop.yaml")
    text = f"{MODEL}agent: {{prompts: prompts.d/}}\nwatches: [{{name: w, every: 1h, goal: look, scenario: shop}}]\n"

    assert told(folder, text) == []


def test_a_template_is_named_by_its_whole_path(folder: Folder) -> None:
    """`/etc/agentd/conf/../prompts.d` is a riddle."""
    folder.write("prompt: [", "prompts.d/scenarios/shop.yaml")
    (folder.path / "conf").mkdir()
    problem = only(folder, f"{MODEL}agent: {{prompts: conf/../prompts.d}}\n")

    assert problem.warning
    assert str(folder.path / "prompts.d/scenarios/shop.yaml") in problem.what


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("{tool: dns_lookup}", "is missing"),
        ("{tool: dns_lookup, input: {nam: a.example}}", "`nam` is not known"),
        ("{tool: http_get, input: {url: 5}}", "must be text, not 5"),
    ],
)
@pytest.mark.parametrize("source", ["every: 1h, goal: look, runbook: [STEP]", "IN"])
def test_a_step_that_its_tool_would_refuse_is_an_error(step: str, words: str, source: str, folder: Folder) -> None:
    """A runbook is what is left when there is no model."""
    source = source.replace("IN", "tcp: {host: a, port: 1}, investigate: {goal: look, runbook: [STEP]}")
    problem = only(folder, f"{MODEL}watches: [{{name: w, {source.replace('STEP', step)}}}]\n")

    assert (words in problem.what, problem.warning) == (True, False)
    assert ".runbook[0]" in problem.key


def test_a_step_that_speaks_of_another_is_not_judged(folder: Folder) -> None:
    """What the other gives is known when it has run; and tools of servers are known to their servers."""
    steps = "{tool: dns_lookup, input: {name: a.example}}, {tool: dns_lookup, input: {name: 5, port: '${r.1}'}}"
    mcp = "agent: {tools: [dns_lookup, g.query], mcp: {g: {command: [a], tools: [query]}}}\n"
    steps += ", {tool: g.query, input: {whatever: 1}}"

    assert told(folder, f"{MODEL}{mcp}watches: [{{name: w, every: 1h, goal: look, runbook: [{steps}]}}]\n") == []


def test_a_folder_that_is_not_there_is_warned_of(folder: Folder) -> None:
    """Agents would be told that they may not read there."""
    (folder.path / "here").mkdir()
    problem = only(folder, f"agent: {{files: {{allow: ['{folder.path}/here', '{folder.path}/gone']}}}}\n")

    assert (problem.key, problem.warning) == ("agent.files.allow[1]", True)
    assert f"there is no folder {folder.path}/gone," in problem.what
    assert problem.line == 3


@pytest.mark.parametrize(
    ("model", "set", "warned"),
    [
        ("provider: openai", {}, True),
        ("provider: openai", {"OPENAI_API_KEY": ""}, True),
        ("provider: openai", {"OPENAI_API_KEY": "sk-x"}, False),
        ("provider: qwen", {"DASHSCOPE_API_KEY": "sk-x"}, False),
        ("provider: openai, api_key: '${env:MINE}'", {"MINE": "sk-x"}, False),
        ("provider: local, base_url: 'http://127.0.0.1:1/v1'", {}, False),
    ],
)
def test_a_provider_that_needs_a_key_and_has_none_is_warned_of(
    model: str, set: dict[str, str], warned: bool, folder: Folder
) -> None:
    """Its first call would be the first to say so."""
    folder.environment = set
    found = told(folder, f"models: {{m: {{{model}, model: gpt-5}}}}\n")

    assert [(problem.key, problem.warning) for problem in found] == ([("models.m", True)] if warned else [])
    assert all("OPENAI_API_KEY" in problem.cure for problem in found)


def test_check_says_that_agents_would_fail_and_exits_with_2(folder: Folder) -> None:
    """A pipeline that deploys configurations must see it by the exit code."""
    folder.write(f"{TOLD}{MODEL}watches: [{{name: w, every: 1h, goal: look, scenario: nosuch}}]\n")

    said = CliRunner().invoke(cli, ["check", "-c", str(folder.path / "agentd.yaml")])

    assert said.exit_code == 2
    assert "agentd.yaml:4:" in said.output
    assert 'there is no scenario "nosuch"' in said.output
    assert "1 error: it would be run, and its agents would fail" in said.output
