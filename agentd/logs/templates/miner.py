"""
Mine the templates of one source's lines, online.

In: blocks of lines.  Out: templates seen for the first time, at once; the table and what to store, when asked.
Promise: an id is given at first sight and stays, over wider patterns and restarts; memory has a bound whatever comes;
the same lines give the same templates, however they are cut into blocks.

Three steps, each for what the one before it did not know: the line without its digits, in a bounded cache; its words
masked one by one, in another; the tokens compared with the templates that share words with them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

from agentd.logs.templates.grove import Grove, Tokens, siblings
from agentd.logs.templates.masks import skeleton, tokens, widened
from agentd.logs.templates.table import (
    ESTABLISHED,
    LONGEST_SAMPLE,
    Changes,
    Row,
    StoredTemplate,
    Template,
)

_DIGITS = b"0123456789"
_CACHED = 10_000
_EPOCH = datetime.fromtimestamp(0, UTC)
_EXCEPTION = re.compile(rb"^(?:Caused by: )?([A-Za-z_][\w.$]{0,200})(?::|\r?$)", re.MULTILINE)
_FAULT = re.compile(rb"(?:Error|Exception|Fault|Interrupt|Exit|Warning|Throwable)$")


@dataclass(frozen=True, slots=True)
class New:
    """A template seen for the first time. offset: of the first byte, in the block, of the line that showed it."""

    id: str
    pattern: str
    offset: int


class _Cache:
    """
    From the hash of what a line looks like to its template. Two generations: what is asked for again survives.

    The hash stands for the text, at a quarter of the memory: it has 64 bits, and is keyed, so nobody can aim at one.
    """

    __slots__ = ("old", "young")

    def __init__(self) -> None:
        self.young: dict[int, Template] = {}
        self.old: dict[int, Template] = {}

    def get(self, key: int) -> Template | None:
        found = self.young.get(key)
        if found is None:
            found = self.old.get(key)
            if found is None:
                return None
            self.put(key, found)
        while found.into is not None:
            found = found.into
        return None if found.gone else found

    def put(self, key: int, template: Template) -> None:
        if len(self.young) >= _CACHED:
            self.old, self.young = self.young, {}
        self.young[key] = template


class Miner:
    """
    Templates of one source. Not for several threads.

    stored: what an earlier run gave to be stored. max_templates: when there are more, the one that was seen least
    recently goes, and first one of those that came but once or twice.
    """

    def __init__(self, *, stored: Iterable[StoredTemplate] = (), max_templates: int = 1000) -> None:
        if max_templates < 1:
            raise ValueError("max_templates: must be 1 or more")
        self.evicted = 0
        """Templates that went because the table was full."""
        self._most = max_templates
        self._most_proven = max(1, max_templates - max(1, max_templates // 20))
        self._grove = Grove()
        self._shapes = _Cache()
        self._skeletons = _Cache()
        self._fresh: dict[str, Template] = {}
        self._proven: dict[str, Template] = {}
        self._order = 0
        self._now = _EPOCH
        self._changed: dict[str, Template] = {}
        self._touched: dict[str, Template] = {}
        self._gone: dict[str, str | None] = {}
        self._merged: dict[str, str] = {}
        self._restore(stored)

    def __len__(self) -> int:
        return len(self._fresh) + len(self._proven)

    def add(self, text: bytes, first_at: datetime, last_at: datetime, starts: Sequence[int] | None = None) -> list[New]:
        """
        Learn from a block of whole lines, each ending with a newline, that came between two moments.

        starts: where each entry begins, when entries are not lines; of an entry of several lines the first counts, and
        the exception it names. Blank lines count for nothing. Returns what was never seen before, in the order it came.
        """
        self._now = last_at
        entries: list[bytes] = []
        if starts is None:
            shapes = text.translate(None, _DIGITS).split(b"\n")
            if not shapes[-1] and text.endswith(b"\n"):
                shapes.pop()
        else:
            entries = _heads(text, starts)
            shapes = [entry.translate(None, _DIGITS) for entry in entries]
        news: list[New] = []
        place: dict[bytes, int] | None = None
        tally: dict[Template, int] = {}
        find = self._shapes.get
        for shape, count in Counter(shapes).items():
            template = find(hash(shape))
            if template is None or template.wants_sample(last_at):
                if place is None:
                    place = dict(zip(reversed(shapes), range(len(shapes) - 1, -1, -1), strict=True))
                    if starts is None:
                        entries = text.split(b"\n")
                at = place[shape]
                line = entries[at]
                if not shape.strip():
                    told = [at for at, bare in enumerate(shapes) if bare == shape and entries[at].strip()]
                    if not told:
                        continue
                    at, count = told[0], len(told)
                    line = entries[at]
                if template is None:
                    template, is_new = self._learn(line, first_at)
                    if shape.strip():
                        self._shapes.put(hash(shape), template)
                    if is_new:
                        news.append(New(template.id, template.pattern, at))
                if template.wants_sample(last_at):
                    template.sample(_shown(line), last_at if template.count else first_at)
            tally[template] = tally.get(template, 0) + count
        for template, count in tally.items():
            self._count(template, count, last_at)
        if news:
            begins = list(accumulate((len(entry) + 1 for entry in entries), initial=0)) if starts is None else starts
            news = [New(new.id, new.pattern, begins[new.offset]) for new in news]
        return news

    def add_one(self, line: str, at: datetime | None = None) -> str | None:
        """
        Learn from one line and return its template's id; None for a blank one.

        Two ids may become one later on: see `current`.
        """
        raw = line.encode("utf-8", "replace")
        shape = raw.translate(None, _DIGITS)
        at = self._now if at is None else at
        self._now = at
        template = self._shapes.get(hash(shape))
        if template is None:
            if not raw.strip():
                return None
            template, _ = self._learn(raw, at)
            if shape.strip():
                self._shapes.put(hash(shape), template)
        if template.wants_sample(at):
            template.sample(line.rstrip("\n"), at)
        self._count(template, 1, at)
        return template.id

    def match(self, line: str) -> str | None:
        """The id of the template that the line belongs to, learning nothing; None when it would be a new one."""
        raw = line.encode("utf-8", "replace")
        template = self._shapes.get(hash(raw.translate(None, _DIGITS)))
        if template is None:
            bones = skeleton(raw)
            template = self._skeletons.get(hash(bones))
            if template is None:
                words = tokens(bones)
                template = self._grove.exact(words) or self._grove.covering(words) or self._grove.nearest(words)[0]
        return None if template is None else template.id

    def current(self, id: str) -> str | None:
        """The id that an earlier id goes by now: another one when two became one, None when it is no longer known."""
        seen: set[str] = set()
        while id not in self._fresh and id not in self._proven:
            into = self._merged.get(id)
            if into is None or id in seen:
                return None
            seen.add(id)
            id = into
        return id

    def rows(self) -> list[Row]:
        """The table for people, most frequent first."""
        known = sorted([*self._fresh.values(), *self._proven.values()], key=lambda t: (-t.count, t.order))
        return [template.row(self._now) for template in known]

    def changes(self) -> Changes:
        """What to store since the last call."""
        changes = Changes(
            tuple(template.stored() for template in self._changed.values()),
            tuple(template.counted() for template in self._touched.values()),
            self._gone,
        )
        for template in self._changed.values():
            template.stored_once = True
        self._changed, self._touched, self._gone = {}, {}, {}
        return changes

    def _learn(self, raw: bytes, at: datetime) -> tuple[Template, bool]:
        """The template of a line whose shape is not known, and whether the line is the first of it."""
        bones = skeleton(raw)
        template = self._skeletons.get(hash(bones))
        if template is not None:
            return template, False
        words = tokens(bones)
        template = self._grove.exact(words) or self._grove.covering(words)
        is_new = False
        if template is None:
            template, compared = self._grove.nearest(words)
            family = siblings(compared, unsure=self._grove.young) if template is None else [template]
            if family:
                template = self._unite(family, words)
            else:
                template, is_new = self._plant(words, at), True
        self._skeletons.put(hash(bones), template)
        return template, is_new

    def _plant(self, words: Tokens, at: datetime) -> Template:
        self._make_room(1)
        template = Template(self._free_id(words), words, self._order, at)
        self._order += 1
        self._grove.add(template)
        self._fresh[template.id] = self._changed[template.id] = template
        return template

    def _free_id(self, words: Tokens) -> str:
        """Made from the first pattern, so that what comes back after it was pushed out has the id it had."""
        text, attempt = " ".join(words), 0
        while True:
            salt = f"{attempt}\0" if attempt else ""
            id = hashlib.blake2b(f"{salt}{text}".encode("utf-8", "replace"), digest_size=6).hexdigest()
            if id not in self._fresh and id not in self._proven and id not in self._merged:
                return id
            attempt += 1

    def _unite(self, family: list[Template], words: Tokens) -> Template:
        """Make these one, for the words too and whatever is then akin. The oldest identity stays."""
        wide = words
        while True:
            for one in family:
                wide = tuple(
                    ours if ours == theirs else widened(ours, theirs)
                    for ours, theirs in zip(one.tokens, wide, strict=True)
                )
            eldest = min(family, key=lambda one: one.order)
            for other in family:
                if other is not eldest:
                    self._merge(other, eldest)
            if eldest.tokens == wide:
                return eldest
            self._grove.change(eldest, wide)
            self._changed[eldest.id] = eldest
            family = [eldest, *self._grove.akin(eldest)]

    def _merge(self, other: Template, into: Template) -> None:
        into.take_over(other)
        other.into = into
        self._merged[other.id] = into.id
        self._drop(other, into.id)
        self._touched[into.id] = into
        if len(self._merged) > 4 * self._most:
            del self._merged[next(iter(self._merged))]

    def _count(self, template: Template, lines: int, at: datetime) -> None:
        while template.into is not None:
            template = template.into
        if template.gone:
            return
        template.seen(lines, at)
        self._touched[template.id] = template
        if template.count >= ESTABLISHED and self._fresh.pop(template.id, None) is not None:
            self._proven[template.id] = template

    def _make_room(self, more: int) -> None:
        while len(self) + more > self._most:
            crowded = self._proven if len(self._proven) > self._most_proven or not self._fresh else self._fresh
            id, template = next(iter(crowded.items()))
            if template.recently:  # a second chance: nearly the least recent goes, at no cost for each line
                template.recently = False
                crowded[id] = crowded.pop(id)
            else:
                self._drop(template, None)
                self.evicted += 1

    def _drop(self, template: Template, into: str | None) -> None:
        self._grove.remove(template)
        for where in (self._fresh, self._proven, self._changed, self._touched):
            where.pop(template.id, None)
        if template.stored_once:
            self._gone[template.id] = into
        template.let_go()

    def _restore(self, stored: Iterable[StoredTemplate]) -> None:
        known = sorted(stored, key=lambda one: (one.last_seen or one.first_seen, one.first_seen, one.id))[-self._most :]
        ages = {one.id: age for age, one in enumerate(sorted(known, key=lambda one: (one.first_seen, one.id)))}
        self._order = len(known)
        for one in known:
            template = Template(one.id, tuple(one.pattern.split(" ")), ages[one.id], one.first_seen)
            if self._grove.exact(template.tokens) is None:
                template.restore(one)
                self._grove.add(template)
                self._proven[one.id] = template


def _shown(line: bytes) -> str:
    return line[: 4 * LONGEST_SAMPLE].decode("utf-8", "replace").rstrip("\r\n")


def _heads(text: bytes, starts: Sequence[int]) -> list[bytes]:
    """What of each entry its template is made from."""
    heads = []
    for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
        head, newline, rest = text[begin:end].rstrip(b"\r\n").partition(b"\n")
        if newline:
            fault = next((found[1] for found in _EXCEPTION.finditer(rest) if _FAULT.search(found[1])), None)
            if fault:
                head = head.rstrip(b"\r") + b" " + fault
        heads.append(head)
    return heads
