"""
A small real MCP server for the tests: over stdio, or over streamable HTTP on the port given.

    mcp_server.py [PORT]      of HTTP; without one, over stdio
"""

from __future__ import annotations

import asyncio
import os
import sys

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("small", log_level="ERROR")


@server.tool(description="Say it \x1b[31magain\x00, " + "very " * 500 + "long")
def echo(text: str) -> str:
    return text


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def environment() -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(os.environ.items()))


@server.tool()
def much(size: int) -> str:
    return "x" * size


@server.tool()
def fail() -> str:
    raise ValueError("the \x07disk is gone")


@server.tool()
def die() -> str:
    print("out of coffee", file=sys.stderr, flush=True)
    os._exit(3)


@server.tool()
async def hang() -> str:
    await asyncio.sleep(3600)
    return "never"


@server.tool()
async def steps(ctx: Context) -> str:
    await ctx.report_progress(1, 2, "half way")
    return "there"


@server.tool()
def pid() -> int:
    return os.getpid()


@server.tool()
def not_for_agents() -> str:
    return "secret"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
