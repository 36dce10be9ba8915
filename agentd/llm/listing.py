"""
Which models a provider has.

In: an address and headers. Out: names, sorted.
Promise: a list of any known form, bounded, or a `ModelFailure`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentd.llm.failures import classify, unreachable
from agentd.llm.port import FailureKind, ModelFailure

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 15.0
_MAX_BYTES = 4 * 1024 * 1024
_MAX_MODELS = 10_000
_MAX_NAME = 200


async def ask_for_models(
    http: httpx.AsyncClient, url: str, headers: Mapping[str, str], *, who: str, keep_out: str | None = None
) -> list[str]:
    """keep_out: the key, not to be quoted. Raises ModelFailure."""
    import httpx

    body = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT_S), http.stream("GET", url, headers=headers, timeout=None) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise ModelFailure(f"{who} lists models without end", FailureKind.GARBAGE)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise unreachable(error, who=who) from error
    if response.status_code != 200:
        raise classify(response.status_code, response.headers, bytes(body), who=who, keep_out=keep_out)
    try:
        return names_of(json.loads(bytes(body)))
    except (ValueError, RecursionError) as error:
        raise ModelFailure(f"{who} gives no list of models; check `base_url`", FailureKind.GARBAGE) from error


def names_of(listed: Any) -> list[str]:
    """The names in what was listed: OpenAI's `data`, Gemini's and Ollama's `models`, or a bare list."""
    if isinstance(listed, dict):
        listed = next((listed[key] for key in ("data", "models") if isinstance(listed.get(key), list)), None)
    if not isinstance(listed, list):
        raise ValueError("no list of models")
    found = set()
    for each in listed[:_MAX_MODELS]:
        name = each if isinstance(each, str) else None
        if isinstance(each, dict):
            name = next((each[key] for key in ("id", "name", "model") if isinstance(each.get(key), str)), None)
        if name:
            found.add("".join(c for c in name[:_MAX_NAME] if c.isprintable()).removeprefix("models/"))
    return sorted(found)
