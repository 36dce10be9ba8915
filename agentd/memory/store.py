"""
The store as a whole: the state file, the history file, who owns them, and what is done when the disk is full.

In: a state directory.  Out: two open databases and the housekeeping that keeps them small and copied.
Promise: one owner at a time. Losing history loses no alert. On a full disk history stops first, and the ballast is
given up so that alert state still commits; nothing exits.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import apsw

from agentd.clock import Clock, SystemClock
from agentd.errors import StoreBusy, StoreError, StoreFull
from agentd.memory import backup, retention
from agentd.memory.database import Database
from agentd.memory.files import BUSY_TIMEOUT_MS
from agentd.memory.lost import refuse_lost
from agentd.memory.retention import Retention
from agentd.memory.room import Ballast, free_bytes

log = logging.getLogger(__name__)

STATE = "state.db"
HISTORY = "history.db"
BACKUPS = "backups"
KEEP_BACKUPS = 3
BACKUP_EVERY = timedelta(hours=6)
BALLAST_BYTES = 4 * 2**20
RESERVE_BYTES = 8 * 2**20
_LEAST_HISTORY = 4 * 2**20
_LARGE_WAL = 4 * 2**20
_MAX_STEPS = 400


class Store:
    """
    Made by `open`; closed by `close`.

    state, history: the databases. full: the disk has no room; history is dropped and counted meanwhile.
    on_full: called on the loop with True when the disk is full, with False when there is room again.
    trouble: what a person should look at (the state file may be damaged), or None.
    """

    state: Database
    history: Database

    def __init__(self, path: Path, clock: Clock, keep: Retention, ballast: Ballast, reserve_bytes: int) -> None:
        self.path = path
        self.clock = clock
        self.keep = keep
        self.full = False
        self.on_full: list[Callable[[bool], None]] = []
        self.trouble: str | None = None
        self.read_only = False
        self._ballast = ballast
        self._reserve = reserve_bytes
        self._loop = asyncio.get_running_loop()
        self._lock = -1
        self._backed_up: float | None = None
        self._tidying = asyncio.Lock()

    @classmethod
    async def open(
        cls,
        state_dir: Path,
        *,
        clock: Clock | None = None,
        keep: Retention | None = None,
        max_size: int | None = None,
        ballast_bytes: int = BALLAST_BYTES,
        reserve_bytes: int = RESERVE_BYTES,
        read_only: bool = False,
    ) -> Store:
        """
        Open the store of `state_dir`, making it when there is none.

        keep: retention; max_size: shorthand for a retention of that size in bytes. reserve_bytes: history stops when
        less than that is free. read_only: for commands without a daemon: no lock, nothing is made, migrated or written.
        Raises StoreBusy (names the owner), StoreFull, StoreError (with the cure).
        """
        keep = keep or Retention()
        if max_size is not None:
            keep = Retention(max_size, keep.results, keep.rollups, keep.runs, keep.events)
        self = cls(
            state_dir, clock or SystemClock(), keep, Ballast(state_dir / "ballast", ballast_bytes), reserve_bytes
        )
        self.read_only = read_only
        async with contextlib.AsyncExitStack() as stack:
            if read_only:
                self.state = await Database.open_readonly(state_dir / STATE, migrations="state")
                stack.push_async_callback(self.state.close)
                self.history = await Database.open_readonly(state_dir / HISTORY, migrations="history")
            else:
                self._lock = lock(state_dir)
                stack.callback(self._unlock)
                await self._open_databases(stack)
            stack.pop_all()
        return self

    async def _open_databases(self, stack: contextlib.AsyncExitStack) -> None:
        await asyncio.to_thread(refuse_lost, self.path / STATE, self.path / HISTORY, self.path / BACKUPS)
        self.state = await self._opened(self._open_state)
        stack.push_async_callback(self.state.close)
        self.history = await self._opened(self._open_history)
        stack.push_async_callback(self.history.close)
        self.history.paused = self.full
        if not self.full and not await asyncio.to_thread(self._ballast.put):
            self._set_full(True)
        self.check_room()

    async def _opened(self, opening: Callable[[], Awaitable[Database]]) -> Database:
        try:
            return await opening()
        except StoreFull:
            # A full disk must not keep the daemon from starting: this, too, is what the ballast is for.
            if not self._ballast.drop():
                raise
            self._set_full(True)
            return await opening()

    async def _open_state(self) -> Database:
        return await Database.open(
            self.path / STATE,
            migrations="state",
            durable=True,
            clock=self.clock,
            backups=self.path / BACKUPS,
            make_room=self._ballast.drop,
            filled=self._filled,
        )

    async def _open_history(self) -> Database:
        return await Database.open(
            self.path / HISTORY,
            migrations="history",
            durable=False,
            clock=self.clock,
            backups=self.path / BACKUPS,
            filled=self._filled,
        )

    async def close(self) -> None:
        """Commit what is queued, leave two whole files, let the next owner in."""
        await self.history.close()
        await self.state.close()
        self._unlock()

    @property
    def pending(self) -> int:
        """Changes not yet settled, of both files."""
        return self.state.pending + self.history.pending

    def check_room(self) -> None:
        """Stop history before the disk is full to the last byte. One system call; the recorder asks every second."""
        with contextlib.suppress(OSError):  # a folder that cannot be asked: the writes say what is wrong with it
            if not self.full and free_bytes(self.path) < self._reserve:
                self._set_full(True)

    async def recover(self) -> bool:
        """When there is room again: put the ballast back and let history go on. Returns whether all is well."""
        if not self.full:
            return True
        missing = 0 if self._ballast.is_there() else self._ballast.size
        # Twice the reserve, so that a disk at the brink does not go to and fro.
        if free_bytes(self.path) < missing + 2 * self._reserve:
            return False
        if not await asyncio.to_thread(self._ballast.put):
            return False
        await self.state.loosen()
        await self.history.loosen()
        self._set_full(False)
        return True

    async def housekeeping(self, now: datetime) -> None:
        """
        Let go of what is too old or too much, roll up, give room back to the disk, make the backup that is due.

        To be called about once a minute. In small steps: a write that comes in meanwhile waits for one step.
        Never raises StoreError: what could not be done is logged and done the next time.
        """
        if self._tidying.locked():
            return
        async with self._tidying:
            try:
                await self.recover()
                for step in retention.state_steps(self.keep, now):
                    await self._repeat(self.state, step)
                room = await asyncio.to_thread(self._room_for_history)
                for step in retention.history_steps(self.keep, now, room):
                    await self._repeat(self.history, step)
                await self._repeat(self.history, lambda c: retention.shrink(c, room))
                await self._repeat(self.state, lambda c: retention.shrink(c, self.keep.max_size))
                for database in (self.state, self.history):
                    await self._cut_wal(database)
                await self._back_up_when_due(now)
            except StoreError as error:
                log.warning("housekeeping_stopped", extra={"error": str(error)})

    async def back_up(self, now: datetime) -> Path:
        """Copy the state file now; returns the copy. Raises StoreError or StoreFull."""
        return await asyncio.to_thread(backup.make, self.path / STATE, self.path / BACKUPS, now, KEEP_BACKUPS)

    async def _repeat(self, database: Database, step: retention.Step) -> None:
        for _ in range(_MAX_STEPS):
            if await database.write(step) < retention.STEP_ROWS:
                return
            await asyncio.sleep(0)

    async def _cut_wal(self, database: Database) -> None:
        """After a burst the WAL file keeps its size; write it back and cut it, unless a reader still needs it."""
        wal = database.path.with_name(database.path.name + "-wal")
        with contextlib.suppress(OSError):
            if wal.stat().st_size > _LARGE_WAL:
                await database.alone(cut_wal)

    async def _back_up_when_due(self, now: datetime) -> None:
        passed = self.clock.monotonic()
        if self._backed_up is None:
            copies = backup.listed(self.path / BACKUPS, Path(STATE).stem)
            age = now - backup.made_at(copies[-1]) if copies else BACKUP_EVERY
            self._backed_up = passed - min(max(age, timedelta(0)), BACKUP_EVERY).total_seconds()
        if self.full or passed - self._backed_up < BACKUP_EVERY.total_seconds():
            return
        # Also after a failure not before the next turn: a damaged file is not read through once a minute.
        self._backed_up = passed
        if free_bytes(self.path) < (self.path / STATE).stat().st_size + 2 * self._reserve:
            log.warning("backup_skipped", extra={"reason": "no room on the disk", "folder": str(self.path)})
            return
        try:
            await self.back_up(now)
        except StoreError as error:
            self.trouble = str(error)
            log.error("backup_failed", extra={"error": str(error)})
        else:
            self.trouble = None

    def _room_for_history(self) -> int:
        """Bytes that history may take: what is left of max_size beside everything else."""
        other = 0
        with os.scandir(self.path) as entries:
            for entry in entries:
                if entry.is_file(follow_symlinks=False) and entry.name not in (HISTORY, HISTORY + "-shm"):
                    other += entry.stat(follow_symlinks=False).st_size
        other += sum(path.stat().st_size for path in (self.path / BACKUPS).glob("*") if path.is_file())
        return max(_LEAST_HISTORY, self.keep.max_size - other)

    def _filled(self) -> None:
        """On a writer thread: a commit met a full disk."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._set_full, True)

    def _set_full(self, full: bool) -> None:
        if full == self.full:
            return
        self.full = full
        if hasattr(self, "history"):
            self.history.paused = full
        if full:
            log.error("disk_full", extra={"folder": str(self.path), "free_bytes": free_bytes(self.path)})
        else:
            log.warning("disk_has_room", extra={"folder": str(self.path), "free_bytes": free_bytes(self.path)})
        for tell in self.on_full:
            tell(full)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def lock(state_dir: Path) -> int:
    """
    Become the owner of `state_dir`, making it (0700) when it is not there. Returns the file descriptor to close.

    Raises StoreBusy, naming the process that owns it, or StoreError.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(
            f"{state_dir}: {error.strerror}; create it for the user that runs agentd, or name another state_dir"
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        os.close(handle)
        raise StoreBusy(
            f"{state_dir}: agentd with pid {owner or '?'} owns it; stop that one, or name another state_dir"
        ) from error
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the number
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def cut_wal(c: apsw.Connection) -> bool:
    """Write the WAL back and cut it to nothing; False at once when a reader is in the way."""
    c.set_busy_timeout(0)
    try:
        c.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except apsw.BusyError:
        return False
    finally:
        c.set_busy_timeout(BUSY_TIMEOUT_MS)
    return True
