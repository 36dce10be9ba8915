"""TLS inside the protocol: certificates accepted and refused, contexts shared and renewed."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from loopback import LOOPS, Authority, answering, plain, runner, serving

from agentd.net import Endpoint, NetFailure, Timings, TlsSettings
from agentd.net.http import HttpConnection, Response, open_http
from agentd.net.tls import context_for

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def ask(
    authority: Authority, server: ssl.SSLContext, tls: TlsSettings, *, name: str = "localhost", body: bytes = b"ok"
) -> tuple[Response, HttpConnection, Timings]:
    timings = Timings()
    async with asyncio.timeout(20), serving(answering(plain(body)), tls=server) as served:
        endpoint = Endpoint.of("127.0.0.1", served.port, tls=tls, server_name=name)
        connection = await open_http(endpoint, timings, 20)
        try:
            return await connection.exchange(GET, timings, head_only=False, max_body=10**8), connection, timings
        finally:
            connection.abandon()


def test_a_good_certificate_is_accepted_and_read(run: Run, authority: Authority) -> None:
    server = authority.server(authority.issue(days=30))

    response, connection, timings = run(ask(authority, server, TlsSettings(ca_file=authority.file)))

    assert response.body == b"ok"
    assert timings.tls_ms > 0
    certificate = connection.certificate()
    assert certificate is not None
    assert certificate.subject == "CN=server"
    assert certificate.sans == ("localhost", "127.0.0.1")


def test_a_large_body_comes_through_whole(run: Run, authority: Authority) -> None:
    """Records, buffers and reads do not end at the same places."""
    body = bytes(range(256)) * 20_000

    response, _, _ = run(ask(authority, authority.server(authority.issue()), TlsSettings(verify=False), body=body))

    assert response.body == body


@pytest.mark.parametrize(
    ("days", "names", "name", "trusted", "complaint"),
    [
        (-3.0, ("localhost",), "localhost", True, "certificate has expired"),
        (30.0, ("other.example",), "localhost", True, "Hostname mismatch"),
        (30.0, ("localhost",), "localhost", False, "unable to get local issuer|self.signed"),
        (30.0, ("localhost",), "127.0.0.1", True, "IP address mismatch"),
    ],
)
def test_a_bad_certificate_is_refused_and_said_why(
    run: Run, authority: Authority, days: float, names: tuple[str, ...], name: str, trusted: bool, complaint: str
) -> None:
    server = authority.server(authority.issue(days=days, names=names))
    tls = TlsSettings(ca_file=authority.file) if trusted else TlsSettings()

    with pytest.raises(NetFailure, match=complaint) as failure:
        run(ask(authority, server, tls, name=name))

    assert failure.value.certificate_refused
    assert not failure.value.blind


def test_without_verification_an_expired_certificate_can_be_read(run: Run, authority: Authority) -> None:
    """Its dates are what the operator wants to see just then."""
    server = authority.server(authority.issue(days=-3))

    _, connection, _ = run(ask(authority, server, TlsSettings(verify=False), name="nowhere.example"))

    certificate = connection.certificate()
    assert certificate is not None
    assert certificate.not_after.timestamp() > 0


def test_a_client_certificate_is_shown_when_there_is_one(run: Run, authority: Authority) -> None:
    server = authority.server(authority.issue(), require_client=True)
    client = authority.issue("client")

    response, _, _ = run(ask(authority, server, TlsSettings(ca_file=authority.file, cert_file=client)))
    assert response.body == b"ok"

    with pytest.raises(NetFailure, match=r"certificate required|handshake|ended"):
        run(ask(authority, server, TlsSettings(ca_file=authority.file)))


def test_a_server_without_tls_is_a_failure(run: Run) -> None:
    async def noise(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n" * 10)
        await writer.drain()
        await reader.read()

    async def story() -> None:
        async with serving(noise) as served:
            await open_http(Endpoint.of("127.0.0.1", served.port, tls=TlsSettings(verify=False)), Timings(), 5)

    with pytest.raises(NetFailure, match="TLS handshake"):
        run(story())


def test_a_connection_that_ends_in_the_handshake_is_a_failure(run: Run) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async def story() -> None:
        async with serving(leave) as served:
            await open_http(Endpoint.of("127.0.0.1", served.port, tls=TlsSettings(verify=False)), Timings(), 5)

    with pytest.raises(NetFailure, match="in the TLS handshake"):
        run(story())


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_client_certificate_that_cannot_be_used_is_blindness(run: Run, tmp_path: Path, content: str | None) -> None:
    """The server is not to blame for a file of ours."""
    path = tmp_path / "client.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(NetFailure, match="client certificate") as failure:
        run(context_for(TlsSettings(cert_file=str(path))))
    assert failure.value.blind

    with pytest.raises(NetFailure, match="ca_file") as failure:
        run(context_for(TlsSettings(ca_file=str(path))))
    assert failure.value.blind


async def test_contexts_are_shared_and_renewed_with_their_files(authority: Authority, tmp_path: Path) -> None:
    """A context per check costs 20 ms; one for ever keeps an expired client certificate."""
    path = tmp_path / "current.pem"
    shutil.copy(authority.issue("client"), path)
    settings = TlsSettings(ca_file=authority.file, cert_file=str(path))

    first = await context_for(settings)
    assert await context_for(TlsSettings(ca_file=authority.file, cert_file=str(path))) is first
    assert await context_for(TlsSettings(ca_file=authority.file)) is not first

    renewed = tmp_path / "renewed.pem"
    shutil.copy(authority.issue("client"), renewed)
    renewed.replace(path)
    assert await context_for(settings) is not first
