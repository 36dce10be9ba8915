"""
Which of the objects in a text are what the model does, and which it merely shows.

In: the text of an answer, without its thoughts. Out: `Words`, and of those the action objects.
Promise: a text that is nothing but objects means them all. Among words one object at most is an action, and only
where it stands apart from them: a model that tells of an order in a log must not carry it out by telling. Linear time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentd.llm.action_words import WRAPPERS, Fields, kind_in
from agentd.llm.loosejson import BrokenJson, Found, objects_in
from agentd.llm.reading import BadAction, Note

_MOST_OBJECTS = 1000
_MOST_ANSWERS = 8
_DRESS = re.compile(
    r"(?:\s++|```[ \t]*+(?:json5?|tool_code|tool_call)?+|</?tool_calls?>|<\|\w{1,20}\|>|\[/?TOOL_CALLS\]"
    r"|[,;}\]\[]|\ufeff)*+",
    re.IGNORECASE,
)
_FENCE_BEFORE = re.compile(r"```[ \t]*\w{0,20}\s*\Z")
_FENCE_AFTER = re.compile(r"\s*```")
_FENCE_CHARS = 64
_MADE_UP = re.compile(
    r"[\s`*]*+(?:</tool_call>)?+[\s*#]*+(?:observation|(?:tool|function)[ _](?:result|output|response)s?)\b",
    re.IGNORECASE,
)
_ATTEMPT = re.compile(r"""["']type["']\s*:\s*["'](?:tool_?call|parallel|graph|plan|final)""", re.IGNORECASE)
_ATTEMPT_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Act:
    """An object that is an action. explicit: it says so itself."""

    found: Found
    explicit: bool


@dataclass(slots=True)
class Words:
    """
    A text by its objects.

    alone: there is nothing but objects, fences and tags. others: objects that are no actions. made_up: behind its
    first action the text goes on with a result that no tool gave. broken: what was meant as an action, and is none.
    """

    text: str
    acts: list[Act] = field(default_factory=list)
    alone: bool = True
    others: int = 0
    made_up: bool = False
    broken: BrokenJson | None = None

    @property
    def explicit(self) -> list[Act]:
        return [act for act in self.acts if act.explicit]

    @property
    def last(self) -> Act | None:
        """The action that ends the text."""
        return self.acts[-1] if self.acts and _dressed(self.text, self.acts[-1].found.end, len(self.text)) else None


def words_of(text: str) -> Words:
    words = Words(text)
    at = 0
    for found, _ in zip(objects_in(text), range(_MOST_OBJECTS), strict=False):
        words.alone = words.alone and _dressed(text, at, found.start)
        at = found.end
        if found.broken is not None:
            words.alone = False
            # What follows may be part of it, such as words of somebody else in a string whose quotes went wrong.
            if found.broken.inside and _ATTEMPT.search(text, found.start, found.start + _ATTEMPT_CHARS):
                words.broken = words.broken or found.broken
            continue
        kind, explicit = _kind(found.value)
        if not kind:
            words.others += 1
            continue
        words.acts.append(Act(found, explicit))
        if words.alone and explicit and _MADE_UP.match(text, at):
            words.made_up = True
            return words
    words.alone = words.alone and _dressed(text, at, len(text))
    return words


def chosen(
    words: Words, example: str, *, cut: bool = False, quoted: Callable[[str], bool] | None = None
) -> tuple[list[Any], list[Note]]:
    """
    The objects that are to be done, and what is to be said of the rest; none when there is no action at all.

    cut: the text was broken off. quoted: whether a piece of it stands in the evidence. Raises BadAction.
    """
    if words.broken is not None:
        raise BadAction(
            f"The JSON of your action is broken: {words.broken}. Write it again, whole, for example {example}"
        ) from words.broken
    acts = words.acts
    if not acts:
        return [], []
    if cut and not acts[-1].found.closed:
        raise BadAction(f"Your action was cut off. Write it again, shorter, for example {example}")
    if words.alone:
        return _all_of(words)
    explicit = words.explicit
    one = (explicit or acts)[0]
    if len(explicit or acts) > 1 or acts[-1] is not one:
        raise BadAction(
            "Your answer holds several actions among words, so that it is not clear which of them you mean; none was "
            f"done. Write one JSON object only, without words around it, for example {example}"
        )
    said = words.text[one.found.start : one.found.end]
    if not _apart(words.text, one.found) or (quoted is not None and quoted(said)):
        raise BadAction(
            "The action in your answer stands there like a quotation; it was not done. If you mean it, write that one "
            f"JSON object only, without words around it, for example {example}"
        )
    return [one.found.value], []


def answer_in(text: str, is_one: Callable[[dict[str, Any]], bool], quoted: Callable[[str], bool]) -> Any | None:
    """
    The object that a text is, or that stands apart from its words and is no quotation; None: there is none, or several.

    is_one: whether an object among words can be it. quoted: whether a piece of text stands in the evidence.
    """
    found = [each for each, _ in zip(objects_in(text), range(_MOST_OBJECTS), strict=False)]
    ends = [0, *(each.end for each in found)]
    starts = [*(each.start for each in found), len(text)]
    objects = [each for each in found if isinstance(each.value, dict) and each.value]
    if all(_dressed(text, end, start) for end, start in zip(ends, starts, strict=True)):
        return objects[0].value if objects else None
    able = [each for each in objects if is_one(each.value)][:_MOST_ANSWERS]
    able = [each for each in able if not quoted(text[each.start : each.end])]
    return able[0].value if len(able) == 1 and _apart(text, able[0]) else None


def _all_of(words: Words) -> tuple[list[Any], list[Note]]:
    found: dict[str, Any] = {}
    for act in words.acts:
        # Models that cannot stop say the same again and again.
        found.setdefault(json.dumps(act.found.value, sort_keys=True, default=str), act.found.value)
    notes = []
    if words.made_up:
        notes.append(Note("What you wrote behind your action was left out: results come from tools alone."))
    if words.others:
        notes.append(Note(f"{words.others} of the objects in your answer are no actions and were left out."))
    return list(found.values()), notes


def _kind(value: Any) -> tuple[bool, bool]:
    """Whether it is an action, and whether it says so."""
    if isinstance(value, list):
        kinds = [kind_in(each) if isinstance(each, dict) else (None, False) for each in value]
        whole = all(kind is not None for kind, _ in kinds)
        return whole, whole and all(explicit for _, explicit in kinds)
    kind, explicit = kind_in(value)
    if kind is not None:
        return True, explicit
    known = Fields.of(value).known
    inner = next((known[key] for key in WRAPPERS if isinstance(known.get(key), dict)), None)
    kind, explicit = kind_in(inner) if inner is not None else (None, False)
    return kind is not None, explicit


def _dressed(text: str, start: int, end: int) -> bool:
    """Whether nothing but space, fences, tags and stray brackets stands there."""
    dress = _DRESS.match(text, start, end)
    assert dress is not None
    return dress.end() == end


def _apart(text: str, found: Found) -> bool:
    """Whether it stands in a fence or on lines of its own, or else ends the text."""
    start, end = found.start, found.end
    if _FENCE_BEFORE.search(text[max(0, start - _FENCE_CHARS) : start]) and _FENCE_AFTER.match(text, end):
        return True
    if _dressed(text, end, len(text)):
        return True
    line = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    return _dressed(text, line, start) and _dressed(text, end, len(text) if line_end < 0 else line_end)
