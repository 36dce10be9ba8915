"""
The error tree: one base, and beneath it only what a caller handles differently.

A target being down is no error; it is an `Observation`.
"""

from __future__ import annotations

from dataclasses import dataclass


class AgentdError(Exception):
    """Anything agentd raises on purpose. The message says what, where, and how to mend."""


class ConfigError(AgentdError):
    """A value of the configuration cannot be used; the message reads `what; how to mend`."""


class StoreError(AgentdError):
    """The store cannot be opened or used as it is; `agentd doctor` says what to do."""


class StoreFull(StoreError):
    """The disk has no room for the write; nothing of it was done, and it may be tried again."""


class StoreBusy(StoreError):
    """Another process owns this state directory."""


class DeliveryRefused(AgentdError):
    """
    The receiver will never take this message: give up and bury it.

    disable: the receiver is gone (410), the webhook itself is to be disabled.
    """

    def __init__(self, message: str, *, status: int | None = None, disable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.disable = disable


class DeliveryDelayed(AgentdError):
    """
    The receiver did not take the message now: try later.

    retry_after_s: what the receiver asked for, in seconds, or None.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """
    One thing wrong with the configuration.

    file, line, column: where it stands, counted from 1; line 0 means the file as a whole.
    key: the dotted path, such as `watches[3].http.url`.
    """

    file: str
    line: int
    column: int
    key: str
    what: str
    cure: str = ""
    warning: bool = False

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        cure = f"; {self.cure}" if self.cure else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.key}: {self.what}{cure}"


class InvalidConfig(ConfigError):
    """The configuration as a whole is refused; carries every problem found, warnings too."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
