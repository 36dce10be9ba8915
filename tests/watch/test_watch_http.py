"""The http probe against real servers."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from loopback import LOOPS, Authority, Served, answering, free_port, plain, probe_tools, runner, serving
from pydantic import ValidationError

from agentd.condition import compile_condition, judge
from agentd.records import Observation
from agentd.settings import RateLimit
from agentd.watch import http as http_module
from agentd.watch.http import HTTP, HttpProbe

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


def probe(url: str, **settings: Any) -> HttpProbe:
    made = HTTP.open(HTTP.settings.model_validate({"url": url, **settings}), "shop", probe_tools())
    assert isinstance(made, HttpProbe)
    return made


async def look(url: str, *, timeout_s: float = 20, **settings: Any) -> Observation:
    return await probe(url, **settings).look(timeout_s)


def seen(run: Run, answer: bytes, **settings: Any) -> Observation:
    async def story() -> Observation:
        async with serving(answering(answer)) as served:
            return await look(served.url, **settings)

    observation: Observation = run(story())
    return observation


def test_every_variable_has_its_value(run: Run) -> None:
    body = b'{"status": "UP"}'
    observation = seen(run, plain(body, headers="X-Colour: Red\r\nContent-Type: application/json\r\n"))

    values = observation.values
    assert (observation.error, observation.blind) == (None, None)
    assert values["status"] == 200
    assert values["headers"]["x-colour"] == "Red"
    assert (values["text"], values["body"], values["body_bytes"]) == (body.decode(), {"status": "UP"}, len(body))
    assert (values["http_version"], values["redirects"]) == ("1.1", 0)
    assert 0 < values["connect_ms"] < values["latency_ms"]
    assert 0 < values["first_byte_ms"] < values["latency_ms"]
    assert (values["dns_ms"], values["tls_ms"]) == (0, 0)
    assert observation.notes["peer"] == "127.0.0.1"
    assert set(values) == set(HTTP.variables) - {"cert_days_left"}


def test_what_nobody_reads_is_not_computed(run: Run) -> None:
    """Decoding and parsing a megabyte at every look would be the dearest part of it."""

    async def story() -> Observation:
        async with serving(answering(plain(b"{}"))) as served:
            made = probe(served.url)
            made.wanted = frozenset({"status"})
            return await made.look(20)

    values = run(story()).values
    assert values["status"] == 200
    assert not {"body", "text", "headers"} & set(values)


@pytest.mark.parametrize("body", [b"<html>", b"", b"{", b"[" * 10_000, b"\xff\xfe\x00"])
def test_a_body_that_is_not_json_is_absent(run: Run, body: bytes) -> None:
    """A condition on it does not hold; one on the status still does."""
    observation = seen(run, plain(body))

    assert observation.error is None
    assert observation.values["status"] == 200
    assert "body" not in observation.values
    assert "body is not JSON" in str(observation.notes["body"])


def test_numbers_beyond_64_bits_become_floats(run: Run) -> None:
    body = seen(run, plain(b'{"big": 123456789012345678901234567890, "ok": 9223372036854775807}')).values["body"]

    assert body == {"big": 1.2345678901234568e29, "ok": 2**63 - 1}


def test_one_number_that_is_none_hides_no_other_field(run: Run) -> None:
    """Many libraries write NaN; a condition on the status beside it must still be answered."""
    body = seen(run, plain(b'{"status": "up", "load": NaN, "top": [-Infinity, 1e999, 5]}')).values["body"]

    assert body == {"status": "up", "load": None, "top": [None, None, 5]}


def test_a_cut_body_says_so(run: Run) -> None:
    """`body.status is missing` alone would send people looking for the field."""
    observation = seen(run, plain(b'{"pad": "' + b"x" * 4096 + b'", "status": "up"}'), max_body=1024)

    judgement = judge(observation, [compile_condition('body.status == "up"', HTTP.variables)])

    assert "body" not in observation.values
    assert "cut at max_body (1024 bytes)" in judgement.summary


def test_text_follows_its_charset(run: Run) -> None:
    headers = "Content-Type: text/plain; charset=ISO-8859-1\r\n"

    assert seen(run, plain("Käse".encode("latin-1"), headers=headers)).values["text"] == "Käse"


def test_a_refused_connection_is_an_error(run: Run) -> None:
    observation = run(look(f"http://127.0.0.1:{free_port()}/"))

    assert "connection refused" in observation.error
    assert observation.blind is None


def test_silence_is_an_error_that_says_where_it_was_met(run: Run) -> None:
    async def story() -> Observation:
        async with serving(answering(b"", keep_open=True)) as served:
            return await look(served.url, timeout_s=0.3)

    observation = run(story())
    assert observation.error == "no answer within 0.3 s, waiting for the first byte"
    assert observation.blind is None


def test_waiting_for_a_turn_is_blind(run: Run) -> None:
    """Our own rate kept us from looking: the host may be well."""

    async def story() -> Observation:
        async with serving(answering(plain())) as served:
            tools = probe_tools(RateLimit(1, 3600))
            made = HTTP.open(HTTP.settings.model_validate({"url": served.url}), "shop", tools)
            await made.look(20)
            return await made.look(0.02)

    observation = run(story())
    assert observation.error is None
    assert "rate" in observation.blind


def test_the_request_is_what_the_settings_say(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", 'se"cret')
    told = Served()

    async def story() -> Observation:
        async with serving(answering(plain(), told=told), served=told) as served:
            return await look(
                f"{served.url}pay?token=${{env:SHOP_TOKEN}}",
                method="post",
                headers={"X-Token": "${env:SHOP_TOKEN}", "Host": "shop.example"},
                json={"token": "${env:SHOP_TOKEN}", "n": [1, None]},
                auth={"basic": {"user": "me", "password": "${env:SHOP_TOKEN}"}},
            )

    assert run(story()).error is None
    head = told.heads[0].decode()
    assert head.startswith('POST /pay?token=se"cret HTTP/1.1\r\nUser-Agent: agentd/')
    for line in (
        'X-Token: se"cret',
        "Host: shop.example",
        "Authorization: Basic bWU6c2UiY3JldA==",
        "Connection: close",
    ):
        assert f"\r\n{line}\r\n" in head
    assert head.lower().count("host:") == 1
    assert json.loads(told.bodies[0]) == {"token": 'se"cret', "n": [1, None]}


def test_a_secret_is_read_at_each_look(run: Run, tmp_path: Path) -> None:
    """A rotated token works without a reload."""
    file = tmp_path / "token"
    told = Served()

    async def story() -> None:
        async with serving(answering(plain(), told=told), served=told) as served:
            made = probe(served.url, auth={"bearer": f"${{file:{file}}}"})
            for token in ("one", "two"):
                file.write_text(f"{token}\n")
                await made.look(20)

    run(story())
    assert [re.findall(rb"Bearer (\w+)", head) for head in told.heads] == [[b"one"], [b"two"]]


@pytest.mark.parametrize("value", [None, "a\r\nX-Evil: 1"])
def test_a_secret_that_cannot_be_used_is_blind(run: Run, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """The server is not to blame; and a line break in a secret must not become a header."""
    monkeypatch.delenv("SHOP_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("SHOP_TOKEN", value)

    async def story() -> tuple[Observation, int]:
        async with serving(answering(plain())) as served:
            return await look(served.url, headers={"X-Token": "${env:SHOP_TOKEN}"}), served.connections

    observation, connections = run(story())
    assert "SHOP_TOKEN" in observation.blind
    assert "Evil" not in observation.blind
    assert connections == 0


# Redirects.


def redirect(to: str, status: str = "302 Found") -> bytes:
    return plain(b"", status=status, headers=f"Location: {to}\r\n")


def test_a_redirect_is_not_followed_unasked(run: Run) -> None:
    observation = seen(run, redirect("/there"))

    assert (observation.values["status"], observation.values["redirects"]) == (302, 0)


def routed(routes: dict[str, bytes], told: Served) -> Any:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        told.heads.append(head)
        path = head.split(b" ")[1].decode()
        writer.write(routes.get(path, plain(status="404 Not Found")))
        await writer.drain()
        await reader.read()

    return script


def test_redirects_are_followed_and_counted(run: Run) -> None:
    told = Served()
    routes = {"/": redirect("/a?b=1"), "/a?b=1": redirect("c", "307 Temporary Redirect"), "/c": plain(b"there")}

    async def story() -> Observation:
        async with serving(routed(routes, told), served=told) as served:
            return await look(served.url, follow_redirects=True)

    observation = run(story())
    assert (observation.values["text"], observation.values["redirects"]) == ("there", 2)


def test_a_circle_of_redirects_ends(run: Run) -> None:
    told = Served()

    async def story() -> Observation:
        async with serving(routed({"/": redirect("/")}, told), served=told) as served:
            return await look(served.url, follow_redirects=True)

    assert "more than 5 redirects" in run(story()).error
    assert len(told.heads) == 6


def test_credentials_go_to_no_other_host(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port is another server: whoever can write a Location must not collect our tokens."""
    monkeypatch.setenv("SHOP_TOKEN", "secret")
    here, there = Served(), Served()

    async def story() -> Observation:
        async with serving(answering(plain(b"there"), told=there), served=there) as other:
            routes = {"/": redirect(other.url, "301 Moved"), "/same": redirect("/")}
            async with serving(routed(routes, here), served=here) as served:
                return await look(
                    f"{served.url}same",
                    follow_redirects=True,
                    auth={"bearer": "literal"},
                    headers={"Cookie": "id=1", "X-Key": "${env:SHOP_TOKEN}", "X-Plain": "1", "Host": "shop.example"},
                )

    assert run(story()).values["text"] == "there"
    assert all(b"Bearer literal" in head and b"secret" in head for head in here.heads)
    assert len(here.heads) == 2
    assert b"X-Plain: 1" in there.heads[0]
    for word in (b"literal", b"secret", b"id=1", b"shop.example"):
        assert word not in there.heads[0]


def test_a_server_s_own_text_is_no_secret_reference(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Location of `/${env:HOME}` must not make us send what the variable holds."""
    monkeypatch.setenv("SHOP_TOKEN", "secret")
    told = Served()

    async def story() -> Observation:
        async with serving(routed({"/": redirect("/x${env:SHOP_TOKEN}")}, told), served=told) as served:
            return await look(served.url, follow_redirects=True)

    run(story())
    assert b"secret" not in told.heads[1]


@pytest.mark.parametrize(
    "to", ["ftp://x/", "http://[::1", "http://user:pw@x/", "http://x:99999/", "http://a b/", "x" * 9000]
)
def test_a_redirect_to_nowhere_is_an_error(run: Run, to: str) -> None:
    assert "redirect" in (seen(run, redirect(to), follow_redirects=True).error or "")


def test_a_public_server_cannot_send_us_inside(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe stands inside the network; a redirect to 169.254.169.254 would make it fetch credentials of the cloud."""
    monkeypatch.setattr(http_module, "is_public", lambda address: True)

    async def story() -> tuple[Observation, int]:
        async with serving(answering(plain())) as inside, serving(answering(redirect(inside.url))) as served:
            return await look(served.url, follow_redirects=True), inside.connections

    observation, connections = run(story())
    assert "not a public address" in observation.error
    assert connections == 0


def test_a_redirected_body_goes_to_no_other_host(run: Run) -> None:
    async def story() -> Observation:
        async with serving(answering(redirect("http://127.0.0.2:1/", "308 Permanent Redirect"))) as served:
            return await look(served.url, method="POST", body="secret", follow_redirects=True)

    assert "would repeat the body" in run(story()).error


# TLS and kept connections.


def test_https_shows_its_certificate(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def story() -> Observation:
        tls = authority.server(authority.issue(days=20.5))
        async with serving(answering(plain()), tls=tls) as served:
            return await look(f"https://localhost:{served.port}/", ca_file=authority.file, ip_version=4)

    observation = run(story())
    assert observation.error is None
    assert 20.4 < observation.values["cert_days_left"] <= 20.5
    assert observation.values["tls_ms"] > 0
    assert observation.values["dns_ms"] > 0
    assert set(observation.values) == set(HTTP.variables) - {"body"}


def test_https_with_a_bad_certificate_is_an_error(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def story() -> tuple[Observation, Observation]:
        tls = authority.server(authority.issue(days=-1))
        async with serving(answering(plain()), tls=tls) as served:
            url = f"https://127.0.0.1:{served.port}/"
            return await look(url, ca_file=authority.file), await look(url, verify=False)

    strict, lenient = run(story())
    assert strict.error == "certificate not accepted: certificate has expired"
    assert lenient.error is None
    assert lenient.values["cert_days_left"] < 0


def test_a_client_certificate_is_shown(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.issue("client")

    async def story() -> Observation:
        async with serving(answering(plain()), tls=authority.server(authority.issue(), require_client=True)) as served:
            url = f"https://127.0.0.1:{served.port}/"
            return await look(url, ca_file=authority.file, client_certificate={"cert": client})

    assert run(story()).values["status"] == 200


def test_a_kept_connection_serves_the_next_look(run: Run) -> None:
    async def story() -> tuple[list[Observation], int]:
        async with serving(answering(plain(b"1"), plain(b"2"), keep_open=True)) as served:
            made = probe(served.url, keep_alive=True)
            looks = [await made.look(20), await made.look(20)]
            await made.close()
            return looks, served.connections

    (first, second), connections = run(story())
    assert connections == 1
    assert first.values["connect_ms"] > 0
    assert (second.values["text"], second.values["connect_ms"]) == ("2", 0)


def test_a_kept_connection_that_went_stale_is_replaced(run: Run) -> None:
    """The server's idle timeout is no outage."""

    async def story() -> Observation:
        served = Served()
        async with serving(answering(plain(b"1")), served=served):
            made = probe(served.url, keep_alive=True)
            await made.look(20)
            second = await made.look(20)
            await made.close()
            assert served.connections == 2
            return second

    assert run(story()).error is None


def test_a_connection_ending_on_the_second_request_is_replaced_once(run: Run) -> None:
    async def hang_up_on_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(plain())
        await reader.readuntil(b"\r\n\r\n")

    async def story() -> tuple[Observation, int]:
        async with serving(hang_up_on_the_second) as served:
            made = probe(served.url, keep_alive=True)
            await made.look(20)
            second = await made.look(20)
            await made.close()
            return second, served.connections

    observation, connections = run(story())
    assert (observation.error, connections) == (None, 2)


def test_ipv6_literals_are_reached(run: Run) -> None:
    told = Served()

    async def story() -> Observation:
        async with serving(answering(plain(), told=told), served=told, host="::1") as served:
            return await look(f"http://[::1]:{served.port}/")

    assert run(story()).error is None
    assert f"Host: [::1]:{told.port}".encode() in told.heads[0]


def test_the_ip_version_is_held_to(run: Run) -> None:
    assert "not an IPv6 address" in run(look("http://127.0.0.1:1/", ip_version=6)).error


# The rarer roads.


def test_a_proxy_is_asked_for_the_whole_url(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_PASSWORD", "pw")
    told = Served()

    async def story() -> Observation:
        async with serving(answering(plain(b"by proxy"), told=told), served=told) as served:
            return await look(
                "http://nowhere.example/x?y", proxy=f"http://me:${{env:PROXY_PASSWORD}}@127.0.0.1:{served.port}"
            )

    observation = run(story())
    assert (observation.error, observation.values["text"]) == (None, "by proxy")
    assert observation.values["connect_ms"] > 0
    assert told.heads[0].startswith(b"GET http://nowhere.example/x?y HTTP/1.1\r\n")
    assert b"Basic bWU6cHc=" in told.heads[0]


def test_a_proxy_that_is_down_is_an_error(run: Run) -> None:
    observation = run(look("http://nowhere.example/", proxy=f"http://127.0.0.1:{free_port()}"))

    assert observation.error == "connection refused"


def test_http_2_is_spoken_where_it_is_installed(run: Run, tmp_path: Path) -> None:
    h2 = pytest.importorskip("h2.connection")
    events = pytest.importorskip("h2.events")
    config = pytest.importorskip("h2.config")
    authority = Authority(tmp_path)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = h2.H2Connection(config=config.H2Configuration(client_side=False))
        server.initiate_connection()
        writer.write(server.data_to_send())
        while data := await reader.read(65536):
            for event in server.receive_data(data):
                if isinstance(event, events.RequestReceived):
                    server.send_headers(
                        event.stream_id, [(":status", "200"), ("x-path", dict(event.headers)[b":path"])]
                    )
                    server.send_data(event.stream_id, b"two", end_stream=True)
            writer.write(server.data_to_send())

    async def story() -> Observation:
        tls = authority.server(authority.issue(), alpn=["h2"])
        async with serving(script, tls=tls) as served:
            url = f"https://localhost:{served.port}/x"
            return await look(url, http_version=2, ca_file=authority.file, ip_version=4)

    observation = run(story())
    assert observation.error is None
    assert (observation.values["http_version"], observation.values["text"]) == ("2", "two")
    assert observation.values["headers"]["x-path"] == "/x"
    assert observation.values["cert_days_left"] > 80


def test_http_2_without_its_package_is_an_error_at_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "find_spec", lambda name: None)
    assert importlib.util.find_spec("httpx") is not None

    with pytest.raises(ValidationError, match=r"agentd\[http2\]"):
        HTTP.settings.model_validate({"url": "https://x.example/", "http_version": 2})


# Settings.


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"url": "shop.example"}, "not a URL"),
        ({"url": "ftp://shop.example/"}, "not http or https"),
        ({"url": "http://me:pw@shop.example/"}, "under `auth`"),
        ({"url": "http:///x"}, "no host"),
        ({"url": "http://shop.example:0/"}, "port 0"),
        ({"url": "http://shop.example:99999/"}, "cannot be read"),
        ({"url": "http://shop.example/a b"}, "%20"),
        ({"url": "http://shop.example/a\r\nX: y"}, "control characters"),
        ({"url": "http://${env:HOST}/"}, "a secret cannot name the host"),
        ({"url": "http://-x-.example/"}, "neither a host name"),
        ({"url": "http://x/", "metod": "GET"}, "Extra inputs"),
        ({"url": "http://x/", "method": "G ET"}, "cannot be used"),
        ({"url": "http://x/", "method": "CONNECT"}, "cannot be used"),
        ({"url": "http://x/", "headers": {"A B": "1"}}, "header name"),
        ({"url": "http://x/", "headers": {"A": "1\n2"}}, "line break"),
        ({"url": "http://x/", "headers": {"content-length": "1"}}, "set by agentd"),
        ({"url": "http://x/", "method": "POST", "body": "x", "json": {}}, "not both"),
        ({"url": "http://x/", "body": "x"}, "no body"),
        ({"url": "http://x/", "auth": {}}, "write either"),
        ({"url": "http://x/", "auth": {"bearer": "x"}, "headers": {"authorization": "y"}}, "not both"),
        ({"url": "http://x/", "method": "POST", "keep_alive": True}, "twice"),
        ({"url": "http://x/", "max_body": "1GiB"}, "less than or equal"),
        ({"url": "http://x/", "ip_version": 5}, "ip_version"),
    ],
)
def test_wrong_settings_are_refused_with_a_cure(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(complaint)):
        HTTP.settings.model_validate(settings)


def test_settings_are_written_back_as_they_were_read() -> None:
    """Whoever shows the configuration must see names of secrets, and the key that the file has."""
    given = {"url": "http://x/?t=${env:A}", "method": "POST", "json": {"a": ["${env:B}", 1]}, "http_version": 1.1}
    settings = HTTP.settings.model_validate(given)

    shown = json.loads(settings.model_dump_json(by_alias=True, exclude_unset=True))
    assert shown == {**given, "http_version": "1.1"}
    assert "json" in HTTP.settings.model_json_schema()["properties"]
    with pytest.raises(ValidationError, match="unknown secret source"):
        HTTP.settings.model_validate({**given, "json": {"a": "${nv:B}"}})


def test_an_international_host_is_asked_for_in_ascii(run: Run) -> None:
    made = probe("http://käse.example/ü?x=ä")

    assert b"GET /%C3%BC?x=%C3%A4 HTTP/1.1\r\nHost: xn--kse-qla.example\r\n" in made._request.render()
