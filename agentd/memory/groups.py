"""
Groups of alerts for each webhook: who is in them, what the webhook knows of them, when they are looked at next.

In and out: plain rows, inside the caller's transaction; what is told when is decided in `alert.grouping`.
Promise: an alert that fired for a webhook stays in its group until a look has seen its end, over restarts too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import apsw

from agentd.clock import from_optional_us, from_us, optional_us, to_us
from agentd.memory.columns import first, from_json, optional_text, text, to_json
from agentd.records import EventType

_GROUP = (
    "SELECT webhook, key, labels, first_at, look_at, pace, told_at, told_firing, told_resolved, told_muted, reminders "
    "FROM groups"
)
_GET = f"{_GROUP} WHERE webhook = ? AND key = ?"
_DUE = "SELECT webhook, key FROM groups WHERE look_at <= ? ORDER BY look_at LIMIT ?"
_NEXT = "SELECT min(look_at) FROM groups WHERE look_at IS NOT NULL"
_ALL = f"{_GROUP} ORDER BY webhook, key LIMIT ?"
_OPEN = """
    INSERT INTO groups (webhook, key, labels, first_at, look_at, pace) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
    ON CONFLICT DO NOTHING"""
_PACE = "UPDATE groups SET pace = ? WHERE webhook = ? AND key = ?"
_SOONER = "UPDATE groups SET look_at = min(coalesce(look_at, ?1), ?1) WHERE webhook = ?2 AND key = ?3"
_TOLD = """
    UPDATE groups SET look_at = ?, told_at = ?, told_firing = ?, told_resolved = ?, told_muted = ?, reminders = ?
    WHERE webhook = ? AND key = ?"""
_CLOSE = "DELETE FROM groups WHERE webhook = ? AND key = ?"
_MEMBER = """
    INSERT INTO group_members (webhook, key, fingerprint, firing, one_off, news, event, at, fired, data, traceparent)
    VALUES (?1, ?2, ?3, 1, 0, ?8, ?4, ?5, ?6, ?6, ?7)
    ON CONFLICT (webhook, key, fingerprint) DO UPDATE
    SET firing = 1, one_off = 0, muted = 0, news = ?8, event = ?4, at = ?5, fired = ?6, data = ?6, traceparent = ?7"""
_RESOLVE = """
    UPDATE group_members SET firing = 0, one_off = ?2, at = ?3, data = ?4, traceparent = ?5, muted = ?6
    WHERE fingerprint = ?1 AND firing = 1 RETURNING webhook, key"""
_MEMBERS = """
    SELECT fingerprint, firing, one_off, news, muted, event, at, traceparent FROM group_members
    WHERE webhook = ? AND key = ? ORDER BY at, fingerprint"""
_DATA = "SELECT fired, data FROM group_members WHERE webhook = ? AND key = ? AND fingerprint = ?"
_RENEW = "UPDATE group_members SET fired = ?4, data = ?4 WHERE webhook = ?1 AND key = ?2 AND fingerprint = ?3"
_HOME = """
    SELECT key, firing = 0 AND one_off = 1 FROM group_members WHERE fingerprint = ? AND webhook = ?
    ORDER BY firing DESC, key = ? DESC LIMIT 1"""
_ADOPT = """
    UPDATE groups
    SET told_at = max(coalesce(told_at, ?1), ?1), told_firing = ?2, look_at = min(coalesce(look_at, ?3), ?3)
    WHERE webhook = ?4 AND key = ?5"""
_OLD_NEWS = "UPDATE group_members SET news = 0 WHERE webhook = ? AND key = ? AND news = 1"
_LEAVE = "DELETE FROM group_members WHERE webhook = ? AND key = ? AND fingerprint = ?"
_NOT_LATER = """
    UPDATE groups SET first_at = min(first_at, ?1), look_at = min(look_at, ?1), told_at = min(told_at, ?1)
    WHERE told_at > ?1"""
# What waits for its next message waits an interval; what was told and is no news, for the reminder after that.
_TOO_LATE = """
    UPDATE groups SET first_at = min(first_at, ?1), look_at = ?1
    WHERE look_at > ?1 + 1000000 * max(pace ->> 0, ?2) AND (
        told_at IS NULL
        OR look_at > ?1 + 1000000 * (max(pace ->> 0, ?2) + max(coalesce(pace ->> 1, 0), (pace ->> 2) * ?3))
        OR EXISTS (
            SELECT 1 FROM group_members AS m WHERE m.webhook = groups.webhook AND m.key = groups.key
            AND (m.firing = 0 OR m.news = 1 OR m.fingerprint NOT IN (SELECT value FROM json_each(told_firing)))))"""
_FIRING = "SELECT DISTINCT fingerprint FROM group_members WHERE webhook = ? AND key = ? AND firing = 1"


@dataclass(frozen=True, slots=True)
class PaceRow:
    """How a group goes: seconds, None for no reminders. Of the alert that changed it last."""

    interval_s: float
    repeat_s: float | None
    doubling: bool


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as it is stored. told_*: see `alert.grouping.Told`."""

    webhook: str
    key: str
    labels: Mapping[str, str]
    first_at: datetime
    look_at: datetime | None
    pace: PaceRow
    told_at: datetime | None = None
    told_firing: frozenset[str] = frozenset()
    told_resolved: frozenset[str] = frozenset()
    told_muted: frozenset[str] = frozenset()
    reminders: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """
    An alert in a group. one_off: over, and to be told in any case. news: to be told again. muted: it was when it
    ended. at: of its last change. event: what its firing is told as.
    """

    fingerprint: str
    firing: bool
    one_off: bool
    news: bool
    muted: bool
    event: EventType
    at: datetime
    traceparent: str | None


def get(c: apsw.Connection, webhook: str, key: str) -> GroupRow | None:
    row = first(c.execute(_GET, (webhook, key)))
    return _group(row) if row else None


def all_groups(c: apsw.Connection, limit: int = 1000) -> list[GroupRow]:
    return [_group(row) for row in c.execute(_ALL, (limit,))]


def open_group(
    c: apsw.Connection, webhook: str, key: str, labels: Mapping[str, str], first_at: datetime, pace: PaceRow
) -> None:
    """Begin a group, if it is not there; its pace is that of the newest alert."""
    pacing = to_json([pace.interval_s, pace.repeat_s, pace.doubling])
    c.execute(_OPEN, (text(webhook), text(key), text(to_json(labels)), to_us(first_at), pacing))
    if not c.changes():
        c.execute(_PACE, (pacing, webhook, text(key)))


def join(
    c: apsw.Connection,
    webhook: str,
    key: str,
    fingerprint: str,
    *,
    event: EventType,
    at: datetime,
    data: str,
    traceparent: str | None,
) -> None:
    """An alert fires, or is news again, in a group that is open."""
    news = event is not EventType.FIRING
    named = (text(webhook), text(key), fingerprint, event.value)
    c.execute(_MEMBER, (*named, to_us(at), text(data), optional_text(traceparent), int(news)))


def resolve(
    c: apsw.Connection,
    fingerprint: str,
    *,
    one_off: bool,
    muted: bool,
    at: datetime,
    data: str,
    traceparent: str | None,
) -> list[tuple[str, str]]:
    """An alert is over, in whatever groups it is; returns these."""
    values = (int(one_off), to_us(at), text(data), optional_text(traceparent), int(muted))
    rows = c.execute(_RESOLVE, (fingerprint, *values))
    return [(str(webhook), str(key)) for webhook, key in rows]


def members(c: apsw.Connection, webhook: str, key: str) -> list[Member]:
    """The oldest change first."""
    return [
        Member(
            fingerprint,
            bool(firing),
            bool(one_off),
            bool(news),
            bool(muted),
            EventType(event),
            from_us(at),
            traceparent,
        )
        for fingerprint, firing, one_off, news, muted, event, at, traceparent in c.execute(_MEMBERS, (webhook, key))
    ]


def data_of(c: apsw.Connection, webhook: str, key: str, fingerprint: str) -> tuple[str, str]:
    """The payload's data of a member, JSON text: as it fired, and as it is."""
    row = c.execute(_DATA, (webhook, key, fingerprint)).fetchall()[0]
    return str(row[0]), str(row[1])


def renew(c: apsw.Connection, webhook: str, key: str, fingerprint: str, data: str) -> None:
    """What is to be told of a member that nobody was told of yet; data: the payload's, JSON text."""
    c.execute(_RENEW, (webhook, text(key), fingerprint, text(data)))


def leave(c: apsw.Connection, webhook: str, key: str, fingerprints: Collection[str]) -> None:
    if fingerprints:
        c.executemany(_LEAVE, [(webhook, key, each) for each in fingerprints])


def look_sooner(c: apsw.Connection, webhook: str, key: str, at: datetime) -> None:
    """The next look is at this moment at the latest."""
    c.execute(_SOONER, (to_us(at), webhook, key))


def home(c: apsw.Connection, webhook: str, key: str, fingerprint: str) -> tuple[str, bool] | None:
    """
    The group that the alert is in, this one if it is in several, and whether its last incident is over and has still
    to be told as an event; None: it is in no group of the webhook.
    """
    row = first(c.execute(_HOME, (fingerprint, webhook, text(key))))
    return (str(row[0]), bool(row[1])) if row else None


def known(
    c: apsw.Connection, webhook: str, key: str, fingerprints: Collection[str], told_at: datetime, look_at: datetime
) -> None:
    """The webhook was told of these before the group was made; what is due since is found out by a look."""
    group = get(c, webhook, key)
    assert group is not None, "a group is opened before anything is known of it"
    told = to_json(sorted({*group.told_firing, *fingerprints}))
    c.execute(_ADOPT, (to_us(told_at), told, to_us(look_at), webhook, text(key)))


def looked(c: apsw.Connection, group: GroupRow) -> None:
    """Store what the webhook knows now, and when to look again; nothing in the group is news any more."""
    c.execute(_OLD_NEWS, (group.webhook, group.key))
    c.execute(
        _TOLD,
        (
            optional_us(group.look_at),
            optional_us(group.told_at),
            to_json(sorted(group.told_firing)),
            to_json(sorted(group.told_resolved)),
            to_json(sorted(group.told_muted)),
            group.reminders,
            group.webhook,
            group.key,
        ),
    )


def close_group(c: apsw.Connection, webhook: str, key: str) -> None:
    c.execute(_CLOSE, (webhook, key))


def due(c: apsw.Connection, now: datetime, limit: int) -> list[tuple[str, str, list[str]]]:
    """The groups to be looked at, with the fingerprints that fire in them."""
    found: list[Any] = c.execute(_DUE, (to_us(now), limit)).fetchall()
    return [
        (webhook, key, [str(fingerprint) for (fingerprint,) in c.execute(_FIRING, (webhook, key))])
        for webhook, key in found
    ]


def next_look(c: apsw.Connection) -> datetime | None:
    row = first(c.execute(_NEXT))
    return from_optional_us(row[0]) if row else None


def set_back(c: apsw.Connection, by: timedelta) -> None:
    """The wall clock was set back `by`: what was planned and done under it moves along, or it would wait as long."""
    microseconds = by // timedelta(microseconds=1)
    c.execute(
        "UPDATE groups SET first_at = first_at - ?1, look_at = look_at - ?1, told_at = told_at - ?1", (microseconds,)
    )


def pull_in(c: apsw.Connection, now: datetime, *, wait: timedelta, reminder: timedelta) -> None:
    """
    What is planned for later than anything is ever planned was planned by a clock that was ahead: it is looked at now.

    wait: how long a group may wait though its interval is shorter. reminder: the longest to which reminders double.
    A look that comes too early tells of no change that is not there, and plans the next one by the clock as it is.
    """
    c.execute(_NOT_LATER, (to_us(now),))
    c.execute(_TOO_LATE, (to_us(now), wait.total_seconds(), reminder.total_seconds()))


def _group(row: tuple[Any, ...]) -> GroupRow:
    interval_s, repeat_s, doubling = from_json(row[5])
    return GroupRow(
        webhook=row[0],
        key=row[1],
        labels=from_json(row[2]),
        first_at=from_us(row[3]),
        look_at=from_optional_us(row[4]),
        pace=PaceRow(interval_s, repeat_s, doubling),
        told_at=from_optional_us(row[6]),
        told_firing=frozenset(from_json(row[7])),
        told_resolved=frozenset(from_json(row[8])),
        told_muted=frozenset(from_json(row[9])),
        reminders=row[10],
    )
