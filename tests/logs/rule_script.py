"""Hits by hand, at seconds of event time after a fixed noon, and what an engine makes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentd.logs.port import Ended, Entry, Hit, Occurrence, Outcome, Place, Sighting
from agentd.logs.rules import RuleEngine
from agentd.logs.settings import Rule

NOON = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class NoParser:
    """Every text is a message."""

    def fields(self, text: str) -> dict[str, Any]:
        return {"message": text}

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        return None


PARSER = NoParser()


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def second(moment: datetime) -> float:
    return (moment - NOON).total_seconds()


def entry(when: float, text: str = "line", **fields: Any) -> Entry:
    given = {"message": text, **fields} if fields else None
    return Entry(text, Place("/var/log/x", int(when * 1000)), at(when), PARSER, given)


def hit(when: float, text: str = "line", *, rule: int = 0, matched: bool = True, **groups: str) -> Hit:
    return Hit(rule, entry(when, text), groups, matched)


def field_hit(when: float, *, rule: int = 0, matched: bool = True, **fields: Any) -> Hit:
    return Hit(rule, entry(when, "line", **fields), {}, matched)


def sighting(when: float, text: str = "line", rule: int = 0) -> tuple[int, Sighting, dict[str, str]]:
    return rule, Sighting(f"t{when}", text, entry(when, text)), {}


def rule(type_: str, **settings: Any) -> Rule:
    return Rule.model_validate({"name": settings.pop("name", "r"), "type": type_, **settings})


def engine(*rules: Rule, started: float | None = 0, **settings: Any) -> RuleEngine:
    settings.setdefault("stored", {})
    return RuleEngine(rules, started=None if started is None else at(started), **settings)


def told(outcome: Outcome) -> list[tuple[Any, ...]]:
    """(first second, last second, count, by values...) of occurrences, ("ended", second, by values...) of ends."""
    return [shown(event) for event in outcome.events]


def shown(event: Occurrence | Ended) -> tuple[Any, ...]:
    by = tuple(event.by.values())
    if isinstance(event, Ended):
        return ("ended", second(event.at), *by)
    return (second(event.at), second(event.last_at), event.count, *by)


def fed(made: RuleEngine, hits: Iterable[Hit]) -> list[tuple[Any, ...]]:
    made.feed(hits)
    return told(made.take())


def occurrences(outcome: Outcome) -> list[Occurrence]:
    return [event for event in outcome.events if isinstance(event, Occurrence)]


def only(outcome: Outcome) -> Occurrence:
    (found,) = outcome.events
    assert isinstance(found, Occurrence)
    return found


class Store:
    """Keeps windows as the state store does."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], str] = {}

    def commit(self, outcome: Outcome) -> Outcome:
        for key, text in outcome.windows.items():
            if text is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = text
        return outcome
