"""
What the times of log lines look like: the patterns alone.

All are matched at a given place; none can take more than linear time. Groups: year, month, day, hour, minute, second,
fraction, zone, half (AM or PM), epoch.
"""

from __future__ import annotations

import re

MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}

_A = re.ASCII
_MONTH = "(?P<month>" + "|".join(MONTHS) + ")"
_DAYNAME = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_CLOCK = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_FRACTION = r"(?:[.,](?P<fraction>\d{1,9}+)\d*+)?"
_ZONE = r"(?: ?(?P<zone>Z(?!\w)|UTC|GMT|[+-]\d\d:?\d\d(?!\d)))?"
_NO_DIGIT = r"(?!\d)"

LEAD = re.compile(
    r"""
    (?:<\d{1,3}>(?:1\ |\d+:\ )?)?                     # syslog's PRI, version or sequence number
    (?:
        \*                                            # Cisco: the clock is not in step
      | -\ (?=\d{10}\ )
      | \d+:[A-Z]\ (?=\d)                             # redis: pid and role
      | type=[A-Z_0-9]+\ msg=audit\((?=\d)
      | [DIWEFA],\ \[                                 # Ruby's Logger
      | \[?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|ERR|CRIT|CRITICAL|FATAL|SEVERE|ALERT|EMERG|PANIC)
        [\]:|]?[ ]{1,8}\[?
      | (?=[\w.:/@-]{0,80}[\d.:/@-])[\w.:/@-]{1,80}+\ (?=\d{4}-\d\d-\d\d[T\ ]\d\d:)   # a host or a file name
      | [\[("]
      | \s{1,8}
    )?
    """,
    _A | re.VERBOSE,
)

ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[T _]\d\d:\d\d:\d\d)((?:[.,]\d{1,12})?)"
    r"(Z(?!\w)|[+-]\d\d(?::?\d\d)?(?!\d)| ?(?:UTC|GMT)(?!\w)| [+-]\d{4}(?!\d))?",
    _A,
)

BSD = re.compile("(" + "|".join(MONTHS) + r") {1,2}(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?!\d)", _A)

ACCESS = re.compile(rf"\[(?P<day>\d\d)/{_MONTH}/(?P<year>\d{{4}}):{_CLOCK}(?: (?P<zone>[+-]\d{{4}}))?(?=\])", _A)

DIGITS_FIRST = (
    # nginx's error log, Go's log
    re.compile(rf"(?P<year>\d{{4}})[/.](?P<month>\d\d)[/.](?P<day>\d\d)[ T-]{_CLOCK}{_FRACTION}{_ZONE}", _A),
    # 20 Nov 2026 09:00:00,123 and 20-Nov-2026 09:00:00 and 20/Nov/2026:09:00:00 +0000
    re.compile(rf"(?P<day>\d{{1,2}})[ /-]{_MONTH}[ /-](?P<year>\d{{4}})[ :]{_CLOCK}{_FRACTION}{_ZONE}", _A),
    # 20261120T090000Z, 20261120-09:00:00:123
    re.compile(
        r"(?P<year>(?:19|20)\d\d)(?P<month>[01]\d)(?P<day>[0-3]\d)[T -]"
        r"(?P<hour>\d\d):?(?P<minute>\d\d):?(?P<second>\d\d)"
        rf"(?:[.,:](?P<fraction>\d{{1,9}})\d*+)?{_ZONE}{_NO_DIGIT}",
        _A,
    ),
    # Spark: 26/11/20 09:00:00
    re.compile(rf"(?P<year>\d\d)/(?P<month>[01]\d)/(?P<day>[0-3]\d) {_CLOCK}{_FRACTION}", _A),
    # Hadoop's file system: 261120 090000 143 INFO
    re.compile(
        r"(?P<year>\d\d)(?P<month>[01]\d)(?P<day>[0-3]\d) (?P<hour>[0-2]\d)(?P<minute>[0-5]\d)(?P<second>[0-5]\d)"
        r"(?= \d+ [A-Z])",
        _A,
    ),
    # Android: 11-20 09:00:00.123
    re.compile(rf"(?P<month>[01]\d)-(?P<day>[0-3]\d) {_CLOCK}\.(?P<fraction>\d{{3,6}})", _A),
    re.compile(r"(?P<epoch>1\d{9}(?:\.\d{1,9}|\d{3}|\d{6}|\d{9})?)(?=[\s:,;|\])]|$)", _A),
)

LETTERS_FIRST = (
    # asctime, Apache's error log
    re.compile(
        rf"{_DAYNAME} {_MONTH} {{1,2}}(?P<day>\d{{1,2}}) {_CLOCK}{_FRACTION}"
        r"(?: (?P<zone>[A-Z]{3,4}|[+-]\d{4}))? (?P<year>\d{4})",
        _A,
    ),
    # klog; glog has the year
    re.compile(rf"[IWEFD](?P<year>20\d\d)?(?P<month>[01]\d)(?P<day>[0-3]\d) {_CLOCK}\.(?P<fraction>\d{{1,9}})", _A),
    # Cisco's ASA: Nov 20 2026 09:00:00; java.util.logging: Nov 20, 2026 9:00:00 AM
    re.compile(
        rf"{_MONTH} {{1,2}}(?P<day>\d{{1,2}}),? (?P<year>\d{{4}}),? "
        r"(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)"
        rf"{_FRACTION}(?: (?P<half>AM|PM))?{_ZONE}",
        _A,
    ),
    # RFC 5322
    re.compile(rf"{_DAYNAME}, (?P<day>\d{{1,2}}) {_MONTH} (?P<year>\d{{4}}) {_CLOCK}{_ZONE}", _A),
)

JSON_TIME = re.compile(
    r'"(?P<key>time|timestamp|@timestamp|ts|t|datetime|date|time_local|time_iso8601|eventTime|asctime)"\s{0,8}:\s{0,8}'
    r'(?:"(?P<text>[^"\\]{1,64})"|(?P<number>-?\d[\d.eE+-]*+)|\{\s?"\$date"\s?:\s?"(?P<date>[^"\\]{1,64})")'
)

LOGFMT_HEAD = re.compile(r"[\w.@/-]{1,64}+=", _A)
LOGFMT_TIME = re.compile(
    r"(?:^|(?<=[\s,]))(?P<key>time|timestamp|@timestamp|ts|t|datetime|date)="
    r'(?:"(?P<text>[^"\\]{1,64})"|(?P<bare>[^\s",]{1,64}))(?: time=(?P<clock>\d\d:\d\d:\d\d))?'
)
