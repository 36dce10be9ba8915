"""
How one log record looks: as a line for people, as JSON, as fields for the journal.

In: a `LogRecord` whose message is an event's name and whose `extra` are its fields.
Out: text. Promise: whatever stands in a field (a log line, a response body, a file name) stays one field of one line:
control characters are written out, secrets are starred, long values are cut. Pure functions; they run off the loop.

The journal gets AGENTD_EVENT and, for each field, AGENTD_ and its name in capitals: `extra={"watch": "shop"}` is
AGENTD_WATCH=shop, to be found by `journalctl AGENTD_WATCH=shop`. (journald drops lower-case names without a word.)
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentd.clock import iso
from agentd.telemetry.redact import STARS, is_sensitive, redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "trace_id", "span_id"}
_EVENT = re.compile(r"[a-z][a-z0-9_.]*")
_PLAIN = re.compile(r"[^\s\"'=\\]+")
# Bidirectional overrides and separators too: they make a line read as something it is not.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_CONTROL_SAVE_NEWLINE = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x08\x0b-\x1f"))
_NAME = re.compile(r"[^A-Z0-9_]")
_LONGEST_VALUE = 2000
_LONGEST_READ = 65_536
_LONGEST_MESSAGE = 8000
_LONGEST_TRACEBACK = 16_000
_DEEPEST = 4
_MOST_ITEMS = 100

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_COLOURS = {2: "\x1b[1;31m", 3: "\x1b[31m", 4: "\x1b[33m", 6: "\x1b[32m", 7: "\x1b[2m"}
_SHORT = {2: "CRIT", 3: "ERROR", 4: "WARN", 6: "INFO", 7: "DEBUG"}
_RESET = "\x1b[0m"


def priority(level: int) -> int:
    """The syslog priority of a logging level: 2 critical, 3 error, 4 warning, 6 info, 7 debug (sd-daemon(3))."""
    return next((number for floor, number in _PRIORITIES if level >= floor), 7)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`, redacted and cut; values are plain JSON types."""
    return {
        name: STARS if is_sensitive(name) else _plain(value, _DEEPEST)
        for name, value in vars(record).items()
        if name not in _STANDARD
    }


def message_of(record: logging.LogRecord) -> str:
    """The event's name, or what a library wrote; redacted and cut, control characters still in it."""
    try:
        text = record.getMessage()
    except Exception:
        # A library's wrong format string must not cost its message.
        text = str(record.msg)
    return redact(text)[:_LONGEST_MESSAGE]


def traceback_of(record: logging.LogRecord) -> str:
    """The traceback, redacted and cut, or ""."""
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(record.exc_info[1]))
    else:
        text = record.exc_text or ""
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    text = redact(text.strip())
    if len(text) > _LONGEST_TRACEBACK:
        half = _LONGEST_TRACEBACK // 2
        text = f"{text[:half]}\n    …\n{text[-half:]}"
    return text


def readable(message: str, fields: Mapping[str, Any]) -> str:
    """`event key=value …` on one line."""
    parts = [_escape(message)]
    parts += [f"{_escape(name)}={_shown(value)}" for name, value in fields.items()]
    return " ".join(parts)


def console_line(record: logging.LogRecord, *, colour: bool) -> str:
    """Time of day, level, event, fields; a traceback below. Without the final newline."""
    number = priority(record.levelno)
    message = message_of(record)
    text = readable(message, fields_of(record))
    at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
    source = "" if _is_event(record, message) else f"{_escape(record.name)}: "
    if colour:
        line = f"\x1b[2m{at}{_RESET} {_COLOURS[number]}{_SHORT[number]:<5}{_RESET} {source}{text}"
    else:
        line = f"{at} {_SHORT[number]:<5} {source}{text}"
    if trace := traceback_of(record):
        line += "\n" + "\n".join(f"    {_escape(part)}" for part in trace.split("\n"))
    return line


def json_line(record: logging.LogRecord) -> str:
    """One JSON object on one line: ts, level, logger, event (or message), trace_id, span_id, and the fields."""
    message = message_of(record)
    shown: dict[str, Any] = {
        "ts": iso(datetime.fromtimestamp(record.created, UTC)),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event" if _is_event(record, message) else "message": message,
    }
    shown |= _ids(record)
    for name, value in fields_of(record).items():
        shown[f"field_{name}" if name in shown else name] = value
    if trace := traceback_of(record):
        shown["exception"] = trace
    return _CONTROL.sub(_json_escape, json.dumps(shown, ensure_ascii=False, allow_nan=False, default=str))


def journal_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a journal entry, MESSAGE among them; names and values as sd_journal_send(3) takes them."""
    message = message_of(record)
    fields = fields_of(record)
    text = readable(message, fields)
    if trace := traceback_of(record):
        text += "\n" + _CONTROL_SAVE_NEWLINE.sub(_text_escape, trace)
    entry: dict[str, Any] = {
        "MESSAGE": text,
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "agentd",
        "LOGGER": _escape(record.name),
        "CODE_FILE": _escape(record.pathname),
        "CODE_LINE": record.lineno,
        "CODE_FUNC": _escape(record.funcName or ""),
    }
    if _is_event(record, message):
        entry["AGENTD_EVENT"] = message
    for name, value in (_ids(record) | fields).items():
        # At most 64 bytes (systemd.journal-fields(7)).
        key = "AGENTD_" + _NAME.sub("_", name.upper())[:57]
        entry.setdefault(key, _escape(value if isinstance(value, str) else _json(value)))
    return entry


def _is_event(record: logging.LogRecord, message: str) -> bool:
    return (record.name == "agentd" or record.name.startswith("agentd.")) and _EVENT.fullmatch(message) is not None


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name in ("trace_id", "span_id") if (value := getattr(record, name, None))}


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # NaN and the infinities are no JSON
    if isinstance(value, str):
        # Redacted before it is cut: half a secret would no longer be recognised.
        return _cut(redact(value[:_LONGEST_READ]))
    if isinstance(value, datetime) and value.tzinfo is not None:
        return iso(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if depth > 0 and isinstance(value, Mapping):
        return {
            _cut(str(key)): STARS if is_sensitive(str(key)) else _plain(item, depth - 1)
            for key, item in list(value.items())[:_MOST_ITEMS]
        }
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in list(value)[:_MOST_ITEMS]]
    try:
        return _cut(redact(str(value)))
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _json(value)
    if isinstance(value, str) and not _PLAIN.fullmatch(text):
        text = json.dumps(text, ensure_ascii=False)
    return _escape(text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _escape(text: str) -> str:
    return _CONTROL.sub(_text_escape, text)


def _text_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    named = {0x0A: r"\n", 0x0D: r"\r", 0x09: r"\t"}
    return named.get(code) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"
