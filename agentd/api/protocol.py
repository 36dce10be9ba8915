"""
One connection to the API, with what HTTP libraries leave to whoever uses them: limits, and who the peer is.

In: bytes of a client that may mean harm. Out: requests for the app, with `scope["agentd.peer"]`: the `Peer` behind a
unix socket, or None (TCP, or a peer that cannot be told: never to be trusted).
Promise: a client costs no more than its place. Its head is small and comes within seconds, its body within half a
minute; what it does not read is thrown away with the connection; and no address, no user takes all places.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import os
import socket
import struct
import sys
from collections.abc import Hashable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from agentd.api.access import Peer
from agentd.api.places import Limits, Places

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = ["PEER", "SHARE", "GuardedProtocol", "Limits", "Places", "peer_of", "whose"]

PEER = "agentd.peer"
SHARE = "agentd.share"
"""In the scope: how many connections the caller's address or user may have."""
_SLICE_BYTES = 8 * 1024
_LINGER_S = 2.0
_SURPLUS_BYTES = 256 * 1024
_MOST_LINGERING = 100
_MOST_QUEUED = 16
_SO_PEERGROUPS = 59  # asm-generic/socket.h, Linux 4.13; Python has no name for it
_MOST_GROUPS = 65536


class GuardedProtocol(HttpToolsProtocol):
    """
    places: shared by the connections of a server. The rest is uvicorn's.

    A connection has one timer at most. It is not moved with every request: when it fires too early, it is set anew.
    """

    def __init__(self, *args: Any, places: Places, **more: Any) -> None:
        super().__init__(*args, **more)
        self._places = places
        self._limits = places.limits
        self._whom: Hashable = None
        self._peer: Peer | None = None
        self._has_place = False
        self._refused = False
        self._in_head = False
        self._in_body = False
        self._head_bytes = 0
        self._fed_bytes = 0
        self._surplus_bytes = 0
        self._read_by: float | None = None
        self._write_by: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        local = connection is not None and connection.family == socket.AF_UNIX
        self._peer = peer_of(connection) if local else None
        self._whom = self._place_of()
        own = self._peer is not None and self._peer.uid in (0, os.geteuid())
        if self._places.take(self._whom, always=own):
            self._has_place = True
            self._places.waits(self)
            self._read_by = self.loop.time() + self._limits.head_s
            self._arm()
        elif self._places.lingering < _MOST_LINGERING:
            self._refuse(503, "too many connections; try again later", b"retry-after: 5\r\n")
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._leave_place()
        if self._refused:
            self._refused = False
            self._places.lingering -= 1
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        self.pipeline.clear()
        super().connection_lost(exc)

    def _leave_place(self) -> None:
        self._places.waits_no_more(self)
        if self._has_place:
            self._has_place = False
            self._places.give_back(self._whom)

    @property
    def whom(self) -> Hashable:
        return self._whom

    def make_room(self) -> bool:
        """See `Holder`. What is still on its way to the client is not cut off."""
        if self.transport.get_write_buffer_size():
            return False
        self._leave_place()
        self._abort()
        return True

    def _place_of(self) -> Hashable:
        if self._peer is not None:
            return self._peer.uid
        return None if self.client is None else whose(self.client[0])

    # What comes.

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._surplus(len(data))
            return
        if len(data) <= _SLICE_BYTES:
            self._feed(data)
        else:
            # So that a head without an end is noticed soon, and not after a whole read.
            whole = memoryview(data)
            for begin in range(0, len(data), _SLICE_BYTES):
                self._feed(whole[begin : begin + _SLICE_BYTES])
                if self._refused or self.transport.is_closing():
                    return
        self._arm()

    def _feed(self, data: bytes | memoryview) -> None:
        was_in_head = self._in_head
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade:
            return  # to another protocol: we know none, and answer as if nobody had asked
        except HttpParserError as error:
            self._not_understood(error)
            return
        if was_in_head and self._in_head:
            # What the parser holds of a header that has not ended, it tells nobody of.
            self._fed_bytes += len(data)
            if self._fed_bytes > self._limits.head_bytes:
                self._refuse(431, _too_large(self._limits))

    def _not_understood(self, error: HttpParserError) -> None:
        """Whoever reaches the port can cause this: it is not worth a line in the log."""
        if self._is_answering():
            self._abort()  # another answer in the middle of one would be a lie
        elif isinstance(error.__context__, _TooMuch):
            self._refuse(error.__context__.status, str(error.__context__))
        else:
            self._refuse(400, "this is not HTTP")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[PEER] = self._peer  # type: ignore[literal-required]  # a key of our own
        self.scope[SHARE] = self._limits.share  # type: ignore[literal-required]
        self._in_head = True
        self._head_bytes = self._fed_bytes = 0
        self._read_by = self.loop.time() + self._limits.head_s

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_bytes += len(url)
        if len(self.url) > self._limits.url_bytes:
            raise _TooMuch(414, f"the address is longer than {self._limits.url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self._limits.head_bytes or len(self.headers) >= self._limits.headers:
            raise _TooMuch(431, _too_large(self._limits))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._in_body = True
        self._read_by = self.loop.time() + self._limits.body_s
        if len(self.pipeline) >= _MOST_QUEUED:
            raise _TooMuch(400, "too many requests before the first one is answered")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._surplus(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._read_by = None
        self._surplus_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete and not self.pipeline:
            self._read_by = self.loop.time() + self._limits.idle_s
        else:
            self._places.waits_no_more(self)

    def _surplus(self, count: int) -> None:
        """Of what nobody will read, some is taken, so that the answer is not lost with the connection."""
        self._surplus_bytes += count
        if self._surplus_bytes > _SURPLUS_BYTES:
            self._abort()

    # What goes.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self._answered)
        self.tasks.add(task)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            # It closes when all is sent; who reads nothing would hold it open.
            self._write_by = self._write_by or self.loop.time() + self._limits.unread_s
            self._arm()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._places.waits(self)
        if not self._in_head and not self._in_body:
            self._read_by = self.loop.time() + self._limits.idle_s
            self._arm()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_by = self.loop.time() + self._limits.unread_s
        self._arm()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._write_by = None

    # Time.

    def _arm(self) -> None:
        """See to it that the timer fires by the next deadline."""
        due = min((each for each in (self._read_by, self._write_by) if each is not None), default=None)
        if due is None or self.parser is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(due, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        self._timer = None
        now = self.loop.time()
        if self._write_by is not None and self._write_by <= now:
            self._abort()
        elif self._read_by is not None and self._read_by <= now:
            self._too_slow(now)
        self._arm()

    def _too_slow(self, now: float) -> None:
        self._read_by = None
        if self._refused:
            self._abort()
        elif self.flow.read_paused:
            self._read_by = now + self._limits.head_s  # it is we who do not read
        elif not self._in_head and not self._in_body:
            self.transport.close()  # it was idle
            self._write_by = now + self._limits.unread_s
        elif self._is_answering():
            self._abort()
        else:
            self._refuse(408, "the request did not come to its end in time")

    def _is_answering(self) -> bool:
        """Whether somebody waits for, or is reading, the answer to an earlier request, or to this one already."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        return cycle.response_started or self._in_head or bool(self.pipeline)

    def _abort(self) -> None:
        self._read_by = self._write_by = None
        self.transport.abort()

    def _refuse(self, status: int, detail: str, headers: bytes = b"") -> None:
        """
        Answer in place of the app, and close. What still comes is thrown away for a moment: closed at once, the
        kernel would reset the connection, and the client might never see why.
        """
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._places.lingering += 1
        self._in_head = self._in_body = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        self.pipeline.clear()
        title = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        body = json.dumps(problem).encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n%s"
            b"connection: close\r\n\r\n%s" % (status, title.encode(), len(body), headers, body)
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._surplus_bytes = 0
        self._write_by = None
        self._read_by = self.loop.time() + _LINGER_S
        self._arm()


class _TooMuch(Exception):
    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def _too_large(limits: Limits) -> str:
    return f"the head is larger than {limits.head_bytes} bytes or has more than {limits.headers} headers"


def whose(address: str) -> Hashable:
    """Who shares places: all of this machine, an IPv6 network of 64 bits, else one address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip
    if ip.is_loopback:
        return "loopback"
    return ip.packed[:8] if ip.version == 6 else ip.packed


def peer_of(connection: Any) -> Peer | None:
    """Who connected to a unix socket, by the kernel's word; None where it cannot be told."""
    try:
        if sys.platform == "darwin":
            # struct xucred of <sys/ucred.h>, by LOCAL_PEERCRED at SOL_LOCAL; it knows no process.
            raw = connection.getsockopt(0, 1, 76)
            _, uid, count = struct.unpack_from("=IIh", raw)
            groups = struct.unpack_from(f"={max(0, min(count, 16))}I", raw, 12)
            return Peer(0, uid, groups[0], tuple(groups[1:])) if groups else None
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, gid = struct.unpack("=iII", raw)
        return None if uid == 2**32 - 1 else Peer(pid, uid, gid, _groups_of(connection))
    except (OSError, AttributeError, struct.error):
        return None


def _groups_of(connection: Any) -> tuple[int, ...]:
    for most in (64, _MOST_GROUPS):
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * most)
        except OSError as error:
            if error.errno != errno.ERANGE:
                return ()
        else:
            return struct.unpack(f"={len(raw) // 4}I", raw)
    return ()
