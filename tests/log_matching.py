"""
What the tests of matching share: plain joiners and parsers, and the slow way to the same hits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from agentd.logs.compiled import compile_rules
from agentd.logs.match import Matcher
from agentd.logs.port import Block, Entry, Hit, Place
from agentd.logs.scan import Joiner
from agentd.logs.settings import Rule

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


class Lines:
    """Every line is an entry."""

    plain = True

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        begin = text.rfind(b"\n", 0, index) + 1
        end = text.find(b"\n", index)
        return begin, len(text) if end < 0 else end

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        begin = 0
        while begin < len(text):
            _, end = self.bounds(text, begin)
            yield begin, end
            begin = end + 1


class Indented:
    """
    A line that begins with a blank belongs to the one before it.

    whole: leave a carriage return before an entry's last newline in its bounds.
    """

    plain = False

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole

    def entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        for begin, end in self._entries(text):
            yield begin, end - 1 if not self.whole and text[end - 1 : end] == b"\r" and end > begin else end

    def _entries(self, text: bytes) -> Iterator[tuple[int, int]]:
        begin = None
        for first, _ in Lines().entries(text):
            if begin is None:
                begin = first
            elif text[first : first + 1] not in (b" ", b"\t"):
                yield begin, first - 1
                begin = first
        if begin is not None:
            yield begin, len(text) - 1 if text.endswith(b"\n") else len(text)

    def bounds(self, text: bytes, index: int) -> tuple[int, int]:
        number = next(n for n, each in enumerate(self._entries(text)) if each[1] >= index)
        return list(self.entries(text))[number]


class PlainParser:
    """A line of JSON gives its members, any other a message. The time is what follows `at=`, in seconds."""

    def __init__(self) -> None:
        self.asked = 0

    def fields(self, text: str) -> dict[str, Any]:
        self.asked += 1
        if text.startswith("{"):
            try:
                found = json.loads(text)
            except ValueError:
                return {"message": text}
            return {"message": "", **found}
        return {"message": text}

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        found = re.search(r"at=(\d{1,9})\b", text, re.ASCII)
        return datetime.fromtimestamp(int(found[1]), UTC) if found else None


class Said:
    """What the line says is so."""

    def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
        return said or read_at


def block(text: bytes, **more: Any) -> Block:
    return Block("s", "/var/log/x", text, more.pop("offset", 0), NOW, **more)


def rule(**keys: Any) -> Rule:
    return Rule(**{"name": "r", "type": "any", **keys})


def hits(
    text: bytes, *rules: Rule, joiner: Joiner | None = None, derived: Sequence[str] | None = (), **more: Any
) -> list[Hit]:
    matcher = Matcher(rules, joiner or Lines(), PlainParser(), derived=derived)
    return list(matcher.hits(block(text, **more), Said()))


def lines(found: Sequence[Hit]) -> list[tuple[int, str]]:
    return [(hit.rule, hit.entry.text) for hit in found]


def told(found: Sequence[Hit]) -> list[tuple[int, str, int | None, dict[str, str], bool]]:
    """All that a hit says, to compare."""
    return [(hit.rule, hit.entry.text, hit.entry.place.offset, dict(hit.groups), hit.matched) for hit in found]


def slow_hits(text: bytes, *rules: Rule, joiner: Joiner | None = None) -> list[Hit]:
    """Every entry is shown to every rule, one pattern at a time."""
    asked = compile_rules(rules).checked().asked
    found = []
    for begin, end in (joiner or Lines()).entries(text):
        returns = text[end - 1 : end + 1] == b"\r\n" and end > begin
        shown = text[begin : end - returns].replace(b"\r\n", b"\n")
        entry = Entry(shown.decode(), Place("/var/log/x", begin), NOW, PlainParser())
        for number, each in enumerate(asked):
            groups = each.groups(shown)
            percentage = each.rule.type == "percentage"
            if each.rule.type == "novel" or (groups is None and not percentage) or each.ignores(shown):
                continue
            matched = groups is not None and each.holds(entry, groups)
            if matched or percentage:
                found.append(Hit(number, entry, groups or {}, matched))
    return found
