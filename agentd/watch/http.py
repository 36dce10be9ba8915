"""
The `http` probe: one request a look, over HTTP/1.1 on the probe transport.

In: a URL and how to ask. Out: status, timings, certificate, headers and body as variables.
Promise: what can be worked out at load is; only variables that somebody reads are computed; a new connection for each
look unless `keep_alive`; what is asked for HTTP/2 or through a proxy goes through httpx (`agentd.watch.http_other`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from agentd.net.address import NetFailure, is_public
from agentd.net.certificate import Certificate
from agentd.net.connection import Endpoint, Timings
from agentd.net.http import DEFAULT_MAX_BODY, HttpConnection, Response, decoded, open_http
from agentd.net.tls import TlsSettings
from agentd.records import Observation
from agentd.secret import Secret, SecretText
from agentd.settings import Settings, Size
from agentd.watch.body import json_of, text_of
from agentd.watch.probe import Kind, Probe, ProbeTools
from agentd.watch.reach import FAMILIES, TIMING_VARIABLES, HostName, IpVersion, observe
from agentd.watch.request import TOKEN, Address, Request, read_url, with_secrets

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "expect", "upgrade", "keep-alive", "te"})
_LARGEST_BODY = 64 * 1024 * 1024


class Basic(Settings):
    user: Secret
    password: Secret


class Auth(Settings):
    """One of the two."""

    basic: Basic | None = None
    bearer: Secret | None = None

    @model_validator(mode="after")
    def _one(self) -> Auth:
        if (self.basic is None) == (self.bearer is None):
            raise ValueError("write either `basic: {user: …, password: …}` or `bearer: …`")
        return self


class ClientCertificate(Settings):
    """Paths of PEM files; `key` may be left out when the certificate's file holds the key too."""

    cert: str
    key: str | None = None


def _check_url(text: SecretText) -> SecretText:
    read_url(text.text)
    return text


def _as_version(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


HttpVersion = Annotated[
    Literal["1.1", "2"], BeforeValidator(_as_version), WithJsonSchema({"enum": ["1.1", "2", 1.1, 2]})
]


class HttpSettings(Settings):
    """What stands under `http:`."""

    url: Annotated[Secret, AfterValidator(_check_url)] = Field(
        description="http or https; path and query may name secrets"
    )
    method: str = "GET"
    headers: dict[str, Secret] = Field(default_factory=dict, description="Host among them replaces the URL's")
    body: Secret | None = None
    json_body: Any = Field(
        None, validation_alias=AliasChoices("json", "json_body"), serialization_alias="json", description="A JSON body"
    )
    auth: Auth | None = None
    client_certificate: ClientCertificate | None = None
    ca_file: str | None = Field(None, description="PEM; trust these authorities instead of the system's")
    verify: bool = True
    server_name: HostName | None = Field(
        None, description="The name for SNI and the certificate, if not the URL's host"
    )
    follow_redirects: bool = Field(False, description=f"Follow up to {MAX_REDIRECTS} redirects")
    max_body: Annotated[Size, Field(le=_LARGEST_BODY)] = DEFAULT_MAX_BODY
    ip_version: IpVersion = "any"
    keep_alive: bool = Field(False, description="Keep the connection open between looks")
    http_version: HttpVersion = "1.1"
    proxy: Secret | None = Field(None, description="http://host:port of a proxy; may name secrets")

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        method = method.upper()
        if not TOKEN.fullmatch(method) or method in ("CONNECT", "TRACE"):
            raise ValueError(f"method {method!r} cannot be used; write e.g. GET, HEAD or POST")
        return method

    @field_validator("headers")
    @classmethod
    def _check_headers(cls, headers: dict[str, SecretText]) -> dict[str, SecretText]:
        for name, value in headers.items():
            if not TOKEN.fullmatch(name):
                raise ValueError(f"header name {name!r} holds characters that a header name cannot have")
            if name.lower() in _OURS:
                raise ValueError(f"header {name} is set by agentd itself; leave it out")
            if any(ord(character) < 0x20 and character != "\t" for character in value.text):
                raise ValueError(f"header {name} holds a line break or control character")
        return headers

    @field_validator("json_body")
    @classmethod
    def _check_json(cls, value: Any) -> Any:
        with_secrets(value)  # complains of unknown sources; the value itself stays as written
        return value

    @field_validator("http_version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if version == "2" and find_spec("h2") is None:
            raise ValueError("http_version 2 needs the package h2; install agentd[http2]")
        return version

    @model_validator(mode="after")
    def _check_together(self) -> HttpSettings:
        if self.body is not None and self.json_body is not None:
            raise ValueError("write either `body` or `json`, not both")
        if self.method in ("GET", "HEAD") and (self.body is not None or self.json_body is not None):
            raise ValueError(f"a {self.method} request carries no body; write e.g. `method: POST`")
        if self.auth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("write either `auth` or an Authorization header, not both")
        if self.keep_alive and self.method not in _REPEATABLE:
            # A kept connection may turn out dead only after the request was sent, which is then sent again.
            raise ValueError(f"keep_alive may send a request twice, which a {self.method} must not be; leave it out")
        if self.keep_alive and (self.proxy is not None or self.http_version == "2"):
            raise ValueError("keep_alive works neither with `proxy` nor with `http_version: 2`; leave it out")
        if self.proxy is not None and (self.ip_version != "any" or self.server_name is not None):
            raise ValueError("ip_version and server_name do not reach past a proxy; leave them out")
        if self.http_version == "2" and read_url(self.url.text).scheme == "http":
            raise ValueError("http_version 2 is spoken over TLS only; write an https url")
        return self


@dataclass(slots=True)
class _Answer:
    response: Response
    certificate: Certificate | None
    address: str
    connection: HttpConnection | None = None


class HttpProbe:
    """wanted: the variables that somebody reads; the rest may be left out. None: all."""

    def __init__(self, settings: HttpSettings, name: str, tools: ProbeTools) -> None:
        self.wanted: frozenset[str] | None = None
        self._settings = settings
        self._tools = tools
        auth = settings.auth
        self._request = Request(
            address=read_url(settings.url.text),
            method=settings.method,
            headers=tuple(settings.headers.items()),
            basic=None if auth is None or auth.basic is None else (auth.basic.user, auth.basic.password),
            bearer=None if auth is None else auth.bearer,
            body=settings.body,
            json_body=with_secrets(settings.json_body),
            keep_alive=settings.keep_alive,
        )
        self._endpoint = self._endpoint_of(self._request.address, first=True)
        self._bytes = self._request.render() if self._request.is_constant else None
        self._kept: HttpConnection | None = None

    async def look(self, timeout_s: float) -> Observation:
        return await observe(self._look, host=self._request.address.host, tools=self._tools, timeout_s=timeout_s)

    async def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.abandon()

    def _endpoint_of(self, address: Address, *, first: bool, private: bool = True) -> Endpoint:
        settings = self._settings
        certificate = settings.client_certificate if first else None
        tls = TlsSettings(
            verify=settings.verify,
            ca_file=settings.ca_file,
            cert_file=certificate.cert if certificate else None,
            key_file=certificate.key if certificate else None,
            alpn=("h2", "http/1.1") if settings.http_version == "2" else ("http/1.1",),
        )
        return Endpoint.of(
            address.host,
            address.port,
            family=FAMILIES[settings.ip_version],
            private=private,
            tls=tls if address.scheme == "https" else None,
            server_name=settings.server_name if first else None,
        )

    async def _look(self, observation: Observation, timings: Timings, left_s: float) -> None:
        deadline = time.monotonic() + left_s
        request, endpoint, data = self._request, self._endpoint, self._bytes
        redirects = 0
        while True:
            answer = await self._ask(request, endpoint, data, timings, deadline - time.monotonic())
            location = self._redirect_of(answer.response)
            self._let_go(answer, keep=location is None and redirects == 0)
            if location is None:
                break
            redirects += 1
            if redirects > MAX_REDIRECTS:
                raise NetFailure(f"more than {MAX_REDIRECTS} redirects")
            request, endpoint = self._next(request, answer, location)
            data = None
            timings.step = "waiting for a turn at the redirect's host"
            await self._tools.hosts.take(request.address.host)
        self._fill(observation, answer, timings, redirects)

    def _redirect_of(self, response: Response) -> str | None:
        if not self._settings.follow_redirects or response.status not in _REDIRECTS:
            return None
        return response.headers.get("location")

    async def _ask(
        self, request: Request, endpoint: Endpoint, data: bytes | None, timings: Timings, left_s: float
    ) -> _Answer:
        settings = self._settings
        if settings.http_version == "2" or settings.proxy is not None:
            from agentd.watch.http_other import exchange

            return _Answer(
                *await exchange(
                    request,
                    endpoint,
                    timings,
                    http2=settings.http_version == "2",
                    proxy=settings.proxy,
                    max_body=settings.max_body,
                )
            )
        if data is None:
            data = request.render()
        head_only, max_body = request.method == "HEAD", settings.max_body
        kept, self._kept = self._kept, None
        if kept is not None:
            try:
                if endpoint is self._endpoint and not kept.closed:
                    response = await kept.exchange(data, timings, head_only=head_only, max_body=max_body)
                    return _Answer(response, kept.certificate(), kept.address, kept)
            except NetFailure:
                if kept.first_byte_at:
                    raise
                # The server gave it up while it lay idle, which says nothing about the server.
            finally:
                if kept.response is None or kept.closed:
                    kept.abandon()
        connection = await open_http(endpoint, timings, left_s)
        try:
            response = await connection.exchange(data, timings, head_only=head_only, max_body=max_body)
        except BaseException:
            connection.abandon()
            raise
        return _Answer(response, connection.certificate(), connection.address, connection)

    def _let_go(self, answer: _Answer, *, keep: bool) -> None:
        connection = answer.connection
        if connection is None:
            return
        reusable = answer.response.reusable and not connection.closed
        if keep and self._settings.keep_alive and reusable and self._kept is None:
            self._kept = connection
        else:
            connection.abandon()

    def _next(self, request: Request, answer: _Answer, location: str) -> tuple[Request, Endpoint]:
        following = replace(request.follow(answer.response.status, location), keep_alive=False)
        same = self._request.address.is_same_origin(following.address)
        # A public server must not send us, who may stand inside, to look at what only we can reach.
        return following, self._endpoint_of(following.address, first=same, private=not is_public(answer.address))

    def _fill(self, observation: Observation, answer: _Answer, timings: Timings, redirects: int) -> None:
        wanted, response, certificate = self.wanted, answer.response, answer.certificate
        values = observation.values
        values["status"] = response.status
        values["first_byte_ms"] = timings.first_byte_ms
        values["tls_ms"] = timings.tls_ms
        values["http_version"] = response.version
        values["redirects"] = redirects
        values["body_bytes"] = len(response.body)
        if certificate is not None:
            values["cert_days_left"] = certificate.days_left(self._tools.clock.now())
            observation.notes["cert_subject"] = certificate.subject[:200]
        if answer.address:
            observation.notes["peer"] = answer.address
        if response.truncated:
            observation.notes["body_truncated"] = True
        if wanted is None or "headers" in wanted:
            values["headers"] = response.headers
        if wanted is None or "text" in wanted or "body" in wanted:
            self._read_body(observation, response)

    def _read_body(self, observation: Observation, response: Response) -> None:
        body, truncated = decoded(response, self._settings.max_body)
        text = text_of(body, response.headers.get("content-type", ""))
        observation.values["text"] = text
        if truncated:
            observation.notes["body_truncated"] = True
        if self.wanted is None or "body" in self.wanted:
            try:
                observation.values["body"] = json_of(text)
            except ValueError as error:
                # Absent, so that a condition on it does not hold; one on the status alone still does.
                observation.notes["body"] = f"body is not JSON: {error}"[:200]
        if truncated:
            # It explains a missing value as much as a text that was not found.
            limit = self._settings.max_body
            observation.notes["body"] = f"the body was cut at max_body ({limit} bytes); raise it to read all"


def _open(settings: HttpSettings, name: str, tools: ProbeTools) -> Probe:
    return HttpProbe(settings, name, tools)


HTTP = Kind(
    name="http",
    settings=HttpSettings,
    variables={
        "status": "the answer's status code",
        **TIMING_VARIABLES,
        "tls_ms": "milliseconds for the TLS handshake; 0 without TLS",
        "first_byte_ms": "milliseconds from the request being sent to the first byte of the answer",
        "headers": "the answer's headers, names in lower case",
        "text": "the body as text",
        "body": "the body as JSON",
        "body_bytes": "size of the body as it was sent, in bytes, at most max_body",
        "cert_days_left": "days until the server's certificate expires, negative when it has; https only",
        "http_version": "the answer's version: 1.1, 1.0 or 2",
        "redirects": "how many redirects were followed",
    },
    open=_open,
    expect=("status >= 200 && status < 400",),
)
