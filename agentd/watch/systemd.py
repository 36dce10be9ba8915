"""
The `systemd` probe: which units have failed, which run, which are not there.

In: unit names and globs. Out: the states, by unit.
Promise: no right is needed beyond what every user has, and a manager that cannot be asked is `blind`, never failing.

Asked by `systemctl`, as a bounded child (10 ms a look): it speaks the private protocol as well as D-Bus, finds the bus
where it is, and needs no library and no connection of ours to keep alive over a restart of either. One call covers any
number of units. Names are asked by `show`, which tells a unit that is stopped from one that does not exist; globs by
`list-units`, which is a single message instead of one per unit.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from agentd.records import Observation
from agentd.settings import Settings
from agentd.watch.child import CannotStart, Ended, run_child
from agentd.watch.command import clean_environment
from agentd.watch.probe import Kind, Probe, ProbeTools

_MAX_OUTPUT_BYTES = 8 * 2**20
_SUFFIXES = ("service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope")
# systemd.unit(5), "Unit names": these characters and no others, 255 at most; plus those of globs.
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@*?\[\]!^-]{1,255}")
_GLOB = re.compile(r"[*?\[]")
_SHOWN = "Id,LoadState,ActiveState,NRestarts"


def full_name(unit: str) -> str:
    """`nginx` is `nginx.service`, as for systemctl; a glob stays as it is. Raises ValueError for what is no unit."""
    if not _UNIT.fullmatch(unit):
        raise ValueError(f"{unit!r} is no name of a unit; write e.g. nginx.service, or escape it by systemd-escape")
    if _GLOB.search(unit):
        return unit
    name = unit if unit.rpartition(".")[2] in _SUFFIXES else f"{unit}.service"
    if name.rpartition(".")[0].endswith("@"):
        raise ValueError(f"{unit} is a template; name an instance, or all of them by {unit.partition('@')[0]}@*")
    return name


class SystemdSettings(Settings):
    """What stands under `systemd:`."""

    units: list[str] = Field(
        default=["*"], min_length=1, max_length=1000, description="Units and globs; default: all units of the machine"
    )

    @field_validator("units")
    @classmethod
    def _check_units(cls, units: list[str]) -> list[str]:
        return list(dict.fromkeys(full_name(unit) for unit in units))


@dataclass(frozen=True, slots=True)
class Unit:
    """load, active: LoadState and ActiveState, as org.freedesktop.systemd1(5) names them."""

    name: str
    load: str
    active: str
    restarts: int | None = None


def read_list(output: str) -> list[Unit]:
    """Units out of `systemctl list-units --all --plain --no-legend --full`; those merely referred to are left out."""
    units = []
    for line in output.splitlines():
        columns = line.split(None, 4)
        if len(columns) >= 4 and (columns[1] != "not-found" or columns[2] == "failed"):
            units.append(Unit(columns[0], columns[1], columns[2]))
    return units


def read_show(output: str, asked: Iterable[str]) -> list[Unit]:
    """
    Units out of `systemctl show`, one block per name asked, in that order.

    They keep the name asked: an alias (sshd.service) is answered with the unit's own. Raises ValueError when the
    blocks do not fit the names.
    """
    blocks = [
        dict(line.partition("=")[::2] for line in block.splitlines())
        for block in output.strip().split("\n\n")
        if block.strip()
    ]
    return [
        Unit(
            name,
            block.get("LoadState", ""),
            block.get("ActiveState", ""),
            int(count) if (count := block.get("NRestarts", "")).isdecimal() else None,
        )
        for name, block in zip(asked, blocks, strict=True)
    ]


def values_of(named: Iterable[Unit], matched: Iterable[Unit]) -> dict[str, Any]:
    """What conditions read, of the units asked by name and of those found by globs."""
    named = list(named)
    every = {unit.name: unit for unit in (*matched, *named)}
    return {
        "failed": sorted(unit.name for unit in every.values() if unit.active == "failed"),
        "active": sorted(unit.name for unit in every.values() if unit.active in ("active", "reloading", "refreshing")),
        # A masked unit that still runs is there.
        "missing": sorted(unit.name for unit in named if unit.load != "loaded" and unit.active in ("inactive", "")),
        "units": {name: unit.active for name, unit in sorted(every.items())},
        "restarts": {unit.name: unit.restarts for unit in named if unit.restarts is not None},
    }


class SystemdProbe:
    def __init__(self, settings: SystemdSettings) -> None:
        self._names = [unit for unit in settings.units if not _GLOB.search(unit)]
        self._globs = [unit for unit in settings.units if _GLOB.search(unit)]

    async def look(self, timeout_s: float) -> Observation:
        started = time.monotonic()
        try:
            named = await self._named(timeout_s)
            matched = await self._matched(max(0.0, timeout_s - (time.monotonic() - started)))
        except CannotStart as problem:
            return Observation(blind=str(problem), duration_s=time.monotonic() - started)
        return Observation(values_of(named, matched), duration_s=time.monotonic() - started)

    async def close(self) -> None:
        """Nothing is held."""

    async def _named(self, timeout_s: float) -> list[Unit]:
        if not self._names:
            return []
        output = await _systemctl(["show", f"--property={_SHOWN}", "--", *self._names], timeout_s)
        try:
            return read_show(output, self._names)
        except ValueError:
            raise CannotStart("systemctl show answered for other units than those asked") from None

    async def _matched(self, timeout_s: float) -> list[Unit]:
        if not self._globs:
            return []
        flags = ["--all", "--plain", "--no-legend", "--full"]
        return read_list(await _systemctl(["list-units", *flags, "--", *self._globs], timeout_s))


async def _systemctl(arguments: list[str], timeout_s: float) -> str:
    """Its output. Raises CannotStart when the manager could not be asked."""
    env = clean_environment() | {"SYSTEMD_COLORS": "0", "LC_ALL": "C.UTF-8"}
    if bus := os.environ.get("DBUS_SYSTEM_BUS_ADDRESS"):
        env["DBUS_SYSTEM_BUS_ADDRESS"] = bus
    argv = ["systemctl", "--no-pager", "--no-ask-password", *arguments]
    ended = await run_child(argv, env=env, timeout_s=timeout_s, max_output=_MAX_OUTPUT_BYTES)
    problem = _problem(ended, timeout_s)
    if problem:
        raise CannotStart(f"cannot ask systemd: {problem}")
    return ended.stdout.decode(errors="replace")


def _problem(ended: Ended, timeout_s: float) -> str:
    if ended.timed_out:
        return f"systemctl did not answer within {timeout_s:g} s"
    if ended.discarded_bytes:
        return f"it has more than {_MAX_OUTPUT_BYTES} bytes of units; ask for fewer"
    if ended.returncode == 0:
        return ""
    said = [line.strip() for line in ended.stderr.decode(errors="replace").splitlines() if line.strip()]
    return " ".join(said)[:200] or f"systemctl ended with {ended.returncode}"


def _open(settings: SystemdSettings, name: str, tools: ProbeTools) -> Probe:
    return SystemdProbe(settings)


SYSTEMD = Kind(
    name="systemd",
    settings=SystemdSettings,
    variables={
        "failed": "names of the failed units, of those asked for",
        "active": "names of the active ones",
        "missing": "names asked for without a glob that do not exist, are masked or cannot be loaded",
        "units": 'state by unit: "active", "inactive", "failed", "activating", "deactivating", …',
        "restarts": "automatic restarts by service, of those asked for without a glob",
    },
    open=_open,
    network=False,
    expect=("failed.size() == 0", "missing.size() == 0"),
    every=30.0,
)
