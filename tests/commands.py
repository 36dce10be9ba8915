"""
The command line in this process, as a person types it.

    agentd = typed(monkeypatch, capsys, tmp_path / "agentd.yaml")
    assert agentd("status").code == 0
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentd.cli import main


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Agentd = Callable[..., Said]


def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], config: Path) -> Agentd:
    """`agentd(...)` with $AGENTD_CONFIG pointing to `config`."""
    monkeypatch.setenv("AGENTD_CONFIG", str(config))
    monkeypatch.setattr("agentd.secret._on_read", None)
    monkeypatch.setattr("agentd.secret._environment", os.environ)  # the commands set it; put it back in the end

    def run(*words: str) -> Said:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["agentd", *words])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = int(error.code or 0)
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return run
