"""Files that are made by an export: new, and nobody else's to read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from agentd.errors import AgentdError


@contextlib.contextmanager
def new_file(file: Path | None) -> Iterator[IO[str]]:
    """
    Of ASCII, that only we may read; nothing is written over. None: stdout.

    Raises AgentdError: it is there already, or cannot be made.
    """
    if file is None:
        yield sys.stdout
        return
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AgentdError(f"{file}: is there already; name a new file, or remove that one") from error
    except OSError as error:
        raise AgentdError(f"{file}: cannot be made: {error.strerror}; name a file in a folder of yours") from error
    with os.fdopen(handle, "w", encoding="ascii") as out:
        yield out
