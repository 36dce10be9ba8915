"""
From a line to its tokens: what varies by its looks (numbers, addresses, times, paths) becomes a placeholder.

In: the first KiB of a line.  Out: words and placeholders such as `<num>`, `<ip>`, `<path>`.
Promise: the work is done once for each distinct word, not for each line; any input takes time linear in its length.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

LONGEST_TEXT = 1024
"""Bytes of a line that are looked at."""
MOST_TOKENS = 128
WILD = "<*>"

_FLATTEN = bytes.maketrans(b"123456789", b"0" * 9)
_SIZE = 16_384
_LONGEST_KEPT = 64

# Every digit is 0 by now. Alternatives begin at a border or consume what they look at, so none looks twice at much.
_MASK = re.compile(
    r"""
    (?<![A-Za-z0])
    (?: (?P<uuid> [0a-fA-F]{8}-(?:[0a-fA-F]{4}-){3}[0a-fA-F]{12} )
      | (?P<url>  [A-Za-z][A-Za-z+]{1,9}://[^\s"'<>,;|)\]}]+ )
      | (?P<email> (?<![\w.+-]) [\w.+-]+@[\w-]+(?:\.[\w-]+)+ )
      | (?P<mac>  (?<!:) [0a-fA-F]{2}(?:[:-][0a-fA-F]{2}){5,7} (?![A-Za-z0:]) )
      | (?P<ip>   (?: (?<!\.) /?(?:::ffff:)?0{1,3}(?:\.0{1,3}){3} (?![.]?[A-Za-z0])
                    | (?<![:.]) /?(?:[0a-fA-F]{1,4}:){7}[0a-fA-F]{1,4} (?![A-Za-z0])
                    | (?<![:.]) (?:[0a-fA-F]{1,4}:){1,6}(?::[0a-fA-F]{1,4}){1,6} (?![A-Za-z0]) )
                  (?::0{1,5}(?![A-Za-z0]))? (?:/0{1,3}(?![A-Za-z0.]))? )
      | (?P<time> (?: (?: 0{4}[-/.]0{1,2}[-/.]0{1,2} | 0{1,2}[-/]0{1,2}[-/]0{2,4}
                        | 0{1,2}[/-][A-Z][a-z]{2}[/-]0{4} | 0{8} )
                      [T_:.-] 0{1,2}[:.]0{2}(?:[:.]0{2})?
                    | 0{4}[-/.]0{2}[-/.]0{2} | 0{1,2}[/-]0{1,2}[/-]0{4} | 0{2}/0{2}/0{2}
                    | 0{1,3}:0{2}:0{2} | 0{1,2}:0{2} )
                  (?:[.,:]0{1,9})? (?:Z|[+-]0{2}:?0{2})? (?![A-Za-z0]) )
      | (?P<hex>  0x[0a-fA-F]+ | (?=0*[a-fA-F]) (?=[a-fA-F]*0) [0a-fA-F]{4,} (?![A-Za-z0]) )
      | (?P<path> (?<![_.)\]}/<>*])
                  (?: ~?/[\w@.+-][^\s"'<>,;|()\[\]{}=]* | [A-Za-z]:\\[^\s"'<>,;|()\[\]{}]* ) )
      | (?P<id>   (?: 0+(?:[A-Za-z]+0+)+[A-Za-z]* | (?:[A-Za-z]+0+){2,}[A-Za-z]* ) (?![A-Za-z0]) )
      | (?P<unit> (?<![_.]) [+-]?0+(?:[.,]0+)*(?:[A-Za-zµ]{1,3}|%)(?:/s)? (?!\w) )
      | (?P<bool> (?<![_.-]) (?:true|false|True|False|TRUE|FALSE) (?![\w.-]) )
      | (?P<signed> (?<![.)\]}<>-]) [+-]0+(?:[.,]0+)* )
    )
    | (?P<num> 0+(?:[.,]0+)* )
    """,
    re.VERBOSE,
)
_SHOWN = {"unit": "<num>", "signed": "<num>"}
_BOOLEANS = frozenset({"true", "false", "True", "False", "TRUE", "FALSE"})
_PARTS = re.compile(r"(?<=[,;|])(?=[^\d,;|])")
_PIECES = re.compile(r"[^,;|]+[,;|]*|[,;|]+")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DATE = re.compile(
    rf"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? )?(?:(?:{_MONTHS}) <num>,?|<num> (?:{_MONTHS}))"
    r"(?: <num>,?)? <time>(?: [A-Z]{3,4}(?= <num>))?(?: <num>(?= |$))?"
)
_MEASURE = re.compile(r"<num> (?:[kKMGTP]i?B|B|bytes?)(?= |[),;.\]]|$)(?: \(<num>(?: [kKMGTP]?i?B)?\))?")
_PROGRAM = re.compile(r"(?<![^ ])[^ \\/]+\.exe(?: \*<num>)?(?= |$)")
_SPAN = re.compile(r"<?<num> (?:[mun]?s|secs?|seconds?|mins?|minutes?|hours?|days?|milliseconds?)(?= |[),;.\]]|$)")


# A text in quotes is a value, save for what tells what happened: `msg="..."`, `"GET / HTTP/1.1"`.
_QUOTED = re.compile(
    r"""(?P<begin>^\s*|\]\s+)?(?:(?P<key>"[\w.@/-]{1,40}"|'[\w.@/-]{1,40}'|(?<!\w)[A-Za-z_][\w.]{0,40})\s?[:=]\s?)?"(?P<text>(?:[^"\\]|\\.)*)\""""
    r"""|(?:(?P<name>'[\w.@/-]{1,40}')\s?:\s?|(?<!\w))'(?P<single>[^'\s]*\s[^']*)'(?!\w)"""
)
_REQUEST = re.compile(r"[A-Z]{3,8} \S+ [A-Z]{3,5}/0")
TELLING = frozenset(
    {
        "msg",
        "message",
        "event",
        "error",
        "err",
        "reason",
        "text",
        "title",
        "type",
        "level",
        "lvl",
        "severity",
        "action",
        "op",
        "method",
        "state",
        "status",
    }
)
"""A value behind one of these keys says what happened, not to whom."""


def _quoted(match: re.Match[str]) -> str:
    kind = "text" if match["single"] is None else "single"
    text = match[kind]
    key = (match["key"] or match["name"] or "").strip("\"'").lower()
    if (
        len(text.split(None, 1)) < 2
        or key in TELLING
        or _REQUEST.match(text)
        or (match["begin"] is not None and not key)
    ):
        return match[0]
    at = match.start()
    return f"{match[0][: match.start(kind) - at]}<str>{match[0][match.end(kind) - at :]}"


class Words(dict[str, str]):
    """What a word (digits flattened to 0) looks like masked; one word may become several tokens. Bounded."""

    def __missing__(self, word: str) -> str:
        if word.isalpha() and word not in _BOOLEANS:
            masked = word
        elif len(word) > _LONGEST_KEPT and len(parts := _PARTS.split(word)) > 1:
            return " ".join(map(self.__getitem__, parts))
        else:
            masked = _MASK.sub(_shown, word)
            if "," in masked or ";" in masked or "|" in masked:
                masked = " ".join(_PIECES.findall(masked))
        if len(word) <= _LONGEST_KEPT:
            if len(self) >= _SIZE:
                self.clear()
            self[word] = masked
        return masked


def _shown(match: re.Match[str]) -> str:
    kind = match.lastgroup or "num"
    return _SHOWN.get(kind) or f"<{kind}>"


_words = Words()
_masked = _words.__getitem__


def skeleton(line: bytes) -> str:
    """The line's words, masked one by one, with single spaces between; "" for a blank line."""
    text = line[:LONGEST_TEXT].translate(_FLATTEN).decode("utf-8", "replace")
    if '"' in text or "'" in text:
        text = _QUOTED.sub(_quoted, text)
    return " ".join(map(_masked, text.split()))


def tokens(skeleton: str) -> tuple[str, ...]:
    """
    The tokens of a skeleton, at most 128.

    What spans words (dates, `5 KB`, `3 seconds`) becomes one placeholder, and a list of like variables one item, so
    that lines of one template have one length.
    """
    if "<" in skeleton:
        if "<time>" in skeleton:
            skeleton = _DATE.sub("<time>", skeleton)
        if "<num> " in skeleton:
            skeleton = _MEASURE.sub("<size>", skeleton)
            skeleton = _SPAN.sub("<time>", skeleton)
    if ".exe" in skeleton:
        skeleton = _PROGRAM.sub("<path>", skeleton)
    found: list[str] = []
    before = ""
    for token in skeleton.split(" ", MOST_TOKENS * 4):
        if "<" in token:
            bare = token.rstrip(",;|")
            if bare == before or (bare in _PLAIN and before in _PLAIN):
                found[-1] = token
                before = bare
                continue
            before = bare
        else:
            before = ""
        found.append(token)
    return tuple(found[:MOST_TOKENS])


class Kind(IntEnum):
    """How likely a token is to stand for a variable, by its looks."""

    VARIABLE = 0
    """Nothing but a placeholder and brackets."""
    MIXED = 1
    """A word with a placeholder in it: `worker-<num>`."""
    NAME = 2
    """An identifier: `com.example.Main`, `user_name`, `host-a`."""
    WORD = 3
    LABEL = 4
    """An identifier and a colon: the part of a program that speaks."""
    MARK = 5
    """Nothing but punctuation."""


class Look(NamedTuple):
    kind: Kind
    key: str
    """`user=` of `user=root`; `"user":` of JSON."""
    quoted: bool
    bracketed: bool
    any: str
    """The token with `<*>` for each placeholder in it."""


_VARIABLE = re.compile(r"""[\[({<"'`#@*=/\\-]*<(?:\*|[a-z]+)>[\])}>"'`.,;:|%!?]*|(?:"-?"|'')[,;.:|]?""")
_ROUND = re.compile(r"[\[(][^\[\]()]*[\])][,;.:|]?")
_PLAIN = frozenset({"<num>", "<hex>", "<id>", "<uuid>"})
_PLACEHOLDER = re.compile(r"<(?:\*|[a-z]+)>")
_KEY = re.compile(r"""[\[({"'.<]*[A-Za-z_][\w.-]{0,40}["']?(?:=|:(?=["'\w.<{\[(/-]))""")
_WRAPPED = re.compile(r"""(?:"[^"]*"|'[^']*'|`[^`']*['`])[,;.:|]?""")
_WORD = re.compile(r"""[^\w\s]*[^\W\d_]+(?:['\u2019-][^\W\d_]+)*[^\w\s]*""")


class _Looks(dict[str, Look]):
    def __missing__(self, token: str) -> Look:
        seen = _look(token)
        if len(token) <= _LONGEST_KEPT:
            if len(self) >= _SIZE:
                self.clear()
            self[token] = seen
        return seen


def _look(token: str) -> Look:
    key = _KEY.match(token) if "=" in token or ":" in token else None
    name = key.group() if key and key.end() < len(token) else ""
    quoted = len(token) > 2 and _WRAPPED.fullmatch(token) is not None
    bracketed = len(token) > 2 and _ROUND.fullmatch(token) is not None
    if token.isalpha():
        return Look(Kind.WORD, "", False, False, token)
    if _VARIABLE.fullmatch(token):
        kind = Kind.VARIABLE
    elif "<" in token and _PLACEHOLDER.search(token):
        kind = Kind.MIXED
    elif not any(map(str.isalnum, token)):
        kind = Kind.MARK
    elif _WORD.fullmatch(token):
        kind = Kind.WORD
    elif token.endswith(":"):
        kind = Kind.LABEL
    else:
        kind = Kind.NAME
    return Look(kind, name, quoted, bracketed, _PLACEHOLDER.sub(WILD, token) if "<" in token else token)


look = _Looks().__getitem__


def widened(first: str, second: str) -> str:
    """One token that stands for both: what they share at either end as far as it is punctuation or a key, and `<*>`."""
    a, b = look(first), look(second)
    at = len(a.key) if a.key == b.key else 0
    while at < min(len(first), len(second)) and first[at] == second[at] and first[at] in "([{\"'`":
        at += 1
    head = first[:at]
    tail = ""
    room = min(len(first), len(second)) - len(head)
    for x, y in zip(reversed(first), reversed(second), strict=False):
        if x != y or x not in ")]}\"'`.,;:|" or len(tail) >= room:
            break
        tail = x + tail
    if min(len(first), len(second)) == len(head) + len(tail):
        return WILD
    return head + WILD + tail


def covers(wide: str, token: str) -> bool:
    """Whether a widened token stands for `token` too."""
    head, _, tail = wide.partition(WILD)
    return token.startswith(head) and token.endswith(tail) and (wide == WILD or len(token) > len(head) + len(tail))
