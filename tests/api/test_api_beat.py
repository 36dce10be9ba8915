"""A job's failure is never taken for its success."""

from __future__ import annotations

import pytest

from agentd.api.beat import read_beat
from agentd.errors import ConfigError


@pytest.mark.parametrize(
    ("body", "query", "ok", "message"),
    [
        (b"", {}, True, ""),
        (b"412 files", {"token": "x"}, True, "412 files"),
        (b"", {"status": "ok"}, True, ""),
        (b"disk full", {"status": "failed"}, False, "disk full"),
        (b'{"ok": false, "message": "disk full"}', {}, False, "disk full"),
        (b' {"status": "failed"}', {}, False, ""),
        (b'{"status": "ok", "message": "fine", "took_s": 3}', {}, True, "fine"),
        (b'{"status": "failed", "ok": true}', {}, False, ""),
        (b'{"ok": true}', {"status": "failed"}, False, ""),
        (b'{"ok": false}', {"status": "ok"}, False, ""),
        (b"{not json", {}, True, "{not json"),
        (b"[1]", {}, True, "[1]"),
        (b"{" * 50_000, {}, True, "{" * 50_000),
        (b"\xff", {}, True, "\ufffd"),
    ],
)
def test_a_job_says_how_it_went(body: bytes, query: dict[str, str], ok: bool, message: str) -> None:
    """In the ways that people try first."""
    assert read_beat(body, list(query.items())) == (ok, message)


def test_of_two_claims_the_failure_counts() -> None:
    """Whoever says both does not mean that it went well."""
    assert read_beat(b"", [("status", "failed"), ("status", "ok")]) == (False, "")


@pytest.mark.parametrize(
    ("body", "query", "says"),
    [
        (b"", {"ok": "false"}, "ok: no such parameter; write ?status="),
        (b"", {"status": "error"}, "status: write ok or failed"),
        (b'{"status": "error"}', {}, "status: write ok or failed"),
        (b'{"status": ["failed"]}', {}, "status: write ok or failed"),
        (b'{"status": null}', {}, "status: write ok or failed"),
        (b'{"ok": "false"}', {}, "ok: write true or false"),
        (b'{"ok": 0}', {}, "ok: write true or false"),
        (b'{"message": 5}', {}, "message: write a text"),
        (b'{"ok": false, "message": "bad "quote""}', {}, "the body begins like JSON but is none"),
        (b'{"ok": false, "n": ' + b"9" * 5000 + b"}", {}, "the body begins like JSON but is none"),
        (b'{"a":' * 5000, {}, "the body begins like JSON but is none"),
    ],
)
def test_what_is_not_understood_is_refused(body: bytes, query: dict[str, str], says: str) -> None:
    """A guess would be "it went well" for a job that said the contrary."""
    with pytest.raises(ConfigError) as refused:
        read_beat(body, list(query.items()))

    assert str(refused.value).startswith(says)
