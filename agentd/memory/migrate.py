"""
The schema of a store file: numbered forward steps, read from `state/NNNN_*.sql` and `history/NNNN_*.sql`.

In: an open connection.  Out: the same file at the newest schema that this agentd knows.
Promise: a step happens whole or not at all, and a file of a newer agentd is never touched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import apsw

from agentd.errors import StoreError

_NAME = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One forward step: `sql` brings a file from schema `version - 1` to `version`."""

    version: int
    name: str
    sql: str


@cache
def steps(family: str) -> tuple[Migration, ...]:
    """The steps shipped with the package; family: `state` or `history`."""
    found = [
        Migration(int(match[1]), match[2], entry.read_text("utf-8"))
        for entry in files("agentd.memory").joinpath(family).iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    found.sort(key=lambda step: step.version)
    assert [step.version for step in found] == list(range(1, len(found) + 1)), f"a gap in the steps of {family}"
    return tuple(found)


def version(connection: apsw.Connection) -> int:
    """The schema version that the file says it has; 0 for a new file."""
    return int(connection.pragma("user_version"))


def refuse_newer(connection: apsw.Connection, migrations: Sequence[Migration], where: str) -> None:
    """Raises StoreError when a newer agentd wrote the file."""
    found, known = version(connection), len(migrations)
    if found > known:
        raise StoreError(
            f"{where}: a newer agentd wrote it (schema {found}, this agentd knows up to {known}); "
            "install that newer agentd again, or restore an older backup with `agentd doctor restore`"
        )


def migrate(
    connection: apsw.Connection, migrations: Sequence[Migration], where: str, before: Callable[[], None]
) -> int:
    """
    Take every step that the file lacks, each in a transaction of its own.

    before: called once ahead of the first step of a file that already holds something (its backup).
    Returns the number of steps taken. Raises StoreError when the file is newer, or a step fails.
    """
    refuse_newer(connection, migrations, where)
    found = version(connection)
    missing = [step for step in migrations if step.version > found]
    if missing and found > 0:
        before()
    for step in missing:
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(step.sql)
            connection.pragma("user_version", step.version)
            connection.execute("COMMIT")
        except apsw.Error as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, apsw.FullError):
                raise
            raise StoreError(
                f"{where}: schema step {step.version} ({step.name}) failed: {error}; "
                "the file is as it was before; report this with the message"
            ) from error
    return len(missing)
