"""
What a watch of a log may say, and hardly means: conditions that no line meets, patterns that find nothing.

In: a watch as written, and its rules as they were read. Out: warnings with places. Nothing here is an error: each of
it can be run, and a line may come that we do not expect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from agentd.config.checks import Entry
from agentd.config.complaints import did_you_mean, show
from agentd.config.document import KeyPath
from agentd.errors import Problem
from agentd.logs.settings import JournalSource, LogFormat, LogSource, Rule

if TYPE_CHECKING:
    from agentd.logs.compiled import Asked

_ALWAYS = frozenset({"message", "timestamp"})
_ACCESS = _ALWAYS | {
    *("remote", "ident", "user", "vhost", "forwarded_for", "referer", "agent", "method", "path", "query", "protocol"),
    *("status", "bytes", "request_time", "extra"),
}
FIELDS: Mapping[LogFormat, frozenset[str]] = {
    "plain": frozenset({"message"}),
    "syslog": _ALWAYS | {"level", "host", "program", "pid", "procid", "facility", "priority", "msgid", "structured"},
    "common": _ACCESS,
    "combined": _ACCESS,
}
"""The fields that a line of these formats can have; the others give what stands in the line."""

_PATTERN_PART = re.compile(
    r"""
      (?P<quoted>\\Q.*?(?:\\E|\Z))
    | (?P<escape>\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.))
    | (?P<set>\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\])
    | (?P<sign>[()|?*+{}.^$])
    | (?P<plain>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_OF_OTHERS = re.compile(r"/(?P<inside>.+)/(?P<flags>[gimsuy]{1,4})", re.DOTALL)
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f]")
_NONE_NEEDED = ("?", "*", "{")


def check_sense(
    watch: Entry, source: LogSource | JournalSource | None, asked: Mapping[int, Asked], fields: Set[str] | None
) -> Iterator[Problem]:
    """
    Warnings about the rules of one watch.

    asked: rules that compile, by their place in the list. fields: that a line can have, None: nobody knows.
    """
    one_line = isinstance(source, LogSource) and not source.multiline
    for index, each in asked.items():
        rule, groups = each.rule, set(each.match.names) if each.match is not None else set()
        yield from _check_rule(watch, index, rule)
        for key, text in _patterns(rule):
            for what, cure in _pattern_doubts(text, one_line=one_line):
                yield watch.problem(("rules", index, *key), what, cure, warning=True)
        if each.when is not None:
            for what, cure in _level_doubts(each.when.source, groups, source):
                yield watch.problem(("rules", index, "when"), what, cure, warning=True)
        for path, name in _names(each, source):
            what, cure = "", ""
            if name in groups:
                continue
            if isinstance(source, JournalSource) and name == "level" and path == ("when",):
                what, cure = "entries of the journal have no `level`", "ask for `severity`: emerg to debug"
            elif fields is not None and name.split(".")[0] not in fields:
                what, cure = f"no line of this format has {show(name)}", did_you_mean(name, sorted(groups | fields))
            if what:
                yield watch.problem(("rules", index, *path), what, cure, warning=True)


def _names(asked: Asked, source: LogSource | JournalSource | None) -> Iterator[tuple[KeyPath, str]]:
    """What a rule reads of its lines; without what is an error when no line has it (`log_checks`)."""
    if asked.when is not None:
        yield from ((("when",), name) for name in sorted(asked.when.variables - {"line", "fields"}))
    if isinstance(source, LogSource) and source.format not in ("plain", "regex"):
        yield from ((("by", number), name) for number, name in enumerate(asked.rule.by))
        if asked.rule.field is not None:
            yield ("field",), asked.rule.field


def _check_rule(watch: Entry, index: int, rule: Rule) -> Iterator[Problem]:
    place: KeyPath = ("rules", index)
    if rule.type == "any" and rule.match is None and rule.when is None and not rule.ignore:
        cure = "add `match` or `when`: which lines are meant?"
        yield watch.problem(place, "takes every line, so the first one fires", cure, warning=True)
    ignored = (rule.ignore,) if isinstance(rule.ignore, str) else rule.ignore or ()
    if rule.match is not None and rule.match in ignored:
        what = "is what `match` asks for, so no line is left"
        yield watch.problem((*place, "ignore"), what, "write what of these lines does not count", warning=True)
    written = _written(watch, index).get("more_than")
    share = rule.more_than
    if rule.type == "percentage" and share is not None and 0 < share < 1 and not _says_percent(written):
        what = f"is {share:g} percent, {share / 100:g} of all"
        cure = f'write "{share * 100:g}%" for that share, or "{share:g}%" when it is meant'
        yield watch.problem((*place, "more_than"), what, cure, warning=True)


def _written(watch: Entry, index: int) -> dict[str, Any]:
    raw = watch.raw["rules"][index]
    return raw if isinstance(raw, dict) else {}


def _says_percent(written: Any) -> bool:
    return isinstance(written, str) and "%" in written


def _patterns(rule: Rule) -> Iterator[tuple[KeyPath, str]]:
    if rule.match is not None:
        yield ("match",), rule.match
    if isinstance(rule.ignore, str):
        yield ("ignore",), rule.ignore
    else:
        yield from ((("ignore", number), text) for number, text in enumerate(rule.ignore or ()))


def _pattern_doubts(text: str, *, one_line: bool) -> Iterator[tuple[str, str]]:
    """What a pattern says that no line has, and how to mend it."""
    if (whole := _OF_OTHERS.fullmatch(text)) is not None:
        inside, flags = whole["inside"], "".join(sorted(set(whole["flags"]) & set("ims")))
        pattern = f"(?{flags}){inside}" if flags else inside
        yield f"the slashes of {show(text)} are looked for too", f"write '{pattern}'"
        return
    if _CONTROL.search(text):
        what = f"{show(text)} holds a control character: in double quotes, YAML reads \\b as backspace"
        yield what, "write it in single quotes"
    parts = [(match.lastgroup or "", match[0]) for match in _PATTERN_PART.finditer(text)]
    for number, (kind, part) in enumerate(parts):
        before = parts[number - 1] if number else ("", "")
        after = parts[number + 1] if number + 1 < len(parts) else ("", "")
        behind = parts[number + 2][1] if number + 2 < len(parts) else ""
        if (kind, part) == ("sign", "$") and _stands(after, behind):
            yield f"{show(text)} asks for {after[1]!r} behind the end of the line", r"write \$ for the sign itself"
            return
        if (kind, part) == ("sign", "^") and _stands(before, after[1]):
            yield f"{show(text)} asks for {before[1]!r} before the begin of the line", r"write \^ for the sign itself"
            return
        if one_line and part in ("\n", r"\n") and kind != "quoted" and after[1] not in _NONE_NEEDED:
            cure = "end the text with `|-` instead of `|`" if part == "\n" and not after[1] else ""
            cure = cure or "leave it out, or set `multiline` so that lines are joined"
            yield f"{show(text)} asks for the end of a line within the line, and an entry is one line here", cure
            return


def _stands(part: tuple[str, str], behind: str) -> bool:
    """Whether this part takes a character that ends no line. behind: what may make it, or the anchor, one of none."""
    kind, text = part
    return kind == "plain" and text != "\n" and behind not in _NONE_NEEDED


def _level_doubts(text: str, groups: set[str], source: LogSource | JournalSource | None) -> Iterator[tuple[str, str]]:
    """Words for levels that the field never has."""
    from agentd.logs.journal_entry import PRIORITIES
    from agentd.logs.parse.level import ALIASES

    for name, word in _compared(text):
        if name in groups:
            continue
        low = word.strip().lower()
        right = ALIASES.get(low, low)
        if name == "level" and isinstance(source, LogSource) and right != word:
            yield f"`level` is never {show(word)}: it is in lower case, and written out", f'write "{right}"'
        elif name == "severity" and isinstance(source, JournalSource) and word not in PRIORITIES:
            near = next((each for each in PRIORITIES if ALIASES.get(each, each) == right), None)
            cure = f'write "{near}"' if near else did_you_mean(low, PRIORITIES)
            yield f"`severity` of the journal is never {show(word)}", cure


def _compared(text: str) -> Iterator[tuple[str, str]]:
    """Names and the plain texts that they are compared with: `a == "x"`, `"x" != a`, `a in ["x", "y"]`, `fields.a`."""
    from agentd.condition.reading import tokens_of

    words = [word for _, word in tokens_of(text)]
    kinds = [kind for kind, _ in tokens_of(text)]
    for at, kind in enumerate(kinds):
        if kind != "name" or (at and words[at - 1] == "." and words[max(0, at - 2)] != "fields"):
            continue
        name, rest = words[at], words[at + 1 :]
        begin = at - 2 if at and words[at - 1] == "." else at
        if rest[:2] in (["=", "="], ["!", "="]) and kinds[at + 3 : at + 4] == ["string"]:
            yield from _plain(name, rest[2:3])
        elif begin >= 3 and words[begin - 2 : begin] in (["=", "="], ["!", "="]) and kinds[begin - 3] == "string":
            yield from _plain(name, words[begin - 3 : begin - 2])
        elif rest[:2] == ["in", "["] and "]" in rest:
            inside = rest[2 : rest.index("]")]
            yield from _plain(name, [word for word in inside if word != ","])


def _plain(name: str, literals: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in literals:
        if len(word) > 2 and word[0] in "\"'" and word[-1] == word[0] and "\\" not in word and word[1] != word[0]:
            yield name, word[1:-1]
