"""
The file that `agentd key new` writes for one key, and `agentd key revoke` takes away.

In: the main file's place, a key's name, scope, rate, hash. Out: `keys.d/NAME.yaml` beside it.
Promise: what is put there or taken away is taken back unless the block ends well; nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentd.config.key_files import FOLDER
from agentd.errors import AgentdError

_HEAD = "# Made by `agentd key new {name}`; `agentd key revoke {name}` takes it away."


def key_text(key: dict[str, Any]) -> str:
    """The file's text. key: name, hash, scope, and rate_limiting where it has one."""
    name = f'"{key["name"]}"'  # one such as 007 or null is text all the same
    lines = [
        _HEAD.format(name=key["name"]),
        "api:",
        "  keys:",
        f"    - name: {name}",
        f"      scope: {key['scope']}",
        f"      hash: {key['hash']}",
    ]
    if rate := key.get("rate_limiting"):
        lines += ["      rate_limiting:", *(f"        {name}: {value}" for name, value in rate.items())]
    return "\n".join(lines) + "\n"


def key_path(main: Path, name: str) -> Path:
    return main.parent / FOLDER / f"{name}.yaml"


@contextlib.contextmanager
def adding(main: Path, name: str, text: str) -> Iterator[Path]:
    """
    Write the file, for its owner and the main file's group; it is gone again when the block raises.

    Raises AgentdError when it is there already or cannot be written.
    """
    path = key_path(main, name)
    group = main.stat().st_gid
    try:
        if not path.parent.exists():
            path.parent.mkdir()
            _give(path.parent, group)
            path.parent.chmod(0o750)
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise AgentdError(f"{path} is there already; choose another name, or revoke that key") from error
    except OSError as error:
        raise AgentdError(f"{path} cannot be written: {error.strerror}; run this as root, or with --print") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            _give(handle, group)
            os.fchmod(handle, 0o640)
            file.flush()
            os.fsync(handle)
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def removing(path: Path) -> Iterator[None]:
    """Take the file away; it is back when the block raises. Raises AgentdError when that cannot be done."""
    aside = path.with_name(f".{path.name}.revoked")
    try:
        path.rename(aside)
    except OSError as error:
        raise AgentdError(f"{path} cannot be removed: {error.strerror}; run this as root") from error
    try:
        yield
    except BaseException:
        aside.rename(path)
        raise
    aside.unlink(missing_ok=True)


def is_ours(path: Path, name: str) -> bool:
    """Whether `key new` wrote it, as far as can be told: nothing that people wrote is removed."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
    except (OSError, ValueError):
        return False
    return first.rstrip("\n") == _HEAD.format(name=name)


def _give(what: Path | int, group: int) -> None:
    # Who is not in that group cannot give it away; then the daemon runs as the same user, or a check says so.
    with contextlib.suppress(PermissionError):
        os.chown(what, -1, group)
