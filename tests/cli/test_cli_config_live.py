"""`agentd config`: what is in effect, where it comes from, and what is changed while the daemon runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from commands import Agentd
from test_cli import agentd, daemon, shop, web, write

from agentd.cli.config_live import config, steps_of
from agentd.daemon.app import Daemon
from agentd.errors import ConfigError

__all__ = ["agentd", "daemon", "web"]


def test_a_limit_is_changed_and_shown_with_its_origin(agentd: Agentd, daemon: Daemon, tmp_path: Path) -> None:
    """Whoever looks next must see that it is not the file's."""
    said = agentd("config", "set", "agent.max_steps", "7")
    assert said.out == "changed: agent.max_steps\n"
    assert daemon.agents.config.agent.max_steps == 7

    shown = agentd("config", "show", "agent").out
    assert ("agent.max_steps", "7", "overlay") in [tuple(line.split()) for line in shown.splitlines()]
    assert "agent.retries" not in shown
    view = json.loads(agentd("config", "show", "-o", "json").out)
    assert view["origins"]["agent.max_steps"] == "overlay"
    assert view["config"]["agent"]["retries"] == 3

    checked = agentd("check")
    assert "overlay.json is laid over it: agent.max_steps" in checked.err

    assert agentd("config", "unset", "agent.max_steps").out == "taken back: agent.max_steps\n"
    assert daemon.agents.config.agent.max_steps == 20


def test_status_knows_what_was_changed_live(agentd: Agentd, daemon: Daemon) -> None:
    """A budget that was raised in need must not look as if it had not been."""
    assert agentd("config", "set", "models.other", "{provider: zhipu, model: glm-4}").code == 0
    assert agentd("config", "set", "budgets.daemon_per_day.tokens", "1000").code == 0

    agents = agentd("status", "-o", "json").json["agents"]
    assert (agents["model"], agents["today"]["tokens_limit"]) == ("other", 1000)


def test_what_is_not_to_be_changed_live_is_refused_in_words(agentd: Agentd, daemon: Daemon) -> None:
    said = agentd("config", "set", "daemon.log_level", "debug")

    assert said.code != 0
    assert "cannot be changed while the daemon runs" in said.err


def test_a_key_does_not_stand_in_the_command_line(agentd: Agentd, daemon: Daemon, tmp_path: Path) -> None:
    """Every user of the machine sees the words of a process."""
    said = agentd("config", "set", "models.default.api_key", "sk-0123456789")
    assert said.code == 2
    assert "sk-0123456789" not in said.out + said.err

    where = ["-c", str(tmp_path / "agentd.yaml")]
    model = "{provider: zhipu, model: glm-4}"
    assert agentd("config", "set", "models.default", model).code == 0
    piped = CliRunner().invoke(config, ["set", "models.default.api_key", *where], input="key-0123456789\n")
    assert piped.exit_code == 0, piped.output
    key = daemon.agents.config.models["default"].api_key
    assert key is not None
    assert key.text == "key-0123456789"
    assert "key-0123456789" not in agentd("config", "show", "--all").out


def test_a_key_that_is_none_is_told_with_a_guess(agentd: Agentd, daemon: Daemon) -> None:
    """That nothing is set at `agent.max_stepz` is true, and helps nobody."""
    for words in (("show", "agent.max_stepz"), ("set", "agent.max_stepz", "3"), ("unset", "agent.max_stepz")):
        said = agentd("config", *words)
        assert said.code == 2
        assert "there is no key agent.max_stepz; did you mean `agent.max_steps`?" in said.err
    assert "there is no key nope; known here: " in agentd("config", "show", "nope").err
    assert "did you mean `agent`" in agentd("config", "show", "agnet").err

    unset = agentd("config", "show", "agent")
    assert (unset.code, unset.out) == (0, "nothing is set there; `agentd config show agent --all` shows the defaults\n")
    assert "agent.max_steps" in agentd("config", "show", "agent", "--all").out


def test_what_was_not_set_is_not_taken_back(agentd: Agentd, daemon: Daemon) -> None:
    """The trail of what operators did is to hold what they did."""
    said = agentd("config", "unset", "agent.max_steps")

    assert (said.code, said.out) == (0, "agent.max_steps was not changed live; nothing is taken back\n")
    assert agentd("audit", "-o", "json").json["deeds"] == []
    assert agentd("config", "set", "model", "{provider: zhipu, model: glm-4}").code == 0
    assert agentd("config", "unset", "model").out.startswith("taken back: models.default")


def test_a_model_that_is_not_there_yet_is_made_whole(agentd: Agentd, daemon: Daemon) -> None:
    """`models.gpt.temperature` alone is no model, and what is missing of it is not what one typed."""
    said = agentd("config", "set", "models.gpt.temperature", "0.5")
    assert said.code == 2
    assert "`agentd config set models.gpt '{provider: …, model: …}'`" in said.err

    keyed = agentd("config", "set", "models.gpt", "{provider: zhipu, model: glm-4, api_key: key-0123456789}")
    assert keyed.code == 0
    assert "others can see a key" in keyed.err
    assert "key-0123456789" not in keyed.out + keyed.err


def test_without_a_daemon_the_files_are_shown_and_nothing_is_changed(agentd: Agentd, tmp_path: Path, web: str) -> None:
    write(tmp_path, shop(web), agent={"max_steps": 4})
    shown = agentd("config", "show", "agent.max_steps")

    assert "no daemon runs" in shown.err
    assert "agentd.yaml:" in shown.out
    assert agentd("config", "set", "agent.max_steps", "7").code == 1


@pytest.mark.parametrize(
    ("key", "steps"),
    [
        ("agent.max_steps", ["agent", "max_steps"]),
        ("models.default.rate.requests", ["models", "default", "rate", "requests"]),
        ("models.gpt-4.1.api_key", ["models", "gpt-4.1", "api_key"]),
        ("models.gpt-4.1", ["models", "gpt-4.1"]),
        ("model.model_name", ["model", "model_name"]),
    ],
)
def test_the_name_of_a_model_may_hold_dots(key: str, steps: list[str]) -> None:
    """`gpt-4.1` is one."""
    assert steps_of(key) == steps
    with pytest.raises(ConfigError):
        steps_of(f"{key}.")


def test_old_names_are_noted_by_check_alone(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """A word at each start about what works anyway would teach people to read no warnings."""
    told = {"webhooks": {"ops": {"url": "http://127.0.0.1:9/"}}, "alerting": {"notify": ["ops"]}}
    write(tmp_path, shop(web), execution={"max_steps": 4}, **told)
    said = agentd("check", "--strict")

    assert said.code == 0
    assert "note: execution.max_steps: an old name; its name is agent.max_steps now" in said.out
