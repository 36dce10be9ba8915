"""Where commands look for the daemon, when it is not theirs to read the configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentd.cli import place
from agentd.errors import InvalidConfig


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that somebody else may read; root, who may be running this, could read any."""
    path = tmp_path / "agentd.yaml"
    path.write_bytes(b"{")
    monkeypatch.setattr(os, "access", lambda file, mode: not str(file).startswith(str(tmp_path)))
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    return path


def test_who_may_not_read_the_installed_configuration_reaches_its_daemon(
    closed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds secrets; what such a user may, api.socket_access says, and nothing of that is this file's affair."""
    monkeypatch.setattr(place, "INSTALLED", closed)

    found = place.find_place(closed)

    assert (found.config, found.socket) == (None, Path("/run/agentd/api.sock"))
    assert capsys.readouterr().err == ""


def test_another_configuration_that_is_closed_is_an_error(closed: Path) -> None:
    """Where its daemon is stands in it, and nowhere else."""
    with pytest.raises(InvalidConfig):
        place.find_place(closed)


def test_keys_that_are_closed_are_no_error_to_tell_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`agentd key new` makes files for the daemon's eyes; nobody else has to hear of them with each command."""
    path = tmp_path / "agentd.yaml"
    path.write_text(f"daemon: {{state_dir: {tmp_path}/state}}\n")
    (tmp_path / "keys.d").mkdir()
    (tmp_path / "keys.d" / "ops.yaml").write_bytes(b"{")
    real = os.access
    monkeypatch.setattr(os, "access", lambda file, mode: Path(file).name != "ops.yaml" and real(file, mode))

    found = place.find_place(path)

    assert found.socket == tmp_path / "state" / "api.sock"
    assert capsys.readouterr().err == ""
