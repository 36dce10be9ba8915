"""The tcp probe against real servers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from loopback import LOOPS, Authority, Script, Served, free_port, probe_tools, reset, runner, serving
from pydantic import ValidationError

from agentd.records import Observation
from agentd.watch.tcp import MAX_READ_BYTES, TCP

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return runner(request.param)


async def look(port: int, *, timeout_s: float = 20, **settings: Any) -> Observation:
    made = TCP.open(
        TCP.settings.model_validate({"host": "127.0.0.1", "port": port, **settings}), "uplink", probe_tools()
    )
    return await made.look(timeout_s)


def seen(run: Run, script: Script, **settings: Any) -> Observation:
    async def story() -> Observation:
        async with serving(script) as served:
            return await look(served.port, **settings)

    observation: Observation = run(story())
    return observation


def saying(*pieces: bytes, told: Served | None = None) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        said = await reader.read()
        if told is not None:
            told.heads.append(said)

    return script


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)


def test_a_connection_alone_is_enough(run: Run) -> None:
    observation = seen(run, saying())

    assert (observation.error, observation.values["connected"]) == (None, True)
    assert observation.values["latency_ms"] >= observation.values["connect_ms"] > 0
    assert "text" not in observation.values


def test_it_ends_properly(run: Run) -> None:
    """A mail server logs a line for every connection that is reset."""
    told = Served()

    async def story() -> None:
        async with serving(saying(told=told), served=told) as served:
            await look(served.port)
            await asyncio.wait_for(served.ended.wait(), 20)

    run(story())
    assert told.heads == [b""]


def test_what_is_sent_comes_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "PING")

    assert seen(run, echo, send="${env:WORD}\r\n", read_until="\n").values["text"] == "PING\r\n"
    raw = base64.b64encode(b"\x00\x01\xff").decode()
    assert seen(run, echo, send_base64=raw, read_bytes=3).values["text"] == "\x00\x01\N{REPLACEMENT CHARACTER}"


def test_a_banner_is_read_across_pieces(run: Run) -> None:
    observation = seen(run, saying(b"SSH-2.0-Op", b"enSSH_9.2\r", b"\nmore"), read_until="\r\n")

    assert observation.error is None
    assert str(observation.values["text"]).startswith("SSH-2.0-OpenSSH_9.2\r\n")
    assert observation.values["first_byte_ms"] > 0


def test_an_end_before_the_awaited_text_is_an_error(run: Run) -> None:
    async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220")
        writer.write_eof()
        await reader.read()

    observation = seen(run, short, read_until="ready")
    assert observation.error == "the connection ended without 'ready'"
    assert observation.values["text"] == "220"


def test_a_flood_is_read_no_further_than_64_kib(run: Run) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    observation = seen(run, flood, read_until="never")
    assert "came in without 'never'" in str(observation.error)
    assert len(observation.values["text"]) == MAX_READ_BYTES


def test_refusal_reset_and_silence_are_errors(run: Run) -> None:
    refused = run(look(free_port()))
    assert "connection refused" in refused.error
    assert refused.values["connected"] is False

    assert "reset" in str(seen(run, reset, send="x", read_bytes=1).error)

    silent = seen(run, saying(), read_bytes=1, timeout_s=0.3)
    assert silent.error == "no answer within 0.3 s, waiting for the first byte"
    assert silent.values["connected"] is True


def test_a_missing_secret_is_blind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORD", raising=False)

    assert "WORD" in str(seen(run, echo, send="${env:WORD}", read_bytes=1).blind)


def test_it_speaks_tls(run: Run, tmp_path: Path) -> None:
    authority = Authority(tmp_path)

    async def story() -> tuple[Observation, Observation]:
        async with serving(echo, tls=authority.server(authority.issue())) as served:
            good = await look(served.port, tls=True, ca_file=authority.file, send="hello", read_bytes=5)
            return good, await look(served.port, tls=True, send="hello", read_bytes=5)

    good, bad = run(story())
    assert (good.error, good.values["text"]) == (None, "hello")
    assert good.values["tls_ms"] > 0
    assert "certificate not accepted" in bad.error


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"port": 0}, "greater than"),
        ({"host": "a b"}, "neither a host name"),
        ({"host": "http://x"}, "neither a host name"),
        ({"send_base64": "!!"}, "not base64"),
        ({"send": "x", "send_base64": "eA=="}, "not both"),
        ({"read_until": "x", "read_bytes": 1}, "not both"),
        ({"read_bytes": 1 << 20}, "less than"),
    ],
)
def test_wrong_settings_are_refused_with_a_cure(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TCP.settings.model_validate({"host": "x.example", "port": 1, **settings})
