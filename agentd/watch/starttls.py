"""
The plain-text dialogues that lead to TLS: SMTP (RFC 3207), IMAP (RFC 9051), POP3 (RFC 2595), PostgreSQL.

In: a fresh connection. Out: the same one at the point where TLS begins. Raises NetFailure.
Promise: bytes that came in before TLS and belong to no reply end the dialogue: whoever put them there wants them taken
for protected ones (the injection of CVE-2011-0411 and its kin).
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

from agentd.net.address import NetFailure
from agentd.net.stream import StreamConnection

MAX_LINE_BYTES = 16384
_MAX_LINES = 200
# PostgreSQL, "Message Formats": SSLRequest is the length 8 and the code 1234·65536 + 5679.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


async def smtp(connection: StreamConnection) -> None:
    await _smtp_reply(connection, b"220", "greeting")
    connection.write(b"EHLO agentd.invalid\r\n")
    offers = await _smtp_reply(connection, b"250", "EHLO")
    if not any(offer[4:].strip().upper() == b"STARTTLS" for offer in offers):
        raise NetFailure("the SMTP server does not offer STARTTLS")
    connection.write(b"STARTTLS\r\n")
    await _smtp_reply(connection, b"220", "STARTTLS")


async def _smtp_reply(connection: StreamConnection, code: bytes, to: str) -> list[bytes]:
    lines = []
    for _ in range(_MAX_LINES):
        line = await connection.read_line()
        lines.append(line)
        if line[:3] != code:
            raise NetFailure(f"the SMTP server's answer to {to} is {_shown(line)}")
        if line[3:4] != b"-":
            return lines
    raise NetFailure(f"the SMTP server's answer to {to} has more than {_MAX_LINES} lines")


async def imap(connection: StreamConnection) -> None:
    greeting = await connection.read_line()
    if not greeting.upper().startswith(b"* OK"):
        raise NetFailure(f"the IMAP server's greeting is {_shown(greeting)}")
    connection.write(b"a1 STARTTLS\r\n")
    for _ in range(_MAX_LINES):
        line = await connection.read_line()
        if line.startswith(b"* "):
            continue
        if not line.upper().startswith(b"A1 OK"):
            raise NetFailure(f"the IMAP server's answer to STARTTLS is {_shown(line)}")
        return
    raise NetFailure(f"the IMAP server's answer to STARTTLS has more than {_MAX_LINES} lines")


async def pop3(connection: StreamConnection) -> None:
    greeting = await connection.read_line()
    if not greeting.startswith(b"+OK"):
        raise NetFailure(f"the POP3 server's greeting is {_shown(greeting)}")
    connection.write(b"STLS\r\n")
    answer = await connection.read_line()
    if not answer.startswith(b"+OK"):
        raise NetFailure(f"the POP3 server's answer to STLS is {_shown(answer)}")


async def postgres(connection: StreamConnection) -> None:
    connection.write(_SSL_REQUEST)
    answer = await connection.read_exactly(1)
    if answer == b"N":
        raise NetFailure("the PostgreSQL server does not offer TLS")
    if answer != b"S":
        raise NetFailure(f"the PostgreSQL server's answer to the TLS request is {_shown(answer)}")


DIALOGUES: dict[str, Callable[[StreamConnection], Awaitable[None]]] = {
    "smtp": smtp,
    "imap": imap,
    "pop3": pop3,
    "postgres": postgres,
}


async def lead_to_tls(connection: StreamConnection, protocol: str) -> None:
    """Hold the protocol's dialogue up to the point where the TLS handshake begins. Raises NetFailure."""
    await DIALOGUES[protocol](connection)
    if connection.buffer:
        raise NetFailure("bytes came in between the last plain-text reply and TLS; somebody may be injecting them")


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("ascii", "replace"))
