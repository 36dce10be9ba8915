"""
A syslog that nobody wrote, the same each time, and the patterns that find a few of its lines.

In: a size in bytes and how many patterns. Out: a file of lines as sshd, cron, kernel, nginx, postfix and systemd write
them, and each pattern in the spelling of whoever looks for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

SEED = 20260105
HITS_EACH = 10_000
"""One line in so many is what some pattern looks for."""

# {ip}, {word} and {n} stand for what varies; in a pattern they are groups.
_WANTED = (
    "Failed password for invalid user {word} from {ip} port {n} ssh2",
    "Failed password for root from {ip} port {n} ssh2",
    "Received disconnect from {ip} port {n}:11: Bye Bye",
    "Out of memory: Killed process {n} ({word}) total-vm",
    "EXT4-fs error (device {word}): ext4_lookup:{n}",
    "limiting requests, excess: {n} by zone, client: {ip}",
    "upstream timed out while connecting to upstream, client: {ip}",
    "NOQUEUE: reject: RCPT from unknown[{ip}]: 554",
    "SASL LOGIN authentication failed: {word}, client {ip}",
    "segfault at {n} ip {word} sp",
)
_USUAL = (
    "sshd[{n}]: Accepted publickey for {word} from {ip} port {n} ssh2: ED25519 SHA256:{word}{word}",
    "sshd[{n}]: pam_unix(sshd:session): session opened for user {word}(uid={n}) by (uid=0)",
    "sshd[{n}]: Connection closed by authenticating user {word} {ip} port {n} [preauth]",
    "CRON[{n}]: (root) CMD (test -x /usr/sbin/{word} && /usr/sbin/{word} --quiet)",
    "kernel: [{n}.{n}] IPv4: martian source {ip} from {ip}, on dev eth0",
    "kernel: [{n}.{n}] nf_conntrack: table full, dropping packet on {word}",
    'nginx: {ip} - - "GET /{word}/{n}?q={word} HTTP/1.1" 200 {n} "-" "Mozilla/5.0 (X11; Linux x86_64)"',
    "postfix/smtpd[{n}]: connect from {word}.example.net[{ip}]",
    "postfix/qmgr[{n}]: {word}{n}: from=<{word}@example.org>, size={n}, nrcpt=1 (queue active)",
    "systemd[1]: Started {word}.service - {word} cleanup job.",
    "dhclient[{n}]: DHCPREQUEST for {ip} on eth0 to {ip} port 67",
    "rsyslogd: action 'action-{n}-builtin:omfwd' resumed (module 'builtin:omfwd')",
)


def wanted(number: int) -> str:
    """Line number n of those that are looked for; the first ten are what people look for, the rest their likes."""
    text = _WANTED[number % len(_WANTED)]
    return text if number < len(_WANTED) else f"unit{number // len(_WANTED)}: {text}"


def patterns(count: int, spelling: str) -> list[str]:
    """spelling: re2 (named groups), extended (grep, ripgrep), fail2ban (with its <HOST>)."""
    varying = {
        "re2": {"ip": r"(?P<ip>\S+)", "word": r"(?P<word>\S+)", "n": r"(?P<n>\d+)"},
        "extended": {"ip": r"[^ ]+", "word": r"[^ ]+", "n": r"[0-9]+"},
        "fail2ban": {"ip": "<HOST>", "word": r"\S+", "n": r"\d+"},
    }[spelling]
    found = []
    for number in range(count):
        text = wanted(number)
        for sign in "()[]":
            text = text.replace(sign, "\\" + sign)
        for name, pattern in varying.items():
            text = text.replace(f"{{{name}}}", pattern, 1)
        if spelling == "fail2ban" and "<HOST>" not in text:
            text += ".*<HOST>"  # it takes no rule without
        found.append(text)
    return found


def write(path: Path, size: int) -> int:
    """Write about `size` bytes of whole lines; returns how many lines are looked for by 100 patterns."""
    hits = 0
    with path.open("wb", buffering=1 << 20) as file:
        written = 0
        for number, line in enumerate(lines()):
            if number % HITS_EACH == HITS_EACH // 2:
                hits += 1
            file.write(line)
            written += len(line)
            if written >= size:
                return hits
    raise AssertionError("lines never end")


def write_days(path: Path, day: Path, size: int) -> None:
    """Write about `size` bytes: the file `day`, that `write` made, day after day."""
    text = day.read_bytes()
    with path.open("wb") as file:
        for number in range(max(1, round(size / len(text)))):
            file.write((b"\n" + text).replace(b"\nJan  5 ", f"\nJan {5 + number:2d} ".encode())[1:])


def lines() -> Iterator[bytes]:
    """All the lines, without end."""
    chance = random.Random(SEED)
    words = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(3, 9))) for _ in range(3000)]
    number = 0
    while True:
        seconds = number // 400
        stamp = f"Jan {5 + seconds // 86400:2d} {seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
        if number % HITS_EACH == HITS_EACH // 2:
            text = "app: " + wanted(number // HITS_EACH % 100)
        else:
            text = _USUAL[chance.randrange(len(_USUAL))]
        for name in ("ip", "word", "n"):
            while (sign := f"{{{name}}}") in text:
                text = text.replace(sign, _varying(name, words, chance), 1)
        yield f"{stamp} web-{number % 7} {text}\n".encode()
        number += 1


def _varying(name: str, words: list[str], chance: random.Random) -> str:
    if name == "word":
        return words[chance.randrange(3000)]
    if name == "ip":
        bits = chance.getrandbits(16)
        return f"10.{bits & 7}.{bits >> 8}.{bits & 255}"
    return str(chance.randrange(65536))
