"""
Where the log goes, and how it gets there without holding anybody up.

In: records of every logger of the process, warnings included. Out: journald with structured fields, lines for people on
a terminal, or JSON lines; `lines.py` says how each looks.
Promise: logging never blocks the loop and never raises. A record is put on a bounded queue with the ids of the span it
was written in; a thread writes it. While a pipe is full or journald hangs, what does not fit is counted, and the count
is logged when it moves again. At exit the queue is flushed, for at most two seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Any, Literal

from opentelemetry.trace import get_current_span

from agentd.errors import ConfigError
from agentd.telemetry.lines import console_line, journal_fields, json_line, priority

Format = Literal["auto", "journal", "console", "json"]
Write = Callable[[logging.LogRecord], None]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
# They tell of every request and every job; 500 checks a second need no 500 lines.
_CHATTY = ("apscheduler", "httpcore", "httpx", "urllib3", "uvicorn.access", "hpack")
_MOST_QUEUED = 4096
_FLUSH_S = 2.0

_log = logging.getLogger("agentd.telemetry")
_current: _Outlet | None = None
_level_before: int | None = None


def open_logging(level: str, format: Format) -> None:
    """
    Send all logging of this process where it belongs; called again, it changes level and place.

    level: debug, info, warning, error, critical; anything else is a ConfigError.
    format: `auto` is journald where stderr is the journal, else lines for people on a terminal, else JSON lines.
    Without systemd-python the journal gets JSON lines with sd-daemon's `<priority>` before each.
    """
    global _current, _level_before
    number = _LEVELS.get(level.lower())
    if number is None:
        raise ConfigError(f"log level {level!r} is unknown; write one of {', '.join(_LEVELS)}")
    write, lacking = _choose(format)
    before, _current = _current, _Outlet(write)
    root = logging.getLogger()
    root.addHandler(_current.handler)
    if before is not None:
        # Not waited for: this may be a reload, on the loop, because the old place is stuck.
        root.removeHandler(before.handler)
        before.close(timeout_s=0)
    else:
        _level_before = root.level
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    # What goes wrong in logging is counted, not printed into the middle of the log.
    logging.raiseExceptions = False
    if lacking:
        _log.warning("log_format_unavailable", extra={"wanted": format, "lacking": lacking, "used": "json"})


def close_logging(timeout_s: float = _FLUSH_S) -> None:
    """
    Write what waits, for at most `timeout_s` seconds, and stop; harmless when logging is not open.

    The level is again what it was: a program that ran us within itself may log on.
    """
    global _current
    outlet, _current = _current, None
    if outlet is not None:
        logging.getLogger().removeHandler(outlet.handler)
        logging.getLogger().setLevel(_level_before or logging.WARNING)
        outlet.close(timeout_s)


def dropped() -> int:
    """How many records did not fit or could not be written since logging was opened."""
    return 0 if _current is None else _current.dropped


class _Outlet:
    """The queue, and the thread that empties it."""

    def __init__(self, write: Write, *, most: int = _MOST_QUEUED) -> None:
        self.dropped = 0
        self.handler = _QueueHandler(self)
        self._write = write
        self._most = most
        self._told = 0
        # SimpleQueue is reentrant: a signal handler or a finalizer may log in the middle of a put.
        self._records: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.close, _FLUSH_S)

    def put(self, record: logging.LogRecord) -> None:
        if self._records.qsize() >= self._most:
            self.dropped += 1
        else:
            self._records.put(record)

    def close(self, timeout_s: float) -> None:
        atexit.unregister(self.close)
        self._records.put(None)
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (record := self._records.get()) is not None:
            self._emit(record)
            if self.dropped != self._told and self._records.qsize() < self._most // 2:
                self._tell()
        self._tell()

    def _tell(self) -> None:
        lost, self._told = self.dropped - self._told, self.dropped
        if lost:
            record = logging.LogRecord(_log.name, logging.WARNING, __file__, 0, "log_dropped", None, None)
            record.__dict__["records"] = lost
            self._emit(record)

    def _emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(record)
        except Exception:
            # A closed pipe, a record that cannot be shown: there is nowhere left to say it.
            self.dropped += 1
            self._told += 1


class _QueueHandler(logging.Handler):
    """Takes the ids of the current span, which only the writer's own context knows, and queues the record."""

    def __init__(self, outlet: _Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        context = get_current_span().get_span_context()
        if context.is_valid:
            # An id given by hand (a delivery's, say) is the better one.
            record.__dict__.setdefault("trace_id", f"{context.trace_id:032x}")
            record.__dict__.setdefault("span_id", f"{context.span_id:016x}")
        if record.args:
            # Arguments may change before the thread gets to them.
            try:
                record.msg, record.args = record.getMessage(), None
            except Exception:
                record.args = None
        self._outlet.put(record)
        return True


def _choose(format: Format) -> tuple[Write, str]:
    """How to write, and what was lacking for the format that was asked for."""
    journal = _stderr_is_journal()
    terminal = _is_terminal(2)
    if format == "journal" or (format == "auto" and journal):
        send = _journal_send()
        if send is not None:
            return _to_journal(send), ""
        lacking = "systemd-python" if format == "journal" else ""
        return _to_stderr(_with_priority(json_line) if journal else json_line), lacking
    if format == "console" or (format == "auto" and terminal):
        colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return _to_stderr(lambda record: console_line(record, colour=colour)), ""
    return _to_stderr(json_line), ""


def _stderr_is_journal() -> bool:
    """$JOURNAL_STREAM names the device and inode of the journal's socket (systemd.exec(5))."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _journal_send() -> Callable[..., None] | None:
    try:
        from systemd import journal
    except ImportError:
        return None
    send: Callable[..., None] = journal.send
    return send


def _to_journal(send: Callable[..., None]) -> Write:
    def write(record: logging.LogRecord) -> None:
        fields: dict[str, Any] = journal_fields(record)
        send(fields.pop("MESSAGE"), **fields)

    return write


def _with_priority(line: Callable[[logging.LogRecord], str]) -> Callable[[logging.LogRecord], str]:
    return lambda record: f"<{priority(record.levelno)}>{line(record)}"


def _to_stderr(line: Callable[[logging.LogRecord], str]) -> Write:
    # Looked up once: a test or a library that replaces sys.stderr does not move the daemon's log.
    fd = 2

    def write(record: logging.LogRecord) -> None:
        rest = memoryview((line(record) + "\n").encode(errors="backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(fd, rest) :]
            except BlockingIOError:
                # Whoever shares the terminal made it non-blocking; only this thread waits.
                select.select([], [fd], [], 1.0)

    return write
