"""
What watching logs has to remember: positions, rule windows, when it all began, and which templates were seen.

In and out: text that only the log path understands, inside the caller's transaction.
Promise: what a watch stored last is what it is given back; what belongs to watches that are gone does not stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import apsw

from agentd.clock import from_us, to_us
from agentd.memory.columns import first, text
from agentd.memory.templates import TemplateRow

_POSITIONS = "SELECT stream, data FROM log_positions WHERE watch = ?"
_PUT_POSITION = "INSERT OR REPLACE INTO log_positions (watch, stream, data) VALUES (?, ?, ?)"
_DROP_POSITION = "DELETE FROM log_positions WHERE watch = ? AND stream = ?"
_WINDOWS = "SELECT rule, key, digest, data FROM log_windows WHERE watch = ?"
_PUT_WINDOW = "INSERT OR REPLACE INTO log_windows (watch, rule, key, digest, data) VALUES (?, ?, ?, ?, ?)"
_DROP_WINDOW = "DELETE FROM log_windows WHERE watch = ? AND rule = ? AND key = ?"
_DROP_RULE = "DELETE FROM log_windows WHERE watch = ? AND rule = ? AND digest <> ?"
_TEMPLATES = "SELECT id, pattern, first_seen FROM log_templates WHERE watch = ? ORDER BY first_seen, id"
_PUT_TEMPLATE = "INSERT OR REPLACE INTO log_templates (watch, id, pattern, first_seen) VALUES (?, ?, ?, ?)"
_DROP_TEMPLATE = "DELETE FROM log_templates WHERE watch = ? AND id = ?"
_STARTED = "SELECT at FROM log_started WHERE watch = ?"
_START = "INSERT INTO log_started (watch, at) VALUES (?, ?) ON CONFLICT DO NOTHING"
_TABLES = ("log_positions", "log_windows", "log_templates", "log_started")


@dataclass(frozen=True, slots=True)
class TemplateName:
    """Identity of a log template: what makes it known again."""

    id: str
    pattern: str
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class LogMemory:
    """
    All that a watch of logs goes on from. started: when it first followed its source, None: it never did.
    windows: by (rule, key), of rules whose settings are still the same. counts: of the templates, from history, if it
    has them.
    """

    started: datetime | None = None
    positions: Mapping[str, str] = field(default_factory=dict)
    windows: Mapping[tuple[str, str], str] = field(default_factory=dict)
    templates: tuple[TemplateName, ...] = ()
    counts: tuple[TemplateRow, ...] = ()


def load(c: apsw.Connection, watch: str, digests: Mapping[str, str]) -> LogMemory:
    """What is stored of a watch. digests: by rule, of the settings its windows must have been made by."""
    row = first(c.execute(_STARTED, (watch,)))
    return LogMemory(
        started=from_us(row[0]) if row else None,
        positions={str(stream): str(data) for stream, data in c.execute(_POSITIONS, (watch,))},
        windows={
            (rule, key): data
            for rule, key, digest, data in c.execute(_WINDOWS, (watch,))
            if digests.get(rule) == digest
        },
        templates=tuple(TemplateName(id, pattern, from_us(at)) for id, pattern, at in c.execute(_TEMPLATES, (watch,))),
    )


def begin(c: apsw.Connection, watch: str, digests: Mapping[str, str], now: datetime) -> None:
    """The watch is followed from now on, if it is not already; windows made by other settings go."""
    c.execute(_START, (text(watch), to_us(now)))
    known = {rule for (rule,) in c.execute("SELECT DISTINCT rule FROM log_windows WHERE watch = ?", (watch,))}
    for rule in known:
        c.execute(_DROP_RULE, (watch, rule, digests.get(rule, "")))


def save_positions(c: apsw.Connection, watch: str, positions: Mapping[str, str | None]) -> None:
    """How far each stream is read; None: the stream is gone."""
    for stream, data in positions.items():
        if data is None:
            c.execute(_DROP_POSITION, (watch, text(stream)))
        else:
            c.execute(_PUT_POSITION, (text(watch), text(stream), text(data)))


def save_windows(
    c: apsw.Connection, watch: str, windows: Mapping[tuple[str, str], str | None], digests: Mapping[str, str]
) -> None:
    """The state of rules by (rule, key); None: there is none any more."""
    gone = [(watch, rule, text(key)) for (rule, key), data in windows.items() if data is None]
    kept = [
        (text(watch), rule, text(key), digests[rule], text(data))
        for (rule, key), data in windows.items()
        if data is not None
    ]
    if gone:
        c.executemany(_DROP_WINDOW, gone)
    if kept:
        c.executemany(_PUT_WINDOW, kept)


def save_templates(
    c: apsw.Connection, watch: str, templates: Iterable[TemplateName], gone: Collection[str] = ()
) -> None:
    """Templates that are new or read otherwise now, and those that were given up."""
    for id in gone:
        c.execute(_DROP_TEMPLATE, (watch, id))
    for each in templates:
        c.execute(_PUT_TEMPLATE, (text(watch), text(each.id), text(each.pattern), to_us(each.first_seen)))


def forget_others(c: apsw.Connection, watches: Collection[str]) -> list[str]:
    """Drop what belongs to any other watch; returns their names."""
    known = {str(watch) for table in _TABLES for (watch,) in c.execute(f"SELECT DISTINCT watch FROM {table}")}
    gone = sorted(known - set(watches))
    for watch in gone:
        for table in _TABLES:
            c.execute(f"DELETE FROM {table} WHERE watch = ?", (watch,))
    return gone
