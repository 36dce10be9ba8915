"""
The registry: addresses, keys and lists of models.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from modelserver import ModelServer, Reply, failing

from agentd import secret
from agentd.errors import ConfigError
from agentd.llm import providers
from agentd.llm.openai_chat import OpenAIChat
from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.settings import ModelSettings, Provider


def settings(provider: str, **more: Any) -> ModelSettings:
    return ModelSettings.model_validate({"provider": provider, "model": "m-1", **more})


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """The variables that keys are looked for in."""
    before = secret._environment, secret._on_read
    values: dict[str, str] = {}
    secret.read_secrets_from(values)
    yield values
    secret.read_secrets_from(*before)


def test_every_provider_of_the_configuration_has_its_row() -> None:
    """A name that the schema allows and nobody serves fails at night."""
    assert set(providers.PROVIDERS) == set(get_args(Provider))


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (settings("openai"), "https://api.openai.com/v1/chat/completions"),
        (settings("qwen"), "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions"),
        (settings("kimi"), "https://api.moonshot.ai/v1/chat/completions"),
        (settings("zhipu"), "https://open.bigmodel.cn/api/paas/v4/chat/completions"),
        (settings("ark"), "https://ark.cn-beijing.volces.com/api/v3/chat/completions"),
        (settings("deepseek"), "https://api.deepseek.com/chat/completions"),
        (settings("local", base_url="http://127.0.0.1:8000/v1/"), "http://127.0.0.1:8000/v1/chat/completions"),
        (settings("local", base_url="http://h/chat/completions"), "http://h/chat/completions"),
        (
            settings("azure", base_url="https://x.openai.azure.com"),
            "https://x.openai.azure.com/openai/deployments/m-1/chat/completions?api-version=2024-10-21",
        ),
        (
            settings("azure", base_url="https://x.openai.azure.com/openai/deployments/d", api_version="2025-01-01"),
            "https://x.openai.azure.com/openai/deployments/d/chat/completions?api-version=2025-01-01",
        ),
        (
            settings("azure", base_url="https://x.openai.azure.com/openai/v1"),
            "https://x.openai.azure.com/openai/v1/chat/completions",
        ),
    ],
)
def test_each_provider_is_asked_at_its_address(given: ModelSettings, url: str, environment: dict[str, str]) -> None:
    """One wrong segment is a 404 that nobody can explain."""
    assert providers.chat_url(given) == url


def test_the_address_of_azure_may_stand_in_the_environment(environment: dict[str, str]) -> None:
    """Its own tools read it there."""
    environment["AZURE_OPENAI_ENDPOINT"] = "https://x.openai.azure.com/"

    assert providers.chat_url(settings("azure")).startswith("https://x.openai.azure.com/openai/deployments/m-1/")


@pytest.mark.parametrize("provider", ["azure", "openai-compatible"])
async def test_a_missing_address_is_an_error_before_the_first_call(provider: str, environment: dict[str, str]) -> None:
    """Said at load, with how to mend it."""
    async with httpx.AsyncClient(verify=False) as http:
        with pytest.raises(ConfigError, match=r"models\.default\.base_url.*write e\.g\. http"):
            providers.open_model("default", settings(provider), http)


@pytest.mark.parametrize(
    ("provider", "variable"),
    [
        ("openai", "OPENAI_API_KEY"),
        ("azure", "AZURE_OPENAI_API_KEY"),
        ("qwen", "QWEN_API_KEY"),
        ("qwen", "DASHSCOPE_API_KEY"),
        ("kimi", "MOONSHOT_API_KEY"),
        ("zhipu", "ZHIPU_API_KEY"),
        ("ark", "ARK_API_KEY"),
        ("deepseek", "DEEPSEEK_API_KEY"),
        ("anthropic", "ANTHROPIC_API_KEY"),
        ("gemini", "GEMINI_API_KEY"),
    ],
)
def test_keys_are_read_from_the_providers_own_variable(
    provider: str, variable: str, environment: dict[str, str]
) -> None:
    """Where they stand already need not be said again."""
    given = settings(provider)
    with pytest.raises(ModelFailure) as caught:
        providers.key(given, who="model m")
    assert caught.value.kind is FailureKind.BAD_KEY
    assert variable in str(caught.value)

    environment[variable] = " key-1\n"

    assert providers.key(given, who="model m") == "key-1"


def test_a_configured_key_goes_before_the_environment(environment: dict[str, str]) -> None:
    """And its absence is said by the name that the configuration gives it."""
    environment.update(OPENAI_API_KEY="theirs", MINE="mine")

    assert providers.key(settings("openai", api_key=" ${env:MINE}"), who="m") == "mine"
    with pytest.raises(ModelFailure, match="environment variable GONE is not set"):
        providers.key(settings("openai", api_key="${env:GONE}"), who="m")


def test_the_key_is_read_anew_for_every_call(tmp_path: Path) -> None:
    """Keys rotate while the daemon runs."""
    file = tmp_path / "key"
    given = settings("openai", api_key=f"${{file:{file}}}")
    file.write_text("old\n")
    assert providers.key(given, who="m") == "old"

    file.write_text("new\n")

    assert providers.key(given, who="m") == "new"


@pytest.mark.parametrize("value", ["two\nlines", "schlüssel", "a\x00b"])
def test_what_can_be_no_key_is_said_without_showing_it(value: str) -> None:
    """The HTTP library would quote it in its complaint."""
    with pytest.raises(ModelFailure) as caught:
        providers.key(settings("openai", api_key=value), who="m")

    assert caught.value.kind is FailureKind.BAD_KEY
    assert value not in str(caught.value)


def test_a_local_server_gets_no_key_of_somebody_else(environment: dict[str, str]) -> None:
    """OPENAI_API_KEY is nobody's business but OpenAI's."""
    environment["OPENAI_API_KEY"] = "secret"
    given = settings("local", base_url="http://127.0.0.1:1")

    assert providers.key(given, who="m") is None
    assert "Authorization" not in providers.headers(given, None)


def test_azure_has_its_own_header_for_the_key() -> None:
    """It takes `Authorization` for another kind of token."""
    assert providers.headers(settings("azure"), "k")["api-key"] == "k"
    assert "Authorization" not in providers.headers(settings("azure"), "k")


async def test_the_protocol_decides_about_native_tools() -> None:
    """`json` is for models that cannot call tools themselves."""
    async with httpx.AsyncClient(verify=False) as http:
        opened = {
            protocol: providers.open_model("m", settings("local", base_url="http://x", protocol=protocol), http)
            for protocol in ("native", "json", None)
        }

    assert {protocol: model.native_tools for protocol, model in opened.items()} == {
        "native": True,
        "json": False,
        None: True,
    }
    assert all(isinstance(model, OpenAIChat) and model.context_tokens == 32768 for model in opened.values())


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "bedrock"])
async def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    """The extra is what one has to install; the module's name says it to nobody."""
    monkeypatch.setitem(sys.modules, "agentd.llm.library", None)

    async with httpx.AsyncClient(verify=False) as http:
        with pytest.raises(ConfigError, match=rf"install agentd\[{provider}\]"):
            providers.open_model("default", settings(provider), http)


async def test_a_provider_by_library_is_opened_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each provider has one way in."""
    library = types.ModuleType("agentd.llm.library")
    library.open_library_model = lambda *args: ("opened", *args)  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "agentd.llm.library", library)
    given = settings("gemini")

    async with httpx.AsyncClient(verify=False) as http:
        opened: object = providers.open_model("default", given, http)

        assert opened == ("opened", "default", given, http)


# Lists of models.


async def listed(*script: Any, models: tuple[str, ...] = ("b", "a"), **more: Any) -> list[str]:
    async with ModelServer(models=models) as server, httpx.AsyncClient(trust_env=False, verify=False) as http:
        server.answers(*script)
        given = {"provider": "openai", "base_url": server.url, "api_key": "key-1", **more}
        found = await providers.list_models(settings(**given), http)
        assert server.requests[0].method == "GET"
        assert "key-1" in str(server.requests[0].headers)
        return found


async def test_models_are_listed_by_name() -> None:
    """For whoever configures one."""
    assert await listed() == ["a", "b"]


@pytest.mark.parametrize(
    ("provider", "body", "path"),
    [
        ("gemini", {"models": [{"name": "models/gemini-9"}]}, "/v1/v1beta/models?pageSize=1000"),
        ("anthropic", {"data": [{"id": "claude-9"}]}, "/v1/v1/models?limit=1000"),
        ("openai-compatible", [{"name": "qwen"}, "phi", 3, {}], "/v1/models"),
    ],
)
async def test_lists_of_every_form_are_read(provider: str, body: Any, path: str) -> None:
    """Each provider words it in its own way."""

    def answer(asked: Any) -> Reply:
        assert asked.path == path
        return Reply(body=body)

    assert await listed(answer, provider=provider)


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (failing(401), FailureKind.BAD_KEY),
        (503, FailureKind.OVERLOADED),
        (Reply(body="<html>"), FailureKind.GARBAGE),
        (Reply(body={"data": "x"}), FailureKind.GARBAGE),
        (Reply(body=b"[" * 100_000), FailureKind.GARBAGE),
        (Reply(body=b" " * (5 << 20)), FailureKind.GARBAGE),
        (Reply(raw=b""), FailureKind.UNAVAILABLE),
    ],
)
async def test_a_list_that_does_not_come_is_a_failure(script: Any, kind: FailureKind) -> None:
    """`agentd models` says what is wrong instead of a traceback."""
    with pytest.raises(ModelFailure) as caught:
        await listed(script)

    assert caught.value.kind is kind


async def test_where_there_is_no_list_that_is_said() -> None:
    """Bedrock's stands behind AWS's own protocol."""
    async with httpx.AsyncClient(verify=False) as http:
        with pytest.raises(ConfigError, match="no list"):
            await providers.list_models(settings("bedrock"), http)
