"""
Who is told of an alert, when, and when nobody is: `alerting` of the configuration file.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from agentd.records import Severity
from agentd.settings import Duration, Percent, PositiveDuration, Settings

Remind = Literal["doubling", "fixed"]

ALERT_VARIABLES: dict[str, str] = {
    "watch": "name of the watch",
    "rule": "name of the log rule, or null",
    "severity": "info, warning or critical",
    "instance": "name of the daemon",
    "labels": "the alert's labels",
}
"""What conditions on alerts (routes, inhibit, maintenance) may read."""


class Escalation(Settings):
    """Tell more people when an alert lasts, count it as worse, or both."""

    after: PositiveDuration = Field(description="How long it has been firing")
    notify: tuple[str, ...] = Field(default=(), description="Webhooks to tell as well")
    severity: Severity | None = Field(default=None, description="How bad it is from then on, if that is worse")

    @model_validator(mode="after")
    def _does_something(self) -> Escalation:
        if not self.notify and self.severity is None:
            raise ValueError("does nothing; add `notify:` (webhooks to tell), `severity:`, or both")
        return self


class Route(Settings):
    """Alerts of one sort go to webhooks of their own; the first route that matches decides."""

    when: str = Field(description="CEL condition on the alert")
    notify: tuple[str, ...] = Field(default=(), description="Webhooks to tell")
    group_by: tuple[str, ...] | None = Field(default=None, description="Labels whose values make one group of alerts")
    escalate: tuple[Escalation, ...] = Field(default=(), description="Whom to tell when it lasts")


class Inhibition(Settings):
    """While an alert of one sort fires, those of another stay mute."""

    when: str = Field(description="CEL condition on the alert that mutes")
    mutes: str = Field(description="CEL condition on the alerts that are muted")


class Maintenance(Settings):
    """A time that comes again, in which alerts of one sort stay mute."""

    when: str = Field(description="CEL condition on the alerts that are muted")
    cron: str = Field(description="When the time begins: minute, hour, day of month, month, day of week")
    duration: PositiveDuration = Field(alias="for", description="How long it lasts")
    timezone: str = Field(default="UTC", description="Time zone of `cron`, such as Europe/Berlin")


class Flapping(Settings):
    """An alert that changes too often is told once, not each time."""

    start: Percent = Field(default=30.0, description="Share of changes among the last checks at which flapping begins")
    end: Percent = Field(default=25.0, description="Share below which it ends")
    of: int = Field(default=20, ge=3, le=100, description="Checks that are looked at")

    @model_validator(mode="after")
    def _ends_below_its_start(self) -> Flapping:
        if self.end > self.start:
            raise ValueError(
                f"ends at {self.end:g}%, above its start at {self.start:g}%; write an `end` of at most `start`"
            )
        return self


class AlertingSettings(Settings):
    """Whom to tell of alerts, and how often."""

    notify: tuple[str, ...] = Field(
        default=(), description="Webhooks, where neither a watch nor a route says otherwise"
    )
    group_by: tuple[str, ...] = Field(default=("watch",), description="Labels whose values make one group of alerts")
    group_wait: Duration = Field(
        default=timedelta(0), description="How long the first message of a group waits for others"
    )
    group_interval: Duration = Field(default=timedelta(minutes=1), description="Time between two messages of one group")
    remind_every: Duration = Field(
        default=timedelta(hours=4), description="Time between reminders of a firing alert; 0: none"
    )
    remind: Remind = Field(default="doubling", description="doubling: the time between reminders doubles, up to 24h")
    routes: tuple[Route, ...] = Field(default=(), description="Webhooks by condition")
    inhibit: tuple[Inhibition, ...] = Field(default=(), description="Alerts that mute others")
    maintenance: tuple[Maintenance, ...] = Field(default=(), description="Times at which alerts stay mute")
    flapping: Flapping = Field(default=Flapping(), description="When an alert counts as flapping")
    escalate: tuple[Escalation, ...] = Field(default=(), description="Whom to tell when an alert lasts")
