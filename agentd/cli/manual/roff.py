"""
Text as troff's man macros want it (man(7), groff_man(7)).

In: plain text, in which `backticks` mark what is typed. Out: lines of roff in which no letter of it is a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_SIGNS = {
    "\\": "\\(rs",
    "-": "\\-",
    "'": "\\(aq",
    '"': "\\(dq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
}
_TYPED = re.compile(r"`([^`\n]+)`")


def escaped(text: str) -> str:
    """The text on one line, every letter as itself."""
    return " ".join(_word(word) for word in text.split())


def _word(word: str) -> str:
    # A path or an option that is broken cannot be copied; `\\%` keeps a word whole.
    whole = "\\%" if not word.isalpha() else ""
    return whole + "".join(_sign(each) for each in word)


def _sign(letter: str) -> str:
    return _SIGNS.get(letter, letter if letter.isascii() else f"\\[u{ord(letter):04X}]")


def bold(text: str) -> str:
    return f"\\fB{escaped(text)}\\fR"


def prose(text: str) -> str:
    """A paragraph; what stands in backticks is bold."""
    parts = _TYPED.split(" ".join(text.split()))
    words = "".join(_kept(part) if number % 2 == 0 else bold(part) for number, part in enumerate(parts))
    return _safe(words)


def _kept(text: str) -> str:
    """As `escaped`, with the blanks at the ends, which stand beside bold words."""
    return f"{' ' * text.startswith(' ')}{escaped(text)}{' ' * (text.endswith(' ') and len(text) > 1)}"


def _safe(line: str) -> str:
    # A full stop at the begin of a line would be a request.
    return f"\\&{line}" if line.startswith(".") else line


def page(title: str, section: int, version: str, manual: str, parts: Iterable[str]) -> str:
    """The whole page. No date stands in it: it would differ with each build."""
    head = [
        ".\\\" Made from agentd's code by `make man`; changes here are lost.",
        f'.TH {title} {section} "" "agentd {version}" "{manual}"',
        # Words such as paths and options are not to be broken, nor is the right edge to be even.
        ".nh",
        ".ad l",
    ]
    return "\n".join([*head, *parts]) + "\n"


def section(name: str) -> str:
    return f".SH {escaped(name)}"


def subsection(name: str) -> str:
    return f'.SS "{escaped(name)}"'


def paragraph(text: str) -> str:
    return f".PP\n{prose(text)}"


def term(name: str, *texts: str) -> str:
    """A word in bold, and what it means, indented: the first text, and further ones below it."""
    first, *rest = [prose(text) for text in texts if text] or ["\\&"]
    head = bold(name).replace("|", "|\\:")  # a list of choices may be broken
    return "\n".join([".TP", _safe(head), first, *(f".IP\n{each}" for each in rest)])


def verbatim(text: str) -> str:
    """Lines as they are, such as YAML."""
    lines = [_safe("\\&" + "".join(_sign(each) for each in line.rstrip())) for line in text.rstrip("\n").split("\n")]
    return "\n".join([".PP", ".RS 4", ".EX", *lines, ".EE", ".RE"])
