"""
Patterns of the configuration, for RE2: read at load, with an error that says what to write instead.

In: the text of a `match`, `ignore` or `multiline`. Out: a Pattern that is asked about one entry, and a wider form of
it for searching whole blocks. Promise: time is linear in the text, whatever pattern and text are.

`^` and `$` are the begin and end of each line, `\\A` and `\\z` those of the entry; `.` takes no newline unless `(?s)`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from agentd.errors import ConfigError

MAX_PATTERN_CHARS = 8192
_MAX_SHOWN_CHARS = 60
_PATTERN_MEMORY = 4 << 20
"""Bytes for the program and its automaton. It holds more only as texts lead it there, and never more than this."""

# A pattern that finds something in each of these finds something in every line.
_SAMPLES = tuple(
    text.encode() for text in ("", "\0", "x", " ", "7", '[error] GET /a_b?c=1 "-"\t{}', "\N{SNOWMAN}" * 2000, "\n")
)


class Pattern:
    """
    A compiled pattern.

    source: as written. names: of its groups, with their numbers.
    """

    __slots__ = ("_match", "_unanchored", "names", "source")

    def __init__(self, source: str, compiled: Any) -> None:
        self.source = source
        # The wrapper's own objects copy the text around and are four times slower than what they wrap.
        self._match = compiled._regexp.Match
        self._unanchored = unanchored()
        self.names: Mapping[str, int] = {name.decode(): number for name, number in compiled.groupindex.items()}

    def finds(self, text: bytes) -> bool:
        """Whether it stands somewhere in `text`: valid UTF-8 without the last newline."""
        return bool(self._match(self._unanchored, text, 0, len(text))[0][0] >= 0)

    def groups(self, text: bytes) -> dict[str, str] | None:
        """The named groups of its first find, save those that took no part; None when it finds nothing."""
        spans = self._match(self._unanchored, text, 0, len(text))
        if spans[0][0] < 0:
            return None
        found = {}
        for name, number in self.names.items():
            begin, end = spans[number]
            if begin >= 0:
                found[name] = text[begin:end].decode(errors="replace")
        return found

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"


def compile_pattern(text: str) -> Pattern:
    """
    Read one pattern; raises ConfigError, `what; how to mend`, for what RE2 cannot take.

    So does a pattern that finds something in every line: it asks for nothing.
    """
    pattern = Pattern(text, _compiled(text))
    if all(pattern.finds(sample) for sample in _SAMPLES):
        raise ConfigError(
            f"{_shown(text)} matches every line, also an empty one; "
            "leave it out when every line is meant, else write e.g. + instead of *"
        )
    return pattern


def widened(text: str) -> str:
    """
    A form of a pattern (that compiles) to be put into an alternation and searched for in a text of many entries.

    It finds at least what the pattern finds in any of them: begin and end of an entry become those of a line, and
    `(?-m)` goes. Names of groups go too, for two patterns may use the same.
    """
    return "(?m:" + "".join(_widened(kind, word) for kind, word in _tokens(text)) + ")"


def compile_search(text: str, *, one_line: bool, memory: int) -> Any | None:
    """
    The `Match` function of a pattern put together from widened ones; None when it does not fit into `memory` bytes.

    one_line: nothing that it finds may go over the end of a line.
    """
    re2 = _re2()
    try:
        compiled = re2.compile(text.encode(), options(never_nl=one_line, never_capture=True, max_mem=memory))
    except re2.error:
        return None
    # Where a find begins is looked for backwards; with no room for that program RE2 would go on slowly.
    return compiled._regexp.Match if compiled.reverseprogramsize > 0 else None


def compile_set(texts: list[str], *, memory: int) -> Any | None:
    """The `Match` function that tells which of these patterns stand in a text; None when they are too many for it."""
    re2 = _re2()
    which = re2._re2.Set(unanchored(), options(never_capture=True, max_mem=memory))
    for text in texts:
        if which.Add(_with_lines(text)) < 0:
            return None
    return which.Match if which.Compile() else None


def options(**given: Any) -> Any:
    chosen = _re2().Options()
    chosen.log_errors = False  # it would write to stderr by itself
    for name, value in given.items():
        setattr(chosen, name, value)
    return chosen


def unanchored() -> Any:
    return _re2()._re2.RE2.Anchor.UNANCHORED


def _re2() -> Any:
    import re2

    return re2


def _with_lines(text: str) -> bytes:
    # Not `(?m:…)`: an open \Q would swallow the parenthesis.
    return b"(?m)" + text.encode()


def _compiled(text: str) -> Any:
    if not text:
        raise ConfigError("the pattern is empty and would match every line; leave it out when every line is meant")
    if len(text) > MAX_PATTERN_CHARS:
        raise ConfigError(
            f"pattern of {len(text)} characters is longer than {MAX_PATTERN_CHARS}; split it into several rules"
        )
    re2 = _re2()
    try:
        compiled = re2.compile(_with_lines(text), options(max_mem=_PATTERN_MEMORY))
    except UnicodeEncodeError:
        raise ConfigError(f"{_shown(text)} holds half a character (a lone surrogate); write the character") from None
    except re2.error as error:
        said = error.args[0] if error.args else b""
        raise ConfigError(
            _explained(text, said.decode(errors="replace") if isinstance(said, bytes) else str(said))
        ) from None
    _check_words(text)
    return compiled


def _check_words(text: str) -> None:
    """What RE2 takes and we do not."""
    tokens = list(_tokens(text))
    names = Counter(word[word.index("<") + 1 : -1] for kind, word in tokens if kind == "named")
    for name, times in names.items():
        if times > 1:
            raise ConfigError(
                f"the group {name!r} stands {times} times in {_shown(text)}; "
                "give each its own name, or write the alternatives inside one group"
            )
    if ("escape", r"\C") in tokens:
        raise ConfigError(f"{_shown(text)}: `\\C` would cut a character in two; write . instead")


_TOKEN = re.compile(
    r"""
      (?P<quoted>\\Q(?P<inside>.*?)(?:\\E|\Z))
    | (?P<escape>\\(?:[pP]\{[^}]*\}|x\{[^}]*\}|.))
    | (?P<set>\[\^?\]?(?:\\(?:[pP]\{[^}]*\}|.)|\[:\^?\w+:\]|[^\]\\])*\])
    | (?P<named>\(\?P?<\w+>)
    | (?P<flags>\(\?[imsU]*(?:-[imsU]*)?[:)])
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a pattern that RE2 took: what kind, and the part; of a quoted part, what it quotes."""
    for found in _TOKEN.finditer(text):
        if found["quoted"] is not None:
            yield "quoted", found["inside"]
        else:
            yield found.lastgroup or "", found[0]


def _widened(kind: str, word: str) -> str:
    if kind == "quoted":
        return literal(word)
    if kind == "escape":
        return {r"\A": "(?m:^)", r"\z": "(?m:$)"}.get(word, word)
    if kind == "named":
        return "(?:"
    if kind == "flags":
        on, _, off = word[2:-1].partition("-")
        off = off.replace("m", "")
        flags = on + (f"-{off}" if off else "")
        return f"(?{flags}{word[-1]}" if flags or word[-1] == ":" else ""
    return word


def literal(text: str) -> str:
    """A pattern that finds just this text."""
    escaped = _re2().escape(text)
    assert isinstance(escaped, str)
    return escaped


_OPERATORS = {
    "(?=": "look-ahead `(?=`; write what follows as part of the pattern, as in `this.*that`, or ask for it in "
    "`when`, e.g. when: 'line.contains(\"that\")'",
    "(?!": "look-ahead `(?!`; write what a line must not have as `ignore:`, or in `when`, "
    "e.g. when: '!line.contains(\"that\")'",
    "(?<=": "look-behind `(?<=`; write what stands before as part of the pattern and name what is wanted, "
    "as in `user=(?P<user>\\S+)`",
    "(?<!": "look-behind `(?<!`; write what a line must not have as `ignore:`, or in `when`, "
    "e.g. when: '!line.contains(\"that\")'",
    "(?P=": "the back-reference `(?P=`; write two groups of different names and compare them in `when`, "
    "e.g. when: 'a == b'",
    "(?P>": "recursion `(?P>`; write the part out",
    "(?R": "recursion `(?R`; write the part out",
    "(?0": "recursion `(?0`; write the part out",
    "(?1": "recursion `(?1`; write the part out",
    "(?&": "recursion `(?&`; write the part out",
    "(?>": "the atomic group `(?>`; write (?:…), nothing here can take long",
    "(?(": "the conditional `(?(`; write the cases as alternatives, as in (?:this|that)",
    "(?|": "the branch reset `(?|`; write (?:…) with a name of its own for each group",
    "(?#": "the comment `(?#`; leave it out, or write it into the file after #",
    "(?'": "the group `(?'name'`; write (?P<name>…)",
}
_ESCAPES = {
    "Z": "write $ or \\z",
    "G": "leave it out",
    "K": "name what is wanted instead, as in (?P<name>…)",
    "R": "write \\n",
    "X": "write .",
    "N": "write [^\\n], or the character itself",
    "h": "write [ \\t]",
    "H": "write [^ \\t]",
    "e": "write \\x1b",
    "c": "write the character by its number, as in \\x01",
    "u": "write the character itself, or \\x{00e9}",
    "U": "write the character itself, or \\x{1f600}",
    "L": "write the letters",
    "k": "write two groups of different names and compare them in `when`, e.g. when: 'a == b'",
    "g": "write two groups of different names and compare them in `when`, e.g. when: 'a == b'",
}


def _explained(text: str, said: str) -> str:
    """`what; how to mend` for what RE2 said."""
    what, _, part = said.partition(": ")
    where = _shown(text)
    if what == "invalid perl operator":
        return _explained_operator(text, part)
    if what == "invalid escape sequence":
        sign = part[1:2]
        if sign.isdecimal():
            return (
                f"{where}: the back-reference `{part}` does not exist here; write two groups of different names and "
                "compare them in `when`, e.g. when: 'a == b'"
            )
        cure = _ESCAPES.get(sign, f"write {sign} for the character itself")
        return f"{where}: `{part}` does not exist here; {cure}"
    if what == "bad repetition operator":
        if part in ("++", "*+", "?+") or part.endswith("}+"):
            return f"{where}: possessive `{part}` does not exist here; write {part[:-1]}, nothing here can take long"
        return f"{where}: `{part}` repeats a repetition; write one of them, or put the inner one into (?:…)"
    if what == "invalid repetition size":
        return f"{where}: `{part}` repeats too often, 1000 times in all at most; write a smaller number, or * or +"
    if what == "invalid named capture group":
        return f"{where}: `{part}` is no name of a group; write letters, digits and _, as in (?P<user>…)"
    if what == "no argument for repetition operator":
        return f"{where}: `{part}` has nothing to repeat; write \\{part[:1]} for the character itself"
    if what == "missing )":
        return f"{where}: a ( is not closed; write ), or \\( for the character itself"
    if what == "unexpected )":
        return f"{where}: a ) closes nothing; write \\) for the character itself"
    if what == "missing ]":
        return f"{where}: a [ is not closed; write ], or \\[ for the character itself"
    if what == "invalid character class range":
        return f"{where}: `{part}` is no range of characters; write the lower end first, and a - of its own at the end"
    if what == "trailing \\":
        return f"{where}: it ends in a single \\; write \\\\ for the character itself"
    if "too large" in what:
        return f"{where}: the pattern is too large; write smaller repetitions, or split it into several rules"
    return f"{where}: {said or 'cannot be read'}; see the syntax of RE2"


def _explained_operator(text: str, part: str) -> str:
    where = _shown(text)
    operator = part
    if part == "(?P" or part not in _OPERATORS:
        # RE2 names only the begin of it; the text has the rest.
        operator = next((each for each in _OPERATORS if each in text and each.startswith(part[:3])), part)
    if operator in _OPERATORS:
        what, _, cure = _OPERATORS[operator].partition("; ")
        return f"{where}: {what} does not exist here; {cure}"
    if (flag := part[2:].lstrip("imsU-")[:1]) and flag in "xaLu":
        cure = "write the pattern without spaces and comments" if flag == "x" else "leave the letter out"
        return f"{where}: the flag `{flag}` does not exist here; {cure}"
    return f"{where}: `{part}` does not exist here; write (?:…) for a group, \\( for the character itself"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN_CHARS else text[: _MAX_SHOWN_CHARS - 1] + "…")
