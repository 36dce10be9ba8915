"""How a log record looks, whatever stands in it."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.telemetry.lines import console_line, journal_fields, json_line, priority

HOSTILE = "x\n<0>forged\x1b[31m \u202etxt.exe\x00\x9b\ud800 end"


def record(
    message: str, level: int = logging.WARNING, name: str = "agentd.deliver", *args: Any, **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "/x/courier.py", 12, message, args, None, "drain")
    made.__dict__.update(extra)
    return made


def failing() -> logging.LogRecord:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        made = record("courier_failed")
        made.exc_info = sys.exc_info()
        return made


def test_an_event_reads_as_name_and_fields() -> None:
    """People read the journal more often than programs do."""
    fields = journal_fields(record("delivery_delayed", alert="shop", retry_in_s=30, why="got 503 twice"))

    assert fields["MESSAGE"] == 'delivery_delayed alert=shop retry_in_s=30 why="got 503 twice"'


def test_the_journal_gets_every_field_by_its_own_name() -> None:
    """`journalctl AGENTD_WATCH=shop` is how an operator asks."""
    fields = journal_fields(record("check_failed", watch="shop", retryIn=1.5, trace_id="ab" * 16, tags=["a", 1]))

    assert fields["AGENTD_EVENT"] == "check_failed"
    assert fields["AGENTD_WATCH"] == "shop"
    assert fields["AGENTD_RETRYIN"] == "1.5"
    assert fields["AGENTD_TRACE_ID"] == "ab" * 16
    assert fields["AGENTD_TAGS"] == '["a", 1]'
    assert (fields["PRIORITY"], fields["SYSLOG_IDENTIFIER"], fields["LOGGER"]) == ("4", "agentd", "agentd.deliver")
    assert (fields["CODE_FILE"], fields["CODE_LINE"], fields["CODE_FUNC"]) == ("/x/courier.py", 12, "drain")


@given(name=st.text(max_size=100), value=st.text(max_size=100))
def test_every_journal_field_has_a_name_that_journald_takes(name: str, value: str) -> None:
    """journald drops others without a word (systemd.journal-fields(7))."""
    made = record("event")
    made.__dict__[f"_{name}"] = value
    for key, content in journal_fields(made).items():
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", key)
        str(content).encode()


def test_a_library_s_words_are_a_message_and_no_event() -> None:
    """An alert on AGENTD_EVENT must not depend on what uvicorn says today."""
    fields = journal_fields(record("Started server process [%d]", logging.INFO, "uvicorn.error", 42))

    assert fields["MESSAGE"] == "Started server process [42]"
    assert "AGENTD_EVENT" not in fields


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (25, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
        (99, 2),
    ],
)
def test_levels_become_syslog_priorities(level: int, number: int) -> None:
    """`journalctl -p err` must show errors, and only those."""
    assert priority(level) == number


def test_untrusted_text_stays_within_its_field() -> None:
    """A log line that a stranger wrote must not forge a line, colour a terminal or end in blob data."""
    hostile = record("line_seen", line=HOSTILE)

    for shown in (console_line(hostile, colour=False), json_line(hostile), str(journal_fields(hostile)["MESSAGE"])):
        assert not re.search("[\x00-\x1f\x7f-\x9f\u202e\ud800]", shown)
        shown.encode()


def test_untrusted_text_survives_json() -> None:
    """What was escaped must be there again when read."""
    assert json.loads(json_line(record("line_seen", line="a\n\u202eb\x9b")))["line"] == "a\n\u202eb\x9b"


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    """It is read by people; the exception's text is still a stranger's."""
    message = str(journal_fields(failing())["MESSAGE"])
    console = console_line(failing(), colour=False)

    for shown in (message, console):
        assert "Traceback" in shown
        assert "\x1b" not in shown
        assert "\x00" not in shown
        assert not any(line.startswith("<0>") for line in console.split("\n"))
    assert json.loads(json_line(failing()))["exception"].startswith("Traceback")


def test_json_says_when_what_and_who() -> None:
    """The names are an interface: log shippers are set up by them."""
    made = record(
        "check_failed", watch="shop", level_="x", at=datetime(2026, 1, 5, tzinfo=UTC), took=timedelta(seconds=2)
    )
    made.created = 1767614400.5

    assert json.loads(json_line(made)) == {
        "ts": "2026-01-05T12:00:00.500Z",
        "level": "warning",
        "logger": "agentd.deliver",
        "event": "check_failed",
        "watch": "shop",
        "level_": "x",
        "at": "2026-01-05T00:00:00.000Z",
        "took": 2.0,
    }


def test_a_field_cannot_replace_what_we_say_ourselves() -> None:
    """Labels of a watch may be named anything."""
    made = record("check_failed", ts="never")
    made.__dict__["level"] = "fine"

    shown = json.loads(json_line(made))

    assert shown["level"] == "warning"
    assert shown["field_level"] == "fine"
    assert shown["field_ts"] == "never"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1: {2: b"\xff"}}, {"a", "b"}, [[[[[[1]]]]]]])
def test_any_value_can_be_shown(value: Any) -> None:
    """A log call must not fail for what it was given."""
    made = record("event", value=value)

    json.loads(json_line(made), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    console_line(made, colour=True)
    journal_fields(made)


def test_long_values_are_cut() -> None:
    """A response body must not become the log."""
    assert len(json_line(record("event", body="x" * 1_000_000))) < 3000


def test_secrets_are_starred_in_every_place() -> None:
    """A header in a field, a key in a message, a field that is named like one."""
    made = record(
        "sent Authorization: Bearer abc123def456",
        logging.INFO,
        headers={"authorization": "opaque-value", "accept": "*/*"},
        url="https://me:hunter22@example.com/",
        token="opaque-value",
    )

    for shown in (console_line(made, colour=False), json_line(made), str(journal_fields(made))):
        assert "abc123def456" not in shown
        assert "opaque-value" not in shown
        assert "hunter22" not in shown
        assert "example.com" in shown


def test_a_wrong_format_string_costs_no_message() -> None:
    """Libraries have defects too."""
    assert json.loads(json_line(record("%d items", logging.INFO, "lib", "many")))["message"] == "%d items"
