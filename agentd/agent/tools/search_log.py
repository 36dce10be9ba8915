"""
The tool `search_log`: lines of a log, newest first, rotated and packed files too.

In: the name of a watch whose log is known, or a path; what to look for. Out: lines with time and neighbours.
Promise: only files of the watches that `permissions.log_files` names, and those beneath `permissions.read`; bounded
in bytes looked at, in lines given back, and in time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted, check_path
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.beneath import open_file, open_named
from agentd.agent.tools.saying import MOMENT_SCHEMA, invalid, line, read_moment, refusing
from agentd.agent.tools.working import Stop, on_thread
from agentd.clock import iso
from agentd.errors import ConfigError
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec

if TYPE_CHECKING:
    from agentd.agent.tools.searching import Hit, Wanted

_DEFAULT = 50
_MOST = 200
_MOST_AROUND = 10
_MOST_BYTES = 512 * 1024 * 1024
_MOST_FAMILIES = 50
_MOST_FILES = 200
_LINE_CHARS = 2000
_MAGIC = re.compile(r"[*?\[]")
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class SearchLog:
    name = "search_log"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "Search a log, newest lines first, rotated and .gz files included. Say `watch` (its log) or `path`; `words` "
        "(all must stand in the line) or `pattern` (RE2). With neither: the newest lines.",
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "watch": {"type": "string", "minLength": 1, "maxLength": 63, "description": "Name of a watch of a log"},
                "path": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "Absolute path of a file"},
                "words": {"type": "string", "minLength": 1, "maxLength": 500},
                "pattern": {"type": "string", "minLength": 1, "maxLength": 1000},
                "ignore_case": {"type": "boolean", "description": "For `pattern`; words are found in any case"},
                "since": MOMENT_SCHEMA,
                "until": MOMENT_SCHEMA,
                "context": {
                    "type": "integer",
                    "minimum": 0,
                    "maximum": _MOST_AROUND,
                    "description": "Lines before and after each",
                },
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "description": f"Default {_DEFAULT}"},
                "rotated": {"type": "boolean", "description": "Look into rotated files too; default true"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        from agentd.agent.tools.searching import wanted

        now = context.clock.now()
        since, until = (read_moment(input.get(key), now, key) for key in ("since", "until"))
        families = _families(context.permissions, input)
        limit = input.get("limit", _DEFAULT)

        def work(stop: Stop) -> dict[str, Any]:
            try:
                asked = wanted(
                    input.get("pattern"),
                    input.get("words"),
                    ignore_case=input.get("ignore_case", False),
                    around=input.get("context", 0),
                    since=since,
                    until=until,
                    now=now,
                )
            except ConfigError as error:
                raise invalid(f"pattern: {error}") from error
            look = _Look(asked, limit, stop, since, input.get("rotated", True))
            return look.answer(families, most_bytes=context.max_output * 3 // 4)

        with refusing():
            return await on_thread(work, timeout_s=context.timeout_s)


def _families(permissions: Permissions, input: Mapping[str, Any]) -> list[_Place]:
    """Whose files to look through. Raises ToolFailure."""
    if "path" in input:
        with refusing():
            check_path(permissions, input["path"])
        return [_Place(permissions, input["path"])]
    known = ", ".join(sorted(permissions.log_files)[:30]) or "none"
    name = input.get("watch")
    if name is None:
        raise invalid(f"say the `watch` whose log to search ({known}), or a `path`")
    if name not in permissions.log_files:
        raise ToolFailure(
            f"{line(name, 80)} is no watch whose log files may be searched; these are: {known} "
            "(the journal: query_journal)",
            ErrorKind.DENIED,
        )
    return [_Place(_beneath(pattern), pattern, configured=True) for pattern in permissions.log_files[name]]


class _Place:
    """
    A path or glob, and beneath which folders its files may lie.

    configured: it stands so in the configuration; otherwise a model said it.
    """

    def __init__(self, permissions: Permissions, pattern: str, *, configured: bool = False) -> None:
        self.permissions = permissions
        self.pattern = pattern
        self.configured = configured

    def paths(self, unread: dict[str, str]) -> list[str]:
        from agentd.logs.follow.globs import Globs

        if not _MAGIC.search(self.pattern):
            return [self.pattern]
        found = Globs((self.pattern,)).find()
        unread |= dict(list(found.unseen.items())[:5])
        return list(found.paths)


def _beneath(pattern: str) -> Permissions:
    """What a pattern of the configuration lets be read: what lies in the last folder that it names as it is."""
    magic = _MAGIC.search(pattern)
    literal = pattern[: magic.start()] if magic else pattern
    return Permissions(read=(os.path.normpath(literal.rpartition("/")[0] or "/"),))


class _Look:
    def __init__(self, asked: Wanted, limit: int, stop: Stop, since: datetime | None, rotated: bool) -> None:
        from agentd.agent.tools.searching import Budget
        from agentd.logs.follow.siblings import Folders

        self._asked = asked
        self._limit = limit
        self._budget = Budget(stop, _MOST_BYTES)
        self._since = since
        self._folders = Folders() if rotated else None
        self._unread: dict[str, str] = {}
        self._files: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        self._more = False

    def answer(self, places: list[_Place], *, most_bytes: int) -> dict[str, Any]:
        found: list[tuple[str, Hit]] = []
        families = 0
        for place in places:
            paths = place.paths(self._unread)
            for path in sorted(paths, key=_changed, reverse=True):
                if families >= _MOST_FAMILIES or self._budget.cut:
                    self._more = True
                    break
                families += 1
                found += self._family(place, path)
        if families > 1:
            # Stable: lines without a time stay behind the one that they stood behind.
            found.sort(key=lambda each: each[1].at or _EARLIEST, reverse=True)
        self._more |= len(found) > self._limit
        matches: list[dict[str, Any]] = []
        for path, hit in found[: self._limit]:
            match = _match(path, hit)
            most_bytes -= sum(map(len, (match["line"], *match.get("before", ()), *match.get("after", ())))) + 150
            if most_bytes < 0 and matches:
                self._more = True
                break
            matches.append(match)
        answer: dict[str, Any] = {"matches": matches, "files": self._files, "scanned_bytes": self._budget.scanned}
        if self._more or self._budget.cut:
            answer["truncated"] = True
            if self._budget.cut:
                answer["note"] = "stopped before everything was looked at; say `since`, or search one file"
        if self._unread:
            answer["unread"] = {line(path, 300): line(why, 200) for path, why in self._unread.items()}
        if not self._files and not self._unread:
            answer["note"] = "there is no such file now"
        return answer

    def _family(self, place: _Place, path: str) -> Iterator[tuple[str, Hit]]:
        """The newest hits of a file and, where these are not enough, of its rotated ones."""
        from agentd.agent.tools.searching import newest

        left = self._limit + 1
        for each in [path, *self._rotated(path)]:
            if left <= 0 or self._budget.cut:
                return
            if len(self._files) >= _MOST_FILES:
                self._more = True
                return
            try:
                with _opened(place, each) as fd:
                    seen = os.fstat(fd)
                    if (seen.st_dev, seen.st_ino) in self._seen:
                        continue
                    self._seen.add((seen.st_dev, seen.st_ino))
                    if self._since is not None and seen.st_mtime < self._since.timestamp():
                        continue
                    self._files.append(line(each, 300))
                    hits = newest(fd, self._asked, left, self._budget)
                if self._budget.damage:
                    self._unread[each], self._budget.damage = f"{self._budget.damage}; read up to there", ""
            except FileNotFoundError:
                continue
            except (OSError, NotPermitted) as error:
                if len(self._unread) < 10:
                    self._unread[each] = (error.strerror if isinstance(error, OSError) else "") or str(error)
                continue
            left -= len(hits)
            yield from ((each, hit) for hit in hits)

    def _rotated(self, path: str) -> list[str]:
        if self._folders is None:
            return []
        try:
            siblings, _ = self._folders.siblings(path)
        except OSError:
            return []
        newest_first = sorted(siblings, key=lambda sibling: sibling.stat.st_mtime, reverse=True)
        return [sibling.path for sibling in newest_first if sibling.path != path]


def _opened(place: _Place, path: str) -> AbstractContextManager[int]:
    # Only the path that the configuration says itself, not what a glob finds, nor the rotated files beside it.
    if place.configured and path == place.pattern:
        return open_named(path)
    return open_file(place.permissions, path)


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _match(path: str, hit: Hit) -> dict[str, Any]:
    match: dict[str, Any] = {"file": line(path, 300), "line": _shown(hit.line)}
    if hit.at is not None:
        match["at"] = iso(hit.at)
    if hit.before:
        match["before"] = [_shown(each) for each in hit.before]
    if hit.after:
        match["after"] = [_shown(each) for each in hit.after]
    return match


def _shown(raw: bytes) -> str:
    return line(raw.decode("utf-8", "replace").rstrip("\r\n"), _LINE_CHARS)
