"""Keys that were taken away while the rest of the configuration cannot be taken over."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config.loader import Loaded
from agentd.config.standing_keys import with_standing_keys

HASH = "$scrypt$ln=14,r=8,p=1$tWT9rp2hcN28LhRUMYRrLg$fDRHNI1XVaLc7DhLlMnLuBwddAg3t2roOQgeFmSOlnM"
OTHER = HASH.replace("fDRHNI1X", "AAAAAAAA")
WATCHES = TOLD + "watches: [{name: web, http: {url: 'http://a.example/'}}]\n"
FAULT = "webhoks: {}\n"


def key(name: str, hash: str = HASH, scope: str = "admin") -> str:
    return f"api:\n  keys:\n    - {{name: {name}, scope: {scope}, hash: '{hash}'}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def loaded(folder: Folder) -> Loaded:
    """`own` stands in the main file, `ops` and `leaked` in files of theirs."""
    folder.write(key("leaked"), "keys.d/leaked.yaml")
    folder.write(key("ops"), "keys.d/ops.yaml")
    return folder.load(WATCHES + key("own"))


def standing(loaded: Loaded, folder: Folder) -> list[tuple[str, str]]:
    found = with_standing_keys(loaded, folder.path / "agentd.yaml")
    return [(each.name, each.scope) for each in found.config.api.keys]


def test_a_key_whose_file_is_gone_leaves_whatever_else_is_wrong(loaded: Loaded, folder: Folder) -> None:
    """A leaked key must not stay because of a typing mistake somewhere else."""
    folder.write(WATCHES + key("own") + FAULT)
    (folder.path / "keys.d/leaked.yaml").unlink()

    assert standing(loaded, folder) == [("own", "admin"), ("ops", "admin")]


def test_where_the_others_come_from_is_still_told(loaded: Loaded, folder: Folder) -> None:
    """Their places are told by number."""
    (folder.path / "keys.d/leaked.yaml").unlink()

    found = with_standing_keys(loaded, folder.path / "agentd.yaml")

    assert found.origins["api.keys[1].name"] == f"{folder.path}/keys.d/ops.yaml:3"
    assert "api.keys[2].name" not in found.origins
    assert with_standing_keys(found, folder.path / "agentd.yaml") is found


@pytest.mark.parametrize("text", ["api:\n  keys: []\n", "api: {}\n", "", "api:\n"])
def test_a_key_that_left_the_main_file_leaves(text: str, loaded: Loaded, folder: Folder) -> None:
    """By hand, with a fault beside it."""
    folder.write(WATCHES + text + FAULT)

    assert standing(loaded, folder) == [("leaked", "admin"), ("ops", "admin")]


@pytest.mark.parametrize("text", ["api: [", "api: 7\n", "api: {keys: 7}\n", "- no mapping\n", ""])
def test_a_main_file_that_does_not_say_its_keys_takes_none_away(text: str, loaded: Loaded, folder: Folder) -> None:
    """An editor in the middle of its work would lock everybody out."""
    folder.write(text)
    (folder.path / "keys.d/leaked.yaml").unlink()

    assert standing(loaded, folder) == [("own", "admin"), ("ops", "admin")]


def test_a_main_file_that_is_gone_takes_none_away(loaded: Loaded, folder: Folder) -> None:
    """It is mostly about to come back."""
    (folder.path / "agentd.yaml").unlink()

    assert standing(loaded, folder) == [("own", "admin"), ("leaked", "admin"), ("ops", "admin")]


def test_a_broken_file_of_a_key_keeps_it(loaded: Loaded, folder: Folder) -> None:
    """It may hold it; whoever wants it gone removes the file."""
    folder.write("api: [", "keys.d/leaked.yaml")

    assert standing(loaded, folder) == [("own", "admin"), ("leaked", "admin"), ("ops", "admin")]


def test_a_folder_that_cannot_be_looked_into_keeps_its_keys(
    loaded: Loaded, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that somebody changed by mistake are no word about keys."""

    def closed(path: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", closed)

    assert len(standing(loaded, folder)) == 3


def test_a_rotated_key_leaves_and_the_new_one_waits(loaded: Loaded, folder: Folder) -> None:
    """Nobody is let in by a configuration that was refused."""
    folder.write(key("leaked", OTHER), "keys.d/leaked.yaml")
    folder.write(key("new"), "keys.d/new.yaml")

    assert standing(loaded, folder) == [("own", "admin"), ("ops", "admin")]


@pytest.mark.parametrize(("scope", "holds"), [("read", "read"), ("operate", "operate"), ("god", "admin")])
def test_a_scope_that_was_made_less_is_less_at_once(scope: str, holds: str, loaded: Loaded, folder: Folder) -> None:
    """As when a key is found where it does not belong."""
    folder.write(key("leaked", scope=scope), "keys.d/leaked.yaml")

    assert standing(loaded, folder)[1] == ("leaked", holds)


def test_a_scope_that_was_made_more_waits(folder: Folder) -> None:
    """The configuration that says so is not in force."""
    folder.write(key("ops", scope="read"), "keys.d/ops.yaml")
    loaded = folder.load(WATCHES)
    folder.write(key("ops", scope="admin"), "keys.d/ops.yaml")

    assert standing(loaded, folder) == [("ops", "read")]


def test_a_key_that_moved_to_another_file_stays(loaded: Loaded, folder: Folder) -> None:
    """It stands, whatever the file is called."""
    (folder.path / "keys.d/leaked.yaml").rename(folder.path / "keys.d/other.yaml")

    assert len(standing(loaded, folder)) == 3
