"""
A watch: what is looked at, when, what must hold, and who is told.

The sources that are probes come from `agentd.watch.KINDS`: the model that files are read with is built from it,
so a new kind appears here, in the schema and in the errors by itself. `Watch` is what the rest of the house types.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, create_model

from agentd.config.agents import Budget, Investigation, Step
from agentd.config.alerting import Escalation, Remind
from agentd.config.values import FailAfter, FailAfterField, Labels
from agentd.logs.settings import JournalSource, LogSource, Rule
from agentd.records import Severity
from agentd.settings import NAME_PATTERN, Duration, Name, PositiveDuration, Settings
from agentd.watch import KINDS
from agentd.watch.probe import Kind

RESERVED_PREFIX = "agentd"
RESERVED_NAME = "task"
OTHER_SOURCES = ("log", "journal", "goal")
EVENT_PATTERN = r"^(startup|alert:[^/\s]+|log:[^/\s]+/[^/\s]+|hook:[^/\s]+|file:/.*|unit:\S+)$"


def _watch_name(name: str) -> str:
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"names that begin with {RESERVED_PREFIX} are kept for alerts about agentd itself; choose another"
        )
    if name == RESERVED_NAME:
        raise ValueError(f"{RESERVED_NAME} is kept for what people ask agents to do; choose another name")
    return name


def _investigation(value: Any) -> Any:
    return {"goal": value} if isinstance(value, str) else value


_RESERVED = f"^({RESERVED_PREFIX}|{RESERVED_NAME}$)"
WatchName = Annotated[
    Name,
    AfterValidator(_watch_name),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN, "not": {"pattern": _RESERVED}}),
]
Missed = Literal["skip", "once", "all"]


class Defaults(Settings):
    """What holds for every watch that does not say otherwise."""

    enabled: bool = Field(default=True, description="Whether watches run")
    every: PositiveDuration | None = Field(
        default=None, description="Time between checks, of watches that name no schedule; default: by kind"
    )
    timezone: str | None = Field(
        default=None,
        description="Time zone, such as Europe/Berlin, of `cron` (default: UTC) and of times in log lines that name "
        "none (default: the host's own zone)",
    )
    missed: Missed | None = Field(
        default=None, description="Goals that were due while we were down: skip, once or all (at most 24)"
    )
    timeout: PositiveDuration = Field(default=timedelta(seconds=10), description="Time given to one check")
    fail_after: FailAfterField = Field(
        default=FailAfter(3, 3), description="Failing checks that make an alert: 3 in a row, or 3 of 5"
    )
    recover_after: int = Field(default=2, ge=1, le=100, description="Good checks in a row that resolve the alert")
    blind_after: PositiveDuration = Field(
        default=timedelta(minutes=10), description="How long a check may be impossible before that is an alert"
    )
    severity: Severity = Field(default=Severity.WARNING, description="How bad it is: info, warning or critical")
    labels: Labels = Field(default={}, description="Names and values that alerts carry; a watch's own are added")
    notify: tuple[str, ...] | None = Field(
        default=None, description="Webhooks to tell; default: `alerting.notify`; []: nobody"
    )
    remind_every: Duration | None = Field(
        default=None, description="Time between reminders; default: `alerting.remind_every`; 0: none"
    )
    remind: Remind | None = Field(default=None, description="doubling or fixed; default: `alerting.remind`")
    public: bool = Field(default=False, description="Whether the status page and badges show it without a key")


class Watch(Defaults):
    """One watch. Exactly one source: a kind of probe, log, journal or goal."""

    sources: ClassVar[tuple[str, ...]] = ()

    name: WatchName = Field(description="Name of the watch, part of its alerts' identity")
    description: str = Field(default="", description="What it is for; for people")
    cron: str | None = Field(
        default=None, description="When to look: minute, hour, day of month, month, day of week; instead of `every`"
    )
    on: tuple[Annotated[str, Field(pattern=EVENT_PATTERN)], ...] = Field(
        default=(),
        description="Events that start it: startup, alert:NAME, log:WATCH/RULE, hook:NAME, file:/path, unit:NAME",
    )
    expect: tuple[str, ...] = Field(
        default=(), description="CEL conditions (cel.dev) that must all hold; default: those of the kind"
    )
    depends_on: tuple[str, ...] = Field(default=(), description="Watches whose failure makes this one's plain")
    escalate: tuple[Escalation, ...] = Field(default=(), description="Whom to tell when the alert lasts")
    investigate: Annotated[Investigation | None, BeforeValidator(_investigation)] = Field(
        default=None, description="What an agent is to find out when the alert fires: a goal, or a mapping"
    )
    log: LogSource | None = Field(default=None, description="Lines of log files")
    journal: JournalSource | None = Field(default=None, description="Entries of the systemd journal")
    rules: tuple[Rule, ...] = Field(default=(), description="What in the lines makes an alert")
    goal: str | None = Field(default=None, min_length=1, description="What an agent is asked")
    model: str | None = Field(default=None, description="Which of `models` answers; default: the one called default")
    tools: tuple[str, ...] | None = Field(default=None, description="Tools the agent may use; at most those of `agent`")
    budget: Budget | None = Field(default=None, description="What one run may spend")
    scenario: str | None = Field(default=None, description="Which prompt template; default: inferred from the goal")
    runbook: tuple[Step, ...] = Field(default=(), description="Calls of tools that are made first, without a model")
    report: Literal["each", "state"] | None = Field(
        default=None, description="each: every finding is a message; state: the run's status is the watch's"
    )

    @property
    def kind(self) -> str | None:
        """Name of the probe's kind; None for a log, the journal or a goal."""
        return next((kind for kind in self.sources if getattr(self, kind) is not None), None)

    @property
    def shown_kind(self) -> str | None:
        """What people call it: the probe's kind, log, journal or goal."""
        others = (name for name in OTHER_SOURCES if getattr(self, name) is not None)
        return self.kind or next(others, None)

    @property
    def source(self) -> Settings | None:
        """The settings of the probe, of its kind's own type."""
        kind = self.kind
        return None if kind is None else getattr(self, kind)


@cache
def _watch_model(kinds: tuple[tuple[str, type[Settings]], ...]) -> type[Watch]:
    fields: dict[str, Any] = {
        name: (settings | None, Field(default=None, description=_first_line(settings))) for name, settings in kinds
    }
    model = create_model("Watch", __base__=Watch, __doc__=Watch.__doc__, **fields)
    model.sources = tuple(name for name, _ in kinds)
    return model


def watch_model(kinds: Mapping[str, Kind] = KINDS) -> type[Watch]:
    """The model of a watch with these kinds of probes as its sources."""
    return _watch_model(tuple((name, kind.settings) for name, kind in kinds.items()))


def complete(raw: dict[str, Any], defaults: Mapping[str, Any], kinds: Mapping[str, Kind] = KINDS) -> dict[str, Any]:
    """
    A watch as written, with what it leaves out: the defaults, and the kind's own schedule and conditions.

    Gives a new mapping; what is wrong stays wrong, for the model to complain about.
    """
    whole = {**defaults, **raw}
    if isinstance(labels := raw.get("labels"), dict) and defaults.get("labels"):
        whole["labels"] = {**defaults["labels"], **labels}
    for name in (*kinds, "log", "journal"):
        if name in raw and raw[name] is None:
            whole[name] = {}
    kind = next((kinds[name] for name in kinds if name in raw), None)
    heartbeat = kind is not None and kind.name == "heartbeat"
    scheduled = any(raw.get(key) is not None for key in ("every", "cron")) or bool(raw.get("on"))
    if (scheduled or heartbeat or "log" in raw or "journal" in raw) and "every" not in raw:
        whole.pop("every", None)
    if heartbeat:
        # Its grace is the patience; a silence that outlasts it is certain, and so is a beat that ends it.
        for key in ("fail_after", "recover_after"):
            whole[key] = raw.get(key, 1)
    if raw.get("goal") is not None:
        # A review a day: three in a row would be three days late.
        for key in ("fail_after", "recover_after"):
            whole[key] = raw.get(key, 1)
    if kind is not None:
        if raw.get("expect") is None:
            whole["expect"] = kind.expect
        if not scheduled and whole.get("every") is None:
            whole["every"] = timedelta(seconds=kind.every)
    return whole


def _first_line(settings: type[Settings]) -> str:
    text = " ".join((settings.__doc__ or "").strip().split("\n\n")[0].split())
    return text or "Settings of this kind of probe"
