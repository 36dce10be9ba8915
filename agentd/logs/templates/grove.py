"""
The templates that are known, indexed so that a line is compared with few of them.

In: the tokens of a line.  Out: the template it belongs to, made, widened or merged as need be.
Promise: what a template once stood for it stands for as long as it lives; the work for a line has a bound that does
not depend on how many templates there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from operator import eq, itemgetter
from typing import Any, NamedTuple

from agentd.logs.templates.likeness import WORTH, Likeness, compare
from agentd.logs.templates.masks import WILD, Kind, covers, look
from agentd.logs.templates.table import Template

_CANDIDATES = 64
_COMPARED = 16
_HEADED = 4
"""So many templates must have a token at one place before it can be part of a header."""

_LONG = 8
"""With so many words the same, three lines that differ in a word or two will do."""
_WIDENED = 32
"""So many ways of being widened are tried for a length, before the templates are compared one by one."""

Tokens = tuple[str, ...]


class _Widened(NamedTuple):
    """Templates that are wild at the same places, by what they say at the others."""

    said: Callable[[Tokens], Any]
    templates: dict[Any, Template]


class Grove:
    """Templates by what stands at which place. One line belongs to one template."""

    def __init__(self) -> None:
        self._exact: dict[Tokens, Template] = {}
        self._at: dict[tuple[int, int, str], dict[Template, None]] = {}
        self._standing: dict[tuple[int, str], int] = {}
        self._widened: dict[int, dict[tuple[int, ...], _Widened]] = {}
        self._size = 0

    def add(self, template: Template) -> None:
        """Take in a template."""
        self._exact.setdefault(template.tokens, template)
        template.faces = faces(template.tokens)
        length = len(template.faces)
        for at, token in enumerate(template.faces):
            if _holds(token):
                self._at.setdefault((length, at, token), {})[template] = None
                self._standing[at, token] = self._standing.get((at, token), 0) + 1
        if 0 < len(wild := _wild_places(template.tokens)) < length:
            alike = self._widened.setdefault(length, {})
            if wild not in alike:
                alike[wild] = _Widened(itemgetter(*(at for at in range(length) if at not in wild)), {})
            alike[wild].templates.setdefault(alike[wild].said(template.tokens), template)
        self._size += 1

    def remove(self, template: Template) -> None:
        if self._exact.get(template.tokens) is template:
            del self._exact[template.tokens]
        for at, token in enumerate(template.faces):
            if _holds(token):
                self._forget(template, at, token)
        alike = self._widened.get(len(template.tokens), {})
        if (one := alike.get(wild := _wild_places(template.tokens))) is not None:
            said = one.said(template.tokens)
            if one.templates.get(said) is template:
                del one.templates[said]
            if not one.templates:
                del alike[wild]
        self._size -= 1

    @property
    def young(self) -> bool:
        """Too few templates are known to tell what is a header."""
        return self._size < 4 * _HEADED

    def exact(self, tokens: Tokens) -> Template | None:
        return self._exact.get(tokens)

    def covering(self, tokens: Tokens) -> Template | None:
        """
        The template that says all of the line word for word, save at its few wild places.

        None may mean, too, that this is not quickly told. `nearest` would give the same, at ten times the cost.
        """
        found: Template | None = None
        fewest = len(tokens)
        for wild, (said, templates) in islice(self._widened.get(len(tokens), {}).items(), _WIDENED):
            if (
                len(wild) < fewest
                and (template := templates.get(said(tokens))) is not None
                and all(covers(template.tokens[at], tokens[at]) for at in wild)
            ):
                found, fewest = template, len(wild)
        return found

    def nearest(self, tokens: Tokens) -> tuple[Template | None, list[tuple[Template, Likeness]]]:
        """
        The template that the line belongs to, if there is one, and all that were compared.
        """
        weights = self._weights(tokens)
        best: Template | None = None
        rank: tuple[float, float, int] = (0.0, 0.0, 0)
        compared = [(template, compare(template.tokens, tokens, weights)) for template in self._candidates(tokens)]
        for template, likeness in compared:
            if not likeness.told and likeness.fits and likeness.weight > 0:
                this = (likeness.weight - likeness.cost, likeness.weight, -template.order)
                if best is None or this > rank:
                    best, rank = template, this
        return best, compared

    def change(self, template: Template, tokens: Tokens) -> None:
        """Give the template wider tokens; they may be another's, see `akin`."""
        self.remove(template)
        template.tokens = tokens
        self.add(template)

    def _weights(self, tokens: Tokens) -> list[float]:
        """What each token is worth: little at the begin of a line, where most templates have it, as headers do."""
        weights = [WORTH[look(token).kind] for token in tokens]
        many = max(_HEADED, 0.4 * self._size)
        for at, token in enumerate(faces(tokens)):
            if weights[at] == 1.0:
                if self._standing.get((at, token), 0) < many:
                    break
                weights[at] = 0.1
        return weights

    def akin(self, template: Template) -> list[Template]:
        """Others that the template, having become wider, covers, or is as like as a line that belongs to it."""
        twin = self._exact[template.tokens]
        weights = self._weights(template.tokens)
        found = []
        for other in dict.fromkeys([twin, *self._candidates(template.tokens)]):
            if other is template:
                continue
            likeness = compare(other.tokens, template.tokens, weights)
            if (not likeness.told and likeness.fits and likeness.weight > 0) or all(
                ours == theirs or (WILD in ours and covers(ours, theirs))
                for ours, theirs in zip(template.tokens, other.tokens, strict=True)
            ):
                found.append(other)
        return found

    def _candidates(self, tokens: Tokens) -> list[Template]:
        """Templates that share words with the line, most words first; those who share only frequent words may miss."""
        length = len(tokens)
        shown = faces(tokens)
        postings = [
            found
            for at, token in enumerate(shown)
            if _holds(token) and (found := self._at.get((length, at, token))) is not None
        ]
        if not postings:
            return []
        postings.sort(key=len)
        candidates: dict[Template, None] = {}
        for found in postings:
            if len(candidates) + len(found) <= _CANDIDATES:
                candidates.update(found)
            else:
                for template in found:
                    if len(candidates) >= _CANDIDATES:
                        break
                    candidates[template] = None
                break
        if len(candidates) <= _COMPARED:
            return list(candidates)
        ranked = sorted(
            candidates,
            key=lambda template: (-sum(map(eq, template.faces, shown)) - _wilds(template), template.order),
        )
        return ranked[:_COMPARED]

    def _forget(self, template: Template, at: int, token: str) -> None:
        key = (len(template.tokens), at, token)
        found = self._at[key]
        del found[template]
        if not found:
            del self._at[key]
        left = self._standing[at, token] = self._standing[at, token] - 1
        if not left:
            del self._standing[at, token]


def _holds(token: str) -> bool:
    """Whether a token is worth an index entry: it does not vary."""
    return Kind.VARIABLE < look(token).kind < Kind.MARK


def faces(tokens: Tokens) -> Tokens:
    """The tokens, with no difference made between kinds of placeholders."""
    return tuple([look(token).any for token in tokens])


def _wild_places(tokens: Tokens) -> tuple[int, ...]:
    return tuple([at for at, token in enumerate(tokens) if WILD in token])


def _wilds(template: Template) -> float:
    return 0.5 * template.tokens.count(WILD)


def siblings(compared: Iterable[tuple[Template, Likeness]], *, unsure: bool) -> list[Template]:
    """
    Templates that turn out to be one, by the line that is one more of them: alike but for a word or two, each with
    another word there. Many words at one place are values; a few that come again and again tell what happened.

    unsure: too few templates are known to tell a header from a long message.
    """
    families: dict[tuple[int, ...], list[tuple[Template, Likeness]]] = {}
    for template, likeness in compared:
        if 1 <= len(likeness.told) <= 2 and likeness.fits:
            families.setdefault(likeness.told, []).append((template, likeness))
    for places, family in sorted(families.items(), key=lambda item: -len(item[1])):
        size = len(family) + 1
        lines = sum(template.count for template, _ in family) + 1
        weight = min(likeness.weight for _, likeness in family)
        enough = 5 if lines <= 2 * size else 10
        if weight >= _LONG and not unsure:
            enough = 3
        if weight < 2 * len(places):
            enough = _COMPARED
        if size >= enough:
            return [template for template, _ in family]
    return []
