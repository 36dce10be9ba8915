"""A file tried against a watch of the journal is judged as the journal would be, or it is said what cannot be."""

from __future__ import annotations

import gzip
import json
import os
import struct
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from journald import Journald, needs_journald

from agentd.clock import SystemClock
from agentd.errors import AgentdError
from agentd.logs.journal import open_journal
from agentd.logs.journal_export import export_format
from agentd.logs.journal_file import open_journal_file
from agentd.logs.journal_text import unframed
from agentd.logs.opening import open_file
from agentd.logs.port import Occurrence, Source
from agentd.logs.settings import JournalSource, Rule

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ANY = [Rule(name="r", type="any", match="x")]


def opened(file: Path, rules: list[Rule] | None = None, **settings: Any) -> Source:
    wanted = JournalSource.model_validate(settings)
    return open_journal_file(wanted, rules or ANY, file, now=lambda: NOW, timezone="UTC")


def entries(source: Source) -> tuple[list[tuple[str, str | None, dict[str, Any]]], list[str]]:
    """Message, cursor and fields of each entry; and the notes."""
    found: list[tuple[str, str | None, dict[str, Any]]] = []
    notes: list[str] = []
    more = True
    while more:
        batch = source.read(1 << 20)
        more, notes = batch.more, notes + batch.notes
        for block in batch.blocks:
            assert block.starts is not None
            assert block.fields is not None
            ends = [*block.starts[1:], len(block.text)]
            texts = [block.text[a : b - 1].decode() for a, b in zip(block.starts, ends, strict=True)]
            cursors: Sequence[str | None] = block.cursors or [None] * len(texts)
            found += [(text, at, dict(each)) for text, at, each in zip(texts, cursors, block.fields, strict=True)]
    return found, notes


def messages(file: Path, **settings: Any) -> list[str]:
    return [text for text, _, _ in entries(opened(file, **settings))[0]]


def exported(*raws: dict[str, str | bytes]) -> bytes:
    """As journalctl -o export writes it."""
    out = b""
    for raw in raws:
        for name, value in raw.items():
            data = value.encode() if isinstance(value, str) else value
            if b"\n" in data:
                out += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
            else:
                out += name.encode() + b"=" + data + b"\n"
        out += b"\n"
    return out


def entry(n: int, message: str | bytes, **fields: str) -> dict[str, str | bytes]:
    return {
        "__CURSOR": f"c{n}",
        "__REALTIME_TIMESTAMP": str(1763629200_000000 + n),
        "MESSAGE": message,
        **fields,
    }


SSH = {"_SYSTEMD_UNIT": "ssh.service", "PRIORITY": "6"}
WEB = {"_SYSTEMD_UNIT": "nginx.service", "PRIORITY": "3"}
ENTRIES = [entry(1, "one", **SSH), entry(2, "two\nlines", **WEB), entry(3, "three", **WEB | {"PRIORITY": "6"})]


@pytest.fixture(params=["export", "json", "json.gz"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The same entries in each format."""
    path = tmp_path / f"journal.{request.param}"
    lines = "".join(json.dumps(each) + "\n" for each in ENTRIES).encode()
    path.write_bytes({"export": exported(*ENTRIES), "json": lines, "json.gz": gzip.compress(lines)}[request.param])
    return path


def test_an_export_is_chosen_from_as_the_journal_is(file: Path) -> None:
    """Else a trial answers for other entries than the daemon will see."""
    assert messages(file) == ["one", "two\nlines", "three"]
    assert messages(file, units=["ssh"]) == ["one"]
    assert messages(file, units=["ng*"], priority="err") == ["two\nlines"]
    assert messages(file, match={"PRIORITY": ["3", "6"], "_SYSTEMD_UNIT": "nginx.service"}) == ["two\nlines", "three"]


def test_the_choice_is_said(file: Path) -> None:
    """Nothing matched, or nothing was chosen: two mistakes in two places."""
    _, notes = entries(opened(file, units=["ssh"], boot="current"))

    assert notes[0] == "1 of the file's 3 entries are chosen by `units`"
    assert "which boot is the current one" in notes[1]


def test_rules_have_the_fields_of_an_export(file: Path) -> None:
    """`when` and `by` on unit and severity are what a watch of the journal is for."""
    rule = Rule(name="r", type="any", match="^two", when='severity == "err"', by=("unit",))
    work = open_file("w", JournalSource(units=("nginx",)), [rule], file, clock=SystemClock(), timezone="UTC")

    (event,) = work.take().outcome.events

    assert isinstance(event, Occurrence)
    assert event.by == {"unit": "nginx.service"}
    assert event.at == datetime(2025, 11, 20, 9, 0, 0, 2, tzinfo=UTC)
    assert event.evidence[0].place.cursor == "c2"


@needs_journald
def test_what_journalctl_writes_gives_the_entries_of_the_journal(tmp_path: Path) -> None:
    """The formats are systemd's: only its own writer can say whether they are read right."""
    journald = Journald(tmp_path / "journal")
    try:
        journald.send("plain", "caf\u00e9", b"bytes \xff", "two\nlines", "", "x" * 5000, APP="one", PRIORITY="3")
        journald.entry([("MESSAGE", "twice"), ("TAG", "a"), ("TAG", b"\xff\n"), ("APP", "two")])
        journald.sync()
        source = open_journal(
            JournalSource(start_at="start"), positions={}, now=lambda: NOW, monotonic=lambda: 0.0, path=journald.folder
        )
        expected = entries(source)[0]
        assert len(expected) >= 7
        for format in ("export", "json", "json-seq", "json-sse"):
            file = tmp_path / format
            with file.open("wb") as out:
                folder = str(next(journald.folder.iterdir()))
                command = ["journalctl", "-D", folder, "-o", format, "--all", "--no-pager"]
                subprocess.run(command, stdout=out, check=True)

            found, notes = entries(opened(file))

            assert (found, notes) == (expected, []), format
    finally:
        journald.stop()


@needs_journald
@pytest.mark.parametrize(
    "format", ["short", "short-precise", "short-iso", "short-full", "short-unix", "short-monotonic", "with-unit"]
)
def test_what_journalctl_prints_for_people_gives_the_messages(tmp_path: Path, format: str) -> None:
    """It is what people have at hand; matched as whole lines, a pattern with ^ would never find anything."""
    journald = Journald(tmp_path / "journal")
    try:
        journald.send("first: thing", "two\n  lines", SYSLOG_IDENTIFIER="app", PRIORITY="3")
        journald.sync()
        file = tmp_path / "text"
        with file.open("wb") as out:
            folder = str(next(journald.folder.iterdir()))
            command = ["journalctl", "-D", folder, "-o", format, "--no-pager", "-t", "app"]
            environment = {**os.environ, "TZ": "UTC", "LANG": "C.UTF-8"}
            subprocess.run(command, stdout=out, check=True, env=environment)
    finally:
        journald.stop()

    found, (note,) = entries(opened(file))

    assert [text for text, _, _ in found] == ["first: thing", "two\n  lines"]
    assert "journalctl -o export --all" in note
    if format != "with-unit":
        assert {fields["program"] for _, _, fields in found} == {"app"}
    assert {fields["pid"] for _, _, fields in found} == {os.getpid()}
    assert all("timestamp" in fields for _, _, fields in found) == (format != "short-monotonic")


@pytest.mark.parametrize(
    ("line", "message", "more"),
    [
        ("Nov 20 09:00:00 web sshd[7]: Failed", "Failed", {"program": "sshd", "hostname": "web", "pid": 7}),
        ("Nov 20 09:00:00 web kernel: oom: killed", "oom: killed", {"program": "kernel", "hostname": "web"}),
        ("Nov 20 09:00:00 sshd[7]: Failed", "Failed", {"program": "sshd", "pid": 7}),
        ("2026-11-20T09:00:00+0100 web a b[7]: x", "x", {"program": "a b", "hostname": "web", "pid": 7}),
        ("Fri 2026-11-20 09:00:00 CET web sshd[7]: x", "x", {"program": "sshd", "hostname": "web", "pid": 7}),
        ("Failed password: no frame here", "Failed password: no frame here", {}),
        ("", "", {}),
    ],
)
def test_the_frame_is_taken_off(line: str, message: str, more: dict[str, Any]) -> None:
    assert unframed(line) == {"message": message, **more}


def test_text_says_what_it_cannot_answer(tmp_path: Path) -> None:
    """An answer that leaves out the half of the question looks like an answer."""
    file = tmp_path / "text"
    file.write_text("-- Boot 0123456789abcdef0123456789abcdef --\nNov 20 09:00:00 web sshd[7]: Failed for eve\n")
    rules = [Rule(name="r", type="any", match="^Failed for (?P<user>.+)", when="priority < 4", by=("user", "pid"))]

    found, (note,) = entries(opened(file, rules, units=["ssh"], priority="err"))

    assert [(text, fields["timestamp"]) for text, _, fields in found] == [
        ("Failed for eve", "2026-11-20T09:00:00.000Z")
    ]
    assert "it does not tell: `units`, `priority`, the field priority." in note


def test_what_is_damaged_or_left_out_is_counted(tmp_path: Path) -> None:
    """Half an answer must not look whole."""
    cut, lines = tmp_path / "cut", tmp_path / "lines"
    cut.write_bytes(exported(*ENTRIES[:2])[:-3])
    lines.write_text(
        json.dumps(entry(1, "one")) + "\nno json\n\n[1]\n" + json.dumps(entry(2, "two") | {"BIG": None}) + "\n"
    )

    assert messages(cut) == ["one"]
    assert entries(opened(cut))[1] == ["entries that are damaged, and were passed over: 1"]
    assert messages(lines) == ["one", "two"]
    assert entries(opened(lines))[1] == [
        "entries that are damaged, and were passed over: 2",
        "long values that are not in the file: 1; write it by journalctl --all",
    ]


def test_a_hostile_export_is_read_to_its_end(tmp_path: Path) -> None:
    """Sizes are claims, and a line may never end."""
    huge = tmp_path / "huge"
    huge.write_bytes(b"__CURSOR=a\nMESSAGE\n" + struct.pack("<Q", 2**63) + b"x" * 1000)
    long = tmp_path / "long"
    long.write_bytes(b"__CURSOR=a\nMESSAGE=" + b"x" * 300_000 + b"\n\n__CURSOR=b\nMESSAGE=next\n")

    assert messages(huge) == []
    assert [len(text) for text in messages(long)] == [64 * 1024, 4]


def test_what_is_no_export_is_text(tmp_path: Path) -> None:
    """Logs of JSON are common, and no export for that."""
    for name, text in {"a": '{"level": "error"}\n', "b": "", "c": "{broken\n", "d": "x=y\n"}.items():
        (tmp_path / name).write_text(text)
        assert export_format(tmp_path / name) is None


def test_a_file_that_cannot_be_tried_says_why(tmp_path: Path) -> None:
    (tmp_path / "pretty").write_text('{\n  "__CURSOR": "a"\n}\n')
    os.mkfifo(tmp_path / "pipe")
    for name, why in {
        "gone": "No such file",
        "pipe": "no regular file",
        ".": "no regular file",
        "pretty": "-o json",
    }.items():
        with pytest.raises(AgentdError, match=why):
            opened(tmp_path / name)
