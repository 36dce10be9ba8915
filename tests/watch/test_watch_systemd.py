"""Units: the answers of a real systemctl (252), read; and every way in which it cannot be asked."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agentd.condition import compile_condition, judge
from agentd.records import Observation, Verdict
from agentd.watch.systemd import SYSTEMD, SystemdProbe, SystemdSettings

LIST = """\
auditd.service                       not-found inactive dead    auditd.service
bad.service                          loaded    failed   failed  bad.service
dbus.service                         loaded    active   running D-Bus System Message Bus
gone.service                         not-found failed   failed  gone.service
emergency.service                    loaded    inactive dead    Emergency Shell
"""
SHOW = """\
NRestarts=0
Id=good.service
LoadState=loaded
ActiveState=active

NRestarts=7
Id=bad.service
LoadState=loaded
ActiveState=failed

NRestarts=0
Id=idle.service
LoadState=loaded
ActiveState=inactive

NRestarts=0
Id=nope.service
LoadState=not-found
ActiveState=inactive

NRestarts=0
Id=masked.service
LoadState=masked
ActiveState=inactive

Id=dbus.socket
LoadState=loaded
ActiveState=active
"""
ASKED = ["good", "bad.service", "idle.service", "nope.service", "masked.service", "dbus.socket"]
NO_SYSTEMD = (
    "System has not been booted with systemd as init system (PID 1). Can't operate.\n"
    "Failed to connect to bus: Host is down\n"
)


class Systemctl:
    """A program of that name, first on PATH, that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = folder / "asked"

    def says(self, show: str = "", listed: str = "", error: str = "", status: int = 0, first: str = "") -> None:
        (self.folder / "show").write_text(show)
        (self.folder / "list-units").write_text(listed)
        (self.folder / "error").write_text(error)
        folder = shlex.quote(str(self.folder))
        script = self.folder / "systemctl"
        script.write_text(
            f'#!/bin/sh\n{first}\ncd {folder}\necho "$@" >> asked\ncat "$3"\ncat error >&2\nexit {status}\n'
        )
        script.chmod(0o755)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return Systemctl(tmp_path)


async def look(*units: str, timeout_s: float = 30.0) -> Observation:
    settings = SystemdSettings(units=list(units)) if units else SystemdSettings()
    return await SystemdProbe(settings).look(timeout_s)


async def test_units_asked_by_name_are_told_with_state(systemctl: Systemctl) -> None:
    """A unit that does not exist is another trouble than one that is stopped."""
    systemctl.says(show=SHOW)

    seen = await look(*ASKED)

    assert seen.blind is None
    assert seen.values == {
        "failed": ["bad.service"],
        "active": ["dbus.socket", "good.service"],
        "missing": ["masked.service", "nope.service"],
        "units": {
            "bad.service": "failed",
            "dbus.socket": "active",
            "good.service": "active",
            "idle.service": "inactive",
            "masked.service": "inactive",
            "nope.service": "inactive",
        },
        "restarts": {
            "good.service": 0,
            "bad.service": 7,
            "idle.service": 0,
            "nope.service": 0,
            "masked.service": 0,
        },
    }


async def test_globs_find_what_is_loaded(systemctl: Systemctl) -> None:
    """Units that others merely refer to are not there; one whose file went while it failed still counts."""
    systemctl.says(listed=LIST)

    values = (await look("*.service")).values

    assert values["failed"] == ["bad.service", "gone.service"]
    assert values["active"] == ["dbus.service"]
    assert values["missing"] == []
    assert set(values["units"]) == {"bad.service", "dbus.service", "gone.service", "emergency.service"}


async def test_names_and_globs_are_asked_together(systemctl: Systemctl) -> None:
    """One call each, and no word of ours can be taken for an option."""
    systemctl.says(show="Id=-.mount\nLoadState=loaded\nActiveState=active\n", listed=LIST)

    values = (await look("-.mount", "*.service")).values

    assert values["active"] == ["-.mount", "dbus.service"]
    asked = sorted(systemctl.asked.read_text().splitlines())
    assert [line.rpartition(" -- ")[2] for line in asked] == ["*.service", "-.mount"]


async def test_an_alias_keeps_the_name_asked(systemctl: Systemctl) -> None:
    """`units["sshd.service"]` must be found, though the unit calls itself ssh.service."""
    systemctl.says(show="Id=ssh.service\nLoadState=loaded\nActiveState=active\n")

    assert (await look("sshd")).values["units"] == {"sshd.service": "active"}


async def test_without_units_the_whole_machine_is_asked(systemctl: Systemctl) -> None:
    """`systemd: {}` is a good first watch."""
    systemctl.says(listed=LIST)

    assert (await look()).values["failed"] == ["bad.service", "gone.service"]


async def test_a_glob_that_finds_nothing_is_fine(systemctl: Systemctl) -> None:
    """A machine without a database has no failed database."""
    systemctl.says()

    assert (await look("postgresql*")).values["units"] == {}


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"error": NO_SYSTEMD, "status": 1}, "cannot ask systemd: System has not been booted with systemd"),
        ({"status": 4}, "cannot ask systemd: systemctl ended with 4"),
        ({"show": "Id=a.service\n\nId=b.service\n"}, "answered for other units"),
        ({"show": ""}, "answered for other units"),
        ({"first": "exec sleep 600"}, "systemctl did not answer within 0.3 s"),
    ],
)
async def test_a_manager_that_cannot_be_asked_is_blind(systemctl: Systemctl, said: dict[str, Any], says: str) -> None:
    """Nothing is known of the units then; nobody is to be told that they failed."""
    systemctl.says(**said)

    seen = await look("good", timeout_s=0.3 if "first" in said else 30.0)

    assert seen.error is None
    assert seen.blind is not None
    assert says in seen.blind


async def test_no_systemctl_is_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container has none."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert str((await look()).blind).startswith("cannot run systemctl: not found in PATH; write its full path")


async def test_the_default_conditions_tell_failed_and_missing_apart(systemctl: Systemctl) -> None:
    """What a watch without `expect` says."""
    systemctl.says(show=SHOW)
    conditions = [compile_condition(text, SYSTEMD.variables) for text in SYSTEMD.expect]

    judgement = judge(await look(*ASKED), conditions)

    assert judgement.verdict is Verdict.FAILING
    assert judgement.summary == 'failed.size() == 0 does not hold (failed = ["bad.service"]) (and 1 more)'


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        ("getty@", "is a template; name an instance"),
        ("getty@.service", r"all of them by getty@\*"),
        ("weird name.service", "no name of a unit"),
        ("a;b", "no name of a unit"),
        ("", "no name of a unit"),
        ("x" * 256, "no name of a unit"),
    ],
)
def test_what_is_no_unit_is_told_at_load(unit: str, says: str) -> None:
    """systemctl would refuse the whole call, and every other unit with it."""
    with pytest.raises(ValidationError, match=says):
        SystemdSettings(units=[unit])


def test_a_name_without_a_type_is_a_service() -> None:
    """As systemctl has it; `123` alone would be a job to it."""
    assert SystemdSettings(units=["nginx", "123", "a.b", "x.timer", "php*", "nginx"]).units == [
        "nginx.service",
        "123.service",
        "a.b.service",
        "x.timer",
        "php*",
    ]


async def test_this_machine_answers_or_is_blind() -> None:
    """The real systemctl, where there is one, and the real manager, where it runs."""
    seen = await look()

    if Path("/run/systemd/system").is_dir() and Path("/run/dbus/system_bus_socket").exists():
        assert seen.blind is None
        assert seen.values["units"]
    else:
        assert seen.blind
