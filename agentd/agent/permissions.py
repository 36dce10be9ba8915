"""
What a run may do: narrowed on its way from the configuration to the run, and asked by every tool before it acts.

In: `Permissions` of the configuration, what a watch, a request or a model asks for. Out: narrower `Permissions`, or
`NotPermitted`, which names what is not allowed and what is.
Promise: pure; looks at no file and asks no resolver. What is asked for never widens what is allowed.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentd.agent.commands import forbidden_by, pattern_covers, words_match
from agentd.agent.hosts import canonical_host, host_matches, host_pattern_covers
from agentd.agent.job import Permissions
from agentd.agent.port import NotPermitted as NotPermitted

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
# They change what every program does, or speak to the service manager in our name.
_LOADED = re.compile(r"LD_.*|PATH|BASH_ENV|ENV|IFS|PYTHON.*|PERL5.*|NODE_OPTIONS|NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*")
_CLOSED_FOLDERS = ("/proc", "/sys", "/dev", "/run/credentials", "/var/run/credentials", "/run/secrets")
_CLOSED_FILES = re.compile(
    r"/etc/(?:g?shadow|security/opasswd)[^/]*|/etc/ssh/ssh_host_[^/]*_key|(?:/.*)?/\.ssh(?:/.*)?"
)
# A file by another spelling than its path: file:/x, FILE://localhost/x, jar:file:/x, @file:/x, and with the braces and
# brackets of curl {file,x}:/x and [f-f]ile:/x, in which there is also no telling what the path is.
_FILE_URL = re.compile(r"(?:^|[^\w.+-])file:(?=\S)|^[^:/]*[\[{][^:/]*:/", re.IGNORECASE)
_MAX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What a watch or a request wants to be left of what is allowed; None: all of it.

    tools, read, commands, http: as in `Permissions`. forbid: further prefixes, on top of those that there are.
    environment: values for names that the configuration lets be set. watches: whose logs may be searched.
    """

    tools: Sequence[str] | None = None
    read: Sequence[str] | None = None
    write: bool | None = None
    commands: Sequence[Sequence[str]] | None = None
    forbid: Sequence[str] = ()
    http: Sequence[str] | None = None
    private_networks: bool | None = None
    working_directory: str | None = None
    environment: Mapping[str, str] | None = None
    watches: Sequence[str] | None = None
    journal: bool | None = None


def narrow(allowed: Permissions, asked: Asked, *, settable: Iterable[str] = ()) -> Permissions:
    """
    The permissions that are left.

    settable: names of environment variables that may be given a value. A working directory must be the one that is
    allowed or lie beneath it, or beneath a folder that may be read. Raises NotPermitted, naming everything at once.
    """
    wrong: list[str] = []
    left = allowed
    if asked.tools is not None:
        _must(wrong, "tools", asked.tools, lambda name: name in allowed.tools, allowed.tools)
        left = replaced(left, tools=tuple(asked.tools))
    if asked.read is not None:
        _must(wrong, "folders", asked.read, lambda path: folder_of(allowed.read, path) is not None, allowed.read)
        left = replaced(left, read=tuple(normal_path(path) for path in asked.read))
    if asked.commands is not None:
        patterns = [tuple(pattern) for pattern in asked.commands]
        _must(
            wrong,
            "commands",
            [" ".join(pattern) for pattern in patterns if not covered(allowed.commands, pattern)],
            lambda _: False,
            [" ".join(pattern) for pattern in allowed.commands],
        )
        left = replaced(left, commands=tuple(patterns))
    if asked.http is not None:
        _must(
            wrong,
            "hosts",
            asked.http,
            lambda host: any(host_pattern_covers(pattern, host) for pattern in allowed.http),
            allowed.http,
        )
        left = replaced(left, http=tuple(asked.http))
    if asked.watches is not None:
        _must(wrong, "logs of the watches", asked.watches, lambda name: name in allowed.log_files, allowed.log_files)
        kept = {name: files for name, files in allowed.log_files.items() if name in asked.watches}
        left = replaced(left, log_files=kept)
    for key in ("write", "private_networks", "journal"):
        value = getattr(asked, key)
        if value is not None:
            if value and not getattr(allowed, key):
                wrong.append(f"{key}: true (it is off in the configuration)")
            left = replaced(left, **{key: value and getattr(allowed, key)})
    if asked.working_directory is not None:
        left = replaced(left, working_directory=_directory(wrong, allowed, asked.working_directory))
    if asked.environment:
        left = replaced(left, environment=_environment(wrong, allowed, asked.environment, frozenset(settable)))
    if asked.forbid:
        left = replaced(left, forbid=(*allowed.forbid, *asked.forbid))
    if wrong:
        raise NotPermitted(f"not allowed by the configuration: {'; '.join(wrong)}")
    return left


def replaced(permissions: Permissions, **changes: object) -> Permissions:
    return permissions.model_copy(update=changes)


def covered(allowed: Iterable[Sequence[str]], pattern: Sequence[str]) -> bool:
    """Whether whatever this pattern lets run is let run by one of those already."""
    return any(pattern_covers(each, pattern) for each in allowed)


def folder_of(folders: Iterable[str], path: str) -> str | None:
    """
    The widest of the folders beneath which this absolute path lies (or which it is); None: beneath none.

    By its text alone: links are for whoever opens it. A path with `..` in it lies beneath none.
    """
    if not is_plain_path(path):
        return None
    path = normal_path(path)
    found = [
        folder for folder in map(normal_path, folders) if path == folder or path.startswith(folder.rstrip("/") + "/")
    ]
    found = [folder for folder in found if not is_closed(path) or is_closed(folder)]
    return min(found, key=len, default=None)


def is_plain_path(path: str) -> bool:
    """Absolute, without `..`, NUL and half characters."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        return False
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def is_closed(path: str) -> bool:
    """
    Whether it holds secrets of the system or of processes, or is no file to be read: open only to those whose
    configuration names a folder within.
    """
    path = normal_path(path)
    if any(path == folder or path.startswith(folder + "/") for folder in _CLOSED_FOLDERS):
        return True
    return _CLOSED_FILES.fullmatch(path) is not None


def check_path(permissions: Permissions, path: str, *, write: bool = False) -> str:
    """The allowed folder beneath which the path lies. Raises NotPermitted."""
    if write and not permissions.write:
        raise NotPermitted("writing files is not allowed here (agent.files.write is off)")
    folder = folder_of(permissions.read, path)
    if folder is not None:
        return folder
    if not permissions.read:
        raise NotPermitted("no files may be read here; agent.files.allow names no folder")
    where = _listed(permissions.read)
    if path.startswith("/") and not is_plain_path(path):
        raise NotPermitted(f"{_shown(path)}: write the path without `..`, beneath {where}")
    if not path.startswith("/"):
        raise NotPermitted(f"{_shown(path)} is no absolute path; write one beneath {where}")
    if is_closed(path):
        raise NotPermitted(f"{_shown(path)} is closed: it belongs to the system, not to be read by tools")
    raise NotPermitted(f"{_shown(path)} lies outside of what may be read: {where}")


def check_command(permissions: Permissions, argv: Sequence[str], *, real: Callable[[str], str] | None = None) -> None:
    """
    Whether this command line may run, as it is. Raises NotPermitted.

    real: where a path leads to, links followed, for words that stand for `*`; None: by their text alone.
    """
    if not argv or any("\0" in word for word in argv):
        raise NotPermitted("a command is a list of words, the first of them the program")
    prefix = forbidden_by(permissions.forbid, argv)
    if prefix is not None:
        raise NotPermitted(f"commands that begin with {prefix!r} are forbidden, whatever else is allowed")
    if not permissions.commands:
        raise NotPermitted("no commands may be run here; agent.commands.allow names none")

    def is_open(word: str, beneath: str | None) -> bool:
        return _leads_to_open(word, beneath, permissions.working_directory, real)

    if not any(words_match(pattern, argv, is_open) for pattern in permissions.commands):
        known = _listed([" ".join(pattern) for pattern in permissions.commands])
        raise NotPermitted(
            f"{_shown(' '.join(argv))} is not among the allowed commands: {known} "
            "(`*` stands for one word that does not begin with -; /proc, /sys, /dev, file: and secrets are closed)"
        )


def check_host(permissions: Permissions, host: str) -> str:
    """The host as it is to be connected to, in its one spelling. Raises NotPermitted."""
    try:
        name = canonical_host(host)
    except ValueError as error:
        raise NotPermitted(f"{_shown(host)} cannot be used as a host: {error}") from error
    if not permissions.http:
        raise NotPermitted("no hosts may be reached here; agent.http.allow names none")
    if not any(host_matches(pattern, name) for pattern in permissions.http):
        raise NotPermitted(f"{name} is not among the allowed hosts: {_listed(permissions.http)}")
    return name


def _leads_to_open(word: str, beneath: str | None, directory: str, real: Callable[[str], str] | None) -> bool:
    if _FILE_URL.search(word):
        return False
    # Words such as --file=/x begin with a dash and are refused before; if=/x (dd) may carry a path too.
    for part in {word, word.rpartition("=")[2], word.rpartition("://")[2], word.lstrip("@")}:
        path = posixpath.join(directory, part)
        paths = [normal_path(path)] if real is None else [normal_path(path), normal_path(real(path))]
        for each in paths:
            if is_closed(each):
                return False
            if beneath is not None and part == word and not each.startswith(beneath.rstrip("/") + "/"):
                return False
    return True


def normal_path(path: str) -> str:
    """Without doubled slashes and single dots; by its text alone."""
    normal = posixpath.normpath(path)
    # POSIX lets exactly two leading slashes mean something else; Linux does not.
    return normal[1:] if normal.startswith("//") else normal


def _must(
    wrong: list[str], what: str, asked: Iterable[str], fits: Callable[[str], bool], allowed: Iterable[str]
) -> None:
    more = [each for each in asked if not fits(each)]
    if more:
        wrong.append(f"{what} {_listed(more)} (allowed: {_listed(allowed) or 'none'})")


def _directory(wrong: list[str], allowed: Permissions, path: str) -> str:
    if not is_plain_path(path) or folder_of((allowed.working_directory, *allowed.read), path) is None:
        wrong.append(
            f"working_directory {_shown(path)} (allowed: {_listed((allowed.working_directory, *allowed.read))})"
        )
        return allowed.working_directory
    return normal_path(path)


def _environment(
    wrong: list[str], allowed: Permissions, asked: Mapping[str, str], settable: frozenset[str]
) -> dict[str, str]:
    for name, value in asked.items():
        if allowed.environment.get(name) == value:
            continue
        if name not in settable or not _NAME.fullmatch(name) or _LOADED.fullmatch(name):
            wrong.append(f"environment variable {_shown(name)} (may be set: {_listed(sorted(settable)) or 'none'})")
        elif "\0" in value or "${" in value:
            wrong.append(f"the value of environment variable {name} (no NUL, and no ${{…}})")
    return {**allowed.environment, **asked}


def _listed(values: Iterable[str]) -> str:
    every = [_shown(value) for value in values]
    more = len(every) - _MAX_SHOWN
    return ", ".join(every[:_MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 120 else text[:117] + "..."
