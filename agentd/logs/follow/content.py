"""
The bytes of an opened file, plain or gzip, by offset in the unpacked text.

In: an open descriptor.  Out: bytes.  gzip is told by its magic, never by the name.
Promise: unpacking goes in bounded steps and holds no more than was asked for, whatever the file claims.
"""

from __future__ import annotations

import os
import zlib

CHUNK = 1024 * 1024
_PACKED_CHUNK = 64 * 1024
_SKIP = 16 * 1024 * 1024
"""So much is unpacked at most in one call on the way to a place further on."""


class Damaged(Exception):
    """The packed file cannot be unpacked any further."""


class Plain:
    """A file as it lies there."""

    packed = False
    ended = False
    fed = 0
    damage: Damaged | None = None

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def pread(self, size: int, offset: int) -> bytes | None:
        """Up to `size` bytes from `offset`; fewer only at the end. Raises OSError."""
        return os.pread(self.fd, size, offset)

    def data_from(self, offset: int) -> int:
        """Where the next bytes begin that are no hole."""
        try:
            return os.lseek(self.fd, offset, os.SEEK_DATA)
        except (OSError, AttributeError):
            return offset

    def stat(self) -> os.stat_result:
        return os.fstat(self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Packed(Plain):
    """
    A gzip file, unpacked as it is read; several members one after the other too.

    damage: why it cannot be unpacked further; what came before that is given. ended: its last member is whole, so
    there will be no more. fed: how many packed bytes were read.
    """

    packed = True

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._rewind()

    def _rewind(self) -> None:
        self.ended = False
        self.fed = 0
        self._member = zlib.decompressobj(wbits=31)
        self._waiting = b""
        self._start = 0
        self._held = bytearray()

    def pread(self, size: int, offset: int) -> bytes | None:
        """
        Up to `size` bytes of the text from `offset`; fewer only at its end.

        None: the way there is long; ask again. Raises Damaged, OSError. Going back begins anew.
        """
        if offset < self._start:
            self._rewind()
        unpacked = 0
        while self._start + len(self._held) < offset + size:
            self._drop(offset)
            if self._start < offset and unpacked >= _SKIP:
                return None
            try:
                text = self._unpack(min(CHUNK, max(offset + size - self._start - len(self._held), 4096)))
            except Damaged as error:
                self.damage = error
                break
            if not text:
                break
            unpacked += len(text)
            self._held += text
        self._drop(offset)
        if self.damage is not None and (self._start != offset or not self._held):
            raise self.damage
        return bytes(self._held[:size]) if self._start == offset else b""

    def data_from(self, offset: int) -> int:
        return offset

    def _drop(self, offset: int) -> None:
        gone = min(offset - self._start, len(self._held))
        if gone > 0:
            del self._held[:gone]
            self._start += gone

    def _unpack(self, most: int) -> bytes:
        while True:
            if self._member.eof:
                rest = self._member.unused_data or os.pread(self.fd, _PACKED_CHUNK, self.fed)
                if not self._member.unused_data:
                    self.fed += len(rest)
                rest = rest.lstrip(b"\0")
                if not rest.startswith(b"\x1f"):
                    self.ended = True
                    return b""
                self._member = zlib.decompressobj(wbits=31)
                self._waiting = rest
            if not self._waiting:
                self._waiting = os.pread(self.fd, _PACKED_CHUNK, self.fed)
                self.fed += len(self._waiting)
            fed = self._waiting
            try:
                text = self._member.decompress(fed, most)  # fed nothing, it gives what it still holds
            except zlib.error as error:
                raise Damaged(str(error)) from error
            self._waiting = self._member.unconsumed_tail
            if text or not (fed or self._member.eof):
                return text


def open_content(path: str) -> Plain:
    """
    Open a regular file for reading. Raises OSError.

    Never waits: a pipe is refused instead of being waited for.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if os.pread(fd, 2, 0) == b"\x1f\x8b":
            return Packed(fd)
    except BaseException:
        os.close(fd)
        raise
    return Plain(fd)
