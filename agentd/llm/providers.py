"""
The registry of providers: for each exactly one way in, and what is odd about it, as data.

In: `ModelSettings`. Out: a `Model` that asks once, as it is: retries, limits and spend are laid around it elsewhere.
Promise: adding a provider of the OpenAI-compatible protocol is one row of `PROVIDERS`.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from agentd.errors import ConfigError
from agentd.llm.port import FailureKind, Model, ModelFailure
from agentd.llm.settings import ModelSettings
from agentd.secret import SecretMissing, SecretText
from agentd.telemetry.redact import register_secret

if TYPE_CHECKING:
    import httpx

TokensField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Provider:
    """
    One provider.

    base_url: its own, None where each has another; base_url_env: variables that may name it.
    key_env: environment variables that hold the key when the config names none, the first that is set.
    key_needed: it lets nobody in without one. key_header, key_prefix: how the key is sent.
    extra: of the library that speaks to it; None: the built-in adapter does. modules: that come with the extra.
    tokens_field: what bounds the answer. include_usage: it tells the usage of a stream when `stream_options` asks.
    thinking_back: reasoning text of messages that call tools must be sent back to it.
    grammar: takes `response_format: json_schema`; None: to be found out. native_tools: of most of its models.
    listing: path of the list of models below base_url, None where there is none.
    """

    name: str
    base_url: str | None = None
    base_url_env: tuple[str, ...] = ()
    key_env: tuple[str, ...] = ()
    key_needed: bool = True
    key_header: str = "Authorization"
    key_prefix: str = "Bearer "
    extra: str | None = None
    modules: tuple[str, ...] = ()
    tokens_field: TokensField = "max_tokens"
    include_usage: bool = True
    thinking_back: bool = False
    grammar: bool | None = None
    native_tools: bool = True
    listing: str | None = "/models"
    headers: dict[str, str] = field(default_factory=dict)


PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            "openai",
            "https://api.openai.com/v1",
            key_env=("OPENAI_API_KEY",),
            tokens_field="max_completion_tokens",
        ),
        Provider(
            "azure",
            base_url_env=("AZURE_OPENAI_ENDPOINT",),
            key_env=("AZURE_OPENAI_API_KEY",),
            key_header="api-key",
            key_prefix="",
            tokens_field="max_completion_tokens",
        ),
        # Outside of China: https://dashscope-intl.aliyuncs.com/compatible-mode/v1
        Provider(
            "qwen",
            "https://dashscope.aliyuncs.com/compatible-mode/v1",
            key_env=("QWEN_API_KEY", "DASHSCOPE_API_KEY"),
        ),
        # In China: https://api.moonshot.cn/v1
        Provider(
            "kimi",
            "https://api.moonshot.ai/v1",
            key_env=("MOONSHOT_API_KEY", "KIMI_API_KEY"),
            thinking_back=True,
        ),
        # Outside of China: https://api.z.ai/api/paas/v4
        Provider(
            "zhipu",
            "https://open.bigmodel.cn/api/paas/v4",
            key_env=("ZHIPU_API_KEY", "ZHIPUAI_API_KEY", "ZAI_API_KEY"),
            thinking_back=True,
            grammar=False,
        ),
        Provider(
            "ark",
            "https://ark.cn-beijing.volces.com/api/v3",
            key_env=("ARK_API_KEY", "VOLCENGINE_API_KEY"),
            thinking_back=True,
        ),
        Provider(
            "deepseek",
            "https://api.deepseek.com",
            key_env=("DEEPSEEK_API_KEY",),
            thinking_back=True,
            grammar=False,
        ),
        Provider("openai-compatible", key_needed=False),
        Provider(
            "anthropic",
            "https://api.anthropic.com",
            key_env=("ANTHROPIC_API_KEY",),
            key_header="x-api-key",
            key_prefix="",
            extra="anthropic",
            modules=("pydantic_ai", "anthropic"),
            listing="/v1/models?limit=1000",
            headers={"anthropic-version": "2023-06-01"},
        ),
        Provider(
            "gemini",
            "https://generativelanguage.googleapis.com",
            key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            key_header="x-goog-api-key",
            key_prefix="",
            extra="gemini",
            modules=("pydantic_ai", "google.genai"),
            listing="/v1beta/models?pageSize=1000",
        ),
        # Without a key of its own it is asked with AWS's (AWS_ACCESS_KEY_ID, AWS_PROFILE, a role of the machine), which
        # AWS's library reads.
        Provider(
            "bedrock",
            key_env=("AWS_BEARER_TOKEN_BEDROCK",),
            key_needed=False,
            extra="bedrock",
            modules=("pydantic_ai", "boto3"),
            listing=None,
        ),
    )
}

_AZURE_VERSION = "2024-10-21"


def open_model(name: str, settings: ModelSettings, http: httpx.AsyncClient) -> Model:
    """
    The model as the config calls it, ready to be asked; opens no connection. http: stays the caller's to close.

    Raises ConfigError: an extra that is not installed, an address that is missing.
    """
    provider = PROVIDERS[settings.provider]
    check(name, settings)
    if provider.extra is None:
        from agentd.llm.openai_chat import OpenAIChat

        return OpenAIChat(name, settings, http)
    try:
        library = cast(Any, importlib.import_module("agentd.llm.library"))
        model: Model = library.open_library_model(name, settings, http)
    except ImportError as error:
        raise ConfigError(
            f"models.{name}: provider {provider.name} needs a library that is not installed ({error.name}); "
            f"install agentd[{provider.extra}]"
        ) from error
    return model


def missing_extra(settings: ModelSettings) -> str | None:
    """The extra that asking this model needs and that is not installed here. Imports nothing but empty packages."""
    provider = PROVIDERS[settings.provider]
    return None if all(map(_is_there, provider.modules)) else provider.extra


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # the package that it is in is not there
        return False


def check(name: str, settings: ModelSettings) -> None:
    """Raises ConfigError when the model cannot be asked as it is configured, whatever is installed."""
    if PROVIDERS[settings.provider].extra is None and base_url(settings) is None:
        example = "https://NAME.openai.azure.com" if settings.provider == "azure" else "http://127.0.0.1:8000/v1"
        raise ConfigError(
            f"models.{name}.base_url: provider {settings.provider} has no address of its own; write e.g. {example}"
        )


def base_url(settings: ModelSettings) -> str | None:
    """Address of the API, without a slash at its end: of the config, else of the environment, else the provider's."""
    provider = PROVIDERS[settings.provider]
    found = settings.base_url or _first_set(provider.base_url_env) or provider.base_url
    return found.rstrip("/") if found else None


def chat_url(settings: ModelSettings) -> str:
    """Where the OpenAI-compatible protocol is asked for an answer."""
    return _url(settings, "/chat/completions")


def listing_url(settings: ModelSettings) -> str:
    """Where the list of models stands. Raises ConfigError where there is none."""
    listing = PROVIDERS[settings.provider].listing
    if listing is None:
        raise ConfigError(f"provider {settings.provider} has no list of its models here; see its console")
    return _url(settings, listing)


def _url(settings: ModelSettings, path: str) -> str:
    base = base_url(settings) or ""
    if path == "/chat/completions" and base.endswith(path):
        return base
    # Azure's newer API at /openai/v1 is OpenAI's own; before it, a model was an address.
    if settings.provider != "azure" or base.endswith("/v1"):
        return base + path
    base = base.removesuffix("/openai")
    if path == "/chat/completions" and "/deployments/" not in base:
        base += f"/openai/deployments/{settings.model}"
    elif path != "/chat/completions":
        base = base.split("/openai/deployments/")[0] + "/openai"
    return f"{base}{path}?api-version={settings.api_version or _AZURE_VERSION}"


def key(settings: ModelSettings, *, who: str) -> str | None:
    """
    The key as it is now; None where none is needed.

    Raises ModelFailure (bad_key) when it is missing or can be no key; names where it was looked for, never a value.
    """
    provider = PROVIDERS[settings.provider]
    if settings.api_key is not None:
        try:
            found = settings.api_key.expand().strip()
        except SecretMissing as error:
            raise ModelFailure(f"{who} has no key: {error}", FailureKind.BAD_KEY) from error
        where = "`api_key`"
        if settings.api_key.literal:
            register_secret(found)  # nobody has read it from anywhere, and so nobody else has said so
    else:
        found = (_first_set(provider.key_env) or "").strip()
        where = " or ".join(provider.key_env)
    if not found:
        if not provider.key_needed:
            return None
        raise ModelFailure(f"{who} has no key: {where} is empty; set it, or write `api_key`", FailureKind.BAD_KEY)
    if not (found.isascii() and found.isprintable()):
        raise ModelFailure(f"{who} has no usable key: {where} holds more than plain letters", FailureKind.BAD_KEY)
    return found


def headers(settings: ModelSettings, secret: str | None) -> dict[str, str]:
    """What every call of this provider sends. secret: what `key` gave."""
    provider = PROVIDERS[settings.provider]
    sent = {"Content-Type": "application/json", "User-Agent": "agentd", **provider.headers}
    return sent if secret is None else {**sent, provider.key_header: provider.key_prefix + secret}


async def list_models(settings: ModelSettings, http: httpx.AsyncClient, *, who: str = "the provider") -> list[str]:
    """Names of the models there, sorted. Raises ModelFailure; ConfigError where there is no list to ask for."""
    from agentd.llm.listing import ask_for_models

    url = listing_url(settings)
    secret = key(settings, who=who)
    return await ask_for_models(http, url, headers(settings, secret), who=who, keep_out=secret)


def _first_set(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            if found := SecretText(f"${{env:{name}}}").expand():
                return found
        except SecretMissing:
            continue
    return None
