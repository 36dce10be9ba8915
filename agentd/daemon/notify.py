"""
Talk to the service manager: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3).

In: what systemd put into the environment. Out: datagrams to $NOTIFY_SOCKET, and the sockets it passed to us.
Promise: nothing here blocks for long or raises; with no service manager every call does nothing and says so.

The protocol is a line of text in a datagram, documented as stable, so we speak it ourselves: systemd-python's `notify`
reads the environment at each call, which is then inherited by every child, and it may block.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import stat
import time
from collections.abc import MutableMapping

log = logging.getLogger("agentd.daemon")

_FIRST_FD = 3
_LONGEST_STATUS = 1000
_SEND_TIMEOUT_S = 0.04
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_OURS = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
)


class ServiceManager:
    """
    What we tell systemd about ourselves.

    Reads the environment once, when made; call `strip_environment` after it. Each method returns whether the datagram
    was handed over; False also where there is no service manager.
    """

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        values = os.environ if environment is None else environment
        self.watchdog_s = watchdog_interval_s(values)
        self._address = _address(values.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._status = ""
        self._alarm: str | None = None

    @property
    def present(self) -> bool:
        """True under a service manager that wants to be told."""
        return self._address is not None

    def ready(self, status: str) -> bool:
        """Started, or done with reloading."""
        self._status = status
        return self._send(f"READY=1\nSTATUS={self._shown()}", urgent=True)

    def status(self, text: str) -> bool:
        """One line for `systemctl status`; control characters are taken out, and it is cut at 1,000 characters."""
        self._status = text
        return self._send(f"STATUS={self._shown()}")

    def alarm(self, text: str | None) -> bool:
        """Put `text` before the status until called with None: the usual must not paint over what is wrong."""
        self._alarm = text
        return self._send(f"STATUS={self._shown()}", urgent=text is not None)

    def reloading(self) -> bool:
        """Reading the configuration anew; `ready` must follow."""
        # Monotonic, or systemd cannot tell this reload from an earlier one (sd_notify(3), RELOADING=1).
        return self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}", urgent=True)

    def stopping(self, status: str) -> bool:
        self._status = status
        return self._send(f"STOPPING=1\nSTATUS={self._shown()}", urgent=True)

    def ping(self) -> bool:
        """Alive; see `watchdog.py` for who may say so."""
        return self._send("WATCHDOG=1")

    def extend(self, seconds: float) -> bool:
        """Starting, reloading or stopping takes at least `seconds` more from now on."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", urgent=True)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _shown(self) -> str:
        text = f"{self._alarm} | {self._status}" if self._alarm else self._status
        # A newline in a name out of the configuration would otherwise be an assignment of its own, such as MAINPID=1.
        return _CONTROL.sub(" ", text)[:_LONGEST_STATUS]

    def _send(self, message: str, *, urgent: bool = False) -> bool:
        """urgent: wait up to 40 ms for room in the manager's queue; other messages are repeated soon anyway."""
        if self._address is None:
            return False
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.settimeout(_SEND_TIMEOUT_S if urgent else 0)
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError as error:
            log.debug("notify_failed", extra={"error": str(error), "what": message.partition("=")[0]})
            return False
        return True


def listen_fds(environment: MutableMapping[str, str] | None = None) -> dict[str, list[socket.socket]]:
    """
    The sockets that the service manager opened for us, by FileDescriptorName=; all of a `.socket` unit share one name.

    Empty when there are none or they are meant for another process. The variables are taken out of the environment,
    and the sockets are not inherited by children. What is no socket is closed.
    """
    values = os.environ if environment is None else environment
    pid, count, names = (values.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    # sd_listen_fds_with_names(3): names are separated by colons, and may be fewer than the descriptors.
    labels = names.split(":") if names else []
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        fd = _FIRST_FD + index
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.close(fd)
                continue
            os.set_inheritable(fd, False)
            passed = socket.socket(fileno=fd)
        except OSError as error:
            log.warning("passed_fd_unusable", extra={"fd": fd, "error": str(error)})
            continue
        passed.setblocking(False)
        found.setdefault(labels[index] if index < len(labels) else "unknown", []).append(passed)
    return found


def watchdog_interval_s(environment: MutableMapping[str, str] | None = None) -> float | None:
    """How long we may be silent, in seconds; None when nobody watches us."""
    values = os.environ if environment is None else environment
    usec = values.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or int(usec) == 0:
        return None
    if values.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / 1e6


def strip_environment(environment: MutableMapping[str, str] | None = None) -> None:
    """Take out what is meant for us alone: a command that inherits NOTIFY_SOCKET could feed our watchdog."""
    values = os.environ if environment is None else environment
    for name in _OURS:
        values.pop(name, None)


def _address(text: str) -> str | None:
    if text.startswith("@"):
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    if text:
        log.warning("notify_socket_unusable", extra={"address": text[:100]})
    return None
