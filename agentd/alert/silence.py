"""
Silences: what a person asked not to be told of, from when until when, and why.

In: matchers as typed, such as `watch=shop` or `severity=~"warning|info"`. Out: a `Silence` that is asked about alerts.
Promise: a silence that says nothing in particular is refused, so nobody silences everything by a slip.

Matchers are those of Alertmanager (docs: "Silences", "Matchers"): `=`, `!=`, `=~`, `!~`, the pattern RE2 and anchored
at both ends, a missing label the same as an empty one. One thing is stricter: at least one matcher of a silence must
rule something out. One is looser: a name may hold whatever a label's name may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, cast

from agentd.clock import iso
from agentd.errors import ConfigError
from agentd.records import Alert, Severity

Operator = Literal["=", "!=", "=~", "!~"]

MAX_MATCHERS = 20
MAX_VALUE_CHARS = 1000
_PATTERN_MEMORY = 1 << 20
_MATCHER = re.compile(r"\s*([^=!~\"'\s]+)\s*(=~|!=|!~|=)\s*(.*?)\s*", re.DOTALL)
_BARE = re.compile(r"[^\s\"'{},=!~]+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}
_SEVERITIES = tuple(severity.value for severity in Severity)
# A matcher that takes each of these takes whatever a label may say.
_ANYTHING = ("", "x", "7", "web-1.example", "\N{SNOWMAN} " * 50)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One of the conditions of a silence; make it by `parse_matcher`."""

    name: str
    operator: Operator
    value: str
    _takes: Callable[[str], bool] = field(compare=False, repr=False)

    def takes(self, labels: Mapping[str, str]) -> bool:
        return self._takes(labels.get(self.name, ""))

    def __str__(self) -> str:
        bare = _BARE.fullmatch(self.value) and "\\" not in self.value
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f"{self.name}{self.operator}{self.value}" if bare else f'{self.name}{self.operator}"{escaped}"'

    @property
    def narrows(self) -> bool:
        """Whether it rules out more than a value or two."""
        if self.name == "severity":
            return not all(map(self._takes, _SEVERITIES))
        return not self._takes("") and not all(map(self._takes, _ANYTHING[1:]))


@dataclass(frozen=True, slots=True)
class Silence:
    """
    matchers: all must take an alert; none at all: every alert. ends_at: the moment from which on it mutes no more.
    ended_by: who ended it before its time.
    """

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    author: str
    reason: str = ""
    ended_by: str | None = None

    def is_active(self, now: datetime) -> bool:
        # By name, too: a clock that is set back must not begin anew what somebody has ended.
        return self.starts_at <= now < self.ends_at and self.ended_by is None

    def takes(self, labels: Mapping[str, str]) -> bool:
        """labels: those of `silence_labels`. Never raises."""
        return all(matcher.takes(labels) for matcher in self.matchers)

    def __str__(self) -> str:
        """What an alert's `muted_by` says."""
        why = f": {self.reason}" if self.reason else ""
        return f"silence {self.id} by {self.author} until {iso(self.ends_at)}{why}"


OWN_NAMES = frozenset({"watch", "rule", "severity", "instance"})
"""What matchers may ask of every alert, whatever its labels."""


def silence_labels(alert: Alert) -> dict[str, str]:
    """What matchers are asked about. What every alert has comes first: a log line must not name itself a watch."""
    own = {"watch": alert.watch, "rule": alert.rule or "", "severity": alert.severity.value, "instance": alert.instance}
    return {**alert.labels, **alert.by, **own}


def parse_matcher(text: str) -> Matcher:
    """
    Read one matcher: a name, `=`, `!=`, `=~` or `!~`, and a value, bare or in double quotes with \\", \\\\ and \\n.

    Raises ConfigError.
    """
    found = _MATCHER.fullmatch(text) if len(text) <= 2 * MAX_VALUE_CHARS else None
    if found is None:
        raise ConfigError(
            f"cannot read the matcher {text[:80]!r}; write e.g. watch=shop, severity!=critical or 'watch=~\"db-.*\"'"
        )
    name, written = found[1], found[3]
    operator = cast(Operator, found[2])
    value = _unquoted(written, text)
    if len(value) > MAX_VALUE_CHARS:
        raise ConfigError(f"the value of {name} is longer than {MAX_VALUE_CHARS} characters; make it shorter")
    matcher = Matcher(name, operator, value, _taker(operator, value, text))
    if name == "severity" and operator in ("=", "=~") and not any(map(matcher._takes, _SEVERITIES)):
        raise ConfigError(f"{text.strip()!r} takes no alert; a severity is {', '.join(_SEVERITIES)}")
    return matcher


def parse_matchers(texts: Sequence[str], *, everything: bool = False) -> tuple[Matcher, ...]:
    """
    Read the matchers of one silence.

    everything: it may silence all there is. Raises ConfigError.
    """
    if len(texts) > MAX_MATCHERS:
        raise ConfigError(f"{len(texts)} matchers are too many; write at most {MAX_MATCHERS}")
    matchers = tuple(dict.fromkeys(parse_matcher(text) for text in texts))
    if not everything and not any(matcher.narrows for matcher in matchers):
        asked = " ".join(map(str, matchers))
        what = f"{asked} silences nearly everything" if asked else "a silence without matchers silences everything"
        raise ConfigError(f"{what}; name what it is about, e.g. watch=shop, or say --all")
    return matchers


def _unquoted(written: str, text: str) -> str:
    if not written.startswith('"'):
        if '"' in written:
            raise ConfigError(f"a quote stands inside of the matcher {text[:80]!r}; put the whole value in quotes")
        return written
    inner = written[1:-1]
    bare = _ESCAPED.sub("", inner)
    if len(written) < 2 or not written.endswith('"') or '"' in bare or bare.endswith("\\"):
        raise ConfigError(f'the quotes of the matcher {text[:80]!r} do not close; write name="value"')
    return _ESCAPED.sub(lambda found: _ESCAPES.get(found[1], found[0]), inner)


def _taker(operator: Operator, value: str, text: str) -> Callable[[str], bool]:
    if operator == "=":
        return value.__eq__
    if operator == "!=":
        return value.__ne__
    matches = _compiled(value, text)
    if operator == "=~":
        return matches
    return lambda label: not matches(label)


def _compiled(pattern: str, text: str) -> Callable[[str], bool]:
    import re2  # here: a daemon without patterns goes without it

    options = re2.Options()
    options.log_errors = False  # it would write to stderr by itself
    options.max_mem = _PATTERN_MEMORY
    try:
        compiled = re2.compile(pattern.encode("utf-8", "replace"), options)
    except re2.error as error:
        words = error.args[0] if error.args else ""
        why = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        raise ConfigError(f"the pattern of {text[:80]!r} cannot be read: {why}; write it as RE2 does") from error
    # The wrapper's own `fullmatch` copies the text around and is several times slower than what it wraps.
    match, whole = compiled._regexp.Match, re2._re2.RE2.Anchor.ANCHOR_BOTH

    def matches(label: str) -> bool:
        data = label.encode("utf-8", "replace")
        return bool(match(whole, data, 0, len(data))[0][0] >= 0)

    return matches
