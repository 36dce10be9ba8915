"""
The processes that an agent host has started, and those that they have: found wherever they went, by a mark.

In: the mark, which the daemon gives each host in its environment and the host hands on to all that it starts.
Out: whoever carries it is killed. Promise: neither a session of its own nor the death of its parents hides a process,
and no other process is touched. What empties its environment escapes; only a control group could hold that.
"""

from __future__ import annotations

import hashlib
import os
import signal
import uuid
from pathlib import Path

MARK = "AGENTD_AGENT_HOST"
_ROUNDS = 5


def family_of(state_dir: Path) -> str:
    """What the marks of all hosts of the daemon on this `state_dir` begin with."""
    return hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:16] + ":"


def new_mark(family: str) -> str:
    return family + uuid.uuid4().hex


def mark() -> dict[str, str]:
    """Our own, for the environment of what we start; nothing in a process that has none."""
    return {MARK: os.environ[MARK]} if MARK in os.environ else {}


def kill_marked(beginning: str) -> int:
    """
    Kill whoever carries a mark that begins so, but for ourselves; returns how many were found. Blocks for some
    milliseconds. Where there is no /proc, nobody is found.
    """
    wanted = f"{MARK}={beginning}".encode()
    killed: set[int] = set()
    for _ in range(_ROUNDS):  # while we look, they may start others
        found = [pid for pid in _processes() if pid not in killed and _carries(pid, wanted)]
        for pid in found:
            _kill(pid, wanted)
        if not found:
            break
        killed.update(found)
    return len(killed)


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
    except OSError:
        return []


def _carries(pid: int, wanted: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return any(each.startswith(wanted) for each in file.read().split(b"\0"))
    except OSError:  # gone, or of another user, whom we could not kill either
        return False


def _kill(pid: int, wanted: bytes) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The number may have been given to another process since: the handle may not.
        if _carries(pid, wanted):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        pass
    finally:
        os.close(handle)
