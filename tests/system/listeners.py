"""
Many who listen to a daemon's events over TCP, as browsers do; and those who ask and never read.

In: an address. Out: of each listener the numbers of its events, in the order they came. A listener is one raw
connection: two hundred browsers would be a test of this machine's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator

import psutil

EVENTS = "/api/v1/events"
_ID = re.compile(rb"\nid: [0-9a-f]{8}-(\d+)\nevent: (\w+)\n")


class Listener:
    """numbers: of the events it heard, in order; resets: how often it was told that it missed some."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.resets = 0
        self.hears = asyncio.Event()

    async def listen(self, port: int) -> None:
        """Until it is cancelled or cut off."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request(EVENTS, port))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            rest = b""
            while data := await reader.read(2**16):
                self.hears.set()
                rest += data
                taken = 0
                for found in _ID.finditer(rest):
                    taken = found.end()
                    self.resets += found[2] == b"reset"
                    self.numbers.append(int(found[1]))
                rest = rest[taken:]
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def listening(port: int, count: int) -> AsyncIterator[list[Listener]]:
    """So many listeners, all of which the daemon has answered. Left: none of them was cut off or refused."""
    listeners = [Listener() for _ in range(count)]
    tasks = [asyncio.create_task(each.listen(port)) for each in listeners]
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(each.hears.wait() for each in listeners))
        yield listeners
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def deaf(port: int, path: str, *, times: int = 1) -> socket.socket:
    """Who asks, so many times in a row, and never reads; with as little room for what is unread as can be had."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, request(path, port) * times)
    return client


def holds(pid: int, client: socket.socket) -> bool:
    """Whether a process still has its end of the connection. Who reads nothing would never see that it was closed."""
    port = client.getsockname()[1]
    return any(each.raddr and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp"))


def request(path: str, port: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
