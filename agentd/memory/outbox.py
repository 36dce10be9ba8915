"""
The outbox: every message that a webhook has yet to take, and the dead letters.

In: deliveries, written with the alert's transition.  Out: the ones that may be sent now.
Promise: of each (webhook, lane) only the first waiting row may be sent, and it stays first until the receiver took it
or it was buried; so order holds over retries, crashes and restarts. Finding what may be sent costs the same
with ten rows waiting as with a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import apsw

from agentd.clock import from_optional_us, from_us, to_us
from agentd.memory.columns import first, optional_text, text, value
from agentd.records import Delivery, EventType

STATES = ("waiting", "claimed", "dead")
MAX_DELIVERED = 10_000
_MAX_ERROR = 500

_COLUMNS = """seq, id, webhook, lane, type, fingerprint, data, traceparent, created_at, due_at, attempts, last_error,
    last_status"""
_ROW = f"{_COLUMNS}, state, leased, ready_at, dead_at, superseded"

_OLD_REMINDER = """
    SELECT seq FROM outbox
    WHERE state = 'waiting' AND type = 'alert.reminder' AND fingerprint = ?1 AND webhook = ?2 AND lane = ?3
      AND leased = 0"""
# Only the last of the lane: whatever came after an older one would be overtaken by what it says. A group's labels may
# be named like anything, so it is the message's own reason that is read.
_OLD_REPEAT = """
    SELECT seq FROM outbox
    WHERE seq = (SELECT max(seq) FROM outbox WHERE state = 'waiting' AND webhook = ?1 AND lane = ?2)
      AND leased = 0 AND type = 'group.firing'
      AND iif(json_valid(data), json_extract(data, '$.reason'), '') = 'repeat'
      AND iif(json_valid(?3), json_extract(?3, '$.reason'), '') = 'repeat'
      AND iif(json_valid(?3), json_extract(?3, '$.part'), NULL) IS NULL"""  # the parts of one do not replace each other
_PUT = """
    INSERT INTO outbox (id, webhook, lane, type, fingerprint, data, traceparent, created_at, due_at, ready_at,
                        attempts, last_error, last_status, head)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12,
            NOT EXISTS (SELECT 1 FROM outbox WHERE state = 'waiting' AND webhook = ?2 AND lane = ?3))"""
# Steps from one webhook to the next in the index: a dead one's hundred thousand rows are one step.
_NEXT_WEBHOOK = "SELECT webhook FROM outbox WHERE head = 1 AND webhook > ? ORDER BY webhook LIMIT 1"
_READY = """
    SELECT ready_at, seq FROM outbox WHERE head = 1 AND webhook = ? AND ready_at <= ? ORDER BY ready_at, seq LIMIT ?"""
_CLAIM = f"UPDATE outbox SET leased = 1, ready_at = ?, attempts = attempts + 1 WHERE seq = ? RETURNING {_COLUMNS}"
_FIRST_READY = "SELECT ready_at FROM outbox WHERE head = 1 AND webhook = ? ORDER BY ready_at LIMIT 1"
_PLACE = "SELECT seq, webhook, lane, state, head, fingerprint, superseded FROM outbox WHERE id = ?"
_DELETE = "DELETE FROM outbox WHERE seq = ?"
_DROP = "DELETE FROM outbox WHERE seq = ? AND leased = 0"
_REMEMBER = """
    INSERT INTO delivered (id, seq, webhook, lane, type, fingerprint, created_at, delivered_at, attempts, status)
    SELECT id, seq, webhook, lane, type, fingerprint, created_at, ?2, attempts, ?3 FROM outbox WHERE seq = ?1"""
_FORGET = "DELETE FROM delivered WHERE number <= ?"
_SUPERSEDE = """
    UPDATE outbox SET superseded = 1
    WHERE state = 'dead' AND superseded = 0 AND fingerprint = ?1 AND webhook = ?2 AND lane = ?3 AND seq < ?4"""
# The all-clear of a lane: whatever is older in it, of one alert or of a group, is not to be sent again.
_SUPERSEDE_GROUP = """
    UPDATE outbox SET superseded = 1
    WHERE state = 'dead' AND superseded = 0 AND webhook = ?1 AND lane = ?2 AND seq < ?3"""
_TYPE = "SELECT type FROM outbox WHERE seq = ?"
_ALL_CLEAR = (EventType.RESOLVED.value, EventType.GROUP_RESOLVED.value)
# A dead letter that was revived while this one was being sent: it stands before it, and would arrive after it.
_OVERTAKE = """
    UPDATE outbox SET state = 'dead', dead_at = ?5, superseded = 1, head = 0, ready_at = due_at
    WHERE state = 'waiting' AND leased = 0 AND webhook = ?2 AND lane = ?3 AND seq < ?4 AND fingerprint = ?1"""
_DELAY = """
    UPDATE outbox SET due_at = ?2, ready_at = ?2, leased = 0, last_error = ?3, last_status = ?4
    WHERE id = ?1 AND state = 'waiting'"""
_BURY = """
    UPDATE outbox SET state = 'dead', dead_at = ?2, last_error = ?3, last_status = ?4, head = 0, leased = 0,
                      ready_at = due_at
    WHERE seq = ?1"""
_GIVE_BACK = """
    UPDATE outbox SET leased = 0, ready_at = due_at, attempts = max(attempts - 1, 0)
    WHERE id = ? AND state = 'waiting' AND leased = 1"""
_LEASED_HEAD = "SELECT 1 FROM outbox WHERE head = 1 AND webhook = ? AND lane = ? AND leased = 1"
_FIRST_IN_LANE = "SELECT seq FROM outbox WHERE state = 'waiting' AND webhook = ? AND lane = ? ORDER BY seq LIMIT 1"
_UNHEAD = "UPDATE outbox SET head = 0 WHERE head = 1 AND webhook = ? AND lane = ? AND seq <> ?"
_HEAD = "UPDATE outbox SET head = 1 WHERE seq = ? AND head = 0"
_HURRY = """
    UPDATE outbox SET due_at = ?2, ready_at = ?2
    WHERE seq IN (SELECT seq FROM outbox WHERE head = 1 AND webhook = ?1 AND ready_at > ?2 AND leased = 0
                  AND attempts > 0 ORDER BY ready_at LIMIT ?3)"""
_SET_BACK = """
    UPDATE outbox SET due_at = max(due_at - ?1, ?2), ready_at = max(ready_at - ?1, ?2)
    WHERE state = 'waiting' AND ready_at > ?2"""
_PULL_IN = """
    UPDATE outbox SET due_at = ?1, ready_at = ?1 WHERE state = 'waiting' AND leased = 0 AND due_at > ?2"""
_RELEASE_ALL = "UPDATE outbox SET leased = 0, ready_at = due_at WHERE head = 1 AND leased = 1"
_REVIVE = """
    UPDATE outbox SET state = 'waiting', dead_at = NULL, attempts = 0, created_at = ?2, due_at = ?2, ready_at = ?2,
                      leased = 0
    WHERE seq = ?1"""
_HELD = """
    SELECT seq, data, webhook, lane FROM outbox
    WHERE fingerprint = ?1 AND state = 'waiting' AND type = 'alert.firing' AND attempts = 0 AND leased = 0
      AND (?2 IS NULL OR webhook = ?2)"""
# What stands before a row and was put off for longer. None is put off for longer than what stands behind it, so the
# first that was not ends the search: a lane may hold a hundred thousand.
_LET_BEFORE_GO = """
    UPDATE outbox SET due_at = ?4, ready_at = ?4
    WHERE state = 'waiting' AND webhook = ?1 AND lane = ?2 AND seq < ?3 AND attempts = 0 AND leased = 0 AND due_at > ?4
      AND seq > coalesce((SELECT seq FROM outbox WHERE state = 'waiting' AND webhook = ?1 AND lane = ?2 AND seq < ?3
                          AND attempts = 0 AND due_at <= ?4 ORDER BY seq DESC LIMIT 1), 0)"""
_LET_GO = "UPDATE outbox SET data = ?2, due_at = ?3, ready_at = ?3 WHERE seq = ?1"
_NOW = "UPDATE outbox SET due_at = ?2, ready_at = ?2 WHERE seq = ?1 AND leased = 0"
_DEAD = """
    SELECT seq, webhook, lane FROM outbox
    WHERE state = 'dead' AND superseded = 0 AND (?1 IS NULL OR webhook = ?1) ORDER BY seq LIMIT ?2"""
_COUNT_DEAD = """
    SELECT count(*) FROM outbox WHERE state = 'dead' AND superseded = ?1 AND (?2 IS NULL OR webhook = ?2)"""
_UNDELIVERED = """
    SELECT webhook, count(*) FROM outbox WHERE state = 'dead' AND superseded = 0 GROUP BY webhook ORDER BY webhook"""
_GET = f"SELECT {_ROW} FROM outbox WHERE id = ?"
_GET_DELIVERED = """
    SELECT seq, id, webhook, lane, type, fingerprint, created_at, delivered_at, attempts, status
    FROM delivered WHERE id = ? ORDER BY number DESC LIMIT 1"""
_ROWS = f"""
    SELECT {_ROW} FROM outbox
    WHERE seq > ?1 AND (?2 IS NULL OR state = ?2 OR (?2 = 'claimed' AND state = 'waiting' AND leased = 1))
      AND (?3 IS NULL OR webhook = ?3)
    ORDER BY seq LIMIT ?4"""
_COUNTS = "SELECT webhook, state, count(*) FROM outbox GROUP BY webhook, state"
_OLDEST = """
    SELECT created_at FROM outbox WHERE state = 'waiting' AND (?1 IS NULL OR webhook = ?1) ORDER BY seq LIMIT 1"""
# Of what was not tried yet the due time counts: it may have been put off on purpose.
_WAITING_SINCE = """
    SELECT min(max(created_at, iif(attempts = 0, due_at, created_at))) FROM outbox WHERE head = 1 AND webhook = ?"""
_TRIM_OLD = """
    DELETE FROM outbox WHERE seq IN
        (SELECT seq FROM outbox WHERE state = 'dead' AND dead_at < ? ORDER BY dead_at LIMIT ?)"""
_TRIM_MANY = """
    DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox WHERE state = 'dead' ORDER BY dead_at LIMIT ?)"""
_ALL_DEAD = "SELECT count(*) FROM outbox WHERE state = 'dead'"


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """
    A delivery and where it stands, as `agentd outbox` shows it.

    state: `waiting`, `claimed` (being sent), `dead` or `delivered`; of a delivered one the data is gone ("").
    ended_at: when it died or was delivered. superseded: dead, and something newer about the same alert arrived since.
    """

    delivery: Delivery
    state: str
    ended_at: datetime | None = None
    superseded: bool = False


class Counts(NamedTuple):
    """Rows of one webhook; waiting counts the claimed ones too."""

    waiting: int
    dead: int


class Retried(NamedTuple):
    """What `retry_dead` did; superseded: dead ones that are not resent; left: dead ones for the next call."""

    retried: int
    superseded: int
    left: int


def put(c: apsw.Connection, delivery: Delivery) -> int:
    """
    Add a delivery to the end of its lane; returns its seq.

    A reminder takes the place of an older one about the same alert that still waits unclaimed; one of a group, of the
    older one that is the last of its lane. What stands before it in the lane and nobody tried yet is due no later.
    Raises apsw.ConstraintError when the id is there already.
    """
    lane, data = text(delivery.lane), text(delivery.data)
    older: list[tuple[Any, ...]] = []
    if delivery.type is EventType.REMINDER and delivery.fingerprint is not None:
        older = c.execute(_OLD_REMINDER, (delivery.fingerprint, delivery.webhook, lane)).fetchall()
    elif delivery.type is EventType.GROUP_FIRING:
        older = c.execute(_OLD_REPEAT, (delivery.webhook, lane, data)).fetchall()
    for (old,) in older:
        c.execute(_DELETE, (old,))
        _move_head(c, delivery.webhook, lane)
    due_us = to_us(delivery.due_at)
    c.execute(
        _PUT,
        (
            delivery.id,
            delivery.webhook,
            lane,
            delivery.type.value,
            delivery.fingerprint,
            data,
            delivery.traceparent,
            to_us(delivery.created_at),
            due_us,
            delivery.attempts,
            _short(delivery.last_error),
            delivery.last_status,
        ),
    )
    seq = c.last_insert_rowid()
    c.execute(_LET_BEFORE_GO, (delivery.webhook, lane, seq, due_us))
    return seq


def claim(
    c: apsw.Connection, *, now: datetime, lease_until: datetime, skip: Collection[str] = (), limit: int
) -> list[Delivery]:
    """
    Lease up to `limit` deliveries that may be sent now, and count an attempt of each.

    skip: webhooks to leave alone (disabled, breaker open, sending enough already).
    Each webhook gets its turn: the oldest due of every webhook first, then the second of every one.
    """
    turns: list[tuple[int, int, int]] = []
    for webhook in _webhooks(c, skip):
        ready = c.execute(_READY, (webhook, to_us(now), limit))
        turns.extend((turn, ready_at, seq) for turn, (ready_at, seq) in enumerate(ready))
    turns.sort()
    until = to_us(lease_until)
    return [_delivery(c.execute(_CLAIM, (until, seq)).fetchall()[0]) for _, _, seq in turns[:limit]]


def next_due(c: apsw.Connection, *, skip: Collection[str] = ()) -> datetime | None:
    """When the next delivery may be claimed (maybe in the past), or a lease ends; None when nothing waits."""
    moments = [row[0] for webhook in _webhooks(c, skip) for row in c.execute(_FIRST_READY, (webhook,))]
    return from_us(min(moments)) if moments else None


def done(c: apsw.Connection, id: str, now: datetime, status: int | None) -> bool:
    """
    The receiver took it: the row goes, the next of its lane becomes first, and what is older of the same alert, dead or
    revived meanwhile, is superseded. status: the HTTP status. Returns False when the row is gone.
    """
    place = _place(c, id)
    if place is None:
        return False
    seq, webhook, lane, _, _, fingerprint, _ = place
    if value(c.execute(_TYPE, (seq,))) in _ALL_CLEAR:
        c.execute(_SUPERSEDE_GROUP, (webhook, lane, seq))
    c.execute(_REMEMBER, (seq, to_us(now), status))
    c.execute(_FORGET, (c.last_insert_rowid() - MAX_DELIVERED,))
    c.execute(_DELETE, (seq,))
    if fingerprint is not None:
        c.execute(_SUPERSEDE, (fingerprint, webhook, lane, seq))
        c.execute(_OVERTAKE, (fingerprint, webhook, lane, seq, to_us(now)))
    _move_head(c, webhook, lane)
    return True


def delay(c: apsw.Connection, id: str, *, due_at: datetime, error: str, status: int | None = None) -> bool:
    """The receiver did not take it: not before `due_at` again. False when the row is gone."""
    c.execute(_DELAY, (id, to_us(due_at), _short(error), status))
    if not c.changes():
        return False
    place = _place(c, id)
    assert place is not None
    _move_head(c, place[1], place[2])
    return True


def bury(c: apsw.Connection, id: str, *, now: datetime, error: str, status: int | None = None) -> bool:
    """Give up: the row becomes a dead letter and its lane goes on without it. False when the row is gone."""
    place = _place(c, id)
    if place is None:
        return False
    c.execute(_BURY, (place[0], to_us(now), _short(error), status))
    _move_head(c, place[1], place[2])
    return True


def give_back(c: apsw.Connection, id: str) -> bool:
    """It was claimed and not tried: no lease, and no attempt counted. False when it is not under a lease."""
    c.execute(_GIVE_BACK, (id,))
    if not c.changes():
        return False
    place = _place(c, id)
    assert place is not None
    _move_head(c, place[1], place[2])
    return True


def complete(
    c: apsw.Connection, fingerprint: str, webhook: str | None, change: Callable[[str], str | None], now: datetime
) -> int:
    """
    Change first messages of an alert that nobody tried to send yet, and let them go now, with what stands before them
    in their lanes; returns how many changed.

    change: gives the new data, None to leave a message as it is. webhook: None means all.
    """
    changed = 0
    for seq, data, of, lane in c.execute(_HELD, (fingerprint, webhook)).fetchall():
        if (new := change(str(data))) is not None:
            c.execute(_LET_GO, (seq, text(new), to_us(now)))
            c.execute(_LET_BEFORE_GO, (of, lane, seq, to_us(now)))
            changed += 1
    return changed


def hurry(c: apsw.Connection, webhook: str, now: datetime, *, limit: int = 500) -> int:
    """
    The receiver is back: what failed before is due now. Returns how many rows moved; call again while that is `limit`.

    Rows not yet tried keep their due time: they wait for another reason.
    """
    c.execute(_HURRY, (webhook, to_us(now), limit))
    return c.changes()


def set_back(c: apsw.Connection, by: timedelta, now: datetime) -> int:
    """
    The wall clock was set back `by`, and is `now`: what waits shall wait no longer for that. Returns how many moved.

    A clock set forward needs nothing: what becomes due too early is tried too early.
    """
    c.execute(_SET_BACK, (by // timedelta(microseconds=1), to_us(now)))
    return c.changes()


def pull_in(c: apsw.Connection, now: datetime, *, longest: timedelta) -> int:
    """
    What is due later than `longest` from `now` is due now: nothing is made to wait that long, so it was written while
    the wall clock was ahead. Returns how many moved. Rows under a lease stay.
    """
    c.execute(_PULL_IN, (to_us(now), to_us(now + longest)))
    return c.changes()


def release_all(c: apsw.Connection) -> int:
    """Forget every lease: at start, nobody of the process that took them is left. Returns how many there were."""
    c.execute(_RELEASE_ALL)
    return c.changes()


def retry(c: apsw.Connection, id: str, now: datetime) -> str:
    """
    Send this one now. A dead letter goes back to its place in the lane, its attempts and its 72 hours begin anew.

    Returns `retried`, `superseded` (not resent: the receiver has newer about the same alert), `claimed` (being sent
    already) or `missing`.
    """
    place = _place(c, id)
    if place is None:
        return "missing"
    seq, webhook, lane, state, _, _, superseded = place
    if superseded:
        return "superseded"
    if state == "dead":
        _revive(c, seq, webhook, lane, now)
        return "retried"
    c.execute(_NOW, (seq, to_us(now)))
    return "retried" if c.changes() else "claimed"


def retry_dead(c: apsw.Connection, now: datetime, webhook: str | None = None, *, limit: int = 500) -> Retried:
    """
    Send up to `limit` dead letters again, oldest first, of one webhook or all; call again while some are left.
    """
    dead: list[Any] = c.execute(_DEAD, (webhook, limit)).fetchall()
    for seq, of, lane in dead:
        _revive(c, seq, of, lane, now)
    left = value(c.execute(_COUNT_DEAD, (0, webhook)))
    superseded = value(c.execute(_COUNT_DEAD, (1, webhook)))
    return Retried(len(dead), superseded, left)


def drop(c: apsw.Connection, id: str) -> str:
    """
    Delete a row for good, waiting or dead.

    Returns `dropped`, `claimed` (being sent: its lane may not go on before the outcome is known) or `missing`.
    """
    place = _place(c, id)
    if place is None:
        return "missing"
    c.execute(_DROP, (place[0],))
    if not c.changes():
        return "claimed"
    _move_head(c, place[1], place[2])
    return "dropped"


def get(c: apsw.Connection, id: str) -> OutboxRow | None:
    """One row, also of those delivered lately."""
    if row := first(c.execute(_GET, (id,))):
        return _row(row)
    if row := first(c.execute(_GET_DELIVERED, (id,))):
        seq, id, webhook, lane, type_, fingerprint, created_at, delivered_at, attempts, status = row
        created = from_us(created_at)
        delivery = Delivery(
            id, webhook, lane, EventType(type_), "", created, created, fingerprint, None, attempts, None, status, seq
        )
        return OutboxRow(delivery, "delivered", from_us(delivered_at))
    return None


def rows(
    c: apsw.Connection,
    *,
    state: str | None = None,
    webhook: str | None = None,
    limit: int = 100,
    after: int | None = None,
) -> list[OutboxRow]:
    """
    Rows in the order they were written. state: one of STATES, of which `waiting` gives the claimed ones too;
    after: the seq of the last row of the page before.
    """
    return [_row(row) for row in c.execute(_ROWS, (after or 0, state, webhook, limit))]


def counts(c: apsw.Connection) -> dict[str, Counts]:
    """By webhook, those with rows only."""
    found: dict[str, Counts] = {}
    for webhook, state, count in c.execute(_COUNTS):
        found[webhook] = found.get(webhook, Counts(0, 0))._replace(**{state: count})
    return found


def undelivered(c: apsw.Connection) -> dict[str, int]:
    """The dead letters by webhook that nothing newer about the same alert has overtaken."""
    return {str(webhook): int(count) for webhook, count in c.execute(_UNDELIVERED)}


def oldest_waiting(c: apsw.Connection, webhook: str | None = None) -> datetime | None:
    """When the longest waiting delivery was made."""
    row = first(c.execute(_OLDEST, (webhook,)))
    return from_us(row[0]) if row else None


def waiting_since(c: apsw.Connection, webhooks: Collection[str]) -> dict[str, datetime]:
    """Since when the longest waiting message of each of these webhooks could have been sent; no entry without any."""
    since = {name: first(c.execute(_WAITING_SINCE, (name,))) for name in webhooks}
    return {name: from_us(row[0]) for name, row in since.items() if row is not None and row[0] is not None}


def trim_dead(
    c: apsw.Connection,
    now: datetime,
    *,
    max_rows: int = 10_000,
    max_age: timedelta = timedelta(days=90),
    limit: int = 500,
) -> int:
    """Delete up to `limit` dead letters that are too old or too many, oldest first; returns how many went."""
    c.execute(_TRIM_OLD, (to_us(now - max_age), limit))
    gone = c.changes()
    surplus = value(c.execute(_ALL_DEAD)) - max_rows
    if surplus > 0 and gone < limit:
        c.execute(_TRIM_MANY, (min(surplus, limit - gone),))
        gone += c.changes()
    return gone


def _webhooks(c: apsw.Connection, skip: Collection[str]) -> list[str]:
    found: list[str] = []
    last = ""
    while step := first(c.execute(_NEXT_WEBHOOK, (last,))):
        last = step[0]
        if last not in skip:
            found.append(last)
    return found


def _place(c: apsw.Connection, id: str) -> tuple[Any, ...] | None:
    return first(c.execute(_PLACE, (id,)))


def _move_head(c: apsw.Connection, webhook: str, lane: str) -> None:
    """Mark the first waiting row of the lane; a row that is being sent stays the head until its outcome is known."""
    if c.execute(_LEASED_HEAD, (webhook, lane)).fetchall():
        return
    if row := first(c.execute(_FIRST_IN_LANE, (webhook, lane))):
        c.execute(_UNHEAD, (webhook, lane, row[0]))
        c.execute(_HEAD, (row[0],))


def _revive(c: apsw.Connection, seq: int, webhook: str, lane: str, now: datetime) -> None:
    c.execute(_REVIVE, (seq, to_us(now)))
    _move_head(c, webhook, lane)


def _short(error: str | None) -> str | None:
    return optional_text(error[:_MAX_ERROR]) if error is not None else None


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(
        seq=row[0],
        id=row[1],
        webhook=row[2],
        lane=row[3],
        type=EventType(row[4]),
        fingerprint=row[5],
        data=row[6],
        traceparent=row[7],
        created_at=from_us(row[8]),
        due_at=from_us(row[9]),
        attempts=row[10],
        last_error=row[11],
        last_status=row[12],
    )


def _row(row: tuple[Any, ...]) -> OutboxRow:
    state, leased, _, dead_at, superseded = row[13:]
    return OutboxRow(
        _delivery(row),
        "claimed" if state == "waiting" and leased else state,
        from_optional_us(dead_at),
        bool(superseded),
    )
