"""
The unit files as systemd reads them, and the scripts around them.

What the sandbox lets the daemon do is shown elsewhere, under a real systemd; here the files are checked offline.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentd.daemon.runs.host import SOCKET_VARIABLE

REPO = Path(__file__).resolve().parent.parent
UNITS = REPO / "units"

ALL_UNITS = ("agentd.service", "agentd.socket", "agentd-agent.service", "agentd-agent.socket")
SERVICES = ("agentd.service", "agentd-agent.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program in ExecStart= that exists on any machine."""
    for name in ALL_UNITS:
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(re.sub(r"/opt/agentd/bin/\w+", "/bin/true", text))
    return tmp_path


def analyze(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"}
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, env=environment)


def directives(name: str) -> list[tuple[str, str]]:
    """Every `Key=value` of a unit, in order, comments left out."""
    lines = (UNITS / name).read_text().splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"[A-Z][A-Za-z]*=", line)]
    return [(key, value) for key, _, value in pairs]


@needs_systemd
def test_systemd_understands_every_line(units: Path) -> None:
    """An unknown key is ignored with a warning, and with it the protection that it was to give."""
    done = analyze("verify", *(str(units / name) for name in ALL_UNITS), folder=units)

    assert done.stderr == ""
    assert done.returncode == 0


@needs_systemd
def test_a_misspelt_line_would_be_noticed(units: Path) -> None:
    """`verify` exits 0 on unknown keys; the test above must not lean on its status."""
    service = units / "agentd.service"
    service.write_text(service.read_text().replace("ProtectClock=", "ProtectClok="))

    assert "ProtectClok" in analyze("verify", str(service), folder=units).stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_the_sandbox_scores_one_and_a_half_or_better(name: str, units: Path) -> None:
    """The promise of the README; the exceptions stand in the file, with their reasons."""
    service = str(units / name)
    done = analyze("security", "--offline=yes", "--threshold=15", "--no-pager", service, folder=units)

    assert done.returncode == 0, done.stdout[-300:]


@pytest.mark.parametrize("name", SERVICES)
def test_every_choice_of_the_service_has_a_reason_near_it(name: str) -> None:
    """Whoever loosens a line must be able to see what it was for: no block without a comment."""
    blocks = re.split(r"\n\s*\n", (UNITS / name).read_text())

    for block in blocks:
        if "[Install]" not in block and re.search(r"^[A-Z]\w*=", block, re.MULTILINE):
            assert "#" in block, block


def test_the_limits_of_a_command_can_be_set() -> None:
    """@resources is refused as a whole, and holds the two calls by which a command check is limited."""
    filters = [value for key, value in directives("agentd.service") if key == "SystemCallFilter"]

    assert {"prlimit64", "setrlimit"} <= set(filters[-1].split())
    assert any("~" in value and "@resources" in value for value in filters[:-1])


def test_makefile_unit_and_credentials_agree_on_the_path() -> None:
    """`make install` puts the program where the unit starts it and where the sandbox lets it run."""
    service = dict(directives("agentd.service"))
    makefile = (REPO / "Makefile").read_text()

    program = service["ExecStart"].split()[0]
    folder = str(Path(program).parent.parent)
    assert f"-m venv {folder}\n" in makefile
    assert folder in service["ExecPaths"].split()


@needs_systemd
def test_sysusers_and_tmpfiles_are_understood(tmp_path: Path) -> None:
    """They run once, at install, where nobody reads warnings; here into an empty root."""
    (tmp_path / "etc").mkdir()
    users = subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "agentd.sysusers")], capture_output=True, text=True
    )
    passwd = (tmp_path / "etc/passwd").read_text() if (tmp_path / "etc/passwd").exists() else users.stderr
    assert re.search(r"^agentd:.*:/var/lib/agentd:/usr/sbin/nologin$", passwd, re.MULTILINE)

    folders = subprocess.run(
        ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(UNITS / "agentd.tmpfiles")],
        capture_output=True,
        text=True,
    )
    assert folders.stderr == ""
    assert (tmp_path / "var/lib/agentd").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/agentd").stat().st_mode & 0o777 == 0o751
    assert (tmp_path / "etc/agentd/prompts.d").stat().st_mode & 0o777 == 0o755


def test_the_daemon_and_its_agent_host_agree_on_their_socket() -> None:
    """A host that nobody reaches is an agent that never answers."""
    named = [value for key, value in directives("agentd.service") if key == "Environment"]
    socket = dict(directives("agentd-agent.socket"))

    assert named == [f"{SOCKET_VARIABLE}={socket['ListenStream']}"]
    assert (socket["SocketUser"], socket["SocketMode"]) == ("agentd", "0600")
    assert dict(directives("agentd-agent.service"))["User"] not in ("agentd", "root")


class Machine:
    """A PATH on which dpkg and apt do what the test says, and write down what they were asked."""

    def __init__(self, folder: Path, *, installed: str, apt: str) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.calls.touch(mode=0o666)
        self.calls.chmod(0o666)
        folder.chmod(0o755)
        self._program("dpkg-query", f"printf '{installed}'")
        self._program("apt-get", f'echo "$*" >> {self.calls}\n{apt}')

    def _program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def prepare(self, *args: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "-s", *args],
            input=(UNITS / "prepare").read_text(),
            env={"PATH": f"{self.folder}:/usr/bin:/bin", "TMPDIR": "/tmp"},
            cwd="/",
            user=user,
            capture_output=True,
            text=True,
        )

    def asked(self) -> list[str]:
        verbs = [re.search(r"\b(install|update)\b", call) for call in self.calls.read_text().splitlines()]
        return [verb[1] for verb in verbs if verb]


BASE = ("python3-venv", "python3-dev", "gcc", "pkg-config", "libsystemd-dev")
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: as another user it only says what is missing")


def installed(*packages: str) -> str:
    return "".join(rf"installed {package}\n" for package in packages)


def test_prepare_does_nothing_where_all_is_there(tmp_path: Path) -> None:
    """It runs before every `make`; it must be instant and silent."""
    machine = Machine(tmp_path, installed=installed(*BASE[:-1], "libsystemd-dev:amd64"), apt="exit 1")

    done = machine.prepare()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.asked() == []


@as_root
def test_prepare_installs_what_is_missing_without_fetching_lists_first(tmp_path: Path) -> None:
    """Fetching the lists takes longer than the rest, and needs the network."""
    machine = Machine(tmp_path, installed=installed(*BASE[:-1]), apt="exit 0")

    assert machine.prepare().returncode == 0

    assert machine.asked() == ["install"]
    assert machine.calls.read_text().rstrip().endswith(" libsystemd-dev")


@as_root
def test_prepare_fetches_lists_and_tries_once_more(tmp_path: Path) -> None:
    """A fresh container has no lists at all."""
    apt = f'[ "$(wc -l < {tmp_path}/calls)" -ge 2 ]'
    machine = Machine(tmp_path, installed="", apt=apt)

    assert machine.prepare().returncode == 0

    assert machine.asked() == ["install", "update", "install"]


@as_root
def test_prepare_says_why_when_it_cannot(tmp_path: Path) -> None:
    """And ends, rather than trying for ever."""
    machine = Machine(tmp_path, installed="", apt="echo 'E: no such package'; exit 100")

    done = machine.prepare()

    assert done.returncode == 1
    assert "E: no such package" in done.stderr
    assert machine.asked() == ["install", "update", "install"]


def test_prepare_without_root_names_the_command() -> None:
    """Most works without; what to ask the administrator for stands there to be copied."""
    # Not tmp_path, which another user may not enter.
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), installed=installed(*BASE[:-1]), apt="exit 1")

        done = machine.prepare(user=NOBODY if os.geteuid() == 0 else None)

        assert done.returncode == 0
        assert "apt-get install libsystemd-dev\n" in done.stderr
        assert machine.asked() == []


def test_in_ci_a_skip_is_a_failure(tmp_path: Path) -> None:
    """A test skipped for want of a program promises what nobody checks."""
    shutil.copy(REPO / "tests/conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_fine(): pass\n"
        "def test_skips(): pytest.skip('no nginx')\n"
        "@pytest.mark.skipif(True, reason='no root')\n"
        "def test_marked(): pass\n"
        "@pytest.mark.xfail(strict=True)\n"
        "def test_known(): assert False\n"
    )
    (tmp_path / "test_file.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")

    def run(no_skips: str) -> str:
        environment = {**os.environ, "AGENTD_NO_SKIPS": no_skips, "PYTEST_ADDOPTS": ""}
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
        return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    assert "1 passed, 3 skipped, 1 xfailed" in run("")
    strict = run("1")
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in strict
    assert "no nginx" in strict


def test_ci_runs_what_people_run() -> None:
    """A second list of steps would soon be a different one."""
    script = (REPO / ".ci/run").read_text()

    assert os.access(REPO / ".ci/run", os.X_OK)
    assert os.access(UNITS / "prepare", os.X_OK)
    assert re.search(r"^make .*\btest\b", script, re.MULTILINE)
    assert "AGENTD_NO_SKIPS=1" in script


def test_the_socket_unit_names_its_descriptors() -> None:
    """The daemon finds the API's sockets by this name."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNITS / "agentd.socket")

    assert unit["Socket"]["FileDescriptorName"] == "api"
