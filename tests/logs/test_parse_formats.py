"""Lines taken apart: each format as real programs write it, under one vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import ConfigError
from agentd.logs.parse import make_parser
from agentd.logs.port import Parser
from agentd.logs.settings import LogFormat, LogSource


def parser(kind: LogFormat = "auto", pattern: str | None = None) -> Parser:
    return make_parser(LogSource(files=("/var/log/x",), format=kind, pattern=pattern))


SYSLOG: dict[str, dict[str, Any]] = {
    "<34>Oct 11 22:14:15 mymachine su: 'su root' failed": {
        "message": "'su root' failed",
        "timestamp": "Oct 11 22:14:15",
        "priority": 34,
        "facility": "auth",
        "level": "critical",
        "host": "mymachine",
        "program": "su",
    },
    "Nov  5 09:00:01 web-1 sshd[123]: Failed password for root": {
        "message": "Failed password for root",
        "timestamp": "Nov  5 09:00:01",
        "host": "web-1",
        "program": "sshd",
        "pid": 123,
    },
    "2026-11-05T09:00:01.123456+01:00 web-1 CRON[9]: (root) CMD (x)": {
        "message": "(root) CMD (x)",
        "timestamp": "2026-11-05T08:00:01.123456Z",
        "host": "web-1",
        "program": "CRON",
        "pid": 9,
    },
    "Nov  5 09:00:01 sshd[123]: no host": {
        "message": "no host",
        "timestamp": "Nov  5 09:00:01",
        "program": "sshd",
        "pid": 123,
    },
    "Nov  5 09:00:01 bsd last message repeated 2 times": {
        "message": "last message repeated 2 times",
        "timestamp": "Nov  5 09:00:01",
        "host": "bsd",
    },
    "Nov  5 09:00:01 web-1 kernel: [12345.678] eth0: link up": {
        "message": "[12345.678] eth0: link up",
        "timestamp": "Nov  5 09:00:01",
        "host": "web-1",
        "program": "kernel",
    },
    "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: check pass; user unknown": {
        "message": "check pass; user unknown",
        "timestamp": "Jun 14 15:16:01",
        "host": "combo",
        "program": "sshd(pam_unix)",
        "pid": 19939,
    },
    "<189>123: *Nov 20 09:00:01.123: %SYS-5-CONFIG_I: Configured": {
        "message": "Configured",
        "timestamp": "Nov 20 09:00:01.123",
        "priority": 189,
        "facility": "local7",
        "level": "notice",
        "program": "%SYS-5-CONFIG_I",
    },
    "Nov 20 09:00:01 10.0.0.1 123: *Nov 20 09:00:00.123: %SYS-3-X: Configured": {
        "message": "Configured",
        "timestamp": "Nov 20 09:00:01",
        "host": "10.0.0.1",
        "program": "%SYS-3-X",
        "level": "error",
    },
    "<166>Nov 20 2026 09:00:01: %ASA-6-302013: Built": {
        "message": "Built",
        "timestamp": "2026-11-20T09:00:01Z",
        "priority": 166,
        "facility": "local4",
        "level": "info",
        "program": "%ASA-6-302013",
    },
    '<165>1 2003-10-11T22:14:15.003Z m evntslog 77 ID47 [a@1 iut="3" src="App\\"x\\]"][b@2 c="d"] \ufeffAn event': {
        "message": "An event",
        "timestamp": "2003-10-11T22:14:15.003000Z",
        "priority": 165,
        "facility": "local4",
        "level": "notice",
        "host": "m",
        "program": "evntslog",
        "pid": 77,
        "msgid": "ID47",
        "structured": {"a@1": {"iut": "3", "src": 'App"x]'}, "b@2": {"c": "d"}},
    },
    "<34>1 - - - - - -": {"message": "", "priority": 34, "facility": "auth", "level": "critical"},
}
JSON: dict[str, dict[str, Any]] = {
    '{"level":30,"time":1795165200123,"pid":1,"msg":"up","req":{"ids":[1,2]}}': {
        "level": "info",
        "time": 1795165200123,
        "pid": 1,
        "msg": "up",
        "req": {"ids": [1, 2]},
        "timestamp": "2026-11-20T09:00:00.123000Z",
        "message": "up",
    },
    '{"severity":"WARN","message":"x","ok":true,"none":null,"f":1.5}': {
        "severity": "WARN",
        "level": "warning",
        "message": "x",
        "ok": True,
        "none": None,
        "f": 1.5,
    },
    '{"a":1}': {"a": 1, "message": '{"a":1}'},
}
LOGFMT: dict[str, dict[str, Any]] = {
    'time="2026-11-20T09:00:00Z" level=warn msg="a \\"b\\" \\u00e9" n=3 f=1.5 ok=true code=007 q="3"': {
        "time": "2026-11-20T09:00:00Z",
        "timestamp": "2026-11-20T09:00:00Z",
        "level": "warning",
        "msg": 'a "b" é',
        "message": 'a "b" é',
        "n": 3,
        "f": 1.5,
        "ok": True,
        "code": "007",
        "q": "3",
    },
}
ACCESS: dict[str, dict[str, Any]] = {
    '127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif?x=1&y HTTP/1.0" 200 2326': {
        "message": "GET /a.gif?x=1&y HTTP/1.0",
        "timestamp": "2000-10-10T20:55:36Z",
        "remote": "127.0.0.1",
        "user": "frank",
        "method": "GET",
        "path": "/a.gif",
        "query": "x=1&y",
        "protocol": "HTTP/1.0",
        "status": 200,
        "bytes": 2326,
    },
    '2001:db8::1 - - [10/Oct/2026:13:55:36 +0000] "GET / HTTP/2.0" 304 - "-" "Moz\\"illa (X)" 0.123': {
        "message": "GET / HTTP/2.0",
        "timestamp": "2026-10-10T13:55:36Z",
        "remote": "2001:db8::1",
        "method": "GET",
        "path": "/",
        "protocol": "HTTP/2.0",
        "status": 304,
        "bytes": None,
        "agent": 'Moz"illa (X)',
        "request_time": 0.123,
    },
    '::1 - John Doe [10/Oct/2026:13:55:36 +0000] "\\x16\\x03\\x01" 400 157 "-" "-"': {
        "message": "\\x16\\x03\\x01",
        "timestamp": "2026-10-10T13:55:36Z",
        "remote": "::1",
        "user": "John Doe",
        "status": 400,
        "bytes": 157,
    },
    'www.example.com:443 10.0.0.1 - - [10/Oct/2026:13:55:36 +0000] "-" 408 0 "http://r/" "ua" "10.0.0.9" 0.005 12': {
        "message": "-",
        "timestamp": "2026-10-10T13:55:36Z",
        "vhost": "www.example.com:443",
        "remote": "10.0.0.1",
        "status": 408,
        "bytes": 0,
        "referer": "http://r/",
        "agent": "ua",
        "forwarded_for": "10.0.0.9",
        "request_time": 0.005,
        "extra": "12",
    },
}
FRAMED: dict[str, dict[str, Any]] = {
    '2026-11-20T09:00:00.123456789Z stdout F {"level":"error","msg":"x"}': {
        "message": "x",
        "stream": "stdout",
        "timestamp": "2026-11-20T09:00:00.123456Z",
        "level": "error",
        "msg": "x",
    },
    "2026-11-20T09:00:00.1Z stderr P half a line": {
        "message": "half a line",
        "stream": "stderr",
        "timestamp": "2026-11-20T09:00:00.100000Z",
    },
    '{"log":"{\\"level\\":\\"warn\\",\\"msg\\":\\"in\\"}\\n","stream":"stdout","time":"2026-11-20T09:00:00Z"}': {
        "log": '{"level":"warn","msg":"in"}\n',
        "stream": "stdout",
        "time": "2026-11-20T09:00:00Z",
        "timestamp": "2026-11-20T09:00:00Z",
        "level": "warning",
        "msg": "in",
        "message": "in",
    },
    'Nov 20 09:00:01 h dockerd[12]: time="2026-11-20T09:00:00Z" level=info msg="x y"': {
        "message": "x y",
        "timestamp": "Nov 20 09:00:01",
        "host": "h",
        "program": "dockerd",
        "pid": 12,
        "time": "2026-11-20T09:00:00Z",
        "level": "info",
        "msg": "x y",
    },
    'Nov 20 09:00:01 h app: @cee: {"msg":"x","a":{"b":1}}': {
        "message": "x",
        "timestamp": "Nov 20 09:00:01",
        "host": "h",
        "program": "app",
        "msg": "x",
        "a": {"b": 1},
    },
}
STAMPED: dict[str, dict[str, Any]] = {
    "2026-11-20 09:00:00,123 ERROR app.module: boom": {
        "message": "app.module: boom",
        "timestamp": "2026-11-20T09:00:00.123000Z",
        "level": "error",
    },
    "2026-11-20 09:00:00,123 - app - ERROR - boom": {
        "message": "app - ERROR - boom",
        "timestamp": "2026-11-20T09:00:00.123000Z",
        "level": "error",
    },
    "2026-11-20T09:00:00.5Z  INFO mycrate::mod: hi": {
        "message": "mycrate::mod: hi",
        "timestamp": "2026-11-20T09:00:00.500000Z",
        "level": "info",
    },
    "2026-11-20T09:00:00Z INFO foo: hi": {"message": "foo: hi", "timestamp": "2026-11-20T09:00:00Z", "level": "info"},
    "2026/11/20 09:00:00 [error] 12#12: *1 open() failed": {
        "message": "12#12: *1 open() failed",
        "timestamp": "2026-11-20T09:00:00Z",
        "level": "error",
    },
    "[Fri Nov 20 09:00:00.123456 2026] [core:error] [pid 12:tid 34] [client 1.2.3.4:5678] AH00037: no": {
        "message": "AH00037: no",
        "timestamp": "2026-11-20T09:00:00.123456Z",
        "level": "error",
        "pid": 12,
        "remote": "1.2.3.4",
    },
    "[Sun Dec 04 04:47:44 2005] [notice] init() ok": {
        "message": "init() ok",
        "timestamp": "2005-12-04T04:47:44Z",
        "level": "notice",
    },
    "W1120 09:00:00.123456       1 main.go:12] hello": {
        "message": "hello",
        "level": "warning",
        "pid": 1,
        "source": "main.go:12",
    },
    "ERROR:root:boom": {"message": "root:boom", "level": "error"},
    "[error] something": {"message": "something", "level": "error"},
    "hello world": {"message": "hello world"},
    "": {"message": ""},
    "url=http://x failed to load": {"message": "url=http://x failed to load"},
    "Nov 31 is no day": {"message": "Nov 31 is no day"},
}
EXPLICIT: list[tuple[LogFormat, dict[str, dict[str, Any]]]] = [
    ("syslog", SYSLOG),
    ("json", JSON),
    ("logfmt", LOGFMT),
    ("common", ACCESS),
    ("combined", ACCESS),
]
ALL = {**SYSLOG, **JSON, **LOGFMT, **ACCESS, **FRAMED, **STAMPED}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, lines in EXPLICIT for text in lines])
def test_a_line_of_the_format_is_taken_apart(kind: LogFormat, text: str) -> None:
    """What conditions and `by` read."""
    assert parser(kind).fields(text) == ALL[text]


@pytest.mark.parametrize("text", ALL)
def test_auto_finds_the_format_of_a_line(text: str) -> None:
    """Most people never write `format`."""
    assert parser().fields(text) == ALL[text]


@given(st.lists(st.sampled_from(list(ALL)), max_size=10))
def test_auto_gives_a_line_the_same_whatever_came_before(texts: list[str]) -> None:
    """A file that two programs write to is no gamble."""
    one = parser()

    for text in texts:
        assert one.fields(text) == ALL[text]


@pytest.mark.parametrize(("kind", "lines"), EXPLICIT)
def test_a_line_of_another_format_is_its_message(kind: LogFormat, lines: dict[str, Any]) -> None:
    """A banner at start, a stray print: it still can be matched."""
    for text in (*STAMPED, *(FRAMED if kind in ("combined", "common") else ())):
        if kind != "syslog" or not text.startswith("2026-11-20T"):
            found = parser(kind).fields(text)
            assert found == {"message": text} or (kind == "logfmt" and "=" in text)


def test_plain_takes_nothing_apart() -> None:
    """It says so."""
    for text in ALL:
        assert parser("plain").fields(text) == {"message": text}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('{"level":"WARN"}', "warning"),
        ('{"lvl":"err"}', "error"),
        ('{"level":60}', "fatal"),
        ('{"level":3}', "error"),
        ('{"level":200,"level_name":"INFO"}', "info"),
        ('{"levelno":30}', "warning"),
        ('{"log.level":"Critical"}', "critical"),
        ('{"log":{"level":"debug"},"message":"x"}', "debug"),
        ('{"level":"custom"}', "custom"),
        ("level=crit x=1", "critical"),
    ],
)
def test_a_level_is_one_word_for_all(line: str, level: str) -> None:
    """`level == "error"` must hold for every program that says so in its own way."""
    assert parser().fields(line)["level"] == level


def test_numbers_of_json_are_fit_for_the_store() -> None:
    """NaN, 10^400 and integers of a thousand digits are no JSON that others can read."""
    found = parser("json").fields(
        '{"a":NaN,"b":-Infinity,"c":1e400,"d":9223372036854775807,"e":9223372036854775808,"f":' + "9" * 5000 + "}"
    )

    assert (found["a"], found["b"], found["c"]) == ("NaN", "-Infinity", "inf")
    assert (found["d"], found["e"]) == (2**63 - 1, str(2**63))
    assert isinstance(found["f"], str)


def test_what_a_line_puts_into_fields_is_bounded() -> None:
    """One line of a megabyte must not become a million values."""
    wide = "{" + ",".join(f'"k{number}":{number}' for number in range(5000)) + "}"
    listed = '{"a":[' + "1," * 5000 + "1]}"
    deep = '{"a":' * 200 + "1" + "}" * 200
    deeper = "{" + '"a":[' * 100_000

    assert len(parser("json").fields(wide)) <= 257
    assert len(parser("json").fields(listed)["a"]) <= 256
    assert "…" in str(parser("json").fields(deep))
    assert parser("json").fields(deeper) == {"message": deeper}
    assert len(parser("logfmt").fields(" ".join(f"k{number}=1" for number in range(5000)))) <= 257
    assert len(parser("json").fields('{"' + "k" * 5000 + '":1}').keys() - {"message"}) == 1


def test_a_lone_surrogate_never_leaves_a_line() -> None:
    """No UTF-8 can hold it: the store would refuse the whole batch."""
    for text in (r'{"msg":"\ud800","\udfff":1}', r'level=info msg="\ud800"', "\ud800 x"):
        for key, value in parser().fields(text).items():
            f"{key}{value}".encode()


def test_named_groups_are_the_fields() -> None:
    """For what no format fits."""
    one = parser("regex", r"^\[(?P<level>\w+)\] (?P<status>\d+)(?: for (?P<user>\S+))? at (?P<time>\S+)")

    assert one.fields("[ERR] 503 at 2026-11-20T09:00:00Z") == {
        "message": "[ERR] 503 at 2026-11-20T09:00:00Z",
        "level": "error",
        "status": 503,
        "time": "2026-11-20T09:00:00Z",
        "timestamp": "2026-11-20T09:00:00Z",
    }
    assert one.fields("other") == {"message": "other"}


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (None, "needs a pattern"),
        ("x", "no named group"),
        ("(?P<a>", "cannot be used"),
        ("(?=x)(?P<a>x)", "look-around"),
    ],
)
def test_a_pattern_that_is_of_no_use_is_an_error_at_load(pattern: str | None, said: str) -> None:
    """It says what to write instead."""
    with pytest.raises(ConfigError, match=said):
        parser("regex", pattern)
