"""
A real systemd-journald, alone, for tests of whoever reads the journal.

In: a folder. Out: journal files in it, written by journald from what `send` gives it; it can be killed, started again,
told to rotate, and its old files can be vacuumed away.
Promise: it sees nothing of this machine (a mount namespace of its own, no kernel messages) and dies with the test.
Needs root, for the namespace; `needs_journald` skips where there is none.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

_PROGRAM = Path("/lib/systemd/systemd-journald")
_TRIES = 500
_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")

Value = str | bytes


def missing() -> str | None:
    """Why no journald can be started here; None when it can."""
    if os.geteuid() != 0:
        return "journald alone needs root, for its namespace"
    if not _PROGRAM.exists():
        return f"{_PROGRAM} is not installed"
    wanted = [name for name in ("setpriv", "unshare", "nsenter", "journalctl") if shutil.which(name) is None]
    return f"{', '.join(wanted)}: not installed" if wanted else None


needs_journald = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Journald:
    """
    A journald whose files are in `folder`/<machine id>.

    conf: lines of journald.conf beside those that make it persistent, without limits of rate.
    """

    def __init__(self, folder: Path, conf: Iterable[str] = ()) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._conf = "\n".join(
            ["[Journal]", "Storage=persistent", "RateLimitIntervalSec=0", "ForwardToWall=no", "Audit=no", *conf]
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0
        self.start()

    def start(self) -> None:
        """Bring it up; a journald that was killed finds its files as they were left."""
        script = """
            set -e
            mount -t tmpfs -o mode=755 journald /run
            mkdir -p /run/systemd/journal /run/systemd/journald.conf.d
            touch /run/systemd/journal/flushed
            printf '%s\\n' "$CONF" >/run/systemd/journald.conf.d/test.conf
            mount --bind /dev/null /dev/kmsg
            mount -t tmpfs -o mode=755 journald /var/log
            mkdir /var/log/journal
            mount --bind "$FOLDER" /var/log/journal
            exec "$PROGRAM"
        """
        self._process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "--kill-child",
                "sh",
                "-c",
                script,
            ],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "CONF": self._conf,
                "FOLDER": str(self.folder),
                "PROGRAM": str(_PROGRAM),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for _ in range(_TRIES):
            assert self._process.poll() is None, "journald did not start"
            pids = children.read_text().split()
            if pids and self._answers(int(pids[0])):
                self.pid = int(pids[0])
                return
            time.sleep(0.01)
        raise AssertionError("journald did not come up")

    def _answers(self, pid: int) -> bool:
        try:
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            return False
        return program.endswith("/systemd-journald") and self._ctl(pid, "--sync").returncode == 0

    def _ctl(self, pid: int, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["nsenter", "-t", str(pid), "-m", "journalctl", *words], capture_output=True, check=False)

    def send(self, *messages: Value, **fields: Value) -> None:
        """One entry per message, each with these fields, by journald's native protocol."""
        for message in messages:
            self.entry([("MESSAGE", message), *fields.items()])

    def entry(self, fields: Mapping[str, Value] | Iterable[tuple[str, Value]]) -> None:
        """One entry of exactly these fields (a name may come twice); returns once journald has it in its queue."""
        pairs = fields.items() if isinstance(fields, Mapping) else fields
        datagram = b"".join(_spelled(name, value) for name, value in pairs)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(f"/proc/{self.pid}/root/run/systemd/journal/socket")
            try:
                sender.send(datagram)
            except OSError:  # too much for a datagram: handed over as a sealed file
                _send_file(sender, datagram)

    def sync(self) -> None:
        """Return when all that was sent stands in the files."""
        assert self._ctl(self.pid, "--sync").returncode == 0

    def rotate(self) -> None:
        """Archive the active files and begin new ones."""
        self.sync()
        assert self._ctl(self.pid, "--rotate").returncode == 0

    def vacuum(self, files: int = 1) -> None:
        """Delete archived files, the oldest first, until `files` files are left in all."""
        subprocess.run(
            ["journalctl", "-D", str(next(self.folder.iterdir())), f"--vacuum-files={files}"],
            capture_output=True,
            check=True,
        )

    def files(self) -> list[Path]:
        """The archived files, oldest first, then the active one."""
        found = [path for path in self.folder.rglob("*.journal*") if path.is_file()]
        return sorted(found, key=lambda path: (path.name == "system.journal", path.stat().st_mtime_ns))

    def kill(self) -> None:
        """As a crash does: its files stay as they are."""
        os.kill(self.pid, signal.SIGKILL)
        self._gone()

    def stop(self) -> None:
        """As systemd does. Twice is once."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        self._gone()

    def _gone(self) -> None:
        if self._process is not None:
            self._process.wait(20)
            self._process = None


def _spelled(name: str, value: Value) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    if b"\n" in data:
        return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def _send_file(sender: socket.socket, data: bytes) -> None:
    file = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
    try:
        with open(file, "wb", closefd=False) as written:
            written.write(data)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
        sender.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))])
    finally:
        os.close(file)
