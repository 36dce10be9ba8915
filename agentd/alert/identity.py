"""The fingerprint of an alert: the same things in the same place give the same alert, over restarts and releases."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def fingerprint(instance: str, watch: str, rule: str | None = None, by: Mapping[str, str] | None = None) -> str:
    """32 hexadecimal digits. Severity, labels, values and any text of a model stay out, so that they may change."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (instance, watch, rule or ""):
        _add(digest, part)
    for key in sorted(by or {}):
        _add(digest, key)
        _add(digest, (by or {})[key])
    return digest.hexdigest()


def _add(digest: hashlib.blake2b, part: str) -> None:
    data = part.encode("utf-8", "surrogateescape")
    # The length goes first: ("ab", "c") and ("a", "bc") are two alerts.
    digest.update(len(data).to_bytes(8, "big"))
    digest.update(data)
