"""
Taking lines apart: one file for each format, and their table.

In: an entry's text.  Out: fields, under the same names whatever the format:

| field | is | from |
| --- | --- | --- |
| message | text: what is left without the frame; of an access log, the request line; never missing | all |
| timestamp | ISO 8601 in UTC (`2026-11-20T09:00:00.123Z`); as written, where the line names no year | all but plain |
| level | lower case: emergency alert critical error warning notice info debug trace, or the writer's own word (fatal); abbreviations are written out: warn is warning, err is error | all but plain, access |
| host, program | text | syslog |
| pid | whole number; what is no number is `procid`, text | syslog, klog, Apache's error log |
| facility, priority | its word; the number in `<…>` | syslog with PRI |
| msgid, structured | text; {element id: {name: value}} | RFC 5424 |
| remote, ident, user, vhost, forwarded_for, referer, agent | text; left out where the line has "-" | access logs |
| method, path, query, protocol | text; query without "?", left out if there is none | access logs |
| status, bytes, request_time | number; number or null; seconds, if at the end of the line | access logs |
| extra | text: what else the line ends with | access logs |
| stream | stdout or stderr | container logs |
| source | file:line | klog |

Lines of JSON and logfmt give their own keys as they are, and message, level, timestamp besides, from the usual names of
these (msg, log, event; severity, lvl, levelname, pino's, syslog's and Monolog's numbers; time, ts, @timestamp in
seconds to nanoseconds). At most 256 keys, 16 deep; whole numbers of more than 64 bit are text.
`regex` gives its groups; pid, status, bytes and priority are numbers where they are digits.

Promise: never raises, never hangs: time grows with the length of the line, whatever is in it.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from agentd.errors import ConfigError
from agentd.logs.parse import access, guess, jsonline, logfmt, syslog
from agentd.logs.parse.bounds import clean
from agentd.logs.parse.named import Named
from agentd.logs.parse.stamp import Stamps
from agentd.logs.port import Parser
from agentd.logs.settings import LogFormat, LogSource

Taker = Callable[[str], dict[str, Any] | None]
"""Takes one line apart; None when it is of another format."""


def _plain(stamps: Stamps) -> Taker:
    return lambda text: None


FORMATS: Mapping[LogFormat, Callable[[Stamps], Taker]] = {
    "auto": guess.taker,
    "plain": _plain,
    "syslog": syslog.taker,
    "json": jsonline.taker,
    "logfmt": logfmt.taker,
    "common": access.taker,
    "combined": access.taker,
}
"""Every format but regex, which needs its pattern."""


def make_parser(settings: LogSource, *, timezone: str | None = "UTC") -> Parser:
    """
    The parser of one source, for one thread.

    timezone: IANA name, of times that name no zone; None: the host's own zone. Raises ConfigError for a pattern or
    zone that cannot be used.
    """
    try:
        stamps = Stamps(timezone)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"there is no time zone {timezone!r}; write a name such as Europe/Berlin") from error
    if settings.format == "regex":
        return _NamedParser(Named(settings.pattern, stamps), stamps)
    return _LineParser(FORMATS[settings.format](stamps), stamps)


class _LineParser:
    __slots__ = ("_stamps", "_take")

    def __init__(self, take: Taker, stamps: Stamps) -> None:
        self._take = take
        self._stamps = stamps

    def fields(self, text: str) -> dict[str, Any]:
        text = clean(text)
        found = self._take(text)
        return {"message": text} if found is None else found

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        if fields is not None and (moment := self._stamps.of_value(fields.get("timestamp"), written_by)) is not None:
            return moment
        return self._stamps.of_line(text, written_by)


class _NamedParser(_LineParser):
    __slots__ = ("_named",)

    def __init__(self, named: Named, stamps: Stamps) -> None:
        super().__init__(named.take, stamps)
        self._named = named

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        if self._named.time_groups:
            found: Mapping[str, Any] | None = fields if fields is not None else self._named.raw(text)
            for name in ("timestamp", *self._named.time_groups):
                if found and (moment := self._stamps.of_value(found.get(name), written_by)) is not None:
                    return moment
        return self._stamps.of_line(text, written_by)
