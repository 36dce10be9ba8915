"""
The tool `http_get`: one page from an allowed host.

In: a URL. Out: status, headers, text.
Promise: only hosts of the allow-list, each redirect checked anew like the first; the address that was checked is the
one connected to; no proxy, no cookie, no credential; addresses of private networks only where they are permitted, and
link-local ones (where clouds keep their keys) only where they are named; at most `max_bytes` of a body, unpacked size
included; the whole within the call's time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urljoin

from agentd import __version__
from agentd.agent.hosts import canonical_host
from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted, check_host
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.reaching import addresses_of
from agentd.agent.tools.read_file import is_strange
from agentd.agent.tools.saying import clipped, invalid, line, readable, refusing
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec
from agentd.net.address import NetFailure
from agentd.net.connection import Endpoint, Timings
from agentd.net.http import Response, decoded, open_http
from agentd.net.tls import TlsSettings
from agentd.watch.body import text_of
from agentd.watch.request import Address, read_url

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEFAULT = 32 * 1024
_MOST = 512 * 1024
_MAX_HEADERS = 40
_MAX_ADDRESSES = 3
_NOT_SHOWN = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "proxy-authenticate"})
_TLS = TlsSettings(alpn=("http/1.1",))


class HttpGet:
    name = "http_get"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Get a page over HTTP(S) from an allowed host: status, headers and text. Redirects to allowed hosts are "
        "followed.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "minLength": 8, "maxLength": 4096, "description": "http:// or https://"},
                "method": {"type": "string", "enum": ["GET", "HEAD"], "description": "Default GET"},
                "max_bytes": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": _MOST,
                    "description": f"Most bytes of the body; default {_DEFAULT}",
                },
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        most = min(input.get("max_bytes", _DEFAULT), max(1024, context.max_output // 2))
        head_only = input.get("method") == "HEAD"
        visit = _Visit(context.permissions, head_only, most, time.monotonic() + context.timeout_s * 0.95)
        with refusing():
            return await visit.answer(input["url"])


class _Visit:
    """One call: a request, and those that redirects lead to."""

    def __init__(self, permissions: Permissions, head_only: bool, most: int, deadline: float) -> None:
        self._permissions = permissions
        self._head_only = head_only
        self._most = most
        self._deadline = deadline
        self._redirects: list[str] = []
        self._timings = Timings()

    async def answer(self, url: str) -> dict[str, Any]:
        address = _read(url)
        while True:
            response = await self._ask(address)
            location = response.headers.get("location") if response.status in _REDIRECTS else None
            if location is None:
                return await self._shown(address, response)
            if len(self._redirects) == _MAX_REDIRECTS:
                raise ToolFailure(f"more than {_MAX_REDIRECTS} redirects, the last to {line(location, 300)}")
            address = self._next(address, location)
            self._redirects.append(line(address.url(), 500))

    def _next(self, address: Address, location: str) -> Address:
        # A header is Latin-1 by its nature, and UTF-8 by most servers' habit.
        where = location.encode("latin-1", "replace").decode("utf-8", "replace").strip()
        try:
            return _read(quote(urljoin(address.url(), where), safe="!#$%&'()*+,/:;=?@[]~{}|^`\"<>\\"))
        except (ToolFailure, ValueError) as error:
            raise NotPermitted(f"redirected to {line(where, 300)}, which is not followed: {error}") from error

    async def _ask(self, address: Address) -> Response:
        try:
            host = check_host(self._permissions, address.host)
        except NotPermitted as error:
            if self._redirects:
                raise NotPermitted(f"redirected to {address.host}, which is not followed: {error}") from error
            raise
        try:
            async with asyncio.timeout_at(
                asyncio.get_running_loop().time() + max(0.0, self._deadline - time.monotonic())
            ):
                addresses = await addresses_of(self._permissions, host)
                return await self._exchange(address, host, addresses[:_MAX_ADDRESSES])
        except TimeoutError:
            raise ToolFailure(
                f"no answer from {host} in time, {self._timings.step}", ErrorKind.TIMEOUT, again=True
            ) from None
        except NetFailure as failure:
            raise ToolFailure(
                f"{address.scheme}://{address.authority}: {failure}", again=not failure.certificate_refused
            ) from failure

    async def _exchange(self, address: Address, host: str, addresses: list[str]) -> Response:
        data = self._request(address)
        failure: NetFailure | None = None
        for tried, ip in enumerate(addresses):
            endpoint = Endpoint.of(
                ip,
                address.port,
                private=self._permissions.private_networks,
                tls=_TLS if address.scheme == "https" else None,
                server_name=host,
            )
            left = (self._deadline - time.monotonic()) / (len(addresses) - tried)
            try:
                async with asyncio.timeout(left):
                    connection = await open_http(endpoint, self._timings, left)
            except NetFailure as error:
                failure = error
                if error.certificate_refused:
                    break
                continue
            except TimeoutError:
                failure = NetFailure(f"no answer, {self._timings.step}")
                continue
            try:
                return await connection.exchange(data, self._timings, head_only=self._head_only, max_body=self._most)
            finally:
                connection.abandon()
        raise failure or NetFailure("the host has no address")

    def _request(self, address: Address) -> bytes:
        target = address.url().removeprefix(f"{address.scheme}://{address.authority}")
        lines = [
            f"{'HEAD' if self._head_only else 'GET'} {target} HTTP/1.1",
            f"Host: {address.authority}",
            f"User-Agent: agentd/{__version__}",
            "Accept: */*",
            "Accept-Encoding: gzip, deflate",
            "Connection: close",
        ]
        assert not any("\r" in each or "\n" in each for each in lines), "read_url lets no line break pass"
        return "\r\n".join([*lines, "", ""]).encode("ascii")

    async def _shown(self, address: Address, response: Response) -> dict[str, Any]:
        try:
            body, truncated = decoded(response, self._most)
        except NetFailure as failure:
            raise ToolFailure(str(failure)) from failure
        headers = {
            line(name, 100): line(value, 500)
            for name, value in list(response.headers.items())[:_MAX_HEADERS]
            if name not in _NOT_SHOWN
        }
        answer: dict[str, Any] = {
            "url": line(address.url(), 4096),
            "status": response.status,
            "headers": headers,
            "bytes": len(body),
        }
        if self._redirects:
            answer["redirects"] = self._redirects
        if truncated:
            answer["truncated"] = True
        text = text_of(body, response.headers.get("content-type", ""))
        if "\0" in text[:8192] or is_strange(text):
            answer["binary"] = True
        elif body:
            text, cut = clipped(readable(text), self._most * 2)
            answer |= {"text": text, **({"truncated": True} if cut else {})}
        return answer


def _read(url: str) -> Address:
    """Raises ToolFailure."""
    if "${" in url:
        raise invalid("a url holds no `${…}`")
    if any(each in url.partition("?")[0] for each in ("\\", "\t", "\n", "\r")):
        raise invalid("the url holds a backslash or control character")
    try:
        # Letters of other alphabets in path and query; the host's are for `canonical_host`.
        scheme, slashes, rest = url.strip().partition("://")
        authority, cut, path = _split(rest)
        if "@" in authority:
            raise ValueError("user and password do not belong in the url, and none are sent")
        host, port = _host_port(authority)
        name = canonical_host(host)
        shown = f"[{name}]" if ":" in name else name
        return read_url(f"{scheme}{slashes}{shown}{port}{cut}{quote(path, safe=_SAFE)}")
    except (ValueError, UnicodeError) as error:
        raise invalid(f"{line(url, 300)}: {error}") from error


_SAFE = "!#$%&'()*+,/:;=?@[]~{}|^`\"<>\\"


def _split(rest: str) -> tuple[str, str, str]:
    """Authority, the first character behind it, the rest."""
    for index, char in enumerate(rest):
        if char in "/?#":
            return rest[:index], char, rest[index + 1 :]
    return rest, "", ""


def _host_port(authority: str) -> tuple[str, str]:
    """The host, and `:port` if there is one."""
    if authority.startswith("["):
        host, bracket, port = authority.partition("]")
        return host + bracket, port
    host, colon, port = authority.partition(":")
    return host, colon + port
