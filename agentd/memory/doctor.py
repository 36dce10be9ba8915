"""
Looking after a store from outside: what state it is in, and putting a backup back.

In: a state directory, with or without a running daemon.  Out: findings for people; a restored state file.
Promise: `examine` changes nothing. `restore` never deletes: the file that was there stays beside the restored one, and
a crash in the middle leaves the one or the other in place, whole.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import apsw

from agentd.clock import iso
from agentd.errors import StoreError
from agentd.memory import backup, files, meta, outbox
from agentd.memory.migrate import refuse_newer, steps, version
from agentd.memory.room import free_bytes
from agentd.memory.store import BACKUP_EVERY, BACKUPS, BALLAST_BYTES, HISTORY, RESERVE_BYTES, STATE, lock

_OLD_MESSAGE = timedelta(hours=1)
_AS_WHOM = "run this as the service's user, or as root"


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """what: the thing looked at. text: what was found. cure: what to do, empty when all is well."""

    level: Level
    what: str
    text: str
    cure: str = ""


def examine(state_dir: Path, now: datetime) -> list[Finding]:
    """Look at everything; blocks for as long as reading both files takes. Raises nothing that a store can cause."""
    if nothing := _unseen(state_dir):
        return [nothing]
    found: list[Finding] = []
    checks: list[Callable[[], Iterator[Finding]]] = [
        lambda: _owner(state_dir),
        lambda: _rights(state_dir),
        lambda: _room(state_dir),
        lambda: _file(state_dir / STATE, "state"),
        lambda: _file(state_dir / HISTORY, "history"),
        lambda: _backups(state_dir, now),
        lambda: _inside(state_dir / STATE, now),
        lambda: _aside(state_dir),
    ]
    for check in checks:
        try:
            found += check()
        except (OSError, StoreError, apsw.Error) as error:
            again = Finding(Level.ERROR, "doctor", f"{state_dir} cannot be looked at: {error}", _AS_WHOM)
            if again not in found:
                found.append(again)
    return found


def restore(state_dir: Path, copy: Path, now: datetime) -> Path:
    """
    Put a backup in the place of the state file; returns where the file that was there is kept now.

    The restored state is held: no message goes out and no log is read on until `resume`, since what was sent after the
    backup would be sent again. Raises StoreBusy while a daemon runs, StoreError when the backup is not sound.
    """
    if not copy.is_file():
        raise StoreError(f"{copy}: no such backup; `agentd doctor` lists them")
    if wrong := backup.check(copy):
        raise StoreError(f"{copy}: this backup is damaged ({wrong}); take another, `agentd doctor` lists them")
    if not _is_state(copy):
        raise StoreError(f"{copy}: not a state file of agentd; `agentd doctor` lists the backups of it")
    with _owned(state_dir):
        part = state_dir / ".restore.part"
        part.unlink(missing_ok=True)
        try:
            _prepare(copy, part, now)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StoreError(f"{state_dir}: the backup cannot be copied there: {error.strerror}") from error
        except (apsw.Error, StoreError):
            part.unlink(missing_ok=True)
            raise
        current = state_dir / STATE
        kept = _free_name(state_dir / f"{STATE}.before-restore-{now:%Y%m%dT%H%M%S}")
        _fold_wal(current, kept)
        if current.exists():
            os.link(current, kept)
        part.replace(current)
        _sync(state_dir)
        return kept


def resume(state_dir: Path) -> bool:
    """Let a restored state work again. False when it was not held. Raises StoreBusy while a daemon runs."""
    path = state_dir / STATE
    if not path.exists():
        raise StoreError(f"{path}: no such file; has agentd run with this state_dir?")
    with _owned(state_dir):
        connection = files.open_writer(path, durable=True)
        try:
            return meta.delete(connection, meta.HELD)
        except apsw.SQLError as error:
            raise StoreError(f"{path}: not a state file of agentd: {error}") from error
        finally:
            connection.close()


def _unseen(state_dir: Path) -> Finding | None:
    """One finding for all when the folder is not there, or we may not look into it at all."""
    try:
        if not state_dir.is_dir():
            cure = "start agentd once, or name another"
            return Finding(Level.ERROR, "state_dir", f"{state_dir} is not there", cure)
        os.listdir(state_dir)
        (state_dir / STATE).exists()
    except PermissionError as error:
        return Finding(Level.ERROR, "doctor", f"{state_dir} cannot be looked at: {error.strerror}", _AS_WHOM)
    return None


def owner(state_dir: Path) -> str | None:
    """The pid of the process whose store it is just now, "?" when it could not say; None: nobody's. Raises OSError."""
    path = state_dir / "lock"
    if not path.exists():
        return None
    inode = path.stat().st_ino
    with open("/proc/locks") as table:
        held = any(
            line.split()[1] == "FLOCK" and line.rstrip().split(":")[-1].split()[0] == str(inode) for line in table
        )
    return (path.read_text().strip() or "?") if held else None


def _owner(state_dir: Path) -> Iterator[Finding]:
    pid = owner(state_dir)
    yield Finding(Level.OK, "owner", "no agentd runs on it" if pid is None else f"agentd runs on it, pid {pid}")


def _rights(state_dir: Path) -> Iterator[Finding]:
    for path in (state_dir, state_dir / STATE, state_dir / HISTORY):
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            wanted = "0700" if path.is_dir() else "0600"
            text = f"{path} is open to other users ({mode:04o})"
            yield Finding(Level.WARNING, "rights", text, f"chmod {wanted} {path}")


def _room(state_dir: Path) -> Iterator[Finding]:
    free = free_bytes(state_dir)
    level = Level.OK if free >= 4 * RESERVE_BYTES else Level.WARNING
    cure = "" if level is Level.OK else "make room on that disk; history stops when it is nearly full"
    yield Finding(level, "disk", f"{_size(free)} free", cure)
    ballast = state_dir / "ballast"
    if ballast.exists():
        yield Finding(Level.OK, "ballast", f"{_size(ballast.stat().st_size)} kept for a full disk")
    else:
        text = f"the ballast of {_size(BALLAST_BYTES)} is not there: the disk was full, or agentd never ran"
        yield Finding(Level.WARNING, "ballast", text, "make room; agentd puts it back by itself")


def _file(path: Path, family: str) -> Iterator[Finding]:
    restore_it = f"stop agentd, then `agentd doctor restore BACKUP`; backups are in {path.parent / BACKUPS}"
    if not path.exists():
        yield Finding(Level.ERROR if family == "state" else Level.WARNING, family, f"{path} is not there", restore_it)
        return
    cure = restore_it if family == "state" else "nothing to do: agentd sets it aside at the next start"
    known = len(steps(family))
    try:
        connection = files.open_reader(path)
        try:
            found = version(connection)
            wrong = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        finally:
            connection.close()
    except files.DAMAGE as error:
        yield Finding(Level.ERROR, family, f"{path} is damaged: {error}", cure)
        return
    if wrong != ["ok"]:
        yield Finding(Level.ERROR, family, f"{path} is damaged: {'; '.join(wrong)}", cure)
    elif found == 0 and family == "state":
        yield Finding(Level.ERROR, family, f"{path} is empty", cure)
    elif found > known:
        text = f"{path} is of a newer agentd (schema {found}, this one knows up to {known})"
        yield Finding(Level.ERROR, family, text, "install that agentd again, or restore an older backup")
    else:
        yield Finding(Level.OK, family, f"{path}: sound, schema {found}, {_size(path.stat().st_size)}")


def _backups(state_dir: Path, now: datetime) -> Iterator[Finding]:
    copies = backup.listed(state_dir / BACKUPS, "state")
    if not copies:
        yield Finding(Level.WARNING, "backups", "none of the state file", "let agentd run for a few minutes")
        return
    for copy in copies:
        made = backup.made_at(copy)
        if wrong := backup.check(copy):
            yield Finding(Level.ERROR, "backups", f"{copy} is damaged: {wrong}", "delete it")
        else:
            yield Finding(Level.OK, "backups", f"{copy}: sound, of {iso(made)}, {_size(copy.stat().st_size)}")
    if now - backup.made_at(copies[-1]) > 3 * BACKUP_EVERY:
        text = f"the newest is of {iso(backup.made_at(copies[-1]))}"
        yield Finding(Level.WARNING, "backups", text, "see the log for backup_failed or backup_skipped")


def _inside(path: Path, now: datetime) -> Iterator[Finding]:
    if not path.exists():
        return
    try:
        connection = files.open_reader(path)
    except files.DAMAGE:
        return
    try:
        if not 0 < version(connection) <= len(steps("state")):
            return
        if why := meta.held(connection):
            yield Finding(
                Level.WARNING, "held", f"nothing is sent: {why}", "look at the outbox, then `agentd doctor resume`"
            )
        oldest = outbox.oldest_waiting(connection)
        if oldest is not None:
            late = now - oldest > _OLD_MESSAGE
            cure = "`agentd outbox list` shows what keeps it" if late else ""
            yield Finding(
                Level.WARNING if late else Level.OK, "outbox", f"the oldest message waits since {iso(oldest)}", cure
            )
        for webhook, counts in outbox.counts(connection).items():
            if counts.dead:
                text = f"{counts.dead} dead letters for {webhook}"
                yield Finding(Level.WARNING, "outbox", text, "`agentd outbox retry --all`, or `agentd outbox drop`")
    finally:
        connection.close()


def _aside(state_dir: Path) -> Iterator[Finding]:
    for pattern, what in (
        (f"{HISTORY}.damaged-*", "damaged history"),
        (f"{STATE}.before-restore-*", "state as it was"),
    ):
        for path in sorted(state_dir.glob(pattern)):
            if not path.name.endswith(("-wal", "-shm")):
                yield Finding(
                    Level.OK, "set aside", f"{path}: {what}, {_size(path.stat().st_size)}", "delete when not needed"
                )


@contextmanager
def _owned(state_dir: Path) -> Iterator[None]:
    handle = lock(state_dir)
    try:
        yield
    finally:
        os.close(handle)


def _prepare(copy: Path, part: Path, now: datetime) -> None:
    """A copy of the backup that says that it is held, whole on disk."""
    shutil.copyfile(copy, part)
    part.chmod(0o600)
    owner = part.parent.stat()
    if os.geteuid() == 0:
        os.chown(part, owner.st_uid, owner.st_gid)
    connection = apsw.Connection(str(part))
    try:
        refuse_newer(connection, steps("state"), str(copy))
        if version(connection) < 1:
            raise StoreError(f"{copy}: not a backup of agentd's state")
        connection.pragma("journal_mode", "DELETE")
        connection.pragma("synchronous", "FULL")
        meta.put(connection, meta.HELD, f"restored at {iso(now)} from {copy.name}")
    finally:
        connection.close()
    _sync(part)


def _is_state(copy: Path) -> bool:
    """Whether a sound file is a store of ours with alerts; the history is one without."""
    try:
        connection = files.open_reader(copy)
        try:
            tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        finally:
            connection.close()
    except apsw.Error:
        return False
    return {"meta", "alerts", "outbox"} <= tables


def _fold_wal(current: Path, kept: Path) -> None:
    """
    The present WAL must not be read into the restored file: write it back, or keep it beside the kept file.
    """
    wal, shm = (current.with_name(current.name + suffix) for suffix in ("-wal", "-shm"))
    if current.exists():
        try:
            connection = files.open_writer(current, durable=True)
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                connection.close()
        except (apsw.Error, StoreError):
            pass  # damaged: that is why somebody restores
    if wal.exists():
        wal.replace(kept.with_name(kept.name + "-wal"))
    shm.unlink(missing_ok=True)


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
