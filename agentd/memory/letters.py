"""
Letters about one alert: what waits for a webhook, what it would not take, what it took.

In: an alert, and the lanes that it is told of in. Out: rows of the outbox, newest first.
Promise: costs the same however much waits: of each lane the newest few hundred messages are looked at, no more.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import apsw

from agentd.clock import to_us
from agentd.memory import outbox
from agentd.memory.columns import text
from agentd.memory.outbox import OutboxRow

_LOOKED_THROUGH = 300

_HOMES = "SELECT DISTINCT webhook, key FROM group_members WHERE fingerprint = ? LIMIT 100"
# A message of a group names no alert: those of this incident, in the lane of a group that the alert is in, count.
_WAITING = f"""
    SELECT seq, id FROM
        (SELECT seq, id, fingerprint, created_at FROM outbox
         WHERE state = 'waiting' AND webhook = ?1 AND lane = ?2 ORDER BY seq DESC LIMIT {_LOOKED_THROUGH})
    WHERE fingerprint = ?3 OR (fingerprint IS NULL AND created_at >= ?4)"""
_DEAD = f"""
    SELECT seq, id FROM
        (SELECT seq, id, fingerprint, created_at FROM outbox
         WHERE state = 'dead' AND superseded = 0 AND webhook = ?1 AND lane = ?2 ORDER BY seq DESC
         LIMIT {_LOOKED_THROUGH})
    WHERE fingerprint = ?3 OR (fingerprint IS NULL AND created_at >= ?4)"""
_SUPERSEDED = f"""
    SELECT seq, id FROM
        (SELECT seq, id, webhook, lane, fingerprint, created_at, superseded FROM outbox INDEXED BY outbox_dead
         WHERE state = 'dead' ORDER BY dead_at DESC LIMIT {_LOOKED_THROUGH})
    WHERE superseded = 1 AND webhook = ?1 AND lane = ?2
      AND (fingerprint = ?3 OR (fingerprint IS NULL AND created_at >= ?4))"""
_TAKEN = """
    SELECT seq, id FROM delivered
    WHERE webhook = ?1 AND lane = ?2 AND (fingerprint = ?3 OR (fingerprint IS NULL AND created_at >= ?4))"""
# Of earlier incidents, or under other routes.
_TAKEN_BEFORE = "SELECT seq, id FROM delivered WHERE fingerprint = ?"


def about(
    c: apsw.Connection,
    fingerprint: str,
    *,
    webhooks: Collection[str],
    lane: str,
    since: datetime | None,
    limit: int = 50,
) -> list[OutboxRow]:
    """
    webhooks, lane: whom the alert is told to, and in which lane while it is in no group. since: when this incident
    began; None: it never did, so that no group has told of it.
    """
    lanes = {(str(webhook), str(key)) for webhook, key in c.execute(_HOMES, (fingerprint,))}
    lanes |= {(webhook, text(lane)) for webhook in webhooks}
    began = to_us(since) if since is not None else 2**62
    found: set[tuple[int, str]] = {(seq, id) for seq, id in c.execute(_TAKEN_BEFORE, (fingerprint,))}
    for webhook, key in sorted(lanes):
        for query in (_WAITING, _DEAD, _SUPERSEDED, _TAKEN):
            found |= {(seq, id) for seq, id in c.execute(query, (webhook, key, fingerprint, began))}
    newest = sorted(found, reverse=True)[:limit]
    return [row for _, id in newest if (row := outbox.get(c, id)) is not None]
