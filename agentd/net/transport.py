"""
The probe transport for httpx: a new connection per request, measured, bounded, its address checked.

In: `httpx.AsyncClient(transport=ProbeTransport(private=False))`. Out: ordinary httpx responses; timings, certificate
and address stand in `response.extensions["probe"]` as a `Measured`.
Promise: with `private=False` every request, redirected ones too, goes to the very address that was checked; no more
than `max_body` of a body is kept, also after decoding.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from agentd.net.address import NetFailure
from agentd.net.certificate import Certificate
from agentd.net.connection import Endpoint, Timings
from agentd.net.http import DEFAULT_MAX_BODY, decoded, open_http
from agentd.net.tls import TlsSettings

_NOT_FORWARDED = frozenset({b"connection", b"transfer-encoding", b"content-length", b"keep-alive"})


@dataclass(frozen=True, slots=True)
class Measured:
    """What the transport saw. address: the IP connected to. truncated: the body was longer than `max_body`."""

    timings: Timings
    certificate: Certificate | None
    address: str
    truncated: bool


class ProbeTransport(httpx.AsyncBaseTransport):
    """
    private: addresses outside the public internet are allowed.
    family: socket.AF_INET, AF_INET6, or 0 for both. max_body: bytes.

    Of httpx's timeouts `connect` covers resolving, connecting and the handshake, `read` the whole exchange.
    """

    def __init__(
        self,
        *,
        tls: TlsSettings | None = None,
        private: bool = True,
        family: int = 0,
        max_body: int = DEFAULT_MAX_BODY,
    ) -> None:
        self._tls = tls or TlsSettings(alpn=("http/1.1",))
        self._private = private
        self._family = family
        self._max_body = max_body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        secure = url.scheme == "https"
        endpoint = Endpoint.of(
            url.raw_host.decode("ascii"),
            url.port or (443 if secure else 80),
            family=self._family,
            private=self._private,
            tls=self._tls if secure else None,
        )
        limits = request.extensions.get("timeout", {})
        data = _render(request, await request.aread())
        timings = Timings()
        connect_s = limits.get("connect")
        try:
            async with asyncio.timeout(connect_s):
                connection = await open_http(endpoint, timings, 3600.0 if connect_s is None else connect_s)
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no answer from {endpoint}, {timings.step}", request=request) from None
        except NetFailure as failure:
            raise httpx.ConnectError(str(failure), request=request) from failure
        try:
            async with asyncio.timeout(limits.get("read")):
                response = await connection.exchange(
                    data, timings, head_only=request.method == "HEAD", max_body=self._max_body
                )
            certificate = connection.certificate()
            body, truncated = decoded(response, self._max_body)
        except TimeoutError:
            raise httpx.ReadTimeout(f"no answer from {endpoint}, {timings.step}", request=request) from None
        except NetFailure as failure:
            raise httpx.ReadError(str(failure), request=request) from failure
        finally:
            connection.abandon()
        headers = response.raw_headers
        if body is not response.body:
            # Decoded here, within bounds; httpx would do it again, without any.
            headers = [pair for pair in headers if pair[0].lower() not in (b"content-encoding", b"content-length")]
        return httpx.Response(
            response.status,
            headers=headers,
            stream=httpx.ByteStream(body),
            extensions={
                "http_version": f"HTTP/{response.version}".encode(),
                "probe": Measured(timings, certificate, connection.address, truncated),
            },
        )


def _render(request: httpx.Request, body: bytes) -> bytes:
    head = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    head += [b"%s: %s" % (name, value) for name, value in request.headers.raw if name.lower() not in _NOT_FORWARDED]
    head.append(b"Connection: close")
    if body or request.method in ("POST", "PUT", "PATCH"):
        head.append(b"Content-Length: %d" % len(body))
    if any(b"\r" in line or b"\n" in line for line in head):
        raise httpx.LocalProtocolError("a header holds a line break", request=request)
    return b"\r\n".join(head) + b"\r\n\r\n" + body
