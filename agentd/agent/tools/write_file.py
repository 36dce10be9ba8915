"""
The tool `write_file`: a whole file, at once or not at all.

Promise: only with `permissions.write`, only beneath the allowed folders, only regular files; a reader sees the old
content or the new one, never a part, also after a crash.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Mapping
from typing import Any

from agentd.agent.port import ToolContext
from agentd.agent.tools.beneath import kind_of, open_parent
from agentd.agent.tools.saying import invalid, refusing
from agentd.agent.tools.working import Stop, on_thread
from agentd.fleet.messages import WorkerClass
from agentd.llm.port import ToolSpec

_MOST_CHARS = 256 * 1024


class WriteFile:
    name = "write_file"
    kind: WorkerClass = "io"
    repeatable = False
    spec = ToolSpec(
        name,
        "Write a whole text file beneath the allowed folders. The folder must exist. An existing file is replaced "
        "only with `replace`.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["path", "content"],
            "properties": {
                "path": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "Absolute path"},
                "content": {"type": "string", "maxLength": _MOST_CHARS},
                "replace": {"type": "boolean", "description": "Replace the file if there is one; default false"},
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        try:
            content = input["content"].encode()
        except UnicodeEncodeError as error:
            raise invalid("content holds half a character (a lone surrogate)") from error

        def work(stop: Stop) -> bool:
            with open_parent(context.permissions, input["path"]) as (folder, name):
                return _write(folder, name, content, replace=input.get("replace", False), stop=stop)

        with refusing():
            created = await on_thread(work, timeout_s=context.timeout_s)
        return {"path": input["path"], "bytes": len(content), "created": created}


def _write(folder: int, name: str, content: bytes, *, replace: bool, stop: Stop) -> bool:
    """Whether the file is new."""
    before = _existing(folder, name)
    if before is not None and not stat.S_ISREG(before.st_mode):
        raise OSError(errno.EINVAL, f"it is {kind_of(before.st_mode)}, no regular file; it is not written", name)
    if before is not None and not replace:
        raise FileExistsError(errno.EEXIST, "it exists already; say `replace: true` to replace it", name)
    temporary = f".{name[:180]}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o640, dir_fd=folder)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(fd, left) :]
            if before is not None:
                _keep(fd, before)
            os.fsync(fd)
        finally:
            os.close(fd)
        if stop.now:
            raise TimeoutError(errno.ETIMEDOUT, "the time was over before the file was written", name)
        if before is not None or not _put(folder, temporary, name):
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    with contextlib.suppress(OSError):  # some file systems cannot
        os.fsync(folder)
    return before is None


def _put(folder: int, temporary: str, name: str) -> bool:
    """Under its name, if nothing came there in the meantime; False: this file system has no hard links."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    os.unlink(temporary, dir_fd=folder)
    return True


def _existing(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _keep(fd: int, before: os.stat_result) -> None:
    """Owner and mode of the file that is replaced, as far as we may; never setuid."""
    with contextlib.suppress(OSError):
        os.fchown(fd, before.st_uid, before.st_gid)
    with contextlib.suppress(OSError):
        os.fchmod(fd, stat.S_IMODE(before.st_mode) & 0o777)
