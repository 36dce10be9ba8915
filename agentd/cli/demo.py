"""
`agentd demo`: the whole of it in under twenty seconds.

A small web service is watched by a real daemon on a temporary state; it is broken and healed, while a receiver
prints the signed messages that arrive. On a terminal the page stays up afterwards until Ctrl-C, with a key to sign in
and the service broken once more, so that there is something to acknowledge; --once ends with the story.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from agentd.cli import FAILED
from agentd.cli.tables import clean

PATIENCE_S = 30.0

_CONFIG = """\
daemon:
  state_dir: {folder}/state
  instance: demo
  log_level: error
api:
  listen: ["127.0.0.1:{page}"]
  keys: [{{name: you, hash: "{key}", scope: operate}}]
webhooks:
  you:
    url: http://127.0.0.1:{receiver}/hook
    secret: "${{env:DEMO_SECRET}}"
alerting:
  notify: [you]
  group_interval: 0s                 # each change at once: this is a story, and nobody sleeps
watches:
  - name: shop
    every: 1s
    http: {{url: "http://127.0.0.1:{shop}/health"}}
    expect:
      - status == 200
      - body.status == "UP"
      - latency_ms < 500
    fail_after: 2
    recover_after: 2
    severity: critical
    labels: {{team: web}}
    public: true
  - {{name: shop-port, every: 2s, tcp: {{host: 127.0.0.1, port: {shop}}}}}
  - {{name: root-disk, every: 5s, host: {{disk: /}}, expect: ["disk.used_percent < 99"]}}
"""


@dataclass(slots=True)
class _World:
    """The service that is watched, and the receiver."""

    up: bool = True
    secret: str = field(default_factory=lambda: "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode())
    messages: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)

    async def shop(self, method: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return (200, b'{"status": "UP"}') if self.up else (503, b'{"status": "DOWN"}')

    async def receiver(self, method: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        from agentd.deliver.signing import signed_headers

        sent_at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = signed_headers(headers["webhook-id"], sent_at, body, [self.secret])
        genuine = headers.get("webhook-signature") == expected["webhook-signature"]
        message = json.loads(body)
        _show_message(message, headers["webhook-id"], genuine)
        await self.messages.put(message)
        return 204, b""


Handler = Callable[[str, dict[str, str], bytes], Awaitable[tuple[int, bytes]]]


@click.command()
@click.option("--once", is_flag=True, help="End when the story is told, also on a terminal.")
@click.option(
    "--port",
    default=8787,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port of the page; another is taken when it is in use.",
)
def demo(once: bool, port: int) -> None:
    """Watch a small web service fail and recover, and see the signed messages."""
    stay = not once and sys.stdin.isatty()
    with tempfile.TemporaryDirectory(prefix="agentd-demo-") as folder:
        told = asyncio.run(_story(Path(folder), port, stay))
    if not told:
        click.echo(
            "the story did not come to its end; `agentd doctor` and an issue with this output would help", err=True
        )
        sys.exit(FAILED)


async def _story(folder: Path, port: int, stay: bool) -> bool:
    from agentd.config.key_hash import make_key
    from agentd.config.loader import load
    from agentd.daemon.app import Daemon
    from agentd.telemetry.logging import close_logging, open_logging

    world = _World()
    shop, shop_port = await _serve(world.shop)
    receiver, receiver_port = await _serve(world.receiver)
    path = folder / "agentd.yaml"
    page = _free_port(port)
    token, hashed = make_key("you")
    path.write_text(_CONFIG.format(folder=folder, page=page, receiver=receiver_port, shop=shop_port, key=hashed))
    # Not our own environment: commands in another terminal read the configuration, too.
    (folder / ".env").write_text(f"DEMO_SECRET={world.secret}\n")
    loaded = load(path)
    open_logging(loaded.config.daemon.log_level, "console")
    daemon = Daemon(path, loaded, handle_signals=False)
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    living = asyncio.create_task(daemon.run())
    try:
        telling = asyncio.create_task(_tell(world, daemon.ready, page))
        stopping = asyncio.create_task(interrupted.wait())
        await asyncio.wait([telling, stopping, living], return_when=asyncio.FIRST_COMPLETED)
        told = telling.done() and telling.result()
        if told and stay:
            world.up = False
            click.echo(_way_on(f"http://127.0.0.1:{page}", token, path))
            await asyncio.wait([stopping, living], return_when=asyncio.FIRST_COMPLETED)
        told = told or interrupted.is_set()
        telling.cancel()
        stopping.cancel()
        return told
    finally:
        daemon.stop()
        await living
        shop.close()
        receiver.close()
        close_logging()


def _way_on(url: str, token: str, config: Path) -> str:
    ways = {
        f"{url}/": "what is watched; look at shop",
        f"{url}/login": f"to acknowledge, silence, pause, with the key {token}",
        f"{url}/status": "what everybody may see; a badge: /badges/shop.svg",
        f"agentd alerts -c {config}": "the same from another terminal",
    }
    width = max(map(len, ways))
    lines = (f"  {way:<{width}}  {what}" for way, what in ways.items())
    return "\nThe web service breaks once more, and the page stays until Ctrl-C:\n" + "\n".join(lines) + "\n"


async def _tell(world: _World, ready: asyncio.Event, page: int) -> bool:
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{click.style(f'{time.monotonic() - started:5.1f} s', dim=True)}  {text}")

    try:
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
            say(f"agentd watches a web service every second; the page is http://127.0.0.1:{page}/")
            await asyncio.sleep(2.5)
            world.up = False
            say("the web service breaks: it answers 503 from now on")
            firing = await world.messages.get()
            say(f"the receiver got {firing['type']}")
            await asyncio.sleep(2)
            world.up = True
            say("the web service is healed")
            resolved = await world.messages.get()
            say(f"the receiver got {resolved['type']}")
            return [firing["type"], resolved["type"]] == ["alert.firing", "alert.resolved"]
    except TimeoutError:
        say("nothing more has come in time")
        return False


def _show_message(message: dict[str, Any], identity: str, genuine: bool) -> None:
    data = message["data"]
    colour = "red" if message["type"] == "alert.firing" else "green"
    seal = click.style("signature valid", fg="green") if genuine else click.style("SIGNATURE WRONG", fg="red")
    click.echo(f"\n  {click.style(message['type'], fg=colour, bold=True)}  {identity}  {seal}")
    for key in ("severity", "watch", "summary", "reason_text", "values", "started_at", "ended_at"):
        if data.get(key):
            value = data[key] if isinstance(data[key], str) else json.dumps(data[key])
            click.echo(f"    {key:<12} {clean(value)}")
    click.echo("")


async def _serve(handler: Handler) -> tuple[asyncio.Server, int]:
    """An HTTP server on a free loopback port, just good enough for one request a connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            status, content = await handler(head[0].split(" ")[0], headers, body)
            writer.write(
                f"HTTP/1.1 {status} Demo\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a probe of the port alone comes and goes
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    return wanted
