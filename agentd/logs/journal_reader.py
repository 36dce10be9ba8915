"""
Readers of libsystemd, and how they find a place.

In: a folder or the machine's journal, and cursors. Out: `systemd.journal.Reader`s that stand where they should.
Promise: right behind an entry means right behind it, also where that entry is gone, or was copied and renumbered.
One reader is used by one thread at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentd.logs.journal_cursor import Spot, spot


def boot_id() -> str:
    """Of the boot that is running, 32 digits."""
    from systemd import id128

    return str(id128.get_boot().hex)


def open_reader(path: Path | None) -> Any:
    """path: a folder of journal files; None: the journal of this machine. Raises OSError, ImportError."""
    from systemd import journal

    return journal.Reader() if path is None else journal.Reader(path=str(path))


def open_plain(path: Path | None) -> Any:
    """A reader without matches, which hears of new files."""
    reader = open_reader(path)
    listen(reader)
    return reader


def listen(reader: Any) -> int | None:
    """Let the reader hear of new entries and files; None when there is no inotify to be had."""
    try:
        return int(reader.fileno())
    except OSError:
        return None


def last_entry(reader: Any) -> Spot | None:
    """The last entry, of a reader without matches."""
    reader.seek_tail()
    if not reader._next(-1):
        return None
    while reader._next():  # of several files, the one it went to need not hold the last
        pass
    return spot(reader._get_cursor())


def go_behind(reader: Any, done: Spot, found: list[bool] | None = None) -> bool:
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
