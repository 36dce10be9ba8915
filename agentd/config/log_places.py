"""
Whether what the watches name is there on this machine: files to follow, programs to run.

In: a configuration that may be run. Out: warnings with places.
For `agentd check` alone. It may be run on another machine or by another user than the service, so nothing here is an
error; and a look may hang on a dead network file system, so a daemon does not look before it starts.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentd.config.checks import Entry
from agentd.config.complaints import Locate, show
from agentd.config.document import Document, KeyPath, read_document
from agentd.config.loader import Loaded
from agentd.errors import Problem

_BRACES = re.compile(r"\{([^{}/]*,[^{}/]*)\}")
_MOST_LOOKED_AT = 1000
_WHOSE = "the user of the service counts: look as that user, or let its group read it (chgrp, chmod g+r)"
_PATH_OF_SERVICE = "install it, or write its full path; the PATH of the service counts"


def check_places(loaded: Loaded) -> list[Problem]:
    """Look at the files and programs that enabled watches name. Blocking; never raises for what is on disk."""
    state_dir = loaded.config.daemon.find_state_dir(loaded.environment)
    return [problem for entry in enabled_watches(loaded) for problem in _check_watch(entry, state_dir)]


def enabled_watches(loaded: Loaded) -> Iterator[Entry]:
    """Those that are run, as they are written. Reads the files again."""
    enabled = {watch.name for watch in loaded.config.watches if watch.enabled}
    for file in loaded.files:
        document, _ = read_document(file)
        listed = document.data.get("watches") if isinstance(document.data, dict) else None
        for index, raw in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(raw, dict) and raw.get("name") in enabled:
                yield Entry(str(raw["name"]), raw, ("watches", index), _locate_in(document))


def _locate_in(document: Document) -> Locate:
    return lambda path, key: document.place(path, key=key)


def _check_watch(watch: Entry, state_dir: Path) -> Iterator[Problem]:
    log = watch.raw.get("log")
    if isinstance(log, dict):
        files = log.get("files")
        for index, pattern in enumerate(files if isinstance(files, list) else ()):
            if isinstance(pattern, str):
                for what, cure in _file_doubts(pattern, state_dir):
                    yield watch.problem(("log", "files", index), what, cure, warning=True)
        yield from _check_program(watch, ("log", "command"), log.get("command"), "/")
    command = watch.raw.get("command")
    if isinstance(command, dict):
        cwd = command.get("cwd")
        yield from _check_program(watch, ("command", "argv"), command.get("argv"), cwd if isinstance(cwd, str) else "/")


def _check_program(watch: Entry, path: KeyPath, argv: Any, cwd: str) -> Iterator[Problem]:
    program = argv[0] if isinstance(argv, list) and argv else None
    if not isinstance(program, str) or not program or "\0" in program:
        return
    place = (*path, 0)
    if "/" not in program:
        if shutil.which(program) is None:
            yield watch.problem(place, f"there is no program {program} in PATH", _PATH_OF_SERVICE, warning=True)
        return
    where = os.path.join(cwd, program)
    try:
        mode = os.stat(where).st_mode
    except (FileNotFoundError, NotADirectoryError):
        yield watch.problem(place, f"there is no program {where}", "install it, or write where it is", warning=True)
        return
    except OSError as error:
        yield watch.problem(place, f"{where} cannot be looked at by {_us()}: {error.strerror}", _WHOSE, warning=True)
        return
    if not stat.S_ISREG(mode) or not os.access(where, os.X_OK):
        yield watch.problem(place, f"{where} cannot be run by {_us()}", "allow it: chmod +x", warning=True)


def _file_doubts(pattern: str, state_dir: Path) -> Iterator[tuple[str, str]]:
    """Why nothing, or nothing of use, will be followed; and how to mend it."""
    # Here, not above: a configuration without logs needs none of it.
    from agentd.logs.follow.globs import Globs

    pattern = os.path.abspath(pattern)
    first = next((n for n, part in enumerate(pattern.split("/")) if re.search(r"[*?\[]", part)), None)
    above = pattern if first is None else "/".join(pattern.split("/")[:first]) or "/"
    if (braces := _BRACES.search(pattern)) is not None and not os.path.lexists(pattern):
        each = [pattern.replace(braces[0], part, 1) for part in braces[1].split(",")]
        yield f"{{{braces[1]}}} is no pattern here, and such a name is looked for", f"write: {', '.join(each)}"
        return
    if _is_below(above, state_dir):
        what = f"lies in agentd's own state_dir {state_dir}: what it writes would be read, and written about"
        yield what, "follow files of others; agentd tells of itself by its own alerts"
        return
    if first is None:
        if doubt := _doubt(pattern):
            yield doubt
        return
    if not os.path.isdir(above):
        yield _doubt(above) or (f"{above} is no folder", "write the path of a file, or of a folder and a pattern")
        return
    if "**" in pattern.split("/"):
        return  # may be half a disk, which the daemon looks through at its leisure
    found = Globs((pattern,)).find()
    if found.trouble:
        yield f"{found.trouble[0]}, for {_us()}", _WHOSE
    elif not found.paths:
        yield "no file has such a name", "check the pattern; a file that comes later is followed from its beginning"
    else:
        doubts = [_doubt(path) for path in list(found.paths)[:_MOST_LOOKED_AT]]
        if doubt := next((each for each in doubts if each is not None), None):
            yield doubt


def _doubt(path: str) -> tuple[str, str] | None:
    """What is wrong with one file."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        folder = path
        while folder != "/" and not os.path.isdir(folder):
            path, folder = folder, os.path.dirname(folder)
        what = f"there is no {show(os.path.basename(path))} in {folder}"
        return what, "check the path; a file that comes later is followed from its beginning"
    except PermissionError:
        return f"{path} cannot be looked at by {_us()}", _WHOSE
    except OSError as error:
        return f"{path} cannot be looked at: {error.strerror}", "check the path"
    if stat.S_ISDIR(mode):
        return (
            f"{path} is a folder, and files are followed",
            f"write {path.rstrip('/')}/*.log, or what its files are called",
        )
    if not stat.S_ISREG(mode):
        return f"{path} is no regular file", "follow a file, or a `command` that reads it"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read by {_us()}", _WHOSE
    return None


def _us() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.geteuid()}"


def _is_below(path: str, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")
