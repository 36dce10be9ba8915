"""
Reaching other machines: which addresses are allowed, and the transport that probes measure with.

address      names to addresses, what counts as public, which failures are our own (`blind`)
certificate  what a certificate says, read from its DER bytes
connection   one TCP or TLS connection with its timings
http         one HTTP/1.1 exchange over such a connection
stream       such a connection read like a file
tls          TLS contexts, shared
transport    the same as an `httpx` transport; imports httpx, so it is not imported here

Promise: whatever the other side does ends as an answer or a `NetFailure`, within the caller's deadline and in
bounded memory, and cancelling leaves no socket behind.
"""

from __future__ import annotations

from agentd.net.address import NetFailure, classify, is_public, resolve, resolve_checked
from agentd.net.connection import Connection, Endpoint, Timings, connect
from agentd.net.stream import StreamConnection
from agentd.net.tls import TlsSettings

__all__ = [
    "Connection",
    "Endpoint",
    "NetFailure",
    "StreamConnection",
    "Timings",
    "TlsSettings",
    "classify",
    "connect",
    "is_public",
    "resolve",
    "resolve_checked",
]
