"""Where the log goes: each place for real, in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentd.errors import ConfigError
from agentd.telemetry import logging as module
from agentd.telemetry.logging import close_logging, dropped, open_logging

STORY = """
import logging, sys, warnings
from agentd.telemetry.logging import open_logging
open_logging("info", sys.argv[1])
log = logging.getLogger("agentd.test")
log.debug("unseen")
log.warning("check_failed", extra={"watch": "shop"})
warnings.warn("old habit", stacklevel=1)
"""
WITHOUT_SYSTEMD = "import sys; sys.modules['systemd'] = None\n"


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    level, raises = root.level, logging.raiseExceptions
    yield
    close_logging()
    root.setLevel(level)
    logging.raiseExceptions = raises
    logging.captureWarnings(False)


def told(format: str, story: str = STORY) -> list[str]:
    """The lines that a process writes to a stderr that is a pipe."""
    done = subprocess.run(
        [sys.executable, "-c", story, format],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"},
    )
    return done.stderr.splitlines()


def test_into_a_pipe_go_json_lines_warnings_included() -> None:
    """A container's log driver reads lines; everything waiting is written before the process ends."""
    failed, warning = (json.loads(line) for line in told("auto"))

    assert (failed["event"], failed["watch"], failed["level"]) == ("check_failed", "shop", "warning")
    assert warning["logger"] == "py.warnings"
    assert "old habit" in warning["message"]


def test_console_is_plain_where_there_is_no_terminal() -> None:
    """Colours in a file are noise."""
    [failed, *_] = told("console")

    assert failed.endswith("WARN  check_failed watch=shop")
    assert "\x1b" not in failed


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_lines_for_people(no_colour: str, coloured: bool) -> None:
    """And colours, unless NO_COLOR says otherwise."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": no_colour}
    subprocess.run([sys.executable, "-c", STORY, "auto"], stderr=theirs, env=environment, check=True)
    assert select.select([ours], [], [], 20)[0]
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    os.close(theirs)

    assert "check_failed watch=shop" in shown
    assert ("\x1b[" in shown) is coloured


def in_the_journal(story: str, format: str = "auto") -> list[str]:
    """The same with a stderr that $JOURNAL_STREAM names."""
    read, write = os.pipe()
    status = os.fstat(write)
    environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    subprocess.run([sys.executable, "-c", story, format], stderr=write, env=environment, check=True)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pipe.read().splitlines()


def test_without_systemd_python_the_journal_gets_levels_by_prefix() -> None:
    """Priorities must be right even then; sd-daemon(3)."""
    failed, _ = in_the_journal(WITHOUT_SYSTEMD + STORY)

    assert failed.startswith("<4>{")
    assert json.loads(failed.removeprefix("<4>"))["watch"] == "shop"


def test_a_journal_that_was_asked_for_and_cannot_be_had_is_said() -> None:
    """The operator wanted fields, and should know why there are none."""
    [said, failed, *_] = told("journal", WITHOUT_SYSTEMD + STORY)

    assert json.loads(said)["event"] == "log_format_unavailable"
    assert json.loads(failed)["event"] == "check_failed"


def test_the_journal_is_sent_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not text on stderr."""
    sent: list[dict[str, object]] = []
    monkeypatch.setattr(
        module, "_journal_send", lambda: lambda message, **fields: sent.append({"M": message, **fields})
    )
    open_logging("info", "journal")

    logging.getLogger("agentd.test").error("check_failed", extra={"watch": "shop"})
    close_logging()

    assert sent[0]["M"] == "check_failed watch=shop"
    assert sent[0]["AGENTD_WATCH"] == "shop"
    assert sent[0]["PRIORITY"] == "3"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a mount namespace")
def test_a_journal_socket_receives_the_entry() -> None:
    """From the log call through systemd-python and libsystemd onto journald's own socket path."""
    pytest.importorskip("systemd.journal", exc_type=ImportError)
    story = """
import socket
listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
listener.bind("/run/systemd/journal/socket")
listener.settimeout(20)
""" + STORY.replace("sys.argv[1]", '"journal"')
    story += "sys.stdout.buffer.write(listener.recv(65536))\n"
    mount = 'mkdir -p /run/systemd/journal && mount -t tmpfs none /run/systemd/journal && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", mount, "-", sys.executable, "-c", story]

    entry = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout.decode().split("\n")

    assert {"MESSAGE=check_failed watch=shop", "AGENTD_EVENT=check_failed", "AGENTD_WATCH=shop", "PRIORITY=4"} <= {
        *entry
    }


def test_a_record_carries_the_span_it_was_written_in(capfd: pytest.CaptureFixture[str]) -> None:
    """The thread that writes it is in no span at all."""
    open_logging("info", "json")
    with TracerProvider(shutdown_on_exit=False).get_tracer("x").start_as_current_span("check") as span:
        logging.getLogger("agentd.test").warning("check_failed")
    close_logging()

    shown = json.loads(capfd.readouterr().err)
    assert shown["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert shown["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_a_stuck_reader_costs_lines_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pipe or a hung journald must not stop the checks; what was lost is said afterwards."""
    stuck = threading.Event()
    seen: list[logging.LogRecord] = []

    def write(record: logging.LogRecord) -> None:
        stuck.wait(20)
        seen.append(record)

    monkeypatch.setattr(module, "_choose", lambda format: (write, ""))
    open_logging("info", "json")
    log = logging.getLogger("agentd.test")
    for _ in range(10_000):
        log.info("event")
    lost = dropped()
    stuck.set()
    close_logging(timeout_s=20)

    assert lost == 10_000 - sum(record.getMessage() == "event" for record in seen)
    assert lost > 5000
    told = [record for record in seen if record.getMessage() == "log_dropped"]
    assert sum(record.__dict__["records"] for record in told) == lost


def test_a_closed_stderr_is_survived() -> None:
    """A daemon whose terminal went away lives on."""
    story = "import os\n" + STORY + "os.close(2)\nlog.error('lost')\nprint('alive')\n"

    done = subprocess.run([sys.executable, "-c", story, "json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    assert (done.returncode, done.stdout.strip()) == (0, b"alive")


def test_opened_again_it_changes_level_and_place(capfd: pytest.CaptureFixture[str]) -> None:
    """A reload may change both, and must not write each line twice."""
    log = logging.getLogger("agentd.test")
    open_logging("warning", "json")
    log.info("unseen")
    open_logging("debug", "console")
    log.debug("seen")
    close_logging()

    assert [line.split()[1:] for line in capfd.readouterr().err.splitlines()] == [["DEBUG", "seen"]]


def test_an_unknown_level_is_refused() -> None:
    """With the words that would do."""
    with pytest.raises(ConfigError, match="debug, info, warning"):
        open_logging("loud", "json")


def test_a_line_is_whole_though_the_pipe_is_small(tmp_path: Path) -> None:
    """Non-blocking and small pipes split writes; lines must not be torn."""
    story = STORY.replace('"watch": "shop"', '"watch": "x" * 1900') + (
        "for n in range(500): log.error('event', extra={'n': n, 'pad': 'y' * 1900})\n"
    )
    read, write = os.pipe()
    os.set_blocking(write, False)
    process = subprocess.Popen([sys.executable, "-c", story, "json"], stderr=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        lines = [json.loads(line) for line in pipe]

    assert process.wait(20) == 0
    assert [line["n"] for line in lines if line.get("event") == "event"] == list(range(500))
