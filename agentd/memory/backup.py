"""
Copies of a store file: made while the daemon writes, checked, and kept few.

In: a store file.  Out: `backups/NAME-YYYYmmddTHHMMSS.db`, one plain file each.
Promise: a backup that has its final name was whole when it got it, and no older one goes before that.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import apsw

from agentd.errors import StoreError, StoreFull

_STEP_PAGES = 128
_STAMP = re.compile(r"-(\d{8}T\d{6})(-\d+)?\.db$")


def listed(folder: Path, name: str) -> list[Path]:
    """The backups of store `name` (`state`, `history`), oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob(f"{name}-*.db") if _STAMP.search(path.name))


def made_at(path: Path) -> datetime:
    """When a backup was made, by its name; UTC."""
    match = _STAMP.search(path.name)
    assert match is not None, path
    return datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)


def check(path: Path) -> str | None:
    """What is wrong with a file that nobody writes, or None; reads all of it."""
    try:
        connection = apsw.Connection(
            f"file:{_quoted(path)}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        )
        try:
            rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
    return None if rows == ["ok"] else "; ".join(rows)


def make(source: Path, folder: Path, now: datetime, keep: int) -> Path:
    """
    Copy `source` into `folder`, check the copy, then delete all but the newest `keep` copies.

    Blocks for as long as the copy takes: call it on a thread. Writers of `source` go on meanwhile.
    Raises StoreFull without room, StoreError when the copy is not sound; older copies then stay.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = source.stem
    target = folder / f"{name}-{now:%Y%m%dT%H%M%S}.db"
    number = 1
    while target.exists():
        target = folder / f"{name}-{now:%Y%m%dT%H%M%S}-{number}.db"
        number += 1
    part = folder / f".{name}.part"
    try:
        _copy(source, part)
        if wrong := check(part):
            raise StoreError(
                f"{source}: the backup made of it is damaged, so the file may be too ({wrong}); "
                "older backups were kept; run `agentd doctor`"
            )
        _sync(part)
        part.replace(target)
        _sync(folder)
    except apsw.FullError as error:
        raise StoreFull(f"{folder}: no room for a backup of {source.name}; make room on that disk") from error
    except apsw.Error as error:
        raise StoreError(f"{source}: cannot be backed up: {error}; run `agentd doctor`") from error
    except OSError as error:
        raise StoreError(f"{folder}: no backup of {source.name}: {error.strerror}; check disk and rights") from error
    finally:
        for left in (part, part.with_name(part.name + "-journal")):
            left.unlink(missing_ok=True)
    for old in listed(folder, name)[:-keep]:
        old.unlink(missing_ok=True)
    return target


def _copy(source: Path, part: Path) -> None:
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    reader = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        reader.set_busy_timeout(5000)
        writer = apsw.Connection(str(part))
        try:
            writer.pragma("synchronous", "OFF")
            # One read transaction over all steps: without it each commit of the daemon starts the copy over.
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            with writer.backup("main", reader, "main") as backup:
                while not backup.done:
                    backup.step(_STEP_PAGES)
            reader.execute("COMMIT")
            # The copy says WAL in its header; a backup is to be one plain file.
            writer.pragma("journal_mode", "DELETE")
        finally:
            writer.close()
    finally:
        reader.close()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
