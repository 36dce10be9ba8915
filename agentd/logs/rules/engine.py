"""
The rules of one watch at work.

In: hits and sightings with their event times, and the moment up to which nothing is unread.
Out: an `Outcome`: what is to be told of each (rule, key), and the windows that changed.
Promise: a pure function of what was fed, told in the order it was fed; no clock, no I/O. An engine made of the windows
that another gave out goes on as that one would have.

Event time: a window ends at its newest entry and reaches back `within`. Entries a little out of order are put in
order; one older than its window counts as late. Windows die by `advance` alone, so that a source far behind loses none.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from agentd.logs.port import Ended, Hit, Outcome, Sighting
from agentd.logs.rules.base import RuleCounts, RuleState, encode
from agentd.logs.rules.counts import Frequency, FrequencyBySlots, Percentage, Spike
from agentd.logs.rules.distinct import Cardinality
from agentd.logs.rules.keys import Clean
from agentd.logs.rules.lasting import FewValues, Flatline
from agentd.logs.rules.lines import Allowlist, Blocklist, Change, EveryLine, NewValue
from agentd.logs.rules.novel import Novel
from agentd.logs.rules.telling import Draft, finished, moment
from agentd.logs.rules.windows import EXACT
from agentd.logs.settings import Rule, RuleType

_FORM = 1
"""Of the stored windows. Another number drops them all at the next start."""

_MATTERS = ("type", "match", "when", "ignore", "by", "field", "within")


def _frequency(rule: Rule, clean: Clean) -> RuleState[Any]:
    return (FrequencyBySlots if (rule.count or 1) > EXACT else Frequency)(rule, clean)


def _cardinality(rule: Rule, clean: Clean) -> RuleState[Any]:
    return (FewValues if rule.fewer_than is not None else Cardinality)(rule, clean)


TYPES: Mapping[RuleType, Callable[[Rule, Clean], RuleState[Any]]] = {
    "any": EveryLine,
    "frequency": _frequency,
    "spike": Spike,
    "flatline": Flatline,
    "new_value": NewValue,
    "change": Change,
    "cardinality": _cardinality,
    "percentage": Percentage,
    "blocklist": Blocklist,
    "allowlist": Allowlist,
    "novel": Novel,
}


def _as_it_is(value: Any) -> Any:
    return value


class RuleEngine:
    """
    stored: JSON text by (rule, key), as `Outcome.windows` gave it out earlier; of other rules: passed over.
    started: when the rules that were never stored begin to run; None: at the first event time they hear of.
    templates_since: when templates began to be known; a novel rule that is new has learned since then. None: `started`.
    secrets_out: takes secrets out of a value as JSON has them, however deep.
    in_order: everything is fed in the order of event time, from one stream (a replay): a gap in it is silence.

    digests: by rule, of the settings that its windows hang on; windows of another digest must not be given back.
    counted: numbers of the rules that need no hits: `count_all` tells them all they ask. Empty for `in_order`.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        stored: Mapping[tuple[str, str], str],
        started: datetime | None,
        templates_since: datetime | None = None,
        secrets_out: Callable[[Any], Any] = _as_it_is,
        in_order: bool = False,
    ) -> None:
        self._clean = secrets_out
        self._in_order = in_order
        self._states = [TYPES[rule.type](rule, secrets_out) for rule in rules]
        self._lasting = [state for state in self._states if state.lasting]
        self.digests: Mapping[str, str] = {rule.name: digest_of(rule) for rule in rules}
        self.counted: frozenset[int] = (
            frozenset() if in_order else frozenset(number for number, rule in enumerate(rules) if _asks_nothing(rule))
        )
        rows: dict[str, dict[str, str]] = {}
        for (name, key), text in stored.items():
            rows.setdefault(name, {})[key] = text
        for state in self._states:
            if found := rows.get(state.rule.name):
                state.load(found)
        self._unbegun = [state for state in self._states if state.began is None]
        self._watchful = True
        self._unseen_before: datetime | None = None
        if templates_since is not None:
            for state in self._unbegun:
                if isinstance(state, Novel):
                    state.begin(templates_since.timestamp())
            self._unbegun = [state for state in self._unbegun if state.began is None]
        if started is not None:
            self._begin(started.timestamp())

    def feed(self, hits: Iterable[Hit]) -> None:
        """Entries that rules are about, in the order they were read; several rules of one entry each have a hit."""
        states = self._states
        for hit in hits:
            at = hit.entry.at.timestamp()
            if self._watchful:
                self._pass(at)
            states[hit.rule].hit(hit, at)

    def unseen_before(self, moment: datetime) -> None:
        """Nobody could look before it: that nothing came until then means nothing. Of the same moment: once."""
        if moment != self._unseen_before:
            self._unseen_before = moment
            for state in self._states:
                state.unseen_before(moment.timestamp())

    def novel(self, sightings: Iterable[tuple[int, Sighting, Mapping[str, str]]]) -> None:
        """New templates for rules of type novel: number of the rule, what was seen, groups of the rule's pattern."""
        for rule, sighting, groups in sightings:
            at = sighting.entry.at.timestamp()
            self._pass(at)
            self._states[rule].sighting(sighting, groups, at)

    def count_all(self, count: int, first_at: datetime, last_at: datetime) -> None:
        """So many entries came, matched or not, between these event times: for the rules that are `counted`."""
        if count < 1:
            return
        first, last = first_at.timestamp(), max(first_at, last_at).timestamp()
        self._pass(first)
        for number in sorted(self.counted):
            self._states[number].count_all(count, first, last)

    def advance(self, to: datetime) -> None:
        """
        Nothing unread lies before `to`: silence counts until then, and windows that it leaves behind are let go.

        To be called when the source is caught up, with that moment; at the end of a replay with the last event time.
        """
        at = to.timestamp()
        if self._unbegun:
            self._begin(at)
        for state in self._states:
            state.advance(at)

    def next_change(self) -> datetime | None:
        """When `advance` could next tell something that nothing else will; never too late, perhaps too early."""
        dues = [due for state in self._lasting if (due := state.next_due()) is not None]
        return moment(min(dues)) if dues else None

    def take(self) -> Outcome:
        """What came about since the last take, and the windows that changed since."""
        events: list[Draft | Ended] = []
        keys: list[tuple[str, str]] = []
        rows: list[list[Any] | None] = []
        for state in self._states:
            events += state.take_events()
            for key, row in state.take_rows():
                keys.append((state.rule.name, key))
                rows.append(row)
        rows = self._clean(rows)
        windows = {key: None if row is None else encode(row) for key, row in zip(keys, rows, strict=True)}
        return Outcome(list(finished(events, self._clean)), windows)

    @property
    def counts(self) -> Mapping[str, RuleCounts]:
        """What each rule did, by its name."""
        for state in self._states:
            state.counts.keys = len(state.windows)
        return {state.rule.name: state.counts for state in self._states}

    def _pass(self, at: float) -> None:
        if self._unbegun:
            self._begin(at)
        if self._in_order:
            for state in self._lasting:
                due = state.next_due()
                if due is not None and due < at:
                    state.advance(math.nextafter(at, 0.0))

    def _begin(self, at: float) -> None:
        for state in self._unbegun:
            state.begin(at)
        self._unbegun = []
        self._watchful = self._in_order and bool(self._lasting)


def digest_of(rule: Rule) -> str:
    """16 hexadecimal digits of what the windows of a rule hang on; names, severity and thresholds may change."""
    settings = rule.model_dump(mode="json", include=set(_MATTERS))
    # What counts by slots keeps other windows than what counts one by one.
    settings["by_slots"] = max(rule.count or 0, rule.fewer_than or 0) > EXACT
    settings["few"] = rule.fewer_than is not None
    text = json.dumps([_FORM, settings], sort_keys=True)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _asks_nothing(rule: Rule) -> bool:
    return rule.type == "flatline" and not (rule.match or rule.when or rule.ignore or rule.by)
