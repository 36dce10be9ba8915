"""
One attempt to deliver one message: render, sign, send, and say what came of it.

In: a message and a webhook's settings.  Out: `Sent`, or DeliveryRefused (never again), DeliveryDelayed (later).
Promise: a status comes within the webhook's timeout or counts as none; once there it decides, and its body costs two
seconds at most. An attempt reads little of the answer, follows nothing, asks no proxy, and no error text holds the
address or a secret.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agentd import __version__
from agentd.clock import Clock
from agentd.deliver.discretion import Discretion
from agentd.deliver.formats import Format, Message, Rendered, load
from agentd.deliver.signing import signed_headers
from agentd.deliver.webhook import ExpandedWebhook, WebhookSettings
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.net.address import NetFailure, describe, resolve_checked
from agentd.net.tls import TlsSettings, context_for
from agentd.pacing import retry_after_s
from agentd.secret import SecretMissing

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 64 * 1024
ANSWER_S = 2.0
SHOWN_CHARS = 200
_MOST_ADDRESSES = 4
_REFUSED = frozenset({400, 413, 422})
_GONE = 410

Resolve = Callable[..., Awaitable[list[tuple[str, int]]]]


@dataclass(frozen=True, slots=True)
class Sent:
    """
    The receiver took it. status: 200 where a format sends by itself and there is none. latency_s: until the status.
    answer: the beginning of what it said, in one line, withheld when it repeats a secret.
    """

    status: int
    latency_s: float
    answer: str


class Sender:
    """Sends for one webhook, over a small pool of connections of its own."""

    def __init__(self, settings: WebhookSettings, *, clock: Clock, resolve: Resolve = resolve_checked) -> None:
        self.settings = settings
        self._clock = clock
        self._resolve = resolve
        self._client: httpx.AsyncClient | None = None
        self._context: ssl.SSLContext | None = None

    async def send(self, message: Message) -> Sent:
        """
        Deliver once, within the webhook's timeout, the time that a template takes, and ANSWER_S for the answer's body;
        where a format needs several requests, for each.

        Raises DeliveryRefused or DeliveryDelayed.
        """
        try:
            expanded = self.settings.expand()
        except SecretMissing as error:
            raise DeliveryDelayed(str(error)) from error
        form = load(self.settings.format)
        secret_headers = [value for name, value in expanded.headers.items() if not self.settings.headers[name].literal]
        keys = [] if expanded.routing_key is None else [expanded.routing_key]
        discretion = Discretion([expanded.url, *expanded.secrets, *secret_headers, *keys])
        timeout_s = self.settings.timeout.total_seconds()
        if form.send is not None:
            started = self._clock.monotonic()
            said = await form.send(message, self.settings, expanded.url, lambda text: _shown(discretion, text))
            return Sent(200, self._clock.monotonic() - started, said)
        assert form.render is not None, "a format renders or sends"
        rendered = await form.render(message, self.settings)
        try:
            url = form.address(expanded.url, self.settings)
            for body in (rendered.body, *rendered.more):
                headers = self._headers(message, replace(rendered, body=body), expanded)
                async with asyncio.timeout(timeout_s):
                    response, latency_s = await self._exchange(url, headers, body)
                sent = await self._outcome(response, latency_s, discretion, form)
            return sent
        except TimeoutError as error:
            raise DeliveryDelayed(f"no answer within {timeout_s:g} s") from error
        except (DeliveryDelayed, DeliveryRefused):
            raise
        except Exception as error:
            # Whatever the client library or the network comes up with must cost no alert.
            raise DeliveryDelayed(describe_failure(error)) from error

    async def close(self) -> None:
        """Let go of the connections. A later `send` opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.aclose()

    def _headers(self, message: Message, rendered: Rendered, expanded: ExpandedWebhook) -> dict[str, str]:
        try:
            signed = signed_headers(message.id, self._clock.now(), rendered.body, expanded.secrets)
        except ValueError as error:
            raise DeliveryDelayed(str(error)) from error
        for name, value in expanded.headers.items():
            if not value.isprintable() or not value.isascii():
                raise DeliveryDelayed(f"the secret in header {name} holds a line break or a non-ASCII character")
        headers = {"User-Agent": f"agentd/{__version__}", "Accept-Encoding": "identity"}
        if message.traceparent is not None:
            headers["traceparent"] = message.traceparent
        return headers | rendered.headers | expanded.headers | signed

    async def _exchange(self, address: str, headers: dict[str, str], body: bytes) -> tuple[httpx.Response, float]:
        """The answer, its body yet unread, and the seconds until its status."""
        # On a thread: it takes a tenth of a second the first time, for which the loop must not stand still.
        httpx: Any = _httpx or await asyncio.to_thread(import_httpx)
        try:
            url = httpx.URL(address)
            host, scheme = url.raw_host.decode("ascii"), url.scheme  # of an international name the ASCII form
            port = url.port or {"https": 443, "http": 80}[scheme]
            if not host:
                raise ValueError
        except (httpx.InvalidURL, KeyError, ValueError):
            raise DeliveryDelayed("url is no http or https address; look at the secret it names") from None
        try:
            addresses = await self._resolve(host, port, private=self.settings.private_networks)
        except NetFailure as error:
            raise DeliveryDelayed(_unreachable(error)) from error
        addresses = addresses[:_MOST_ADDRESSES]
        client = await self._open(httpx)
        connect_s = self.settings.timeout.total_seconds() / len(addresses)
        for number, (ip, _) in enumerate(addresses, 1):
            request = client.build_request(
                "POST",
                # The address that was checked is the one connected to; the name stays in Host, SNI and certificate.
                url.copy_with(host=ip),
                content=body,
                headers=headers | {"Host": url.netloc.decode("ascii").rpartition("@")[2]},
                timeout=httpx.Timeout(None, connect=connect_s),
                extensions={"sni_hostname": host},
            )
            started = self._clock.monotonic()
            try:
                response = await client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
                continue
            return response, self._clock.monotonic() - started
        raise AssertionError("unreachable: resolve gives at least one address")

    async def _outcome(self, response: httpx.Response, latency_s: float, discretion: Discretion, form: Format) -> Sent:
        status = response.status_code
        try:
            content = await _beginning(response)
            answer = _shown(discretion, content)
        finally:
            with contextlib.suppress(Exception):
                await response.aclose()
        text = f"answered {status}" + (f": {answer}" if answer else "")
        if 200 <= status < 300:
            taken = form.judge(status, content)
            if taken == "taken":
                return Sent(status, latency_s, answer)
            text = f"{text}, which is an error in spite of its status"
            raise (DeliveryRefused if taken == "never" else DeliveryDelayed)(text, status=status)
        if status == _GONE:
            raise DeliveryRefused(text, status=status, disable=True)
        if status in _REFUSED:
            raise DeliveryRefused(text, status=status)
        wait_s = retry_after_s(response.headers.get("retry-after"), self._clock.now())
        raise DeliveryDelayed(text, status=status, retry_after_s=wait_s)

    async def _open(self, httpx: Any) -> httpx.AsyncClient:
        context = await context_for(TlsSettings())
        if self._client is None or context is not self._context:
            await self.close()
            self._context = context
            most = self.settings.concurrency
            self._client = httpx.AsyncClient(
                verify=context,
                trust_env=False,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=most + 1, max_keepalive_connections=most, keepalive_expiry=30.0),
            )
        return self._client


def _shown(discretion: Discretion, text: bytes) -> str:
    return discretion.shown(text, SHOWN_CHARS)


_httpx: Any = None


def import_httpx() -> Any:
    """
    httpx without its command line, which would bring rich, pygments and click: 5 MiB and 90 ms for nothing.
    """
    global _httpx
    if "httpx" not in sys.modules and "httpx._main" not in sys.modules:
        sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the documented way to make an import fail
        try:
            import httpx
        finally:
            del sys.modules["httpx._main"]
    import httpx

    for late in ("httpcore", "anyio._backends._asyncio"):  # httpx would import them at its first connection
        importlib.import_module(late)
    _httpx = httpx
    return httpx


async def _beginning(response: httpx.Response) -> bytes:
    """What came of the answer in a short time; the status has been given, so nothing here can fail the delivery."""
    content = bytearray()
    with contextlib.suppress(Exception):
        async with asyncio.timeout(ANSWER_S):
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) >= MAX_ANSWER_BYTES:
                    break
    return bytes(content[:MAX_ANSWER_BYTES])


def _unreachable(error: NetFailure) -> str:
    cause = error.__cause__
    if isinstance(cause, OSError):
        return f"the host's name cannot be resolved: {describe(cause)}"
    if cause is not None:
        return "the host's name cannot be resolved"
    return "the host is in a private network, and `private_networks: false` forbids that"


def describe_failure(error: BaseException) -> str:
    """The failure in words of ours: texts of libraries quote addresses and host names."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            mismatch = seen.verify_code in (62, 64)
            return "certificate refused: " + ("it is for another name" if mismatch else seen.verify_message)
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {(seen.reason or 'unknown').replace('_', ' ').lower()}"
        if isinstance(seen, OSError) and (seen.errno or isinstance(seen, socket.gaierror)):
            return describe(seen)
        seen = seen.__cause__ or seen.__context__
    name = type(error).__name__
    words = {
        "ConnectTimeout": "no connection in time",
        "RemoteProtocolError": "the connection was closed without a proper answer",
        "ReadError": "the connection broke while waiting for the answer",
        "WriteError": "the connection broke while sending",
    }
    return words.get(name, f"sending failed ({name})")
