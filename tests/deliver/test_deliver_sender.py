"""One attempt: what each thing a receiver can do means for the message."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import gzip
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from receiver import Answer, Receiver

from agentd.clock import SystemClock
from agentd.deliver import sender as sender_module
from agentd.deliver.discretion import WITHHELD, Discretion
from agentd.deliver.formats import Message
from agentd.deliver.payload import examples
from agentd.deliver.sender import MAX_ANSWER_BYTES, Sender, Sent
from agentd.deliver.trial import send_test
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import DeliveryDelayed, DeliveryRefused
from agentd.records import EventType
from agentd.testing import FakeClock

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
DATA = examples()[0]["data"]


def message(clock: Any, **more: Any) -> Message:
    return Message("msg_1", EventType.FIRING, clock.now(), DATA, **more)


async def attempt(url: str, **given: Any) -> Sent:
    """One attempt by the real clock."""
    clock = SystemClock()
    sender = Sender(WebhookSettings.model_validate({"url": url} | given), clock=clock)
    try:
        return await sender.send(message(clock))
    finally:
        await sender.close()


async def test_a_signed_message_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the whole point."""
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with Receiver() as receiver:
        await attempt(receiver.url, secret="${env:HOOK_SECRET}", headers={"X-Team": "web"})

        (request,) = receiver.taken
        payload = receiver.verify(request, SECRET)
    assert payload["type"] == "alert.firing"
    assert payload["data"] == DATA
    assert request.id == "msg_1"
    assert request.headers["user-agent"].startswith("agentd/")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-team"] == "web"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert (request.method, request.path) == ("POST", "/hook")


async def test_the_timestamp_is_the_attempts_own() -> None:
    """A receiver refuses old timestamps; a retry a day later must still verify."""
    async with Receiver() as receiver:
        clock = FakeClock()
        sender = Sender(WebhookSettings.model_validate({"url": receiver.url, "secret": SECRET}), clock=clock)
        first = message(clock)
        for _ in range(2):
            await sender.send(first)
            receiver.verify(receiver.taken[-1], SECRET, now=clock.now())
            clock.tick(86400)
        await sender.close()

    one, two = receiver.taken
    assert one.id == two.id
    assert one.body == two.body
    assert int(two.headers["webhook-timestamp"]) - int(one.headers["webhook-timestamp"]) == 86400


async def test_traceparent_is_passed_on() -> None:
    """The receiver's trace continues ours."""
    async with Receiver() as receiver:
        clock = SystemClock()
        sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock)
        await sender.send(message(clock, traceparent="00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"))
        await sender.close()

    assert receiver.taken[0].headers["traceparent"].startswith("00-abab")


async def test_connections_are_kept() -> None:
    """A new TLS handshake per message would be slow for both sides."""
    async with Receiver() as receiver:
        clock = SystemClock()
        sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock)
        for _ in range(5):
            await sender.send(message(clock))
        await sender.close()

    assert receiver.connections == 1


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_success(status: int) -> None:
    """Receivers differ in what they say when they agree."""
    async with Receiver() as receiver:
        receiver.answers(Answer(status, body=b""))

        assert (await attempt(receiver.url)).status == status


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_receiver_can_never_take_is_refused(status: int) -> None:
    """The same bytes would be refused again for three days."""
    async with Receiver() as receiver:
        receiver.answers(Answer(status, body=b"invalid_payload"))

        with pytest.raises(DeliveryRefused, match=f"answered {status}: invalid_payload") as caught:
            await attempt(receiver.url)

    assert (caught.value.status, caught.value.disable) == (status, False)


async def test_gone_disables() -> None:
    """Standard Webhooks: 410 means stop sending here."""
    async with Receiver() as receiver:
        receiver.answers(410)

        with pytest.raises(DeliveryRefused) as caught:
            await attempt(receiver.url)

    assert caught.value.disable


@pytest.mark.parametrize("status", [301, 302, 304, 307, 401, 403, 404, 408, 429, 500, 502, 503, 599])
async def test_everything_else_is_tried_again(status: int) -> None:
    """A proxy's bad ten minutes, or a wrong token for an hour, must not cost an alert."""
    async with Receiver() as receiver:
        receiver.answers(Answer(status, headers={"Location": receiver.url}))

        with pytest.raises(DeliveryDelayed) as caught:
            await attempt(receiver.url)

    assert caught.value.status == status
    assert len(receiver.requests) == 1, "a redirect must not be followed"


async def test_retry_after_is_heard() -> None:
    """The receiver knows best when it will be ready."""
    async with Receiver() as receiver:
        receiver.answers(Answer(429, headers={"Retry-After": "17"}), Answer(503, headers={"Retry-After": "never"}))

        for expected in (17.0, None):
            with pytest.raises(DeliveryDelayed) as caught:
                await attempt(receiver.url)
            assert caught.value.retry_after_s == expected


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(reset=True), "closed|broke"),
        (Answer(raw=b"garbage\r\n\r\n"), "without a proper answer"),
        (Answer(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n"), "without a proper answer"),
        (Answer(raw=b"HTTP/1.1 99999 OK\r\n\r\n"), "without a proper answer"),
        (Answer(raw=b""), "without a proper answer"),
    ],
)
async def test_a_broken_answer_is_tried_again(answer: Answer, says: str) -> None:
    """We do not know whether it was taken; the constant id lets the receiver tell."""
    async with Receiver() as receiver:
        receiver.answers(answer)

        with pytest.raises(DeliveryDelayed, match=says):
            await attempt(receiver.url)


async def test_a_closed_port_is_tried_again() -> None:
    """The commonest failure of all: the receiver restarts."""
    async with Receiver() as receiver:
        url = receiver.url

    with pytest.raises(DeliveryDelayed, match=r"^connection refused$"):
        await attempt(url)


def test_a_silent_receiver_costs_its_timeout_and_no_more() -> None:
    """A slot must come free again."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(hang=True))
            sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock)
            sending = asyncio.create_task(sender.send(message(clock)))
            await clock.advance(14.9)
            assert not sending.done()
            await clock.advance(0.2)
            with pytest.raises(DeliveryDelayed, match="no answer within 15 s"):
                await sending
            await sender.close()

    clock.run(story())


@pytest.mark.parametrize("status", [200, 500])
def test_an_endless_answer_does_not_hold_us(status: int) -> None:
    """The status decided; what follows is read a little and then cut off."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(status, endless=True))
            sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock)
            sending = asyncio.create_task(sender.send(message(clock)))
            await asyncio.wait([sending])
            if status == 200:
                assert (await sending).status == 200
            else:
                with pytest.raises(DeliveryDelayed, match="answered 500"):
                    await sending
            await sender.close()

    clock.run(story())


def test_a_body_that_trickles_does_not_hold_us() -> None:
    """Two seconds after a 200 we know enough."""
    clock = FakeClock()

    async def story() -> None:
        async with Receiver() as receiver:
            receiver.answers(Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart"))
            sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock)
            sending = asyncio.create_task(sender.send(message(clock)))
            await clock.advance(3)
            assert (await sending).answer == "start"
            await sender.close()

    clock.run(story())


@pytest.mark.parametrize("status", [200, 400, 410])
def test_a_status_in_time_decides_though_its_body_stalls(status: int) -> None:
    """A message that was taken must not come again, and one that was refused must not be tried for three days."""
    clock = FakeClock()

    async def story() -> None:
        async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status} Said\r\nContent-Length: 100\r\n\r\nstart".encode())
            while await reader.read(65536):  # until we hang up
                pass
            writer.close()

        server = await asyncio.start_server(stall, "127.0.0.1", 0)
        async with server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            sender = Sender(WebhookSettings.model_validate({"url": url, "timeout": "1s"}), clock=clock)
            sending = asyncio.create_task(sender.send(message(clock)))
            await clock.advance(4)
            if status == 200:
                assert (await sending).answer == "start"
            else:
                with pytest.raises(DeliveryRefused, match=f"answered {status}: start") as raised:
                    await sending
                assert raised.value.disable == (status == 410)
            await sender.close()

    clock.run(story())


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    """64 KiB on the wire may be 64 MiB in memory."""
    bomb = gzip.compress(b"x" * 50_000_000)
    async with Receiver() as receiver:
        receiver.answers(Answer(200, headers={"Content-Encoding": "gzip"}, body=bomb))

        sent = await attempt(receiver.url)

    assert len(sent.answer) <= 200
    assert len(bomb) < MAX_ANSWER_BYTES


async def test_a_missing_secret_waits() -> None:
    """A credential that is not there yet (a rotation, a mount) must cost no alert; the message names it."""
    with pytest.raises(DeliveryDelayed, match="environment variable NOT_THERE is not set"):
        await attempt("${env:NOT_THERE}")


@pytest.mark.parametrize(
    "value", ["not an address", "ftp://x/", "http://", "https://a b/", "file:///etc/passwd", "http://x:99999/"]
)
async def test_an_expanded_url_that_is_none_waits_and_stays_secret(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """The file that holds it may be half written; what it holds must not reach the log."""
    monkeypatch.setenv("HOOK", value)

    with pytest.raises(DeliveryDelayed) as caught:
        await attempt("${env:HOOK}")

    assert value not in str(caught.value)


async def test_a_line_break_in_a_secret_cannot_add_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Header injection by a bad credential file."""
    monkeypatch.setenv("TOKEN", "abc\r\nX-Evil: 1")
    async with Receiver() as receiver:
        with pytest.raises(DeliveryDelayed, match="header Authorization holds a line break"):
            await attempt(receiver.url, headers={"Authorization": "Bearer ${env:TOKEN}"})

    assert not receiver.requests


async def test_private_networks_can_be_forbidden() -> None:
    """A webhook address that somebody else may set must not reach our inside."""
    async with Receiver() as receiver:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f000001", "2130706433"):
            with pytest.raises(DeliveryDelayed) as caught:
                await attempt(f"http://{host}:{receiver.port}/hook", private_networks=False)
            assert "127.0.0.1" not in str(caught.value)

    assert not receiver.connections


def certificate(tmp_path: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's) contexts; the certificate is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def send_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, named: str, trusted: bool) -> Receiver:
    server, client = certificate(tmp_path, "hooks.test")
    seen: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: seen.append(name)

    async def context(_settings: object) -> ssl.SSLContext:
        return client if trusted else ssl.create_default_context()

    async def resolve(host: str, port: int, *, private: bool) -> list[tuple[str, int]]:
        assert host == named
        return [("127.0.0.1", port)]

    monkeypatch.setattr(sender_module, "context_for", context)
    clock = SystemClock()
    async with Receiver(tls=server) as receiver:
        settings = WebhookSettings.model_validate({"url": f"https://{named}:{receiver.port}/hook"})
        sender = Sender(settings, clock=clock, resolve=resolve)
        try:
            await sender.send(message(clock))
        finally:
            await sender.close()
    assert seen == [named]
    return receiver


async def test_the_checked_address_is_connected_to_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SNI, certificate and Host carry the name; the address is the one that was checked, not a second lookup's."""
    receiver = await send_over_tls(tmp_path, monkeypatch, named="hooks.test", trusted=True)

    assert receiver.taken[0].headers["host"] == f"hooks.test:{receiver.port}"


@pytest.mark.parametrize(
    ("named", "trusted", "says"),
    [("other.test", True, "it is for another name"), ("hooks.test", False, "certificate refused: self")],
)
async def test_a_wrong_certificate_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, trusted: bool, says: str
) -> None:
    """Alerts go to nobody who merely sits on the way."""
    with pytest.raises(DeliveryDelayed, match=says) as caught:
        await send_over_tls(tmp_path, monkeypatch, named=named, trusted=trusted)

    assert ".test" not in str(caught.value)


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name often has an IPv6 address that leads nowhere."""

    async def resolve(host: str, port: int, *, private: bool) -> list[tuple[str, int]]:
        return [("127.0.0.2", port), ("127.0.0.1", port)]

    clock = SystemClock()
    async with Receiver() as receiver:
        sender = Sender(WebhookSettings.model_validate({"url": receiver.url}), clock=clock, resolve=resolve)
        await sender.send(message(clock))
        await sender.close()

    assert len(receiver.taken) == 1


@pytest.mark.parametrize("echo", ["{path}", "Cannot POST {path}", "{upper}", "{encoded}", "token={token}"])
async def test_an_answer_that_repeats_a_secret_is_withheld(monkeypatch: pytest.MonkeyPatch, echo: str) -> None:
    """Express answers `Cannot POST /services/T0/B0/key`; the outbox and the log must not learn the key."""
    async with Receiver() as receiver:
        path = "/services/T0000/B0000/XxYyZz123456"
        monkeypatch.setenv("HOOK", receiver.url.removesuffix("/hook") + path)
        monkeypatch.setenv("TOKEN", "tok-9876543210")
        said = echo.format(path=path, upper=path.upper(), encoded=path.replace("X", "%58"), token="tok-9876543210")
        receiver.answers(Answer(400, body=said.encode()))

        with pytest.raises(DeliveryRefused) as caught:
            await attempt("${env:HOOK}", headers={"Authorization": "Bearer ${env:TOKEN}"})

    assert str(caught.value) == f"answered 400: {WITHHELD}"


def test_discretion_lets_harmless_words_through() -> None:
    """`invalid_payload` is what a person needs to see."""
    shown = Discretion(["https://hooks.slack.com/services/T0/B0/abcdefgh"]).shown

    assert shown(b"invalid_payload\r\n\x1b[31m \xff", 200) == "invalid_payload [31m \ufffd"
    assert shown(b"x" * 500, 200) == "x" * 200


async def test_a_test_message_tells_how_it_went() -> None:
    """`agentd webhook test NAME` before the first night."""
    clock = SystemClock()
    async with Receiver() as receiver:
        settings = WebhookSettings.model_validate({"url": receiver.url, "secret": SECRET})
        receiver.answers(Answer(200, body=b"thanks " * 100), 503)

        good = await send_test("audit", settings, instance="web-1", clock=clock)
        bad = await send_test("audit", settings, instance="web-1", clock=clock)

        payload = receiver.verify(receiver.taken[0], SECRET)
    assert payload["type"] == "agentd.test"
    assert (good.ok, good.status, len(good.answer)) == (True, 200, 200)
    assert (bad.ok, bad.status, bad.error) == (False, 503, "answered 503: ok")


def test_sending_does_not_load_what_only_a_terminal_needs() -> None:
    """httpx's own command line would bring rich and pygments into a daemon that counts its MiB."""
    script = (
        "import sys; from agentd.deliver.sender import import_httpx; import agentd.deliver.courier;"
        "before = 'httpx' in sys.modules, 'jinja2' in sys.modules; import_httpx();"
        "print(before, [name for name in ('rich', 'pygments', 'click', 'requests') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "(False, False) []"
