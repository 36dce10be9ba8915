"""
How a command reaches what it asks about: the daemon's unix socket, or, for reading, the store when no daemon runs.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click
import httpx

from agentd.cli.place import Place
from agentd.cli.tables import since
from agentd.clock import iso
from agentd.errors import AgentdError, StoreError
from agentd.memory import meta
from agentd.memory.store import Store

T = TypeVar("T")

TIMEOUT_S = 60.0


class NoDaemon(AgentdError):
    """Nobody answers on the socket."""


class Refused(AgentdError):
    """The daemon answered with a problem. status: of HTTP; None: it broke off."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def quoted(name: str) -> str:
    """A name as one step of a path: whatever a person typed, it leads nowhere else."""
    # Dots are legal in a URL; as "." and ".." they mean another step.
    return quote(name.encode(errors="replace"), safe="").replace(".", "%2E")


def call(place: Place, method: str, path: str, body: dict[str, Any] | None = None, **query: str | None) -> Any:
    """
    Ask the daemon; returns the JSON it answers.

    Raises NoDaemon when nobody answers, Refused with the daemon's own words when it says no.
    """
    asked = {key: _whole(value) for key, value in query.items() if value is not None}
    content = None if method == "GET" else _whole({"by": who(), **(body or {})})
    try:
        knock(place.socket)
    except NoDaemon as error:
        if (elsewhere := runs_elsewhere(place)) is not None:
            raise NoDaemon(elsewhere) from error
        raise
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(place.socket)), timeout=TIMEOUT_S) as client:
            answer = client.request(method, f"http://agentd{path}", json=content, params=asked)
    except httpx.TransportError as error:
        raise Refused(f"the daemon on {place.socket} broke off: {error}") from error
    if answer.status_code >= 400:
        try:
            detail = str(answer.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = f"HTTP {answer.status_code}"
        raise Refused(detail, answer.status_code)
    try:
        return answer.json()
    except ValueError as error:
        raise Refused(f"what answers on {place.socket} is no agentd") from error


def _whole(value: Any) -> Any:
    """The value as UTF-8 can hold it: what was typed in another encoding gets a mark for each letter that is lost."""
    if isinstance(value, str):
        return value.encode(errors="surrogateescape").decode(errors="replace")
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return value


def knock(path: Path) -> None:
    """Tell the ways apart in which nobody can be reached; httpx has one word for all of them."""
    with socket.socket(socket.AF_UNIX) as knocking:
        try:
            knocking.connect(str(path))
        except PermissionError as error:
            raise Refused(
                f"{path}: it, or its folder, is closed to you; use sudo, or name in api.listen a socket in a folder "
                "that you may enter (what you may do then, api.socket_access says)"
            ) from error
        except OSError as error:
            raise NoDaemon(f"no daemon answers on {path}; is it running? (`systemctl status agentd`)") from error


def runs_elsewhere(place: Place) -> str | None:
    """Whose store it is, when somebody's it is though nobody answers; None: nobody's, or it cannot be told."""
    # Not at each command: what examines a store is much to load.
    from agentd.memory.doctor import owner

    try:
        pid = owner(place.state_dir)
    except (OSError, ValueError):
        return None
    if pid is None:
        return None
    return (
        f"agentd runs as pid {pid}, but its socket cannot be reached at {place.socket}; it starts or stops just now, "
        "or its socket is elsewhere: set RUNTIME_DIRECTORY as it has it, or name the socket in api.listen"
    )


def read_or_open(place: Place, path: str, offline: Callable[[Store], Awaitable[T]], **query: str | None) -> T | Any:
    """
    Ask the daemon, or read the store itself when there is no daemon, and say so on stderr.

    Raises StoreError when there is neither.
    """
    try:
        return call(place, "GET", path, None, **query)
    except NoDaemon:
        elsewhere = runs_elsewhere(place)

    async def both(store: Store) -> tuple[datetime | None, T]:
        return await store.state.read(meta.alive_at), await offline(store)

    alive, answer = asyncio.run(read_store(place.state_dir, both))
    when = f", last alive {since(alive, datetime.now(UTC))} ({iso(alive)})" if alive else ""
    head = f"{elsewhere}. This" if elsewhere else "agentd is not running; this"
    click.echo(f"{head} is what it stored{when}", err=True)
    return answer


async def read_store(state_dir: Path, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do `work` on the store, open for reading only; a daemon may have it open. Raises StoreError."""
    try:
        store = await Store.open(state_dir, read_only=True)
    except PermissionError as error:
        raise StoreError(
            f"{state_dir}: you may not read it; run the command as the service's user, or as root"
        ) from error
    try:
        return await work(store)
    finally:
        await store.close()


def who() -> str:
    """Whom the audit trail is to name."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
