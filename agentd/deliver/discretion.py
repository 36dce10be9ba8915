"""
May this text be shown? An answer that repeats an address or a secret may not.

In: the secret values of one attempt, and the bytes a receiver answered. Out: one harmless line.
Promise: no eight characters in a row of a secret, plain, percent-decoded or in another case, come through.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_RUN = 8
WITHHELD = "(answer withheld: it repeats the address or a secret)"


class Discretion:
    """Knows the secrets of one attempt."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._runs: set[str] = set()
        for secret in secrets:
            for form in (secret, unquote(secret)):
                self._learn(form.lower())
            # A path or query shorter than a run is still somebody's key.
            parts = urlsplit(secret) if "://" in secret else None
            if parts is not None and len(parts.path.strip("/")) >= 4:
                self._runs.add(parts.path.strip("/").lower())

    def shown(self, answer: bytes, chars: int) -> str:
        """The beginning of `answer` as one line of at most `chars` printable characters."""
        text = answer[: 4 * (chars + _RUN)].decode("utf-8", "replace")
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())[: chars + _RUN]
        for form in (line.lower(), unquote(line).lower(), line.replace("\\", "").lower()):
            if any(run in form for run in self._runs):
                return WITHHELD
        return line[:chars]

    def _learn(self, secret: str) -> None:
        secret = secret.removeprefix("https://").removeprefix("http://")
        if len(secret) < _RUN:
            if secret:
                self._runs.add(secret)
            return
        self._runs.update(secret[start : start + _RUN] for start in range(min(len(secret), 4096) - _RUN + 1))
