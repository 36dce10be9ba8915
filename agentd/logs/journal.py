"""
The systemd journal as a source.

In: the settings, and the cursor that was stored last. Out: batches of entries with their fields, and the cursor after
them.
Promise: every entry that the settings choose comes once, over restarts of ours and of journald, rotation and reboots.
What was removed before we came to it (a vacuum, a volatile journal and a reboot) nobody can read: it is counted and
said. A journal that we may not read, or only in part, is `blind`.

The position is a cursor; `time=…` (microseconds) as long as there was no entry to stand at. It goes on also when
nothing that is chosen comes, so that a vacuum of what was passed over is no loss.

libsystemd maps the files into memory and skips damaged ones by itself; but a file that is cut short while it is
mapped ends the process (SIGBUS). journald never does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agentd.clock import to_us
from agentd.logs.journal_cursor import Spot, missing, spot
from agentd.logs.journal_entry import JournalFields, JournalParser, Raw, cut, message_of, readable
from agentd.logs.journal_files import Sight, look
from agentd.logs.journal_filter import Filter
from agentd.logs.port import Batch, Block, Counters
from agentd.logs.settings import JournalSource

__all__ = ["STREAM", "Journal", "JournalParser", "open_journal"]

STREAM = "journal"
_TIME = "time="
_MOST_ENTRIES = 4096
"""Entries looked at in one read: each is held with all its fields."""
_FIELD_BYTES = 4
"""So many bytes of fields are held for each byte of text that was asked for."""
_STORE_EVERY_S = 60.0
_LOOK_EVERY_S = 60.0
_LOOK_AGAIN_S = 5.0
_POLL_S = 1.0
"""How often to look where nothing rings: a network file system, or no inotify watch to be had."""
_MOST_DAMAGED = 100


def open_journal(
    settings: JournalSource,
    *,
    positions: Mapping[str, str],
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    path: Path | None = None,
) -> Journal:
    """
    The journal from where `positions["journal"]` says, else from where the settings let it begin.

    path: a folder of journal files instead of this machine's journal. Nothing is opened before the first read.
    Raises ConfigError when the settings name a field that cannot be.
    """
    return Journal(settings, positions.get(STREAM), now, monotonic, path)


class Journal:
    """A `Source`; give its blocks to a `JournalParser`."""

    def __init__(
        self,
        settings: JournalSource,
        position: str | None,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        path: Path | None,
    ) -> None:
        self.counters = Counters()
        self._settings = settings
        self._filter = Filter(settings)
        self._now = now
        self._monotonic = monotonic
        self._path = path
        self._closed = False

        self._reader: Any = None
        self._tail: Any = None
        """A second reader, without matches: it knows where the journal ends."""
        self._fd: int | None = None
        self._rings = False

        self._done = spot(position) if position is not None else None
        self._since_us = _time(position)
        self._unreadable = position if self._done is None and self._since_us is None else None
        self._held = False
        """The reader stands at an entry that was not taken yet."""
        self._at_end = False
        self._stored = position
        self._stored_at = 0.0

        self._sight: Sight | None = None
        self._looked_at = 0.0

    def read(self, most_bytes: int) -> Batch:
        batch = Batch()
        if self._closed:
            return batch
        began = self._now()
        try:
            self._look(changed=False)
            if self._reader is None:
                self._open(batch)
                end = self._end()
            else:
                # The end is taken before the reader hears of new files: what it then has not got lies beyond that.
                end = self._end()
                self._process(batch)
            self._take(batch, most_bytes, began, end)
        except (OSError, ValueError, MemoryError) as error:
            self._drop()
            batch.more = False
            batch.blind = self._blind or f"cannot read the journal: {error}"
        except ImportError:
            batch.blind = (
                "the journal needs the Python package systemd-python, which is not installed; install agentd[systemd] "
                "(it is built with the headers of libsystemd: libsystemd-dev, or systemd-devel)"
            )
        else:
            batch.blind = self._blind
        if self._at_end and not batch.more and batch.blind is None:
            batch.caught_up = began
        self._store(batch)
        return batch

    async def wait(self, timeout_s: float) -> None:
        # New files are looked for now and then even so: inotify says nothing when it has no watches left to give.
        timeout_s = min(timeout_s, _LOOK_AGAIN_S if self._blind is not None else _LOOK_EVERY_S)
        if not self._rings:
            timeout_s = min(timeout_s, _POLL_S)
        fd = self._fd
        if fd is None:
            await asyncio.sleep(timeout_s)
            return
        rung = asyncio.Event()
        loop = asyncio.get_running_loop()

        # Taken away again in any case: the descriptor rings on until the log thread has processed it.
        loop.add_reader(fd, rung.set)
        try:
            async with asyncio.timeout(timeout_s):
                await rung.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)

    async def close(self) -> None:
        self._closed = True
        self._drop()

    def _open(self, batch: Batch) -> None:
        self._begin(batch)
        self._reader = reader = _new_reader(self._path)
        self._filter.apply(reader, _boot_id())
        # Before it goes to its place: from here on it hears of new files.
        self._fd = _listen(reader)
        self._rings = self._fd is not None and reader.reliable_fd()
        self._held = self._at_end = False
        if self._done is not None:
            self._held = _go_behind(reader, self._done)
            self._note_what_is_missing(batch)
        elif self._since_us is not None:
            reader.seek_realtime(self._since_us)
        else:
            reader.seek_head()

    def _begin(self, batch: Batch) -> None:
        """Where to start when there is no position, or none that can be read."""
        if self._unreadable is not None:
            self.counters.lost += 1
            batch.notes.append(
                f"the stored position in the journal cannot be read ({self._unreadable[:100]!r}); "
                f"going on from its {self._settings.start_at}"
            )
            self._unreadable = None
        starts_at_end = self._done is None and self._since_us is None and self._settings.start_at == "end"
        if starts_at_end and self._blind is not None:
            # What we cannot see now is old once we can.
            self._since_us = to_us(self._now())
        self._tail = _plain_reader(self._path)
        if starts_at_end and self._since_us is None:
            # Without the matches: at the tail of a match that has no entries yet the reader would stay at the end
            # for ever, and pass over the first ones that come.
            self._done = _last(self._tail)
            if self._done is None:
                self._since_us = to_us(self._now())

    def _end(self) -> Spot | None:
        """The journal's last entry, if the reader's matches may keep it from seeing it."""
        if not self._filter.indexed:
            return None
        self._tail.process()
        return _last(self._tail)

    def _process(self, batch: Batch) -> None:
        from systemd import journal

        if self._reader.process() == journal.INVALIDATE:
            self._look(changed=True)
            if self._reader is None:
                self._open(batch)
            elif self._done is not None:
                self._note_what_is_missing(batch)

    def _take(self, batch: Batch, most_bytes: int, began: datetime, end: Spot | None) -> None:
        reader, counters, wanted = self._reader, self.counters, self._filter.wanted
        text = bytearray()
        starts: list[int] = []
        cursors: list[str] = []
        fields: list[JournalFields] = []
        weight = looked_at = damaged = 0
        newest: str | None = None
        self._at_end = False
        while looked_at < _MOST_ENTRIES and len(text) < most_bytes and weight < _FIELD_BYTES * most_bytes:
            if not self._held and not reader._next():
                self._at_end = True
                break
            self._held = False
            looked_at += 1
            # Not get_next(): it converts every field, which takes four times as long as all of this, and an entry
            # without readable fields looks to it like the end.
            try:
                cursor, realtime_us = reader._get_cursor(), reader._get_realtime()
                raw: Raw = reader._get_all()
            except OSError as error:
                damaged += 1
                if damaged > _MOST_DAMAGED:
                    raise
                counters.lost += 1
                batch.notes.append(f"an entry of the journal is damaged and was passed over: {error.strerror}")
                continue
            newest = cursor
            if wanted is not None and not wanted(raw):
                continue
            weight += cut(raw, counters)
            starts.append(len(text))
            cursors.append(cursor)
            fields.append(JournalFields(raw, realtime_us, counters))
            text += readable(message_of(raw), counters)
            text += b"\n"
        if newest is not None:
            self._done = spot(newest) or self._done
        if self._at_end and end is not None and (self._done is None or end.is_after(self._done)):
            self._done = end
        batch.more = not self._at_end
        if starts:
            offset = counters.bytes
            counters.bytes += len(text)
            counters.lines += len(starts)
            batch.blocks.append(
                Block(STREAM, STREAM, bytes(text), offset, began, began, starts, cursors=cursors, fields=fields)
            )

    def _note_what_is_missing(self, batch: Batch) -> None:
        assert self._done is not None
        # Entries that we may not read, or that are not asked for, leave gaps that mean nothing.
        if self._blind is not None or (self._settings.boot == "current" and self._done.boot != _boot_id()):
            return
        tail = self._tail
        tail.process()
        held = _go_behind(tail, self._done, found := [False])
        following = spot(tail._get_cursor()) if held or tail._next() else None
        note = missing(self._done, found[0], following)
        if note is not None:
            self.counters.lost += 1
            batch.notes.append(note)

    def _look(self, *, changed: bool) -> None:
        """
        See anew which files there are, and whether we may read them all.

        changed: libsystemd has just told us of new files. Those that it did not notice, or could not open, are there
        after the journal is opened anew.
        """
        at = self._monotonic()
        every_s = _LOOK_AGAIN_S if self._blind is not None or self._fd is None else _LOOK_EVERY_S
        if not changed and self._sight is not None and at - self._looked_at < every_s:
            return
        self._looked_at = at
        was, self._sight = self._sight, look(self._path)
        if was is None or was == self._sight:
            return
        if not changed or (was.blind is not None and was.blind != self._sight.blind):
            self._drop()

    @property
    def _blind(self) -> str | None:
        return None if self._sight is None else self._sight.blind

    def _store(self, batch: Batch) -> None:
        position = self._done.cursor if self._done is not None else None
        if position is None and self._since_us is not None:
            position = f"{_TIME}{self._since_us}"
        if position is None or position == self._stored:
            return
        at = self._monotonic()
        if batch.blocks or self._stored is None or at - self._stored_at >= _STORE_EVERY_S:
            batch.positions[STREAM] = position
            self._stored, self._stored_at = position, at

    def _drop(self) -> None:
        # sd-journal(3) wants an object used and freed by one thread only; freeing from another is safe all the same
        # when nobody uses it at the time, for it holds nothing of its thread.
        self._fd = None
        for reader in (self._reader, self._tail):
            if reader is not None:
                reader.close()
        self._reader = self._tail = None


def _time(position: str | None) -> int | None:
    text = (position or "").removeprefix(_TIME)
    return int(text) if position != text and text.isascii() and text.isdigit() and len(text) < 18 else None


def _boot_id() -> str:
    from systemd import id128

    return str(id128.get_boot().hex)


def _new_reader(path: Path | None) -> Any:
    from systemd import journal

    return journal.Reader() if path is None else journal.Reader(path=str(path))


def _plain_reader(path: Path | None) -> Any:
    reader = _new_reader(path)
    _listen(reader)
    return reader


def _listen(reader: Any) -> int | None:
    """Let the reader hear of new entries and files; None when there is no inotify to be had."""
    try:
        return int(reader.fileno())
    except OSError:
        return None


def _last(reader: Any) -> Spot | None:
    """The last entry, of a reader without matches."""
    reader.seek_tail()
    if not reader._next(-1):
        return None
    while reader._next():  # of several files, the one it went to need not hold the last
        pass
    return spot(reader._get_cursor())


def _go_behind(reader: Any, done: Spot, found: list[bool] | None = None) -> bool:
    """
    Place the reader right behind `done`.

    Returns whether it stands at the following entry already, which is then to be taken before it moves on.
    found: its one element is set to whether `done` itself is there.
    """
    reader.seek_cursor(done.cursor)
    steps = same = 0
    while reader._next():
        steps += 1
        here = spot(reader._get_cursor())
        if here is None:
            break
        if here.is_same(done):
            same = steps
            if here.numbering == done.numbering:
                break
        elif here.numbering == done.numbering or here.moment != done.moment:
            break
        # Renumbered (copied from /run to /var): entries of one moment are told apart by their content alone.
    if found is not None:
        found[0] = same > 0
    if same == steps:
        return False
    reader.seek_cursor(done.cursor)
    for _ in range(same + 1):
        reader._next()
    return True
