"""
Who is who among the rotated siblings of one log file.

In: a part, told by its inode, its head and its place.  Out: where it lies now, and what was written after it.
Promise: what was read is not given again under another name: `old` (still watched) and `past` (done with) are known by
inode and by content.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable

from agentd.logs.follow.content import Damaged, open_content
from agentd.logs.follow.part import HEAD, MARKER, Means, Moved, Part, checksum, shown
from agentd.logs.follow.siblings import Folders, Sibling

MOST_PAST = 12
TRIES = 20

Claimed = Callable[[tuple[int, int], str], bool]


class Kin:
    """
    The relations of the file named `path`.

    claimed: whether a file (identity, path) is another stream's. past: inode, size of the head and its checksum.
    rejected: files that have our head and not our place.
    """

    def __init__(self, path: str, means: Means, folders: Folders, claimed: Claimed) -> None:
        self.path = path
        self.old: list[Part] = []
        self.past: list[tuple[int, int, str]] = []
        self.rejected: set[tuple[int, int]] = set()
        self._means = means
        self._folders = folders
        self._claimed = claimed
        self._searched = 0

    def siblings(self, part: Part) -> tuple[list[Sibling], bool]:
        """Those of the name, and of the file that a link of this name points to or pointed to."""
        found: list[Sibling] = []
        still = True
        for path in dict.fromkeys((self.path, part.real or self.path)):
            try:
                beside, stood = self._folders.siblings(path)
            except OSError:
                continue
            found += [sibling for sibling in beside if sibling.identity not in self.rejected]
            still = still and stood
        return found, still

    def find_again(self, part: Part) -> bool:
        """A part whose descriptor was let go of: under the name where it was, or among the siblings."""
        for path, identity in self._places(part):
            if identity != part.identity:
                continue
            before, part.path = part.path, path
            try:
                if part.holds(part.open(self._means)):
                    return True
            except (FileNotFoundError, Moved, Damaged):
                pass
            part.close(self._means)
            part.path = before
        return False

    def _places(self, part: Part) -> Iterable[tuple[str, tuple[int, int]]]:
        named = (part.path, self.path, part.real) if part not in self.old else (part.path, part.real)
        for path in dict.fromkeys(name for name in named if name is not None):
            if path == self.path and part in self.old:
                continue
            try:
                seen = os.stat(path)
            except OSError:
                continue
            yield path, (seen.st_dev, seen.st_ino)
        for sibling in self.siblings(part)[0]:
            # Of a file that was empty we know the inode alone, and that may have become another's.
            if part.head_bytes or not (sibling.identity == part.identity and self._is_known(sibling, part)):
                yield sibling.path, sibling.identity

    def find_copy(self, part: Part) -> bool:
        """Our place in a file of another inode: a copy, the packed form, or what was put back from one."""
        if not part.head_bytes:
            return False
        places = [(sibling.path, sibling.identity) for sibling in self.siblings(part)[0]]
        try:
            live = os.stat(self.path)
            places.append((self.path, (live.st_dev, live.st_ino)))
        except OSError:
            pass
        shorter: tuple[str, tuple[int, int], int, bytes, bool] | None = None
        for path, identity in places:
            if identity == part.identity or self._claimed(identity, path):
                continue
            try:
                content = open_content(path)
            except OSError:
                continue
            try:
                beginning = content.pread(HEAD + 1, 0) or b""
                place = part.place_in(content, beginning)
                packed = content.packed
            except (OSError, Damaged):
                continue
            finally:
                content.close()
            if place is None:
                continue
            prefix = len(beginning) < part.head_bytes or place < part.offset
            if path == self.path:
                if not prefix:
                    self._stand_in(part, path, identity, place, beginning, packed=packed)
                    return True
                continue
            if (prefix or not part.offset) and (
                self._is_past(identity[1], beginning)
                or any(other.identity == identity and other.offset > part.offset for other in self.old)
            ):
                continue  # it begins as ours does, and was read before
            if prefix:
                shorter = shorter or (path, identity, place, beginning, packed)
                continue
            self._stand_in(part, path, identity, place, beginning, packed=packed)
            return True
        if shorter is None:
            return False
        path, identity, place, beginning, packed = shorter
        self._stand_in(part, path, identity, place, beginning, packed=packed)
        return True

    def _stand_in(
        self, part: Part, path: str, identity: tuple[int, int], place: int, beginning: bytes, *, packed: bool
    ) -> None:
        """Go on in the copy."""
        part.close(self._means)
        part.path = path
        part.dev, part.ino = identity
        part.final = path != self.path and not packed
        if len(beginning) < part.head_bytes:
            part.head_bytes, part.head = len(beginning), checksum(beginning)
        if place < part.offset:
            part.offset, part.marker, part.skipping = place, None, False
        if part not in self.old:
            # We watched it as one that was rotated away; now it is known for a copy of what was read.
            for other in [other for other in self.old if other.identity == identity]:
                other.close(self._means)
                self.old.remove(other)

    def newer_than(self, part: Part, *, known: bool, before: Sibling | None = None) -> Part | None:
        """
        What was written next after `part`, from its beginning; the named file at last. None: nothing, or not clear yet.

        known: `part` itself may be among the siblings, and tells how they are named; else only times tell, and None
        is given when only the named file is left. before: and what is newer than this does not count.
        """
        siblings, still = self.siblings(part)
        here = self.among(siblings, part) if known else None
        if here is not None:
            if part.path != here.path and part.identity == here.identity:
                part.path = here.path
            newer = [sibling for sibling in siblings if sibling.style == here.style and sibling.age < here.age]
        else:
            newer = [
                sibling
                for sibling in siblings
                if sibling.style in ("number", "stamp", "old")
                and sibling.stat.st_mtime_ns >= part.mtime_ns
                and (before is None or (sibling.style == before.style and sibling.age > before.age))
            ]
            if known and not still and self._is_worth_a_retry():
                return None
        newer.sort(key=lambda sibling: (sibling.style, sibling.age), reverse=True)
        if here is None and len({sibling.style for sibling in newer}) > 1:
            newer.sort(key=lambda sibling: sibling.stat.st_mtime_ns)
        for sibling in newer:
            if part.is_open and sibling.identity == part.identity:
                continue
            try:
                if self._is_known(sibling, part):
                    continue
            except OSError as error:
                # Waiting for it would keep us from the live file, and what was rotated rarely becomes readable again.
                self._means.counters.lost += 1
                self._means.note(f"{shown(sibling.path)}: rotated, not read yet, and cannot be: {error.strerror}")
                continue
            successor = Part(sibling.path, *sibling.identity)
            successor.size, successor.mtime_ns = sibling.stat.st_size, sibling.stat.st_mtime_ns
            successor.aside = True
            try:
                successor.open(self._means)  # held, so that it may be moved or deleted from now on
            except (FileNotFoundError, Moved):
                return None
            self._searched = 0
            return successor
        if not known:
            return None
        try:
            live = os.stat(self.path)
        except FileNotFoundError:
            return None
        identity = (live.st_dev, live.st_ino)
        if not stat.S_ISREG(live.st_mode) or (identity == part.identity and not part.final):
            return None
        if self._claimed(identity, self.path):
            return None  # our name is a link to a file that is followed under its own
        successor = Part(self.path, live.st_dev, live.st_ino)
        successor.live = True
        successor.size, successor.mtime_ns = live.st_size, live.st_mtime_ns
        try:
            successor.open(self._means)
        except (FileNotFoundError, Moved):
            return None
        # The names shift, and a copy is made, while we look: only if nothing has changed, nothing was passed over.
        if _named(self.siblings(part)[0]) != _named(siblings) and self._is_worth_a_retry():
            successor.close(self._means)
            return None
        self._searched = 0
        return successor

    def _is_worth_a_retry(self) -> bool:
        self._searched += 1
        return self._searched <= TRIES

    def take_over(self, copy: Part, live: Part) -> bool | None:
        """
        Go on in the live file where we are in a copy of it that was not cut yet. False: it is no copy of that.

        live: at its beginning, and open. None: it was cut just now; what is known of it is over. Raises OSError.
        """
        if not copy.aside or not copy.head_bytes:
            return False
        content, seen = live.open(self._means), copy.stat() or os.stat(copy.path)
        now = content.stat()
        if content.packed or now.st_size < copy.offset or not copy.holds(content):
            cut = content.pread(len(live.beginning), 0) != live.beginning
            return None if cut else False
        if not copy.packed:
            # All that the copy has was written before it was; had the live file not been cut, no more would be there.
            if now.st_size < seen.st_size or (now.st_size == seen.st_size and now.st_mtime_ns > seen.st_mtime_ns):
                return False
        elif now.st_mtime_ns > seen.st_mtime_ns and now.st_size == copy.offset:
            return False
        live.offset, live.marker, live.skipping = copy.offset, copy.marker, copy.skipping
        return True

    def is_copy_of(self, part: Part, current: Part) -> bool:
        """
        Whether what has been filled since is but a copy of what was read, or is being read, from the live file.

        Raises OSError, Damaged.
        """
        content = part.open(self._means)
        beginning = content.pread(HEAD + 1, 0) or b""
        if not beginning:
            return False
        if current.offset and current.place_in(content, beginning) == current.offset:
            return True
        try:
            live = open_content(self.path)
        except OSError:
            return False
        try:
            size = content.stat().st_size
            before = min(size, MARKER)
            return (
                live.stat().st_size >= size
                and live.pread(len(beginning), 0) == beginning
                and live.pread(before, size - before) == content.pread(before, size - before)
            )
        finally:
            live.close()

    def _is_known(self, sibling: Sibling, part: Part) -> bool:
        if self._claimed(sibling.identity, sibling.path):
            return True
        if any(sibling.identity == other.identity for other in self.old if other.settled):
            return True
        beginning = beginning_of(sibling.path)
        if beginning is None:
            return True
        return self._is_past(sibling.stat.st_ino, beginning) or any(
            other.head_bytes and checksum(beginning[: other.head_bytes]) == other.head
            and (other.head_bytes == HEAD or len(beginning) == other.head_bytes)
            for other in [*self.old, part]
        )  # fmt: skip

    def _is_past(self, inode: int, beginning: bytes) -> bool:
        for ino, size, head in self.past:
            whole = size == HEAD or size == len(beginning)
            if size <= len(beginning) and (whole or ino == inode) and checksum(beginning[:size]) == head:
                return True
        return False

    def among(self, siblings: list[Sibling], part: Part) -> Sibling | None:
        """The sibling that is this part, or its packed form."""
        for sibling in siblings:
            # While we hold it, its inode is nobody else's.
            if sibling.identity == part.identity and (
                part.is_open or (self._same(sibling, part) if part.head_bytes else not self._is_known(sibling, part))
            ):
                return sibling
        if part.head_bytes:
            return next((sibling for sibling in siblings if self._same(sibling, part)), None)
        return None

    def _same(self, sibling: Sibling, part: Part) -> bool:
        try:
            beginning = beginning_of(sibling.path)
        except OSError:
            return False
        return beginning is not None and checksum(beginning[: part.head_bytes]) == part.head

    def remember(self, part: Part) -> None:
        entry = (part.ino, part.head_bytes, part.head)
        if part.head_bytes:
            self.past = [entry, *(other for other in self.past if other != entry)][:MOST_PAST]

    def remember_sibling(self, sibling: Sibling) -> None:
        try:
            beginning = beginning_of(sibling.path)
        except OSError:
            return
        if beginning:
            head = beginning[:HEAD]
            self.past.append((sibling.stat.st_ino, len(head), checksum(head)))


def _named(siblings: list[Sibling]) -> list[tuple[str, tuple[int, int]]]:
    return [(sibling.path, sibling.identity) for sibling in siblings]


def beginning_of(path: str) -> bytes | None:
    """
    The first KiB of the text and one byte, to tell whether there is more. Raises OSError.

    None: it is gone. Empty, too, when it is packed and damaged: reading it will say so.
    """
    try:
        content = open_content(path)
    except FileNotFoundError:
        return None
    try:
        return content.pread(HEAD + 1, 0) or b""
    except Damaged:
        return b""
    finally:
        content.close()
