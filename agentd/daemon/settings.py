"""
What the API reads and changes of the configuration: `api.settings_port.SettingsService` over the daemon.

In: patches of models and limits. Out: views, the overlay on disk, the daemon gone over to it.
Promise: a change is checked as a whole configuration is at load, then kept durably, then in force; when one of these
fails nothing has changed. Calls that are under way end on the old models and limits. A key that is given is in no
answer, no log and no audit trail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from agentd.clock import Clock
from agentd.config.document import KeyPath, dotted
from agentd.config.loader import Loaded, load, look_at
from agentd.config.masked import masked, masked_data
from agentd.config.models import Config
from agentd.config.old_names import translate
from agentd.config.origins import OVERLAY
from agentd.config.overlay import (
    LIVE,
    MAX_DEPTH,
    Overlay,
    amended,
    check_overlay,
    deeper_than,
    is_live,
    leaves,
    read_overlay,
    save_overlay,
    set_aside,
)
from agentd.errors import ConfigError, InvalidConfig, Problem, StoreError
from agentd.memory import audit
from agentd.memory.store import Store
from agentd.telemetry.redact import redact, register_secret

log = logging.getLogger("agentd.daemon")

Json = dict[str, Any]

_MOST_TOLD = 10
_MOST_NAMED = 200


class Configured(Protocol):
    """The daemon, as far as it is needed here."""

    path: Path
    state_dir: Path
    clock: Clock
    store: Store
    note: str

    @property
    def loaded(self) -> Loaded:
        """What is in effect."""
        ...

    def changing(self) -> AbstractAsyncContextManager[None]:
        """Nothing else changes meanwhile. Raises Conflict while the daemon starts or stops."""
        ...

    def go_over_to_limits(self, loaded: Loaded) -> None:
        """From now on the models and limits of this hold."""
        ...


class LiveSettings:
    """Implements `agentd.api.settings_port.SettingsService`."""

    def __init__(self, daemon: Configured) -> None:
        self._daemon = daemon
        self._validating = asyncio.Lock()

    async def config(self) -> Json:
        loaded = self._daemon.loaded
        return {
            "config": await asyncio.to_thread(masked, loaded.config),
            "origins": dict(loaded.origins),
            "live": list(LIVE),
            "overlay": {
                "file": str(loaded.overlay.path),
                "keys": list(loaded.overlay.keys),
                "trouble": loaded.overlay.wrong,
            },
            "note": self._daemon.note,
        }

    async def change(self, patch: Json, *, by: str) -> Json:
        wanted = _wanted(patch)
        async with self._daemon.changing():
            loaded = await self._loaded_with(wanted)
            await self._keep(loaded, wanted, by)
            self._daemon.go_over_to_limits(loaded)
        changed = [dotted(path) for path, _ in leaves(wanted)]
        log.info("config_changed", extra={"by": by, "keys": ", ".join(changed)[:1000]})
        return {"changed": changed, "warnings": list(_without_effect(wanted, loaded))}

    async def change_model(self, model: Json, *, by: str) -> Json:
        settings = {key: value for key, value in model.items() if key != "name"}
        name = model.get("name", "default")
        if not isinstance(name, str):
            raise ConfigError("name: is no text; write what the model is called in `models`")
        if not settings:
            raise ConfigError("model: says nothing; send `provider`, `model_name` and what else is to be changed")
        return await self.change({"models": {name: settings}}, by=by)

    async def validate(self, config: Json | str) -> Json:
        # Anybody who may look may ask, and it is work: one at a time.
        async with self._validating:
            problems, notices = await asyncio.to_thread(look_at, config)
        errors = [_told(problem) for problem in problems if not problem.warning]
        warnings = [_told(problem) for problem in (*problems, *notices) if problem.warning]
        return {"valid": not errors, "errors": errors, "warnings": warnings}

    async def _loaded_with(self, wanted: Mapping[str, Any]) -> Loaded:
        """The configuration as it would be. Raises ConfigError, StoreError."""
        daemon = self._daemon
        now = await asyncio.to_thread(read_overlay, daemon.state_dir)
        if now.wrong is not None and now.kept:
            raise StoreError(f"{now.path}: {now.wrong}")
        providers = {name: model.provider for name, model in daemon.loaded.config.models.items()}
        data = amended(now.data, wanted, providers)
        check_overlay(data)
        try:
            loaded = await asyncio.to_thread(load, daemon.path, overlay=Overlay(now.path, data))
        except InvalidConfig as error:
            raise ConfigError(_why(error)) from None  # its words were cleaned, the chain's were not
        if now.wrong is not None:
            await asyncio.to_thread(put_aside, now)
        return loaded

    async def _keep(self, loaded: Loaded, wanted: Mapping[str, Any], by: str) -> None:
        """Write it down, and who did it; both or none. Raises StoreError."""
        daemon = self._daemon
        before, now = daemon.loaded.overlay, daemon.clock.now()
        keys = ", ".join(dotted(path) for path, _ in leaves(wanted))
        detail = json.dumps(masked_data(wanted), ensure_ascii=False)
        await asyncio.to_thread(save_overlay, daemon.state_dir, loaded.overlay.data)
        try:
            await daemon.store.state.write(
                lambda connection: audit.append(connection, by, "config.change", keys[:_MOST_NAMED], detail, now)
            )
        except BaseException:
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(save_overlay, daemon.state_dir, before.data)
            raise


def with_limits_of(config: Config, other: Config) -> Config:
    """`config` with what may be changed live as `other` has it."""
    update: dict[str, Any] = {"models": other.models, "budgets": other.budgets}
    for section in ("api", "agent"):
        theirs = getattr(other, section)
        names = [name for name in type(theirs).model_fields if _is_live_section(section, name)]
        update[section] = getattr(config, section).model_copy(update={name: getattr(theirs, name) for name in names})
    return config.model_copy(update=update)


def limits_laid_over(before: Loaded, after: Loaded) -> Loaded:
    """What was loaded before, with the models and limits of another load, and where these come from."""
    origins = {key: origin for key, origin in before.origins.items() if not is_live(_path(key))}
    origins |= {key: origin for key, origin in after.origins.items() if is_live(_path(key))}
    return Loaded(
        config=with_limits_of(before.config, after.config),
        files=before.files,
        warnings=before.warnings,
        environment=before.environment,
        conditions=before.conditions,
        origins=origins,
        overlay=after.overlay,
        notices=before.notices,
    )


def register_keys(config: Config) -> None:
    """Keys of models that are written out, and so are read nowhere, are to be kept out of logs and answers too."""
    for model in (*config.models.values(), config.embeddings):
        if model is not None and model.api_key is not None and model.api_key.literal:
            register_secret(model.api_key.text)


def put_aside(overlay: Overlay) -> str:
    """At the start, for whoever owns the state folder: make room for another. Returns what to tell, or nothing."""
    if overlay.wrong is None:
        return ""
    what, _, cure = overlay.wrong.partition("; ")
    try:
        kept_as = set_aside(overlay)
    except StoreError as error:
        kept_as, what = None, f"{what}; {error}"
    log.warning("overlay_not_used", extra={"file": str(overlay.path), "why": what, "kept_as": str(kept_as or "")})
    return f"what was changed live is not in effect: {overlay.path.name} {what}; {cure}"


def _is_live_section(section: str, name: str) -> bool:
    return is_live((section, name)) or is_live((section, name, "*"))


def _path(key: str) -> KeyPath:
    return tuple(key.partition("[")[0].split("."))


def _wanted(patch: Any) -> dict[str, Any]:
    """The patch in present names. Raises ConfigError for what cannot be changed live."""
    if not isinstance(patch, dict) or not patch:
        raise ConfigError(f"says nothing; send a mapping of keys that may be changed: {', '.join(LIVE)}")
    if deeper_than(MAX_DEPTH, patch):
        raise ConfigError(f"is nested deeper than {MAX_DEPTH} levels; flatten it")
    found = translate(patch)
    for path, what, cure in found.problems:
        raise ConfigError(f"{dotted(path)}: {what}; {cure}")
    wanted: dict[str, Any] = found.data
    check_overlay(wanted)
    return wanted


def _why(error: InvalidConfig) -> str:
    errors = [problem for problem in error.problems if not problem.warning]
    told = [f"{problem.key}: {problem.what}" + (f"; {problem.cure}" if problem.cure else "") for problem in errors]
    more = f" (and {len(told) - _MOST_TOLD} more)" if len(told) > _MOST_TOLD else ""
    return redact(" | ".join(told[:_MOST_TOLD])) + more


def _told(problem: Problem) -> Json:
    return {
        "key": problem.key,
        "line": problem.line,
        "message": redact(problem.what),
        "cure": redact(problem.cure),
    }


def _without_effect(wanted: Mapping[str, Any], loaded: Loaded) -> Iterator[str]:
    """What an operator's own word hinders from being what was asked for."""
    for path, value in leaves(wanted):
        key = dotted(path)
        if value is None:
            continue
        origin = next((each for name, each in loaded.origins.items() if name == key or name.startswith(f"{key}[")), "")
        if origin and origin != OVERLAY:
            yield f"{key}: is kept, and has no effect as long as it comes from {origin}"
    laid = str(loaded.overlay.path)
    for problem in loaded.warnings:
        if problem.file == laid:
            yield redact(f"{problem.key}: {problem.what}" + (f"; {problem.cure}" if problem.cure else ""))
