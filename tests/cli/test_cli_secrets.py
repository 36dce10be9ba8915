"""`agentd test` shows what a target said, but not our secrets in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("condition", "code"), [("exit_code == 0", 0), ("exit_code == 1", 3)])
def test_a_look_shows_no_secret(tmp_path: Path, condition: str, code: int) -> None:
    """Its output is pasted into tickets; also when all is well."""
    config = tmp_path / "agentd.yaml"
    config.write_text(
        "watches:\n  - {name: leaks, command: {argv: [env], env: {PASSWORD: '${env:DB_PASSWORD}'}}, expect: ['"
        + condition
        + ' && stdout != ""\']}\n'
    )
    environment = os.environ | {"DB_PASSWORD": "correct-horse-battery"}

    command = [sys.executable, "-m", "agentd", "test", "leaks", "-c", str(config)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert said.returncode == code, said
    assert "PASSWORD=***" in said.stdout
    assert "correct-horse" not in said.stdout + said.stderr
