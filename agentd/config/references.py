"""
Secrets named in the configuration: can each be read now, and does none stand in the file in plain?

In: raw data and the environment. Out: problems. The values themselves are read, judged and forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentd.config.complaints import Locate
from agentd.config.document import KeyPath, dotted
from agentd.errors import Problem
from agentd.secret import SecretMissing, SecretText

PLAIN_SECRETS = frozenset({"secret", "api_key", "routing_key", "token", "password"})
_REFERENCE = re.compile(r"\$\{(env|file|credential):[^}]*\}")
_NAMELESS = re.compile(r"\$\{(\w+)\}", re.ASCII)
_CURES = {
    "env": "set it, or put it into .env beside the file",
    "file": "create it, or allow this user to read it",
    "credential": "add LoadCredential= to the unit",
}

# Set where systemd holds the socket of an agent host (agentd.service).
_ELSEWHERE = "AGENTD_AGENT_SOCKET"


class SecretCheck:
    """
    Looks at every text of a tree; remembers what it found of each reference.

    reads: whether they can be read now; plain: whether one stands there in plain.
    """

    def __init__(self, environment: Mapping[str, str], *, reads: bool = True, plain: bool = True) -> None:
        self._environment = environment
        self._reads = reads
        self._plain = plain
        self._found: dict[str, tuple[str, str] | None] = {}

    def problems(self, data: Any, prefix: KeyPath, locate: Locate, typed: Any = None) -> Iterator[Problem]:
        """
        What is wrong with the secrets in `data`.

        typed: the same tree as models, where it is valid: tells which keys have their references filled in at all.
        """
        if isinstance(data, str):
            if "${" in data:
                yield from self._references(data, prefix, locate, typed)
            return
        pairs: Any = ()
        if isinstance(data, dict):
            pairs = data.items()
        elif isinstance(data, list):
            pairs = enumerate(data)
        for key, value in pairs:
            path = (*prefix, key)
            if isinstance(value, str | dict | list):
                yield from self.problems(value, path, locate, _inside(typed, key))
            if self._plain and key in PLAIN_SECRETS:
                yield from self._in_plain(value, path, locate, _inside(typed, key))

    def _references(self, text: str, path: KeyPath, locate: Locate, typed: Any) -> Iterator[Problem]:
        place = locate(path, False)
        at = (place.file, place.line, place.column, dotted(path))
        if isinstance(typed, str):
            if match := _REFERENCE.search(text):
                yield Problem(*at, f"{match[0]} is not filled in here, and stays as it is written", warning=True)
            return
        if typed is not None and (nameless := _NAMELESS.search(text)):
            what = f"{nameless[0]} does not say where to look, and stays as it is written"
            yield Problem(*at, what, f"write ${{env:{nameless[1]}}}")
        try:
            references = dict.fromkeys(SecretText(text).references)
        except ValueError:
            return  # the model has complained already, if it takes secrets here
        for source, name in references:
            missing = self._missing(source, name)
            if missing is not None:
                visible = source != "credential" or bool(self._environment.get("CREDENTIALS_DIRECTORY"))
                if _is_of_agents(path):
                    if _ELSEWHERE in self._environment:
                        continue  # their host has an environment and credentials of its own, which we cannot see
                    # The daemon needs it not, and alerts must not hang on it.
                    cure = f"{_CURES[source]}; as a service: into /etc/agentd/agent.environment" if visible else ""
                    yield Problem(*at, missing, cure, warning=True)
                elif path[:1] == ("embeddings",):
                    # Without it notes are found by their words alone.
                    yield Problem(*at, missing, _CURES[source] if visible else "", warning=True)
                else:
                    yield Problem(*at, missing, _CURES[source] if visible else "", warning=not visible)

    def _missing(self, source: str, name: str) -> str | None:
        if not self._reads:
            return None
        text = f"${{{source}:{name}}}"
        if text not in self._found:
            try:
                SecretText(text).expand(self._environment)
            except SecretMissing as error:
                self._found[text] = (str(error), source)
            except ValueError:
                self._found[text] = (f"{source} {name!r} is no path that could be read", source)
            else:
                self._found[text] = None
        found = self._found[text]
        return None if found is None else found[0]

    def _in_plain(self, value: Any, path: KeyPath, locate: Locate, typed: Any) -> Iterator[Problem]:
        for index, each in enumerate(value if isinstance(value, list) else [value]):
            model = typed[index] if isinstance(typed, list | tuple) and index < len(typed) else typed
            if not isinstance(model, SecretText | None) or not isinstance(each, str | int) or "${" in str(each):
                continue
            place = locate(path, False)
            yield Problem(
                place.file,
                place.line,
                place.column,
                dotted(path),
                "a secret stands in the file in plain",
                "name it: ${credential:NAME}, ${file:/path} or ${env:NAME}",
                warning=True,
            )


def _is_of_agents(path: KeyPath) -> bool:
    return path[:1] == ("models",) or path[:2] == ("agent", "mcp")


def _inside(typed: Any, key: Any) -> Any:
    if typed is None or isinstance(typed, SecretText):
        return None
    if isinstance(typed, dict):
        return typed.get(key)
    if isinstance(typed, list | tuple):
        return typed[key] if isinstance(key, int) and key < len(typed) else None
    return getattr(typed, key, None) if isinstance(key, str) else None
