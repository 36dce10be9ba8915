"""
Where the daemon of a configuration lives: its state folder and its socket.

A command is typed in an operator's shell, not in the service's: for the installed configuration the service's own
folders and environment file count, as its unit names them. A configuration that is broken since the daemon started
must not keep anybody from asking the daemon how it is; nor must one that only root and the service may read, for what
others may is said by `api.socket_access`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from dotenv import dotenv_values
from pydantic import ValidationError

from agentd.cli.tables import counted
from agentd.config.document import read_document
from agentd.config.environment import PREFIX
from agentd.config.loader import find_config, load
from agentd.config.models import Config
from agentd.config.service import ApiSettings, DaemonSettings
from agentd.errors import InvalidConfig

INSTALLED = Path("/etc/agentd/agentd.yaml")
# As in units/agentd.service.
_UNIT = {"STATE_DIRECTORY": "/var/lib/agentd", "RUNTIME_DIRECTORY": "/run/agentd"}
_ENVIRONMENT_FILE = Path("/etc/agentd/environment")
# As in units/agentd-agent.service.
_AGENTS_FILE = Path("/etc/agentd/agent.environment")


@dataclass(frozen=True, slots=True)
class Place:
    """
    config: None when it is broken; the rest is still as it says, or the default.

    path: of the main file. environment: in which the configuration is meant. origins: by key, where its value stands.
    """

    path: Path
    environment: Mapping[str, str]
    config: Config | None
    state_dir: Path
    socket: Path
    origins: Mapping[str, str] = field(default_factory=dict)


def environment_for(path: Path) -> dict[str, str]:
    """The environment in which the configuration is meant: ours, and for the installed one that of its services."""
    ours = dict(os.environ)
    if "INVOCATION_ID" in ours or not _same(path, INSTALLED):
        return ours
    # What begins with AGENTD_ is meant for the host's own process, and means no key here.
    keys = {name: value for name, value in _read(_AGENTS_FILE).items() if not name.startswith(PREFIX)}
    return _UNIT | keys | _read(_ENVIRONMENT_FILE) | ours


def _read(path: Path) -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(path).items() if value is not None}
    except OSError:
        return {}  # root's alone to read; what is missing then is said by name


def find_place(config_path: Path | None) -> Place:
    """Say where the daemon of the configuration is. Raises ConfigError when there is no configuration."""
    path = find_config(config_path)
    environment = environment_for(path)
    config: Config | None = None
    origins: Mapping[str, str] = {}
    try:
        # Whether its budgets can be kept is for those who run it.
        loaded = load(path, environment=environment, prices=False)
        config, origins = loaded.config, loaded.origins
        daemon, api = config.daemon, config.api
    except InvalidConfig as error:
        closed = _is_closed(path)
        if not path.exists() or (closed and not _same(path, INSTALLED)):
            raise
        errors = [problem for problem in error.problems if not problem.warning]
        if not all(_is_closed(problem.file) for problem in errors):
            click.echo(f"{path} has {counted(len(errors), 'error')}; `agentd check` shows them", err=True)
        daemon, api = (DaemonSettings(), ApiSettings()) if closed else _parts(path)
    state_dir = daemon.find_state_dir(environment)
    sockets = [address.path for address in api.find_listen(environment, state_dir) if address.path]
    return Place(path, environment, config, state_dir, Path(sockets[0]), origins)


def find_socket(config_path: Path | None) -> Path:
    """The same place's socket, by the two keys that say where it is: nothing is checked, and nothing said."""
    path = find_config(config_path)
    environment = environment_for(path)
    daemon, api = _parts(path)
    found = api.find_listen(environment, daemon.find_state_dir(environment))
    return Path(next(address.path for address in found if address.path))


def _parts(path: Path) -> tuple[DaemonSettings, ApiSettings]:
    """The two keys that say where the daemon is, as far as they can be read."""
    document, _ = read_document(path)
    data: Any = document.data if isinstance(document.data, dict) else {}
    daemon, api = data.get("daemon"), data.get("api")
    try:
        found_daemon = DaemonSettings(state_dir=daemon.get("state_dir") if isinstance(daemon, dict) else None)
    except ValidationError:
        found_daemon = DaemonSettings()
    try:
        found_api = ApiSettings(listen=api.get("listen", ()) if isinstance(api, dict) else ())
    except ValidationError:
        found_api = ApiSettings()
    return found_daemon, found_api


def _is_closed(file: Path | str) -> bool:
    """Whether it is there, and others' to read."""
    return os.path.exists(file) and not os.access(file, os.R_OK)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
