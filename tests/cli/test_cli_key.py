"""`agentd key` as a person types it: with a daemon that takes the key over, and without one."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Agentd, typed
from running import running

from agentd.api.keys import make_key, verify
from agentd.cli.client import Refused
from agentd.cli.client import call as asked
from agentd.cli.place import Place
from agentd.config.loader import load
from agentd.daemon.app import Daemon
from agentd.errors import AgentdError

TOKEN, HASH = make_key("old")


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    write(tmp_path)
    return typed(monkeypatch, capsys, tmp_path / "agentd.yaml")


def write(folder: Path, **api: object) -> Path:
    path = folder / "agentd.yaml"
    watches = [{"name": "shop", "every": "1h", "http": {"url": "http://127.0.0.1:1/"}}]
    path.write_text(yaml.safe_dump({"daemon": {"state_dir": str(folder / "s")}, "api": api, "watches": watches}))
    return path


def names(path: Path) -> list[str]:
    return [key.name for key in load(path, environment={}).config.api.keys]


def test_a_new_key_is_printed_once_and_its_hash_is_kept(agentd: Agentd, tmp_path: Path) -> None:
    """stdout holds the token alone, so that it can go into a file or a pipe."""
    said = agentd("key", "new", "ops", "--scope", "operate", "--rate", "600")

    token = said.out.strip()
    (key,) = load(tmp_path / "agentd.yaml", environment={}).config.api.keys
    assert (said.code, key.name, key.scope) == (0, "ops", "operate")
    assert verify(token, key.hash.text)
    assert key.rate_limiting is not None
    assert (key.rate_limiting.requests_per_minute, key.rate_limiting.burst_size) == (600, 10)
    assert token not in (tmp_path / "keys.d/ops.yaml").read_text() + said.err
    assert "not running" in said.err


@pytest.mark.parametrize("name", ["007", "null", "1e3", "a.b-c_d", "true"])
def test_a_name_that_yaml_reads_as_something_else_stays_a_name(agentd: Agentd, tmp_path: Path, name: str) -> None:
    """Names are text whatever they look like."""
    assert agentd("key", "new", name).code == 0
    assert names(tmp_path / "agentd.yaml") == [name]


def test_the_file_can_be_read_by_the_group_of_the_configuration_and_nobody_else(
    agentd: Agentd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root makes the key, and the daemon is another user."""
    given: list[int] = []
    monkeypatch.setattr("agentd.cli.key_file.os.chown", lambda what, user, group: given.append(group))

    agentd("key", "new", "ops")

    assert stat.S_IMODE((tmp_path / "keys.d/ops.yaml").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "keys.d").stat().st_mode) == 0o750
    assert set(given) == {(tmp_path / "agentd.yaml").stat().st_gid}


@pytest.mark.parametrize(("name", "code"), [("../evil", 2), ("a/b", 2), ("-x", 2), ("", 2), ("a b", 2), ("x" * 64, 2)])
def test_a_name_that_leads_elsewhere_is_refused(agentd: Agentd, tmp_path: Path, name: str, code: int) -> None:
    """It becomes the name of a file."""
    assert agentd("key", "new", "--", name).code == code
    assert sorted(each.name for each in tmp_path.iterdir()) == ["agentd.yaml"]


def test_a_second_key_of_that_name_is_refused(agentd: Agentd, tmp_path: Path) -> None:
    """Whoever uses the first would be locked out."""
    first = agentd("key", "new", "ops").out
    before = (tmp_path / "keys.d/ops.yaml").read_text()

    said = agentd("key", "new", "ops")

    assert (said.code, said.out) == (1, "")
    assert "keys.d/ops.yaml:" in said.err
    assert first
    assert (tmp_path / "keys.d/ops.yaml").read_text() == before


def test_a_broken_configuration_gets_no_key(agentd: Agentd, tmp_path: Path) -> None:
    """Whether the new one can be used could not be told."""
    (tmp_path / "agentd.yaml").write_text("watches: 7\n")

    said = agentd("key", "new", "ops")

    assert (said.code, said.out) == (2, "")
    assert not (tmp_path / "keys.d/ops.yaml").exists()


def test_print_writes_no_file(agentd: Agentd, tmp_path: Path) -> None:
    """For those whose configuration comes from elsewhere; what is on stdout can be put into it."""
    said = agentd("key", "new", "ops", "--print")

    (made,) = yaml.safe_load(said.out)["api"]["keys"]
    assert made["name"] == "ops"
    assert verify(said.err.strip(), made["hash"])
    assert not (tmp_path / "keys.d").exists()


def test_programs_make_and_revoke_keys_too(agentd: Agentd, tmp_path: Path) -> None:
    """As what sets a machine up does."""
    made = agentd("key", "new", "ops", "-o", "json").json
    gone = agentd("key", "revoke", "ops", "-o", "json").json

    assert made["token"].startswith("agentd_ops.")
    assert (made["file"], made["reloaded"]) == (f"{tmp_path}/keys.d/ops.yaml", False)
    assert gone == {"name": "ops", "revoked": True, "reloaded": False}


def test_keys_are_listed_with_the_place_where_they_stand(agentd: Agentd, tmp_path: Path) -> None:
    """Written by hand or by us; never with their hash."""
    write(tmp_path, keys=[{"name": "old", "hash": HASH}])
    agentd("key", "new", "ops", "--scope", "admin", "--burst", "3")

    said = agentd("key", "list")
    rows = agentd("key", "list", "-o", "json").json["keys"]

    assert [(row["name"], row["scope"]) for row in rows] == [("old", "read"), ("ops", "admin")]
    assert rows[0]["where"].startswith(f"{tmp_path}/agentd.yaml:")
    assert rows[1]["where"].startswith(f"{tmp_path}/keys.d/ops.yaml:")
    assert rows[1]["rate"] == {"requests_per_minute": 60, "burst_size": 3}
    assert "60/m, 3 at once" in said.out
    assert "scrypt" not in said.out + str(rows)


def test_no_keys_are_said_to_be_none(agentd: Agentd) -> None:
    """With the way to the first."""
    assert "agentd key new" in agentd("key", "list").out


def test_a_key_that_was_made_is_revoked(agentd: Agentd, tmp_path: Path) -> None:
    """And nothing of it is left."""
    agentd("key", "new", "ops")

    said = agentd("key", "revoke", "ops")

    assert said.code == 0
    assert "ops is revoked" in said.out
    assert list((tmp_path / "keys.d").iterdir()) == []


def test_a_key_that_somebody_wrote_is_left_to_them(agentd: Agentd, tmp_path: Path) -> None:
    """We say where it stands."""
    path = write(tmp_path, keys=[{"name": "old", "hash": HASH}])
    (tmp_path / "keys.d").mkdir()
    (tmp_path / "keys.d/own.yaml").write_text(f"api: {{keys: [{{name: own, hash: '{HASH}'}}]}}\n")

    for name, where in (("old", path), ("own", tmp_path / "keys.d/own.yaml")):
        said = agentd("key", "revoke", name)
        assert said.code == 1
        assert f"{where}:" in said.err
    assert names(path) == ["old", "own"]


def test_a_key_that_is_not_there_is_said_to_be_none(agentd: Agentd) -> None:
    """A typing mistake leaves the leaked key open."""
    agentd("key", "new", "ops")

    said = agentd("key", "revoke", "opps")

    assert said.code == 1
    assert "did you mean `ops`?" in said.err


def test_the_last_key_of_an_open_door_stays(agentd: Agentd, tmp_path: Path) -> None:
    """Without it the configuration would be refused, and the next start with it."""
    agentd("key", "new", "ops")
    write(tmp_path, listen=["0.0.0.0:8787"])

    said = agentd("key", "revoke", "ops")

    assert said.code == 2
    assert "api.listen[0]" in said.err
    assert names(tmp_path / "agentd.yaml") == ["ops"]


@pytest.fixture
def daemon(agentd: Agentd, tmp_path: Path) -> object:
    with running(tmp_path / "agentd.yaml") as found:
        yield found


def test_a_running_daemon_takes_a_key_over_and_lets_it_go(agentd: Agentd, daemon: Daemon) -> None:
    """A key works when it is printed, and does not when it is said to be revoked."""
    made = agentd("key", "new", "ops")
    assert "not running" not in made.err
    assert [key.name for key in daemon.plan.config.api.keys] == ["ops"]

    said = agentd("key", "revoke", "ops")

    assert said.out == "ops is revoked\n"
    assert daemon.plan.config.api.keys == ()


def test_a_new_key_that_the_daemon_refuses_is_taken_back(
    agentd: Agentd, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next start would meet a configuration that this one could not take."""
    agentd("key", "new", "ops")
    refuse_reloads(monkeypatch)

    added = agentd("key", "new", "dev")

    assert (added.code, added.out) == (1, "")
    assert "nothing was changed: " in added.err
    assert "the plan is broken" in added.err
    assert names(tmp_path / "agentd.yaml") == ["ops"]


def test_a_key_is_revoked_though_the_daemon_refuses_the_rest(
    agentd: Agentd, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leaked key does not wait until somebody has mended another file."""
    agentd("key", "new", "ops")
    agentd("key", "new", "leaked")
    refuse_reloads(monkeypatch)

    said = agentd("key", "revoke", "leaked")

    assert (said.code, said.out) == (0, "leaked is revoked\n")
    assert "stays with the rest as it is: " in said.err
    assert "the plan is broken" in said.err
    assert [row["name"] for row in daemon.door.listing()] == ["ops"]
    assert names(tmp_path / "agentd.yaml") == ["ops"]


def test_a_key_is_revoked_though_the_configuration_has_a_fault(agentd: Agentd, daemon: Daemon, tmp_path: Path) -> None:
    """And comes back with nothing that is changed live meanwhile."""
    agentd("key", "new", "leaked", "--scope", "admin")
    config = tmp_path / "agentd.yaml"
    good = config.read_text()
    config.write_text(good + "webhoks: {}\n")

    said = agentd("key", "revoke", "leaked", "-o", "json")

    assert said.code == 0
    assert (said.json["revoked"], said.json["reloaded"]) == (True, False)
    assert "webhoks" in said.err
    assert daemon.door.listing() == []
    assert len(daemon.door.keys) == 0
    assert not (tmp_path / "keys.d/leaked.yaml").exists()

    config.write_text(good)
    assert agentd("config", "set", "agent.max_steps", "7").code == 0
    assert daemon.door.listing() == []


def test_what_nobody_can_look_up_is_not_removed_from_a_broken_configuration(agentd: Agentd, tmp_path: Path) -> None:
    """Only files that `key new` made are ours to take away."""
    agentd("key", "new", "ops")
    (tmp_path / "keys.d/own.yaml").write_text(f"api: {{keys: [{{name: own, hash: '{HASH}'}}]}}\n")
    (tmp_path / "agentd.yaml").write_text("watches: 7\n")

    said = [agentd("key", "revoke", name) for name in ("own", "nope", "../keys.d/ops", "ops")]

    assert [each.code for each in said] == [1, 1, 1, 0]
    assert "where it was written" in said[0].err
    assert sorted(each.name for each in (tmp_path / "keys.d").iterdir()) == ["own.yaml"]


def test_a_daemon_that_keeps_the_key_is_told_of(
    agentd: Agentd, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that takes no order from this user: whoever revokes must not believe it is done."""
    agentd("key", "new", "leaked")

    def call(place: Place, method: str, path: str, *rest: Any) -> Any:
        if method == "POST":
            raise Refused("needs admin", 403)
        return asked(place, method, path, *rest)

    monkeypatch.setattr("agentd.cli.key.call", call)

    said = agentd("key", "revoke", "leaked")

    assert said.code == 1
    assert "may know the key still: needs admin" in said.err


def refuse_reloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise AgentdError("the plan is broken")

    monkeypatch.setattr("agentd.daemon.app.assemble", broken)
