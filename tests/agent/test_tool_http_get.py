"""http_get reaches allowed hosts and no others, whatever names, redirects and bodies say."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import Authority, Script, Served, answering, plain, serving
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import ToolContext
from agentd.agent.tools.http_get import HttpGet
from agentd.fleet.messages import ErrorKind

GET = HttpGet()
DENIED, ERROR, INVALID = ErrorKind.DENIED, ErrorKind.TOOL_ERROR, ErrorKind.INVALID_INPUT

Resolver = Callable[[dict[str, list[str]]], list[str]]


def to(*hosts: str, private: bool = True, **limits: Any) -> ToolContext:
    return context(Permissions(http=hosts, private_networks=private), **limits)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    """A resolver by script: each look-up of a name takes its next answer; every look-up is noted."""

    def play(answers: dict[str, list[str]]) -> list[str]:
        asked: list[str] = []

        def look_up(host: str, port: Any, **more: Any) -> list[Any]:
            asked.append(host)
            left = answers[host]
            address = left.pop(0) if len(left) > 1 else left[0]
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (each, 0)) for each in address.split(",")]

        monkeypatch.setattr("agentd.net.address.socket.getaddrinfo", look_up)
        return asked

    return play


async def test_a_page_is_got() -> None:
    async with serving(answering(plain(b"hello", headers="Content-Type: text/plain\r\nX-A: b\r\n"))) as served:
        answer = await call(GET, to("127.0.0.1"), url=f"{served.url}a?b=c#d")

    assert (answer["status"], answer["text"], answer["headers"]["x-a"]) == (200, "hello", "b")
    assert "truncated" not in answer


async def test_the_request_is_plain_and_names_nobody() -> None:
    """No cookie, no credential, no header that a model chose."""
    told = Served()
    async with serving(answering(plain(), told=told)) as served:
        await call(GET, to("127.0.0.1"), url=f"{served.url}größe x?q=ü".replace(" ", "%20"))

    head = told.heads[0].decode()
    assert head.startswith("GET /gr%C3%B6%C3%9Fe%20x?q=%C3%BC HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{served.port}\r\n" in head
    assert not any(word in head.lower() for word in ("cookie", "authorization", "referer"))


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect to whatever it likes."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving(answering(plain())) as served:
        assert (await call(GET, to("127.0.0.1"), url=served.url))["text"] == "ok"


async def test_head_has_no_body() -> None:
    told = Served()
    async with serving(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", told=told)) as served:
        answer = await call(GET, to("127.0.0.1"), url=served.url, method="HEAD")

    assert (answer["bytes"], told.heads[0][:5]) == (0, b"HEAD ")


async def test_an_error_status_is_an_answer() -> None:
    """That the shop answers 503 is what the model wants to know."""
    async with serving(answering(plain(b"down", status="503 Service Unavailable"))) as served:
        assert (await call(GET, to("127.0.0.1"), url=served.url))["status"] == 503


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/",
        "http://127.0.0.1.evil.test/",
        "http://evil.test/?x=127.0.0.1",
        "http://evil.test#127.0.0.1",
        "http://127.0.0.1%2eevil.test/",
        "http://example.com.evil.test/",
    ],
)
async def test_hosts_beside_the_list_are_refused(url: str) -> None:
    with pytest.raises(Exception, match=r"allowed|cannot be used|write a name"):
        await call(GET, to("127.0.0.1", "example.com"), url=url)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "http:/127.0.0.1/",
        "javascript:alert(1)",
        "http://user:password@127.0.0.1/",
        "http://127.0.0.1@evil.test/",
        "http://evil.test\\@127.0.0.1/",
        "http://127.0.0.1\t.evil.test/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:80:80/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http:///path",
        "http://127.0.0.1/\r\nX-Evil: 1",
        "http://127.0.0.1/${env:API_KEY}",
    ],
)
async def test_what_is_no_plain_address_is_refused(url: str) -> None:
    """Every spelling that two readers may take for two hosts, and every scheme but two."""
    await failing(GET, to("127.0.0.1", "*"), INVALID, url=url)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0x7f.0.0.1", "[::ffff:127.0.0.1]",
     "[::ffff:7f00:1]", "[::1]", "0", "[::]", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254",
     "2852039166", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "100.64.0.1", "localhost",
     "[64:ff9b::7f00:1]", "[2002:7f00:1::]"],
)  # fmt: skip
async def test_private_addresses_are_refused_in_every_spelling(host: str) -> None:
    """The list says every host; private networks are still closed until they are opened."""
    assert "public" in await failing(GET, to("*", private=False), DENIED, url=f"http://{host}:1/")


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
async def test_keys_of_clouds_are_closed_even_with_private_networks(host: str) -> None:
    """Whoever opens private networks means the machines there, not what hands out the machine's own keys."""
    assert "link-local" in await failing(GET, to("*", "169.254.0.0/16"), DENIED, url=f"http://{host}/latest/meta-data/")


async def test_a_name_that_leads_inside_is_refused(resolver: Resolver) -> None:
    """Anybody's DNS may say 10.0.0.1 of an allowed name."""
    resolver({"a.example.com": ["10.0.0.1"], "b.example.com": ["169.254.169.254"]})

    await failing(GET, to("*.example.com", private=False), DENIED, url="http://a.example.com/")
    await failing(GET, to("*.example.com"), DENIED, url="http://b.example.com/")


async def test_the_address_that_was_checked_is_connected_to(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the second answer for the same name leads inside. There is no second question."""
    connected: list[str] = []
    loop = asyncio.get_running_loop()

    async def create_connection(factory: Any, host: str, port: int, **more: Any) -> Any:
        connected.append(host)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(loop, "create_connection", create_connection)
    asked = resolver({"a.example.com": ["93.184.216.34", "127.0.0.1"]})

    await failing(GET, to("a.example.com", private=False), ERROR, url="http://a.example.com/")

    assert asked == ["a.example.com"]
    assert connected == ["93.184.216.34"]


async def test_of_several_addresses_only_public_ones_are_tried(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[str] = []

    async def create_connection(factory: Any, host: str, port: int, **more: Any) -> Any:
        connected.append(host)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    resolver({"a.example.com": ["10.0.0.1,93.184.216.34,127.0.0.1,2606:2800:220:1::1"]})

    await failing(GET, to("a.example.com", private=False), ERROR, url="http://a.example.com/")

    assert connected == ["93.184.216.34", "2606:2800:220:1::1"]


async def test_the_name_is_spoken_to_at_its_checked_address(resolver: Resolver) -> None:
    """Host header and path are of the name; the connection is to the address."""
    told = Served()
    async with serving(answering(plain(), told=told)) as served:
        resolver({"a.example.com": ["127.0.0.1"]})
        answer = await call(GET, to("*.example.com"), url=f"http://A.Example.com.:{served.port}/x")

    assert answer["text"] == "ok"
    assert f"Host: a.example.com:{served.port}\r\n".encode() in told.heads[0]


async def test_the_second_address_is_tried_when_the_first_is_silent(resolver: Resolver) -> None:
    async with serving(answering(plain())) as served:
        resolver({"a.example.com": ["127.0.0.9,127.0.0.1"]})
        answer = await call(GET, to("*.example.com"), url=f"http://a.example.com:{served.port}/")

    assert answer["status"] == 200


def redirect(location: str, status: str = "302 Found") -> bytes:
    return f"HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def test_credentials_in_a_url_are_explained() -> None:
    assert "password" in await failing(GET, to("127.0.0.1"), INVALID, url="http://user:pw@127.0.0.1/")


async def test_redirects_are_followed_and_told() -> None:
    async with (
        serving(answering(plain(b"there"))) as second,
        serving(answering(redirect(f"{second.url}b?c=d"))) as first,
    ):
        answer = await call(GET, to("127.0.0.1"), url=first.url)

    assert answer["text"] == "there"
    assert answer["redirects"] == [f"{second.url}b?c=d"]
    assert answer["url"] == f"{second.url}b?c=d"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/iam/",
        "http://evil.test/",
        "//evil.test/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://user:pw@127.0.0.1/",
        "http://[::1]/",
        "http://2852039166/",
        "http://127.0.0.1\\@evil.test/",
        "javascript:alert(1)",
    ],
)
async def test_redirects_are_checked_anew(location: str) -> None:
    """The first page belongs to whoever runs the allowed host; the second must be allowed for itself."""
    async with serving(answering(redirect(location))) as served:
        message = await failing(GET, to("127.0.0.1"), DENIED, url=served.url)

    assert "not followed" in message


async def test_a_redirect_from_public_to_private_is_refused(resolver: Resolver) -> None:
    """Both names are allowed; the second has moved inside."""
    async with serving(answering(redirect("http://b.example.com/"))) as served:
        resolver({"a.example.com": ["127.0.0.1"], "b.example.com": ["169.254.169.254"]})
        await failing(GET, to("*.example.com"), DENIED, url=f"http://a.example.com:{served.port}/")


async def test_redirects_end() -> None:
    async def again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(redirect("/again"))(reader, writer)

    async with serving(again) as served:
        assert "redirects" in await failing(GET, to("127.0.0.1"), ERROR, url=served.url)
        assert served.connections == 6


async def test_a_huge_body_is_cut() -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with serving(endless) as served:
        answer = await call(GET, to("127.0.0.1"), url=served.url, max_bytes=5000)

    assert (answer["bytes"], answer["truncated"], len(answer["text"])) == (5000, True, 5000)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
async def test_a_bomb_is_unpacked_no_further_than_its_limit(pack: Callable[[bytes], bytes]) -> None:
    """Ten kilobytes that would be ten megabytes."""
    encoding = "gzip" if pack is gzip.compress else "deflate"
    body = pack(b"a" * (10 << 20))
    async with serving(answering(plain(body, headers=f"Content-Encoding: {encoding}\r\n"))) as served:
        answer = await call(GET, to("127.0.0.1"), url=served.url, max_bytes=20_000)

    assert (answer["bytes"], answer["truncated"]) == (20_000, True)


async def test_a_body_that_is_not_what_it_says_is_said() -> None:
    async with serving(answering(plain(b"hello", headers="Content-Encoding: gzip\r\n"))) as served:
        assert "gzip" in await failing(GET, to("127.0.0.1"), ERROR, url=served.url)


async def test_a_body_packed_twice_is_left_as_it_is() -> None:
    body = gzip.compress(gzip.compress(b"a" * (1 << 20)))
    async with serving(answering(plain(body, headers="Content-Encoding: gzip, gzip\r\n"))) as served:
        assert (await call(GET, to("127.0.0.1"), url=served.url))["binary"] is True


def dripping(*parts: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        while True:
            await asyncio.sleep(0.02)
            writer.write(b"x")
            await writer.drain()

    return script


@pytest.mark.parametrize(
    "parts", [(), (b"HTTP/1.1 200 OK\r\nX: ",), (b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",)],
    ids=["silent", "head", "body"],
)  # fmt: skip
async def test_slow_answers_end_with_the_call(parts: tuple[bytes, ...]) -> None:
    """A byte now and then keeps every other kind of timeout from firing."""
    async with serving(dripping(*parts) if parts else answering(b"", keep_open=True)) as served:
        message = await failing(GET, to("127.0.0.1", timeout_s=0.3), ErrorKind.TIMEOUT, url=served.url)

    assert "in time" in message


async def test_cancelling_closes_the_connection() -> None:
    """A run that is over must not leave sockets behind."""
    async with serving(answering(b"", keep_open=True)) as served:
        task = asyncio.ensure_future(call(GET, to("127.0.0.1"), url=served.url))
        while not served.connections:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(5):
            await served.ended.wait()


async def test_garbage_is_a_failure() -> None:
    async with serving(answering(b"\x00\xff nonsense\r\n\r\n")) as served:
        assert "not HTTP" in await failing(GET, to("127.0.0.1"), ERROR, url=served.url)


async def test_headers_are_bounded_and_keep_what_is_secret() -> None:
    """Cookies of a site are nobody's business, and headers may be as long as a page."""
    many = "".join(f"X-{number}: {'v' * 2000}\r\n" for number in range(30)) + "Set-Cookie: session=abcdef\r\n"
    async with serving(answering(plain(headers=many))) as served:
        answer = await call(GET, to("127.0.0.1"), url=served.url)

    assert "session" not in str(answer)
    assert len(str(answer["headers"])) < 40 * 700


async def test_binary_bodies_are_not_shown() -> None:
    async with serving(answering(plain(bytes(range(256)) * 10))) as served:
        answer = await call(GET, to("127.0.0.1"), url=served.url)

    assert answer["binary"] is True
    assert "text" not in answer


async def test_charsets_are_read() -> None:
    body = "größe".encode("latin-1")
    async with serving(answering(plain(body, headers="Content-Type: text/plain; charset=latin-1\r\n"))) as served:
        assert (await call(GET, to("127.0.0.1"), url=served.url))["text"] == "größe"


async def test_a_certificate_that_is_not_accepted_is_a_failure(tmp_path: Path) -> None:
    """No page is read from somebody who cannot show that it is theirs."""
    authority = Authority(tmp_path)
    async with serving(answering(plain()), tls=authority.server(authority.issue())) as served:
        message = await failing(GET, to("127.0.0.1"), ERROR, url=f"https://127.0.0.1:{served.port}/")

    assert "certificate" in message


async def test_without_hosts_nothing_is_reached() -> None:
    assert "agent.http.allow" in await failing(GET, context(), DENIED, url="http://example.com/")
