"""
Logs that a test writes, and the watch that follows them.

In: a folder. Out: lines appended, and what the daemon says of the watch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stage import Daemon, Stage


class LogFile:
    """A log that lines are appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def write(self, *lines: str | bytes) -> None:
        """Whole lines, in one write."""
        self.raw(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))

    def raw(self, data: bytes) -> None:
        with self.path.open("ab", buffering=0) as file:
            while data:
                data = data[file.write(data) :]


def watch(path: object, *rules: dict[str, Any], name: str = "app", **more: Any) -> dict[str, Any]:
    """Follows `path` from its beginning."""
    log = {"files": [str(path)], "start_at": "start", **more.pop("log", {})}
    return {"name": name, "log": log, "rules": list(rules), **more}


def any_line(name: str, match: str, **more: Any) -> dict[str, Any]:
    """A rule that makes an alert of each line it matches; it is over when a second was quiet."""
    return {"name": name, "type": "any", "match": match, "resolve_after": "1s", **more}


async def numbers(stage: Stage, name: str = "app") -> dict[str, Any]:
    """What the daemon says that the lines of a watch came to."""
    views = (await stage.api("GET", "/api/v1/watches")).json()["watches"]
    found: dict[str, Any] = next(view for view in views if view["name"] == name)["log"] or {}
    return found


async def has_read(stage: Stage, daemon: Daemon, lines: int, name: str = "app", within_s: float = 20.0) -> None:
    """Wait until so many lines were read in this life of the daemon."""
    await holds(
        stage, daemon, lambda shown: shown.get("lines", 0) >= lines, f"{name} read {lines} lines", name, within_s
    )


async def holds(
    stage: Stage,
    daemon: Daemon,
    what: Callable[[dict[str, Any]], bool],
    words: str,
    name: str = "app",
    within_s: float = 20.0,
) -> dict[str, Any]:
    """Wait until something holds of what a watch shows. Nobody tells of that: it has to be asked for."""
    import asyncio

    shown: dict[str, Any] = {}
    try:
        async with asyncio.timeout(within_s):
            while not what(shown := await numbers(stage, name)):
                assert daemon.alive, daemon.tail()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{words}: not within {within_s} s, but {shown}") from None
    return shown


def lines_of(messages: Iterable[dict[str, Any]]) -> list[str]:
    """The evidence of messages, in order."""
    return [evidence["line"] for message in messages for evidence in message["data"]["evidence"]]
