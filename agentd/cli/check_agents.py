"""
What `agentd check` says of agents that only their own code knows: templates of prompts, scenarios, inputs of tools.

In: a configuration that may be run. Out: problems with places: warnings, and errors where a run would be in vain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from agentd.config.checks import Entry
from agentd.config.complaints import did_you_mean, show
from agentd.config.document import KeyPath
from agentd.config.loader import Loaded
from agentd.config.log_places import enabled_watches
from agentd.errors import Problem


def check_agents(path: Path, loaded: Loaded) -> list[Problem]:
    """path: of the main file. Blocking: reads the templates."""
    asking = [watch for watch in loaded.config.watches if watch.goal is not None or watch.investigate is not None]
    folder = loaded.config.agent.prompts
    if not asking and folder is None:
        return []
    from agentd.agent.prompts import load_prompts

    prompts = load_prompts(None if folder is None else os.path.realpath(folder))
    file, _, line = loaded.origins.get("agent.prompts", str(path)).rpartition(":")
    at = (file, int(line), 1) if line.isdecimal() else (str(path), 0, 0)
    found = [Problem(*at, "agent.prompts", what, warning=True) for what in prompts.problems]
    for entry in enabled_watches(loaded):
        for where, raw in ((), entry.raw), (("investigate",), entry.raw.get("investigate")):
            if isinstance(raw, dict):
                found += _scenario(entry, where, raw, prompts.scenarios)
                found += _runbook(entry, where, raw)
    return found


def _scenario(entry: Entry, where: KeyPath, raw: Mapping[str, Any], known: Collection[str]) -> Iterator[Problem]:
    name = raw.get("scenario")
    if isinstance(name, str) and name and name not in known:
        cure = did_you_mean(name, sorted(known))
        yield entry.problem((*where, "scenario"), f"there is no scenario {show(name)}", cure)


def _runbook(entry: Entry, where: KeyPath, raw: Mapping[str, Any]) -> Iterator[Problem]:
    steps = raw.get("runbook")
    if not isinstance(steps, list) or not steps:
        return
    from agentd.agent.registry import Registry
    from agentd.agent.tools import BUILT_IN

    registry = Registry(BUILT_IN)
    for index, step in enumerate(steps):
        tool, input = (step.get("tool"), step.get("input") or {}) if isinstance(step, dict) else (None, None)
        # What another step gives is known when it has run; what a server's tool takes, where the server runs.
        if not isinstance(tool, str) or tool not in registry or "${" in json.dumps(input, default=str):
            continue
        if (wrong := registry.complaint(tool, input)) is not None:
            yield entry.problem((*where, "runbook", index, "input" if "input" in step else "tool"), wrong)
