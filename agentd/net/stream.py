"""
A connection read like a file: for banners, dialogues of a few lines, and framed messages.

In: a connection that somebody connected. Out: lines and bytes, or NetFailure.
Promise: no more than `max_bytes` is ever kept. No deadline of its own; callers put `asyncio.timeout` around it.
"""

from __future__ import annotations

from agentd.net.address import NetFailure
from agentd.net.connection import Connection


class StreamConnection(Connection):
    """
    A connection read like a file, for dialogues of a few lines.

    max_bytes: no more than this is ever kept; what comes beyond it is dropped.
    """

    __slots__ = ("_failure", "_max", "buffer", "over")

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self.buffer = bytearray()
        self.over = False
        self._failure: NetFailure | None = None
        self._max = max_bytes

    def received(self, data: bytes) -> None:
        self.buffer += data[: self._max - len(self.buffer)]
        self.settle()

    def ended(self, failure: NetFailure | None) -> None:
        self.over = True
        self._failure = self._failure or failure
        self.settle()

    @property
    def full(self) -> bool:
        return len(self.buffer) >= self._max

    async def more(self) -> bool:
        """Wait until something came in, or the end; False at the end or when the buffer is full. Raises NetFailure."""
        if not self.over and not self.full:
            before = len(self.buffer)
            await self.wait()
            if len(self.buffer) > before:
                return True
        if self._failure is not None:
            raise self._failure
        return False

    async def read_line(self) -> bytes:
        """Take one line off, without its end. Raises NetFailure when there is none within `max_bytes`."""
        while (end := self.buffer.find(b"\n")) < 0:
            if not await self.more():
                raise NetFailure("the other side ended the connection" if self.over else "a line without end came in")
        line = bytes(self.buffer[:end]).rstrip(b"\r")
        del self.buffer[: end + 1]
        return line

    async def read_exactly(self, count: int) -> bytes:
        """Take `count` bytes off. Raises NetFailure when the connection ends before."""
        while len(self.buffer) < count:
            if not await self.more():
                raise NetFailure("the other side ended the connection")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data
