"""
A file with entries of the journal, as `journalctl -o export` and `-o json` write it, from its beginning to its end.

In: a path, plain or gzip, and the settings of the watch. Out: the entries that the journal itself would have given,
with their fields, chosen by `match`, `units` and `priority`. Nothing is stored.
Promise: what is damaged, or was left out by who wrote the file, is counted and said; a hostile file takes no more
memory than some of the longest entries.

The formats: systemd's "Journal Export Formats" and "Journal JSON Format".
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, cast

from agentd.errors import AgentdError
from agentd.logs.journal_entry import LONGEST_FIELD, Gathered, Raw
from agentd.logs.journal_filter import Filter
from agentd.logs.port import Batch, Counters
from agentd.logs.settings import JournalSource

ExportFormat = Literal["export", "json"]

_STREAM = "journal"
_LONGEST_TEXT = LONGEST_FIELD + 1024
"""Of one field; a little more than what is kept, so that it is seen to be cut."""
_LONGEST_JSON = 32 * 1024 * 1024
_MOST_FIELDS = 4096
_MOST_ENTRIES = 1024
_FIELD_BYTES = 4
_SKIPPED_AT_ONCE = 1024 * 1024
_DAMAGE = (OSError, EOFError, zlib.error)


def export_format(path: Path) -> ExportFormat | None:
    """
    Which of the formats a file is of, by its beginning; None: another, or empty.

    Raises AgentdError when it cannot be read.
    """
    with _open(path) as stream:
        try:
            first = stream.readline(_LONGEST_JSON).lstrip(b"\x1e").removeprefix(b"data: ")
        except _DAMAGE as error:
            raise AgentdError(f"{path} cannot be read: {error}; give the path of a log file") from error
    if first.startswith(b"__CURSOR="):
        return "export"
    if first.strip() == b"{":
        raise AgentdError(f"{path} has each entry on several lines; write it by journalctl -o json --all")
    if first.startswith(b"{"):
        entry = _from_json(first)
        return "json" if entry is not None and entry.keys() & {"__CURSOR", "__REALTIME_TIMESTAMP"} else None
    return None


class ExportFile:
    """A `Source` that ends; give its blocks to a `JournalParser`. Raises AgentdError, ConfigError."""

    def __init__(self, path: Path, format: ExportFormat, settings: JournalSource, now: datetime) -> None:
        self.counters = Counters()
        self._path = path
        self._chosen_by = [key for key in ("match", "units", "priority") if getattr(settings, key)]
        # Which boot is the current one, the file does not say.
        self._filter = Filter(settings.model_copy(update={"boot": "all"}))
        self._boot_is_asked = settings.boot == "current"
        self._now = now
        self._stream = _open(path)
        self._left_out = 0
        self._seen = self._damaged = 0
        self._raws = self._exported() if format == "export" else self._json()

    def read(self, most_bytes: int) -> Batch:
        batch = Batch(more=True)
        taken = Gathered(self.counters)
        looked_at = 0
        while looked_at < _MOST_ENTRIES and taken.bytes < most_bytes and taken.weight < _FIELD_BYTES * most_bytes:
            looked_at += 1
            try:
                raw = next(self._raws, None)
            except _DAMAGE as error:
                self.counters.lost += 1
                batch.notes.append(f"{self._path}: reading ended early: {error}")
                raw = None
            if raw is None:
                batch.more = False
                break
            self._seen += 1
            if self._filter.takes(raw, ""):
                self._take(raw, taken)
        if taken.starts:
            batch.blocks.append(taken.block(_STREAM, self._now))
        if not batch.more:
            batch.notes += self._last_notes()
            self._stream.close()
        return batch

    def _take(self, raw: Raw, taken: Gathered) -> None:
        cursor = _first(raw.get("__CURSOR"))
        at = _first(raw.get("__REALTIME_TIMESTAMP")) or _first(raw.get("_SOURCE_REALTIME_TIMESTAMP"))
        fields = {name: value for name, value in raw.items() if not name.startswith("__")}
        realtime_us = int(at) if len(at) < 18 and at.isascii() and at.isdigit() else None
        taken.add(cursor, realtime_us, fields)

    def _last_notes(self) -> Iterator[str]:
        if self._chosen_by:
            asked = ", ".join(f"`{key}`" for key in self._chosen_by)
            yield f"{self.counters.lines} of the file's {self._seen} entries are chosen by {asked}"
        if self._boot_is_asked:
            yield "which boot is the current one, the file does not say: entries of all boots are taken"
        if self._damaged:
            yield f"entries that are damaged, and were passed over: {self._damaged}"
        if self._left_out:
            yield f"long values that are not in the file: {self._left_out}; write it by journalctl --all"

    async def wait(self, timeout_s: float) -> None:
        """There is always something until the end."""

    async def close(self) -> None:
        self._stream.close()

    def _exported(self) -> Iterator[Raw]:
        stream = self._stream
        raw: Raw = {}
        while line := stream.readline(_LONGEST_TEXT):
            if line == b"\n":
                if raw:
                    yield raw
                raw = {}
                continue
            name, equals, value = line.partition(b"=")
            if equals:
                if not line.endswith(b"\n"):
                    if len(line) < _LONGEST_TEXT:  # cut off
                        self._lose()
                        return
                    _skip_line(stream)
                value = value.removesuffix(b"\n")
            else:
                name = line.removesuffix(b"\n")
                size = int.from_bytes(stream.read(8), "little")
                value = stream.read(min(size, _LONGEST_TEXT))
                _skip(stream, size - len(value))
                if stream.read(1) != b"\n":  # cut off, or no export after all
                    self._lose()
                    return
            if len(raw) < _MOST_FIELDS:
                _add(raw, name.decode(errors="replace"), value)
        if raw:
            yield raw

    def _json(self) -> Iterator[Raw]:
        while line := self._stream.readline(_LONGEST_JSON):
            if len(line) == _LONGEST_JSON and not line.endswith(b"\n"):
                _skip_line(self._stream)
                self._lose()
                continue
            line = line.lstrip(b"\x1e").removeprefix(b"data: ")
            if not line.strip():
                continue
            entry = _from_json(line)
            if entry is None:
                self._lose()
                continue
            raw: Raw = {}
            for name, value in list(entry.items())[:_MOST_FIELDS]:
                if value is None:
                    self._left_out += 1
                for each in _values(value):
                    _add(raw, name, each)
            yield raw

    def _lose(self) -> None:
        self._damaged += 1
        self.counters.lost += 1


def _open(path: Path) -> IO[bytes]:
    try:
        # Not to wait for who writes into a pipe.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AgentdError(f"{path} cannot be read: {reason}; give the path of a log file") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise AgentdError(f"{path} is no regular file; give the path of a log file")
    if os.pread(fd, 2, 0) != b"\x1f\x8b":
        return os.fdopen(fd, "rb")
    os.close(fd)  # by its path, for a GzipFile closes only what it opened itself
    return cast("IO[bytes]", gzip.open(path, "rb"))


def _from_json(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _values(value: Any) -> Iterator[bytes]:
    """A text; bytes as a list of numbers; or a list of these, where the entry has the field more than once."""
    if isinstance(value, str):
        yield value.encode("utf-8", "replace")
    elif isinstance(value, list):
        if value and all(type(each) is int and 0 <= each < 256 for each in value):
            yield bytes(value)
        else:
            for each in value[:_MOST_FIELDS]:
                if isinstance(each, str) or (isinstance(each, list) and each and isinstance(each[0], int)):
                    yield from _values(each)
    elif value is not None and not isinstance(value, dict):
        yield json.dumps(value).encode()


def _add(raw: Raw, name: str, value: bytes) -> None:
    before = raw.get(name)
    if before is None:
        raw[name] = value
    elif not isinstance(before, list):
        raw[name] = [before, value]
    elif len(before) < _MOST_FIELDS:
        before.append(value)


def _first(value: bytes | list[bytes] | None) -> str:
    if isinstance(value, list):
        value = value[0]
    return (value or b"").decode(errors="replace")


def _skip(stream: IO[bytes], size: int) -> None:
    while size > 0 and (data := stream.read(min(size, _SKIPPED_AT_ONCE))):
        size -= len(data)


def _skip_line(stream: IO[bytes]) -> None:
    while (rest := stream.readline(_SKIPPED_AT_ONCE)) and not rest.endswith(b"\n"):
        pass
