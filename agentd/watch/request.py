"""
An HTTP request worked out at load: address, head and body, rendered to bytes.

In: the settings of the http probe, or a redirect's Location. Out: bytes to send.
Promise: rendered once when it names no secret, else anew for each look; nothing a secret or a server brings can add a
header or a second request; credentials go to no other origin than the one they were configured for.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from agentd import __version__
from agentd.net.address import NetFailure
from agentd.secret import SecretMissing, SecretText
from agentd.watch.reach import check_host

_AUTHORITY = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.DOTALL)
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_LINE_BREAKS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_MAX_LOCATION_CHARS = 8192


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL points. target: path and query, percent-encoded, as the request line has it; may name secrets."""

    scheme: str
    host: str
    port: int
    target: SecretText

    @property
    def authority(self) -> str:
        """As in a Host header: the default port is left out."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def url(self) -> str:
        """The whole URL, secrets expanded: for joining and for httpx, never for messages."""
        return f"{self.scheme}://{self.authority}{_quoted(self.target)}"

    def is_same_origin(self, other: Address) -> bool:
        """Also true for the step from http to https on one host with default ports, which only adds protection."""
        if self.host.lower() != other.host.lower():
            return False
        if (self.scheme, self.port) == (other.scheme, other.port):
            return True
        return (self.scheme, self.port, other.scheme, other.port) == ("http", 80, "https", 443)


def read_url(text: str) -> Address:
    """Take a URL apart. Raises ValueError with what is wrong and the cure, never quoting more than its host."""
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise ValueError("not a URL; write e.g. https://shop.example/health")
    scheme, authority, rest = parts["scheme"].lower(), parts["authority"], parts["rest"]
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"scheme {scheme!r} is not http or https")
    if "${" in authority:
        raise ValueError("a secret cannot name the host; only path and query of a url may hold secrets")
    if "@" in authority:
        raise ValueError("user and password do not belong in the url; write them under `auth`")
    if _UNSAFE.search(_without_references(rest)):
        raise ValueError("spaces and control characters do not belong in a url; write %20 for a space")
    try:
        split = urlsplit(f"//{authority}")
        host, port = split.hostname, split.port
    except ValueError as error:
        raise ValueError(f"host and port {authority!r} cannot be read: {error}") from error
    if not host:
        raise ValueError("no host; write e.g. https://shop.example/health")
    if port == 0:
        raise ValueError("port 0 cannot be connected to")
    rest = rest.partition("#")[0]
    target = SecretText(rest if rest.startswith("/") else f"/{rest}")
    return Address(scheme, check_host(host), port or _DEFAULT_PORTS[scheme], target)


def expand_safely(text: SecretText, what: str) -> str:
    """The value now, refused when it would change the request's shape. Raises SecretMissing."""
    value = text.expand()
    if _LINE_BREAKS.search(value):
        raise SecretMissing(f"{what}: {text} holds a line break or control character; is it the right secret?")
    return value


def _quoted(target: SecretText) -> str:
    return quote(target.expand(), safe="!$%&'()*+,/:;=?@[]~{}|^`\"<>\\", errors="replace")


def _without_references(text: str) -> str:
    for source, name in SecretText(text).references:
        text = text.replace(f"${{{source}:{name}}}", "")
    return text


@dataclass(frozen=True, slots=True)
class Request:
    """
    One request.

    headers: as configured, names as written. authorization: made of `auth`. body: text, or JSON with SecretText leaves.
    """

    address: Address
    method: str = "GET"
    headers: tuple[tuple[str, SecretText], ...] = ()
    basic: tuple[SecretText, SecretText] | None = None
    bearer: SecretText | None = None
    body: SecretText | None = None
    json_body: Any = None
    keep_alive: bool = False

    @property
    def is_constant(self) -> bool:
        """True when it names no secret, so that its bytes are the same for every look."""
        texts: list[SecretText] = [self.address.target, *(value for _, value in self.headers)]
        texts += [*(self.basic or ())]
        texts += [text for text in (self.bearer, self.body) if text is not None]
        return all(text.literal for text in texts) and _is_constant(self.json_body)

    @property
    def has_body(self) -> bool:
        return self.body is not None or self.json_body is not None

    def target(self) -> str:
        """Path and query, secrets expanded. Raises SecretMissing."""
        return _quoted(self.address.target)

    def head(self) -> list[tuple[str, str]]:
        """Every header that the request carries save framing ones. Raises SecretMissing."""
        given = {name.lower() for name, _ in self.headers}
        head = [] if "host" in given else [("Host", self.address.authority)]
        if "user-agent" not in given:
            head.append(("User-Agent", f"agentd/{__version__}"))
        if "accept" not in given:
            head.append(("Accept", "*/*"))
        if self.json_body is not None and "content-type" not in given:
            head.append(("Content-Type", "application/json"))
        head += [(name, expand_safely(value, f"header {name}")) for name, value in self.headers]
        if self.basic is not None:
            user, password = (part.expand() for part in self.basic)
            pair = _encoded(f"{user}:{password}", "auth.basic")
            head.append(("Authorization", "Basic " + base64.b64encode(pair).decode()))
        if self.bearer is not None:
            head.append(("Authorization", "Bearer " + expand_safely(self.bearer, "auth.bearer")))
        return head

    def content(self) -> bytes | None:
        """The body's bytes. Raises SecretMissing."""
        if self.json_body is not None:
            return _encoded(json.dumps(_expanded(self.json_body), ensure_ascii=False, separators=(",", ":")), "json")
        return None if self.body is None else _encoded(self.body.expand(), "body")

    def render(self) -> bytes:
        """The bytes to send over HTTP/1.1. Raises SecretMissing."""
        content = self.content()
        head = self.head()
        head.append(("Connection", "keep-alive" if self.keep_alive else "close"))
        if content is not None or self.method in _WITH_BODY:
            head.append(("Content-Length", str(len(content or b""))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in head)
        line = f"{self.method} {self.target()} HTTP/1.1\r\n"
        return _encoded(f"{line}{lines}\r\n", "headers") + (content or b"")

    def follow(self, status: int, location: str) -> Request:
        """
        The request that a redirect asks for (RFC 9110 §15.4). Raises NetFailure when it is not to be followed.

        To another origin go no credentials: neither `auth`, nor cookies, nor any header that names a secret.
        """
        if len(location) > _MAX_LOCATION_CHARS:
            raise NetFailure(f"redirect ({status}) to a Location of more than {_MAX_LOCATION_CHARS} characters")
        try:
            joined = urljoin(self.address.url(), quote(location.strip(), safe="!#$%&'()*+,/:;=?@[]~"))
            # What looks like a reference to a secret is the server's own text here, and must stay text.
            address = read_url(joined.replace("{", "%7B"))
        except ValueError as error:
            raise NetFailure(f"redirect ({status}) that cannot be followed: {error}") from error
        method, body, json_body = self.method, self.body, self.json_body
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body, json_body = "GET", None, None
        headers = tuple(
            (name, value)
            for name, value in self.headers
            if body is not None or json_body is not None or name.lower() != "content-type"
        )
        if self.address.is_same_origin(address):
            return replace(self, address=address, method=method, headers=headers, body=body, json_body=json_body)
        if body is not None or json_body is not None:
            raise NetFailure(f"redirect ({status}) would repeat the body at {address.host}; not followed")
        return replace(
            self,
            address=address,
            method=method,
            headers=tuple(
                (name, value)
                for name, value in headers
                if value.literal and name.lower() not in _CREDENTIALS and name.lower() != "host"
            ),
            basic=None,
            bearer=None,
            body=None,
            json_body=None,
        )


def _encoded(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # an environment variable may hold any bytes
        raise SecretMissing(f"{what}: a secret in it is not UTF-8 text") from error


def with_secrets(value: Any) -> Any:
    """A JSON value whose strings may name secrets. Raises ValueError for a value that JSON cannot hold."""
    if isinstance(value, str):
        text = SecretText(value)
        return value if text.literal else text
    if isinstance(value, dict):
        return {str(key): with_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_secrets(item) for item in value]
    if value is None or isinstance(value, bool | int | float | SecretText):
        return value
    raise ValueError(f"JSON has no place for a {type(value).__name__}; put it in quotes")


def _expanded(value: Any) -> Any:
    if isinstance(value, SecretText):
        return value.expand()
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return [_expanded(item) for item in value] if isinstance(value, list) else value


def _is_constant(value: Any) -> bool:
    if isinstance(value, dict | list):
        items: Iterable[Any] = value.values() if isinstance(value, dict) else value
        return all(_is_constant(item) for item in items)
    return not isinstance(value, SecretText)
