"""
The systemd journal as a source.

In: the settings, and the cursor that was stored last. Out: batches of entries with their fields, and the cursor after
them.
Promise: every entry that the settings choose comes once, over restarts of ours and of journald, rotation and reboots.
What was removed before we came to it (a vacuum, a volatile journal and a reboot) nobody can read: it is counted and
said. A journal that we may not read, or only in part, is `blind`.

The position is a cursor; `time=…` (microseconds) as long as there was no entry to stand at. It goes on also when
nothing that is chosen comes, so that a vacuum of what was passed over is no loss.

journald writes while we read, and an entry appears in one file, or in one list of the index, while a reader that has
looked there already goes on to an entry after it in another: it would be passed over. So each read takes the last
entry first, and then no more than what lies before it, all of which is in its place by then; the last entry itself is
judged by its fields.

libsystemd maps the files into memory and skips damaged ones by itself; but a file that is cut short while it is
mapped ends the process (SIGBUS). journald never does that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from agentd.clock import to_us
from agentd.logs import journal_reader
from agentd.logs.journal_cursor import Spot, Window, missing, spot
from agentd.logs.journal_entry import Gathered, JournalParser, Raw
from agentd.logs.journal_files import Sight, look
from agentd.logs.journal_filter import Filter
from agentd.logs.port import Batch, Counters
from agentd.logs.settings import JournalSource

__all__ = ["STREAM", "Journal", "JournalParser", "open_journal"]

STREAM = "journal"
_TIME = "time="
_MOST_ENTRIES = 1024
"""Entries looked at in one read: each is held with all its fields."""
_FIELD_BYTES = 4
"""So many bytes of fields are held for each byte of text that was asked for."""
_STORE_EVERY_S = 60.0
_LOOK_EVERY_S = 60.0
_LOOK_AGAIN_S = 5.0
_POLL_S = 1.0
"""How often to look where nothing rings: a network file system, or no inotify watch to be had."""
_SETTLED_S = 2.0
"""What journald writes is in all of its lists after microseconds; but it may be stopped in between."""
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
        """A second reader, without matches: it stands at the journal's last entry."""
        self._fd: int | None = None
        self._rings = False

        self._done = spot(position) if position is not None else None
        self._since_us = _time(position)
        self._unreadable = position if self._done is None and self._since_us is None else None
        self._held = False
        """The reader stands at an entry that was not taken yet."""
        self._overshot = False
        """The reader stands beyond what was taken, and has to go back."""
        self._at_end = False
        self._beyond = ""
        self._beyond_at = 0.0
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
            # The end is taken before the reader hears of new files: what it then has not got lies beyond that.
            end = self._last_entry(batch)
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
        self._reader = reader = journal_reader.open_reader(self._path)
        self._filter.apply(reader, journal_reader.boot_id())
        # Before it goes to its place: from here on it hears of new files.
        self._fd = journal_reader.listen(reader)
        self._rings = self._fd is not None and reader.reliable_fd()
        self._at_end = False
        self._go_to_place()
        if self._done is not None:
            self._note_what_is_missing(batch)

    def _go_to_place(self) -> None:
        self._held = self._overshot = False
        if self._done is not None:
            self._held = journal_reader.go_behind(self._reader, self._done)
        elif self._since_us is not None:
            self._reader.seek_realtime(self._since_us)
        else:
            self._reader.seek_head()

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
        self._tail = journal_reader.open_plain(self._path)
        if starts_at_end and self._since_us is None:
            # Without the matches: at the tail of a match that has no entries yet the reader would stay at the end
            # for ever, and pass over the first ones that come.
            self._done = journal_reader.last_entry(self._tail)
            if self._done is None:
                self._since_us = to_us(self._now())

    def _last_entry(self, batch: Batch) -> _End | None:
        self._tail.process()
        place = journal_reader.last_entry(self._tail)
        if place is None:
            return None
        if self._done is not None and not place.is_after(self._done):
            return _End(place, None)
        try:
            return _End(place, self._tail._get_all())
        except OSError as error:
            self._note_damage(batch, error)
            return _End(place, None)

    def _process(self, batch: Batch) -> None:
        from systemd import journal

        if self._reader.process() == journal.INVALIDATE:
            self._look(changed=True)
            if self._reader is None:
                self._open(batch)
            elif self._done is not None:
                self._note_what_is_missing(batch)

    def _take(self, batch: Batch, most_bytes: int, began: datetime, end: _End | None) -> None:
        reader, counters, wanted = self._reader, self.counters, self._filter.wanted
        taken = Gathered(counters)
        if self._overshot:
            self._go_to_place()
        if end is None:
            self._at_end = True
            return
        self._at_end = False
        bounds = Window(self._done, end.place)
        looked_at = damaged = 0
        newest: str | None = None
        while looked_at < _MOST_ENTRIES and taken.bytes < most_bytes and taken.weight < _FIELD_BYTES * most_bytes:
            if not self._held and not reader._next():
                self._at_end = True
                break
            self._held = False
            looked_at += 1
            # Not get_next(): it converts every field, which takes four times as long as all of this, and an entry
            # without readable fields looks to it like the end.
            try:
                cursor, realtime_us = reader._get_cursor(), reader._get_realtime()
                side = bounds.side(cursor)
                if side > 0 and not self._is_settled(cursor):
                    self._overshot = self._at_end = True
                    break
                raw: Raw = reader._get_all()
            except OSError as error:
                damaged += 1
                if damaged > _MOST_DAMAGED:
                    raise
                self._note_damage(batch, error)
                continue
            if side < 0:
                continue
            newest = cursor
            if wanted is None or wanted(raw):
                taken.add(cursor, realtime_us, raw)
        if newest is not None:
            self._done = spot(newest)
        if self._at_end and (self._done is None or end.place.is_after(self._done)):
            self._take_last(taken, end)
        batch.more = not self._at_end
        if taken.starts:
            batch.blocks.append(taken.block(STREAM, began))

    def _is_settled(self, cursor: str) -> bool:
        """
        Whether an entry beyond the end was there a while ago.

        Where clocks went wrong, order by time may put what is new before what is old, and no end would ever reach it.
        """
        at = self._monotonic()
        if cursor != self._beyond:
            self._beyond, self._beyond_at = cursor, at
        return at - self._beyond_at >= _SETTLED_S

    def _take_last(self, taken: Gathered, end: _End) -> None:
        """The journal's last entry: the index may not know it yet."""
        place, raw = end.place, end.raw
        self._done = place
        passed = self._since_us is not None and place.realtime_us < self._since_us
        if raw is not None and not passed and self._filter.takes(raw, journal_reader.boot_id()):
            taken.add(place.cursor, place.realtime_us, raw)

    def _note_damage(self, batch: Batch, error: OSError) -> None:
        self.counters.lost += 1
        batch.notes.append(f"an entry of the journal is damaged and was passed over: {error.strerror}")

    def _note_what_is_missing(self, batch: Batch) -> None:
        assert self._done is not None
        # Entries that we may not read, or that are not asked for, leave gaps that mean nothing.
        if self._blind is not None or (
            self._settings.boot == "current" and self._done.boot != journal_reader.boot_id()
        ):
            return
        tail = self._tail
        tail.process()
        held = journal_reader.go_behind(tail, self._done, found := [False])
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


class _End(NamedTuple):
    """The journal's last entry; raw: its fields, None when they cannot be read."""

    place: Spot
    raw: Raw | None


def _time(position: str | None) -> int | None:
    text = (position or "").removeprefix(_TIME)
    return int(text) if position != text and text.isascii() and text.isdigit() and len(text) < 18 else None
