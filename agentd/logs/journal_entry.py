"""
An entry of the journal as fields, and the parser for blocks that carry them.

In: what libsystemd gave for an entry, as bytes by field name. Out: fields fit for JSON, by name.
Promise: nothing is decoded before somebody asks for it; most entries match nothing and are never asked.

The names: every field of the journal by its own name in lower case (`_systemd_unit`, `errno`), as text, or a list of
texts where the entry has it more than once, and for what most rules ask:

    message     text                            unit        the unit it is from or, said by systemd, about
    priority    0 … 7                           program     SYSLOG_IDENTIFIER, else the process's name
    severity    emerg … debug                   pid         a number
    transport   journal, stdout, kernel, …      hostname    text
    timestamp   when journald took it, RFC 3339 in microseconds, UTC
"""

from __future__ import annotations

import builtins
import codecs
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from agentd.clock import from_us
from agentd.logs.port import Block, Counters

LONGEST_FIELD = 64 * 1024
"""Bytes of one value; more is cut off, and counted."""

PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")

Raw = dict[str, bytes | list[bytes]]

_ONE_FOR_ONE = "agentd.one_for_one"
_SOURCES = {
    "program": ("SYSLOG_IDENTIFIER", "_COMM"),
    "pid": ("_PID", "SYSLOG_PID"),
    "transport": ("_TRANSPORT",),
    "hostname": ("_HOSTNAME", "HOSTNAME"),
}
_ABOUT_A_UNIT = ("UNIT", "COREDUMP_UNIT", "OBJECT_SYSTEMD_UNIT", "USER_UNIT")
_UNIT = ("_SYSTEMD_UNIT", "_SYSTEMD_USER_UNIT")
_MADE = ("timestamp", "message", "priority", "severity", "unit", *_SOURCES)


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "?" * (error.end - error.start), error.end


codecs.register_error(_ONE_FOR_ONE, _question_marks)


def readable(data: bytes, counters: Counters) -> bytes:
    """Valid UTF-8 of the same length: each byte that cannot be decoded is a "?", and counted."""
    try:
        data.decode()
    except UnicodeDecodeError:
        text = data.decode(errors=_ONE_FOR_ONE)
        counters.undecodable += text.count("?") - data.count(b"?")
        return text.encode()
    return data


def cut(raw: Raw, counters: Counters) -> int:
    """Cut what is too long in place; how many bytes are left in all."""
    size = 0
    for name, value in raw.items():
        if isinstance(value, list):
            raw[name] = value = [_cut_value(each, counters) for each in value]
            size += sum(map(len, value))
        elif len(value) > LONGEST_FIELD:
            raw[name] = value = _cut_value(value, counters)
            size += len(value)
        else:
            size += len(value)
    return size


def _cut_value(value: bytes, counters: Counters) -> bytes:
    if len(value) <= LONGEST_FIELD:
        return value
    counters.truncated += 1
    end = LONGEST_FIELD
    # Not through a character, if it is text: what is left of one could not be decoded.
    while end > LONGEST_FIELD - 3 and value[end] & 0xC0 == 0x80:
        end -= 1
    return value[:end]


def message_of(raw: Raw) -> bytes:
    """The message as it stands in a block: without newlines at its end; empty when there is none."""
    value = raw.get("MESSAGE", b"")
    return (b"\n".join(value) if isinstance(value, list) else value).rstrip(b"\n")


class JournalFields(Mapping[str, Any]):
    """The fields of one entry, each decoded when it is asked for."""

    __slots__ = ("_counters", "_raw", "realtime_us")

    def __init__(self, raw: Raw, realtime_us: int | None, counters: Counters) -> None:
        self._raw = raw
        self._counters = counters
        self.realtime_us = realtime_us

    def at(self) -> datetime | None:
        """When journald took it; None for a moment that no calendar has, or nobody knows."""
        try:
            return None if self.realtime_us is None else from_us(self.realtime_us)
        except OverflowError:
            return None

    def __getitem__(self, name: str) -> Any:
        value = self._made(name) if name in _MADE else None
        if value is None and name == name.lower():
            value = self._value(name.upper())
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        made = [name for name in _MADE if self._made(name) is not None]
        yield from made
        yield from (name for each in self._raw if (name := each.lower()) not in made)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"JournalFields({dict(self)!r})"

    def _made(self, name: str) -> Any:
        match name:
            case "timestamp":
                at = self.at()
                return None if at is None else at.isoformat(timespec="microseconds").replace("+00:00", "Z")
            case "message":
                return self._text(message_of(self._raw))
            case "priority":
                return self._priority()
            case "severity":
                priority = self._priority()
                return None if priority is None else PRIORITIES[priority]
            case "unit":
                return self._unit()
            case "pid":
                return _whole(self._first(_SOURCES["pid"]))
        return self._first(_SOURCES[name])

    def _priority(self) -> int | None:
        priority = _whole(self._first(("PRIORITY",)))
        return priority if priority is not None and priority < len(PRIORITIES) else None

    def _unit(self) -> str | None:
        # What others say of a unit is about that unit only when they may: anybody can send a field UNIT.
        if self._raw.get("_UID") == b"0" and (about := self._first(_ABOUT_A_UNIT)):
            return about
        return self._first(_UNIT)

    def _first(self, names: tuple[str, ...]) -> str | None:
        for name in names:
            value = self._value(name)
            if value is not None:
                return value[0] if isinstance(value, list) else value
        return None

    def _value(self, name: str) -> str | list[str] | None:
        value = self._raw.get(name)
        if value is None:
            return None
        return [self._text(each) for each in value] if isinstance(value, list) else self._text(value)

    def _text(self, data: bytes) -> str:
        return readable(data, self._counters).decode()


def _whole(text: str | None) -> int | None:
    return int(text) if text and len(text) <= 10 and text.isascii() and text.isdigit() else None


class Gathered:
    """A block in the making. weight: bytes of all fields that it holds."""

    def __init__(self, counters: Counters) -> None:
        self.starts: list[int] = []
        self.weight = 0
        self._text = bytearray()
        self._cursors: list[str] = []
        self._fields: list[Mapping[str, Any]] = []
        self._counters = counters

    @property
    def bytes(self) -> int:
        return len(self._text)

    def add(self, cursor: str, realtime_us: int | None, raw: Raw) -> None:
        """An entry as the journal has it."""
        self.weight += cut(raw, self._counters)
        self.put(cursor, message_of(raw), JournalFields(raw, realtime_us, self._counters))

    def put(self, cursor: str, message: builtins.bytes, fields: Mapping[str, Any]) -> None:
        self.starts.append(len(self._text))
        self._cursors.append(cursor)
        self._fields.append(fields)
        self._text += readable(message, self._counters)
        self._text += b"\n"

    def block(self, stream: str, read_at: datetime) -> Block:
        offset = self._counters.bytes
        self._counters.bytes += len(self._text)
        self._counters.lines += len(self.starts)
        text, cursors, fields = builtins.bytes(self._text), self._cursors, self._fields
        return Block(stream, stream, text, offset, read_at, read_at, self.starts, cursors=cursors, fields=fields)


class JournalParser:
    """The parser for a journal's blocks: their entries bring their fields and their time along."""

    def fields(self, text: str) -> dict[str, Any]:
        return {"message": text}

    def time(self, text: str, fields: Mapping[str, Any] | None, written_by: datetime) -> datetime | None:
        if isinstance(fields, JournalFields):
            return fields.at()
        stamp = None if fields is None else fields.get("timestamp")
        try:
            at = datetime.fromisoformat(stamp) if isinstance(stamp, str) else None
        except ValueError:
            return None
        return None if at is None or at.tzinfo is None else at.astimezone(UTC)
