"""
syslog, as daemons, routers and relays really write it.

In: RFC 3164 with and without PRI, host, pid, with its own or an ISO time; Cisco's sequence number, clock mark and
`%FACILITY-SEVERITY-MNEMONIC`; RFC 5424 with structured data.  Out: the fields, nil values left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agentd.logs.parse.bounds import MAX_KEYS
from agentd.logs.parse.level import SYSLOG_LEVELS, is_level
from agentd.logs.parse.shape import MONTHS
from agentd.logs.parse.stamp import Stamps

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock", *(f"local{number}" for number in range(8))),
)

_MONTH = "(?:" + "|".join(MONTHS) + ")"
# [ ], as the pattern of tags ignores bare spaces.
_BSD_TIME = rf"{_MONTH}[ ]{{1,2}}\d{{1,2}}[ ](?:\d{{4}}[ ])?\d\d:\d\d:\d\d(?:\.\d{{1,9}})?"
_YEAR = re.compile(r" \d{4} ", re.ASCII)
_ISO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,12})?(?:Z|[+-]\d\d:?\d\d)?"
_HEAD = re.compile(
    rf"(?:<(?P<pri>\d{{1,3}})>)?(?:\d{{1,12}}: )?[*.]?(?:(?P<bsd>{_BSD_TIME})|(?P<iso>{_ISO_TIME}))"
    r"(?: [A-Z]{3,5}(?=:))?(?:: ?| )",
    re.ASCII,
)
_TAG = re.compile(
    rf"""
    (?:(?P<host>[^\s\[\]]{{0,254}}[^\s:\[\]])\ )?
    (?::\ )?(?:\d{{1,12}}:\ )?(?:[*.]?{_BSD_TIME}(?:\ [A-Z]{{3,5}})?:\ )?  # a router's own
    (?P<program>[^\s:\[]{{1,128}})(?:\[(?P<pid>[^\]\s]{{1,32}})\])?(?:\ \([^()]{{1,128}}\))?:(?:\s|$)
    """,
    re.ASCII | re.VERBOSE,
)
_MNEMONIC = re.compile(r"%[A-Z0-9_-]{1,64}-([0-7])-[A-Z0-9_]{1,64}", re.ASCII)
_NEW = re.compile(
    r"(?:<(?P<pri>\d{1,3})>)?[1-9]\d? (?P<stamp>-|\d{4}-\S{1,60}) (?P<host>\S{1,255}) (?P<program>\S{1,128}) "
    r"(?P<procid>\S{1,128}) (?P<msgid>\S{1,64}) (?=-|\[)",
    re.ASCII,
)
_ELEMENT = re.compile(r'\[([^\s=\]"]{1,64})((?: [^\s=\]"]{1,64}="(?:[^"\\]|\\.)*+")*+) ?\]', re.DOTALL)
_PARAM = re.compile(r' ([^\s=\]"]{1,64})="((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\\]])')


def taker(stamps: Stamps, *, strict: bool = False) -> Callable[[str], dict[str, Any] | None]:
    """strict: for guessing; a line that begins with an ISO time needs host and program to count."""

    def take(text: str) -> dict[str, Any] | None:
        if match := _NEW.match(text):
            return _new(match, text, stamps)
        match = _HEAD.match(text)
        if match is None:
            return None
        fields: dict[str, Any] = {"message": ""}
        stamp = match["iso"] or match["bsd"]
        dated = match["iso"] or _YEAR.search(stamp)
        fields["timestamp"] = (stamps.text_of(stamp) if dated else None) or stamp
        _priority(fields, match["pri"])
        rest = match.end()
        tag = _TAG.match(text, rest)
        if strict and match["iso"] and not match["pri"]:
            if stamp[19:] == "" or tag is None or tag["host"] is None or is_level(tag["host"]):
                return None
            if is_level(tag["program"]):
                return None
        if tag is None:
            host, space, message = text[rest:].partition(" ")
            if space and not host.endswith(":"):
                fields["host"] = host
            else:
                message = text[rest:]
        else:
            if tag["host"]:
                fields["host"] = tag["host"]
            fields["program"] = tag["program"]
            _pid(fields, tag["pid"])
            message = text[tag.end() :]
            if "level" not in fields and (mnemonic := _MNEMONIC.fullmatch(tag["program"])):
                fields["level"] = SYSLOG_LEVELS[int(mnemonic[1])]
        fields["message"] = message
        return fields

    return take


def _new(match: re.Match[str], text: str, stamps: Stamps) -> dict[str, Any]:
    fields: dict[str, Any] = {"message": ""}
    if match["stamp"] != "-":
        fields["timestamp"] = stamps.text_of(match["stamp"]) or match["stamp"]
    _priority(fields, match["pri"])
    for key in ("host", "program", "msgid"):
        if match[key] != "-":
            fields[key] = match[key]
    _pid(fields, match["procid"])
    at = match.end()
    if text[at] == "-":
        at += 1
    else:
        structured, at = _structured(text, at)
        if structured:
            fields["structured"] = structured
    message = text[at:]
    fields["message"] = (message[1:] if message[:1] == " " else message).removeprefix("\ufeff")
    return fields


def _structured(text: str, at: int) -> tuple[dict[str, dict[str, str]], int]:
    """The elements by id, and where they end; what is malformed is left to the message."""
    found: dict[str, dict[str, str]] = {}
    left = MAX_KEYS
    while element := _ELEMENT.match(text, at):
        at = element.end()
        if left <= 0:
            continue
        params = found.setdefault(element[1], {})
        for name, value in _PARAM.findall(element[2])[:left]:
            params[name] = _ESCAPED.sub(r"\1", value) if "\\" in value else value
        left -= 1 + len(params)
    return found, at


def _priority(fields: dict[str, Any], text: str | None) -> None:
    if text is None or (number := int(text)) > 191:
        return
    fields["priority"] = number
    fields["facility"] = FACILITIES[number >> 3]
    fields["level"] = SYSLOG_LEVELS[number & 7]


def _pid(fields: dict[str, Any], text: str | None) -> None:
    if text is None or text == "-":
        return
    if len(text) <= 18 and text.isascii() and text.isdecimal():
        fields["pid"] = int(text)
    else:
        fields["procid"] = text
