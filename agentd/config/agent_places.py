"""
Whether what agents are given is there on this machine: folders that they may read, keys of their models.

In: a configuration that may be run. Out: warnings with places.
For `agentd check` alone, as with `log_places`: it may be run on another machine or by another user than the service.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from agentd.config.document import KeyPath, dotted, read_document
from agentd.config.loader import Loaded
from agentd.errors import Problem
from agentd.llm.providers import PROVIDERS

_WHOSE_KEY = "or write `api_key`; as a service it stands in /etc/agentd/agent.environment"


def check_agent_places(loaded: Loaded, path: Path) -> list[Problem]:
    """path: of the main file. Blocking; never raises for what is on disk."""
    document, _ = read_document(path)
    found = []
    for key_path, what, cure in [*_folders(loaded), *_keys(loaded)]:
        place = document.place(key_path, key=key_path[0] == "models")
        found.append(Problem(place.file, place.line, place.column, dotted(key_path), what, cure, True))
    return found


def _folders(loaded: Loaded) -> Iterator[tuple[KeyPath, str, str]]:
    for index, folder in enumerate(loaded.config.agent.files.allow):
        path: KeyPath = ("agent", "files", "allow", index)
        try:
            os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            yield (
                path,
                f"there is no folder {folder}, so agents read nothing there",
                "check the path, or make the folder",
            )
        except OSError:
            pass  # the user of the service counts


def _keys(loaded: Loaded) -> Iterator[tuple[KeyPath, str, str]]:
    for name, model in loaded.config.models.items():
        provider = PROVIDERS[model.provider]
        given = model.api_key is not None or any(loaded.environment.get(each) for each in provider.key_env)
        if provider.key_needed and not given:
            wanted = " or ".join(provider.key_env)
            what = f"provider {model.provider} lets nobody in without a key, and none is seen here"
            yield ("models", name), what, f"set {wanted}, {_WHOSE_KEY}"
