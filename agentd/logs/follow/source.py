"""
All files of one watch, read in turn.

In: patterns and the positions that were stored last.  Out: batches.
A look (stat of every file; the patterns anew when a folder has changed, or every few seconds) finds what has grown;
then the files that have something give a share each, in turn, until the batch is full.
Promise: a batch's positions stand exactly behind its blocks. No file waits for another to be at its end.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from agentd.logs.follow.bell import Bell
from agentd.logs.follow.birth import born_ns
from agentd.logs.follow.content import Damaged
from agentd.logs.follow.globs import Found, Globs
from agentd.logs.follow.kin import beginning_of
from agentd.logs.follow.lineage import FORGET_S, Lineage
from agentd.logs.follow.part import Means, Moved, Part, checksum, shown
from agentd.logs.follow.siblings import Folders, is_sibling, outer_bases
from agentd.logs.follow.text import find_encoding
from agentd.logs.port import Batch, Counters
from agentd.logs.settings import LogSource

PATTERNS = "patterns"
"""The stream under which the patterns themselves are stored; paths begin with a slash, so it is none of them."""
LOOK_S = 0.2
SCAN_S = 5.0
MOST_STREAMS = 20_000
_SHARE = 64 * 1024
_QUICK_SCAN_S = 0.02
_VISIT = 512


class FileSource:
    """Follows files; see the package for what that means. `read` on the log thread, `wait` on the event loop."""

    def __init__(
        self,
        settings: LogSource,
        *,
        positions: Mapping[str, str],
        complete: Callable[[bytes], int],
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        inotify: bool = True,
    ) -> None:
        """Raises ConfigError for an encoding that cannot be read."""
        find_encoding(settings.encoding)
        self.counters = Counters()
        self._settings = settings
        self._means = Means(settings.encoding, settings.max_line, complete, now, self.counters)
        self._now = now
        self._monotonic = monotonic
        self._globs = Globs(settings.files)
        self._folders = Folders()
        self._bell = Bell(self._means.note, inotify=inotify)
        self._lineages: dict[str, Lineage] = {}
        self._ready: deque[Lineage] = deque()
        self._found = Found()
        self._crowded: str | None = None
        self._looked_at = float("-inf")
        self._looked: datetime | None = None
        self._scanned_at = float("-inf")
        self._scan_s = 0.0
        self._newest_ns = 0
        self._first = not positions
        self._known_patterns: frozenset[str] = frozenset()
        self._owners: dict[tuple[int, int], list[tuple[str, Part]]] | None = None
        self._gone: dict[str, str | None] = {}
        self._restart = bool(positions)
        self._orphans: dict[str, list[str]] = {}
        self._began_ns = int(now().timestamp() * 1e9)
        self._unseen: dict[str, int] = {}
        self._restore(positions)
        if self._first:
            self._newest_ns = self._began_ns

    @property
    def files(self) -> int:
        """How many are followed."""
        return len(self._lineages)

    def _restore(self, positions: Mapping[str, str]) -> None:
        self._stored_patterns = positions.get(PATTERNS)
        for stream, text in positions.items():
            try:
                position = json.loads(text)
                if stream == PATTERNS:
                    self._known_patterns = frozenset(position["patterns"])
                    self._unseen = {str(path): int(since_ns) for path, since_ns in position.get("unseen", {}).items()}
                    continue
                path = str(position.get("path", stream))
                if not self._globs.naming(path):
                    self._gone[stream] = None
                    continue
                lineage = self._lineage(path)
                lineage.restore(position)
                lineage.stored = text
            except (ValueError, KeyError, TypeError, AttributeError):
                self.counters.lost += 1
                self._means.note(f"{stream}: the stored position cannot be read; the file is begun anew")
                continue
            self._add(lineage)
            self._newest_ns = max([self._newest_ns, *(part.mtime_ns for part in lineage.parts)])

    def _lineage(self, path: str) -> Lineage:
        return Lineage(
            path,
            self._means,
            self._folders,
            lambda identity, at: self._is_claimed(path, identity, at),
            self._monotonic(),
        )

    def _add(self, lineage: Lineage) -> Lineage:
        self._lineages[lineage.path] = lineage
        for base in outer_bases(lineage.path):
            if base not in self._lineages and self._globs.naming(base):
                self._orphans.setdefault(base, []).append(lineage.path)
        return lineage

    # -- reading

    def read(self, most_bytes: int) -> Batch:
        """Take up to about `most_bytes`. Never raises for what a file or a disk can do."""
        batch = Batch()
        mono = self._monotonic()
        if not self._ready or mono - self._looked_at >= LOOK_S:
            self._look(mono)
        left = most_bytes
        share = max(_SHARE, most_bytes // max(1, len(self._ready)))
        while self._ready and left > 0:
            lineage = self._ready.popleft()
            blocks, cost = lineage.step(min(share, max(left, _SHARE)))
            batch.blocks += blocks
            left -= max(cost, _VISIT)
            if lineage.ready:
                self._ready.append(lineage)
        self._put_positions(batch)
        batch.more = bool(self._ready)
        batch.behind_bytes = sum(lineage.behind() for lineage in self._ready)
        batch.blind = self._blind()
        if not batch.more and batch.blind is None:
            batch.caught_up = self._looked
        if self._means.notes:
            batch.notes, self._means.notes = self._means.notes, []
        return batch

    def _put_positions(self, batch: Batch) -> None:
        batch.positions.update(self._gone)
        self._gone.clear()
        patterns: dict[str, object] = {"v": 1, "patterns": list(self._globs.patterns)}
        if self._unseen:
            patterns["unseen"] = self._unseen
        text = json.dumps(patterns, separators=(",", ":"))
        if text != self._stored_patterns:
            self._stored_patterns = batch.positions[PATTERNS] = text
        for lineage in self._lineages.values():
            if lineage.touched:
                lineage.touched = False
                position = lineage.position()
                if position != lineage.stored:
                    lineage.stored = batch.positions[lineage.id] = position

    def _blind(self) -> str | None:
        reasons = self._found.trouble
        reasons += [lineage.blind for lineage in self._lineages.values() if lineage.blind is not None]
        if self._crowded:
            reasons.append(self._crowded)
        if not reasons:
            return None
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        return "; ".join(reasons[:3]) + more

    # -- looking

    def _look(self, mono: float) -> None:
        looked = self._now()
        wall = looked.timestamp()
        since_s = mono - self._scanned_at
        # A folder that never rests and takes long to list must not take the thread for itself.
        rested = self._scan_s < _QUICK_SCAN_S or since_s >= 10 * self._scan_s
        if since_s >= SCAN_S or (rested and self._has_moved()):
            self._scan(mono)
            self._scan_s = self._monotonic() - mono
        self._ready.clear()
        self._owners = None
        for lineage in list(self._lineages.values()):
            if lineage.poll(mono, wall):
                self._ready.append(lineage)
            elif lineage.gone_at is not None and wall - lineage.gone_at > FORGET_S:
                self._forget(lineage)
        self._looked_at = mono
        self._looked = looked

    def _has_moved(self) -> bool:
        """Whether a folder that decides about the patterns has changed since it was listed."""
        for folder, mtime_ns in (*self._found.folders.items(), *self._found.waiting.items()):
            try:
                if os.stat(folder).st_mtime_ns != mtime_ns:
                    return True
            except OSError:
                return True
        return False

    def _scan(self, mono: float) -> None:
        self._scanned_at = mono
        self._folders.forget()
        found = self._found = self._globs.find()
        self._crowded = None
        since_ns = self._newest_ns
        referred = set()
        owners = {part.identity: (lineage, part) for lineage in self._lineages.values() for part in lineage.parts}
        for path in found.paths:
            if path in self._lineages:
                continue
            base = next((base for base in outer_bases(path) if base in self._lineages or base in found.paths), None)
            if base is not None:
                referred.add(base)
                continue
            try:
                seen = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                found.unseen[path] = error.strerror or str(error)
                continue
            if not stat.S_ISREG(seen.st_mode):
                continue
            identity = (seen.st_dev, seen.st_ino)
            if identity in owners and self._is_alias(path, seen, *owners[identity]):
                continue
            if len(self._lineages) >= MOST_STREAMS:
                self._crowded = f"more than {MOST_STREAMS} files match; {shown(path)} is not read"
                break
            lineage = self._add(self._lineage(path))
            handed_over = identity in owners and self._hand_over(lineage, seen, *owners[identity])
            if not handed_over and not self._inherit(lineage):
                self._begin(lineage, seen, since_ns)
            owners.update({part.identity: (lineage, part) for part in lineage.parts})
        for lineage in self._lineages.values():
            if lineage.path in referred and lineage.gone_at is not None:
                lineage.gone_at = self._now().timestamp()
            for part in lineage.parts:
                self._newest_ns = max(self._newest_ns, part.mtime_ns)
        self._keep_unseen(found)
        self._first = self._restart = False
        self._bell.hang(
            {*found.folders, *self._link_folders()}, found.waiting.keys() - found.folders.keys()
        )  # fmt: skip

    def _link_folders(self) -> Iterator[str]:
        for lineage in self._lineages.values():
            if lineage.current is not None and lineage.current.real is not None:
                yield os.path.dirname(lineage.current.real)

    def _begin(self, lineage: Lineage, seen: os.stat_result, since_ns: int) -> None:
        """
        Where a file that is new to us is begun.

        At the first look of a new watch, of a new pattern, or after a stop when nobody has written to the file since
        before the newest stored position: as `start_at` says; so, too, what was there at the first look and could not
        be seen. Else it appeared since: at its beginning.
        """
        patterns = self._globs.naming(lineage.path)
        unheard = not self._known_patterns.intersection(patterns)
        unseen_ns = self._unseen_since(lineage.path)
        if unseen_ns is not None:
            was_there = min(seen.st_mtime_ns, born_ns(lineage.path)) <= unseen_ns
        else:
            was_there = self._first or (self._restart and (unheard or seen.st_mtime_ns <= since_ns))
        if was_there:
            if self._settings.start_at == "end":
                lineage.begin_first(seen, at_end=True)
            else:
                lineage.begin_new(seen, 0, own=lambda path: bool(self._globs.naming(path)))
            return
        # Of what was rotated while we could not look, nobody can say how old its beginning is.
        lineage.begin_new(seen, since_ns if unseen_ns is None else None, own=lambda path: True)

    def _unseen_since(self, path: str) -> int | None:
        """When the first look was (file time, ns) that did not come as far as this path; None: it did."""
        while self._unseen:
            if path in self._unseen:
                return self._unseen[path]
            path, below = os.path.dirname(path), path
            if path == below:
                break
        return None

    def _keep_unseen(self, found: Found) -> None:
        """Where the first look could not look, it is still to come."""
        unseen: dict[str, int] = {}
        for path in found.unseen:
            since_ns = self._unseen_since(path)
            if since_ns is None and self._first:
                since_ns = self._began_ns
            elif since_ns is None and self._restart and not self._known_patterns.issuperset(self._globs.patterns):
                # One of the new patterns may lead there. If it is an old one, its files are streams already.
                since_ns = self._began_ns
            if since_ns is not None:
                unseen[path] = since_ns
        self._unseen = unseen

    def _is_alias(self, path: str, seen: os.stat_result, owner: Lineage, part: Part) -> bool:
        """Another name of a file that is being read, rather than the name that it goes by now."""
        if is_sibling(path, owner.path) or (part.real is not None and is_sibling(path, part.real)):
            return True
        try:
            named = os.stat(owner.path)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (seen.st_dev, seen.st_ino)

    def _inherit(self, lineage: Lineage) -> bool:
        """
        The file appeared of which others that were there before are the rotated siblings: go on behind them.

        Until then each was a stream of its own, for a name such as `worker.1` alone says nothing.
        """
        orphans = [self._lineages[path] for path in self._orphans.pop(lineage.path, ()) if path in self._lineages]
        if not any(orphan.current is not None for orphan in orphans):
            return False
        lineage.inherit(orphans)
        for orphan in orphans:
            del self._lineages[orphan.path]
            self._gone[orphan.id] = None
        return True

    def _hand_over(self, lineage: Lineage, seen: os.stat_result, owner: Lineage, part: Part) -> bool:
        """The file was renamed to a name that the patterns name too: its place goes with it. False: it is another."""
        if not part.is_open:
            if not part.head_bytes:
                return False  # it is read from its beginning anyhow, if it is the same
            part.dev = seen.st_dev
            before, part.path = part.path, lineage.path
            try:
                same = part.holds(part.open(self._means))
            except (OSError, Moved, Damaged):
                same = False
            part.path = before
            if not same:
                part.close(self._means)
                return False
            part.settled = True
        owner.let_go(part)
        lineage.adopt(part, seen)
        return True

    def _is_claimed(self, path: str, identity: tuple[int, int], at: str) -> bool:
        if at != path and at in self._lineages:
            return True
        if self._owners is None:
            self._owners = {}
            for lineage in self._lineages.values():
                for part in lineage.parts:
                    self._owners.setdefault(part.identity, []).append((lineage.path, part))
        owners = [
            owner for owner, part in self._owners.get(identity, ()) if owner != path and _is_file_of(part, identity, at)
        ]
        # What was renamed to our own name is ours now; what merely goes by two names is that stream's which has it.
        return any(_names(owner, identity) for owner in owners) if at == path else bool(owners)

    def _forget(self, lineage: Lineage) -> None:
        lineage.close()
        del self._lineages[lineage.path]
        self._gone[lineage.id] = None

    # -- waiting, ending

    async def wait(self, timeout_s: float) -> None:
        """Return when there may be something to read, or after `timeout_s`, or a second."""
        if self._bell.closed:
            await asyncio.sleep(timeout_s)
            return
        await self._bell.wait(timeout_s)

    async def close(self) -> None:
        """Let go of everything. Twice is once."""
        self._bell.close()
        for lineage in self._lineages.values():
            lineage.close()


def _names(path: str, identity: tuple[int, int]) -> bool:
    try:
        seen = os.stat(path)
    except OSError:
        return False
    return (seen.st_dev, seen.st_ino) == identity


def _is_file_of(part: Part, identity: tuple[int, int], path: str) -> bool:
    """Whether what lies at `path` is the part, and not only a file that was given its inode's number later."""
    if part.identity != identity or part.is_open:
        return part.identity == identity
    if not part.head_bytes:
        return part.settled  # nothing was read of it: it was seen by this process, or it is but a number
    try:
        beginning = beginning_of(path)
    except OSError:
        return True
    return beginning is not None and checksum(beginning[: part.head_bytes]) == part.head
