"""
The library's models of Anthropic and Gemini, on our HTTP client.

In: settings, the key as it is now, our client. Out: a model of `pydantic_ai`.
Promise: no SDK tries again by itself, reads a key from the environment, or sends a byte past our client.
These functions load what they need: seconds the first time, so they belong on a thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from agentd.llm.destination import CONNECT_S
from agentd.llm.failures import classify
from agentd.llm.library.line import LINE
from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.providers import base_url
from agentd.llm.settings import ModelSettings

if TYPE_CHECKING:
    from pydantic_ai.models import Model as TheirModel

_seen: WeakSet[Any] = WeakSet()


def anthropic_model(settings: ModelSettings, secret: str | None, http: Any, who: str) -> TheirModel:
    """http: our client, which has a twin of the fork that the SDK is built on."""
    import httpx2
    from anthropic import AsyncAnthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    client = AsyncAnthropic(
        api_key=secret,
        base_url=base_url(settings),
        http_client=_watched(http.over_httpx2(), who),
        max_retries=0,
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
    )
    return AnthropicModel(settings.model, provider=AnthropicProvider(anthropic_client=client))


def gemini_model(settings: ModelSettings, secret: str | None, http: Any, who: str) -> TheirModel:
    """http: our client, which has a twin of the fork that pydantic-ai wants it to be."""
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    # Without retry options the SDK does not try again.
    provider = GoogleProvider(
        api_key=secret, base_url=base_url(settings), http_client=_watched(http.over_httpx2(), who)
    )
    return GoogleModel(settings.model, provider=provider)


def _watched(twin: Any, who: str) -> Any:
    """The client with a look at what an SDK asks of it, and at what answers."""

    async def connect_soon(request: Any) -> None:
        # One number for all that may take time, ten minutes of it: no connection is worth that.
        request.extensions["timeout"] = {**request.extensions.get("timeout", {}), "connect": CONNECT_S}

    async def look(response: Any) -> None:
        line = LINE.get()
        if line is not None:
            line.hold(response)
        if 300 <= response.status_code < 400:
            raise classify(response.status_code, {}, b"", who=who)
        if response.status_code == 200 and response.headers.get("content-type", "").startswith("text/html"):
            raise ModelFailure(f"{who} answers with a web page; check `base_url`", FailureKind.GARBAGE)

    if twin in _seen:  # another key, the same client
        return twin
    _seen.add(twin)
    hooks = twin.event_hooks
    twin.event_hooks = {"request": [*hooks["request"], connect_soon], "response": [*hooks["response"], look]}
    return twin
