"""Passwords of other people in their logs: what leaves the log path has none of them."""

from __future__ import annotations

from pathlib import Path

from agentd.clock import SystemClock
from agentd.logs.opening import open_file
from agentd.logs.port import Ended, Occurrence
from agentd.logs.settings import LogSource, Rule

TOKENS = ("ghp_abcdefghijklmnopqrstuvwxyz01", "ghp_abcdefghijklmnopqrstuvwxyz02")


def events(tmp_path: Path, rule: Rule, *lines: str) -> list[Occurrence | Ended]:
    """What the rule makes of a log of these lines."""
    file = tmp_path / "app.log"
    file.write_text("".join(f"{line}\n" for line in lines))
    work = open_file("w", LogSource(files=(str(file),)), [rule], file, clock=SystemClock(), timezone="UTC")
    found = []
    more = True
    while more:
        taken = work.take()
        found += taken.outcome.events
        more = taken.batch.more
    return found


def test_no_part_of_an_occurrence_shows_a_secret(tmp_path: Path) -> None:
    """The line is evidence, its groups are values, its message is the summary: each goes out by itself."""
    rule = Rule(name="r", type="any", match=r"login (?P<what>\S+) password=(?P<password>\S+)")

    (event,) = events(tmp_path, rule, "2026-11-20 09:00:00 ERROR login eve password=hunter2 failed")

    assert isinstance(event, Occurrence)
    assert "hunter2" not in repr(event)
    assert event.evidence[0].line.endswith("login eve password=*** failed")
    assert event.values["what"] == "eve"


def test_secrets_in_by_still_tell_alerts_apart(tmp_path: Path) -> None:
    """`by` is an alert's identity: two keys that both became stars would be one alert."""
    rule = Rule(name="r", type="any", match=r"refused (?P<key>\S+)", by=("key",))
    lines = [f"2026-11-20 09:00:0{n} ERROR refused {TOKENS[n % 2]}" for n in range(4)]

    found = events(tmp_path, rule, *lines)

    assert len({event.by["key"] for event in found}) == 2
    assert not any(token in repr(found) for token in TOKENS)


def test_names_that_hold_no_secret_stay_as_they_are(tmp_path: Path) -> None:
    """Silences and templates are written against them."""
    rule = Rule(name="r", type="any", match=r"from (?P<ip>\S+)", by=("ip",))

    (event,) = events(
        tmp_path, rule, "Nov 20 09:00:00 web sshd[7]: Failed password for root from 192.0.2.1 port 4 ssh2"
    )

    assert event.by == {"ip": "192.0.2.1"}
    assert "Failed password for root from 192.0.2.1" in repr(event)
