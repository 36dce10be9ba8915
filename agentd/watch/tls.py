"""
The `tls` probe: a handshake, plain or after STARTTLS, and what the certificate says.

In: host, port, how to get to TLS. Out: dates, names, protocol and cipher as variables.
Promise: a certificate that is not accepted is an error unless `verify: false`, and its dates are reported all the
same, by a second handshake without verification that sends nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agentd.net.address import NetFailure
from agentd.net.connection import Endpoint, Timings, connect, shake_hands
from agentd.net.stream import StreamConnection
from agentd.net.tls import TlsSettings
from agentd.records import Observation
from agentd.settings import Settings
from agentd.watch.probe import Kind, Probe, ProbeTools
from agentd.watch.reach import FAMILIES, TIMING_VARIABLES, HostName, IpVersion, Port, observe
from agentd.watch.starttls import MAX_LINE_BYTES, lead_to_tls


class TlsProbeSettings(Settings):
    """What stands under `tls:`."""

    host: HostName
    port: Port = 443
    starttls: Literal["none", "smtp", "imap", "pop3", "postgres"] = "none"
    server_name: HostName | None = Field(None, description="The name for SNI and the certificate, if not `host`")
    verify: bool = True
    ca_file: str | None = Field(None, description="PEM; trust these authorities instead of the system's")
    ip_version: IpVersion = "any"


class TlsProbe:
    def __init__(self, settings: TlsProbeSettings, name: str, tools: ProbeTools) -> None:
        self.wanted: frozenset[str] | None = None
        self._settings = settings
        self._tools = tools
        self._tls = TlsSettings(verify=True, ca_file=settings.ca_file)
        self._endpoint = Endpoint.of(
            settings.host, settings.port, family=FAMILIES[settings.ip_version], server_name=settings.server_name
        )

    async def look(self, timeout_s: float) -> Observation:
        return await observe(self._look, host=self._settings.host, tools=self._tools, timeout_s=timeout_s)

    async def close(self) -> None:
        pass

    async def _look(self, observation: Observation, timings: Timings, left_s: float) -> None:
        # Verified first, also with `verify: false`: `verified` and `verify_error` are worth knowing then too.
        try:
            await self._shake_hands(self._tls, observation, timings, left_s)
        except NetFailure as failure:
            if not failure.certificate_refused:
                raise
            observation.values["verified"] = False
            observation.values["verify_error"] = str(failure)
            unverified = Timings()
            try:
                await self._shake_hands(TlsSettings(verify=False), observation, unverified, left_s)
            except NetFailure as second:
                if not self._settings.verify:
                    raise
                observation.notes["certificate"] = f"could not be read: {second}"[:200]
            timings.tls_ms = unverified.tls_ms or timings.tls_ms
            if self._settings.verify:
                raise failure from None
        else:
            observation.values["verified"] = True
            observation.values["verify_error"] = ""
        finally:
            observation.values["tls_ms"] = timings.tls_ms

    async def _shake_hands(self, tls: TlsSettings, observation: Observation, timings: Timings, left_s: float) -> None:
        connection = StreamConnection(MAX_LINE_BYTES)
        try:
            await connect(connection, self._endpoint, timings, left_s)
            observation.notes["peer"] = connection.address
            if self._settings.starttls != "none":
                timings.step = f"in the {self._settings.starttls} dialogue before TLS"
                await lead_to_tls(connection, self._settings.starttls)
            await shake_hands(connection, tls, self._endpoint.server_name, timings)
            self._report(connection, observation)
            connection.close()
        finally:
            connection.abandon()

    def _report(self, connection: StreamConnection, observation: Observation) -> None:
        session = connection.tls
        assert session is not None
        values = observation.values
        cipher = session.cipher()
        values["protocol"] = session.version() or ""
        values["cipher"] = cipher[0] if cipher else ""
        certificate = connection.certificate()
        if certificate is None:
            raise NetFailure("the server's certificate cannot be read")
        values["cert_days_left"] = certificate.days_left(self._tools.clock.now())
        values["cert_subject"] = certificate.subject
        values["cert_issuer"] = certificate.issuer
        values["cert_sans"] = list(certificate.sans)
        values["cert_not_after"] = certificate.not_after.isoformat().replace("+00:00", "Z")


def _open(settings: TlsProbeSettings, name: str, tools: ProbeTools) -> Probe:
    return TlsProbe(settings, name, tools)


TLS = Kind(
    name="tls",
    settings=TlsProbeSettings,
    variables={
        "cert_days_left": "days until the certificate expires, negative when it has",
        "cert_not_after": "when the certificate expires, RFC 3339",
        "cert_subject": "whose certificate it is, e.g. CN=shop.example",
        "cert_issuer": "who signed it, e.g. CN=R3, O=Let's Encrypt",
        "cert_sans": "the host names and addresses it is valid for",
        "verified": "whether chain and name are right",
        "verify_error": "why they are not; empty when they are",
        "protocol": "e.g. TLSv1.3",
        "cipher": "e.g. TLS_AES_256_GCM_SHA384",
        "tls_ms": "milliseconds for the TLS handshake",
        **TIMING_VARIABLES,
    },
    open=_open,
    expect=("cert_days_left > 14",),
    every=3600.0,
)
