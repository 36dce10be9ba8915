"""
What is remembered of a webhook over restarts: whether it is disabled, since when it fails, when it last worked.

In and out: rows of the state store, by the webhook's name. Never its URL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import apsw

from agentd.clock import from_optional_us, to_us
from agentd.memory.columns import text

_DISABLE = """
    INSERT INTO webhooks (name, disabled_at, reason) VALUES (?1, ?2, ?3)
    ON CONFLICT (name) DO UPDATE SET disabled_at = ?2, reason = ?3"""
_ENABLE = """
    UPDATE webhooks SET disabled_at = NULL, reason = NULL, failing_since = NULL
    WHERE name = ? AND disabled_at IS NOT NULL"""
_DISABLED = "SELECT name, reason FROM webhooks WHERE disabled_at IS NOT NULL ORDER BY name"
_FAILED = """
    INSERT INTO webhooks (name, failing_since) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET failing_since = ?2 WHERE failing_since IS NULL"""
_WORKED = """
    INSERT INTO webhooks (name, last_success) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET last_success = ?2, failing_since = NULL"""
_HEALTH = "SELECT name, disabled_at, reason, failing_since, last_success FROM webhooks ORDER BY name"
_FORGET = "DELETE FROM webhooks WHERE name = ?"


@dataclass(frozen=True, slots=True)
class Health:
    """failing_since: the first failure since the last success; None while all is well."""

    name: str
    disabled_at: datetime | None
    reason: str | None
    failing_since: datetime | None
    last_success: datetime | None


def disable(c: apsw.Connection, name: str, reason: str, at: datetime) -> None:
    """No message goes there until `enable`; what waits keeps waiting."""
    c.execute(_DISABLE, (name, to_us(at), text(reason)))


def enable(c: apsw.Connection, name: str) -> bool:
    """False when it was not disabled."""
    c.execute(_ENABLE, (name,))
    return c.changes() > 0


def disabled(c: apsw.Connection) -> dict[str, str]:
    """The reason of each disabled webhook, by name."""
    return {str(name): str(reason) for name, reason in c.execute(_DISABLED)}


def failed(c: apsw.Connection, name: str, at: datetime) -> None:
    """A send failed; remembers the first failure since the last success."""
    c.execute(_FAILED, (name, to_us(at)))


def worked(c: apsw.Connection, name: str, at: datetime) -> None:
    """A send succeeded."""
    c.execute(_WORKED, (name, to_us(at)))


def health(c: apsw.Connection) -> dict[str, Health]:
    """By name; a webhook that never sent anything has no row."""
    return {
        name: Health(name, from_optional_us(disabled_at), reason, from_optional_us(failing), from_optional_us(success))
        for name, disabled_at, reason, failing, success in _typed(c.execute(_HEALTH))
    }


def forget(c: apsw.Connection, name: str) -> None:
    """The config no longer names it."""
    c.execute(_FORGET, (name,))


def _typed(rows: apsw.Cursor) -> list[tuple[str, int | None, str | None, int | None, int | None]]:
    return rows.fetchall()  # type: ignore[return-value]  # STRICT tables hold what they declare
