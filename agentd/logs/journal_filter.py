"""
Which entries of the journal a watch reads: matches that libsystemd looks up in its index, and patterns of unit names.

In: the settings. Out: matches on a reader, and a test for what the index cannot do.
Promise: `units` means what it means for `journalctl -u` (systemd 252): what the unit says, and what systemd and its
helpers say about it. A pattern takes in units that come later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase, translate
from typing import Any

from agentd.errors import ConfigError
from agentd.logs.journal_entry import PRIORITIES, Raw
from agentd.logs.settings import JournalSource

_COREDUMP = "fc2e22bc6ee647b6b90729ab34a250b1"  # SD_MESSAGE_COREDUMP
_SUFFIXES = (
    *(".service", ".socket", ".device", ".mount", ".automount", ".swap"),
    *(".target", ".path", ".timer", ".slice", ".scope"),
)
# What else an entry must have for the field to name the unit it is about; without, anybody could name any unit.
_ABOUT: tuple[tuple[str, dict[str, str]], ...] = (
    ("_SYSTEMD_UNIT", {}),
    ("COREDUMP_UNIT", {"MESSAGE_ID": _COREDUMP, "_UID": "0"}),
    ("UNIT", {"_PID": "1"}),
    ("OBJECT_SYSTEMD_UNIT", {"_UID": "0"}),
)

_FIELD_NAME = re.compile(r"(?!__)[A-Z_][A-Z0-9_]{0,63}")

Wanted = Callable[[Raw], bool]


class Filter:
    """
    The settings' choice.

    wanted: a test for what the index lets through, None: all of it is chosen.
    Raises ConfigError for what is no name of a field.
    """

    def __init__(self, settings: JournalSource) -> None:
        self._units = tuple(_full_name(unit) for unit in settings.units)
        patterns = any(_is_pattern(unit) for unit in self._units)
        self._fields = {
            name: (values,) if isinstance(values, str) else values for name, values in settings.match.items()
        }
        for name in self._fields:
            if not _FIELD_NAME.fullmatch(name):
                raise ConfigError(
                    f"match: {name[:80]!r} is no field of the journal; write one in capitals, e.g. _TRANSPORT"
                )
        self._priorities = (
            () if settings.priority is None else tuple(map(str, range(PRIORITIES.index(settings.priority) + 1)))
        )
        self._this_boot = settings.boot == "current"
        self._of_unit = _by_name(self._units) if self._units else None
        self.wanted: Wanted | None = self._of_unit if patterns else None

    def takes(self, raw: Raw, boot: str) -> bool:
        """Whether an entry is chosen, by its fields alone. boot: as for `apply`."""
        if self._of_unit is not None and not self._of_unit(raw):
            return False
        if any(not _has(raw, name, values) for name, values in self._fields.items()):
            return False
        if self._priorities and not _has(raw, "PRIORITY", self._priorities):
            return False
        return not self._this_boot or _has(raw, "_BOOT_ID", (boot,))

    def apply(self, reader: Any, boot: str) -> None:
        """Set the matches on a fresh reader; boot: the current one's id, 32 digits."""
        if self._units and self.wanted is None:
            for unit in self._units:
                for name, also in _terms(unit):
                    for field, value in also.items():
                        reader.add_match(f"{field}={value}")
                    reader.add_match(f"{name}={unit}")
                    reader.add_disjunction()
            reader.add_conjunction()
        for name, values in self._fields.items():
            _any_of(reader, name, values)
        if self._priorities:
            _any_of(reader, "PRIORITY", self._priorities)
        if self._this_boot:
            _any_of(reader, "_BOOT_ID", (boot,))


def _any_of(reader: Any, field: str, values: Iterable[str]) -> None:
    for value in values:
        reader.add_match(f"{field}={value}")
    reader.add_conjunction()


def _terms(unit: str) -> tuple[tuple[str, dict[str, str]], ...]:
    return (*_ABOUT, ("_SYSTEMD_SLICE", {})) if unit.endswith(".slice") else _ABOUT


def _full_name(unit: str) -> str:
    return unit if _is_pattern(unit) or unit.endswith(_SUFFIXES) else f"{unit}.service"


def _is_pattern(unit: str) -> bool:
    return any(mark in unit for mark in "*?[")


def _by_name(units: tuple[str, ...]) -> Wanted:
    anyone = re.compile("|".join(translate(unit) for unit in units)).match
    slices = [unit for unit in units if unit.endswith(".slice")]

    def wanted(raw: Raw) -> bool:
        for field, also in _ABOUT:
            trusted = field in raw and all(value.encode() in _values(raw, name) for name, value in also.items())
            if trusted and any(anyone(name.decode(errors="replace")) for name in _values(raw, field)):
                return True
        names = _values(raw, "_SYSTEMD_SLICE") if slices else ()
        return any(fnmatchcase(name.decode(errors="replace"), unit) for name in names for unit in slices)

    return wanted


def _has(raw: Raw, name: str, values: Iterable[str]) -> bool:
    return any(value.encode() in _values(raw, name) for value in values)


def _values(raw: Raw, name: str) -> list[bytes]:
    value = raw.get(name, [])
    return value if isinstance(value, list) else [value]
