"""
One language model as the configuration names it: a leaf's own settings, which also travel to the agent host.

Secrets stand here by name; they are expanded where the call is made.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from agentd.secret import Secret
from agentd.settings import Name, PositiveDuration, Rate, Settings

Provider = Literal[
    "anthropic",
    "openai",
    "azure",
    "gemini",
    "bedrock",
    "qwen",
    "kimi",
    "zhipu",
    "ark",
    "deepseek",
    "openai-compatible",
]
_OLD_NAMES = {"local": "openai-compatible", "moonshot": "kimi", "dashscope": "qwen", "google": "gemini"}


def present_provider(value: object) -> object:
    """The name that a provider has now, for one that it had."""
    return _OLD_NAMES.get(value, value) if isinstance(value, str) else value


def _base_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url[:60]!r} is no address of an API; write e.g. http://127.0.0.1:8000/v1")
    return url.rstrip("/")


BaseUrl = Annotated[
    str,
    AfterValidator(_base_url),
    WithJsonSchema({"type": "string", "pattern": r"^https?://", "description": "Address of an API"}),
]


class ModelRate(Settings):
    """What the provider allows."""

    requests: Rate | None = Field(default=None, description="Calls, such as 50/m")
    tokens: Rate | None = Field(default=None, description="Tokens, such as 80000/m")


class Price(Settings):
    """USD per million tokens, where the built-in table does not know the model."""

    input: float = Field(ge=0, allow_inf_nan=False, description="Tokens read")
    output: float = Field(ge=0, allow_inf_nan=False, description="Tokens written")
    cached_input: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Tokens read from the cache"
    )


class ModelSettings(Settings):
    """One language model."""

    provider: Annotated[Provider, BeforeValidator(present_provider)] = Field(description="Whose API is spoken")
    model: str = Field(min_length=1, description="Name of the model at the provider")
    api_key: Secret | None = Field(
        default=None, description="Key to the provider; default: the environment variable that its own tools read"
    )
    base_url: BaseUrl | None = Field(default=None, description="Address of the API; default: the provider's own")
    max_tokens: int = Field(default=4000, ge=1, description="Most tokens of one answer")
    temperature: float | None = Field(default=None, ge=0, le=2, description="How freely it words its answer")
    timeout: PositiveDuration = Field(
        default=timedelta(minutes=2), description="Time given to one call, waits and retries included"
    )
    retries: int = Field(default=3, ge=0, le=20, description="How often a failed call is tried again")
    context_tokens: int | None = Field(
        default=None, ge=512, description="Size of its window, question and answer together; default: 32768"
    )
    rate: ModelRate = Field(default=ModelRate(), description="What the provider allows")
    fallback: tuple[Name, ...] = Field(
        default=(), description="Models to ask instead when this one is down or overloaded"
    )
    protocol: Literal["native", "json"] | None = Field(
        default=None,
        description="How it calls tools: native, or json (actions as plain text); default: what the model can",
    )
    grammar: bool | None = Field(
        default=None, description="Whether the server takes a JSON schema for its answer; default: tried, and found out"
    )
    price: Price | None = Field(default=None, description="USD per million tokens, where it is not known")
    api_version: str | None = Field(default=None, description="Of Azure's API, such as 2024-10-21")
    region: str | None = Field(default=None, description="Of Bedrock, such as eu-central-1")

    @property
    def window(self) -> int:
        """Tokens of question and answer together."""
        return self.context_tokens or 32768
