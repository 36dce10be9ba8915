"""
An attack on sshd, as auth.log tells of it: one alert for each address, and a botnet costs no memory.

A botnet of a million takes half a minute; AGENTD_TEST_ADDRESSES makes it another size.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from log_files import LogFile, numbers, watch
from stage import Daemon, Stage

BRUTE_FORCE = {
    "name": "bruteforce",
    "type": "frequency",
    "match": r"Failed password for .* from (?P<ip>\S+)",
    "count": 5,
    "within": "10m",
    "by": ["ip"],
    "resolve_after": "2s",
    "severity": "critical",
}
ADDRESSES = int(os.environ.get("AGENTD_TEST_ADDRESSES", "1000000"))
MOST_GROWN = 16 * 2**20


def as_rsyslog(at: datetime) -> str:
    """RFC 3164, as Debian wrote it until 12."""
    return f"{at:%b} {at.day:2d} {at:%H:%M:%S}"


def as_iso(at: datetime) -> str:
    """As Debian writes it since."""
    return at.isoformat(timespec="microseconds")


def attempt(stamp: str, ip: str, chance: random.Random, user: str = "root") -> list[str]:
    """The lines that one failed login leaves."""
    pid, port = chance.randrange(1000, 99999), chance.randrange(1024, 65535)
    sshd = f"{stamp} web-1 sshd[{pid}]:"
    known = user in ("root", "backup")
    return [
        *([] if known else [f"{sshd} Invalid user {user} from {ip} port {port}"]),
        f"{sshd} pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}"
        + (f"  user={user}" if known else ""),
        f"{sshd} Failed password for {'' if known else 'invalid user '}{user} from {ip} port {port} ssh2",
        f"{sshd} Connection closed by authenticating user {user} {ip} port {port} [preauth]",
    ]


def peace(stamp: str, chance: random.Random) -> str:
    """A line of the everyday."""
    pid = chance.randrange(1000, 99999)
    return stamp + chance.choice(
        [
            f" web-1 CRON[{pid}]: pam_unix(cron:session): session opened for user root(uid=0) by (uid=0)",
            f" web-1 CRON[{pid}]: pam_unix(cron:session): session closed for user root",
            f" web-1 sshd[{pid}]: Accepted publickey for deploy from 198.51.100.7 port 50022 ssh2: ED25519 SHA256:x",
            " web-1 sudo:   deploy : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/systemctl status nginx",
            f" web-1 sshd[{pid}]: Disconnected from user deploy 198.51.100.7 port 50022",
        ]
    )


@pytest.mark.parametrize("stamp", [as_rsyslog, as_iso])
async def test_brute_force_is_one_alert_for_each_address_and_over_by_itself(
    tmp_path: Path, stamp: Callable[[datetime], str]
) -> None:
    """The first rule that anybody writes."""
    chance = random.Random(1)
    log = LogFile(tmp_path / "auth.log")
    async with Stage(tmp_path) as stage:
        stage.configure([watch(log.path, BRUTE_FORCE, name="ssh", log={"format": "syslog", "start_at": "end"})])
        log.write(*(line for _ in range(9) for line in attempt(stamp(datetime.now(UTC)), "192.0.2.99", chance)))
        daemon = await stage.start()
        await followed(stage, daemon)
        story = ["203.0.113.1", "203.0.113.2", "2001:db8::bad", "192.0.2.50"] * 4
        story += ["203.0.113.2", "203.0.113.1", *["203.0.113.2"] * 20, "2001:db8::bad"]
        for number, ip in enumerate(story):
            now = stamp(datetime.now(UTC))
            user = chance.choice(["root", "backup", "admin", "from 192.0.2.1", "oracle"])
            log.write(peace(now, chance), *attempt(now, ip, chance, user), peace(now, chance))
            if number == 10:
                await stage.api("GET", "/health")

        resolved = await stage.hook.message("alert.resolved", nth=3)
        firing = stage.hook.messages("alert.firing")
        assert sorted(each["data"]["labels"]["ip"] for each in firing) == [
            "2001:db8::bad",
            "203.0.113.1",
            "203.0.113.2",
        ]
        for each in firing:
            data = each["data"]
            assert data["severity"] == "critical"
            assert data["values"]["ip"] == data["labels"]["ip"]
            lines = [evidence["line"] for evidence in data["evidence"]]
            assert len(lines) >= 5
            assert all("Failed password" in line and f"from {data['labels']['ip']} port" in line for line in lines)
            whole = log.path.read_bytes()
            for evidence in data["evidence"]:
                assert whole[evidence["offset"] :].startswith(evidence["line"].encode() + b"\n")
        over = {each["data"]["labels"]["ip"]: each["data"] for each in stage.hook.messages("alert.resolved")}
        assert over.keys() == {each["data"]["labels"]["ip"] for each in firing}
        assert {each["reason"] for each in over.values()} == {"quiet"}
        assert resolved["data"]["ended_at"] > resolved["data"]["started_at"]
        told = [(each["type"], each["data"]["fingerprint"]) for each in stage.hook.messages()]
        for each in firing:
            name = each["data"]["fingerprint"]
            assert told.index(("alert.firing", name)) < told.index(("alert.resolved", name))
        assert len(told) == 6
        assert await stage.alerts() == [], "nothing is kept of addresses that are gone"


async def followed(stage: Stage, daemon: Daemon) -> None:
    """Wait until the log was looked at for the first time."""
    async with asyncio.timeout(20):
        while not await numbers(stage, "ssh"):
            assert daemon.alive, daemon.tail()
            await asyncio.sleep(0.02)


def botnet(count: int) -> Iterator[bytes]:
    """One attempt of each of so many addresses, some thousand lines at a time."""
    stamp = as_rsyslog(datetime.now(UTC))
    for begin in range(0, count, 10_000):
        yield b"".join(
            b"%s web-1 sshd[%d]: Failed password for root from %d.%d.%d.%d port 40022 ssh2\n"
            % (stamp.encode(), 1000 + n % 60000, 1 + (n >> 24), n >> 16 & 255, n >> 8 & 255, n & 255)
            for n in range(begin, min(count, begin + 10_000))
        )


@pytest.mark.slow
@pytest.mark.timeout(60 + ADDRESSES // 2000)
async def test_a_botnet_of_any_size_costs_no_memory_and_holds_up_nobody(tmp_path: Path) -> None:
    """
    Whoever has a botnet would like to push the monitor out of memory, or keep it from answering.

    After the first 50,000 addresses, when every table is full, the daemon may grow by no more than MOST_GROWN.
    """
    log = LogFile(tmp_path / "auth.log")
    async with Stage(tmp_path) as stage:
        stage.configure([watch(log.path, BRUTE_FORCE, name="ssh", log={"format": "syslog"})])
        daemon = await stage.start()
        batches = botnet(ADDRESSES)
        for _ in range(5):
            log.raw(next(batches))
        lags: list[float] = []
        highest = await read_all(stage, daemon, 50_000, lags)
        before = daemon.resident_bytes()

        began = time.monotonic()
        lags.clear()
        for batch in batches:
            log.raw(batch)
        highest = await read_all(stage, daemon, ADDRESSES, lags)
        took_s = time.monotonic() - began
        shown = await numbers(stage, "ssh")
        lags.sort()
        print(
            f"\n{ADDRESSES} addresses, {log.path.stat().st_size / 1e6:.0f} MB in {took_s:.1f} s;",
            f"RSS {before / 2**20:.0f} MiB, at most {(highest - before) / 2**20:+.1f}; {shown};",
            f"/health in {statistics.median(lags) * 1000:.1f} ms, p99 {lags[int(len(lags) * 0.99)] * 1000:.1f} ms,",
            f"longest {lags[-1] * 1000:.0f} ms of {len(lags)}",
        )
        assert shown["evicted"] >= ADDRESSES - 10_000
        assert highest - before < MOST_GROWN
        assert statistics.median(lags) < 0.1
        assert stage.hook.messages() == []
        log.write(*(line.decode() for line in next(botnet(1)).splitlines() * 5))
        firing = await stage.hook.message("alert.firing")
        assert firing["data"]["labels"]["ip"] == "1.0.0.0"


async def read_all(stage: Stage, daemon: Daemon, lines: int, lags: list[float]) -> int:
    """Ask for the health all the while; returns the most memory that was seen."""
    highest = 0
    transport = httpx.AsyncHTTPTransport(uds=str(stage.folder / "api.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://agentd", timeout=20) as client:
        async with asyncio.timeout(50 + ADDRESSES / 2000):
            while True:
                for _ in range(10):
                    asked = time.monotonic()
                    assert (await client.get("/health")).status_code == 200
                    lags.append(time.monotonic() - asked)
                    highest = max(highest, daemon.resident_bytes())
                    await asyncio.sleep(0.01)
                if (await numbers(stage, "ssh")).get("lines", 0) >= lines:
                    return highest
