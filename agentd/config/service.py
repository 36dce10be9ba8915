"""
What the daemon itself is told: `daemon`, `api`, `telemetry` and `memory` of the configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from agentd.config.values import HostField, Listen, ListenField, OriginField, TargetField, Url
from agentd.deliver.webhook import SecretList
from agentd.secret import Secret, SecretText
from agentd.settings import Duration, Name, PositiveDuration, Rate, RateLimit, Settings, Size

LogLevel = Literal["debug", "info", "warning", "error"]
Scope = Literal["read", "operate", "admin"]


class OutgoingHeartbeat(Settings):
    """Tells somebody else, at regular times, that this daemon lives and can deliver."""

    url: Secret = Field(description="Address to call; a plain GET, whose answer must be 2xx")
    every: PositiveDuration = Field(default=timedelta(minutes=1), description="Time between two calls, at least 5s")

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: SecretText) -> SecretText:
        if not url.text.startswith("${") and not url.text.lower().startswith(("http://", "https://")):
            raise ValueError("not a web address; it begins with https:// or http:// and a host")
        return url

    @field_validator("every")
    @classmethod
    def _seldom(cls, every: timedelta) -> timedelta:
        if every < timedelta(seconds=5):
            raise ValueError("is too often; write 5s or more")
        return every


class DaemonSettings(Settings):
    """The daemon itself."""

    state_dir: Path | None = Field(
        default=None,
        description="Folder of the stores, one daemon each; default: $STATE_DIRECTORY, else ~/.local/state/agentd",
    )
    log_level: LogLevel = Field(default="info", description="Least severity that is logged")
    log_format: Literal["auto", "journal", "console", "json"] = Field(
        default="auto", description="auto: journal under systemd, console on a terminal, JSON otherwise"
    )
    memory_limit: Size = Field(
        default=512 * 2**20,
        description="Above it for 5 minutes the daemon drains, saves, and exits for a clean restart",
    )
    heartbeat: OutgoingHeartbeat | None = Field(
        default=None, description="Call this address as long as all is well; withheld when no webhook works"
    )
    instance: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="Name of this daemon, part of every alert's identity; default: the host's name",
    )
    selfcheck: tuple[TargetField, ...] = Field(
        default=(),
        description="Addresses that are up when our own network is; if these fail too, we are blind, not they down",
    )
    host_rate: Rate = Field(default=RateLimit(100, 1.0), description="Most probes to any one host")
    drain_timeout: Duration = Field(
        default=timedelta(seconds=20), description="Time that running checks and sends are given at stop"
    )
    plugins: tuple[str, ...] = Field(
        default=(), description="Entry points that may load: probes, tools and formats of third parties"
    )

    def find_state_dir(self, environment: Mapping[str, str]) -> Path:
        """The folder of the stores; it need not exist yet."""
        if self.state_dir is not None:
            return self.state_dir.expanduser()
        if folder := environment.get("STATE_DIRECTORY"):
            return Path(folder.split(":")[0])  # systemd joins several by colons; ours is the first
        if folder := environment.get("XDG_STATE_HOME"):
            return Path(folder) / "agentd"
        return Path(environment.get("HOME") or Path.home()) / ".local" / "state" / "agentd"


class RateLimiting(Settings):
    """How often a key may call."""

    requests_per_minute: int = Field(default=60, ge=1, description="Calls a minute, in the long run")
    burst_size: int = Field(default=10, ge=1, description="Calls that may come at once")


class ApiKey(Settings):
    """One key to the API, made by `agentd key new`; the file holds its hash only."""

    name: Name = Field(description="Name of the key, as logs and the audit trail show it")
    hash: Secret = Field(description="Hash of the key")
    scope: Scope = Field(default="read", description="What the key may do")
    rate_limiting: RateLimiting | None = Field(default=None, description="The key's own rate; default: that of the API")


class SocketAccess(Settings):
    """
    Who may do what over the unix socket: names of users, `@` and names of groups, or `*`. Everybody can connect to it;
    the kernel says who it is. root and the daemon's own user may do everything.
    """

    read: tuple[str, ...] = Field(
        default=("*",),
        description="Who may look. `*` shows everybody what loopback shows without a key; what agents read and said is "
        "for those who are named here or below",
    )
    operate: tuple[str, ...] = Field(default=("root",), description="Who may acknowledge, pause, retry and test")
    admin: tuple[str, ...] = Field(default=("root",), description="Who may change what the API can change")


class Hook(Settings):
    """An inbound webhook: POST /api/v1/hooks/NAME starts the watches that name it in `on`."""

    secret: SecretList = Field(
        min_length=1,
        max_length=8,
        description="Standard Webhooks secret (whsec_…) or bearer token of the sender; a list while rotating",
    )
    rate: Rate = Field(default=RateLimit(10, 60.0), description="Most calls that are taken")


class Cors(Settings):
    """Which web pages of other origins may call the API."""

    allowed_origins: tuple[OriginField, ...] = Field(
        default=(), max_length=64, description="Origins, such as https://status.example; each is named, `*` is none"
    )


class ApiSettings(Settings):
    """The API and the web page."""

    listen: tuple[ListenField, ...] = Field(
        default=(),
        description="Unix sockets and TCP addresses; with a key, beyond loopback too. Where no unix socket is named, "
        "there is one all the same, by which commands reach the daemon: `api.sock` in $RUNTIME_DIRECTORY, else in the "
        "state folder",
    )
    hosts: tuple[HostField, ...] = Field(
        default=(),
        max_length=64,
        description="Names by which requests over loopback read without a key, beside those of this machine; the only "
        "ones where `public_url` leads elsewhere. They hold through a proxy, marked (X-Forwarded-For) or not: name one "
        "only if whoever comes by it may read, because the proxy asks people who they are",
    )
    public_url: Url | None = Field(
        default=None,
        max_length=300,
        description="Web address under which people reach the page, such as a proxy's; messages link there. With one "
        "that leads off this machine, only the names of `hosts` read without a key, for behind a proxy everybody comes "
        "over loopback. Default: http:// and the first TCP address of `listen`",
    )
    keys: tuple[ApiKey, ...] = Field(
        default=(),
        max_length=1000,
        description="Keys that may call over TCP; more of them stand in `keys.d/*.yaml` beside this file",
    )
    socket_access: SocketAccess = Field(
        default=SocketAccess(), description="Users and @groups by scope on the unix socket"
    )
    rate_limiting: RateLimiting = Field(default=RateLimiting(), description="Rate of each key that has none of its own")
    max_concurrent_tasks: int = Field(
        default=10, ge=1, le=1000, description="Agent runs at once; from 2 on a quarter more is kept for watches"
    )
    task_timeout: PositiveDuration = Field(default=timedelta(seconds=300), description="Time given to one agent task")
    hooks: dict[Name, Hook] = Field(default={}, description="Inbound webhooks by name")
    cors: Cors = Field(default=Cors(), description="Web pages of other origins")

    @property
    def page_url(self) -> str | None:
        """Where people find the page, without the last slash; None when no TCP address is listened on."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        tcp = [address for address in self.listen if address.path is None]
        return f"http://{tcp[0]}" if tcp else None

    def find_listen(self, environment: Mapping[str, str], state_dir: Path) -> tuple[Listen, ...]:
        """The addresses to listen on; a unix socket of its own for each state folder when none is named."""
        if any(address.path for address in self.listen):
            return self.listen
        folder = environment.get("RUNTIME_DIRECTORY", "").split(":")[0]
        return (Listen(path=str((Path(folder) if folder else state_dir) / "api.sock")), *self.listen)


class TelemetrySettings(Settings):
    """Traces of every run."""

    otlp_endpoint: Url | None = Field(
        default=None, description="OTLP over HTTP collector; absent: traces stay in the embedded store only"
    )
    sample: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False, description="Share of calm runs that is kept")
    content: Literal["none", "redacted", "full"] = Field(
        default="none", description="How much of prompts and answers stands in traces"
    )


class MemorySettings(Settings):
    """What is remembered, and for how long. Alert state is never dropped."""

    max_size: Size = Field(default=2**30, description="Size of the whole store; oldest history goes first")
    results: PositiveDuration = Field(
        default=timedelta(hours=24), description="Raw results of probes; beyond that roll-ups of 1m, 1h and 1d"
    )
    rollups: PositiveDuration = Field(default=timedelta(days=400), description="Roll-ups of results")
    runs: PositiveDuration = Field(default=timedelta(days=30), description="Runs and their traces")
    events: PositiveDuration = Field(default=timedelta(days=90), description="Alerts' history and operators' actions")
