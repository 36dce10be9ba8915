"""
Following log files through rotation.

In: patterns (`LogSource.files`) and the positions that were stored last.  Out: batches of whole lines and positions.

What a file is: its device, inode and the checksum of its first KiB; our place in it: an offset and the checksum of
what stands just before. A renamed file is read to its end, and watched a while for late lines, then the one that came
after it; of a file that was copied and cut back (copytruncate) the rest is read from the copy; what was rotated while
we were down or slow, even several times, packed or not, is found among the rotated siblings and read in order. Whatever
is stored with a batch's positions, the next start reads on behind it: each line once.

Where reading begins. At the first look of a new watch, or of a new pattern: as `start_at` says, at the end or at the
start. A file that appears later, or appeared while we were down, is read from its beginning; one that is new to us at
a start and was last written to before the newest stored position counts as there at the first look. So does what was
made before the first look in a folder that could not be looked into then, whenever that can be.

What nobody can promise, counted in `Counters.lost` and noted:
- copytruncate: what is written between the copy and the cut is gone. Counted where the copy shows that somebody wrote
  just then (it ends before our place, or within a line); of the others it is said once a day that nobody can tell;
- a file that was rotated away and deleted while we were down, or while so many were read that it was not held open;
- a file that is cut and written anew at once up to and beyond our place, with the same 64 bytes just before it;
- siblings in another folder (`olddir`), or packed other than by gzip, are not found once we no longer hold the file.

`Counters.undecodable` counts bytes of UTF-8, characters of other encodings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from agentd.logs.follow.replay import Replay, replay_file
from agentd.logs.follow.source import FileSource
from agentd.logs.port import Source
from agentd.logs.settings import LogSource


def open_files(
    settings: LogSource,
    *,
    positions: Mapping[str, str],
    complete: Callable[[bytes], int],
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    inotify: bool = True,
) -> Source:
    """
    Follow the files of `settings`; nothing is opened before the first `read`.

    positions: by stream, as batches gave them; empty at the first start ever.
    complete: given whole lines, how many of the leading bytes certainly make whole entries. What it keeps back is not
    consumed until more comes, or the file has been quiet for a second.
    inotify: False looks every second instead.
    Raises ConfigError for an encoding that cannot be read.
    """
    return FileSource(settings, positions=positions, complete=complete, now=now, monotonic=monotonic, inotify=inotify)


__all__ = ["Replay", "open_files", "replay_file"]
