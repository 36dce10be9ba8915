"""
Which entries of a block are which rules' business.

In: a block, and the rules of the watch. Out: Hits, entries in the block's order, rules by number within an entry.
Promise: exactly the entries that a look at each of them with each rule would give; only quicker. All patterns are
looked for at once in the whole block, and a look at an entry decides. Nothing here raises for what a text may hold.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Protocol

from agentd.condition.needed import Needed, needed
from agentd.logs.compiled import Asked, CompiledRules, compile_rules
from agentd.logs.compiled import value_of as value_of
from agentd.logs.patterns import compile_pattern, compile_set, literal, widened
from agentd.logs.port import Block, Entry, Hit, Parser, Place
from agentd.logs.scan import (
    Found,
    Joiner,
    Search,
    Which,
    all_bounds,
    bounds_of,
    entry_text,
    found_entries,
    found_lines,
)
from agentd.logs.settings import Rule

_SET_MEMORY = 16 << 20
_SHORTEST_LITERAL = 3
_ESCAPED = r"\\[uUxX0-9]"
"""How JSON and logfmt may write a plain letter otherwise: an entry with it may hold any literal."""
_VERBATIM = frozenset({"line", "message"})
_NO_NUMBER = re.compile("[A-DF-Za-df-z_]")
"""1e5 may become 100000.0; what has another letter than e is no number."""
DERIVED = frozenset({"level", "timestamp", "facility", "priority"})
"""Fields that the parsers make of what stands in the line; all other text they give stands there as it is."""


_NO_GROUPS: Mapping[str, str] = {}

Candidate = tuple[int, bool]
"""A rule, and whether it is known already that its `match` stands in the entry and that it names no groups."""


class Times(Protocol):
    """The moment at which an entry counts."""

    def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
        """said: what the entry says itself, None when it says nothing."""
        ...


class Matcher:
    """
    The rules of one watch.

    derived: names of fields whose text need not stand in the line as it is; every other field of the parser's must,
    save for escapes with a backslash. None: nothing is known of the fields, so a rule with `when` alone looks at every
    entry, unless it asks about `line` or `message`. counted: numbers of rules that need no hits, for they are told how
    many entries came.
    Raises ConfigError for rules that cannot be compiled.
    """

    def __init__(
        self,
        rules: Sequence[Rule] | CompiledRules,
        joiner: Joiner,
        parser: Parser,
        *,
        derived: Collection[str] | None = DERIVED,
        counted: Collection[int] = (),
    ) -> None:
        compiled = rules if isinstance(rules, CompiledRules) else compile_rules(rules)
        self._asked = compiled.checked().asked
        self._joiner = joiner
        self._parser = parser
        self._with_literals = _Plan(self._asked, {n: text for n, text in _literals(self._asked, derived)}, counted)
        self._without_literals = (
            _Plan(self._asked, {}, counted) if self._with_literals.literals else self._with_literals
        )

    def hits(self, block: Block, times: Times) -> Iterator[Hit]:
        """
        What the rules (save `novel`) have to do with the block.

        An entry's text is without its last newline and carriage returns before newlines; its time is asked of `times`
        once, and only if some rule hits it.
        """
        # Fields that the source gives need not stand in the text.
        plan = self._with_literals if block.fields is None else self._without_literals
        for begin, text, candidates in self._looked_at(block, plan):
            entry: Entry | None = None
            timed = False
            for number, sure in candidates:
                asked = self._asked[number]
                groups: Mapping[str, str] | None = _NO_GROUPS if sure else asked.groups(text)
                if (groups is None and not asked.counts_all) or (asked.ignore and asked.ignores(text)):
                    continue
                if entry is None:
                    entry = self._entry(block, begin, text)
                matched = groups is not None and (asked.when is None or asked.holds(entry, groups))
                if not matched and not asked.counts_all:
                    continue
                if not timed:
                    timed = True
                    self._time(block, entry, times)
                yield Hit(number, entry, groups or _NO_GROUPS, matched, begin)

    def entry(self, block: Block, index: int, times: Times) -> Entry:
        """The entry that holds this byte of the block."""
        begin, end = bounds_of(block, self._joiner)(index)
        entry = self._entry(block, begin, entry_text(block.text, begin, end))
        self._time(block, entry, times)
        return entry

    def entries(self, block: Block) -> Iterator[tuple[int, str]]:
        """Every entry: where it begins in the block, and its text."""
        for begin, end in all_bounds(block, self._joiner):
            yield begin, entry_text(block.text, begin, end).decode(errors="replace")

    def _time(self, block: Block, entry: Entry, times: Times) -> None:
        # Taken apart already, or not for this alone.
        fields = entry._fields if block.fields is None else entry.fields
        said = self._parser.time(entry.text, fields, block.written_by or block.read_at)
        entry.at = times.of(block.stream, said, block.read_at)

    def accepts(self, rule: int, entry: Entry) -> Mapping[str, str] | None:
        """The groups of the rule's `match` if the entry passes its match, ignore and when; else None."""
        asked = self._asked[rule]
        text = entry.text.encode(errors="replace")
        groups = asked.groups(text)
        if groups is None or asked.ignores(text) or not asked.holds(entry, groups):
            return None
        return groups

    def _looked_at(self, block: Block, plan: _Plan) -> Iterator[tuple[int, bytes, Sequence[Candidate]]]:
        """The entries that may be some rule's business: begin, text, and the rules to be asked."""
        found = self._found(block, plan) if plan.search_texts else iter(())
        if not plan.always:
            for begin, _, text, numbers in found:
                yield begin, text, plan.candidates(numbers)
            return
        following = next(found, None)
        for begin, end in all_bounds(block, self._joiner):
            if following is not None and following[0] <= begin:
                yield begin, following[2], plan.candidates(following[3])
                following = next(found, None)
            else:
                yield begin, entry_text(block.text, begin, end), plan.always

    def _found(self, block: Block, plan: _Plan) -> Iterator[Found]:
        if block.starts is None and self._joiner.plain:
            return found_lines(block.text, plan.search_in_lines, plan.which)
        return found_entries(block.text, plan.search_over_lines, plan.which, bounds_of(block, self._joiner))

    def _entry(self, block: Block, begin: int, text: bytes) -> Entry:
        offset, cursor, given = block.offset + begin, None, None
        if block.starts is not None:
            row = bisect_left(block.starts, begin)
            if block.offsets is not None:
                offset = block.offsets[row]
            if block.cursors is not None:
                cursor = block.cursors[row]
            if block.fields is not None:
                given = block.fields[row]
        place = Place(block.file, offset, cursor)
        return Entry(text.decode(errors="replace"), place, block.read_at, self._parser, given)


class _Plan:
    """
    Which rules are found by searching, and which must look at every entry.

    literals: patterns that stand in every entry for which the `when` of a rule without `match` can hold, by rule.
    """

    def __init__(self, asked: Sequence[Asked], literals: Mapping[int, str], counted: Collection[int]) -> None:
        self.literals = literals
        self.always: list[Candidate] = []
        self.search_texts: list[str] = []
        self._candidates: list[Candidate] = []
        for number, each in enumerate(asked):
            if each.rule.type == "novel" or number in counted:
                continue
            if each.counts_all or (each.match is None and number not in literals):
                self.always.append((number, False))
            elif each.match is None:
                self.search_texts.append(literals[number])
                self._candidates.append((number, True))
            else:
                self.search_texts.append(each.match.source)
                self._candidates.append((number, not each.match.names))
        self._alone = [(candidate,) for candidate in self._candidates]

    @cached_property
    def search_in_lines(self) -> Search:
        return Search([widened(text) for text in self.search_texts], one_line=True)

    @cached_property
    def search_over_lines(self) -> Search:
        return Search([widened(text) for text in self.search_texts], one_line=False)

    @cached_property
    def which(self) -> Which:
        """Which of `search_texts` stand in an entry."""
        singles = [compile_pattern(text).finds for text in self.search_texts]
        if len(singles) == 1:
            (finds,) = singles
            return lambda text: (0,) if finds(text) else ()
        in_one = compile_set(self.search_texts, memory=_SET_MEMORY)

        def which(text: bytes) -> Sequence[int]:
            # The set finds nothing, too, when its automaton has no room for the text.
            numbers: list[int] = in_one(text) if in_one is not None else []
            return numbers or [number for number, finds in enumerate(singles) if finds(text)]

        return which

    def candidates(self, numbers: Sequence[int]) -> Sequence[Candidate]:
        """The rules to be asked about an entry in which these of `search_texts` stand, in their order."""
        if len(numbers) == 1 and not self.always:
            return self._alone[numbers[0]]
        return sorted([*(self._candidates[number] for number in numbers), *self.always])


def _literals(asked: Sequence[Asked], derived: Collection[str] | None) -> Iterator[tuple[int, str]]:
    for number, each in enumerate(asked):
        if each.rule.when is not None and each.match is None:
            usable = [need for need in needed(each.rule.when) if _stands_in_line(need, derived)]
            if usable:
                best = max(usable, key=lambda need: min(map(len, need.literals)))
                yield number, "|".join([*map(literal, best.literals), _ESCAPED])


def _stands_in_line(need: Needed, derived: Collection[str] | None) -> bool:
    if any(len(text) < _SHORTEST_LITERAL or not _NO_NUMBER.search(text) for text in need.literals):
        return False
    name = need.path[1] if need.path[0] == "fields" and len(need.path) > 1 else need.path[0]
    return name in _VERBATIM or (derived is not None and name not in derived)
