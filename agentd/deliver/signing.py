"""
Standard Webhooks signatures (specification 1.0.0, "Signature scheme").

In: secrets, message id, moment of the attempt, body.  Out: the three `webhook-…` headers.
Promise: the id stays over all attempts, the timestamp is the attempt's own; with several secrets one signature each,
so that a receiver that knows any of them is content while they rotate.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

PREFIX = "whsec_"


def signing_key(secret: str) -> bytes:
    """The key in `whsec_…`. Raises ValueError, without the secret, when it is not that."""
    encoded = secret.strip().removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"cannot read the signing secret; it is {PREFIX} followed by base64, as in {PREFIX}MfKQ9r8G…")
    return key


def signed_headers(id: str, at: datetime, body: bytes, secrets: Iterable[str] = ()) -> dict[str, str]:
    """
    The headers of one attempt; no signature among them when there are no secrets. Raises ValueError (signing_key).
    """
    timestamp = str(int(at.timestamp()))
    headers = {"webhook-id": id, "webhook-timestamp": timestamp}
    content = f"{id}.{timestamp}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.new(signing_key(secret), content, hashlib.sha256).digest()).decode()
        for secret in secrets
    ]
    if signatures:
        headers["webhook-signature"] = " ".join(signatures)
    return headers
