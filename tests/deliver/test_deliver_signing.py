"""Standard Webhooks signatures, judged by that standard's own library."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from receiver import Receiver, Request
from standardwebhooks import WebhookVerificationError

from agentd.deliver.signing import signed_headers, signing_key

NOW = datetime(2026, 1, 5, 12, 0, 7, 900_000, tzinfo=UTC)
OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 24).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 24).decode()
BODY = '{"type":"alert.firing","data":{"summary":"für Ölstand"}}'.encode()


def request(*secrets: str, body: bytes = BODY) -> Request:
    return Request("POST", "/", signed_headers("msg_1", NOW, BODY, secrets), body, 0.0)


def test_the_standards_own_library_accepts_the_signature() -> None:
    """Receivers use that library, not ours."""
    payload = Receiver.verify(request(OLD), OLD, now=NOW)

    assert payload["data"]["summary"] == "für Ölstand"


@pytest.mark.parametrize("known", [OLD, NEW])
def test_while_rotating_either_secret_verifies(known: str) -> None:
    """A secret is changed on two machines, never at the same moment."""
    Receiver.verify(request(NEW, OLD), known, now=NOW)


@pytest.mark.parametrize(
    ("tampered", "secret"),
    [(request(OLD, body=BODY + b" "), OLD), (request(OLD), OTHER)],
    ids=["body", "secret"],
)
def test_tampering_is_noticed(tampered: Request, secret: str) -> None:
    """The signature covers the body and needs the secret; else it is decoration."""
    with pytest.raises(WebhookVerificationError):
        Receiver.verify(tampered, secret, now=NOW)


def test_without_secrets_the_message_still_has_its_id() -> None:
    """Receivers drop duplicates by it, signed or not."""
    assert signed_headers("msg_1", NOW, BODY) == {"webhook-id": "msg_1", "webhook-timestamp": "1767614407"}


def test_unpadded_and_bare_secrets_are_read() -> None:
    """Both occur in what services hand out."""
    assert signing_key("whsec_bm5ubm4") == b"nnnnn"
    assert signing_key("bm5ubm4=\n") == b"nnnnn"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_not base64!", "whsec_äöü"])
def test_unreadable_secret_is_named_but_not_shown(secret: str) -> None:
    """A half-broken secret is still a secret."""
    with pytest.raises(ValueError, match="signing secret") as caught:
        signing_key(secret)

    assert "not base64" not in str(caught.value)
    assert "äöü" not in str(caught.value)
