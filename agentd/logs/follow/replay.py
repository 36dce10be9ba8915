"""
One file from its beginning to its end, for trying rules out.

In: a path, plain or gzip.  Out: the same blocks that following it gives. Nothing is stored.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from datetime import datetime

from agentd.errors import AgentdError
from agentd.logs.follow.content import Damaged
from agentd.logs.follow.part import Means, Moved, Part, shown
from agentd.logs.follow.text import find_encoding
from agentd.logs.port import Batch
from agentd.logs.settings import LogSource


class Replay:
    """
    A source that ends: `more` is true until the whole file was given, the last line even without a newline.

    size: bytes of the file as it lies there, for a progress bar; `Batch.behind_bytes` counts down from it.
    """

    def __init__(self, path: str, means: Means) -> None:
        try:
            seen = os.stat(path)
            if not stat.S_ISREG(seen.st_mode):
                raise AgentdError(f"{shown(path)} is no regular file; give the path of a log file")
            self._part = Part(path, seen.st_dev, seen.st_ino)
            self._part.size = self.size = seen.st_size
            self._part.final = True
            self._part.open(means)
        except (OSError, Moved) as error:
            reason = getattr(error, "strerror", None) or "it was replaced meanwhile"
            raise AgentdError(f"{shown(path)} cannot be read: {reason}; give the path of a log file") from error
        self._means = means
        self.counters = means.counters

    def read(self, most_bytes: int) -> Batch:
        batch = Batch()
        part = self._part
        left = most_bytes
        while part.dirty and left > 0:
            try:
                batch.blocks, cost = part.take(self._means, shown(part.path), left, to_end=True)
            except (OSError, Moved, Damaged) as error:
                self.counters.lost += 1
                reason = getattr(error, "strerror", None) or str(error) or "it was changed meanwhile"
                batch.notes.append(f"{shown(part.path)}: reading ended early: {reason}")
                part.dirty = False
                break
            left -= max(cost, 1)
            if batch.blocks:
                break
        batch.more = part.dirty
        batch.behind_bytes = self._behind()
        return batch

    def _behind(self) -> int:
        if not self._part.dirty:
            return 0
        return max(0, self.size - self._part.fed())

    async def wait(self, timeout_s: float) -> None:
        """There is always something until the end."""

    async def close(self) -> None:
        self._part.close(self._means)


def replay_file(
    path: str,
    settings: LogSource,
    *,
    complete: Callable[[bytes], int],
    now: Callable[[], datetime],
) -> Replay:
    """
    Read one file whole, with the encoding and the longest line of `settings`.

    Raises AgentdError when it cannot be opened, ConfigError for an encoding that cannot be read.
    """
    find_encoding(settings.encoding)
    return Replay(path, Means(settings.encoding, settings.max_line, complete, now))
