"""
Whether we may read the journal: libsystemd passes over files that it cannot open, and says nothing.

In: the folders of journal files. Out: the files that are there, and why not all of them can be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOTS = (Path("/var/log/journal"), Path("/run/log/journal"))
_MACHINE_ID = Path("/etc/machine-id")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Sight:
    """
    blind: why we do not see all of the journal, and how to mend it; None when we do.
    files: device, inode and path of every file of it.
    """

    blind: str | None
    files: frozenset[tuple[int, int, str]]


def look(path: Path | None) -> Sight:
    """path: a folder of journal files instead of this machine's."""
    files: set[tuple[int, int, str]] = set()
    closed: list[str] = []
    for folder in _folders(path):
        try:
            with os.scandir(folder) as entries:
                found = [entry.path for entry in entries if entry.name.endswith((".journal", ".journal~"))]
        except PermissionError:
            closed.append(str(folder))
            continue
        except OSError:
            continue
        for file in found:
            try:
                status = os.stat(file)
            except OSError:  # gone since
                continue
            files.add((status.st_dev, status.st_ino, file))
            if not os.access(file, os.R_OK, effective_ids=True) and os.path.exists(file):
                closed.append(file)
    return Sight(_blind(closed, bool(files), path), frozenset(files))


def _blind(closed: list[str], any_there: bool, path: Path | None) -> str | None:
    if closed:
        more = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        return (
            f"cannot read {closed[0]}{more}: permission denied; "
            "let the user that agentd runs as be a member of the group systemd-journal"
        )
    if not any_there:
        where = " or ".join(map(str, _ROOTS if path is None else (path,)))
        return f"there is no journal in {where}; is systemd-journald running, and does it store anything?"
    return None


def _folders(path: Path | None) -> Iterator[Path]:
    if path is None:
        try:
            machine = _MACHINE_ID.read_text().strip()
        except OSError:
            machine = ""
        for root in _ROOTS:
            yield root
            if machine:
                yield root / machine
        return
    yield path
    try:
        with os.scandir(path) as entries:
            yield from [Path(entry.path) for entry in entries if _ID.fullmatch(entry.name)]
    except OSError:
        return
