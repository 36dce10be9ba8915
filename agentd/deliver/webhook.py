"""
What the configuration says of one webhook.

In: one entry of `webhooks`. Out: `WebhookSettings`, with everything found out at load that can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from agentd.deliver.formats import FORMATS, load
from agentd.deliver.signing import signing_key
from agentd.secret import Secret, SecretMissing, SecretText
from agentd.settings import PositiveDuration, Rate, Settings, show_duration

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
    }
)
_URL = re.compile(r"https?://[^\s/?#]", re.IGNORECASE)
_ANY_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s]", re.IGNORECASE)
_NAMELESS = re.compile(r"\$\{(\w+)\}", re.ASCII)
_LONGEST_TIMEOUT = timedelta(minutes=2)


def _as_list(value: Any) -> Any:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | SecretText) else value


_SECRET_TEXT = {
    "type": "string",
    "description": "whsec_ and base64, named as ${env:NAME}, ${file:/path} or ${credential:name}",
    "examples": ["${credential:audit-secret}"],
}

SecretList = Annotated[
    tuple[Secret, ...],
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_SECRET_TEXT, {"type": "array", "items": _SECRET_TEXT, "maxItems": 8}]}),
]
"""One secret, or several while rotating."""


class WebhookSettings(Settings):
    """One receiver of messages."""

    # Before the url, whose form depends on it.
    format: str = Field(
        default="standard",
        description="How a message is written",
        json_schema_extra={"examples": [*sorted(FORMATS)]},
    )
    url: Secret = Field(
        description="Where to send: an http or https address; for `format: apprise` one that Apprise knows; "
        "read at each sending"
    )
    secret: SecretList = Field(
        default=(), max_length=8, description="Signs each message (Standard Webhooks); a list while rotating"
    )
    headers: dict[str, Secret] = Field(default={}, max_length=50, description="More request headers")
    body: str | None = Field(default=None, max_length=65536, description="Jinja template; for `format: template` only")
    routing_key: Secret | None = Field(
        default=None, description="Integration key of Events API v2; for `format: pagerduty` only"
    )
    mode: Literal["webhook", "api"] | None = Field(
        default=None,
        description="For `format: alertmanager` only: like Alertmanager's webhooks (the default), or to its API",
    )
    rate: Rate | None = Field(default=None, description="At most so many messages; default: no limit")
    timeout: PositiveDuration = Field(default=timedelta(seconds=15), description="Of one attempt, at most 2m")
    private_networks: bool = Field(default=True, description="May the address lie in a private network?")
    concurrency: int = Field(default=4, ge=1, le=32, description="Messages under way at once")
    description: str = Field(default="", description="For people")

    @field_validator("url")
    @classmethod
    def _web_address(cls, url: SecretText, info: ValidationInfo) -> SecretText:
        if match := _NAMELESS.search(url.text):
            raise ValueError(f"{match[0]} does not say where to look; write ${{env:{match[1]}}}")
        if not url.text.startswith("${") and not _form(info.data.get("format")).match(url.text):
            if info.data.get("format") == "apprise":
                raise ValueError("not a url of Apprise; it begins with the name of a service, as in ntfy://topic")
            raise ValueError("not a web address; it begins with https:// or http:// and a host")
        return url

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"unknown format {name!r}; this version knows {', '.join(sorted(FORMATS))}")
        return name

    @field_validator("secret")
    @classmethod
    def _readable_secrets(cls, secrets: tuple[SecretText, ...]) -> tuple[SecretText, ...]:
        for secret in secrets:
            if secret.literal:
                signing_key(secret.text)
        return secrets

    @field_validator("headers")
    @classmethod
    def _free_headers(cls, headers: dict[str, SecretText]) -> dict[str, SecretText]:
        for name, value in headers.items():
            if not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no header name; use letters, digits and -")
            if name.lower() in _OURS:
                raise ValueError(f"header {name} is set by agentd itself; leave it out")
            if value.literal and not value.text.isprintable():
                raise ValueError(f"header {name} holds a line break or control character; write it on one line")
        return headers

    @field_validator("timeout")
    @classmethod
    def _sane_timeout(cls, timeout: timedelta) -> timedelta:
        if timeout > _LONGEST_TIMEOUT:
            raise ValueError(
                f"{show_duration(timeout)} is too long for one attempt; write at most {show_duration(_LONGEST_TIMEOUT)}"
            )
        return timeout

    @model_validator(mode="after")
    def _complete(self) -> WebhookSettings:
        if self.body is not None and self.format != "template":
            raise ValueError(f"`body` is for `format: template`, not {self.format}; remove one of the two")
        for name, given, form in (("routing_key", self.routing_key, "pagerduty"), ("mode", self.mode, "alertmanager")):
            if given is not None and self.format != form:
                raise ValueError(f"`{name}` is for `format: {form}`, not {self.format}; remove one of the two")
        load(self.format).check(self)
        return self

    def unusable(self, environment: Mapping[str, str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """
        What the named secrets hold now that nothing can be sent with: keys below the webhook, and `what; how to mend`.

        environment: as of `SecretText.expand`. A secret that cannot be read is passed over, and no value is shown.
        """
        if (url := _now(self.url, environment)) is not None and not _form(self.format).match(url.strip()):
            what = "is empty" if not url.strip() else "holds no web address"
            begins = "the name of a service" if self.format == "apprise" else "https:// or http://"
            yield ("url",), f"what it names {what}; put an address there that begins with {begins}"
        if self.routing_key is not None and (key := _now(self.routing_key, environment)) is not None:
            from agentd.deliver.formats.pagerduty import CURE, usable_key

            if not usable_key(key):
                yield ("routing_key",), f"what it names is no integration key; {CURE}"
        for index, secret in enumerate(self.secret):
            if (value := _now(secret, environment)) is None:
                continue
            try:
                signing_key(value)
            except ValueError as error:
                what, _, cure = str(error).partition("; ")
                yield ("secret", index), f"{what} that it names; {cure}"
        for name, header in self.headers.items():
            value = _now(header, environment)
            if value is not None and not value.isprintable():
                yield ("headers", name), "what it names holds a line break or control character; keep it on one line"

    def expand(self) -> ExpandedWebhook:
        """Every secret's value, now. Raises SecretMissing."""
        return ExpandedWebhook(
            url=self.url.expand().strip(),
            secrets=[secret.expand() for secret in self.secret],
            headers={name: value.expand() for name, value in self.headers.items()},
            routing_key=None if self.routing_key is None else self.routing_key.expand().strip(),
        )


def _form(format: object) -> re.Pattern[str]:
    return _ANY_URL if format == "apprise" else _URL


def _now(secret: SecretText, environment: Mapping[str, str]) -> str | None:
    """The value that a reference has; None for plain text, which is judged already, and for what cannot be read."""
    if secret.literal:
        return None
    try:
        return secret.expand(environment)
    except (SecretMissing, ValueError):
        return None


class ExpandedWebhook:
    """The secret values of one attempt: held while it lasts, never stored, never shown."""

    __slots__ = ("headers", "routing_key", "secrets", "url")

    def __init__(
        self, *, url: str, secrets: list[str], headers: dict[str, str], routing_key: str | None = None
    ) -> None:
        self.url = url
        self.routing_key = routing_key
        self.secrets = secrets
        self.headers = headers
