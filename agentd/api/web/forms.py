"""
What forms of the page send, and where one goes after.

In: fields as a browser sends them, already checked against forged ones. Out: typed values, bounded; the address to go
on to, which is always one of ours.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from agentd.api.caller import Caller
from agentd.api.silence import LONGEST, MAX_REASON_CHARS, one_line
from agentd.errors import ConfigError
from agentd.settings import parse_duration

COOKIE = "agentd_session"
CSRF_FIELD = "csrf"
MOST_KEY_CHARS = 512
_MOST_MATCHERS_CHARS = 4000
# What stands behind a path of ours, too: no scheme, no other host, no backslash that a browser takes for a slash.
_OWN_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9_.~!$&'()*+,;=:@%/?-]*", re.ASCII)
_WORD = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)


class Sessions(Protocol):
    """Who signed in with a key, known again by a cookie. secure: browsers come by https, so it is for that alone."""

    @property
    def secure(self) -> bool: ...

    async def open(self, key: str) -> tuple[str, Caller] | None:
        """The cookie's value and who it is; None for a key that is none. Raises TooMany."""
        ...

    def close(self, cookie: str) -> None:
        """Whatever the cookie says: it lets nobody in any more."""
        ...


class Form(BaseModel):
    """back: the page to return to."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    back: str = Field(default="", max_length=2000)


class LoginForm(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str = Field(min_length=1, max_length=MOST_KEY_CHARS)
    next: str = Field(default="/", max_length=2000)

    @field_validator("key")
    @classmethod
    def _as_typed(cls, value: str) -> str:
        # Copied from a terminal, a line break comes along.
        return value.strip()


def _as_line(text: str) -> str:
    return one_line(text).strip()


class AckForm(Form):
    comment: str = Field(default="", max_length=MAX_REASON_CHARS)
    undo: Literal["", "1"] = ""


class SilenceForm(Form):
    """matchers: as typed, with spaces between. lasting: such as `4h`."""

    matchers: str = Field(min_length=1, max_length=_MOST_MATCHERS_CHARS)
    lasting: Annotated[str, Field(max_length=20)] = "4h"
    reason: str = Field(default="", max_length=MAX_REASON_CHARS)


class PauseForm(Form):
    """lasting: such as `1h`; empty: until somebody resumes it."""

    lasting: Annotated[str, Field(max_length=20)] = ""
    reason: str = Field(default="", max_length=MAX_REASON_CHARS)


class RetryAllForm(Form):
    """webhook: only of this one; empty: of all."""

    webhook: str = Field(default="", max_length=200)


def read_lasting(text: str) -> timedelta | None:
    """Such as `90m`; None for nothing. Raises ConfigError."""
    if not text.strip():
        return None
    lasting = parse_duration(text.strip())
    if not timedelta(0) < lasting <= LONGEST:
        raise ConfigError(f"for: {text!r} is too long or nothing at all; write such as 30m, 4h or 7d")
    return lasting


def split_matchers(text: str) -> tuple[str, ...]:
    """`watch=shop rule="a b"` as its parts; what stands in quotes stays whole."""
    return tuple(_WORD.findall(text))


def reason_of(text: str) -> str:
    return _as_line(text)[:MAX_REASON_CHARS]


def own_path(text: str, otherwise: str = "/") -> str:
    """The path, if it is one of this page's; or a form elsewhere could send people away from here."""
    return text if _OWN_PATH.fullmatch(text) and not text.startswith(("/login", "/logout")) else otherwise


NOTICES = {
    "acked": "Acknowledged.",
    "unacked": "No longer acknowledged.",
    "silenced": "Silenced.",
    "unsilenced": "The silence has ended.",
    "checked": "Checked just now.",
    "started": "A run has been started.",
    "paused": "Paused.",
    "resumed": "Resumed.",
    "retried": "It will be sent again at once.",
    "retried_all": "Undeliverable messages that will be sent again: {n}.",
    "dropped": "The message has been dropped.",
    "enabled": "The webhook is enabled.",
    "tested": "The webhook took a test message.",
    "test_failed": "The webhook did not take the test message; the log says more.",
    "cancelled": "The run is being ended.",
    "welcome": "Signed in.",
    "bye": "Signed out.",
}
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def notice(code: str | None, count: str | None) -> str | None:
    """What a page says of what was just done: one of our own sentences, never a text out of the address."""
    said = NOTICES.get(code or "")
    if said is None:
        return None
    return said.replace("{n}", count if count is not None and _NUMBER.fullmatch(count) else "?")


def after(path: str, code: str, count: int | None = None) -> str:
    """The address to go on to, with the notice for it."""
    bare, _, query = path.partition("?")
    kept = [part for part in query.split("&") if part and part.partition("=")[0] not in ("done", "n")]
    more = [f"done={code}", *([f"n={count}"] if count is not None else [])]
    return f"{bare}?{'&'.join(kept + more)}"
