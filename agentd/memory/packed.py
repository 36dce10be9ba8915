"""
JSON and text that may be large, packed for the history file.

Promise: what was packed comes back as it was; what is small stays readable for whoever opens the file by hand.
"""

from __future__ import annotations

import zlib

_WORTH_PACKING = 1024
_LEVEL = 3
_MAX_BYTES = 64 * 2**20


def pack(text: str) -> str | bytes:
    """text: without lone surrogates. As it is when it is small, else compressed."""
    return text if len(text) <= _WORTH_PACKING else pack_bytes(text)


def pack_bytes(text: str) -> bytes:
    return zlib.compress(text.encode(), _LEVEL)


def unpack(stored: str | bytes) -> str:
    """What `pack` was given. Raises ValueError for bytes that it did not make."""
    if isinstance(stored, str):
        return stored
    unpacking = zlib.decompressobj()
    try:
        # Bounded: somebody may have put other bytes there than we did.
        return unpacking.decompress(stored, _MAX_BYTES).decode()
    except zlib.error as error:
        raise ValueError(f"stored bytes cannot be unpacked: {error}") from error
