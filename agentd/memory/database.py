"""
One SQLite file: one writer thread that commits in groups, and two readers beside it.

In: functions over a connection, from the event loop.  Out: their results, once they are on disk.
Promise: `write` returns only after COMMIT. Changes that wait while a commit runs share the next one, each
behind a savepoint of its own, so one that fails undoes only itself. A change may run twice (the first attempt
rolled back), so it must do nothing but use the connection it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import apsw

from agentd.clock import Clock, SystemClock
from agentd.errors import StoreError, StoreFull
from agentd.memory import backup, files
from agentd.memory.migrate import Migration, migrate, refuse_newer, steps
from agentd.memory.room import free_bytes

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_BATCH = 512
MAX_BATCH_S = 0.02
MAX_POSTS = 1000
READERS = 2
_TIGHT_WAL_PAGES = 32
_NO_ROOM_BYTES = 64 * 1024
_GENERAL = (apsw.FullError, apsw.IOError, apsw.NoMemError, *files.DAMAGE)


@dataclass(slots=True, eq=False)
class _Job:
    """A queued change. future: None for a post. alone: runs outside of any transaction."""

    change: Callable[[apsw.Connection], Any]
    future: asyncio.Future[Any] | None
    alone: bool = False
    result: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Counts:
    """What the file has seen since it was opened."""

    commits: int = 0
    changes: int = 0
    dropped: int = 0
    failed_posts: int = 0
    replaced: int = 0


@dataclass(slots=True)
class _Hooks:
    make_room: Callable[[], bool] = field(default=lambda: False)
    filled: Callable[[], None] = field(default=lambda: None)


class Database:
    """
    One open store file. Made by `open` or `open_readonly`; used from one event loop.

    counts: commits, changes, posts dropped. paused: while True every post is dropped and counted.
    took: told on the writer thread how long each transaction took, seconds, if it was committed at once.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self.counts = Counts()
        self.paused = False
        self.took: Callable[[float], None] = lambda seconds: None
        self._loop = loop
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._next: _Job | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._writer: apsw.Connection | None = None
        self._pending = 0
        self._posts = 0
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"{path.stem}-reader")
        self._local = threading.local()
        self._open_readers: list[apsw.Connection] = []
        self._generation = 0
        self._closed = False
        self._durable = True
        self._migrations: Sequence[Migration] = ()
        self._backups: Path | None = None
        self._clock: Clock = SystemClock()
        self._hooks = _Hooks()

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        migrations: Sequence[Migration] | str,
        durable: bool,
        clock: Clock | None = None,
        backups: Path | None = None,
        make_room: Callable[[], bool] | None = None,
        filled: Callable[[], None] | None = None,
    ) -> Database:
        """
        Open for reading and writing, bringing the schema up to date.

        migrations: the steps, or the name of their family (`state`, `history`).
        durable: True for state: each commit is on disk, a damaged file is refused. False for history: a power cut may
        take the last commits, a damaged file is set aside and begun anew.
        backups: folder for the copy made before a migration; default: `backups` beside the file.
        make_room: called on the writer thread when the disk is full; True means that the commit is tried once more.
        filled: called on the writer thread whenever a commit met a full disk.
        Raises StoreError (damaged, newer, not writable) or StoreFull.
        """
        self = cls(path, asyncio.get_running_loop())
        self._durable = durable
        self._migrations = steps(migrations) if isinstance(migrations, str) else migrations
        self._backups = backups if backups is not None else path.parent / "backups"
        self._clock = clock or SystemClock()
        self._hooks = _Hooks(make_room or (lambda: False), filled or (lambda: None))
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(opened,), name=f"{path.stem}-writer", daemon=True)
        self._pending += 1
        self._thread.start()
        try:
            await opened
        except BaseException:
            self._closed = True
            self._queue.put(None)
            raise
        return self

    @classmethod
    async def open_readonly(cls, path: Path, *, migrations: Sequence[Migration] | str) -> Database:
        """
        Open for reading alone; never creates, migrates or repairs. `write` raises StoreError.

        Raises StoreError when it is missing, damaged, or of a newer agentd.
        """
        self = cls(path, asyncio.get_running_loop())
        self._migrations = steps(migrations) if isinstance(migrations, str) else migrations

        def look(connection: apsw.Connection) -> None:
            refuse_newer(connection, self._migrations, str(path))

        try:
            await self.read(look)
        except BaseException:
            await self.close()
            raise
        return self

    @property
    def pending(self) -> int:
        """Changes that are queued or running; 0 when all that was handed in is settled."""
        return self._pending

    async def write(self, change: Callable[[apsw.Connection], T]) -> T:
        """
        Run `change` in a transaction and return what it returned, once that is committed.

        Raises StoreFull when the disk has no room (nothing was done), StoreError for whatever else SQLite says,
        and whatever `change` itself raised; its own part is then rolled back. A cancelled caller changes nothing:
        the change still commits whole, or not at all.
        """
        result: T = await self._submit(change, alone=False)
        return result

    async def alone(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run `work` on the writer outside of any transaction: checkpoints and the like. Must be short."""
        result: T = await self._submit(work, alone=True)
        return result

    async def loosen(self) -> None:
        """The disk has room again: the WAL may be as long as it is best for speed."""
        await self.alone(lambda c: c.wal_autocheckpoint(files.WAL_PAGES))

    def post(self, change: Callable[[apsw.Connection], Any]) -> bool:
        """
        Queue a change that nobody waits for. For history only: it may be lost.

        Returns False, and counts it as dropped, when a thousand wait already, while paused, or after close.
        """
        if self._closed or self.paused or self._posts >= MAX_POSTS or self._thread is None:
            self.counts.dropped += 1
            return False
        self._posts += 1
        self._pending += 1
        self._queue.put(_Job(change, None))
        return True

    async def read(self, query: Callable[[apsw.Connection], T]) -> T:
        """
        Run `query` on a reader thread, in one snapshot: it sees all that was committed before.

        Raises StoreError for what SQLite says, and whatever `query` itself raised.
        """
        if self._closed:
            raise StoreError(f"{self.path}: closed")
        return await self._loop.run_in_executor(self._readers, self._read, query)

    async def close(self) -> None:
        """Finish what is queued, write the WAL back into the file, and let go of it. Twice is once."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._queue.put(None)
            await self._loop.run_in_executor(None, self._thread.join)
        await self._loop.run_in_executor(None, self._readers.shutdown)
        for connection in self._open_readers:
            connection.close()
        self._open_readers.clear()

    # on the loop

    async def _submit(self, change: Callable[[apsw.Connection], Any], *, alone: bool) -> Any:
        if self._thread is None:
            raise StoreError(f"{self.path}: open for reading only")
        if self._closed:
            raise StoreError(f"{self.path}: closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending += 1
        self._queue.put(_Job(change, future, alone))
        return await future

    def _settle(self, jobs: list[_Job]) -> None:
        self._pending -= len(jobs)
        for job in jobs:
            if job.future is None:
                self._posts -= 1
                if job.error is not None:
                    self._post_failed(job.error)
            elif not job.future.done():
                if job.error is None:
                    job.future.set_result(job.result)
                else:
                    job.future.set_exception(job.error)

    def _post_failed(self, error: BaseException) -> None:
        self.counts.failed_posts += 1
        if self.counts.failed_posts == 1 or self.counts.failed_posts % 1000 == 0:
            log.warning(
                "history_write_failed",
                extra={"file": self.path.name, "error": str(error), "failed": self.counts.failed_posts},
            )

    def _suspect(self) -> None:
        """A reader met damage: let the writer look at the whole file, which replaces it if that is so."""
        if self._closed or self._thread is None:
            return
        self._posts += 1
        self._pending += 1
        self._queue.put(_Job(lambda c: files.look_for_damage(c, self.path, whole=True), None, alone=True))

    # on reader threads

    def _read(self, query: Callable[[apsw.Connection], T]) -> T:
        try:
            connection = self._reader()
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except files.DAMAGE as error:
            if self._durable:
                raise files.damaged_state(self.path, error) from error
            self._loop.call_soon_threadsafe(self._suspect)
            raise StoreError(f"{self.path}: damaged ({error}); it is being set aside and begun anew") from error
        except apsw.Error as error:
            raise StoreError(f"{self.path}: cannot be read: {error}") from error

    def _reader(self) -> apsw.Connection:
        generation, connection = getattr(self._local, "reader", (-1, None))
        if connection is None or generation != self._generation:
            generation = self._generation
            connection = files.open_reader(self.path)
            self._open_readers.append(connection)
            self._local.reader = (generation, connection)
        assert isinstance(connection, apsw.Connection)
        return connection

    # on the writer thread

    def _work(self, opened: asyncio.Future[None]) -> None:
        first = _Job(lambda _: None, opened)
        try:
            self._writer = self._open_or_replace()
        except OSError as error:
            first.error = self._cannot_open(error)
        except Exception as error:
            first.error = self._explain(error)
        self._tell([first])
        if first.error is not None:
            return
        while not self._stopping:
            job = self._next or self._queue.get()
            self._next = None
            if job is None:
                break
            if job.alone:
                self._run_alone(job)
                self._tell([job])
            else:
                self._tell(self._transaction(job))
        self._let_go()

    def _tell(self, jobs: list[_Job]) -> None:
        """One wake-up of the loop for all that a commit settled."""
        try:
            self._loop.call_soon_threadsafe(self._settle, jobs)
        except RuntimeError:
            self._stopping = True  # the loop is gone, and with it everybody who could wait

    def _transaction(self, first: _Job) -> list[_Job]:
        """Run `first` and what queued up behind it in one transaction; returns the jobs that are settled."""
        jobs: list[_Job] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            until = began + MAX_BATCH_S
            job: _Job | None = first
            while job is not None:
                jobs.append(job)
                self._run(job)
                job = self._following(len(jobs), until)
            self._connection.execute("COMMIT")
            self._count(len(jobs))
            self.took(time.perf_counter() - began)
        except Exception as error:
            if not jobs:
                jobs = [first]
            self._undo()
            self._again(jobs, error)
        return jobs

    def _following(self, taken: int, until: float) -> _Job | None:
        """The next job for the open transaction, if one waits and there is time left."""
        if taken >= MAX_BATCH or time.perf_counter() >= until:
            return None
        try:
            job = self._queue.get_nowait()
        except queue.Empty:
            return None
        if job is None:
            self._stopping = True
        elif job.alone:
            self._next = job
        else:
            return job
        return None

    def _run(self, job: _Job) -> None:
        """Run one change behind its savepoint. Raises when the whole transaction is lost with it."""
        connection = self._connection
        job.error = None
        connection.execute("SAVEPOINT one")
        try:
            job.result = job.change(connection)
        except Exception as error:
            # A full disk or a failing one is no fault of this change, and SQLite may have rolled back everything.
            if not connection.in_transaction or isinstance(error, _GENERAL):
                raise
            connection.execute("ROLLBACK TO one")
            job.error = self._explain(error)
        connection.execute("RELEASE one")

    def _again(self, jobs: list[_Job], error: Exception) -> None:
        """The transaction failed as a whole: make room or repair if we can, then give each change one of its own."""
        may_make_room = self._is_full(error)
        try:
            if may_make_room:
                self._hooks.filled()
                self._reuse_wal()
            alone_may_do = not isinstance(error, apsw.BusyError) and self._repaired(error)
        except Exception as stumble:
            # Whatever a failing disk comes up with: who waits gets an answer, and the writer goes on.
            log.exception("writer_stumbled", extra={"file": str(self.path)})
            error, alone_may_do = stumble, False
        if not alone_may_do:
            for job in jobs:
                job.error = self._explain(error)
            return
        for job in jobs:
            try:
                failure = self._single(job)
                if failure is not None and may_make_room and self._is_full(failure):
                    may_make_room = False
                    if self._hooks.make_room():
                        self._reuse_wal()
                        failure = self._single(job)
            except Exception as stumble:
                log.exception("writer_stumbled", extra={"file": str(self.path)})
                failure = stumble
            if failure is not None:
                job.error = self._explain(failure)

    def _reuse_wal(self) -> None:
        """
        Write the WAL back, so that it begins again at its start instead of growing, and keep it short from now on:
        a WAL that took the last byte leaves none for the file it is to be written back into.
        """
        with contextlib.suppress(apsw.Error):
            self._connection.wal_autocheckpoint(_TIGHT_WAL_PAGES)
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)

    def _repaired(self, error: Exception) -> bool:
        """False when the file is damaged and cannot be begun anew."""
        if not isinstance(error, files.DAMAGE):
            return True
        if self._durable:
            return False
        try:
            self._replace(error)
        except Exception as worse:
            log.error("history_lost", extra={"file": str(self.path), "error": str(worse)})
            return False
        return True

    def _single(self, job: _Job) -> Exception | None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._run(job)
            self._connection.execute("COMMIT")
        except Exception as error:
            self._undo()
            return error
        self._count(1)
        return None

    def _run_alone(self, job: _Job) -> None:
        try:
            job.result = job.change(self._connection)
        except Exception as error:
            self._undo()
            self._repaired(error)
            job.error = self._explain(error)

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            log.error("rollback_failed", extra={"file": str(self.path), "error": str(error)})

    def _count(self, changes: int) -> None:
        self.counts.commits += 1
        self.counts.changes += changes

    @property
    def _connection(self) -> apsw.Connection:
        assert self._writer is not None
        return self._writer

    def _open_or_replace(self) -> apsw.Connection:
        try:
            return self._open_whole()
        except files.DAMAGE as error:
            if self._durable:
                raise
            self._set_aside(error)
            return self._open_whole()

    def _open_whole(self) -> apsw.Connection:
        connection = files.open_writer(self.path, durable=self._durable)
        try:
            files.look_for_damage(connection, self.path)
            migrate(connection, self._migrations, str(self.path), before=self._back_up)
        except BaseException:
            connection.close()
            raise
        return connection

    def _back_up(self) -> None:
        assert self._backups is not None
        # History may be large and no alert hangs on it: one copy is enough.
        backup.make(self.path, self._backups, self._clock.now(), keep=3 if self._durable else 1)

    def _replace(self, error: Exception) -> None:
        """History was found damaged while in use: begin anew, readers follow."""
        self._connection.close()
        self._set_aside(error)
        self._writer = self._open_whole()
        self._generation += 1

    def _set_aside(self, error: Exception) -> None:
        aside = files.set_aside(self.path, self._clock.now())
        self.counts.replaced += 1
        log.warning("history_replaced", extra={"file": str(self.path), "set_aside_as": str(aside), "error": str(error)})

    def _let_go(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error as error:
            # A reader still looks, or the disk is full: the WAL stays and the next start reads it.
            log.info("checkpoint_left_to_next_start", extra={"file": self.path.name, "error": str(error)})
        self._connection.close()

    def _is_full(self, error: Exception) -> bool:
        if isinstance(error, apsw.FullError):
            return True
        if not isinstance(error, apsw.IOError | apsw.CantOpenError):
            return False
        # The shared memory beside the WAL cannot grow either on a full disk, but SQLite calls that an I/O error.
        code = self._writer.system_errno if self._writer is not None else 0
        if code in (errno.ENOSPC, errno.EDQUOT):
            return True
        try:
            return free_bytes(self.path.parent) < _NO_ROOM_BYTES
        except OSError:
            return False  # a file system that is gone is not full

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, StopIteration):  # a future refuses to carry it
            return StoreError(f"{self.path}: a change looked for a row that is not there")
        if isinstance(error, OSError):
            return self._cannot_open(error)
        if not isinstance(error, apsw.Error):
            return error
        if self._is_full(error):
            explained: StoreError = StoreFull(f"{self.path}: no room on the disk; free some, nothing was written")
        elif isinstance(error, files.DAMAGE) and self._durable:
            explained = files.damaged_state(self.path, error)
        elif isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError):
            explained = self._cannot_open(error)
        else:
            explained = StoreError(f"{self.path}: {error}")
        explained.__cause__ = error
        return explained

    def _cannot_open(self, error: Exception) -> StoreError:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StoreFull(f"{self.path}: no room on the disk; free some and start again")
        return StoreError(f"{self.path}: cannot be written: {error}; check owner and rights of its folder")
