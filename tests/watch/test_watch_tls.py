"""The tls probe: certificates of every state, and STARTTLS without injection."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from loopback import LOOPS, Authority, Script, free_port, probe_tools, runner, serving
from pydantic import ValidationError

from agentd.records import Observation
from agentd.watch.tls import TLS

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def look(port: int, *, timeout_s: float = 20, **settings: Any) -> Observation:
    made = TLS.open(TLS.settings.model_validate({"host": "127.0.0.1", "port": port, **settings}), "db", probe_tools())
    return await made.look(timeout_s)


async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def seen(run: Run, server: ssl.SSLContext, **settings: Any) -> Observation:
    async def story() -> Observation:
        async with serving(listen, tls=server) as served:
            return await look(served.port, **settings)

    observation: Observation = run(story())
    return observation


def test_every_variable_has_its_value(run: Run, authority: Authority) -> None:
    server = authority.server(authority.issue("db.example", names=("127.0.0.1", "db.example"), days=40.5))

    observation = seen(run, server, ca_file=authority.file)

    values = observation.values
    assert observation.error is None
    assert 40.4 < values["cert_days_left"] <= 40.5
    assert values["cert_subject"] == "CN=db.example"
    assert values["cert_issuer"] == "O=Tests\\, Inc., CN=Test Authority"
    assert values["cert_sans"] == ["127.0.0.1", "db.example"]
    assert values["cert_not_after"].endswith("Z")
    assert (values["verified"], values["verify_error"]) == (True, "")
    assert values["protocol"] == "TLSv1.3"
    assert "AES" in values["cipher"] or "CHACHA" in values["cipher"]
    assert values["tls_ms"] > 0
    assert set(values) == set(TLS.variables)


@pytest.mark.parametrize(
    ("days", "names", "trusted", "complaint"),
    [
        (-3.0, ("127.0.0.1",), True, "certificate has expired"),
        (30.0, ("other.example",), True, "mismatch"),
        (30.0, ("127.0.0.1",), False, "issuer"),
    ],
)
def test_a_certificate_that_is_not_accepted_is_an_error_with_its_dates(
    run: Run, authority: Authority, days: float, names: tuple[str, ...], trusted: bool, complaint: str
) -> None:
    """«Expired» alone does not say since when, nor which certificate was shown."""
    server = authority.server(authority.issue(names=names, days=days))
    settings = {"ca_file": authority.file} if trusted else {}

    observation = seen(run, server, **settings)
    assert complaint in str(observation.error)
    assert observation.values["verified"] is False
    assert observation.values["cert_days_left"] == pytest.approx(days, abs=0.1)

    lenient = seen(run, server, verify=False, **settings)
    assert lenient.error is None
    assert complaint in lenient.values["verify_error"]
    assert set(lenient.values) == set(TLS.variables)


def test_the_server_name_is_what_is_verified(run: Run, authority: Authority) -> None:
    server = authority.server(authority.issue(names=("db.example",)))

    assert seen(run, server, ca_file=authority.file, server_name="db.example").error is None


def test_refusal_and_silence_are_errors(run: Run) -> None:
    assert "connection refused" in run(look(free_port())).error

    async def story() -> Observation:
        async with serving(listen) as served:
            return await look(served.port, timeout_s=0.3)

    assert run(story()).error == "no answer within 0.3 s, in the TLS handshake"


# STARTTLS. The fakes speak the protocol's lines, then hand the connection to TLS.


def dialogue(server: ssl.SSLContext, *steps: tuple[bytes, bytes]) -> Script:
    """Each step: what to wait for, and what to answer. The first waits for nothing. Then TLS."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for awaited, answer in steps:
            if awaited:
                assert await reader.readexactly(len(awaited)) == awaited
            writer.write(answer)
        await writer.start_tls(server)
        await reader.read()

    return script


SMTP_EHLO = b"EHLO agentd.invalid\r\n"
SMTP = (
    (b"", b"220-mail.example\r\n220 ready\r\n"),
    (SMTP_EHLO, b"250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n"),
    (b"STARTTLS\r\n", b"220 go ahead\r\n"),
)
IMAP = ((b"", b"* OK [CAPABILITY IMAP4rev1] ready\r\n"), (b"a1 STARTTLS\r\n", b"* ignored\r\na1 OK begin\r\n"))
POP3 = ((b"", b"+OK ready\r\n"), (b"STLS\r\n", b"+OK begin\r\n"))
POSTGRES = ((b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"S"),)
PROTOCOLS = {"smtp": SMTP, "imap": IMAP, "pop3": POP3, "postgres": POSTGRES}


def after(run: Run, script: Script, **settings: Any) -> Observation:
    async def story() -> Observation:
        async with serving(script) as served:
            return await look(served.port, **settings)

    observation: Observation = run(story())
    return observation


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_starttls_leads_to_the_certificate(run: Run, authority: Authority, protocol: str) -> None:
    server = authority.server(authority.issue(days=10))

    observation = after(run, dialogue(server, *PROTOCOLS[protocol]), starttls=protocol, ca_file=authority.file)

    assert observation.error is None
    assert observation.values["cert_days_left"] == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_bytes_smuggled_in_before_tls_are_refused(run: Run, authority: Authority, protocol: str) -> None:
    """Taken for protected ones later, they would be somebody else's answers (CVE-2021-23214, CVE-2011-0411)."""
    server = authority.server(authority.issue())
    *first, (awaited, answer) = PROTOCOLS[protocol]
    script = dialogue(server, *first, (awaited, answer + b"a2 OK injected\r\n"))

    observation = after(run, script, starttls=protocol, ca_file=authority.file)

    assert "injecting" in str(observation.error)


@pytest.mark.parametrize(
    ("protocol", "steps", "complaint"),
    [
        ("smtp", [(b"", b"554 go away\r\n")], "greeting is '554 go away'"),
        ("smtp", [(b"", b"220 x\r\n"), (SMTP_EHLO, b"250-x\r\n250 HELP\r\n")], "does not offer STARTTLS"),
        ("smtp", [*SMTP[:2], (b"STARTTLS\r\n", b"454 not now\r\n")], "STARTTLS is '454 not now'"),
        ("smtp", [(b"", b"220-x\r\n" * 300)], "more than 200 lines"),
        ("smtp", [(b"", b"x" * 20_000)], "a line without end"),
        ("imap", [(b"", b"* BYE no\r\n")], "greeting"),
        ("imap", [IMAP[0], (b"a1 STARTTLS\r\n", b"a1 BAD no\r\n")], "'a1 BAD no'"),
        ("pop3", [POP3[0], (b"STLS\r\n", b"-ERR no\r\n")], "'-ERR no'"),
        ("postgres", [(POSTGRES[0][0], b"N")], "does not offer TLS"),
        ("postgres", [(POSTGRES[0][0], b"E")], "'E'"),
    ],
)
def test_a_server_that_will_not_is_an_error(
    run: Run, authority: Authority, protocol: str, steps: list[tuple[bytes, bytes]], complaint: str
) -> None:
    script = dialogue(authority.server(authority.issue()), *steps)

    assert complaint in str(after(run, script, starttls=protocol).error)


def test_a_silent_dialogue_says_where_it_stopped(run: Run) -> None:
    assert after(run, listen, starttls="smtp", timeout_s=0.3).error == (
        "no answer within 0.3 s, in the smtp dialogue before TLS"
    )


def test_an_unknown_starttls_is_refused() -> None:
    with pytest.raises(ValidationError, match="starttls"):
        TLS.settings.model_validate({"host": "x", "starttls": "gopher"})
