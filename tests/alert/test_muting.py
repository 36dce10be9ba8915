"""Which alerts are mute and why: dependencies, inhibition, maintenance, silences, flapping, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.alert.dependencies import Dependencies, Parents
from agentd.alert.maintenance import Maintenance
from agentd.alert.muting import FLAPPING, Inhibit, Muting
from agentd.alert.routing import variables_of
from agentd.alert.silence import Silence, parse_matchers
from agentd.condition import Condition, compile_condition
from agentd.cron import parse_cron
from agentd.errors import ConfigError
from agentd.records import Alert, AlertStatus, Severity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
FIRING, PENDING, RESOLVED, OK = AlertStatus.FIRING, AlertStatus.PENDING, AlertStatus.RESOLVED, AlertStatus.OK
VARIABLES = ("watch", "rule", "severity", "instance", "labels")


def when(text: str) -> Condition:
    return compile_condition(text, VARIABLES)


def alert(watch: str, status: AlertStatus = FIRING, **more: Any) -> Alert:
    more = {"rule": None, "started_at": NOW, "pending_since": NOW} | more
    identity = f"{watch}/{more['rule'] or ''}"
    return Alert(identity, "web-1", watch, more.pop("severity", Severity.WARNING), status=status, **more)


def among(*alerts: Alert) -> dict[str, Alert]:
    return {each.fingerprint: each for each in alerts}


def muted(muting: Muting, *alerts: Alert, now: datetime = NOW) -> dict[str, str]:
    """Reasons by the name of the watch (and rule)."""
    return {identity.rstrip("/"): why for identity, why in muting.reasons(among(*alerts), now).items()}


def depending(patience: timedelta = timedelta(0), **parents: str) -> Muting:
    given = {watch: Parents(tuple(names.split()), patience) for watch, names in parents.items()}
    return Muting(depends_on=Dependencies(given))


# Dependencies.


@pytest.mark.parametrize(
    ("gateway", "mutes"),
    [
        (alert("gateway", FIRING), True),
        (alert("gateway", PENDING), True),
        (alert("gateway", FIRING, rule="errors"), True),
        (alert("gateway", OK), False),
        (alert("gateway", RESOLVED, ended_at=NOW), False),
        (alert("gateway", FIRING, rule="blind"), False),
        (alert("other", FIRING), False),
    ],
)
def test_a_parent_mutes_while_it_fails_or_is_about_to(gateway: Alert, mutes: bool) -> None:
    """A pending one is about to be named; one that cannot be looked at has not failed."""
    reasons = muted(depending(shop="gateway"), gateway, alert("shop"))

    assert reasons.get("shop") == ("depends_on: gateway is failing" if mutes else None)
    assert set(reasons) <= {"shop"}


def test_the_parent_furthest_up_is_named() -> None:
    """What is to be mended is the gateway, not the switch that hangs on it."""
    muting = depending(shop="switch", switch="gateway", till="shop other")

    reasons = muted(muting, alert("gateway"), alert("switch"), alert("shop", PENDING), alert("till"))

    assert reasons == dict.fromkeys(["switch", "shop", "till"], "depends_on: gateway is failing")


def test_a_parent_of_a_parent_mutes_though_the_one_between_is_well() -> None:
    assert "till" in muted(depending(till="shop", shop="gateway"), alert("gateway"), alert("shop", OK), alert("till"))


def test_any_failing_parent_is_enough() -> None:
    reasons = muted(depending(shop="left right"), alert("left", OK), alert("right"), alert("shop"))

    assert reasons == {"shop": "depends_on: right is failing"}


def test_what_fired_under_a_failing_parent_may_recover_after_it() -> None:
    """Or healing the gateway would tell of 500 shops whose next check is to come, and of their recovery after it."""
    muting = depending(MINUTE, shop="gateway", till="shop")
    gateway = alert("gateway", RESOLVED, ended_at=NOW + HOUR)
    after = NOW + HOUR
    stories = [alert("shop"), alert("till", PENDING), alert("new", FIRING, started_at=after)]

    reasons = muted(muting, gateway, *stories, now=after)
    assert reasons == {"shop": "depends_on: gateway has just recovered", "till": "depends_on: shop is failing"}
    assert muted(muting, gateway, alert("till"), now=after) == {"till": "depends_on: gateway has just recovered"}
    assert muted(muting, gateway, stories[0], now=after + MINUTE) == {}

    fresh = replace(alert("shop"), started_at=after + timedelta(seconds=1))
    assert muted(muting, gateway, fresh, now=after + timedelta(seconds=2)) == {}


def test_a_clock_set_back_mutes_nothing() -> None:
    """A recovery in the future would mute until then."""
    gateway = alert("gateway", RESOLVED, ended_at=NOW + HOUR)

    assert muted(depending(MINUTE, shop="gateway"), gateway, alert("shop")) == {}


def test_a_failure_that_nobody_looks_after_any_more_explains_nothing() -> None:
    """Whoever pauses a broken gateway, or whose probe cannot look any more, would never hear of what is behind it."""
    shop, gateway = alert("shop"), alert("gateway")
    muting = depending(patience=3 * MINUTE, shop="gateway", till="shop")
    late = replace(gateway, blind_since=NOW - 4 * MINUTE)

    assert muting.reasons(among(shop, gateway), NOW, paused={"gateway": "paused by anna"}) == {
        "gateway/": "paused by anna"
    }
    assert muted(muting, shop, late) == {}
    assert muted(muting, shop, alert("till"), late) == {"till": "depends_on: shop is failing"}
    for blind_since in (NOW - 3 * MINUTE, NOW + HOUR):
        assert set(muted(muting, shop, replace(gateway, blind_since=blind_since))) == {"shop"}


def test_what_is_paused_inhibits_nothing() -> None:
    """As with what depends on it: nobody knows any more whether it fails."""
    muting = Muting(inhibit=[Inhibit(when('watch == "gateway"'), when('watch == "shop"'))])
    alerts = among(alert("gateway"), alert("shop"))

    assert set(muting.reasons(alerts, NOW)) == {"shop/"}
    assert set(muting.reasons(alerts, NOW, paused={"gateway": "paused by anna"})) == {"gateway/"}


def test_a_pause_mutes_the_alerts_of_its_watch() -> None:
    """Nobody looks there: that it still fires is what nobody knows, and no reason to wake more people."""
    alerts = among(alert("shop"), alert("shop", rule="blind"), alert("web"), alert("shop", RESOLVED, rule="x"))
    paused = {"shop": "paused by anna: new disks"}
    muting = Muting()

    assert muting.reasons(alerts, NOW, paused=paused) == dict.fromkeys(["shop/", "shop/blind"], paused["shop"])
    muting.take_silences([silence("0a1b", "watch=shop", "rule=blind")])
    assert muting.reasons(alerts, NOW, ["shop/blind"], paused)["shop/blind"].startswith("silence 0a1b")


def test_a_circle_of_dependencies_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"circle: \w → \w → \w → \w; break it"):
        depending(a="b", b="c", c="a")


def test_a_chain_of_ten_thousand_takes_no_time_or_room() -> None:
    """Neither a closure of fifty million pairs, nor recursion."""
    chain = {f"w{n}": Parents((f"w{n - 1}",)) for n in range(1, 10_000)}
    alerts = among(*(alert(f"w{n}") for n in range(10_000)))

    reasons = Muting(depends_on=Dependencies(chain)).reasons(alerts, NOW)

    assert set(reasons.values()) == {"depends_on: w0 is failing"}
    assert len(reasons) == 9_999


# Inhibition.


def test_an_alert_mutes_those_of_another_sort() -> None:
    muting = Muting(inhibit=[Inhibit(when('watch == "uplink"'), when('labels.zone == "dmz"'))])
    shop = alert("shop", labels={"zone": "dmz"})

    assert muted(muting, alert("uplink"), shop, alert("lan")) == {"shop": "inhibited by uplink"}
    assert muted(muting, alert("uplink", PENDING), shop) == {}
    assert muted(muting, alert("uplink", RESOLVED), shop) == {}
    assert muted(muting, alert("uplink", rule="errors"), shop) == {"shop": "inhibited by uplink/errors"}


def test_what_matches_both_sides_does_not_mute_its_like() -> None:
    """As Alertmanager does it: or two of them would hide each other, and nobody would be told of either."""
    muting = Muting(inhibit=[Inhibit(when('labels.zone == "dmz"'), when('severity != "critical"'))])
    both = alert("a", labels={"zone": "dmz"})
    also = alert("b", labels={"zone": "dmz"})
    one_sided = alert("c", labels={"zone": "dmz"}, severity=Severity.CRITICAL)
    target = alert("d")

    assert muted(muting, both, also) == {}
    assert muted(muting, both, also, target) == {"d": "inhibited by a"}
    assert muted(muting, both, one_sided, target) == {"a": "inhibited by c", "d": "inhibited by a"}


RULES = ['watch == "a"', 'labels.zone == "x"', 'severity == "critical"', "watch in ['a', 'b']", "rule == null"]
ALERTS = st.builds(
    lambda number, watch, status, zone, critical: replace(
        alert(watch, status, labels={"zone": zone}, severity=Severity.CRITICAL if critical else Severity.INFO),
        fingerprint=f"{watch}{number}",
    ),
    st.integers(0, 9),
    st.sampled_from("abc"),
    st.sampled_from([FIRING, PENDING, OK]),
    st.sampled_from("xy"),
    st.booleans(),
)


@given(st.lists(ALERTS, max_size=8), st.lists(st.tuples(st.sampled_from(RULES), st.sampled_from(RULES)), max_size=3))
def test_inhibition_is_that_of_alertmanager(alerts: list[Alert], rules: list[tuple[str, str]]) -> None:
    """Written down again as inhibit.go has it: slow and plain."""
    compiled = [(when(one), when(other)) for one, other in rules]

    def inhibited(target: Alert) -> bool:
        for source_side, target_side in compiled:
            if not target_side.holds(variables_of(target)):
                continue
            two_sided = source_side.holds(variables_of(target))
            for source in among(*alerts).values():
                values = variables_of(source)
                if source.status is not FIRING or not source_side.holds(values):
                    continue
                if two_sided and target_side.holds(values):
                    continue
                return True
        return False

    muting = Muting(inhibit=[Inhibit(one, other) for one, other in compiled])
    expected = {
        identity for identity, each in among(*alerts).items() if each.status in (FIRING, PENDING) and inhibited(each)
    }

    assert set(muting.reasons(among(*alerts), NOW)) == expected


# Silences and maintenance.


def silence(identity: str, *matchers: str, begin: timedelta = timedelta(0), lasting: timedelta = HOUR) -> Silence:
    begins = NOW + begin
    taken = parse_matchers(matchers, everything=True)
    return Silence(identity, taken, begins, begins + lasting, "anna", "new disks")


def test_a_silence_mutes_from_its_begin_to_its_end() -> None:
    muting = Muting(silences=[silence("4f2a", "watch=shop", begin=MINUTE)])

    assert muted(muting, alert("shop")) == {}
    assert muting.next_change(NOW) == NOW + MINUTE
    at = NOW + MINUTE
    text = "silence 4f2a by anna until 2026-03-01T13:01:00.000Z: new disks"
    assert muted(muting, alert("shop"), alert("other"), now=at) == {"shop": text}
    assert muting.next_change(at) == at + HOUR
    assert muted(muting, alert("shop"), now=at + HOUR) == {}
    assert muting.next_change(at + HOUR) is None


def test_silences_that_are_taken_later_hold_at_once() -> None:
    """And those that were taken away hold no more, whatever was worked out before."""
    muting = Muting()
    assert muted(muting, alert("shop")) == {}

    muting.take_silences([silence("1", "watch=shop")])
    assert set(muted(muting, alert("shop"))) == {"shop"}
    muting.take_silences([silence("1")])
    assert set(muted(muting, alert("shop"), alert("other"))) == {"shop", "other"}
    muting.take_silences([])
    assert muted(muting, alert("shop")) == {}


def test_of_two_silences_the_longer_is_told() -> None:
    long, short = silence("a", "watch=shop", lasting=2 * HOUR), silence("b", "watch=shop")
    for silences in ([long, short], [short, long]):
        assert muted(Muting(silences=silences), alert("shop"))["shop"].startswith("silence a ")


def test_maintenance_mutes_its_alerts_in_its_time() -> None:
    rule = Maintenance(when('labels.team == "web"'), parse_cron("0 3 * * *", "Europe/Berlin"), HOUR, "Europe/Berlin")
    muting = Muting(maintenance=[rule])
    shop = alert("shop", labels={"team": "web"})
    night = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)

    assert muted(muting, shop) == {}
    assert muting.next_change(NOW) == datetime(2026, 3, 2, 2, tzinfo=UTC)
    assert muted(muting, shop, alert("other"), now=night) == {"shop": "maintenance until 04:00 Europe/Berlin"}
    assert muting.next_change(night) == datetime(2026, 3, 1, 3, tzinfo=UTC)
    assert muted(muting, shop, now=night + HOUR) == {}
    assert set(muted(muting, shop, now=night)) == {"shop"}, "a clock that was set back"


def test_the_most_deliberate_reason_is_told() -> None:
    """Somebody typed the silence; it is what explains why it stays quiet when the rest is over."""
    always = parse_cron("* * * * *")
    shop = alert("shop", flapping=True)
    everything: dict[str, Any] = {
        "silences": [silence("1", "watch=shop")],
        "maintenance": [Maintenance(when('watch == "shop"'), always, HOUR)],
        "depends_on": Dependencies({"shop": Parents(("uplink",))}),
        "inhibit": [Inhibit(when('watch == "uplink"'), when('watch == "shop"'))],
    }
    told = []
    while True:
        told.append(muted(Muting(**everything), shop, alert("uplink"))["shop"].split()[0].rstrip(":"))
        if not everything:
            break
        everything.pop(next(iter(everything)))
    assert told == ["silence", "maintenance", "depends_on", "inhibited", FLAPPING]


def test_a_changed_alert_is_asked_about_anew() -> None:
    """Severity rises with time, and a reload may change labels."""
    muting = Muting(inhibit=[Inhibit(when('watch == "up"'), when('severity == "warning" && labels.zone == "dmz"'))])
    shop = alert("shop", labels={"zone": "dmz"})
    for changed, mutes in (
        (shop, True),
        (replace(shop, severity=Severity.CRITICAL), False),
        (shop, True),
        (replace(shop, labels={"zone": "lan"}), False),
        (replace(shop, by={"zone": "lan"}), False),
    ):
        assert ("shop" in muted(muting, alert("up"), changed)) is mutes


@given(
    st.lists(st.lists(ALERTS, max_size=6), min_size=1, max_size=5),
    st.lists(st.sampled_from(["watch=a", "zone=x", "severity!=info", "watch=~a|b"]), max_size=3),
    st.integers(-90, 90),
)
def test_what_is_remembered_changes_no_answer(looks: list[list[Alert]], matchers: list[str], at: int) -> None:
    """Asked before or not, the same alerts at the same time give the same reasons."""

    def make() -> Muting:
        rules = [Inhibit(when(one), when(other)) for one, other in combinations(RULES, 2)]
        windows = [Maintenance(when(RULES[1]), parse_cron("*/25 * * * *"), timedelta(minutes=10))]
        silences = [silence(f"{n}", text, begin=MINUTE * n * 20) for n, text in enumerate(matchers)]
        parents = Dependencies({"a": Parents(("b",), MINUTE), "b": Parents(("c",))})
        return Muting(depends_on=parents, inhibit=rules, maintenance=windows, silences=silences)

    used = make()
    for number, look in enumerate(looks):
        now = NOW + MINUTE * (at * (-1) ** number)
        assert used.reasons(among(*look), now) == make().reasons(among(*look), now)
        assert used.next_change(now) == make().next_change(now)
        for each in among(*look):
            why = make().reasons(among(*look), now).get(each)
            assert used.reasons(among(*look), now, only=[each]) == ({} if why is None else {each: why})


class Counting:
    """Conditions that count how often they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        real = Condition.holds

        def holds(condition: Condition, values: Mapping[str, Any]) -> bool:
            self.asked += 1
            return real(condition, values)

        monkeypatch.setattr(Condition, "holds", holds)


def test_conditions_are_asked_once_for_each_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand alerts and twenty rules every few seconds would be all that the daemon does."""
    counting = Counting(monkeypatch)
    rules = [Inhibit(when(f'watch == "up{n}"'), when(f'labels.zone != "z{n}"')) for n in range(20)]
    muting = Muting(inhibit=rules)
    alerts = among(*(alert(f"w{n}", labels={"zone": f"z{n % 20}"}) for n in range(200)))

    muting.reasons(alerts, NOW)
    assert counting.asked == 20 * 20, "alike ones once, and not at all what cannot be `up` by its text"
    alerts = {identity: replace(each, occurrences=9) for identity, each in alerts.items()}
    muting.reasons(alerts, NOW + MINUTE, only=["w7/"])
    muting.reasons(alerts, NOW + MINUTE)
    assert counting.asked == 20 * 20


def test_without_rules_there_is_nothing_to_work_out() -> None:
    """Only what flaps."""
    calm, flapping = alert("shop"), alert("web", flapping=True)

    assert muted(Muting(), calm, flapping, alert("x", OK, flapping=True)) == {"web": FLAPPING}


if __name__ == "__main__":
    big = among(*(alert(f"w{n}", labels={"zone": f"z{n % 50}", "team": "web"}) for n in range(10_000)))
    rules = [Inhibit(when(f'watch == "w{n}"'), when(f'labels.zone == "z{n}"')) for n in range(20)]
    muting = Muting(inhibit=rules, silences=[silence(f"{n}", f"watch=~w{n}.*") for n in range(20)])
    for name, asked in (("none", Muting()), ("20 rules, new", muting), ("20 rules, again", muting)):
        begin = time.perf_counter()
        found = asked.reasons(big, NOW)
        middle = time.perf_counter()
        asked.reasons(big, NOW, only=["w7/"])
        took, one = (middle - begin) * 1000, (time.perf_counter() - middle) * 1000
        print(f"{name}: {took:.1f} ms, {len(found)} muted; only one of them: {one:.2f} ms")
