"""
What was changed while the daemon ran: models and limits, in one file of the state folder (`overlay.json`, 0600).

In: patches of the configuration. Out: a file that `load` lays over the configuration files.
Whose word counts, the last one most: defaults, files, overlay, `.env`, environment.
Promise: only what is in `LIVE` can stand in it. It is written whole or not at all, and a full disk leaves the old one.
One that cannot be used keeps nobody from starting: it is passed over, and said to be.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentd.config.document import KeyPath, dotted
from agentd.errors import ConfigError, StoreError, StoreFull
from agentd.llm.settings import present_provider

NAME = "overlay.json"
MAX_BYTES = 256 * 1024
MAX_DEPTH = 12
MAX_MODELS = 200

LIVE = (
    "models.*",
    "budgets.*",
    "api.rate_limiting.*",
    "api.max_concurrent_tasks",
    "api.task_timeout",
    "agent.model",
    "agent.max_steps",
    "agent.retries",
    "agent.retry_delay",
    "agent.max_parallel",
    "agent.tool_timeout",
)
"""Keys that may be changed while the daemon runs, all below a `*` too. None of them runs, reads or permits anything."""

_PATTERNS = tuple(tuple(each.split(".")) for each in LIVE)
_OF_A_PROVIDER = frozenset(
    {"model", "api_key", "base_url", "context_tokens", "rate", "protocol", "grammar", "price", "api_version", "region"}
)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Overlay:
    """
    data: as the configuration is nested, in present names. wrong: why it is not in effect, `what; how to mend`.
    kept: it may be put away to make room for another; not so one that could not be read just now.
    """

    path: Path
    data: Mapping[str, Any] = field(default_factory=dict)
    wrong: str | None = None
    kept: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Dotted, in order."""
        return tuple(sorted(dotted(path) for path, _ in leaves(self.data)))

    def sets(self, path: KeyPath) -> bool:
        """Whether the value at `path`, a leaf or one within, comes from here."""
        here: Any = self.data
        for step in path:
            if not isinstance(here, Mapping):
                return True
            if step not in here:
                return False
            here = here[step]
        return not isinstance(here, Mapping)


def leaves(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every value that is no mapping, and every empty mapping, with its path."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from leaves(value, (*path, key))
    elif path:
        yield path, data


def deeper_than(most: int, data: Any) -> bool:
    """Whether plain data is nested deeper than so many levels; what walks through it by recursion asks first."""
    level = [data]
    for _ in range(most + 1):
        below: list[Any] = []
        for each in level:
            below += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
        if not below:
            return False
        level = below
    return True


def is_live(path: KeyPath, *, taken_out: bool = False) -> bool:
    """Whether the key may be changed while the daemon runs. taken_out: removed, with all below."""
    for pattern in _PATTERNS:
        if pattern[-1] == "*":
            head = pattern[:-1]
            if path[: len(head)] == head and (len(path) > len(head) or taken_out):
                return True
        elif path == pattern:
            return True
        if taken_out and pattern[: len(path)] == path:
            return True
    return False


def check_overlay(data: Mapping[str, Any]) -> None:
    """Raises ConfigError for a key that may not stand in an overlay, or a key to a model that is named, not written."""
    for path, value in leaves(data):
        if not is_live(path, taken_out=value is None):
            raise ConfigError(
                f"{dotted(path)[:200]}: cannot be changed while the daemon runs, only {', '.join(LIVE)} can; "
                "write it into the configuration file and reload"
            )
        if path[0] == "models" and isinstance(value, str) and "${" in value:
            # Who may change models must not so read files and variables of the daemon, by having them sent.
            raise ConfigError(
                f"{dotted(path)[:200]}: ${{…}} names a secret of the daemon's, which files alone may do; "
                "write the value itself here, or the name into the configuration file"
            )
    if isinstance(models := data.get("models"), Mapping) and len(models) > MAX_MODELS:
        raise ConfigError(f"models: there are {len(models)}, and at most {MAX_MODELS} may stand here; remove some")


def patched(data: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `patch` merged in as RFC 7396 says: null takes a key out. Mappings that become empty go as well."""
    result = dict(data)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            below = result.get(key)
            inner = patched(below if isinstance(below, Mapping) else {}, value)
            if inner:
                result[key] = inner
            else:
                result.pop(key, None)
        else:
            result[key] = value
    return result


def amended(data: Mapping[str, Any], patch: Mapping[str, Any], providers: Mapping[str, str]) -> dict[str, Any]:
    """
    The overlay's data with a patch in it. providers: of each model as it is now.

    A model that is to change its provider keeps nothing here that belongs to the other: neither key nor address.
    """
    models, wanted = data.get("models"), patch.get("models")
    if isinstance(models, Mapping) and isinstance(wanted, Mapping):
        kept = dict(models)
        for name in kept.keys() & wanted.keys():
            below, asked = kept[name], wanted[name]
            if isinstance(below, Mapping):
                kept[name] = _kept_of({"provider": providers.get(name), **below}, asked)
                kept[name] = {key: value for key, value in kept[name].items() if key in below}
        data = {**data, "models": kept}
    return patched(data, patch)


def lay_over(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """
    The files' data with the overlay's in it; neither is changed.

    A model that changes its provider keeps nothing of the files' that belongs to the other: key, address, price, rate.
    """
    merged: dict[str, Any] = _merged(base, {key: value for key, value in overlay.items() if key != "models"})
    models = overlay.get("models")
    if isinstance(models, Mapping):
        of_files = base.get("models")
        if of_files is None or isinstance(of_files, Mapping):
            laid = dict(of_files or {})
            for name, model in models.items():
                below = laid.get(name)
                laid[name] = _merged(_kept_of(below, model), model) if isinstance(below, Mapping) else model
            merged["models"] = laid
    return merged


def _kept_of(below: Mapping[str, Any], model: Any) -> Mapping[str, Any]:
    named = model.get("provider") if isinstance(model, Mapping) else None
    other = named is not None and present_provider(named) != present_provider(below.get("provider"))
    return {key: value for key, value in below.items() if key not in _OF_A_PROVIDER} if other else below


def _merged(base: Mapping[str, Any], over: Any) -> Any:
    if not isinstance(over, Mapping):
        return over
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = _merged(below, value)
        elif isinstance(value, Mapping) and below is not None and key in result:
            continue  # the file is wrong there, and says so
        else:
            result[key] = value
    return result


def read_overlay(state_dir: Path) -> Overlay:
    """What is there now; nothing when there is no such file. Never raises for what is on disk."""
    path = state_dir / NAME
    try:
        content = _content(path)
    except (FileNotFoundError, NotADirectoryError):
        return Overlay(path)
    except PermissionError:
        what = "may not be read by this user, so what it sets is not seen; run this as the daemon's user"
        return Overlay(path, wrong=what, kept=True)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Overlay(path, wrong=f"cannot be read: {reason}; look at the disk", kept=True)
    try:
        if len(content) > MAX_BYTES:
            raise ConfigError(f"is larger than {MAX_BYTES // 1024} KiB")
        data = json.loads(content, object_pairs_hook=_mapping, parse_constant=_no_number)
        if deeper_than(MAX_DEPTH, data):
            raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels")
        if not isinstance(data, dict):
            raise ConfigError("is no mapping of keys")
        check_overlay(data)
        if any(value is None for _, value in leaves(data)):
            raise ConfigError("holds null")
    except ConfigError as error:
        what, _, _ = str(error).partition("; ")
        return Overlay(path, wrong=f"{what}; make the changes again by `agentd config set`")
    except (ValueError, RecursionError):
        # Not what the parser says: it quotes, and keys stand in there.
        return Overlay(path, wrong="is no JSON; make the changes again by `agentd config set`")
    return Overlay(path, data)


def _content(path: Path) -> bytes:
    # Whatever lies there: a pipe must not hold up who only looks.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no regular file")
        return file.read(MAX_BYTES + 1)


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ConfigError("says a key twice")
    return result


def _no_number(text: str) -> Any:
    raise ConfigError(f"holds {text}")


def save_overlay(state_dir: Path, data: Mapping[str, Any]) -> None:
    """
    Write it durably in the old one's place; an empty one is removed. Blocking: waits for the disk.

    Raises ConfigError when it is too large or cannot be written as JSON, StoreFull, StoreError; the old one stays then.
    """
    path = state_dir / NAME
    try:
        content = json.dumps(data, indent=2, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError("the change cannot be kept as JSON; write numbers, text, lists and mappings") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"all that was changed takes more than {MAX_BYTES // 1024} KiB; move it to the file")
    try:
        if data:
            _replace(path, content + b"\n")
        else:
            path.unlink(missing_ok=True)
        _sync_folder(state_dir)
    except OSError as error:
        told = f"{path}: cannot be written: {error.strerror or error}; nothing was changed"
        raise (StoreFull if error.errno in _NO_ROOM else StoreError)(told) from error


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{NAME}.new")
    fresh.unlink(missing_ok=True)  # of a daemon that was killed as it wrote
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            os.fchmod(handle, 0o600)
            file.write(content)
            file.flush()
            os.fsync(handle)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def set_aside(overlay: Overlay) -> Path | None:
    """
    Put one away that cannot be used, so that the next has room: as `overlay.json.broken`, in place of an older one.

    For the owner of the state folder alone. Returns where it is, None when it stayed. Raises StoreError.
    """
    if overlay.wrong is None or overlay.kept:
        return None
    broken = overlay.path.with_name(f"{NAME}.broken")
    try:
        os.replace(overlay.path, broken)
        _sync_folder(overlay.path.parent)
    except OSError as error:
        raise StoreError(f"{overlay.path}: cannot be put aside: {error.strerror or error}; remove it") from error
    return broken


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
