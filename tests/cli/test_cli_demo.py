"""The demo on a terminal: after its story it stays, and says how to go on."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from loopback import free_port

DEMO = [sys.executable, "-m", "agentd", "demo"]


class Terminal:
    """What a program writes on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self.process = process
        self.text = ""
        self._end = end

    def wait_for(self, words: str) -> None:
        """Until they stand there; the test's own deadline ends it."""
        while words not in self.text:
            read = b""
            with contextlib.suppress(OSError):  # EIO: the program has ended
                read = os.read(self._end, 65536)
            assert read, f"it ended before {words!r}:\n{self.text}"
            self.text += read.decode().replace("\r", "")


@contextmanager
def on_a_terminal(*words: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            os.close(ours)


def test_the_demo_stays_with_an_alert_and_a_key_until_ctrl_c() -> None:
    """What it says next is what a newcomer types next: each address answers, the key lets in, commands reach it."""
    with on_a_terminal(*DEMO, "--port", str(free_port())) as terminal:
        terminal.wait_for("alert.resolved")
        terminal.wait_for("from another terminal")
        addresses = re.findall(r"^  (http://\S+)", terminal.text, re.MULTILINE)
        (token,) = re.findall(r"agentd_you\.\S+", terminal.text)
        (config,) = re.findall(r"agentd alerts -c (\S+)", terminal.text)
        answers = [httpx.get(address).status_code for address in addresses]
        header = {"Authorization": f"Bearer {token}"}
        paused = httpx.post(f"{addresses[0]}api/v1/watches/shop/pause", headers=header, json={})
        words = [sys.executable, "-m", "agentd", "audit", "-c", config]
        seen = subprocess.run(words, capture_output=True, text=True, timeout=60)

    assert answers == [200, 200, 200]
    assert paused.status_code == 200, paused.text
    assert "key you" in seen.stdout, seen.stderr
    assert terminal.process.returncode == 0
    assert not Path(config).exists()
