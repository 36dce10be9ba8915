"""No agent at all: httpx, and the JSON of each event. What nothing written over httpx can be cheaper than."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
from subject import ABOUT_LOOK, ABOUT_N, GOAL, SYSTEM, Pursue, Seen, looked, main

LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": ABOUT_LOOK,
        "parameters": {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": ABOUT_N}},
            "required": ["n"],
        },
    },
}


@contextlib.asynccontextmanager
async def opens(url: str) -> AsyncIterator[Pursue]:
    async with httpx.AsyncClient() as http:

        async def ask(model: str, messages: list[dict[str, Any]], seen: Seen) -> tuple[str, dict[str, Any]]:
            text, call = "", {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
            body = {"model": model, "messages": messages, "tools": [LOOK], "stream": True}
            async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    for choice in json.loads(line[6:])["choices"]:
                        delta = choice["delta"]
                        if delta.get("content"):
                            text += delta["content"]
                            seen.pieces += 1
                        for part in delta.get("tool_calls", ()):
                            call["id"] = part.get("id") or call["id"]
                            function: Any = call["function"]
                            function["name"] += part["function"].get("name", "")
                            function["arguments"] += part["function"]["arguments"]
            return text, call

        async def pursue(model: str, seen: Seen) -> None:
            messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": GOAL}]
            while True:
                text, call = await ask(model, messages, seen)
                if not call["id"]:
                    seen.said = text
                    return
                seen.tools += 1
                found = looked(json.loads(call["function"]["arguments"])["n"])
                messages.append({"role": "assistant", "content": text, "tool_calls": [call]})
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": found})

        yield pursue


if __name__ == "__main__":
    main(opens)
