"""
Files opened beneath allowed folders, however links and renames try to lead out.

In: an absolute path that `permissions` let pass by its text. Out: open descriptors of regular files and folders.
Promise: every name is opened by itself in the folder that is held open already, never following a link; a link is read
and gone after by the same rules, so that one that stays beneath an allowed folder works and one that leaves does not.
Whoever swaps a folder for a link between two steps gains nothing, and what is open is asked where it lies. Pipes,
devices and sockets are never opened.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted, check_path, is_closed, normal_path

_MAX_LINKS = 20
_MAX_NAMES = 256
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_NO_LINK = _FOLDER | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(slots=True)
class _Walk:
    """
    Where the walk is.

    held, passed: the folders held open from the allowed one (`folder`) down, and the names of those below it.
    names: still to go. path: as it was asked for, or as a link says.
    """

    permissions: Permissions
    write: bool
    folder: str = "/"
    held: list[int] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    path: str = ""
    links: int = 0

    def begin(self, path: str) -> None:
        folder = check_path(self.permissions, path, write=self.write)
        self.close()
        # The allowed folder is the operator's own word: links in its own path are followed.
        self.held.append(os.open(folder, _FOLDER))
        self.folder = folder
        self.names = [name for name in normal_path(path)[len(folder) :].split("/") if name]
        self.path = path

    def close(self) -> None:
        for fd in self.held:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.held.clear()
        self.passed.clear()

    def follow(self, target: str) -> None:
        self.links += 1
        if self.links > _MAX_LINKS:
            raise OSError(errno.ELOOP, "too many links", self.path)
        if target.startswith("/"):
            rest = "/".join(self.names)
            # `..` behind a link is refused: by the text alone nobody knows where it leads.
            try:
                self.begin(f"{target.rstrip('/')}/{rest}" if rest else target)
            except NotPermitted as error:
                raise NotPermitted(f"{self.path} is a link that leads out of what is allowed: {error}") from error
            return
        self.names = [name for name in target.split("/") if name not in ("", ".")] + self.names
        if len(self.names) > _MAX_NAMES:
            raise OSError(errno.ENAMETOOLONG, "too many names", self.path)

    def up(self) -> None:
        if len(self.held) <= 1:
            raise NotPermitted(f"{self.path} is a link that leads out of the folder that may be read")
        os.close(self.held.pop())
        self.passed.pop()

    def down(self, name: str) -> bool:
        """Into the folder of that name; False when it is a link, which is then followed."""
        here = self.held[-1]
        self.check(name)
        try:
            self.held.append(os.open(name, _NO_LINK, dir_fd=here))
            self.passed.append(name)
            return True
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise OSError(error.errno, error.strerror, self.path) from None
        target = _link(name, here)
        if target is None:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)
        self.follow(target)
        return False

    def check(self, name: str) -> None:
        """A link may lead, step by step, to what no path may name."""
        here = "/".join([self.folder.rstrip("/"), *self.passed, name])
        if is_closed(here) and not is_closed(self.folder):
            raise NotPermitted(f"{here} is closed: it belongs to the system, not to be read by tools")

    def check_opened(self, fd: int, name: str = "") -> None:
        """The allowed folder may be a link itself, or lie behind one, that somebody else has swapped."""
        here = os.path.join(os.readlink(f"/proc/self/fd/{fd}"), name)
        if is_closed(here) and not is_closed(self.folder):
            raise NotPermitted(
                f"{self.path} is a link that leads out of what is allowed: {here} is closed: it belongs to the system"
            )

    def to_parent(self) -> str | None:
        """Walk on until one name is left, which is given back; None: the walk ended at a folder that is held."""
        while self.names:
            name = self.names.pop(0)
            if name == "..":
                self.up()
            elif self.names:
                self.down(name)
            else:
                return name
        return None


@contextmanager
def _walking(permissions: Permissions, path: str, *, write: bool = False) -> Iterator[_Walk]:
    walk = _Walk(permissions, write)
    try:
        walk.begin(path)
        walk.path = path
        yield walk
    finally:
        walk.close()


@contextmanager
def open_file(permissions: Permissions, path: str) -> Iterator[int]:
    """A descriptor for reading a regular file. Raises NotPermitted, OSError."""
    with _walking(permissions, path) as walk:
        fd = _open_last(walk)
        try:
            walk.check_opened(fd)
            yield fd
        finally:
            os.close(fd)


@contextmanager
def open_named(path: str) -> Iterator[int]:
    """
    A descriptor for reading the very file that the configuration names. Raises NotPermitted, OSError.

    It may be a link out of its folder if the link is root's or our own: whoever writes the log, and may put a link in
    its place, does not choose what is read. Where such a link leads is then as if the configuration named that.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(_MAX_LINKS):
            try:
                fd = stack.enter_context(open_file(Permissions(read=(os.path.dirname(path),)), path))
                break
            except NotPermitted:
                target = _operators_link(path)
                if target is None:
                    raise
                path = target
        else:
            raise OSError(errno.ELOOP, "too many links", path)
        yield fd


def _operators_link(path: str) -> str | None:
    """Where the link leads; None: it is none, is somebody else's, or leads to what is closed."""
    seen = os.lstat(path)
    if not stat.S_ISLNK(seen.st_mode) or seen.st_uid not in (0, os.geteuid()):
        return None
    folder, target = os.path.realpath(os.path.dirname(path)), os.readlink(path)
    target = normal_path(os.path.join(folder, target))
    return None if is_closed(target) and not is_closed(path) else target


def _open_last(walk: _Walk) -> int:
    while (name := walk.to_parent()) is not None:
        here = walk.held[-1]
        walk.check(name)
        try:
            seen = os.stat(name, dir_fd=here, follow_symlinks=False)
        except OSError as error:
            raise OSError(error.errno, error.strerror, walk.path) from None
        if stat.S_ISLNK(seen.st_mode):
            target = _link(name, here)
            if target is not None:
                walk.follow(target)
            else:
                walk.names.insert(0, name)
                walk.links += 1
                if walk.links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, "too many links", walk.path)
            continue
        if not stat.S_ISREG(seen.st_mode):
            raise _no_file(seen.st_mode, walk.path)
        try:
            fd = os.open(name, _FILE, dir_fd=here)
        except OSError as error:
            raise OSError(error.errno, error.strerror, walk.path) from None
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):  # swapped in between
            os.close(fd)
            raise _no_file(mode, walk.path)
        return fd
    raise IsADirectoryError(errno.EISDIR, "it is a folder; list_files shows what is in it", walk.path)


def _no_file(mode: int, path: str) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "it is a folder; list_files shows what is in it", path)
    return OSError(errno.EINVAL, f"it is {kind_of(mode)}, no regular file", path)


@contextmanager
def open_folder(permissions: Permissions, path: str) -> Iterator[int]:
    """A descriptor of a folder, for listing. Raises NotPermitted, OSError."""
    with _walking(permissions, path) as walk:
        while (name := walk.to_parent()) is not None:
            walk.down(name)
        walk.check_opened(walk.held[-1])
        yield walk.held[-1]


@contextmanager
def open_parent(permissions: Permissions, path: str) -> Iterator[tuple[int, str]]:
    """
    The folder in which a file may be written, and the file's name there. Raises NotPermitted, OSError.

    The name may be a link: it is not looked at.
    """
    with _walking(permissions, path, write=True) as walk:
        name = walk.to_parent()
        if name is None:
            raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
        walk.check(name)
        walk.check_opened(walk.held[-1], name)
        yield walk.held[-1], name


def kind_of(mode: int) -> str:
    """What a model calls it: file, folder, link, pipe, socket, device."""
    for test, word in (
        (stat.S_ISREG, "file"),
        (stat.S_ISDIR, "folder"),
        (stat.S_ISLNK, "link"),
        (stat.S_ISFIFO, "pipe"),
        (stat.S_ISSOCK, "socket"),
    ):
        if test(mode):
            return word
    return "device"


def _link(name: str, folder: int) -> str | None:
    """Where the link leads; None when it is none (any more)."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
