"""
The tool `list_files`: what is in a folder, or beneath it, with sizes and times.

Promise: links are shown and never gone into; at most so many files are looked at, and the answer says when there were
more.
"""

from __future__ import annotations

import fnmatch
import heapq
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from agentd.agent.permissions import is_closed, normal_path
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.beneath import kind_of, open_folder
from agentd.agent.tools.saying import line, refusing
from agentd.agent.tools.working import Stop, on_thread
from agentd.clock import iso
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec

_DEFAULT = 100
_MOST = 500
_MOST_LOOKED_AT = 200_000
_DEEPEST = 16
_BYTES_EACH = 260


class ListFiles:
    name = "list_files"
    kind: WorkerClass = "io"
    repeatable = True
    spec = ToolSpec(
        name,
        "List files with size and time of change. `depth` above 1 looks into subfolders; `sort: size` finds what fills "
        "a disk. Without `path`: the folders that may be read.",
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "path": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "Absolute path"},
                "pattern": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 200,
                    "description": "Only names that fit, such as *.log",
                },
                "depth": {"type": "integer", "minimum": 1, "maximum": _DEEPEST, "description": "Default 1"},
                "sort": {"type": "string", "enum": ["name", "size", "changed"], "description": "Largest, newest first"},
                "limit": {"type": "integer", "minimum": 1, "maximum": _MOST, "description": f"Default {_DEFAULT}"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        folders = context.permissions.read
        if "path" not in input:
            if not folders:
                raise ToolFailure("no files may be read here; agent.files.allow names no folder", ErrorKind.DENIED)
            return {"folders": list(folders)}
        path = input["path"]
        limit = min(input.get("limit", _DEFAULT), max(1, context.max_output // _BYTES_EACH))

        def work(stop: Stop) -> dict[str, Any]:
            with open_folder(context.permissions, path) as fd:
                look = _Look(stop, input.get("pattern"), input.get("depth", 1), is_closed(path))
                return look.answer(fd, normal_path(path), input.get("sort", "name"), limit)

        with refusing():
            return await on_thread(work, timeout_s=context.timeout_s)


_Found = tuple[str, str, os.stat_result]
"""Path, kind, what stat says."""


class _Look:
    def __init__(self, stop: Stop, pattern: str | None, depth: int, closed: bool) -> None:
        self._stop = stop
        self._fits = re.compile(fnmatch.translate(pattern)).match if pattern else None
        self._depth = depth
        self._closed = closed
        self._looked_at = 0
        self._unread: list[str] = []
        self._cut = False

    def answer(self, fd: int, path: str, sort: str, limit: int) -> dict[str, Any]:
        matching = 0

        def counted() -> Iterator[_Found]:
            nonlocal matching
            for found in self._walk(fd, path, self._depth):
                matching += 1
                yield found

        keys: dict[str, Callable[[_Found], Any]] = {
            "name": lambda found: found[0],
            "size": lambda found: (-found[2].st_size, found[0]),
            "changed": lambda found: (-found[2].st_mtime, found[0]),
        }
        chosen = heapq.nsmallest(limit, counted(), key=keys[sort])
        answer: dict[str, Any] = {"path": path, "entries": [_entry(*found) for found in chosen], "found": matching}
        if matching > limit or self._cut:
            answer["truncated"] = True
        if self._cut:
            answer["note"] = f"stopped after {self._looked_at} files; ask for a deeper folder or less depth"
        if self._unread:
            answer["unread"] = self._unread
        return answer

    def _walk(self, fd: int, path: str, depth: int) -> Iterator[_Found]:
        folders: list[str] = []
        with os.scandir(fd) as entries:
            for entry in entries:
                if self._cut or self._looked_at >= _MOST_LOOKED_AT or (self._looked_at % 256 == 0 and self._stop.now):
                    self._cut = True
                    return
                self._looked_at += 1
                full = f"{path.rstrip('/')}/{entry.name}"
                try:
                    seen = entry.stat(follow_symlinks=False)
                except OSError:  # gone meanwhile
                    continue
                if stat.S_ISDIR(seen.st_mode) and depth > 1 and (self._closed or not is_closed(full)):
                    folders.append(entry.name)
                if self._fits is None or self._fits(entry.name):
                    yield full, kind_of(seen.st_mode), seen
        for name in folders:
            if self._cut:
                return
            full = f"{path.rstrip('/')}/{name}"
            try:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                if len(self._unread) < 10:
                    self._unread.append(f"{line(full, 200)}: {error.strerror}")
                continue
            try:
                yield from self._walk(inner, full, depth - 1)
            finally:
                os.close(inner)


def _entry(path: str, kind: str, seen: os.stat_result) -> dict[str, Any]:
    try:
        changed = iso(datetime.fromtimestamp(seen.st_mtime, UTC))
    except (OverflowError, ValueError, OSError):
        changed = ""
    shown = os.fsencode(path).decode("utf-8", "replace")
    return {"path": line(shown, 1000), "kind": kind, "size": seen.st_size, "changed": changed}
