"""
Reading a condition: what parses, what it reads and calls, and everything that can be known to be wrong at load.

In: the text and the names it may read. Out: the compiled program with the paths it reads, or a ConfigError.
Promise: an error names what is wrong, shows the place, and says what to write instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agentd.condition.shown import MAX_SHOWN_CHARS, Path, as_text, preview
from agentd.errors import ConfigError

if TYPE_CHECKING:
    from cel import Program

MAX_CONDITION_CHARS = 4096
"""The parser recurses on chains such as `1+1+1…`; at this length an 8 MiB stack is used to a tenth."""
_MAX_KNOWN_LISTED = 24

_MACROS = {"all", "exists", "exists_one", "map", "filter"}
_TYPES = {"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"}
_KEYWORDS = {"true", "false", "null", "in"}
_METHODS_ONLY = {"contains", "startsWith", "endsWith", "matches"}
_CONVERSIONS = {"bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"}
_TIME_METHODS = {"FullYear", "Month", "Date", "DayOfMonth", "DayOfYear", "Hours", "Minutes", "Seconds", "Milliseconds"}
# Written in Python by the library and handed in only where used; the namespaced ones (math.…) are left out.
_EXTRA = {
    *("charAt", "indexOf", "lastIndexOf", "substring", "replace", "split", "join", "lowerAscii", "upperAscii", "trim"),
    *("min", "max", "sum", "distinct", "flatten", "slice", "sort", "first", "last", "reverse"),
}
_FUNCTIONS = {"size"} | _METHODS_ONLY | _CONVERSIONS | _EXTRA | {f"get{part}" for part in _TIME_METHODS}
_WORDS_OF_OTHERS = {"and": "&&", "or": "||", "not": "!", "=": "==", "is": "=="}

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|//[^\n]*)
    | (?P<string>
          (?:[rR][bB]?|[bB][rR])(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*')
        | [bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      )
    | (?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ANY_ANSWER = "write a comparison, e.g. status == 200, or `expect: []` when any answer will do"
_ANY_LINE = 'write a comparison, e.g. level == "error", or leave it out when any line will do'
_PARSER_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")


def _load_cel() -> ModuleType:
    # The package imports its own command line at once, and with it typer, rich and prompt_toolkit: some 20 MiB
    # that a daemon never uses. An empty module stands in for it while the package is imported.
    stands_in = "cel.cli" not in sys.modules and "cel" not in sys.modules
    if stands_in:
        sys.modules["cel.cli"] = ModuleType("cel.cli")
    try:
        import cel
    finally:
        if stands_in:
            del sys.modules["cel.cli"]
    if stands_in:
        del cel.__dict__["cli"]
    return cel


_cel = _load_cel()


Token = tuple[str, str]
"""What sort of word it is, and the word."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """
    A condition that can be asked.

    paths: what it reads, with members as far as they are constant, for people.
    prefixes: the same, only as far as plain member names go: what evaluation needs.
    extra: the functions it calls that the program must be given.
    tokens: all its words; reads: where each path stands among them (begin, end, path).
    """

    program: Program
    paths: tuple[Path, ...]
    prefixes: tuple[Path, ...]
    extra: Mapping[str, Callable[..., Any]]
    tokens: Sequence[Token]
    reads: Sequence[tuple[int, int, Path]]


def read(text: str, variables: Collection[str] | None, *, constants: bool = True) -> Parsed:
    """
    Parse and check; raises ConfigError, `what; how to mend`.

    variables: the names it may read; None: any. constants: whether `true`, which asks for nothing, may stand as a
    condition.
    """
    if len(text) > MAX_CONDITION_CHARS:
        raise ConfigError(
            f"condition of {len(text)} characters is longer than {MAX_CONDITION_CHARS}; split it into several"
        )
    if not text.strip():
        raise ConfigError("empty condition; write e.g. status == 200, or leave it out")
    try:
        program: Program = _cel.compile(text)
        called = {name for name in program.functions() if name.isidentifier()}
    except Exception as error:
        raise ConfigError(_parser_says(text, str(error), variables is None)) from None
    except BaseException as panic:
        raise_unless_panic(panic)
        raise ConfigError(f"cannot read condition {text[:MAX_SHOWN_CHARS]!r}; write it more plainly") from None
    reading = _Reading(text)
    _check_calls(reading, called)
    _check_names(reading, variables)
    _check_patterns(reading)
    paths, prefixes = (
        tuple(dict.fromkeys(path for path in found if variables is None or path[0] in variables))
        for found in (reading.paths, reading.prefixes)
    )
    if not paths and not reading.has_macros:
        _check_constant(text, program, constants, _ANY_ANSWER if variables is not None else _ANY_LINE)
    from cel.stdlib import STDLIB_FUNCTIONS

    extra = {name: STDLIB_FUNCTIONS[name] for name in sorted(called & _EXTRA)}
    return Parsed(program, paths, prefixes, extra, reading.tokens, reading.reads)


def tokens_of(text: str) -> list[Token]:
    """The words of a text that parses."""
    return [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(text) if match.lastgroup != "space"]


class _Reading:
    """
    What a text, already known to parse, reads and calls.

    The library tells the names but not the members, and counts names bound by macros (`l.all(x, …)`) as read.
    """

    def __init__(self, text: str) -> None:
        self.paths: list[Path] = []
        self.prefixes: list[Path] = []
        self.reads: list[tuple[int, int, Path]] = []
        self.globals_called: set[str] = set()
        self.structs: list[str] = []
        self.patterns: list[str] = []
        self.has_macros = False
        self.tokens = tokens_of(text)
        self._read()

    def _at(self, index: int) -> tuple[str, str]:
        return self.tokens[index] if 0 <= index < len(self.tokens) else ("end", "")

    def _read(self) -> None:
        scopes: list[str] = []  # one per open parenthesis: the name that a macro binds in it, or ""
        for index, (kind, word) in enumerate(self.tokens):
            if word == "(" and kind == "sign":
                scopes.append(self._bound_at(index))
            elif word == ")" and kind == "sign" and scopes:
                scopes.pop()
            elif kind != "name":
                continue
            elif self._at(index + 1) == ("sign", "{") and word not in _KEYWORDS:
                self.structs.append(word)
            elif self._at(index - 1) == ("sign", "."):
                if word == "matches" and self._at(index + 2)[0] == "string" and self._at(index + 3)[1] == ")":
                    self.patterns.append(self._at(index + 2)[1])
            elif self._at(index + 1) == ("sign", "("):
                self.globals_called.add(word)
            elif word not in scopes and word not in _KEYWORDS:
                self._read_path(index)

    def _bound_at(self, index: int) -> str:
        is_macro = self._at(index - 1)[1] in _MACROS and self._at(index - 2) == ("sign", ".")
        kind, word = self._at(index + 1)
        if not is_macro or kind != "name" or self._at(index + 2) != ("sign", ","):
            return ""
        self.has_macros = True
        return word

    def _read_path(self, index: int) -> None:
        begin = index
        path: list[str | int] = [self._at(index)[1]]
        plain = 1
        index += 1
        while True:
            sign, (kind, word) = self._at(index)[1], self._at(index + 1)
            if sign == "." and kind == "name" and self._at(index + 2) != ("sign", "("):
                path.append(word)
                index += 2
            elif sign == "[" and self._at(index + 2) == ("sign", "]") and (member := _constant(kind, word)) is not None:
                path.append(member)
                index += 3
            else:
                break
            if plain == len(path) - 1 and isinstance(path[-1], str):
                plain = len(path)
        self.paths.append(tuple(path))
        self.prefixes.append(tuple(path[:plain]))
        self.reads.append((begin, index, tuple(path)))


def _constant(kind: str, word: str) -> str | int | None:
    if kind == "number" and word.isdecimal():
        return int(word)
    if kind == "string" and word[0] in "\"'" and "\\" not in word and word[:3] not in ('"""', "'''"):
        return word[1:-1]
    return None


def _check_calls(reading: _Reading, called: set[str]) -> None:
    if reading.structs:
        raise ConfigError(
            f"`{reading.structs[0]}{{…}}` makes a structure, which is not known here; write a map instead"
        )
    for name in sorted(called - _FUNCTIONS):
        raise ConfigError(
            f"unknown function `{name}`; {_guess(name, _FUNCTIONS)}known: {', '.join(sorted(_FUNCTIONS))}"
        )
    for name in sorted(reading.globals_called & _METHODS_ONLY):
        raise ConfigError(f'`{name}(…)` is asked of a text; write e.g. text.{name}("…")')


def _check_names(reading: _Reading, variables: Collection[str] | None) -> None:
    for name in dict.fromkeys(str(path[0]) for path in reading.paths):
        if variables is not None and (name in variables or name in _TYPES):
            continue
        if name in _WORDS_OF_OTHERS:
            raise ConfigError(f"unknown variable `{name}`; write {_WORDS_OF_OTHERS[name]} instead")
        if variables is None:
            continue
        listed = sorted(variables)
        known = ", ".join(listed[:_MAX_KNOWN_LISTED]) + (", …" if len(listed) > _MAX_KNOWN_LISTED else "")
        raise ConfigError(f"unknown variable `{name}`; {_guess(name, variables)}known here: {known or 'nothing'}")


def _check_patterns(reading: _Reading) -> None:
    for pattern in reading.patterns:
        try:
            _cel.evaluate(f'"".matches({pattern})')
        except Exception as error:
            reason = str(error).partition("regex parse error:")[2].partition("error: ")[2].partition(". Check")[0]
            raise ConfigError(
                f"{pattern} is no regular expression: {reason.strip() or 'it cannot be read'}; "
                "look-around and back-references do not exist here"
            ) from None


def _check_constant(text: str, program: Program, allowed: bool, cure: str) -> None:
    try:
        result = program.execute({})
    except Exception as error:
        reason = " ".join(str(error).split())[:MAX_SHOWN_CHARS]
        raise ConfigError(f"`{text.strip()}` can never be computed: {reason}; compare a variable") from None
    if not isinstance(result, bool):
        raise ConfigError(
            f"`{text.strip()}` is always {as_text(preview(result))}, neither true nor false; "
            "write a comparison, e.g. status == 200"
        )
    if not allowed:
        raise ConfigError(f"`{text.strip()}` {'always' if result else 'never'} holds, whatever is seen; {cure}")


def _guess(name: str, known: Collection[str]) -> str:
    import difflib  # only for what is spelled wrong

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean `{close[0]}`? " if close else ""


def _parser_says(text: str, message: str, any_name: bool) -> str:
    if "Recursion limit" in message:
        return "condition is nested too deeply; split it into several"
    found = _PARSER_ERROR.search(message)
    if found is None:
        return f"cannot read condition {text[:MAX_SHOWN_CHARS]!r}; write e.g. status == 200"
    line, column, what = int(found[1]), int(found[2]), found[3].strip()
    member = _reserved_member(what)
    lines = text.splitlines() or [text]
    written = lines[min(line, len(lines)) - 1]
    at = min(column, len(written) + 1) - 1
    rest = written[at:].split()
    if what.startswith("mismatched input '<EOF>'"):
        what = "it ends too early"
    elif " expecting {" in what:
        what = what.partition(" expecting {")[0]
    cure = "see cel.dev for the language"
    if member:
        what, cure = f"`{member}` is a word of the language", f'for a member of this name write ["{member}"]'
    elif reserved := what.partition("reserved identifier: ")[2]:
        what = f"`{reserved}` is a word of the language"
        cure = f'for a field of this name write fields["{reserved}"]' if any_name else "write another name"
    # The parser complains about the word itself or, of two names in a row, about the one after it.
    for word in (rest[0] if rest else "", *written[:at].split()[-1:]):
        if word in _WORDS_OF_OTHERS:
            cure = f"write {_WORDS_OF_OTHERS[word]} instead of {word}"
            break
    start = max(0, at - MAX_SHOWN_CHARS // 2)
    return (
        f"cannot read condition: {what[:200]}; {cure}\n"
        f"    {written[start : start + MAX_SHOWN_CHARS]}\n    {' ' * (at - start)}^"
    )


def _reserved_member(what: str) -> str:
    """The word of the language that stands as a member, as in `http.in`."""
    found = re.search(r"'\.(in|true|false|null)'", what)
    return found[1] if found else ""


def raise_unless_panic(error: BaseException) -> None:
    # A panic of the Rust library is no Exception; anything else of that rank (a cancelled task) goes its way.
    if type(error).__name__ != "PanicException":
        raise error
