"""
Text that may name secrets: `${env:NAME}`, `${file:/path}`, `${credential:name}`.

The configuration keeps the names. The value is read at the moment of use (`expand`), so that a rotated file
works without a reload, and stores, traces and logs never hold more than the name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from agentd.errors import AgentdError

_REFERENCE = re.compile(r"\$\{([a-z]+):([^}]*)\}")
_SOURCES = ("env", "file", "credential")
_MAX_SECRET_BYTES = 64 * 1024


_environment: Mapping[str, str] = os.environ
_on_read: Callable[[str], None] | None = None


def read_secrets_from(environment: Mapping[str, str], on_read: Callable[[str], None] | None = None) -> None:
    """
    Say, once for the process, where `${env:…}` and the credentials' folder are looked up when nobody says otherwise.

    on_read: is told every value that was read, so that logs can be kept clean of it.
    """
    global _environment, _on_read
    _environment, _on_read = environment, on_read


class SecretMissing(AgentdError):
    """A named secret is not there now; the message names it and never holds a value."""


class SecretText:
    """Text with zero or more secret references; `str()` gives the names, `expand()` the value."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str | tuple[str, str]] = []
        end = 0
        for match in _REFERENCE.finditer(text):
            source, name = match[1], match[2]
            if source not in _SOURCES:
                raise ValueError(
                    f"unknown secret source ${{{source}:…}}; "
                    "write ${env:NAME}, ${file:/path} or ${credential:name}"
                )
            if not name:
                raise ValueError(f"${{{source}:}} names nothing; write e.g. ${{{source}:NAME}}")
            if source == "credential" and ("/" in name or name in (".", "..")):
                raise ValueError(f"credential name {name!r} is a path; write the plain name given to LoadCredential=")
            if match.start() > end:
                self._parts.append(text[end : match.start()])
            self._parts.append((source, name))
            end = match.end()
        if end < len(text):
            self._parts.append(text[end:])

    @property
    def references(self) -> list[tuple[str, str]]:
        """The (source, name) pairs named in the text, in order."""
        return [part for part in self._parts if isinstance(part, tuple)]

    @property
    def literal(self) -> bool:
        """True when the text names no secret: it is its own value."""
        return not self.references

    def expand(self, environment: Mapping[str, str] | None = None) -> str:
        """The value now. environment: default that of `read_secrets_from`. Raises SecretMissing."""
        values = _environment if environment is None else environment
        return "".join(part if isinstance(part, str) else _value(*part, values) for part in self._parts)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"SecretText({self.text!r})" if self.references else "SecretText('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _value(source: str, name: str, environment: Mapping[str, str]) -> str:
    value = _read(source, name, environment)
    if _on_read is not None:
        _on_read(value)
    return value


def _read(source: str, name: str, environment: Mapping[str, str]) -> str:
    if source == "env":
        value = environment.get(name)
        if value is None:
            raise SecretMissing(f"environment variable {name} is not set")
        return value
    if source == "credential":
        folder = environment.get("CREDENTIALS_DIRECTORY")
        if not folder:
            raise SecretMissing(
                f"credential {name} cannot be seen: $CREDENTIALS_DIRECTORY is not set (not run by systemd)"
            )
        path = Path(folder) / name
    else:
        path = Path(name)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretMissing(f"{source} {name} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_SECRET_BYTES:
        raise SecretMissing(f"{source} {name} is larger than {_MAX_SECRET_BYTES} bytes; is it the right file?")
    try:
        # Editors and `echo` end a file with a newline that is no part of the secret.
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise SecretMissing(f"{source} {name} is not UTF-8 text") from error


def _to_secret(value: Any) -> SecretText:
    if isinstance(value, SecretText):
        return value
    if isinstance(value, str):
        return SecretText(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return SecretText(str(value))
    raise ValueError(f"expected text, got {type(value).__name__}; put it in quotes")


Secret = Annotated[
    SecretText,
    BeforeValidator(_to_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "description": "Text that may name secrets: ${env:NAME}, ${file:/path}, ${credential:name}",
            "examples": ["${env:TOKEN}", "${file:/etc/agentd/token}", "${credential:token}"],
        }
    ),
]
"""The type of a config key that may name secrets."""
