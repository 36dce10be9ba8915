"""
Texts to vectors: one call of an OpenAI-compatible embeddings endpoint.

In: texts. Out: a vector for each, as the endpoint gives it; `memory.meaning` checks them.
Promise: raises whatever went wrong without the key in it; the library is loaded when the first call is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from agentd.config.agents import EmbeddingsSettings
from agentd.errors import AgentdError

_TIMEOUT_S = 20.0
_MOST_BYTES = 32 * 2**20


class EmbeddingFailed(AgentdError):
    """No vectors; the message says why."""


async def embed(settings: EmbeddingsSettings, texts: Sequence[str]) -> list[list[float]]:
    """Raises EmbeddingFailed, SecretMissing."""
    httpx: Any = await asyncio.to_thread(__import__, "httpx")
    headers = {"Authorization": f"Bearer {settings.api_key.expand()}"} if settings.api_key is not None else {}
    asked = {"model": settings.model, "input": list(texts), "encoding_format": "float"}
    try:
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client,
            client.stream("POST", f"{settings.base_url.rstrip('/')}/embeddings", json=asked, headers=headers) as answer,
        ):
            body = bytearray()
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > _MOST_BYTES:
                    raise EmbeddingFailed(f"answered with more than {_MOST_BYTES} bytes")
        if answer.status_code != 200:
            raise EmbeddingFailed(f"answered HTTP {answer.status_code}")
    except httpx.HTTPError as error:
        raise EmbeddingFailed(type(error).__name__) from error
    return await asyncio.to_thread(_vectors, bytes(body))


def _vectors(body: bytes) -> list[list[float]]:
    import json

    try:
        rows = json.loads(body)["data"]
        return [list(row["embedding"]) for row in sorted(rows, key=lambda row: row.get("index", 0))]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EmbeddingFailed("answered with something else than vectors") from error
