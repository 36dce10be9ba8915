"""
Plain lines that show a time or a level: whatever else is in them stays the message.

In: any line.  Out: `timestamp`, `level`, for klog and Apache's error log also pid, source, remote; and what is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agentd.logs.parse.level import LEVEL_WORD, level_of
from agentd.logs.parse.moment import iso_text
from agentd.logs.parse.stamp import NEVER, Stamps

_A = re.ASCII
_KLOG = re.compile(r"([IWEFD])(?:20\d\d)?\d{4} \d\d:\d\d:\d\d\.\d+\s+(\d{1,9}) ([^\s\]]{1,255}:\d{1,9})\] ?", _A)
_APACHE = re.compile(
    r"\] \[(?:([\w-]{0,64}):)?([a-z]{1,16})\d?\] (?:\[pid (\d{1,9})(?::tid \d{1,20})?\] )?"
    r"(?:\[client ([^\]\s]{1,64})\] )?",
    _A,
)
_YEARLESS = re.compile(r"[A-Z]?\d\d-?\d\d \d\d:\d\d:\d\d\.\d+", _A)
_BETWEEN = re.compile(r"(?:[\])\"*]|\s*[|,:](?!\d)|\s+-(?=\s))?\s*", _A)
_LEVEL = re.compile(rf"(?:\[({LEVEL_WORD}) *\]|({LEVEL_WORD})(?=[\s:\]|]|$))(?:\s*[:|](?!:)|\])?(?:\s+-(?=\s))?\s*", _A)
_BRACKETED = re.compile(rf"\[({LEVEL_WORD})\] ?", _A | re.IGNORECASE)
_WITHIN = re.compile(rf"(?<=[\s\[|,])({LEVEL_WORD})(?=[\s\]|,:])", _A)
_LEADING = re.compile(rf"\[?({LEVEL_WORD})\b", _A)


def taker(stamps: Stamps) -> Callable[[str], dict[str, Any] | None]:
    def take(text: str) -> dict[str, Any] | None:
        fields: dict[str, Any] = {"message": text}
        if klog := _KLOG.match(text):
            fields["level"] = level_of(klog[1])
            fields["pid"] = int(klog[2])
            fields["source"] = klog[3]
            fields["message"] = text[klog.end() :]
            if moment := stamps.of_head(text, NEVER):
                fields["timestamp"] = iso_text(moment)
            return fields
        at = 0
        if moment := stamps.of_head(text, NEVER):
            fields["timestamp"] = iso_text(moment)
            at = stamps.end
            if apache := _APACHE.match(text, at):
                fields["level"] = level_of(apache[2])
                if apache[3]:
                    fields["pid"] = int(apache[3])
                if apache[4]:
                    fields["remote"] = re.sub(r"(?<=[\d\]]):\d{1,5}$", "", apache[4])
                fields["message"] = text[apache.end() :]
                return fields
            if lead := _LEADING.match(text):
                fields["level"] = level_of(lead[1])
        elif yearless := _YEARLESS.match(text):
            fields["timestamp"] = yearless[0]
            at = yearless.end()
        between = _BETWEEN.match(text, at)
        if at and between:
            at = between.end()
        if "level" not in fields:
            if level := _LEVEL.match(text, at) or _BRACKETED.match(text, at):
                fields["level"] = level_of(level[1] if level.re is _BRACKETED else level[1] or level[2])
                at = level.end()
            elif at and (within := _WITHIN.search(text, at, at + 100)):
                fields["level"] = level_of(within[1])
        fields["message"] = text[at:]
        return fields

    return take
