"""
A pattern of the operator's own: RE2 with named groups.

In: `pattern` of the configuration.  Out: what the groups took; a group that took part in nothing is left out.
Promise: linear time, whatever the pattern and the line. Raises ConfigError at load for what RE2 cannot take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import re2

from agentd.errors import ConfigError
from agentd.logs.parse.bounds import whole_number
from agentd.logs.parse.jsonline import TIME_KEYS
from agentd.logs.parse.level import level_of
from agentd.logs.parse.stamp import Stamps

_NUMBERS = frozenset(("pid", "status", "bytes", "priority"))


class Named:
    """One compiled pattern."""

    def __init__(self, pattern: str | None, stamps: Stamps) -> None:
        if not pattern:
            raise ConfigError("format regex needs a pattern; write e.g. pattern: '^(?P<level>[A-Z]+) (?P<message>.*)$'")
        self._pattern = compiled(pattern)
        self._groups = sorted(self._pattern.groupindex.items(), key=lambda item: item[1])
        if not self._groups:
            raise ConfigError("pattern has no named group; name what a field is to be, e.g. (?P<message>.*)")
        self._stamps = stamps
        self.time_groups = [name.decode() for name, _ in self._groups if name.decode() in TIME_KEYS]

    def raw(self, text: str) -> dict[str, str] | None:
        """What the groups took, as text."""
        match = self._pattern.search(text.encode("utf-8", "replace"))
        if match is None:
            return None
        return {
            name.decode(): value.decode("utf-8", "replace")
            for name, index in self._groups
            if (value := match[index]) is not None
        }

    def take(self, text: str) -> dict[str, Any] | None:
        found = self.raw(text)
        if found is None:
            return None
        fields: dict[str, Any] = dict(found)
        for key in _NUMBERS & found.keys():
            fields[key] = whole_number(found[key])
        for key in self.time_groups:
            if key in found and (moment := self._stamps.text_of(found[key])):
                fields["timestamp"] = moment
                break
        if level := level_of(found.get("level") or found.get("severity")):
            fields["level"] = level
        if "message" not in fields:
            fields["message"] = fields.get("msg", text)
        return fields


def compiled(pattern: str) -> Any:
    """RE2 on bytes. Raises ConfigError with what it cannot take."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        said = error.args[0] if error.args else error
        reason = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ConfigError(
            f"pattern {pattern[:80]!r} cannot be used: {reason}; RE2 has no look-around and no back-references"
        ) from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"pattern {pattern[:80]!r} holds a lone surrogate; write the character itself") from error


def taker(pattern: str | None, stamps: Stamps) -> Callable[[str], dict[str, Any] | None]:
    return Named(pattern, stamps).take
