"""
JSON as language models write it: objects among words, in fences, with small mistakes.

In: the text of an answer. Out: the objects in it, in order, with what else broke on the way.
Promise: each character is read a bounded number of times, whatever the text is; nothing is evaluated. What is put
right has one reading only: commas too many, quotes of the other kind, words of Python, comments, newlines and stray
backslashes in strings, one brace missing at the very end. Depth and size of what comes out are bounded.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MAX_CHARS = 256 * 1024
MAX_DEPTH = 32
_STRICT_TRIES = 8

_START = re.compile(r"""\{(?=\s*["'}])|\[(?=\s*\{\s*["'])""")
_GAP = re.compile(r"(?:\s+|//[^\n]*)*")
_STRINGS = {
    '"': re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL),
    "'": re.compile(r"'([^'\\]*+(?:\\.[^'\\]*+)*+)'", re.DOTALL),
}
_NUMBER = re.compile(r"-?[0-9]{1,400}(?:\.[0-9]{1,400})?(?:[eE][+-]?[0-9]{1,4})?(?![\w.])")
_WORD = re.compile(r"(?:true|false|null|True|False|None)(?!\w)")
_WORDS: dict[str, bool | None] = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
_ESCAPE = re.compile(r"""\\(?:(u[0-9a-fA-F]{4}|["\\/bfnrt])|(.))|(")""", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_AFTER = re.compile(r"(?:\s+|```|</?\w{1,20}>|<\|\w{1,20}\|>|[}\]]){0,40}")


class BrokenJson(ValueError):
    """
    What is wrong with it, for the model.

    at: the character to read on from. inside: what stands there may still be meant as a part of it, such as the rest
    of a string in which quotes were not escaped.
    """

    def __init__(self, message: str, at: int, *, inside: bool = True) -> None:
        super().__init__(message)
        self.at = at
        self.inside = inside


@dataclass(frozen=True, slots=True)
class Found:
    """
    One object or list of objects in a text. broken: it is none, and this is why; value is None then. closed: its last
    brace is there.
    """

    value: Any
    start: int
    end: int
    broken: BrokenJson | None = None
    closed: bool = True


def objects_in(text: str) -> Iterator[Found]:
    """
    The objects in `text`, from its begin to its end; after one that is broken, from where it breaks.

    A list counts when it begins with an object.
    """
    at = 0
    strict_tries = _STRICT_TRIES
    while (start := _START.search(text, at)) is not None:
        begin = start.start()
        if strict_tries > 0:
            try:
                value, at = _STRICT.raw_decode(text, begin)
            except (ValueError, RecursionError):
                # Not tried for ever: nesting can make it read far ahead of where the lenient reading gives up.
                strict_tries -= 1
            else:
                yield _found(value, begin, at)
                continue
        reader = _Reader(text)
        try:
            value, at = reader.read(begin)
        except BrokenJson as error:
            at = max(error.at, begin + 1)
            yield Found(None, begin, at, error)
        else:
            yield _found(value, begin, at, reader.closed)


def read_object(text: str) -> dict[str, Any]:
    """
    The object that a text as a whole is: arguments of a call. Empty text is the empty object.

    Behind it may stand closing brackets, tags and fences. Raises BrokenJson.
    """
    stripped = text.strip()
    if not stripped or stripped == "null":
        return {}
    if len(text) > MAX_CHARS:
        raise BrokenJson(f"it has {len(text)} characters, {MAX_CHARS} are allowed", MAX_CHARS)
    value, end = _value(stripped)
    if isinstance(value, str):
        # Arguments that were encoded twice.
        stripped = value.strip()
        value, end = _value(stripped)
    after = _AFTER.match(stripped, end)
    assert after is not None
    if after.end() != len(stripped):
        raise BrokenJson(f"it goes on after its end: {_near(stripped, end)}", end)
    if not isinstance(value, dict):
        raise BrokenJson(f"it is {kind_of(value)}, not an object", 0)
    return value


def kind_of(value: Any) -> str:
    """What JSON calls the kind of this value."""
    if value is None:
        return "null"
    for kind, name in ((bool, "a boolean"), (str, "text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object"


def _value(text: str) -> tuple[Any, int]:
    try:
        value, end = _STRICT.raw_decode(text)
    except (ValueError, RecursionError):
        value, end = _Reader(text).read(0)
    return _clean(value), end


def _found(value: Any, start: int, end: int, closed: bool = True) -> Found:
    try:
        return Found(_clean(value), start, end, closed=closed)
    except BrokenJson as error:
        return Found(None, start, end, error)


class _Reader:
    """Reads one value by hand, leniently. closed: no brace was missing."""

    def __init__(self, text: str) -> None:
        self.closed = True
        self._text = text
        self._at = 0
        self._depth = 0

    def read(self, start: int) -> tuple[Any, int]:
        self._at = start
        value = self._any()
        return value, self._at

    def _any(self) -> Any:
        mark = self._text[self._at : self._at + 1]
        if mark == "{":
            return self._object()
        if mark == "[":
            return self._list()
        if mark in _STRINGS:
            return self._string(mark)
        if (number := _NUMBER.match(self._text, self._at)) is not None:
            self._at = number.end()
            return self._number(number[0])
        if (word := _WORD.match(self._text, self._at)) is not None:
            self._at = word.end()
            return _WORDS[word[0]]
        raise self._broken("a value is missing or is no JSON", inside=self._depth > 1)

    def _object(self) -> dict[str, Any]:
        self._open()
        found: dict[str, Any] = {}
        while not self._closes("}"):
            quote = self._text[self._at : self._at + 1]
            begin = self._at
            if quote not in _STRINGS:
                raise self._broken("a key in double quotes is missing", inside=self._depth > 1)
            key = self._string(quote)
            self._gap()
            if not self._takes(":"):
                if self._depth == 1 and not found:
                    # A brace and a quote of some sentence: what was taken for a key may hold the real begin.
                    self._at = begin + 1
                    raise self._broken("a key with a colon is missing", inside=False)
                raise self._broken(f"a colon is missing after {json.dumps(key[:40])}")
            self._gap()
            found[key] = value = self._any()
            self._gap()
            if not self._takes(",") and not self._text.startswith("}", self._at):
                if self._depth == 1 and isinstance(value, dict | list | str) and self._at_end():
                    self.closed = False
                    break
                raise self._broken("a comma or } is missing")
        self._depth -= 1
        return found

    def _list(self) -> list[Any]:
        self._open()
        found = []
        while not self._closes("]"):
            found.append(self._any())
            self._gap()
            if not self._takes(",") and not self._text.startswith("]", self._at):
                raise self._broken("a comma or ] is missing")
        self._depth -= 1
        return found

    def _string(self, quote: str) -> str:
        match = _STRINGS[quote].match(self._text, self._at)
        if match is None:
            # The rest of the text is inside of it.
            self._at = len(self._text)
            raise self._broken("a string does not end")
        self._at = match.end()
        text: str = json.loads(f'"{_ESCAPE.sub(_escape, match[1])}"', strict=False)
        return text

    def _number(self, text: str) -> int | float:
        if not re.search("[.eE]", text):
            return int(text)
        value = float(text)
        if not math.isfinite(value):
            raise self._broken("a number is too large")
        return value

    def _open(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._broken(f"it is nested deeper than {MAX_DEPTH}")
        self._at += 1

    def _closes(self, mark: str) -> bool:
        self._gap()
        # A comma too many, after the last item.
        return self._takes(mark)

    def _takes(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._at)
        self._at += found
        return found

    def _gap(self) -> None:
        gap = _GAP.match(self._text, self._at)
        assert gap is not None
        self._at = gap.end()

    def _at_end(self) -> bool:
        """Nothing comes any more, so that one brace alone is missing."""
        after = _AFTER.match(self._text, self._at)
        assert after is not None
        return after.end() == len(self._text) and not re.search(r"[}\]]", after[0])

    def _broken(self, what: str, *, inside: bool = True) -> BrokenJson:
        return BrokenJson(f"{what}: {_near(self._text, self._at)}", self._at, inside=inside)


def _escape(match: re.Match[str]) -> str:
    """JSON knows few escapes: a backslash before any other character, as in `\\d`, was meant as one."""
    if match[1] is not None:
        return match[0]
    if match[3] is not None:
        return '\\"'
    return "'" if match[2] == "'" else "\\\\" + match[2]


def _near(text: str, at: int) -> str:
    if at >= len(text):
        return "it ends too early"
    return f"at character {at + 1}, before {json.dumps(text[at : at + 30], ensure_ascii=False)}"


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON value")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


_STRICT = json.JSONDecoder(strict=False, parse_constant=_constant, parse_float=_float)


def _clean(value: Any) -> Any:
    """The value without half surrogate pairs, which nothing could store or send. Raises BrokenJson when too deep."""
    return _cleaned(value, 1)


def _cleaned(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("�", value)
    if not isinstance(value, dict | list):
        return value
    if depth > MAX_DEPTH:
        raise BrokenJson(f"it is nested deeper than {MAX_DEPTH}", 0)
    if isinstance(value, list):
        return [_cleaned(each, depth + 1) for each in value]
    return {_SURROGATE.sub("�", key): _cleaned(each, depth + 1) for key, each in value.items()}
