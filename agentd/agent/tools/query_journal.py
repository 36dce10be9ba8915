"""
The tool `query_journal`: entries of the systemd journal, newest first.

`journalctl` reads it, as a child that can be ended at any moment: libsystemd in this process could neither be stopped
nor be bounded. Promise: looks at no more than `_MOST_LOOKED_AT` entries of those that unit, priority and time choose.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.saying import MOMENT_SCHEMA, invalid, line, passage, read_moment
from agentd.agent.tools.working import Stop, on_thread
from agentd.clock import EPOCH, iso
from agentd.errors import ConfigError
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec

_DEFAULT = 50
_MOST = 300
_MOST_LOOKED_AT = 10_000
_MOST_OUTPUT = 16 * 1024 * 1024
_PRIORITIES = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"]
_FIELDS = "MESSAGE,PRIORITY,_SYSTEMD_UNIT,UNIT,SYSLOG_IDENTIFIER,_PID,_HOSTNAME"
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@*?\[\]][A-Za-z0-9:_.\\@*?\[\]-]{0,254}")
_CLOSED = re.compile(r"insufficient permissions|not seeing messages from other users", re.IGNORECASE)


class QueryJournal:
    name = "query_journal"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Read the systemd journal, newest first: by unit, priority, time, and what the message holds (`grep`, RE2).",
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "unit": {"type": "string", "minLength": 1, "maxLength": 255, "description": "Such as nginx.service"},
                "priority": {"type": "string", "enum": _PRIORITIES, "description": "This and more important"},
                "since": MOMENT_SCHEMA,
                "until": MOMENT_SCHEMA,
                "grep": {"type": "string", "minLength": 1, "maxLength": 1000},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "description": f"Default {_DEFAULT}"},
            },
        },
    )

    def __init__(self, program: str = "journalctl", folder: str | None = None) -> None:
        """program: its name or path. folder: of journal files, instead of this machine's journal."""
        self._program = program
        self._folder = folder

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        from agentd.watch.child import CannotStart, Limits, run_child
        from agentd.watch.command import clean_environment

        if not context.permissions.journal:
            raise ToolFailure("the journal may not be read here (it is off in the configuration)", ErrorKind.DENIED)
        finds = _finder(input.get("grep"))
        limit = input.get("limit", _DEFAULT)
        looked_at = _MOST_LOOKED_AT if finds is not None else limit + 1
        argv = self._argv(input, context.clock.now(), looked_at)
        if shutil.which(self._program) is None:
            raise ToolFailure("there is no journal here: journalctl is not installed")
        timeout_s = context.timeout_s * 0.8
        try:
            ended = await run_child(
                argv,
                env=clean_environment() | {"SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": "cat", "LC_ALL": "C.UTF-8"},
                timeout_s=timeout_s,
                max_output=_MOST_OUTPUT,
                limits=Limits(cpu_s=math.ceil(timeout_s) + 1),
            )
        except CannotStart as error:
            raise ToolFailure(line(str(error), 500)) from error
        said = ended.stderr.decode("utf-8", "replace").strip()
        if ended.returncode != 0 and not ended.timed_out and not ended.stdout:
            raise ToolFailure(f"journalctl: {line(said, 500) or f'it ended with {ended.returncode}'}")

        def work(stop: Stop) -> dict[str, Any]:
            return _answer(ended.stdout, finds, limit, looked_at, context.max_output * 3 // 4, stop)

        answer = await on_thread(work, timeout_s=context.timeout_s)
        if ended.timed_out or ended.discarded_bytes:
            answer |= {"truncated": True, "note": "not all was looked at; say a unit, or a shorter time"}
        if _CLOSED.search(said):
            answer["note"] = f"some of the journal may not be read here: {line(said, 300)}"
        elif said and not answer["entries"]:
            answer["note"] = line(said, 300)
        return answer

    def _argv(self, input: Mapping[str, Any], now: datetime, looked_at: int) -> list[str]:
        argv = [self._program, "--output=json", f"--output-fields={_FIELDS}", "--reverse", "--no-pager", "--utc"]
        argv.append(f"--lines={looked_at}")
        if self._folder is not None:
            argv.append(f"--directory={self._folder}")
        unit = input.get("unit")
        if unit is not None:
            if not _UNIT.fullmatch(unit):
                raise invalid(f"{line(unit, 80)} is no name of a unit; write e.g. nginx.service")
            argv.append(f"--unit={unit}")
        if "priority" in input:
            argv.append(f"--priority={input['priority']}")
        for key in ("since", "until"):
            moment = read_moment(input.get(key), now, key)
            if moment is not None:
                argv.append(f"--{key}={moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
        return argv


def _finder(grep: str | None) -> Any:
    from agentd.logs.patterns import compile_pattern

    if grep is None:
        return None
    try:
        return compile_pattern(grep).finds
    except ConfigError as error:
        raise invalid(f"grep: {error}") from error


def _answer(raw: bytes, finds: Any, limit: int, looked_at: int, most_bytes: int, stop: Stop) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    count, more = 0, False
    for each in raw.split(b"\n"):
        if stop.now:
            more = True
            break
        entry = _entry(each)
        if entry is None:
            continue
        count += 1
        message, shown = entry
        if finds is not None and not finds(message.encode("utf-8", "replace")):
            continue
        most_bytes -= len(shown["message"]) + 150
        if len(entries) >= limit or (most_bytes < 0 and entries):
            more = True
            break
        entries.append(shown)
    answer: dict[str, Any] = {"entries": entries, "looked_at": count}
    if more or (finds is not None and count >= looked_at):
        answer["truncated"] = True
    return answer


def _entry(raw: bytes) -> tuple[str, dict[str, Any]] | None:
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    message = _text(fields.get("MESSAGE", ""))
    shown: dict[str, Any] = {"message": passage(message)}
    with contextlib.suppress(ValueError, OverflowError, TypeError):
        shown["at"] = iso(EPOCH + timedelta(microseconds=int(fields.get("__REALTIME_TIMESTAMP", ""))))
    unit = fields.get("_SYSTEMD_UNIT") or fields.get("UNIT")
    for key, value in (
        ("unit", unit),
        ("program", fields.get("SYSLOG_IDENTIFIER")),
        ("pid", fields.get("_PID")),
        ("host", fields.get("_HOSTNAME")),
    ):
        if value is not None:
            shown[key] = line(_text(value), 255)
    priority = _text(fields.get("PRIORITY"))
    if priority in "01234567" and priority:
        shown["priority"] = _PRIORITIES[int(priority)]
    return message, shown


def _text(value: Any) -> str:
    """A field: text, bytes as a list of numbers, several values as a list; null when it was too long."""
    if isinstance(value, str):
        return value
    if value is None:
        return "(too long to be shown)"
    if isinstance(value, list):
        if value and all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "replace")
        return " ".join(each for each in value if isinstance(each, str))
    return str(value)
