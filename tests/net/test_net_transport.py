"""httpx over the probe transport."""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest
from loopback import Authority, Served, answering, free_port, plain, serving

from agentd.net import TlsSettings
from agentd.net.transport import Measured, ProbeTransport


async def test_httpx_works_over_it() -> None:
    told = Served()
    async with (
        serving(answering(plain(b'{"a": 1}'), told=told), served=told) as served,
        httpx.AsyncClient(transport=ProbeTransport()) as client,
    ):
        response = await client.post(f"{served.url}x?y=1", json={"b": 2})

    assert response.json() == {"a": 1}
    measured = response.extensions["probe"]
    assert isinstance(measured, Measured)
    assert measured.address == "127.0.0.1"
    assert told.heads[0].startswith(b"POST /x?y=1 HTTP/1.1\r\n")
    assert told.bodies == [b'{"b":2}']


async def test_a_redirect_inside_is_refused() -> None:
    """The check is of every request's own address, not of the first URL's."""
    async with (
        serving(answering(plain())) as served,
        httpx.AsyncClient(transport=ProbeTransport(private=False), follow_redirects=True) as client,
    ):
        with pytest.raises(httpx.ConnectError, match="not a public address"):
            await client.get(served.url)
        assert served.connections == 0


async def test_a_bomb_stays_small_through_httpx() -> None:
    """httpx itself unpacks without bounds."""
    bomb = gzip.compress(b"\0" * 20_000_000)
    async with (
        serving(answering(plain(bomb, headers="Content-Encoding: gzip\r\n"))) as served,
        httpx.AsyncClient(transport=ProbeTransport(max_body=100_000)) as client,
    ):
        response = await client.get(served.url)

    assert len(response.content) == 100_000
    assert response.extensions["probe"].truncated


async def test_failures_are_httpx_s_own() -> None:
    async with httpx.AsyncClient(transport=ProbeTransport(), timeout=1.0) as client:
        with pytest.raises(httpx.ConnectError, match="refused"):
            await client.get(f"http://127.0.0.1:{free_port()}/")
        async with serving(answering(b"", keep_open=True)) as served:
            with pytest.raises(httpx.ReadTimeout, match="first byte"):
                await client.get(served.url)
        async with serving(answering(b"rubbish")) as served:
            with pytest.raises(httpx.ReadError, match="not HTTP"):
                await client.get(served.url)


async def test_it_speaks_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = authority.server(authority.issue())
    transport = ProbeTransport(tls=TlsSettings(ca_file=authority.file))
    async with serving(answering(plain()), tls=tls) as served, httpx.AsyncClient(transport=transport) as client:
        response = await client.get(f"https://localhost:{served.port}/")

    assert response.extensions["probe"].certificate.subject == "CN=server"
