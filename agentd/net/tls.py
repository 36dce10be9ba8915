"""
TLS contexts, one per distinct settings, made at first use and kept.

In: `TlsSettings`. Out: `ssl.SSLContext`. Raises NetFailure (blind) when a file of ours cannot be used.
Promise: no context is built per check, none on the loop's own time, and a certificate or CA file that was renewed on
disk is taken up by the next check.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass

from agentd.net.address import NetFailure, threads

_MAX_CONTEXTS = 256

Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """
    verify: the chain and the name must be right. ca_file: PEM; trust these instead of the system's authorities.
    cert_file, key_file: PEM; the client certificate, its key in the same file when key_file is None.
    alpn: protocols to offer, most wanted first.
    """

    verify: bool = True
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    alpn: tuple[str, ...] = ()


_contexts: dict[TlsSettings, tuple[Stamp, ssl.SSLContext]] = {}
_paths = ssl.get_default_verify_paths()
_SYSTEM = (_paths.cafile, _paths.capath)


async def context_for(tls: TlsSettings) -> ssl.SSLContext:
    """The context of these settings. Raises NetFailure, blind, naming the file that cannot be used."""
    stamp = _stamp(tls)
    known = _contexts.get(tls)
    if known is not None and known[0] == stamp:
        return known[1]
    # Reading the system's authorities takes 20 ms and more.
    context = await asyncio.get_running_loop().run_in_executor(threads, _build, tls)
    _contexts[tls] = (stamp, context)
    while len(_contexts) > _MAX_CONTEXTS:
        del _contexts[next(iter(_contexts))]
    return context


def _stamp(tls: TlsSettings) -> Stamp:
    own = (tls.cert_file, tls.key_file)
    return tuple(_state(path) for path in ((tls.ca_file,) if tls.ca_file else _SYSTEM if tls.verify else ()) + own)


def _state(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _build(tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.verify:
        _trust(context, tls.ca_file)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    # Python 3.13 turned this on by default; private authorities of old fail it, and a watch must not change its
    # verdict with the interpreter.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.alpn:
        context.set_alpn_protocols(list(tls.alpn))
    if tls.cert_file:
        try:
            # Without the callback OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_passphrase)
        except (OSError, ValueError) as error:
            raise NetFailure(
                f"client certificate {tls.cert_file} cannot be used: {_why(error)}; "
                "it must be PEM, match its key, and the key must have no passphrase",
                blind=True,
            ) from error
    return context


def _trust(context: ssl.SSLContext, ca_file: str | None) -> None:
    if ca_file:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            raise NetFailure(f"ca_file {ca_file} cannot be used: {_why(error)}; it must be PEM", blind=True) from error
        return
    context.load_default_certs()
    if not (_paths.cafile or _paths.capath):
        # Pythons built elsewhere may look for the authorities in a folder that is not there.
        import certifi

        context.load_verify_locations(cafile=certifi.where())


def _no_passphrase() -> str:
    raise ValueError("the key has a passphrase")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return describe_tls(error)
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


def describe_tls(error: ssl.SSLError) -> str:
    """What OpenSSL complains of, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".") if error.verify_message else str(error)
    if error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error.args[-1]) if error.args else "unknown failure"
