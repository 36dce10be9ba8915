"""
Where log lines come from and what in them matters, as the configuration says it: `log`, `journal` and `rules`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agentd.records import Severity
from agentd.settings import Duration, Name, Percent, PositiveDuration, Settings, Size

LogFormat = Literal["auto", "plain", "syslog", "json", "logfmt", "common", "combined", "regex"]
RuleType = Literal[
    "any",
    "frequency",
    "spike",
    "flatline",
    "new_value",
    "change",
    "cardinality",
    "percentage",
    "blocklist",
    "allowlist",
    "novel",
]


class LogSource(Settings):
    """Log files, or the output of a command, line by line."""

    files: tuple[str, ...] = Field(default=(), description="Paths or globs; rotation is followed")
    command: tuple[str, ...] | None = Field(default=None, min_length=1, description="argv whose output is read instead")
    format: LogFormat = Field(default="auto", description="How a line is taken apart")
    pattern: str | None = Field(default=None, description="For format regex: RE2 with named groups")
    start_at: Literal["end", "start"] = Field(default="end", description="Where a file that is new to us is begun")
    multiline: str | None = Field(
        default=None, description="auto: join tracebacks and indented lines; else a pattern that begins an entry"
    )
    encoding: str = Field(default="utf-8", description="Of the text; what cannot be read is replaced and counted")
    max_line: Size = Field(default=64 * 1024, ge=1024, le=1024 * 1024, description="Longer lines are cut, and counted")
    templates: bool = Field(default=True, description="Keep a table of the kinds of lines that come")


class JournalSource(Settings):
    """Entries of the systemd journal."""

    match: dict[str, str | tuple[str, ...]] = Field(
        default={}, description="Journal fields and the values they must have"
    )
    units: tuple[str, ...] = Field(default=(), description="Units, such as nginx.service")
    priority: Literal["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"] | None = Field(
        default=None, description="Least important priority that is read"
    )
    boot: Literal["all", "current"] = Field(default="all", description="Whether entries of earlier boots count")
    start_at: Literal["end", "start"] = Field(default="end", description="Where the journal is begun at first")
    templates: bool = Field(default=True, description="Keep a table of the kinds of messages that come")


class Rule(Settings):
    """What in the lines makes an alert."""

    name: Name = Field(description="Name of the rule, part of its alerts' identity")
    type: RuleType = Field(description="What is counted")
    match: str | None = Field(default=None, description="RE2 pattern; its named groups are the alert's values")
    when: str | None = Field(default=None, description="CEL condition on the fields of a line")
    ignore: str | tuple[str, ...] | None = Field(default=None, description="Lines that match this do not count")
    by: tuple[str, ...] = Field(default=(), description="Fields or groups; each of their values counts for itself")
    max_keys: int = Field(
        default=10_000, ge=1, le=1_000_000, description="So many values of `by` at most; the least recent goes"
    )
    count: int | None = Field(
        default=None, ge=1, description="frequency: so many lines; spike, percentage: at least so many"
    )
    within: PositiveDuration | None = Field(default=None, description="Window that is looked at")
    times: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="spike: so many times the usual")
    fewer_than: int | None = Field(
        default=None, ge=0, description="flatline, cardinality: fewer lines or values than this"
    )
    more_than: int | Percent | None = Field(default=None, description="cardinality, percentage: more than this")
    field: str | None = Field(
        default=None, description="new_value, change, cardinality, lists: the field that is looked at"
    )
    values: tuple[str, ...] = Field(default=(), description="blocklist, allowlist: the values")
    learn: Duration | None = Field(default=None, description="novel, new_value: learn this long before telling")
    per_hour: int = Field(default=10, ge=1, description="novel: tell of so many an hour at most; the rest is counted")
    resolve_after: PositiveDuration | None = Field(
        default=None, description="Resolve after this much quiet; default 5m"
    )
    severity: Severity | None = Field(default=None, description="Severity of its alerts; default: that of the watch")
