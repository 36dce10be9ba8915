"""
One log file through all its rotations: the file that its name names, and those that were it before.

In: what stands on the disk at each look.  Out: blocks in the order in which they were written.
`current` is the part we are at. While it is not the file that the name names (it was rotated away, or we were away
while it was), it is read to its end first, then its successor: the next newer sibling, at last the named file. Behind
it, the parts before are watched for a while for what a writer may still add (`old`), and the last few that were done
with are remembered (`past`), so that none is read again under another name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from typing import Any

from agentd.logs.follow.birth import NEVER_NS, born_ns
from agentd.logs.follow.content import Damaged
from agentd.logs.follow.kin import MOST_PAST, TRIES, Claimed, Kin
from agentd.logs.follow.part import Means, Moved, Part, shown
from agentd.logs.follow.siblings import Folders, Sibling
from agentd.logs.port import Block

GRACE_S = 300.0
"""So long a file that was rotated away must be quiet before we let go of it."""
UNLINKED_GRACE_S = 60.0
"""The same for a deleted one: while we hold it, its room on the disk is not given back."""
HOLD_S = 1.0
FORGET_S = 86_400.0
_GONE = "the file that was read before is gone; what was added to it last may be missed"
_MOST_OLD = 8
_TELL_EVERY_S = 86_400.0


class Lineage:
    """
    The stream of one path.

    blind: why it cannot be looked at now. gone_at: wall time, in seconds, since which there is nothing under its name.
    claimed: whether a file (identity, path) is another stream's. touched: the position may be another since it was
    asked for.
    """

    def __init__(self, path: str, means: Means, folders: Folders, claimed: Claimed, mono: float) -> None:
        self.path = path
        self.id = shown(path)
        self.current: Part | None = None
        self.kin = Kin(path, means, folders, claimed)
        self.blind: str | None = None
        self.gone_at: float | None = None
        self.stored: str | None = None
        self._means = means
        self._claimed = claimed
        self._mono = mono
        self._wall = 0.0
        self._told_at = float("-inf")
        self._tries = 0
        self._next_search = 0.0
        self.touched = True

    # -- what is stored

    def position(self) -> str:
        position: dict[str, Any] = {"v": 1, "current": None if self.current is None else self.current.mark()}
        # Of one that was empty we know the inode alone, which may be another's by the next start.
        if old := [part.mark() for part in self.kin.old if part.head_bytes]:
            position["old"] = old
        if self.kin.past:
            position["past"] = self.kin.past
        if self.gone_at is not None:
            position["gone_at"] = round(self.gone_at)
        if self.id != self.path:
            position["path"] = self.path
        return json.dumps(position, separators=(",", ":"))

    def restore(self, position: dict[str, Any]) -> None:
        """Raises KeyError, TypeError or ValueError for what `position` never gave."""
        if position["current"] is not None:
            self.current = Part.restored(self.path, position["current"])
        self.kin.old = [Part.restored(self.path, mark) for mark in position.get("old", ())]
        self.kin.past = [(int(ino), int(size), str(head)) for ino, size, head in position.get("past", ())]
        gone_at = position.get("gone_at")
        self.gone_at = None if gone_at is None else float(gone_at)

    # -- what the source asks

    @property
    def parts(self) -> list[Part]:
        return self.kin.old if self.current is None else [*self.kin.old, self.current]

    @property
    def ready(self) -> bool:
        """Whether `step` has something to do."""
        return self.blind is None and any(part.dirty for part in self.parts)

    def behind(self) -> int:
        return sum(part.behind() for part in self.parts)

    def close(self) -> None:
        for part in self.parts:
            part.close(self._means)

    # -- how it begins

    def begin_first(self, seen: os.stat_result, *, at_end: bool) -> None:
        """The source itself is new: begin at the end of what is there, or at the oldest sibling that is ours."""
        part = Part(self.path, seen.st_dev, seen.st_ino)
        self.current = part
        self._note_seen(part, seen)
        part.live = True
        if at_end:
            try:
                part.stand_at_end(self._means)
                part.dirty = False
            except (OSError, Moved, Damaged):
                # It may be readable one day; what was written since this look is read then.
                part.offset, part.marker = seen.st_size, None
            for sibling in self.kin.siblings(part)[0][:MOST_PAST]:
                self.kin.remember_sibling(sibling)

    def begin_new(self, seen: os.stat_result, since_ns: int | None, *, own: Callable[[str], bool]) -> None:
        """
        The file appeared: begin at its beginning.

        since_ns: siblings written after this moment (file time, ns) are part of it and come first; None: none is.
        own: whether a sibling's path is one that the patterns name; with since_ns 0 only those count.
        """
        oldest = None
        part = Part(self.path, seen.st_dev, seen.st_ino)
        if since_ns is not None:
            candidates = [
                sibling
                for sibling in self.kin.siblings(part)[0]
                if sibling.style in ("number", "stamp")
                and sibling.stat.st_mtime_ns > since_ns
                and (since_ns or own(sibling.path))
                and not self._claimed(sibling.identity, sibling.path)
                and sibling.identity != (seen.st_dev, seen.st_ino)
            ]
            oldest = max(candidates, key=lambda sibling: (-sibling.stat.st_mtime_ns, sibling.age), default=None)
        if oldest is not None:
            self.current = Part(oldest.path, *oldest.identity)
            self.current.aside = True
            self._note_seen(self.current, oldest.stat)
        else:
            self._begin_live(seen)

    def adopt(self, part: Part, seen: os.stat_result) -> None:
        """The file that another stream has followed so far goes by our name now."""
        part.path = self.path
        part.live = True
        part.done = part.final = False
        self.current = part
        self._note_seen(part, seen)

    def inherit(self, others: list[Lineage]) -> None:
        """Those were the rotated siblings of this file, which was not there yet: go on behind the newest of them."""
        parts = [part for other in others for part in other.parts]
        self.current = max(
            (other.current for other in others if other.current is not None), key=lambda part: part.mtime_ns
        )
        self.current.live = False
        self.kin.old = [part for part in parts if part is not self.current]
        self.kin.past = [entry for other in others for entry in other.kin.past][:MOST_PAST]

    def let_go(self, part: Part) -> None:
        """Another stream reads on in this part."""
        self.touched = True
        if part is self.current:
            self.current = None
        else:
            self.kin.old.remove(part)
        # Not remembered as ours: its new name is what keeps it from being read again.

    def _begin_live(self, seen: os.stat_result) -> None:
        part = Part(self.path, seen.st_dev, seen.st_ino)
        part.live = True
        self._note_seen(part, seen)
        self.current = part

    def _note_seen(self, part: Part, seen: os.stat_result) -> None:
        part.size, part.mtime_ns = seen.st_size, seen.st_mtime_ns
        part.grown_at = self._mono
        part.dirty = True

    # -- a look at the disk

    def poll(self, mono: float, wall: float) -> bool:
        """See what has changed; whether there is something to read. Never raises for what a disk can do."""
        self._mono = mono
        self._wall = wall
        self.blind = None
        try:
            seen: os.stat_result | None = os.stat(self.path)
            if not stat.S_ISREG(seen.st_mode):  # type: ignore[union-attr]  # it was just given
                seen = None
        except (FileNotFoundError, NotADirectoryError):
            seen = None
        except OSError as error:
            self.blind = f"{self.id}: {error.strerror}"
            return False
        current = self.current
        if (
            seen is not None
            and current is not None
            and current.settled
            and not self.kin.old
            and not current.held
            and current.live
            and seen.st_size == current.size
            and seen.st_mtime_ns == current.mtime_ns
            and seen.st_ino == current.ino
            and seen.st_dev == current.dev
        ):
            return current.dirty
        try:
            self._look(seen, wall)
        except (OSError, Damaged) as error:
            self._fail(error)
        return self.ready

    def _look(self, seen: os.stat_result | None, wall: float) -> None:
        self.touched = True
        for part in list(self.kin.old):
            self._look_at_old(part)
        current = self.current
        if seen is not None:
            self.gone_at = None
        elif self.gone_at is None and (current is None or not current.dirty):
            self.gone_at = wall
        if current is None:
            if seen is not None:
                self._begin_live(seen)
            return
        if not current.settled:
            self._settle(current, seen)
            return
        if seen is not None and (seen.st_dev, seen.st_ino) == current.identity:
            if current.done and not current.is_open:
                # We had let go of it: it is back, or its inode is used again.
                self._settle(current, seen)
                return
            current.live = True
            current.aside = False
            current.path = self.path
            if not current.packed:
                current.done = current.final = False
            self._see(current, seen)
        else:
            if current.live:
                current.live = False
                current.grown_at = self._mono
            self._look_at_left(current, seen)
        self._release_held(current)

    def _see(self, part: Part, seen: os.stat_result) -> None:
        """The file lies where it did; has it grown, or been cut?"""
        if seen.st_size == part.size and seen.st_mtime_ns == part.mtime_ns:
            return
        least = 0 if part.packed or part.final else part.offset
        shrunk = seen.st_size < part.size or seen.st_size < least
        # It was empty, and may have been filled and cut since: only the time of a copy tells.
        unknown = not part.offset and not part.head_bytes and not part.size
        if part is self.current and (shrunk or unknown):
            self._cut_back(part, seen)
            return
        self._note_seen(part, seen)

    def _look_at_old(self, part: Part) -> None:
        if not part.settled:
            self._settle_old(part)
            return
        try:
            seen = part.stat() or os.stat(part.path)
        except OSError:
            seen = None
        if seen is None or (seen.st_dev, seen.st_ino) != part.identity or seen.st_size < part.size:
            self._retire(part)
            return
        if seen.st_size != part.size or seen.st_mtime_ns != part.mtime_ns:
            if part.aside and not part.offset and self.current is not None and self.kin.is_copy_of(part, self.current):
                part.close(self._means)
                self.kin.old.remove(part)
                return
            self._note_seen(part, seen)
        grace_s = GRACE_S if seen.st_nlink else UNLINKED_GRACE_S
        self._release_held(part)
        if not part.dirty and self._mono - part.grown_at >= grace_s:
            part.final = part.dirty = True

    def _release_held(self, part: Part) -> None:
        if part.held and not part.dirty and self._mono - part.grown_at >= HOLD_S:
            part.force = part.dirty = True

    def _look_at_left(self, current: Part, seen: os.stat_result | None) -> None:
        """The current part is not under its name any more."""
        if not current.is_open and not current.done:
            current.settled = False
            self._settle(current, seen)
            return
        left = current.stat()
        if left is not None and not current.done:
            if left.st_size < current.size:
                self._cut_back(current, left)
                return
            self._see(current, left)
        if not current.dirty and (seen is not None or self._mono >= self._next_search):
            self._next_search = self._mono + 1.0
            if self._go_on():
                return
            grace_s = GRACE_S if left is not None and left.st_nlink else UNLINKED_GRACE_S
            if seen is None and not current.done and self._mono - current.grown_at >= grace_s:
                current.final = current.dirty = current.done = True

    # -- finding our place again

    def _settle_old(self, part: Part) -> None:
        found = self.kin.find_again(part) or self.kin.find_copy(part)
        if not found:
            self._retire(part)
            return
        part.settled = True
        part.grown_at = self._mono

    def _settle(self, current: Part, seen: os.stat_result | None) -> None:
        """After a start, or when its descriptor was let go of: find the part by what it is, or own that it is gone."""
        identity = None if seen is None else (seen.st_dev, seen.st_ino)
        if current.done and identity is not None and identity[1] != current.ino:
            current.settled = True
            current.dirty = False
            current.live = False
            self._go_on()
            return
        if identity is not None and identity[1] == current.ino:
            # The device's number alone may be another after a boot.
            current.dev = identity[0]
        if not current.offset and not current.head_bytes and self._begin_at_unknown(current):
            return
        place, ours, written_ns = current.offset, current.identity == identity, current.mtime_ns
        found = self.kin.find_again(current)
        if found or (not current.done and self.kin.find_copy(current)):
            current.settled = True
            current.live = current.identity == identity
            current.dirty = not (current.done and current.packed)
            current.grown_at = self._mono
            if seen is not None and current.live:
                # What was seen of it before the stop is older than this look.
                current.size, current.mtime_ns = seen.st_size, seen.st_mtime_ns
            else:
                left = current.stat()
                if left is not None:
                    current.size, current.mtime_ns = left.st_size, left.st_mtime_ns
            if not found and ours and self._is_cut(current, written_ns):
                self._means.counters.cut_back += 1
                self._tell_of_copy(current, short=current.offset < place)
            return
        if seen is None:
            candidate = self._successor(current, known=False)
            if candidate is None:
                return  # it may come back
            self._lose(f"{self.id}: {_GONE}")
            current.settled = current.done = True
            current.dirty = False
            self.current = candidate
            return
        self._tries += 1
        if not self.kin.siblings(current)[1] and self._tries < TRIES:
            return
        self._tries = 0
        current.settled = True
        current.live = False
        if current.identity == identity and not current.done:
            self._cut_back(current, seen)
            return
        current.dirty = False
        if current.done:
            self._go_on()
            return
        current.done = True
        self._lose(f"{self.id}: {_GONE}")
        self._go_on()

    def _is_cut(self, copy: Part, written_ns: int) -> bool:
        """
        Whether the named file, which has our inode's number, is the one that `copy` was made of: it was cut meanwhile.

        written_ns: when we saw it written to. A file that came later was given the number of one that was packed.
        """
        born = born_ns(self.path)
        return copy.final if born == NEVER_NS else born <= written_ns

    def _begin_at_unknown(self, current: Part) -> bool:
        """It was empty, and may have been filled and cut while nobody looked."""
        candidate = self._copy_of_unread(current)
        if candidate is None:
            return False
        current.settled = True
        self.current = candidate
        return True

    def _copy_of_unread(self, part: Part) -> Part | None:
        """
        What may have been copied from `part` when it was still unread: only the time tells, for it was empty.

        When it was rotated away itself since, only what comes before it counts.
        """
        return self._successor(part, known=False, before=self.kin.among(self.kin.siblings(part)[0], part))

    # -- cut, lost, over

    def _cut_back(self, part: Part, seen: os.stat_result) -> None:
        """The file is the same and its beginning is not ours: cut, or written anew. The rest may lie in a copy."""
        if not part.offset and not part.head_bytes:
            candidate = self._copy_of_unread(part)
            if candidate is not None:
                self._means.counters.cut_back += 1
                part.close(self._means)
                self.current = candidate
                self._tell_daily(candidate)
            else:
                self._note_seen(part, seen)
            return
        before = Part.restored(self.path, part.mark())
        before.settled = True
        before.beginning = part.beginning
        before.grown_at = self._mono
        part.close(self._means)
        self._means.counters.cut_back += 1
        place = before.offset
        if self.kin.find_copy(before):
            before.final = True
            before.dirty = True
            self.current = before
            self._tell_of_copy(before, short=before.offset < place)
            return
        self._lose(f"{self.id}: cut back or written anew; what was written to it last before that may be missed")
        self.kin.remember(before)
        candidate = self._successor(before, known=False)
        if candidate is not None:
            self.current = candidate
        else:
            self._begin_again(before, seen)

    def _tell_of_copy(self, copy: Part, *, short: bool) -> None:
        """Whether all was in the copy can be disproved, but never proven: of that one word a day is enough."""
        if short or not copy.ends_whole(self._means):
            self._lose(
                f"{self.id}: copied and cut back under a writer: lines that were written between the copy and the cut "
                f"are not in {shown(copy.path)}, and were lost but for those that were read in time"
            )
        else:
            self._tell_daily(copy)

    def _tell_daily(self, copy: Part) -> None:
        if self._wall - self._told_at >= _TELL_EVERY_S:
            self._told_at = self._wall
            self._means.note(
                f"{self.id}: copied and cut back; the rest is read from {shown(copy.path)}. Lines that were written "
                "between the copy and the cut, if any, are in neither (said once a day)"
            )

    def _begin_again(self, before: Part, seen: os.stat_result) -> None:
        try:
            live = os.stat(self.path)
        except FileNotFoundError:
            live = seen
        if (live.st_dev, live.st_ino) == (seen.st_dev, seen.st_ino):
            self._begin_live(seen)
            return
        before.done, before.dirty = True, False
        self.current = before
        self._go_on()

    def _successor(self, part: Part, *, known: bool, before: Sibling | None = None) -> Part | None:
        successor = self.kin.newer_than(part, known=known, before=before)
        if successor is not None:
            successor.grown_at = self._mono
        return successor

    def _lose(self, note: str) -> None:
        self._means.counters.lost += 1
        self._means.note(note)

    def _fail(self, error: Exception) -> None:
        if isinstance(error, Damaged):
            self._lose(f"{self.id}: a packed file is damaged; the rest of it is left out ({error})")
            return
        reason = getattr(error, "strerror", None) or str(error)
        self.blind = f"{self.id}: {reason}"

    # -- from part to part

    def _go_on(self) -> bool:
        """Leave the current part, read to its end, for the one that was written after it. Raises OSError."""
        current = self.current
        assert current is not None
        successor = self._successor(current, known=True)
        if successor is None:
            return False
        taken = self.kin.take_over(current, successor) if successor.live else False
        if taken is None:
            successor.close(self._means)
            return False  # the next look finds it as it is now
        if taken:
            # The live file itself is known by all that tells it from this copy, which may still grow.
            current.close(self._means)
            self.current = successor
            return True
        self._means.counters.rotated += 1
        self.current = successor
        if current.final or current.done:
            self._retire(current)
        else:
            current.live = False
            current.grown_at = self._mono
            self.kin.old.append(current)
            while len(self.kin.old) > _MOST_OLD:
                self._retire(self.kin.old[0])
        return True

    def _retire(self, part: Part) -> None:
        part.close(self._means)
        if part in self.kin.old:
            self.kin.old.remove(part)
        self.kin.remember(part)

    # -- reading

    def step(self, most: int) -> tuple[list[Block], int]:
        """The next blocks, and what they cost in bytes read. Never raises for what a disk can do."""
        self.touched = True
        try:
            for part in self.kin.old:
                if part.dirty:
                    return self._take_old(part, most)
            current = self.current
            if current is None or not current.dirty:
                return [], 0
            return self._take(current, most)
        except (FileNotFoundError, Moved):
            # It was moved between the look and now: the next look finds it.
            for part in self.parts:
                if part.dirty:
                    part.dirty = part.settled = False
            return [], 0
        except OSError as error:
            for part in self.parts:
                if part.dirty:
                    part.close(self._means)
            self._fail(error)
            return [], 0

    def _take_old(self, part: Part, most: int) -> tuple[list[Block], int]:
        try:
            blocks, cost = part.take(self._means, self.id, most, to_end=part.final)
        except (FileNotFoundError, Moved, Damaged):
            self._retire(part)
            return [], 0
        part.force = False
        if part.final and not part.dirty:
            self._retire(part)
        return blocks, cost

    def _take(self, current: Part, most: int) -> tuple[list[Block], int]:
        try:
            blocks, cost = current.take(self._means, self.id, most, to_end=current.final)
        except Moved:
            self._displaced(current)
            return [], 0
        except Damaged as error:
            self._fail(error)
            current.dirty, current.final, current.done = False, True, True
            blocks, cost = [], 0
        current.force = False
        if not current.dirty:
            if current.final and current.done:
                current.close(self._means)
            if not current.live:
                self._go_on()
        return blocks, cost

    def _displaced(self, current: Part) -> None:
        """What we were about to read is not what we had read so far."""
        if not current.is_open:
            # Another file lies there: it was rotated away while we did not hold it.
            current.dirty = False
            current.settled = False
            return
        seen = current.stat()
        assert seen is not None
        if current.packed:
            # Only its head was ours.
            self.kin.rejected.add(current.identity)
        current.dirty = False
        self._cut_back(current, seen)
