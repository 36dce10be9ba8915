"""`agentd test WATCH --log FILE` and `agentd logs templates`, as a person types them."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from agentd.cli import cli
from agentd.deliver.payload import payload_schema
from agentd.errors import AgentdError
from agentd.memory import templates
from agentd.memory.store import Store
from agentd.memory.templates import TemplateRow

AT = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
SSH: dict[str, Any] = {
    "name": "ssh",
    "log": {"files": ["/var/log/auth.log"], "format": "syslog"},
    "notify": ["ops"],
    "rules": [
        {
            "name": "bruteforce",
            "type": "frequency",
            "match": r"Failed password for .* from (?P<ip>\S+)",
            "count": 5,
            "within": "10m",
            "by": ["ip"],
            "resolve_after": "15m",
            "severity": "critical",
        }
    ],
}


def failed(minute: int, ip: str = "192.0.2.1") -> str:
    return f"Nov 20 09:{minute:02}:00 web-1 sshd[7]: Failed password for root from {ip} port 4242 ssh2\n"


def fine(minute: int) -> str:
    return f"Nov 20 {9 + minute // 60:02}:{minute % 60:02}:30 web-1 sshd[7]: Accepted publickey for eve\n"


Try = Callable[..., Result]


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Try:
    """`agentd(...)` with a configuration of the watch `ssh` in tmp_path."""
    monkeypatch.setattr("agentd.secret._on_read", None)
    monkeypatch.setattr("agentd.secret._environment", os.environ)
    whole = {
        "daemon": {"state_dir": str(tmp_path / "s"), "instance": "web-1"},
        "webhooks": {"ops": {"url": "http://127.0.0.1:9/"}},
        "watches": [SSH, {"name": "web", "every": "1m", "http": {"url": "http://127.0.0.1:9/"}}],
    }
    (tmp_path / "agentd.yaml").write_text(yaml.safe_dump(whole))
    monkeypatch.setenv("AGENTD_CONFIG", str(tmp_path / "agentd.yaml"))

    def run(*words: object) -> Result:
        return CliRunner().invoke(cli, [str(word) for word in words])

    return run


def test_a_file_tells_what_would_have_happened_in_its_own_time(agentd: Try, tmp_path: Path) -> None:
    """A rule is trusted when it was seen to fire, and to be quiet, on a log that people know."""
    log = tmp_path / "auth.log"
    log.write_text("".join([failed(n) for n in range(6)] + [fine(n) for n in range(7, 61)]))

    said = agentd("test", "ssh", "--log", log, "--json")

    assert said.exit_code == 3
    report = json.loads(said.stdout)
    assert [(event["at"], event["state"], event["by"]) for event in report["timeline"]] == [
        ("2026-11-20T09:04:00.000Z", "firing", {"ip": "192.0.2.1"}),
        ("2026-11-20T09:20:00.000Z", "resolved", {"ip": "192.0.2.1"}),
    ]
    assert (report["lines"], report["matched"], report["still_firing"]) == (60, 6, [])
    validator = jsonschema.Draft202012Validator(payload_schema())
    assert [payload["type"] for payload in report["payloads"]] == ["alert.firing", "alert.resolved"]
    for payload in report["payloads"]:
        validator.validate(payload)


def test_nothing_is_kept_or_sent(agentd: Try, tmp_path: Path) -> None:
    """A trial in front of the real thing must leave it as it is."""
    log = tmp_path / "auth.log"
    log.write_text("".join(failed(n) for n in range(6)))

    agentd("test", "ssh", "--log", log)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["agentd.yaml", "auth.log"]


def test_a_log_in_which_nothing_fires_is_well(agentd: Try, tmp_path: Path) -> None:
    """Scripts ask by the exit code."""
    log = tmp_path / "auth.log"
    log.write_text("".join(failed(n) for n in range(4)))

    said = agentd("test", "ssh", "--log", log)

    assert said.exit_code == 0
    assert "no rule would have fired" in said.stdout


def test_what_no_rule_matched_is_shown_when_asked_for(agentd: Try, tmp_path: Path) -> None:
    """The line that should have matched is found among those that did not."""
    log = tmp_path / "auth.log"
    log.write_text(failed(1) + fine(2) + failed(3) + "Nov 20 09:04:00 web-1 sshd[7]: failed password for root\n")

    said = agentd("test", "ssh", "--log", log, "--missed")

    assert "matched by no rule: 2 lines" in said.stdout
    assert "failed password for root" in said.stdout


def test_a_packed_file_is_unpacked(agentd: Try, tmp_path: Path) -> None:
    """Last week's log lies there as logrotate left it."""
    log = tmp_path / "auth.log.2.gz"
    log.write_bytes(gzip.compress("".join(failed(n) for n in range(6)).encode()))

    assert json.loads(agentd("test", "ssh", "--log", log, "--json").stdout)["rules"][0]["lines"] == 6


def test_hostile_lines_do_not_paint_the_terminal(agentd: Try, tmp_path: Path) -> None:
    """Whoever can write a log line must not move the cursor of the person who reads it."""
    log = tmp_path / "auth.log"
    log.write_text("".join(failed(n, "\x1b[2J\x9b31m") for n in range(6)))

    said = agentd("test", "ssh", "--log", log, "--missed")

    assert "\x1b[2J" not in said.stdout
    assert "\x9b" not in said.stdout


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("test", "ssh", "--log", "/nowhere/at/all.log"), "all.log"),
        (("test", "ssh"), "--log FILE"),
        (("test", "web", "--log", "/etc/hostname"), "follows no log"),
        (("test", "shh", "--log", "/etc/hostname"), "no watch"),
    ],
    ids=["no file", "no option", "a probe", "misspelt"],
)
def test_what_cannot_be_tried_says_why(agentd: Try, words: tuple[str, ...], why: str) -> None:
    """An error has to say what to type instead."""
    said = agentd(*words)

    assert isinstance(said.exception, AgentdError)
    assert why in str(said.exception)


def test_templates_are_shown_without_a_daemon_too(agentd: Try, tmp_path: Path) -> None:
    """What a log consisted of before it all went down is what one wants to know then."""

    async def keep() -> None:
        store = await Store.open(tmp_path / "s")
        row = TemplateRow("ssh", "t1", "Accepted publickey for <*>", 12, AT, AT, ((AT, "Accepted publickey for eve"),))
        await store.history.write(lambda c: templates.save(c, [row]))
        await store.close()

    asyncio.run(keep())

    said = agentd("logs", "templates", "ssh", "--output", "json")

    (row,) = json.loads(said.stdout)["templates"]
    assert (row["template"], row["count"], row["samples"]) == (
        "Accepted publickey for <*>",
        12,
        ["Accepted publickey for eve"],
    )
    assert "Accepted publickey for <*>" in agentd("logs", "templates", "ssh").stdout


def test_the_kinds_of_lines_in_any_file_are_shown(agentd: Try, tmp_path: Path) -> None:
    """What is in this file? is the first question, long before there is a watch for it."""
    log = tmp_path / "auth.log"
    log.write_text("".join([failed(n) for n in range(6)] + [fine(n) for n in range(7, 61)] + ["\n"]))

    said = json.loads(agentd("logs", "templates", "--log", log, "--output", "json").stdout)
    ids = agentd("logs", "templates", "--log", log, "--each").stdout.split()

    assert [row["count"] for row in said["templates"]] == [54, 6]
    assert said["lines"] == len(ids) == 61
    rare, frequent = ids[0], ids[6]
    assert ids == [rare] * 6 + [frequent] * 54 + ["-"]
    assert agentd("logs", "templates").exit_code == 2


def test_a_configuration_of_logs_alone_is_counted(agentd: Try, tmp_path: Path) -> None:
    """Who reads that nothing is watched looks for a mistake that is not there."""
    config = tmp_path / "agentd.yaml"
    whole = yaml.safe_load(config.read_text())
    whole["watches"] = [SSH]
    config.write_text(yaml.safe_dump(whole))

    said = agentd("check")

    assert said.exit_code == 0
    assert "1 watch and 1 webhook, ready to run" in said.stderr


def test_a_file_against_a_watch_of_the_journal_says_what_it_cannot_answer(agentd: Try, tmp_path: Path) -> None:
    """The lines that people have at hand are not what the daemon reads: a number without that word is a wrong one."""
    config, log = tmp_path / "agentd.yaml", tmp_path / "auth.log"
    whole = yaml.safe_load(config.read_text())
    rule = {"name": "failed", "type": "any", "match": "^Failed password", "by": ["unit"]}
    whole["watches"] = [{"name": "ssh", "journal": {"units": ["ssh"]}, "rules": [rule]}]
    config.write_text(yaml.safe_dump(whole))
    log.write_text(failed(1) + fine(2))

    said = agentd("test", "ssh", "--log", log)

    assert said.exit_code == 3
    assert "failed: 1 line, 1 alert" in said.stdout
    assert "does not tell: `units`, the field unit" in said.stdout


def test_samples_hold_no_secrets(agentd: Try, tmp_path: Path) -> None:
    """A trial is pasted into a ticket."""
    log = tmp_path / "auth.log"
    log.write_text("Nov 20 09:00:00 web-1 app[7]: login password=hunter2\n" + failed(1).replace("root", "pwd=hunter2"))

    said = agentd("test", "ssh", "--log", log, "--missed")

    assert "hunter2" not in said.stdout
    assert said.stdout.count("=***") == 2
