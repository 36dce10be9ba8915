"""
A small MCP server of the tests over stdio, by hand: quick to start, and of a revision of the protocol from before
`server/discover`, as most servers are.

    mcp_plain.py [LIFES]      LIFES: a file that counts how often it was started
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}
NOTHING = {"type": "object", "properties": {}}
TOOLS = {
    "echo": TEXT,
    "add": NUMBERS,
    "environment": NOTHING,
    "much": {"type": "object", "properties": {"size": {"type": "integer"}}},
    "fail": NOTHING,
    "die": NOTHING,
    "hang": NOTHING,
    "steps": NOTHING,
    "pid": NOTHING,
    "not_for_agents": NOTHING,
}
writing = threading.Lock()


def send(**message: Any) -> None:
    with writing:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def described(name: str) -> dict[str, Any]:
    description = "Say it \x1b[31magain\x00, " + "very " * 500 + "long" if name == "echo" else name
    return {"name": name, "description": description, "inputSchema": TOOLS[name]}


def ran(name: str, given: dict[str, Any], meta: dict[str, Any]) -> Any:
    if name == "echo":
        return given["text"]
    if name == "add":
        return int(given["a"]) + int(given["b"])
    if name == "environment":
        return "\n".join(f"{key}={value}" for key, value in sorted(os.environ.items()))
    if name == "much":
        return "x" * given["size"]
    if name == "die":
        print("out of coffee", file=sys.stderr, flush=True)
        os._exit(3)
    if name == "hang":
        time.sleep(3600)
    if name == "steps":
        progress = {"progressToken": meta["progressToken"], "progress": 1, "total": 2, "message": "half way"}
        send(method="notifications/progress", params=progress)
        return "there"
    if name == "pid":
        return os.getpid()
    raise ValueError("the \x07disk is gone")


def call(number: Any, params: dict[str, Any]) -> None:
    try:
        value = ran(params["name"], params.get("arguments") or {}, params.get("_meta") or {})
    except Exception as error:
        send(id=number, result={"content": [{"type": "text", "text": str(error)}], "isError": True})
    else:
        send(
            id=number,
            result={"content": [{"type": "text", "text": str(value)}], "structuredContent": {"result": value}},
        )


def answer(message: dict[str, Any]) -> None:
    method, number = message.get("method"), message.get("id")
    if number is None:
        return
    if method == "initialize":
        about = {"name": "plain", "version": "1"}
        send(id=number, result={"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about})
    elif method == "tools/list":
        # Two pages, as a server with many tools gives them.
        names = list(TOOLS)
        page = names[5:] if message.get("params", {}).get("cursor") else names[:5]
        more = {} if page == names[5:] else {"nextCursor": "more"}
        send(id=number, result={"tools": [described(name) for name in page], **more})
    elif method == "tools/call":
        threading.Thread(target=call, args=(number, message["params"]), daemon=True).start()
    else:
        send(id=number, error={"code": -32601, "message": "Method not found"})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with Path(sys.argv[1]).open("a") as lifes:
            lifes.write("+")
    print("a banner that is no message", flush=True)
    for line in sys.stdin:
        answer(json.loads(line))
