"""
From alerts that changed to messages in the outbox: the groups of each webhook, looked at when it is time.

In: transitions, inside the transaction that stores them. Out: outbox rows, in the same transaction.
Promise: what a webhook is owed stands in its group until a look has turned it into a message. A look is decided by
`alert.grouping`, on what the store says at that moment, so two changes at once never tell twice or not at all.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw

from agentd.alert.grouping import Look, Pace, Standing, Told, Why, group_of, look, next_look, next_tick
from agentd.alert.routing import Reach, labels_of
from agentd.deliver.payload import MAX_DATA_BYTES
from agentd.memory import groups, outbox
from agentd.memory.groups import GroupRow, Member, PaceRow
from agentd.records import Alert, AlertStatus, Delivery, EventType, Reason, Transition
from agentd.settings import show_duration

_AT_ONCE = (EventType.FLAPPING, EventType.UPDATED)

MOST_IN_A_GROUP = 200
"""So many alerts stand in one group's message; the rest is counted."""
MOST_GROUP_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class News:
    """
    One change that people are told of.

    reach: whom it reaches; of a resolve, whoever was told. data: the payload's data, JSON text.
    one_off: an event that is told although it is over before anybody looked.
    """

    transition: Transition
    reach: Reach
    data: str
    traceparent: str | None
    one_off: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """
    What is known of alerts at a look, by fingerprint: which are muted and which acknowledged; and of firing ones what
    to show now, for reminders: asked on the store's thread, of those that are shown alone. held: until when the first
    message of an alert waits for what an agent finds out.
    """

    muted: Collection[str] = ()
    acked: Collection[str] = ()
    fresh: Callable[[str], str | None] = lambda fingerprint: None
    whole: Collection[str] = ()
    held: Mapping[str, datetime] = field(default_factory=dict)


def tell(c: apsw.Connection, news: Iterable[News], seen: Seen, now: datetime) -> datetime | None:
    """Put changes into their groups and look at those whose time it is; returns when one is to be looked at next."""
    touched: dict[tuple[str, str], None] = {}
    opened: dict[tuple[str, str], PaceRow] = {}
    for each in news:
        transition, alert = each.transition, each.transition.alert
        if transition.event is EventType.RESOLVED:
            found = groups.resolve(
                c,
                alert.fingerprint,
                one_off=each.one_off,
                muted=alert.muted_by is not None,
                at=transition.at,
                data=each.data,
                traceparent=each.traceparent,
            )
            touched.update(dict.fromkeys(found))
        elif transition.event in _AT_ONCE:
            _tell_at_once(c, each, now)
        elif transition.event is not None:
            touched.update(dict.fromkeys(_join(c, each, seen, opened, now)))
    soonest: datetime | None = None
    for webhook, key in touched:
        group = groups.get(c, webhook, key)
        if group is None:  # a look that an earlier change called for has closed it
            continue
        at = min(_time_to_look(group, now), group.look_at or datetime.max.replace(tzinfo=UTC))
        if at <= now:
            soonest = _sooner(soonest, _look_at(c, group, seen, now))
        else:
            groups.look_sooner(c, webhook, key, at)
            soonest = _sooner(soonest, at)
    return soonest


def _time_to_look(group: GroupRow, now: datetime) -> datetime:
    """When news of this moment is looked at: the first look, or the next tick; a tick of this moment is over."""
    if group.told_at is None and now <= group.first_at:
        return group.first_at
    if group.pace.interval_s == 0:
        return now
    return next_tick(group.first_at, timedelta(seconds=group.pace.interval_s), now + timedelta(microseconds=1))


def _tell_at_once(c: apsw.Connection, news: News, now: datetime) -> None:
    """News that no group has to wait for, in the order of the group's messages."""
    transition = news.transition
    assert transition.event is not None
    _, key = _group_of(transition.alert, news.reach)
    for webhook in news.reach.notify:
        home = groups.home(c, webhook, key, transition.alert.fingerprint)
        if transition.reason is Reason.FINDING and _told_together(c, news, webhook, home and home[0], now):
            continue
        delivery = Delivery(
            id=f"msg_{uuid.uuid4().hex}",
            webhook=webhook,
            lane=home[0] if home is not None else key,
            type=transition.event,
            data=news.data,
            created_at=transition.at,
            due_at=now,
            fingerprint=transition.alert.fingerprint,
            traceparent=news.traceparent,
        )
        outbox.put(c, delivery)


def _told_together(c: apsw.Connection, news: News, webhook: str, key: str | None, now: datetime) -> bool:
    """
    Whether what an agent found can still go with the first message of the alert.

    key: of the group that the alert is in.
    """
    found, identity = json.loads(news.data), news.transition.alert.fingerprint

    def change(data: str) -> str | None:
        told = json.loads(data)
        if told.get("started_at") != found["started_at"]:
            return None  # of another incident
        news_of_it = {name: found[name] for name in ("finding", "cost", "links")}
        text = json.dumps(told | news_of_it, ensure_ascii=False, separators=(",", ":"))
        return text if len(text.encode()) <= MAX_DATA_BYTES else None

    group = None if key is None else groups.get(c, webhook, key)
    if group is not None and news.transition.after is AlertStatus.FIRING and identity not in group.told_firing:
        whole = change(groups.data_of(c, webhook, group.key, identity)[0])  # the group is still to tell of it
        if whole is not None:
            groups.renew(c, webhook, group.key, identity, whole)
            return True
    return outbox.complete(c, identity, webhook, change, now) > 0


def _group_of(alert: Alert, reach: Reach) -> tuple[dict[str, str], str]:
    """The labels of the group that the alert belongs to, and its key."""
    labels = group_of(reach.group_by, labels_of(alert))
    return labels, json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _pace_row(pace: Pace) -> PaceRow:
    repeat_s = None if pace.repeat is None else pace.repeat.total_seconds()
    return PaceRow(pace.interval.total_seconds(), repeat_s, pace.doubling)


def _join(
    c: apsw.Connection, news: News, seen: Seen, opened: dict[tuple[str, str], PaceRow], now: datetime
) -> list[tuple[str, str]]:
    """
    opened: the groups that are open, with their pace: ten thousand alerts may join one.

    An alert stays in the group that it is in until its end is told, though its labels or the configuration would put it
    into another by now: two groups would tell of it twice, and one that it is over while it fires in the other.
    """
    transition, reach = news.transition, news.reach
    alert = transition.alert
    labels, own = _group_of(alert, reach)
    row = _pace_row(reach.pace)
    joined = []
    assert transition.event is not None
    for webhook in reach.notify:
        home = groups.home(c, webhook, own, alert.fingerprint)
        if home is not None and home[1]:
            look_at_group(c, webhook, home[0], seen, now)  # or the incident before would be lost under this one
            opened.pop((webhook, home[0]), None)
            home = groups.home(c, webhook, own, alert.fingerprint)
        key = home[0] if home is not None else own
        if opened.get((webhook, key)) != row:
            groups.open_group(c, webhook, key, labels, now + reach.pace.wait, row)
            opened[webhook, key] = row
        groups.join(
            c,
            webhook,
            key,
            alert.fingerprint,
            event=transition.event,
            at=transition.at,
            data=news.data,
            traceparent=news.traceparent,
        )
        joined.append((webhook, key))
    return joined


def adopt(
    c: apsw.Connection, firing: Iterable[tuple[Alert, Reach]], data: Callable[[Alert], str], now: datetime
) -> bool:
    """
    Put alerts, whose receivers an agentd without groups told, into the groups that tell of their end; returns whether
    any lacked one. data: gives the payload's data, JSON text.
    """
    lacking: dict[tuple[str, str], dict[str, datetime]] = {}
    for alert, reach in firing:
        labels, key = _group_of(alert, reach)
        at = alert.started_at or now
        for webhook in alert.told:
            if groups.home(c, webhook, key, alert.fingerprint) is not None:
                continue
            groups.open_group(c, webhook, key, labels, at, _pace_row(reach.pace))
            own = (webhook, key, alert.fingerprint)
            groups.join(c, *own, event=EventType.FIRING, at=at, data=data(alert), traceparent=None)
            lacking.setdefault((webhook, key), {})[alert.fingerprint] = at
    for (webhook, key), told in lacking.items():
        groups.known(c, webhook, key, told, max(told.values()), now)
    return bool(lacking)


def lane_of(alert: Alert, reach: Reach) -> str:
    """The lane that an alert is told of in, while it is in no other group."""
    return _group_of(alert, reach)[1]


def look_at_group(c: apsw.Connection, webhook: str, key: str, seen: Seen, now: datetime) -> datetime | None:
    """Look at one group and tell what there is to tell; returns when it is to be looked at again, None: never."""
    group = groups.get(c, webhook, key)
    return None if group is None else _look_at(c, group, seen, now)


def _look_at(c: apsw.Connection, group: GroupRow, seen: Seen, now: datetime) -> datetime | None:
    webhook, key = group.webhook, group.key
    members = groups.members(c, webhook, key)
    pace = _pace(group)
    standing = Standing(
        firing=frozenset(each.fingerprint for each in members if each.firing),
        muted=frozenset(
            each.fingerprint for each in members if (each.fingerprint in seen.muted if each.firing else each.muted)
        ),
        resolved=frozenset(each.fingerprint for each in members if not each.firing),
        one_off=frozenset(each.fingerprint for each in members if not each.firing and each.one_off),
        acked=frozenset(each.fingerprint for each in members if each.firing and each.fingerprint in seen.acked),
        news=frozenset(each.fingerprint for each in members if each.firing and each.news),
    )
    told = Told(group.told_firing, group.told_resolved, group.told_muted, group.told_at, group.reminders)
    came = look(told, standing, pace, now)
    if came.why is not None:
        for delivery in _messages(c, group, members, came, seen, now):
            outbox.put(c, delivery)
    groups.leave(c, webhook, key, standing.resolved)
    if not standing.firing:
        groups.close_group(c, webhook, key)
        return None
    again = next_look(came.told, standing, pace, group.first_at, now)
    groups.looked(
        c,
        replace(
            group,
            look_at=again,
            told_at=came.told.at,
            told_firing=came.told.firing,
            told_resolved=came.told.resolved,
            told_muted=came.told.muted,
            reminders=came.told.reminders,
        ),
    )
    return again


def _messages(
    c: apsw.Connection, group: GroupRow, members: Sequence[Member], came: Look, seen: Seen, now: datetime
) -> Iterable[Delivery]:
    """One alert is told as itself, several as a group. What nobody saw fire is told as firing, then as over."""
    about = [each for each in members if each.fingerprint in came.firing or each.fingerprint in came.resolved]
    if len(about) > 1:
        return _group_messages(c, group, about, came, seen, now)
    (member,) = about
    fired, data = groups.data_of(c, group.webhook, group.key, member.fingerprint)
    if member.fingerprint in came.resolved:
        over = _delivery(group, EventType.RESOLVED, data, member, now)
        if member.fingerprint in came.unseen:
            return [_delivery(group, member.event, fired, member, now), over]
        return [over]
    if came.why is Why.REPEAT:
        return [_delivery(group, EventType.REMINDER, _reminding(data, member, seen, now), member, now)]
    first = _delivery(group, member.event, seen.fresh(member.fingerprint) or data, member, now)
    if member.event is not EventType.FIRING:
        return [first]  # that it got worse, or lasts, waits for nobody
    return [replace(first, due_at=max(now, seen.held.get(member.fingerprint, now)))]


def _reminding(data: str, member: Member, seen: Seen, now: datetime) -> str:
    told: dict[str, Any] = json.loads(seen.fresh(member.fingerprint) or data)
    lasting = "some time"
    if told.get("started_at"):
        since = now - datetime.fromisoformat(told["started_at"])
        lasting = show_duration(timedelta(seconds=max(0, round(since.total_seconds()))))
    told |= {"reason": Reason.REMINDER.value, "reason_text": f"still firing after {lasting}"}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def _group_messages(
    c: apsw.Connection, group: GroupRow, about: Sequence[Member], came: Look, seen: Seen, now: datetime
) -> Iterator[Delivery]:
    """One message, cut to what people can read; or as many as it takes, for who must know of each."""
    # What is news stands first: it is what the cut must not take.
    order = sorted(about, key=lambda each: each.firing and each.fingerprint in group.told_firing)
    if group.webhook not in seen.whole:
        texts = _texts(c, group, order, seen)
        yield _group_message(group, order, texts, came, now)
        return
    part = 1
    while order:
        texts = _texts(c, group, order, seen)
        alone = part == 1 and len(texts) == len(order)
        yield _group_message(group, order[: len(texts)], texts, came, now, None if alone else part)
        order, part = order[len(texts) :], part + 1


def _texts(c: apsw.Connection, group: GroupRow, order: Sequence[Member], seen: Seen) -> list[str]:
    """The payload's data of the first members, as many as one message takes, and one at least."""
    texts: list[str] = []
    size = 0
    for each in order[:MOST_IN_A_GROUP]:
        text = seen.fresh(each.fingerprint) if each.firing else None
        text = text or groups.data_of(c, group.webhook, group.key, each.fingerprint)[1]
        size += len(text.encode())
        if size > MOST_GROUP_BYTES and texts:
            break
        texts.append(text)
    return texts


def _group_message(
    group: GroupRow, about: Sequence[Member], texts: Sequence[str], came: Look, now: datetime, part: int | None = None
) -> Delivery:
    """part: counted from 1, where it takes several messages."""
    head: dict[str, Any] = {
        "schema": "agentd.group/1",
        "group": dict(group.labels),
        "reason": came.why.value if came.why is not None else "",
        "firing": sum(each.fingerprint in came.firing for each in about),
        "resolved": sum(each.fingerprint in came.resolved for each in about),
        "omitted": len(about) - len(texts),
    }
    if part is not None:
        head["part"] = part
    data = json.dumps(head, ensure_ascii=False, separators=(",", ":"))[:-1] + f',"alerts":[{",".join(texts)}]}}'
    # Of the whole group also where a part tells of ends alone: `resolved` is the all-clear.
    event = EventType.GROUP_FIRING if came.firing else EventType.GROUP_RESOLVED
    newest = max(about, key=lambda member: member.at)
    delivery = _delivery(group, event, data, newest, now)
    return replace(delivery, fingerprint=None, created_at=now)


def _delivery(group: GroupRow, event: EventType, data: str, member: Member, now: datetime) -> Delivery:
    return Delivery(
        id=f"msg_{uuid.uuid4().hex}",
        webhook=group.webhook,
        lane=group.key,
        type=event,
        data=data,
        created_at=now if event is EventType.REMINDER else member.at,
        due_at=now,
        fingerprint=member.fingerprint,
        traceparent=member.traceparent,
    )


def _pace(group: GroupRow) -> Pace:
    repeat = group.pace.repeat_s
    return Pace(
        interval=timedelta(seconds=group.pace.interval_s),
        repeat=None if repeat is None else timedelta(seconds=repeat),
        doubling=group.pace.doubling,
    )


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)


def is_one_off(alert: Alert) -> bool:
    """Whether its end is told although its beginning was not: an alert of a log rule, which is over in no time."""
    return alert.last_at is not None and alert.status is AlertStatus.RESOLVED and alert.muted_by is None
