"""query_journal reads the journal through a child that is bounded, and believes nothing that it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from journald import Journald, needs_journald
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import ToolContext
from agentd.agent.tools.query_journal import QueryJournal
from agentd.fleet.messages import ErrorKind
from agentd.testing import FakeClock


def reading(*, journal: bool = True, **limits: Any) -> ToolContext:
    return context(Permissions(journal=journal), **limits)


def saying(folder: Path, *entries: Any, also: str = "") -> QueryJournal:
    """A journalctl of the test: writes its arguments to `argv`, then these entries."""
    out = folder / "out"
    out.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in entries))
    program = folder / "journalctl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/argv\ncat {out}\n{also}\n')
    program.chmod(0o755)
    return QueryJournal(str(program))


def entry(message: Any, **fields: Any) -> dict[str, Any]:
    return {"MESSAGE": message, "__REALTIME_TIMESTAMP": "1767614400000000", "PRIORITY": "3", **fields}


async def test_entries_are_shown(tmp_path: Path) -> None:
    tool = saying(tmp_path, entry("boom", _SYSTEMD_UNIT="a.service", SYSLOG_IDENTIFIER="a", _PID="12", _HOSTNAME="web"))

    answer = await call(tool, reading())

    assert answer["entries"] == [
        {
            "message": "boom",
            "at": "2026-01-05T12:00:00.000Z",
            "unit": "a.service",
            "program": "a",
            "pid": "12",
            "host": "web",
            "priority": "err",
        }
    ]


async def test_what_is_asked_reaches_journalctl(tmp_path: Path) -> None:
    tool = saying(tmp_path)

    await call(
        tool,
        reading(clock=FakeClock()),
        unit="nginx.service",
        priority="warning",
        since="2h",
        until="2026-01-05T11:30:00+01:00",
        limit=7,
    )

    argv = (tmp_path / "argv").read_text().splitlines()
    assert {"--unit=nginx.service", "--priority=warning", "--reverse", "--lines=8", "--output=json"} <= set(argv)
    assert "--since=2026-01-05 10:00:00 UTC" in argv
    assert "--until=2026-01-05 10:30:00 UTC" in argv


@pytest.mark.parametrize("unit", ["-fa", "--file=/etc/shadow", "a b", "a\n", "a;b", "/x", "$(id)"])
async def test_a_unit_is_no_way_to_another_option(tmp_path: Path, unit: str) -> None:
    await failing(saying(tmp_path), reading(), ErrorKind.INVALID_INPUT, unit=unit)
    assert not (tmp_path / "argv").exists()


async def test_the_journal_can_be_closed(tmp_path: Path) -> None:
    await failing(saying(tmp_path), reading(journal=False), ErrorKind.DENIED)


async def test_grep_is_linear_and_ours(tmp_path: Path) -> None:
    """The pattern is the model's: RE2 here, not what journalctl was built with."""
    tool = saying(tmp_path, entry("a" * 3000 + "!"), entry("code=503"), entry("fine"))

    assert [each["message"] for each in (await call(tool, reading(), grep=r"code=5\d\d"))["entries"]] == ["code=503"]
    assert (await call(tool, reading(), grep="(a+)+$"))["entries"] == []
    assert not any("grep" in word for word in (tmp_path / "argv").read_text().splitlines())
    await failing(tool, reading(), ErrorKind.INVALID_INPUT, grep="(?=x)")


async def test_a_limit_is_marked(tmp_path: Path) -> None:
    tool = saying(tmp_path, *(entry(f"{number}") for number in range(5)))

    answer = await call(tool, reading(), limit=3)

    assert [each["message"] for each in answer["entries"]] == ["0", "1", "2"]
    assert answer["truncated"] is True


async def test_strange_entries_do_no_harm(tmp_path: Path) -> None:
    """Bytes as numbers, several values, none, no JSON, deep JSON, hostile text."""
    tool = saying(
        tmp_path,
        entry([104, 105, 255]),
        entry(["one", "two"]),
        entry(None),
        "no json",
        "[" * 100_000,
        "[1]",
        {"PRIORITY": "99", "__REALTIME_TIMESTAMP": "never"},
        entry("x\x1b[2J\n\u202ey", PRIORITY=["1"], _PID={"a": 1}),
    )

    messages = [each["message"] for each in (await call(tool, reading()))["entries"]]

    assert messages == ["hi\ufffd", "one two", "(too long to be shown)", "", "x\ufffd[2J\n\ufffdy"]


async def test_what_is_given_back_is_bounded(tmp_path: Path) -> None:
    tool = saying(tmp_path, *(entry("z" * 5000) for _ in range(200)))

    answer = await call(tool, reading(max_output=20_000), limit=200)

    assert len(json.dumps(answer)) < 20_000
    assert answer["truncated"] is True


async def test_closed_journals_are_said(tmp_path: Path) -> None:
    """Nothing found and nothing allowed are two things."""
    tool = saying(tmp_path, also="echo 'Hint: You are currently not seeing messages from other users' >&2")

    assert "may not be read" in (await call(tool, reading()))["note"]


async def test_failing_is_said(tmp_path: Path) -> None:
    tool = saying(tmp_path, also="echo 'Failed to open it' >&2; exit 1")

    assert "Failed to open it" in await failing(tool, reading(), ErrorKind.TOOL_ERROR)
    assert "not installed" in await failing(QueryJournal("no-such-program"), reading(), ErrorKind.TOOL_ERROR)


async def test_a_hung_journalctl_gives_what_it_had(tmp_path: Path) -> None:
    tool = saying(tmp_path, entry("one"), also="sleep 1000")

    answer = await call(tool, reading(timeout_s=0.5))

    assert [each["message"] for each in answer["entries"]] == ["one"]
    assert answer["truncated"] is True


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    running = Journald(tmp_path / "journal")
    yield running
    running.stop()


@needs_journald
async def test_a_real_journal(journald: Journald) -> None:
    """By the real journalctl, from the files of a real journald."""
    journald.send("first message", PRIORITY="6")
    journald.send("second message", PRIORITY="3")
    journald.sync()
    tool = QueryJournal(folder=str(next(journald.folder.iterdir())))

    every = await call(tool, reading(), grep="message")
    errors = await call(tool, reading(), priority="err", grep="message", since="5m")

    assert [each["message"] for each in every["entries"]] == ["second message", "first message"]
    assert [each["message"] for each in errors["entries"]] == ["second message"]
