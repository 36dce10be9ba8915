"""Hostile lines: nothing raises, nothing hangs, and what comes out can be stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.logs.parse import make_parser
from agentd.logs.port import Parser
from agentd.logs.settings import LogFormat, LogSource

KINDS: list[LogFormat] = ["auto", "plain", "syslog", "json", "logfmt", "common", "combined", "regex"]
WRITTEN = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)


def parser(kind: LogFormat) -> Parser:
    pattern = r"(?P<level>\S+) (?P<pid>\S*) ?(?P<time>.*)" if kind == "regex" else None
    return make_parser(LogSource(files=("/var/log/x",), format=kind, pattern=pattern), timezone="Europe/Berlin")


PARSERS = {kind: parser(kind) for kind in KINDS}
# fmt: off
PIECES = st.sampled_from([
    "<34>", "1 ", "Nov  5 09:00:01 ", "2026-11-05T09:00:01.5+01:00 ", "host ", "prog[1]: ", "- ", "[a@1 b=", '"', "\\",
    "{", "}", '"time":', '"msg":"', "1e999", "NaN", ",", ":", "[", "]", "level=", "msg=", "=", " ", "\t", "\n", "\x00",
    '10.0.0.1 - - [20/Nov/2026:10:00:00 +0100] "', "GET / HTTP/1.1", '" 200 - ', "stdout F ", "@cee: ", "\ud800",
    "99999999999999999999999", "-1", "٣٣٣٣٣٣٣٣٣٣", "I1120 09:00:00.1 1 x.go:1] ", "WARN ", "\\ud800", "é", "\U0001f600",
])
REPEATED = [
    "a", " ", "[", '"', "\\", "{", '{"a":', "a=", 'a="', 'a="\\', "a=b ", ":", "<1>", "1", "- ", "\x00", "é", "=", "0.",
    "Nov ", "Nov  5 09:00:01 ", "a b ", '[a b="c"]', ' b="c"', "/", ".", "a:1 ", "\ud800", '"time":', "a ", "x: ",
]
STARTS = [
    "", "<34>1 2026-11-05T09:00:01Z h p 1 - ", 'h - - [20/Nov/2026:10:00:00 +0100] "', '{"a":"', 'a="', "a=b ",
]
# fmt: on
HOSTILE = st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join)
DEEP = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


def holds(kind: LogFormat, text: str) -> None:
    one = PARSERS[kind]
    fields = one.fields(text)
    assert isinstance(fields["message"], str)
    assert "level" not in fields or isinstance(fields["level"], str)
    json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()
    for given_fields in (None, fields):
        moment = one.time(text, given_fields, WRITTEN)
        assert moment is None or moment.tzinfo is UTC


@pytest.mark.parametrize("kind", KINDS)
@given(HOSTILE)
@settings(deadline=None, max_examples=200)
def test_no_line_makes_a_parser_raise(kind: LogFormat, text: str) -> None:
    """One thread reads every log: what ends it, ends all watching."""
    holds(kind, text)


@given(
    st.dictionaries(st.text(max_size=6) | st.sampled_from(["time", "level", "msg", "log", "stream"]), DEEP, max_size=6)
)
@settings(deadline=None)
def test_any_object_is_taken(found: dict[str, object]) -> None:
    """Whatever a program puts under the names that mean something to us."""
    for kind in ("json", "auto"):
        holds(kind, json.dumps(found))


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_of_a_megabyte_does_not_hang(kind: LogFormat) -> None:
    """What takes quadratic time takes an hour here, and the test's own limit ends it."""
    size = 100_000 if kind == "regex" else 1_000_000  # RE2 with groups: 30 ms a megabyte
    for piece in REPEATED:
        for start in STARTS:
            holds(kind, start + piece * (size // len(piece)))
