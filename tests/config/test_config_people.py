"""From `alerting` and the watches to routing and muting."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from config_folder import Folder

from agentd.alert.flapping import FlappingSettings
from agentd.alert.routing import NOBODY, Escalate, Wish
from agentd.config.people import flapping_from, muting_from, routing_from, wish_of
from agentd.records import Alert, AlertStatus, Severity

NOW = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)  # a Sunday
WHOLE = """
webhooks:
  ops: {url: "https://hooks.example/x"}
  boss: {url: "https://hooks.example/y"}
alerting:
  notify: [ops]
  group_by: [zone]
  group_wait: 10s
  group_interval: 2m
  remind_every: 1h
  remind: fixed
  routes:
    - {when: 'labels.team == "db"', notify: [boss], group_by: [team], escalate: [{after: 5m, severity: critical}]}
  inhibit:
    - {when: 'watch == "uplink"', mutes: 'labels.zone == "dmz"'}
  maintenance:
    - {when: 'labels.team == "web"', cron: "0 3 * * SUN", for: 1h, timezone: Europe/Berlin}
  flapping: {start: 40%, end: 20%, of: 10}
  escalate:
    - {after: 2h, notify: [boss], severity: critical}
    - {after: 30m, notify: [boss]}
watches:
  - {name: gateway, tcp: {host: 192.0.2.1, port: 443}}
  - {name: uplink, tcp: {host: 192.0.2.1, port: 80}, notify: [], remind_every: 0s}
  - {name: shop, every: 10s, recover_after: 2, tcp: {host: 192.0.2.1, port: 81}, depends_on: [gateway]}
  - {name: till, every: 1d, tcp: {host: a, port: 8}, depends_on: [shop], escalate: [{after: 1m, notify: [ops]}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def firing(watch: str, labels: dict[str, str] | None = None) -> Alert:
    status = AlertStatus.FIRING
    return Alert(watch, "web-1", watch, Severity.WARNING, status=status, labels=labels or {}, started_at=NOW)


def resolved(watch: str) -> Alert:
    return replace(firing(watch), status=AlertStatus.RESOLVED, ended_at=NOW)


def test_routing_is_as_written(folder: Folder) -> None:
    routing = routing_from(folder.load(WHOLE).config)

    reach = routing.of(firing("shop", {"zone": "dmz"}), Wish())
    assert (reach.notify, reach.group_by) == (("ops",), ("zone",))
    assert (reach.pace.wait, reach.pace.interval) == (timedelta(seconds=10), timedelta(minutes=2))
    assert [each.after for each in reach.escalate] == [timedelta(minutes=30), timedelta(hours=2)], "in order of time"
    reach = routing.of(firing("shop", {"team": "db"}), Wish())
    assert (reach.notify, reach.group_by) == (("boss",), ("team",))
    assert reach.escalate == (Escalate(timedelta(minutes=5), (), Severity.CRITICAL),)


def test_a_watch_wishes_what_it_says_itself(folder: Folder) -> None:
    config = folder.load(WHOLE).config
    gateway, uplink, _, till = config.watches

    assert wish_of(gateway, config) == Wish(repeat=timedelta(hours=1), doubling=False)
    assert wish_of(uplink, config) == Wish(NOBODY.notify, repeat=None, doubling=False)
    assert wish_of(till, config).escalate == (Escalate(timedelta(minutes=1), ("ops",)),)


def test_muting_is_as_written(folder: Folder) -> None:
    muting = muting_from(folder.load(WHOLE).config)
    alerts = [firing("gateway"), firing("uplink"), firing("till"), firing("x", {"zone": "dmz"})]
    alerts.append(firing("y", {"team": "web"}))

    assert muting.reasons({each.fingerprint: each for each in alerts}, NOW) == {
        "till": "depends_on: gateway is failing",
        "x": "inhibited by uplink",
        "y": "maintenance until 04:00 Europe/Berlin",
    }


def test_a_watch_is_given_the_time_of_its_own_recovery_after_its_parents(folder: Folder) -> None:
    """Some checks of its own; but of one that looks once a day nobody waits that long."""
    muting = muting_from(folder.load(WHOLE).config)
    alerts = {"shop": firing("shop"), "gateway": resolved("gateway")}

    assert set(muting.reasons(alerts, NOW + timedelta(seconds=39))) == {"shop"}
    assert set(muting.reasons(alerts, NOW + timedelta(seconds=41))) == set()
    alerts = {"till": firing("till"), "gateway": resolved("gateway")}
    assert set(muting.reasons(alerts, NOW + timedelta(minutes=14))) == {"till"}
    assert set(muting.reasons(alerts, NOW + timedelta(minutes=15))) == set()


def test_flapping_is_as_written(folder: Folder) -> None:
    assert flapping_from(folder.load(WHOLE).config) == FlappingSettings(40.0, 20.0, 10)


@pytest.mark.parametrize(
    ("alerting", "key", "words"),
    [
        ("escalate: [{after: 5m}]", "alerting.escalate[0]", "does nothing"),
        ("escalate: [{after: 5m, severity: bad}]", "alerting.escalate[0].severity", 'cannot be "bad"'),
        ("escalate: [{severity: critical}]", "alerting.escalate[0].after", "is missing"),
        ("flapping: {start: 20%, end: 30%}", "alerting.flapping", "above its start"),
        ("flapping: {start: 20%}", "alerting.flapping", "above its start"),
        ("maintenance: [{when: 'a', cron: '0 3 * * *', for: 1h}]", "alerting.maintenance[0].when", "unknown variable"),
        (
            "maintenance: [{when: 'true', cron: '0 3 * * *', for: 1h, timezone: Mars}]",
            "alerting.maintenance[0].timezone",
            "no time zone",
        ),
        ("maintenance: [{when: 'true', cron: '0 3 * * *'}]", "alerting.maintenance[0].for", "is missing"),
        ("routes: [{when: 'true', escalate: [{after: 5m, notify: [x]}]}]", "", "no webhook"),
        ("inhibit: [{when: 'watch ==', mutes: 'true'}]", "alerting.inhibit[0].when", "cannot read"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(folder: Folder, alerting: str, key: str, words: str) -> None:
    """A rule that mutes by mistake is found out in the night in which it was wrong."""
    text = f"""
    webhooks: {{ops: {{url: "https://hooks.example/x"}}}}
    alerting: {{notify: [ops], {alerting}}}
    watches: [{{name: web, http: {{url: "http://127.0.0.1/"}}}}]
    """
    problem = folder.problem(text)

    assert problem.key == (key or "alerting.routes[0].escalate[0].notify[0]")
    assert words in problem.what
    assert problem.line == 3
