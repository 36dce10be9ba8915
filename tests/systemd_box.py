"""
A real systemd as the first process of a container that is thrown away: for what only a real one can show.

    with Box(files={"/etc/systemd/system/x.service": "…"}, binds={folder: "/var/log/journal"}) as box:
        box.run("systemctl start x")

In: files that it finds, folders of ours that it shares. Out: what commands in it say.
Promise: it sees this machine's programs (an overlay over `/`) but none of its services, configuration of systemd,
network or processes; nothing that it writes outside of `binds` stays; it dies with the test. It is up in half a second.

Why it looks as it does. The overlay's `/etc/systemd/system` and `/etc/rc?.d` are emptied, so that nothing installed
here starts. A mount and a pid namespace of its own around it, and the death signal of the parent, so that a
killed test leaves nothing but empty control groups; the signal follows the *thread* that made the box. One control
group for each box: with --keep-unit all would share one. nspawn mounts a /tmp of its own, and /root is closed to
other users: what a service is to run goes to a place that all may read, by `binds`.

Needs root; `needs_box` skips where one cannot be made.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pytest

_BOOT_S = 60.0
_GROUPS = Path("/sys/fs/cgroup")
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
_SCRIPT = """
    set -e
    mkdir -p /run/systemd/nspawn
    mount -t tmpfs box /run/systemd/nspawn
    mount -t tmpfs -o mode=755 box "$BASE"
    mkdir "$BASE/upper" "$BASE/work" "$BASE/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$BASE/upper,workdir=$BASE/work" "$BASE/root"
    cd "$BASE/root"
    rm -rf etc/systemd/system etc/rc?.d var/log/journal
    mkdir -p etc/systemd/system var/log/journal
    : >etc/fstab
    cp -a "$FILES/." .
    cd /
    for group in $GROUPS_OF_BOX; do echo $$ >"$group/cgroup.procs"; done
    exec systemd-nspawn --quiet --directory="$BASE/root" --machine="$NAME" --register=no --keep-unit \\
      --link-journal=no --notify-ready=yes --console=pipe "$@" --boot systemd.unit=basic.target systemd.show_status=0
"""
_count = itertools.count(1)


def missing() -> str | None:
    """Why no box can be made here; None when one can."""
    if os.geteuid() != 0:
        return "a box with a systemd needs root, for its namespaces"
    wanted = [name for name in ("systemd-nspawn", "setpriv", "unshare", "nsenter") if shutil.which(name) is None]
    if wanted:
        return f"{', '.join(wanted)}: not installed (systemd-container, util-linux)"
    return None if _group_roots() else "no control groups are mounted"


def _group_roots() -> list[Path]:
    """Where systemd keeps its control groups: hybrid machines have two trees for it, unified ones one."""
    if (_GROUPS / "cgroup.controllers").exists():
        return [_GROUPS]
    return [path for path in (_GROUPS / "systemd", _GROUPS / "unified") if (path / "cgroup.procs").exists()]


needs_box = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Box:
    """
    files: text by absolute path in the box, there before it boots. binds: folders of ours by where they appear in it;
    reads: the same, not to be written. network: it shares ours; otherwise it has a loopback of its own.
    """

    def __init__(
        self,
        *,
        files: Mapping[str, str] | None = None,
        binds: Mapping[Path, str] | None = None,
        reads: Mapping[Path, str] | None = None,
        network: bool = False,
    ) -> None:
        self.name = f"box-{os.getpid()}-{next(_count)}"
        self._groups = [root / self.name for root in _group_roots()]
        self._base = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir="/var/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        try:
            options = [f"--bind={ours}:{theirs}" for ours, theirs in (binds or {}).items()]
            options += [f"--bind-ro={ours}:{theirs}" for ours, theirs in (reads or {}).items()]
            self._boot(files or {}, [*options, *([] if network else ["--private-network"])])
        except BaseException:
            self.close()
            raise

    def _boot(self, files: Mapping[str, str], options: list[str]) -> None:
        for group in self._groups:
            group.mkdir()
        given = self._base / "given"
        for name, text in files.items():
            path = given / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        given.mkdir(exist_ok=True)
        root = self._base / "box"
        root.mkdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self._base / "log", "wb") as log:
            ready.bind(f"\0{self.name}")
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"),
                    *("--mount-proc", "sh", "-c", _SCRIPT, "box", *options),
                ],
                env=_ENVIRONMENT
                | {
                    "NOTIFY_SOCKET": f"@{self.name}",
                    "NAME": self.name,
                    "BASE": str(root),
                    "FILES": str(given),
                    "GROUPS_OF_BOX": " ".join(map(str, self._groups)),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            self._await_ready(ready)
        first = self._groups[0] / "payload" / "init.scope" / "cgroup.procs"
        self._pid = int(first.read_text().split()[0])

    def _await_ready(self, ready: socket.socket) -> None:
        assert self._process is not None
        ready.settimeout(0.5)
        deadline = time.monotonic() + _BOOT_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the box did not boot: {(self._base / 'log').read_text()}"
            with contextlib.suppress(TimeoutError):
                if "READY=1" in ready.recv(4096).decode().split("\n"):
                    return
        raise AssertionError(f"the box did not boot within {_BOOT_S:g} s: {(self._base / 'log').read_text()}")

    def path(self, name: str) -> Path:
        """Where we find what has this absolute path in the box."""
        return Path(f"/proc/{self._pid}/root{name}")

    def command(self, command: str) -> list[str]:
        """argv that runs a shell command in the box, for whoever wants to start it himself."""
        return ["nsenter", "-t", str(self._pid), "-a", "sh", "-c", f"cd /; {command}"]

    def run(self, command: str, *, check: bool = True, timeout_s: float = 60.0) -> str:
        """What a shell command in the box, run as root, says on standard output. Raises AssertionError if it fails."""
        done = subprocess.run(
            self.command(command), capture_output=True, text=True, timeout=timeout_s, env=_ENVIRONMENT, check=False
        )
        assert not check or done.returncode == 0, f"{command}: status {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """The same in the background; to be waited for by the caller."""
        return subprocess.Popen(
            self.command(command), env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def close(self) -> None:
        """Kill it and clean up. Twice is once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for _ in range(250):
            for group in self._groups:
                for folder, _, _ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)
            if not any(group.exists() for group in self._groups):
                break
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.rmdir(f"/run/systemd/nspawn/propagate/{self.name}")
        shutil.rmtree(self._base, ignore_errors=True)

    def __enter__(self) -> Box:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
