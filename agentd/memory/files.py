"""
Opening one store file: its settings, its rights, and what to do with a damaged one.

In: a path.  Out: an open connection.
Promise: a damaged state file is never touched; a damaged history file is set aside, never deleted at once.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime
from pathlib import Path

import apsw

from agentd.errors import StoreError

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 5000
KEEP_DAMAGED = 2
WAL_PAGES = 500
_QUICK_CHECK_BYTES = 32 * 1024 * 1024
_SUFFIXES = ("", "-wal", "-shm")
DAMAGE = (apsw.CorruptError, apsw.NotADBError)


def open_writer(path: Path, *, durable: bool) -> apsw.Connection:
    """
    Open for writing, making the file (0600) when it is not there.

    durable: fsync at every commit; otherwise only at checkpoints: the last commits may go in a power cut.
    Raises apsw.Error.
    """
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path), statementcachesize=64)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("auto_vacuum", "INCREMENTAL")  # takes only while the file is empty
        if connection.pragma("journal_mode", "WAL") != "wal":
            raise StoreError(f"{path}: this file system cannot keep a WAL; put state_dir on a local disk")
        connection.pragma("synchronous", "FULL" if durable else "NORMAL")
        connection.pragma("foreign_keys", True)
        connection.pragma("cache_size", -1024)
        connection.pragma("journal_size_limit", 4 * 1024 * 1024)
        connection.wal_autocheckpoint(WAL_PAGES)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """
    Open for reading only; needs no write access when nobody has the file open.

    Raises StoreError when it cannot be read, with the way out.
    """
    if not path.exists():
        raise StoreError(f"{path}: no such file; has agentd run with this state_dir?")
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=32)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.pragma("cache_size", -512)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    except (apsw.CantOpenError, apsw.ReadOnlyError) as error:
        connection.close()
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size > 0:
            raise StoreError(
                f"{path}: cannot be read without write access to its folder while {wal.name} holds changes; "
                "run the command as the service's user, or as root"
            ) from error
        # A WAL file asks for write access even from readers, unless we promise that nobody writes.
        quoted = str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
        return apsw.Connection(f"file:{quoted}?immutable=1", flags=flags, statementcachesize=32)
    except BaseException:
        connection.close()
        raise
    return connection


def look_for_damage(connection: apsw.Connection, path: Path, *, whole: bool = False) -> None:
    """
    Read the schema, and all of a small file; of a large one only when `whole`: its backups check it instead.

    Raises apsw.CorruptError or apsw.NotADBError.
    """
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if path.stat().st_size > _QUICK_CHECK_BYTES and not whole:
        return
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        raise apsw.CorruptError("; ".join(found))


def set_aside(path: Path, now: datetime) -> Path:
    """Rename a damaged file, with its WAL, to `NAME.damaged-TIME`; the newest two such stay."""
    stamp = f"{path.name}.damaged-{now:%Y%m%dT%H%M%S}"
    aside = path.with_name(stamp)
    number = 1
    while aside.exists():
        aside = path.with_name(f"{stamp}-{number}")
        number += 1
    for suffix in _SUFFIXES:
        part = path.with_name(path.name + suffix)
        if suffix == "-shm":
            part.unlink(missing_ok=True)
        elif part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    kept = sorted(
        entry for entry in path.parent.glob(f"{path.name}.damaged-*") if not entry.name.endswith(_SUFFIXES[1:])
    )
    for old in kept[:-KEEP_DAMAGED]:
        for suffix in _SUFFIXES:
            old.with_name(old.name + suffix).unlink(missing_ok=True)
    return aside


def damaged_state(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path}: the file is damaged ({error}); nothing was changed; "
        "`agentd doctor` shows the backups and how to restore one"
    )
