"""
The configuration as a whole: every key of the file, typed.

In: merged plain data. Out: `Config`, frozen. What one key may hold stands with the room that uses it; what two keys
must agree on is checked in `checks`.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, SerializeAsAny

from agentd.config.agents import AgentSettings, BudgetSettings, EmbeddingsSettings
from agentd.config.alerting import AlertingSettings, Remind
from agentd.config.service import ApiSettings, DaemonSettings, MemorySettings, TelemetrySettings
from agentd.config.watches import Defaults, Watch
from agentd.deliver.webhook import WebhookSettings
from agentd.llm.settings import ModelSettings
from agentd.settings import Name, Settings


class Config(Settings):
    """The configuration of agentd."""

    include: tuple[str, ...] = Field(
        default=(), description="More files with `watches` and `webhooks`: paths or globs from this file's folder"
    )
    daemon: DaemonSettings = Field(default=DaemonSettings(), description="The daemon itself")
    api: ApiSettings = Field(default=ApiSettings(), description="The API and the web page")
    telemetry: TelemetrySettings = Field(default=TelemetrySettings(), description="Traces of every run")
    memory: MemorySettings = Field(default=MemorySettings(), description="What is remembered, and for how long")
    models: dict[Name, ModelSettings] = Field(default={}, description="Language models by name")
    embeddings: EmbeddingsSettings | None = Field(default=None, description="Recall by meaning")
    agent: AgentSettings = Field(default=AgentSettings(), description="What agents may do, at most")
    budgets: BudgetSettings = Field(default=BudgetSettings(), description="What agents may spend")
    webhooks: dict[Name, WebhookSettings] = Field(default={}, description="Receivers of messages by name")
    alerting: AlertingSettings = Field(default=AlertingSettings(), description="Whom to tell, and how often")
    defaults: Defaults = Field(default=Defaults(), description="What holds for every watch that says nothing else")
    watches: tuple[SerializeAsAny[Watch], ...] = Field(default=(), description="What is looked at")

    @property
    def probes(self) -> tuple[Watch, ...]:
        """The watches that this version runs: enabled, and their source a probe."""
        return tuple(watch for watch in self.watches if watch.enabled and watch.kind is not None)

    @property
    def logs(self) -> tuple[Watch, ...]:
        """The enabled watches that follow a log or the journal."""
        return tuple(watch for watch in self.watches if watch.enabled and (watch.log or watch.journal) is not None)

    @property
    def goals(self) -> tuple[Watch, ...]:
        """The enabled watches that ask an agent."""
        return tuple(watch for watch in self.watches if watch.enabled and watch.goal is not None)

    def notify(self, watch: Watch) -> tuple[str, ...]:
        """The webhooks that are told of a watch's alerts: those named that this version can send to."""
        named = self.alerting.notify if watch.notify is None else watch.notify
        return tuple(dict.fromkeys(name for name in named if name in self.webhooks))

    def remind_every(self, watch: Watch) -> timedelta | None:
        """Time between reminders of a watch's alert; None for no reminders."""
        return (self.alerting.remind_every if watch.remind_every is None else watch.remind_every) or None

    def remind(self, watch: Watch) -> Remind:
        """How the time between reminders grows."""
        return watch.remind or self.alerting.remind
