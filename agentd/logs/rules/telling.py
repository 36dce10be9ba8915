"""
What is told of a rule's occurrences: successive ones of one key as one, with the lines they rest on.

In: occurrences, one by one, as cheap as an addition. Out: `Occurrence` values, when they are taken.
Promise: of any number of lines the first ten and the last ten are kept as evidence; secrets are taken out before a
text is cut, so that no half of one stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agentd.logs.port import Ended, Entry, Evidence, Occurrence, Place
from agentd.logs.rules.keys import Clean

FIRST_LINES = 10
LAST_LINES = 10
LINE_CHARS = 1000
WINDOW_LINE_CHARS = 300
SUMMARY_CHARS = 200
_BEYOND_CUT = 4096
"""Of what will be cut, so much more is looked through for secrets."""

Line = tuple[Place, str]


class Run:
    """
    Occurrences of one key that follow on each other.

    entry, groups: the first line, where there is one. facts: numbers and words of the rule, told as values.
    """

    __slots__ = ("at", "count", "entry", "facts", "groups", "head", "last_at", "tail")

    def __init__(
        self,
        at: float,
        count: int,
        entry: Entry | None,
        groups: Mapping[str, str],
        facts: dict[str, Any],
        lines: Iterable[Line],
    ) -> None:
        self.at = at
        self.last_at = at
        self.count = count
        self.entry = entry
        self.groups = groups
        self.facts = facts
        self.head: list[Line] = list(lines)
        self.tail: deque[Line] | None = None

    def add(self, line: Line) -> None:
        if len(self.head) < FIRST_LINES:
            self.head.append(line)
        else:
            if self.tail is None:
                self.tail = deque(maxlen=LAST_LINES)
            self.tail.append(line)


@dataclass(slots=True)
class Words:
    """
    What a run is called. summary: without the line. reason: `5 lines within 10m`. line: goes behind the summary.
    """

    summary: str
    reason: str
    line: str = ""


@dataclass(slots=True)
class Draft:
    """An occurrence in the making, before secrets are taken out of it."""

    rule: str
    by: Mapping[str, str]
    run: Run
    words: Words
    values: dict[str, Any] = field(default_factory=dict)

    def texts(self) -> list[Any]:
        """All that may hold a secret."""
        lines = [*self.run.head, *(self.run.tail or ())]
        return [
            one_line(f"{self.words.summary}: {self.words.line}" if self.words.line else self.words.summary),
            self.words.reason,
            {name: _beyond(value, LINE_CHARS) for name, value in self.values.items()},
            [_beyond(text, LINE_CHARS) for _, text in lines],
        ]

    def occurrence(self, texts: list[Any]) -> Occurrence:
        """texts: as `texts` gave them, cleaned."""
        summary, reason, values, lines = texts
        places = [place for place, _ in (*self.run.head, *(self.run.tail or ()))]
        return Occurrence(
            rule=self.rule,
            by=self.by,
            at=moment(self.run.at),
            last_at=moment(self.run.last_at),
            count=self.run.count,
            summary=cut(summary, SUMMARY_CHARS),
            reason_text=reason,
            values={name: cut(value, LINE_CHARS) for name, value in values.items()},
            evidence=tuple(Evidence(place, cut(line, LINE_CHARS)) for place, line in zip(places, lines, strict=True)),
        )


def finished(events: list[Draft | Ended], clean: Clean) -> list[Occurrence | Ended]:
    """The events with every draft made an occurrence."""
    texts = clean([event.texts() for event in events if isinstance(event, Draft)])
    following = iter(texts)
    return [event.occurrence(next(following)) if isinstance(event, Draft) else event for event in events]


def window_line(entry: Entry, clean: Clean) -> Line:
    """A line to be kept with a window, at most 300 characters of it."""
    text = entry.text
    if len(text) > WINDOW_LINE_CHARS:
        text = cut(clean(text[: WINDOW_LINE_CHARS + _BEYOND_CUT]), WINDOW_LINE_CHARS)
    return entry.place, text


def stored_line(line: Line) -> list[Any]:
    place, text = line
    return [place.file, place.offset, place.cursor, text]


def restored_line(stored: list[Any]) -> Line:
    file, offset, cursor, text = stored
    return Place(str(file), offset, cursor), str(text)


def message_of(entry: Entry) -> str:
    """What the line says, without its frame, cut with room for secrets to be found in it."""
    message = entry.fields.get("message")
    text = message if isinstance(message, str) and message else entry.text
    return text[: SUMMARY_CHARS + _BEYOND_CUT]


def cut(value: Any, most: int) -> Any:
    """A text of at most `most` characters, the last one a mark where it was longer; anything else as it is."""
    return value[: most - 1] + "…" if isinstance(value, str) and len(value) > most else value


def one_line(text: str) -> str:
    return " ".join(text.split())


def moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def _beyond(value: Any, most: int) -> Any:
    return value[: most + _BEYOND_CUT] if isinstance(value, str) else value
