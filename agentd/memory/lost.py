"""
A state file that is gone while what belonged to it is still there.

In: a state directory, before its files are opened.  Out: nothing, or a StoreError with the way out.
Promise: a first start is never refused, nor the one after a crash in the middle of the first. But a state file that
was lost or emptied is not quietly begun anew: every alert and every waiting message would be forgotten.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from agentd.errors import StoreError
from agentd.memory import backup, files
from agentd.memory.columns import first
from agentd.memory.migrate import version

_FIRST_PAGES_BYTES = 64 * 1024


def refuse_lost(state: Path, history: Path, backups: Path) -> None:
    """Raises StoreError when `state` holds nothing while there are backups of it or a history with content."""
    if not holds_nothing(state):
        return
    copies = backup.listed(backups, state.stem)
    has_history = _has_content(history)
    if not copies and not has_history:
        return
    beside = [str(path) for path, there in ((backups, copies), (history, has_history)) if there]
    what = "is empty" if state.exists() else "is not there"
    newest = copies[-1] if copies else "BACKUP"
    raise StoreError(
        f"{state}: the file {what}, but agentd has run here: see {' and '.join(beside)}; "
        f"put a backup back with `agentd doctor restore {newest}`; "
        f"only to begin anew and forget all alerts and messages, move {' and '.join(beside)} away"
    )


def holds_nothing(path: Path) -> bool:
    """Whether a store file is missing, or empty: no schema was ever written into it. False for a damaged one."""
    try:
        if not path.exists() or path.stat().st_size == 0:
            return True
        if path.stat().st_size > _FIRST_PAGES_BYTES:
            return False
        connection = files.open_reader(path)
        try:
            return version(connection) == 0
        finally:
            connection.close()
    except (OSError, apsw.Error, StoreError):
        return False  # opening it says what is wrong


def _has_content(path: Path) -> bool:
    """Whether any table has a row; true also of a file that cannot be read, which was no empty one."""
    try:
        if not path.exists() or path.stat().st_size == 0:
            return False
        connection = files.open_reader(path)
        try:
            tables = [str(name) for (name,) in connection.execute(_TABLES).fetchall()]
            return any(first(connection.execute(f'SELECT 1 FROM "{name}" LIMIT 1')) for name in tables)
        finally:
            connection.close()
    except (OSError, apsw.Error, StoreError):
        return True


_TABLES = """
    SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'rolled'
    AND name NOT LIKE 'notes_words%'"""
"""All but those that have their rows from the beginning: how far results are rolled up, the words of notes."""
