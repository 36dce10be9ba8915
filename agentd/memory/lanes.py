"""
Lanes of the outbox as agentd named them before there were groups: after the watch. Now a lane is a group's key.

In and out: rows of the outbox, inside the caller's transaction.
Promise: what waited in its order waits in its order; for the time before anything is sent.
"""

from __future__ import annotations

import apsw

from agentd.memory.columns import text

_OUTSIDE = """
    SELECT DISTINCT fingerprint, webhook, lane FROM outbox
    WHERE fingerprint IS NOT NULL AND substr(lane, 1, 1) <> '{'"""
_MOVE = """
    UPDATE outbox SET lane = ?4, head = 0, leased = 0, ready_at = due_at
    WHERE fingerprint = ?1 AND webhook = ?2 AND lane = ?3"""
_UNHEAD = "UPDATE outbox SET head = 0 WHERE head = 1 AND webhook = ? AND lane = ?"
_HEAD = """
    UPDATE outbox SET head = 1
    WHERE seq = (SELECT min(seq) FROM outbox WHERE state = 'waiting' AND webhook = ? AND lane = ?)"""


def outside_groups(c: apsw.Connection) -> list[tuple[str, str, str]]:
    """Of messages about one alert in lanes that are no group's: its fingerprint, their webhook and lane."""
    return [(str(of), str(webhook), str(lane)) for of, webhook, lane in c.execute(_OUTSIDE)]


def change_lane(c: apsw.Connection, fingerprint: str, webhook: str, lane: str, other: str) -> None:
    """What tells of the alert in this lane, waiting or dead, takes its place in the other."""
    c.execute(_MOVE, (fingerprint, webhook, lane, text(other)))
    for each in (lane, text(other)):
        c.execute(_UNHEAD, (webhook, each))
        c.execute(_HEAD, (webhook, each))
