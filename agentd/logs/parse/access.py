"""
Access logs: common and combined, as Apache and nginx write them, with a leading virtual host or trailing times.

In: `remote ident user [time] "request" status bytes "referer" "agent" …`.  Out: the fields; "-" is left out, save for
`bytes`, which is null. A request line that is none (a TLS hello on a plain port) gives no method, path, protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from agentd.logs.parse.stamp import Stamps

_LINE = re.compile(
    r"""
    (?:(?P<vhost>[^\s\[:]{1,255}:\d{1,5})\ )?
    (?P<remote>[^\s\[]{1,255})\ (?P<ident>[^\s\[]{1,255})\ (?P<user>\S.{0,255}?)\ \[(?=\d)(?P<time>[^\]]{19,32})\]
    \ "(?P<request>(?:[^"\\]|\\.)*+)"
    \ (?P<status>\d{3}|-)\ (?P<bytes>\d{1,18}|-)
    (?:\ "(?P<referer>(?:[^"\\]|\\.)*+)"\ "(?P<agent>(?:[^"\\]|\\.)*+)")?
    (?:\ "(?P<forwarded_for>(?:[^"\\]|\\.)*+)")?
    (?:\ (?P<request_time>\d{1,9}\.\d{1,9})(?=\s|$))?
    (?:\ (?P<extra>.+))?\s*$
    """,
    re.VERBOSE | re.DOTALL,
)
_REQUEST = re.compile(r"(?P<method>[A-Za-z_-]{1,32}) (?P<target>\S.*?)(?: (?P<protocol>HTTP/\d(?:\.\d)?))?", re.DOTALL)
_LEFT_OUT = frozenset(["-", ""])


def taker(stamps: Stamps) -> Callable[[str], dict[str, Any] | None]:
    def take(text: str) -> dict[str, Any] | None:
        match = _LINE.match(text)
        if match is None:
            return None
        parts = match.groupdict()
        moment = stamps.text_of(parts.pop("time"))
        request, size, status, spent = (parts.pop(key) for key in ("request", "bytes", "status", "request_time"))
        fields: dict[str, Any] = {"message": request}
        if moment:
            fields["timestamp"] = moment
        for key, value in parts.items():
            if value is not None and value not in _LEFT_OUT:
                fields[key] = _unescaped(value) if "\\" in value else value
        if status != "-":
            fields["status"] = int(status)
        fields["bytes"] = None if size == "-" else int(size)
        if spent is not None:
            fields["request_time"] = float(spent)
        asked = _REQUEST.fullmatch(request)
        if asked is not None:
            fields["method"] = asked["method"]
            path, mark, query = asked["target"].partition("?")
            fields["path"] = path
            if mark:
                fields["query"] = query
            if asked["protocol"]:
                fields["protocol"] = asked["protocol"]
        return fields

    return take


def _unescaped(text: str) -> str:
    # \xHH stays as it is: what it stands for is a byte, and often no text.
    return text.replace('\\"', '"').replace("\\\\", "\\")
