"""
Room on the disk: how much there is, and the ballast that is given up when there is none.

Promise: while the ballast file is there, its bytes are really taken from the disk, so that removing it leaves alert
state that much room even when everything else on the disk is full.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write there."""
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize


class Ballast:
    """A file of `size` bytes that is good for nothing but to be removed. Safe to use from any thread."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size

    def is_there(self) -> bool:
        try:
            return self.path.stat().st_size >= self.size
        except OSError:
            return False

    def put(self) -> bool:
        """Take the room; True when the ballast is there in full. Leaves nothing half done."""
        if self.is_there():
            return True
        try:
            handle = os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                if self.size:
                    os.posix_fallocate(handle, 0, self.size)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                return False
            raise
        return True

    def drop(self) -> bool:
        """Give the room back; True when there was any to give."""
        try:
            taken = self.path.stat().st_blocks > 0
            self.path.unlink()
        except OSError:
            return False
        return taken
