"""A folder to write configurations into, and what loading them says."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from agentd.config.loader import Loaded, load
from agentd.errors import InvalidConfig, Problem

TOLD = "webhooks: {ops: {url: 'https://hooks.example/x'}}\nalerting: {notify: [ops]}\n"
"""What keeps the warnings about nobody being told away."""


class Folder:
    """Writes files and loads `agentd.yaml` among them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment: dict[str, str] = {}

    def write(self, text: str, name: str = "agentd.yaml") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def load(self, text: str | None = None) -> Loaded:
        if text is not None:
            self.write(text)
        return load(self.path / "agentd.yaml", environment=self.environment)

    def problems(self, text: str | None = None) -> list[Problem]:
        """The errors; there must be some."""
        with pytest.raises(InvalidConfig) as caught:
            self.load(text)
        return [problem for problem in caught.value.problems if not problem.warning]

    def problem(self, text: str | None = None) -> Problem:
        """The one error; there must be no other."""
        problems = self.problems(text)
        assert len(problems) == 1, "\n".join(map(str, problems))
        return problems[0]

    def warnings(self, text: str | None = None) -> dict[str, str]:
        """What is warned of, by key."""
        return {warning.key: warning.what for warning in self.load(text).warnings}
