"""
One word for how grave a line is, whatever its writer calls it.

In: a word or a number of some scale.  Out: a lower-case word; abbreviations are written out, other words stay.
"""

from __future__ import annotations

import re
from typing import Any

SYSLOG_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
"""By severity number, RFC 5424 section 6.2.1; the journal's PRIORITY is the same."""

ALIASES = {
    "emerg": "emergency",
    "crit": "critical",
    "err": "error",
    "eror": "error",
    "warn": "warning",
    "wrn": "warning",
    "inf": "info",
    "information": "info",
    "informational": "info",
    "dbg": "debug",
    "dbug": "debug",
    "trc": "trace",
    "ftl": "fatal",
    "i": "info",
    "w": "warning",
    "e": "error",
    "f": "fatal",
    "d": "debug",
    "v": "trace",
    "verbose": "trace",
}
"""What is written otherwise: a condition on the left word never holds."""

LEVEL_WORD = (
    "(?:TRACE|DEBUG|INFO|INFORMATION|NOTICE|WARN|WARNING|ERROR|ERR|CRIT|CRITICAL|FATAL|SEVERE|ALERT|EMERG|EMERGENCY"
    "|PANIC)"
)
_WORD = re.compile(LEVEL_WORD, re.ASCII | re.IGNORECASE)

# (from this number on, word); pino and bunyan count in tens, Monolog in hundreds.
_TENS = ((60, "fatal"), (50, "error"), (40, "warning"), (30, "info"), (20, "debug"), (10, "trace"))
_PYTHON = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"), (10, "debug"))
_HUNDREDS = (
    (600, "emergency"),
    (550, "alert"),
    (500, "critical"),
    (400, "error"),
    (300, "warning"),
    (250, "notice"),
    (200, "info"),
    (100, "debug"),
)


def is_level(word: str) -> bool:
    """Whether this is one of the usual words for a level, in any case."""
    return _WORD.fullmatch(word) is not None


def level_of(value: Any, *, python: bool = False) -> str | None:
    """
    The word for it; None when it says nothing.

    value: a word, or a number: 0-7 syslog, 10-60 pino and bunyan, 100-600 Monolog. python: its tens are Python's.
    """
    if isinstance(value, str):
        word = value.strip().lower()[:32]
        if not word.isdecimal() or not word.isascii():
            return ALIASES.get(word, word) or None
        value = int(word)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if 0 <= value < 8:
        return SYSLOG_LEVELS[int(value)]
    for scale in (_HUNDREDS, _PYTHON if python else _TENS):
        for least, word in scale:
            if value >= least:
                return word
    return None
