"""Models and limits are changed while the daemon runs: checked, kept, in force; and no key is ever told."""

from __future__ import annotations

import json
import logging
import stat
from datetime import timedelta
from typing import Any

import pytest
from house import House, Tell, tell

from agentd.api.service import Conflict
from agentd.config.loader import load
from agentd.daemon import settings as live
from agentd.daemon.app import Daemon
from agentd.errors import ConfigError, StoreFull
from agentd.memory import audit
from agentd.telemetry.redact import redact

__all__ = ["tell"]  # the fixture, by its name

KEY = "zz-0123456789abcdef-key"
MODEL = {"provider": "zhipu", "model_name": "glm-4", "api_key": KEY, "max_tokens": 4000, "temperature": 0.7}
LOCAL = {"provider": "openai-compatible", "base_url": "http://127.0.0.1:9/v1", "model": "small"}


def write(house: House, **more: Any) -> None:
    house.write({"name": "web", "tcp": {"host": "127.0.0.1", "port": 9}, "every": "1h"}, **more)


def test_a_model_is_changed_in_the_words_of_old(tell: Tell) -> None:
    """`model_name`, and `default` where nobody says which: the call as the list of features has it."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            answer = await daemon.settings.change_model(dict(MODEL), by="key:ops")

            model = daemon.agents.config.models["default"]
            assert (model.provider, model.model, model.max_tokens, model.temperature) == ("zhipu", "glm-4", 4000, 0.7)
            assert model.api_key is not None
            assert model.api_key.expand() == KEY
            assert "models.default.model" in answer["changed"]
            assert answer["warnings"] == []
            assert daemon.plan.config.models == daemon.agents.config.models

    tell(story)


def test_a_key_is_told_to_nobody(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    """It stands in one file, that the daemon alone may read, and in memory."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            answer = await daemon.settings.change_model(dict(MODEL), by="key:ops")
            view = await daemon.settings.config()
            (deed,) = await daemon.store.state.read(lambda c: audit.rows(c, limit=1))

            assert view["config"]["models"]["default"]["api_key"] == "***"
            assert view["origins"]["models.default.api_key"] == "overlay"
            assert (deed.who, deed.action) == ("key:ops", "config.change")
            assert "glm-4" in deed.detail
            assert KEY not in json.dumps([answer, view]) + deed.detail + deed.target
            assert redact(f"the provider said: {KEY} is wrong") == "the provider said: *** is wrong"
            with pytest.raises(ConfigError) as refused:
                await daemon.settings.change_model({**MODEL, "max_tokens": 0, "api_key": KEY * 2}, by="key:ops")
            assert KEY not in str(refused.value)
            kept = daemon.state_dir / "overlay.json"
            assert stat.S_IMODE(kept.stat().st_mode) == 0o600
            assert KEY in kept.read_text()

    with caplog.at_level(logging.DEBUG):
        tell(story)
    assert KEY not in caplog.text


def test_what_was_changed_outlives_a_restart_and_a_reload(tell: Tell) -> None:
    """An overlay that only memory knew would be lost in the night in which it was needed."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            await daemon.settings.change(
                {"api": {"max_concurrent_tasks": 3, "task_timeout": "9s"}, "budgets": {"run": {"tokens": 777_777}}},
                by="uid:0",
            )
            assert await daemon.reload() is None
            assert daemon.agents.config.api.max_concurrent_tasks == 3
            assert daemon.note == ""
        async with house.living() as daemon:
            assert daemon.agents.config.api.task_timeout == timedelta(seconds=9)
            assert daemon.agents.config.budgets.run.tokens == 777_777

            await daemon.settings.change({"api": {"task_timeout": None}}, by="uid:0")

            assert daemon.agents.config.api.task_timeout == timedelta(seconds=300)
            assert daemon.loaded.overlay.keys == ("api.max_concurrent_tasks", "budgets.run.tokens")

    tell(story)


@pytest.mark.parametrize(
    "patch",
    [
        {"daemon": {"log_level": "debug"}},
        {"watches": []},
        {"webhooks": {"ops": {"url": "https://elsewhere.example/"}}},
        {"agent": {"tools": ["run_command"]}},
        {"agent": {"commands": {"allow": [["rm", "*"]]}}},
        {"agent": {"mcp": {"x": {"command": ["sh"]}}}},
        {"agent": {"files": {"allow": ["/"]}}},
        {"tools": {"enable_command_execution": True}},
        {"service": {"log_level": "debug"}},
        {"api": {"keys": [{"name": "me", "hash": "x"}]}},
        {"api": {"listen": ["0.0.0.0:1"]}},
        {"api": {"hooks": {"deploy": {"secret": "x"}}}},
        {"embeddings": {"base_url": "http://a.example", "model": "m"}},
        {"api": 5},
        {"models": {"default": {**LOCAL, "api_key": "${file:/etc/shadow}"}}},
        {"models": {"default": {**LOCAL, "base_url": "http://a.example/${env:PATH}"}}},
        {"models": {"default": {"provider": "zhipu"}}},
        {"models": {"default": {"provider": "zhipu", "model": "m", "command": ["sh"]}}},
        {"agent": {"model": "nobody"}},
        {"agent": {"max_steps": 0}},
        {"budgets": {"run": {"usd": -1}}},
        {},
    ],
)
def test_what_may_not_be_changed_is_refused_and_nothing_is_changed(tell: Tell, patch: dict[str, Any]) -> None:
    """Tools, commands, watches, webhooks, keys of the API: files alone say these."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            before = daemon.plan.config
            with pytest.raises(ConfigError):
                await daemon.settings.change(patch, by="key:ops")

            assert daemon.plan.config == before
            assert not (daemon.state_dir / "overlay.json").exists()
            assert not await daemon.store.state.read(lambda c: audit.rows(c))

    tell(story)


def test_a_key_of_the_files_is_not_sent_to_an_address_that_came_over_the_api(tell: Tell) -> None:
    """Who may change models could else have every key of the installation sent to themselves."""

    async def story(house: House) -> None:
        write(house, models={"default": {**LOCAL, "api_key": "of-the-file-0123456789"}})
        async with house.living() as daemon:
            elsewhere = {"base_url": "http://elsewhere.example/v1"}
            with pytest.raises(ConfigError, match="api_key"):
                await daemon.settings.change_model(dict(elsewhere), by="key:ops")

            await daemon.settings.change_model({**elsewhere, "api_key": "their-own"}, by="key:ops")
            assert daemon.agents.config.models["default"].base_url == "http://elsewhere.example/v1"

            with pytest.raises(ConfigError, match="api_key"):
                await daemon.settings.change_model({"api_key": None}, by="key:ops")

    tell(story)


def test_another_provider_gets_neither_key_nor_address_of_the_last(tell: Tell) -> None:
    """A new provider at the old one's address, with the old one's key, is an outage and a leak in one."""

    async def story(house: House) -> None:
        write(house, models={"default": {**LOCAL, "api_key": "of-the-file-0123456789", "retries": 7}})
        async with house.living() as daemon:
            await daemon.settings.change_model(dict(MODEL), by="key:ops")
            first = daemon.agents.config.models["default"]
            await daemon.settings.change_model({"provider": "deepseek", "model": "deepseek-chat"}, by="key:ops")
            second = daemon.agents.config.models["default"]

            assert (first.base_url, first.retries) == (None, 7)
            assert first.api_key is not None
            assert first.api_key.text == KEY
            assert (second.base_url, second.api_key, second.temperature) == (None, None, 0.7)

    tell(story)


def test_what_the_environment_says_is_kept_and_said_to_have_no_effect(
    tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator's own variable is the last word; a change that does nothing must not look as if it did."""
    monkeypatch.setenv("AGENTD_AGENT__MAX_STEPS", "4")

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            answer = await daemon.settings.change({"agent": {"max_steps": 9, "retries": 1}}, by="uid:0")

            assert daemon.agents.config.agent.max_steps == 4
            assert daemon.agents.config.agent.retries == 1
            (warning,) = answer["warnings"]
            assert warning.startswith("agent.max_steps:")
            assert "AGENTD_AGENT__MAX_STEPS" in warning

    tell(story)


def test_a_full_disk_leaves_everything_as_it_was(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be kept would be undone by the next restart, when nobody is looking."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            await daemon.settings.change({"agent": {"max_steps": 5}}, by="uid:0")

            def full(*args: Any) -> None:
                raise StoreFull("the disk is full")

            with monkeypatch.context() as patched:
                patched.setattr(audit, "append", full)
                with pytest.raises(StoreFull):
                    await daemon.settings.change({"agent": {"max_steps": 6}}, by="uid:0")
            assert daemon.agents.config.agent.max_steps == 5
            assert load(house.config).config.agent.max_steps == 5
            with monkeypatch.context() as patched:
                patched.setattr(live, "save_overlay", full)
                with pytest.raises(StoreFull):
                    await daemon.settings.change({"agent": {"max_steps": 7}}, by="uid:0")
            assert daemon.agents.config.agent.max_steps == 5

    tell(story)


def test_a_broken_overlay_keeps_nobody_from_starting(tell: Tell) -> None:
    """Alerts are worth more than what was changed; it is put aside, and said."""

    async def story(house: House) -> None:
        write(house)
        async with house.living():
            pass
        overlay = house.folder / "state" / "overlay.json"
        overlay.write_text('{"daemon": {"log_level": "debug"}}')
        async with house.living() as daemon:
            assert "overlay.json" in daemon.note
            assert (await daemon.settings.config())["overlay"]["trouble"]
            assert overlay.with_name("overlay.json.broken").exists()
            assert not overlay.exists()

            await daemon.settings.change({"agent": {"max_steps": 5}}, by="uid:0")
            assert daemon.agents.config.agent.max_steps == 5

    tell(story)


def test_a_reload_that_the_overlay_does_not_fit_leaves_everything_as_it_was(tell: Tell) -> None:
    """Or a model that was taken out of the file would silently undo all that was changed."""

    async def story(house: House) -> None:
        write(house, models={"default": LOCAL, "other": LOCAL})
        async with house.living() as daemon:
            await daemon.settings.change({"agent": {"model": "other"}}, by="uid:0")
            write(house, models={"default": LOCAL})

            why = await daemon.reload()

            assert why is not None
            assert "agent.model" in why
            assert daemon.agents.config.agent.model == "other"
            await daemon.settings.change({"agent": {"model": None}}, by="uid:0")
            assert await daemon.reload() is None
            assert set(daemon.agents.config.models) == {"default"}

    tell(story)


def test_files_that_were_edited_since_take_effect_by_a_reload_alone(tell: Tell) -> None:
    """A change of a limit must not bring a half-edited watch to life."""

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            write(house, alerting={"notify": []}, agent={"tools": ["run_command"]})
            await daemon.settings.change({"agent": {"max_steps": 5}}, by="uid:0")

            assert daemon.agents.config.agent.max_steps == 5
            assert "run_command" not in daemon.agents.config.agent.tools
            assert daemon.plan.config.alerting.notify == ("ops",)

    tell(story)


def test_the_view_says_what_may_be_changed_and_where_all_comes_from(tell: Tell) -> None:
    async def story(house: House) -> None:
        write(house, agent={"max_steps": 6})
        async with house.living() as daemon:
            view = await daemon.settings.config()

            assert view["config"]["agent"]["max_steps"] == 6
            assert view["config"]["budgets"]["run"]["time"] == "5m"
            assert view["config"]["webhooks"]["ops"]["url"] == "***"
            assert view["config"]["watches"][0]["tcp"]["host"] == "127.0.0.1"
            assert view["origins"]["agent.max_steps"].startswith(f"{house.config}:")
            assert view["origins"]["watches[0]"].startswith(f"{house.config}:")
            assert "agent.retries" not in view["origins"]
            assert "models.*" in view["live"]

    tell(story)


def test_a_configuration_is_validated_by_itself(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may ask must learn nothing of this machine by it."""
    monkeypatch.setenv("AGENTD_AGENT__MAX_STEPS", "0")
    monkeypatch.delenv("AGENTD_AGENT__MAX_STEPS")

    async def story(house: House) -> None:
        write(house)
        async with house.living() as daemon:
            validate = daemon.settings.validate
            short = {"provider": "zhipu", "model_name": "glm-4", "api_key": KEY}
            good = await validate({"model": short})
            assert (good["valid"], good["errors"]) == (True, [])
            assert KEY not in json.dumps(good)

            bad = await validate("model:\n  provider: zhipu\n  model_name: glm-4\n  max_tokens: 0\n")
            (error,) = bad["errors"]
            assert not bad["valid"]
            assert (error["key"], error["line"]) == ("models.default.max_tokens", 4)
            assert error["cure"]

            there = await validate({"models": {"a": {**LOCAL, "api_key": f"${{file:{house.config}}}"}}})
            missing = await validate({"models": {"a": {**LOCAL, "api_key": "${file:/no/such/file}"}}})
            assert there == missing
            assert (await validate({"include": ["/etc/*.yaml", "/etc/passwd"]}))["valid"]
            assert not (await validate({"api": {"keys": [{"name": "a", "hash": "x"}]}}))["valid"]

            deep: Any = {}
            for _ in range(5000):
                deep = {"a": deep}
            assert not (await validate(deep))["valid"]
            assert not (await validate("[" * 5000))["valid"]
            assert not (await validate("x" * (2**20 + 1)))["valid"]
            assert not (await validate("- a"))["valid"]
            assert (await validate({}))["valid"]

    tell(story)


def test_nothing_is_changed_before_the_start_is_over(tell: Tell) -> None:
    async def story(house: House) -> None:
        write(house)
        daemon: Daemon = house.make()
        with pytest.raises(Conflict):
            await daemon.settings.change({"agent": {"max_steps": 5}}, by="uid:0")

    tell(story)
