"""
Which alerts nobody is to be told of for now, and why: a silence, a pause, a maintenance window, what it depends on,
inhibition, flapping. Pure: the same alerts at the same time give the same reasons.

In: all alerts, and now. Out: a reason by fingerprint, for those that are pending or firing and muted.
Promise: what a condition says of an alert is worked out once, and again when its labels or severity change. 10,000
alerts with 20 rules take a hundredth of a second, 10,000 new ones about one second: on a thread, if need be, with a
copy of the alerts, and one call at a time.

Where several things mute an alert, the most deliberate is named: silence, pause, maintenance, depends_on, inhibited,
flapping.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentd.alert.dependencies import Dependencies
from agentd.alert.maintenance import Maintenance, Span, muted_text, span_at
from agentd.alert.routing import variables_of
from agentd.alert.silence import Silence, silence_labels
from agentd.condition import Condition
from agentd.condition.needed import needed
from agentd.records import Alert, AlertStatus

FLAPPING = "flapping"
_CURRENT = (AlertStatus.PENDING, AlertStatus.FIRING)
_NO_PAUSES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Inhibit:
    """
    While an alert of one sort fires, those of another stay mute. Both conditions: on `routing.variables_of`.

    As in Alertmanager (inhibit/inhibit.go, Inhibitor.Mutes): the one that mutes may be muted itself; it must fire, not
    be pending; and an alert that both conditions take is not muted by another that both take, nor by itself.
    """

    when: Condition
    mutes: Condition


@dataclass(slots=True)
class _Facts:
    """What the conditions say of one alert; bits by number of the rule. silences: those that take it."""

    alert: Alert
    inhibits: int
    inhibited: int
    maintained: int
    silences: tuple[Silence, ...]
    silences_of: int

    def still_of(self, alert: Alert) -> bool:
        mine = self.alert
        return mine is alert or (
            mine.severity is alert.severity and mine.labels == alert.labels and mine.by == alert.by
        )


class Muting:
    """
    Made anew from each configuration; the silences are handed on.

    silences: as last given to `take_silences`.
    """

    def __init__(
        self,
        *,
        depends_on: Dependencies | None = None,
        inhibit: Sequence[Inhibit] = (),
        maintenance: Sequence[Maintenance] = (),
        silences: Iterable[Silence] = (),
    ) -> None:
        self.silences: tuple[Silence, ...] = ()
        self._depends_on = depends_on or Dependencies({})
        self._maintenance = tuple(maintenance)
        self._inhibits = _Questions(rule.when for rule in inhibit)
        self._inhibited = _Questions(rule.mutes for rule in inhibit)
        self._maintained = _Questions(each.when for each in maintenance)
        self._spans: list[Span | None] = [None] * len(self._maintenance)
        self._facts: dict[str, _Facts] = {}
        self._version = 0
        self.take_silences(silences)

    def take_silences(self, silences: Iterable[Silence]) -> None:
        """From now on these hold, with those that begin later; ended ones may be among them."""
        self.silences = tuple(sorted(silences, key=lambda each: (each.ends_at, each.id), reverse=True))
        self._version += 1

    def reasons(
        self,
        alerts: Mapping[str, Alert],
        now: datetime,
        only: Collection[str] | None = None,
        paused: Mapping[str, str] = _NO_PAUSES,
    ) -> dict[str, str]:
        """
        Why nobody is told of an alert now, by fingerprint; only of pending and firing ones that are muted.

        alerts: all of them, for one mutes another. only: answer for these, which is quicker. paused: what to say of
        watches that are not looked at now, by name: of what fires there nobody can know how it is.
        """
        asked = alerts if only is None else {each: alerts[each] for each in only if each in alerts}
        found = {
            fingerprint: FLAPPING for fingerprint, alert in asked.items() if alert.flapping and alert.status in _CURRENT
        }
        facts: dict[str, _Facts] = {}
        if self._inhibits or self._maintained or self.silences:
            # Who inhibits may be any of them; the rest is about the alert itself.
            whole = self._facts_of(alerts if self._inhibits else asked, forget=only is None)
            facts = whole if asked is alerts else {each: whole[each] for each in asked if each in whole}
            found |= self._inhibited_ones(facts, whole, paused)
        found |= self._depends_on.reasons(alerts.values(), now, asked.values(), paused)
        if facts:
            found |= self._maintained_ones(facts, now)
        if paused:
            found |= {
                fingerprint: paused[alert.watch]
                for fingerprint, alert in asked.items()
                if alert.watch in paused and alert.status in _CURRENT
            }
        if facts:
            found |= self._silenced_ones(facts, now)
        return found

    def next_change(self, now: datetime) -> datetime | None:
        """When a silence or a window begins or ends next. None: never."""
        moments = [moment for each in self.silences for moment in (each.starts_at, each.ends_at)]
        moments += [span.change for span in self._spans_at(now) if span.change is not None]
        return min((moment for moment in moments if moment > now), default=None)

    def _facts_of(self, alerts: Mapping[str, Alert], *, forget: bool) -> dict[str, _Facts]:
        before, after = self._facts, {}
        for fingerprint, alert in alerts.items():
            if alert.status not in _CURRENT:
                continue
            facts = before.get(fingerprint)
            if facts is None or not facts.still_of(alert):
                values = variables_of(alert)
                keys = {**values, "labels": tuple(values["labels"].items())}
                facts = _Facts(
                    alert,
                    self._inhibits.bits(values, keys),
                    self._inhibited.bits(values, keys),
                    self._maintained.bits(values, keys),
                    (),
                    -1,
                )
            facts.alert = alert
            if facts.silences_of != self._version:
                facts.silences, facts.silences_of = self._takers(alert), self._version
            after[fingerprint] = facts
        if forget:
            self._facts = after
        else:
            before.update(after)
        for questions in (self._inhibits, self._inhibited, self._maintained):
            questions.forget()
        return after

    def _takers(self, alert: Alert) -> tuple[Silence, ...]:
        if not self.silences:
            return ()
        labels = silence_labels(alert)
        return tuple(each for each in self.silences if each.takes(labels))

    def _inhibited_ones(
        self, facts: Mapping[str, _Facts], whole: Mapping[str, _Facts], paused: Container[str]
    ) -> dict[str, str]:
        if not self._inhibits:
            return {}
        # Of each rule the first by name, and the first that the other condition does not take: it mutes those as well
        # that both conditions take. By name, so that the reason stays the same while others come and go.
        any_source: dict[int, tuple[str, str]] = {}
        one_sided: dict[int, tuple[str, str]] = {}
        for fingerprint, each in whole.items():
            if not each.inhibits or each.alert.status is not AlertStatus.FIRING or each.alert.watch in paused:
                continue
            name = (_named(each.alert), fingerprint)
            for rule in _numbers(each.inhibits):
                any_source[rule] = min(any_source.get(rule, name), name)
                if not each.inhibited >> rule & 1:
                    one_sided[rule] = min(one_sided.get(rule, name), name)
        if not any_source:
            return {}
        armed = sum(1 << rule for rule in any_source)
        found = {}
        for fingerprint, each in facts.items():
            for rule in _numbers(each.inhibited & armed):
                sources = one_sided if each.inhibits >> rule & 1 else any_source
                if rule in sources:
                    found[fingerprint] = f"inhibited by {sources[rule][0]}"
                    break
        return found

    def _maintained_ones(self, facts: Mapping[str, _Facts], now: datetime) -> dict[str, str]:
        if not self._maintenance:
            return {}
        spans = self._spans_at(now)
        opened = [(span.until, number) for number, span in enumerate(spans) if span.until is not None]
        if not opened:
            return {}
        opened.sort(key=lambda each: each[0], reverse=True)
        texts = [(1 << number, muted_text(self._maintenance[number], until)) for until, number in opened]
        found = {}
        for fingerprint, each in facts.items():
            if each.maintained:
                text = next((text for bit, text in texts if each.maintained & bit), None)
                if text is not None:
                    found[fingerprint] = text
        return found

    def _spans_at(self, now: datetime) -> list[Span]:
        spans = [
            span if span is not None and span.holds_at(now) else span_at(self._maintenance[number], now)
            for number, span in enumerate(self._spans)
        ]
        self._spans = list(spans)
        return spans

    def _silenced_ones(self, facts: Mapping[str, _Facts], now: datetime) -> dict[str, str]:
        if not any(silence.is_active(now) for silence in self.silences):
            return {}
        found = {}
        texts: dict[str, str] = {}
        for fingerprint, each in facts.items():
            for silence in each.silences:
                if silence.is_active(now):
                    found[fingerprint] = texts.get(silence.id) or texts.setdefault(silence.id, str(silence))
                    break
        return found


class _Questions:
    """
    Conditions that are asked about many alerts at once; answered in bits by their number.

    Alerts that are alike in what a condition reads are asked about once, and a text that it needs is looked for before
    it is asked: either costs a tenth of it.
    """

    def __init__(self, conditions: Iterable[Condition]) -> None:
        self._asked = [
            (
                1 << number,
                condition,
                tuple(sorted(condition.variables)),
                tuple((need.path, need.literals) for need in needed(condition.source)),
            )
            for number, condition in enumerate(conditions)
        ]
        self._known: dict[tuple[int, tuple[Any, ...]], bool] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def bits(self, values: Mapping[str, Any], keys: Mapping[str, Any]) -> int:
        """keys: what stands for each of the values; hashable."""
        bits = 0
        for bit, condition, variables, needs in self._asked:
            key = (bit, tuple([keys[name] for name in variables]))
            holds = self._known.get(key)
            if holds is None:
                holds = self._known[key] = _may_hold(needs, values) and condition.holds(values)
            if holds:
                bits |= bit
        return bits

    def forget(self) -> None:
        self._known.clear()


def _may_hold(needs: Iterable[tuple[tuple[str, ...], tuple[str, ...]]], values: Mapping[str, Any]) -> bool:
    for path, literals in needs:
        here: Any = values
        for step in path:
            here = here.get(step) if isinstance(here, dict) else None
        if not isinstance(here, str) or not any(literal in here for literal in literals):
            return False
    return True


def _numbers(bits: int) -> Collection[int]:
    return [number for number in range(bits.bit_length()) if bits >> number & 1] if bits else ()


def _named(alert: Alert) -> str:
    return f"{alert.watch}/{alert.rule}" if alert.rule else alert.watch
