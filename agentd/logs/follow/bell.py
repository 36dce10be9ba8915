"""
The doorbell: waits until something happens in one of the folders, by inotify.

In: folders.  Out: a ring, and nothing about what happened; whoever hears it looks for himself.
Promise: rings come at most every 200 ms, however much is written. Nothing relies on a ring: where there is no inotify,
where it has no room left, or where it is silent (network file systems), waiting simply ends after a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

RING_S = 0.2
POLL_S = 1.0
_MOST_FOLDERS = 1024

# inotify(7)
_MODIFY, _ATTRIB, _MOVED, _CREATE, _DELETE, _ONLYDIR = 0x2, 0x4, 0xC0, 0x100, 0x200, 0x01000000
_CHANGES = _ATTRIB | _MOVED | _CREATE | _DELETE | _ONLYDIR


class Bell:
    """
    One inotify descriptor for a source.

    `hang` runs on the log thread, `wait` on the event loop; the two share nothing but the descriptor.
    """

    def __init__(self, note: Callable[[str], None], *, inotify: bool) -> None:
        self._note = note
        self._wanted = inotify
        self._libc: Any = None
        self._fd = -1
        self._hung: dict[str, int] = {}
        self._rang_at = float("-inf")
        self.closed = False

    def hang(self, written: Iterable[str], changed: Iterable[str]) -> None:
        """
        Ring for what happens in these folders, and no others.

        written: also when a file there is written to. changed: only when files come, go or change their rights.
        """
        if not self._wanted or self.closed:
            return
        if self._libc is None and not self._open():
            return
        masks = dict.fromkeys(changed, _CHANGES) | dict.fromkeys(written, _CHANGES | _MODIFY)
        wanted: dict[str, int] = {}
        for folder, mask in masks.items():
            if len(wanted) == _MOST_FOLDERS:
                self._give_up(f"more than {_MOST_FOLDERS} folders")
                break
            # Adding what is there already changes its mask and gives the same number.
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), mask)
            if number >= 0:
                wanted[folder] = number
            elif self._errno() in (errno.ENOSPC, errno.ENOMEM):
                self._give_up("fs.inotify.max_user_watches is reached")
                break
        kept = set(wanted.values())
        for folder, number in self._hung.items():
            if folder not in wanted and number not in kept:
                self._libc.inotify_rm_watch(self._fd, number)  # gone by itself when the folder was deleted
        self._hung = wanted

    def _open(self) -> bool:
        # Four calls need no library that looks for a compiler to find libc, at 50 ms a start.
        import ctypes

        try:
            libc = ctypes.CDLL(None, use_errno=True)
            fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            self._wanted = False  # not Linux
            return False
        if fd < 0:
            self._give_up("fs.inotify.max_user_instances is reached")
            self._wanted = False
            return False
        self._fd, self._libc = fd, libc
        return True

    def _errno(self) -> int:
        import ctypes

        return ctypes.get_errno()

    def _give_up(self, why: str) -> None:
        self._note(f"not every log folder can be watched by inotify ({why}): the files are looked at every second")

    async def wait(self, timeout_s: float) -> None:
        """Return after a ring, or after the shorter of `timeout_s` and a second."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + max(0.0, min(timeout_s, POLL_S))
        if self._fd < 0:
            await asyncio.sleep(ends_at - loop.time())
            return
        quiet_s = self._rang_at + RING_S - loop.time()
        if quiet_s > 0:
            await asyncio.sleep(min(quiet_s, ends_at - loop.time()))
        if self._fd >= 0 and loop.time() < ends_at:
            await self._hear(loop, ends_at - loop.time())
        if self._fd >= 0 and self._drain():
            self._rang_at = loop.time()

    async def _hear(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        heard: asyncio.Future[None] = loop.create_future()
        # The descriptor is listened to only here: a flood of events wakes nobody between two waits.
        loop.add_reader(self._fd, _set, heard)
        try:
            async with asyncio.timeout(timeout_s):
                await heard
        except TimeoutError:
            pass
        finally:
            if self._fd >= 0:
                loop.remove_reader(self._fd)

    def _drain(self) -> bool:
        drained = False
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                drained = bool(os.read(self._fd, 65536)) or drained
        return drained

    def close(self) -> None:
        self.closed = True
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _set(heard: asyncio.Future[None]) -> None:
    if not heard.done():
        heard.set_result(None)
