"""
Format auto: which format a line is of, decided line by line.

In: any line.  Out: its fields, also of JSON, logfmt or an access line that stands behind a syslog or container frame.
A line's first character leaves few formats to try; what fitted last is tried first. The strict formats exclude each
other, so what came before never changes what a line gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agentd.logs.parse import access, jsonline, logfmt, stamped, syslog
from agentd.logs.parse.stamp import Stamps

Taker = Callable[[str], dict[str, Any] | None]

# The container runtime interface's log line: time, stream, partial or full.
_CRI = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{1,20}) (stdout|stderr) ([FP])(?::[^\s]{1,32})? ", re.ASCII)
_CEE = "@cee:"
_DOCKER = frozenset(("log", "stream", "time"))


def taker(stamps: Stamps) -> Taker:
    take_json = jsonline.taker(stamps)
    take_logfmt = logfmt.taker(stamps, strict=True)
    take_access = access.taker(stamps)
    take_syslog = syslog.taker(stamps, strict=True)
    take_stamped = stamped.taker(stamps)

    def inside(fields: dict[str, Any]) -> dict[str, Any]:
        """Take what stands in the frame apart as well; the frame's time stays."""
        body: str = fields["message"].removeprefix(_CEE).lstrip()
        if body[:1] == "{":
            inner = take_json(body)
        elif body[:1].isalnum() or body[:1] in ":-":
            inner = take_logfmt(body) or take_access(body)
        else:
            return fields
        if inner is None:
            return fields
        timestamp = fields.get("timestamp")
        merged = {**fields, **inner}
        if timestamp is not None:
            merged["timestamp"] = timestamp
        return merged

    def framed(text: str) -> dict[str, Any] | None:
        fields = take_syslog(text)
        return None if fields is None else inside(fields)

    def container(text: str) -> dict[str, Any] | None:
        match = _CRI.match(text)
        if match is None:
            return None
        fields = {"message": text[match.end() :], "stream": match[2]}
        if moment := stamps.text_of(match[1]):
            fields["timestamp"] = moment
        return inside(fields)

    def braced(text: str) -> dict[str, Any] | None:
        fields = take_json(text)
        return inside(fields) if fields is not None and fields.keys() >= _DOCKER else fields

    by_first: dict[str, tuple[Taker, ...]] = {"{": (braced,), "<": (framed,)}
    for digit in "0123456789":
        by_first[digit] = (container, framed, take_access)
    other = (framed, take_logfmt, take_access)
    last: Taker | None = None

    def take(text: str) -> dict[str, Any] | None:
        nonlocal last
        takers = by_first.get(text[:1], other)
        if last in takers and last is not None and (fields := last(text)) is not None:
            return fields
        for each in takers:
            if each is not last and (fields := each(text)) is not None:
                last = each
                return fields
        return take_stamped(text)

    return take
