"""
The rarer roads of the `http` probe: HTTP/2 and proxies, through httpx's own transport.

In: a prepared request, where it goes. Out: the same `Response` as on the common road, or NetFailure.
Promise: one client and one connection a request, nothing read from the environment, no more than `max_body` kept.
Imported at first use only.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from agentd.net.address import NetFailure, classify, describe, resolve_checked
from agentd.net.certificate import Certificate, read_certificate
from agentd.net.connection import Endpoint, Timings
from agentd.net.http import Response
from agentd.net.tls import context_for
from agentd.secret import SecretMissing, SecretText
from agentd.watch.request import Request


async def exchange(
    request: Request,
    endpoint: Endpoint,
    timings: Timings,
    *,
    http2: bool,
    proxy: SecretText | None,
    max_body: int,
) -> tuple[Response, Certificate | None, str]:
    """The answer, its certificate, and the address that was connected to. Raises NetFailure and SecretMissing."""
    started = time.monotonic()
    timings.step = f"resolving {endpoint.host}"
    via = None if proxy is None else await _resolved_proxy(proxy)
    if via is None:
        # Resolved here and not by httpx: in our own threads, checked, and within the wanted IP version.
        found = await resolve_checked(endpoint.host, endpoint.port, private=endpoint.private, family=endpoint.family)
        address = found[0][0]
        host = f"[{address}]" if ":" in address else address
    else:
        # The proxy resolves the name, so what it means cannot be checked from here.
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        address = ""
    timings.dns_ms += (time.monotonic() - started) * 1000
    timings.step = "connecting"
    url = f"{request.address.scheme}://{host}:{endpoint.port}{request.target()}"
    context: Any = False if endpoint.tls is None else await context_for(endpoint.tls)
    extensions: dict[str, Any] = {"trace": _Trace(timings).see}
    if endpoint.server_name and via is None:
        extensions["sni_hostname"] = endpoint.server_name
    try:
        async with (
            httpx.AsyncClient(
                verify=context,
                http2=http2,
                proxy=via,
                trust_env=False,
                follow_redirects=False,
                timeout=None,  # noqa: S113  # the look has a deadline
            ) as client,
            client.stream(
                request.method,
                url,
                headers=[(name.encode(), value.encode()) for name, value in request.head()],
                content=request.content(),
                extensions=extensions,
            ) as answer,
        ):
            timings.step = "reading the answer"
            certificate = _certificate(answer)
            body, truncated = await _read(answer, max_body)
            version = answer.http_version.removeprefix("HTTP/")
            response = Response(answer.status_code, version, list(answer.headers.raw), body, truncated)
            return response, certificate, address
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _failure(error) from error


async def _resolved_proxy(proxy: SecretText) -> httpx.Proxy:
    text = proxy.expand()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host = None
    if not host or parts.scheme != "http":
        raise SecretMissing("proxy cannot be read; write http://host:port or http://user:password@host:port")
    found = await resolve_checked(host, port, private=True)
    address = f"[{found[0][0]}]" if ":" in found[0][0] else found[0][0]
    auth = (parts.username or "", parts.password or "") if parts.username else None
    return httpx.Proxy(f"http://{address}:{port}", auth=auth)


async def _read(answer: httpx.Response, max_body: int) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in answer.aiter_raw():
        body += chunk[: max_body + 1 - len(body)]
        if len(body) > max_body:
            return bytes(body[:max_body]), True
    return bytes(body), False


def _certificate(answer: httpx.Response) -> Certificate | None:
    stream = answer.extensions.get("network_stream")
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    der = None if tls is None else tls.getpeercert(binary_form=True)
    try:
        return read_certificate(der) if der else None
    except ValueError:
        return None


def _failure(error: Exception) -> NetFailure:
    cause: BaseException | None = error
    while cause is not None:
        # httpx wraps httpcore, which wraps anyio, which wraps what happened.
        if isinstance(cause, OSError) and cause.errno:
            return NetFailure(describe(cause), blind=classify(cause) == "blind")
        cause = cause.__cause__ or cause.__context__
    return NetFailure((str(error) or type(error).__name__)[:200])


class _Trace:
    """Counts httpcore's own steps into the timings."""

    def __init__(self, timings: Timings) -> None:
        self._timings = timings
        self._started: dict[str, float] = {}

    async def see(self, event: str, info: dict[str, Any]) -> None:
        step, _, state = event.rpartition(".")
        name = step.rpartition(".")[2]
        now = time.monotonic()
        if state == "started":
            self._started[name] = now
            return
        timings = self._timings
        took_ms = (now - self._started.get(name, now)) * 1000
        if name == "connect_tcp":
            timings.connect_ms += took_ms
            timings.step = "waiting for the first byte"
        elif name == "start_tls":
            timings.tls_ms += took_ms
        elif name == "receive_response_headers":
            timings.first_byte_ms += took_ms
