"""
The `tcp` probe: connect, say something if told to, and read what comes back.

In: host, port, bytes to send, how much to read. Out: `connected`, timings, the text received.
Promise: at most 64 KiB are kept; without `send`, `read_until` and `read_bytes` nothing is read at all.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from agentd.net.address import NetFailure
from agentd.net.connection import Endpoint, Timings, connect
from agentd.net.stream import StreamConnection
from agentd.net.tls import TlsSettings
from agentd.records import Observation
from agentd.secret import Secret
from agentd.settings import Settings
from agentd.watch.probe import Kind, Probe, ProbeTools
from agentd.watch.reach import FAMILIES, TIMING_VARIABLES, HostName, IpVersion, Port, observe

MAX_READ_BYTES = 65536


class TcpSettings(Settings):
    """What stands under `tcp:`."""

    host: HostName
    port: Port
    send: Secret | None = Field(None, description="Text to send once connected; may name secrets")
    send_base64: str | None = Field(None, description="Bytes to send, as base64")
    read_until: str | None = Field(None, min_length=1, description="Read until this text has come in")
    read_bytes: Annotated[int, Field(ge=1, le=MAX_READ_BYTES)] | None = Field(None, description="Read this many bytes")
    tls: bool = False
    verify: bool = True
    ca_file: str | None = None
    server_name: HostName | None = None
    ip_version: IpVersion = "any"

    @field_validator("send_base64")
    @classmethod
    def _check_base64(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"send_base64 is not base64: {error}") from error
        return value

    @model_validator(mode="after")
    def _check_together(self) -> TcpSettings:
        if self.send is not None and self.send_base64 is not None:
            raise ValueError("write either `send` or `send_base64`, not both")
        if self.read_until is not None and self.read_bytes is not None:
            raise ValueError("write either `read_until` or `read_bytes`, not both")
        return self


class TcpProbe:
    def __init__(self, settings: TcpSettings, name: str, tools: ProbeTools) -> None:
        self.wanted: frozenset[str] | None = None
        self._settings = settings
        self._tools = tools
        tls = TlsSettings(verify=settings.verify, ca_file=settings.ca_file) if settings.tls else None
        self._endpoint = Endpoint.of(
            settings.host,
            settings.port,
            family=FAMILIES[settings.ip_version],
            tls=tls,
            server_name=settings.server_name,
        )
        self._until = settings.read_until.encode() if settings.read_until is not None else None
        sends = settings.send is not None or settings.send_base64 is not None
        self._reads = sends or self._until is not None or settings.read_bytes is not None

    async def look(self, timeout_s: float) -> Observation:
        return await observe(self._look, host=self._settings.host, tools=self._tools, timeout_s=timeout_s)

    async def close(self) -> None:
        pass

    def _message(self) -> bytes | None:
        if self._settings.send_base64 is not None:
            return base64.b64decode(self._settings.send_base64)
        # surrogateescape: an environment variable may hold any bytes, and here they are welcome.
        return None if self._settings.send is None else self._settings.send.expand().encode(errors="surrogateescape")

    async def _look(self, observation: Observation, timings: Timings, left_s: float) -> None:
        values = observation.values
        values["connected"] = False
        message = self._message()
        connection = StreamConnection(MAX_READ_BYTES)
        try:
            await connect(connection, self._endpoint, timings, left_s)
            values["connected"] = True
            values["tls_ms"] = timings.tls_ms
            observation.notes["peer"] = connection.address
            if self._reads:
                try:
                    await self._talk(connection, message, timings)
                finally:
                    values["first_byte_ms"] = timings.first_byte_ms
                    values["text"] = connection.buffer.decode("utf-8", "replace")
            connection.close()
        finally:
            connection.abandon()

    async def _talk(self, connection: StreamConnection, message: bytes | None, timings: Timings) -> None:
        started = time.monotonic()
        timings.step = "waiting for the first byte"
        if message:
            connection.write(message)
        searched = 0
        while not self._is_enough(connection, searched):
            searched = len(connection.buffer)
            if not await connection.more():
                break
            if not searched:
                timings.first_byte_ms = (time.monotonic() - started) * 1000
                timings.step = "reading the answer"
        else:
            return
        if self._until is not None or self._settings.read_bytes is not None:
            wanted = (
                repr(self._settings.read_until) if self._until is not None else f"{self._settings.read_bytes} bytes"
            )
            ended = "the connection ended" if connection.over else f"{MAX_READ_BYTES} bytes came in"
            raise NetFailure(f"{ended} without {wanted}")

    def _is_enough(self, connection: StreamConnection, searched: int) -> bool:
        buffer = connection.buffer
        if self._until is not None:
            return buffer.find(self._until, max(0, searched - len(self._until) + 1)) >= 0
        return len(buffer) >= (self._settings.read_bytes or 1)


def _open(settings: TcpSettings, name: str, tools: ProbeTools) -> Probe:
    return TcpProbe(settings, name, tools)


TCP = Kind(
    name="tcp",
    settings=TcpSettings,
    variables={
        "connected": "whether the connection was established",
        **TIMING_VARIABLES,
        "tls_ms": "milliseconds for the TLS handshake; 0 without TLS",
        "first_byte_ms": "milliseconds until the first byte came back",
        "text": f"what came back, at most {MAX_READ_BYTES} bytes",
    },
    open=_open,
    expect=("connected",),
)
