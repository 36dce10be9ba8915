"""
What a line looks like to somebody who asks whether it goes on with the one before: its kind, from the line alone.

In: one line without its newline, bytes.  Out: a kind. Promise: cheap; the first byte settles most lines.
"""

from __future__ import annotations

import re
from enum import IntEnum


class Kind(IntEnum):
    HEAD = 0  # begins with a time, a level, or as a structured line does: always a new entry
    ORDINARY = 1  # nothing special, not indented
    INDENTED = 2
    BLANK = 3
    TRACEBACK = 4  # Traceback (most recent call last):
    GROUP_TRACEBACK = 5  # + Exception Group Traceback
    CHAINED = 6  # During handling of…, The above exception…
    GOES_ON = 7  # goes on with whatever stands before: Caused by:, goroutine 1 [running]:, #0 …, --- End of …
    CLOSER = 8  # } ] ): closes something if indented lines stand before
    EXCEPTION = 9  # java.lang.IllegalStateException: …
    PANIC = 10  # panic: …, fatal error: …
    GOROUTINE = 11
    GO_LINE = 12  # main.f(0x1), created by …, exit status 2, [signal …
    NODE_FILE = 13  # /app/x.js:12
    NODE_VERSION = 14
    RUST_PANIC = 15  # thread 'main' panicked at …
    RUST_NOTE = 16  # stack backtrace:, note: …


_HEAD = re.compile(
    rb"""
    (?:
        [\[(<"*]?(?:
            \d{4}[-/.]\d\d[-/.]\d\d(?:[T\ _-]\d\d[:.]\d\d|[\s,\])])
          | \d\d[/-][A-Z][a-z]{2}[/-]\d{4}[\ :]\d\d:
          | \d{1,2}\ (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\ \d{4}\ \d\d:
          | \d\d[/.-]\d\d(?:[/.-]\d\d(?:\d\d)?)?\ \d\d:\d\d:\d\d
          | \d{8}[T\ -]?\d\d:?\d\d:?\d\d
          | \d{6}\ \d{6}\ \d
          | \d\d:\d\d:\d\d(?:[.,\]\s]|$)
          | 1\d{9}(?:\.\d+|\d{3})?[\s:,|]
          | (?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?\ )?(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)
            \ {1,2}\d{1,2},?\ (?:\d{4},?\ )?\d{1,2}:\d\d
          | (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),\ \d{1,2}\ [A-Z][a-z]{2}\ \d{4}
        )
      | \[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRIT|CRITICAL|FATAL|SEVERE|ALERT|EMERG|PANIC)
        (?:[\]:|]|\s+(?![=]))
      | \[(?:trace|debug|info|notice|warn|warning|error|err|crit|critical|fatal|alert|emerg)\]
      | [IWEFD](?:20\d\d)?\d{4}\ \d\d:\d\d:\d\d\.
      | [DIWEFA],\ \[\d{4}-
      | <\d{1,3}>
      | \d{1,9}:[A-Z]\ \d\d\ [A-Z][a-z]{2}\ \d{4}[ ]
      | \{"[^"]{1,128}"\s?:
      | (?:time|ts|timestamp|level|lvl|date|t)=\S
      | type=[A-Z_0-9]+\ msg=audit\(
      | -\ \d{10}[ ]
      | [^\s\[]{2,255}\ [^\s\[]{1,255}\ [^\[]{1,255}\ \[\d\d/[A-Z][a-z]{2}/\d{4}:
      | PHP\ (?:Fatal|Parse|Warning|Notice|Deprecated|Recoverable)
    )
    """,
    re.VERBOSE,
)
_INDENTED_HEAD = re.compile(rb"\s{1,8}\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_GROUP = re.compile(rb"\s{1,200}\+ Exception Group Traceback \(most recent call last\):\s*$")
_CHAINED = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
_CAUSE = re.compile(
    rb"(?:Caused by|Suppressed|Wrapped by): ?[A-Za-z_$]|Next [A-Z]\w*(?:Exception|Error)|"
    rb"\.\.\. \d+ (?:more|common frames)"
)
_FRAME = re.compile(
    rb"#\d{1,4} +\S|Stack trace:|\[stacktrace\]|\"\} ?$|--- End of |--->|at [\w$.<>/]+\([\w.$ ]+(?::\d+)?\)\s*$"
)
_RUBY_FRAME = re.compile(rb"[^\s:]{1,255}:\d{1,7}:in [`'](?!.*\([A-Z][\w:]*\)\s*$)")
_EXCEPTION = re.compile(
    rb"(?:[a-z_][\w$]*\.)+[A-Z][\w$]*(?:Exception|Error|Throwable|Failure|Fault|Interrupt|Timeout)(?:: |:?\s*$)"
)
_GO_CALL = re.compile(rb"(?=[^(\s]{0,512}\.)[^(\s]{1,512}+\(")
_GO_LINE = re.compile(rb"created by \S|exit status \d|\[signal |\[originating from |runtime stack:")
_NODE_FILE = re.compile(rb"(?:/|file://|node:|[A-Za-z]:\\)[^\s:]{1,1000}(?::[^\s:]{1,255})?:\d{1,7}\s*$")
_RUST = re.compile(rb"thread '[^']{0,255}' (?:\(\d+\) )?panicked at ")

ERROR_LINE = re.compile(rb"(?:Uncaught |\[)?(?:[A-Za-z_$][\w$.]{0,255})(?: \[[\w-]{1,64}\])?: |[A-Za-z_$]\w{0,255}\s*$")
"""What a Node trace says after its caret block."""

FINAL_LINE = re.compile(rb"[A-Za-z_<][\w.<>]{0,255}(?::|\s*$)")
"""What a Python traceback ends with, where one ends: `module.Error: message`, `KeyboardInterrupt`."""


def kind_of(line: bytes) -> Kind:
    first = line[:1]
    if first in b" \t":  # the empty line too
        if not line.strip():
            return Kind.BLANK
        if b"+ Exception Group Trace" in line[:240] and _GROUP.match(line):
            return Kind.GROUP_TRACEBACK
        return Kind.HEAD if b":" in line[:40] and _INDENTED_HEAD.match(line) else Kind.INDENTED
    if first in b"\r\v\f" and not line.strip():
        return Kind.BLANK
    if _HEAD.match(line):
        return Kind.HEAD
    special = _BY_FIRST.get(first)
    if special is not None and (kind := special(line)) is not None:
        return kind
    if first.isalnum() or first in b"_/(.*":
        return _named(line)
    return Kind.ORDINARY


def _named(line: bytes) -> Kind:
    if _NODE_FILE.match(line):
        return Kind.NODE_FILE
    if b":in " in line[:400] and _RUBY_FRAME.match(line):
        return Kind.GOES_ON
    if line.endswith((b")", b")\r")) and _GO_CALL.match(line):
        return Kind.GO_LINE
    if b"." in line[:120] and _EXCEPTION.match(line):
        return Kind.EXCEPTION
    return Kind.ORDINARY


def _of_t(line: bytes) -> Kind | None:
    if line.startswith(b"Traceback (most recent call last):"):
        return Kind.TRACEBACK
    return Kind.CHAINED if line.startswith(_CHAINED) else None


def _of_small_t(line: bytes) -> Kind | None:
    return Kind.RUST_PANIC if _RUST.match(line) else None


def _cause(line: bytes) -> Kind | None:
    return Kind.GOES_ON if _CAUSE.match(line) or _FRAME.match(line) else None


def _of_d(line: bytes) -> Kind | None:
    return Kind.CHAINED if line.startswith(_CHAINED) else None


def _of_g(line: bytes) -> Kind | None:
    return Kind.GOROUTINE if line.startswith(b"goroutine ") and b" [" in line[:40] else None


def _go(line: bytes) -> Kind | None:
    if line.startswith((b"panic: ", b"fatal error: ")):
        return Kind.PANIC
    return Kind.GO_LINE if _GO_LINE.match(line) else None  # a call is seen later


def _of_n(line: bytes) -> Kind | None:
    if line.startswith(b"Node.js v"):
        return Kind.NODE_VERSION
    return (Kind.RUST_NOTE if line.startswith(b"note: ") else None) or _cause(line)


def _of_s(line: bytes) -> Kind | None:
    return Kind.RUST_NOTE if line.startswith(b"stack backtrace:") else _cause(line)


def _closer(line: bytes) -> Kind | None:
    return Kind.CLOSER if line.strip(b" \t\r,;}])^~") == b"" else None


_BY_FIRST = {
    b"T": _of_t,
    b"t": _of_small_t,
    b"D": _of_d,
    b"C": _cause,
    b"S": _of_s,
    b"s": _of_s,
    b"W": _cause,
    b"N": _of_n,
    b"n": _of_n,
    b".": _cause,
    b"#": _cause,
    b"-": _cause,
    b'"': _cause,
    b"a": _cause,
    b"g": _of_g,
    b"p": _go,
    b"f": _go,
    b"c": _go,
    b"e": _go,
    b"[": lambda line: _cause(line) or _go(line),
    b"r": _go,
    b"}": _closer,
    b"]": _closer,
    b")": _closer,
    b"^": _closer,
}
