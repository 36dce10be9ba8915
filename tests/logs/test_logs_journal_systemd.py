"""The journal of a real systemd: its units, its ways to write, and a journald that is rotated and restarted."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from systemd_box import Box, needs_box

from agentd.logs.journal import Journal, open_journal
from agentd.logs.port import Batch
from agentd.logs.settings import JournalSource

pytestmark = needs_box

MIB = 1024 * 1024
LINES = 4000

JOURNALD = """\
[Journal]
Storage=persistent
RateLimitIntervalSec=0
SystemMaxUse=400M
"""
CONFIG = "/etc/systemd/journald.conf.d/test.conf"


def service(command: str) -> str:
    return f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart={command}\n"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def box(journal: Path) -> Iterator[Box]:
    files = {
        CONFIG: JOURNALD,
        "/etc/systemd/system/shop.service": service("/bin/sh -c 'echo selling; logger -t till paid'"),
        "/etc/systemd/system/shop-fails.service": service("/bin/sh -c 'echo no stock >&2; exit 3'"),
        "/etc/systemd/system/other.service": service("/bin/echo shop.service is mentioned"),
    }
    with Box(files=files, binds={journal: "/var/log/journal"}) as box:
        yield box


def opened(journal: Path, positions: dict[str, str], **settings: Any) -> Journal:
    source = JournalSource.model_validate({"start_at": "start"} | settings)
    return open_journal(source, positions=positions, now=lambda: datetime.now(UTC), monotonic=lambda: 0.0, path=journal)


def batches(source: Journal, most_bytes: int = MIB) -> Iterator[Batch]:
    while True:
        batch = source.read(most_bytes)
        assert batch.blind is None
        yield batch
        if not batch.more:
            return


def cursors(source: Journal) -> list[str]:
    return [cursor for batch in batches(source) for block in batch.blocks for cursor in block.cursors or ()]


def fields(source: Journal) -> list[dict[str, Any]]:
    return [dict(each) for batch in batches(source) for block in batch.blocks for each in block.fields or ()]


@pytest.mark.parametrize(
    ("settings", "as_journalctl"),
    [
        ({"units": ["shop.service"]}, "-u shop.service"),
        ({"units": ["shop", "shop-fails.service"]}, "-u shop.service -u shop-fails.service"),
        ({"units": ["shop*"]}, "-u shop.service -u shop-fails.service"),
        ({"units": ["shop-fails.service"], "priority": "warning"}, "-u shop-fails.service -p warning"),
        ({"units": ["system.slice"]}, "-u system.slice"),
        ({"match": {"_TRANSPORT": ["stdout", "syslog"]}, "boot": "all"}, "_TRANSPORT=stdout + _TRANSPORT=syslog"),
        ({"priority": "notice"}, "-p notice"),
    ],
)
async def test_the_same_entries_as_journalctl_shows(
    box: Box, journal: Path, settings: dict[str, Any], as_journalctl: str
) -> None:
    """That is what people compare with; what systemd says about a unit belongs to it, what others say does not."""
    box.run("systemctl start shop other; systemctl start shop-fails", check=False)
    box.run("journalctl --sync")
    shown = box.run(f"journalctl --output=json --all {as_journalctl}").splitlines()

    source = opened(journal, {}, **settings)
    found = cursors(source)

    assert found == [json.loads(line)["__CURSOR"] for line in shown]
    assert found
    await source.close()


async def test_an_entry_says_which_unit_it_is_about(box: Box, journal: Path) -> None:
    """Rules and people go by the unit, be it systemd that speaks of it."""
    box.run("systemctl start shop; systemctl start shop-fails", check=False)
    box.run("journalctl --sync")

    source = opened(journal, {}, units=["shop*"])
    found = fields(source)

    told = {(each["unit"], each["program"], each["transport"], each["message"]) for each in found}
    assert ("shop.service", "sh", "stdout", "selling") in told
    if "till" in box.run("journalctl -u shop.service"):
        # journald reads the unit of who speaks by syslog from its process, which may have ended by then.
        assert ("shop.service", "till", "syslog", "paid") in told
    assert ("shop-fails.service", "sh", "stdout", "no stock") in told
    assert ("shop-fails.service", "systemd", "journal", "shop-fails.service: Failed with result 'exit-code'.") in told
    assert {"shop.service", "shop-fails.service"} == {each["unit"] for each in found}
    await source.close()


async def test_every_entry_once_while_journald_rotates_and_restarts(box: Box, journal: Path) -> None:
    """What months bring, in seconds, with writers that go on meanwhile, and a reader that is restarted too."""
    lines = f"for i in $(seq 1 {LINES}); do echo number $i; [ $((i % 20)) != 0 ] || sleep 0.005; done"
    match = {"SYSLOG_IDENTIFIER": ["cat", "logger"]}
    positions: dict[str, str] = {}
    seen: list[tuple[str, str]] = []
    written: dict[str, str] = {}
    notes: list[str] = []
    source = opened(journal, positions, match=match)

    def read(most_bytes: int) -> None:
        for batch in batches(source, most_bytes):
            notes.extend(batch.notes)
            positions.update({stream: position for stream, position in batch.positions.items() if position})
            for block in batch.blocks:
                assert block.cursors is not None
                assert block.fields is not None
                seen.extend((c, each["message"]) for c, each in zip(block.cursors, block.fields, strict=True))

    def look_up_what_is_written() -> None:
        for name in ("cat", "logger"):
            shown = box.run(f"journalctl --output=json -t {name}").splitlines()
            written.update({entry["__CURSOR"]: entry["MESSAGE"] for entry in map(json.loads, shown)})

    happens = itertools.cycle(
        [
            "journalctl --rotate",
            "systemctl reset-failed systemd-journald; systemctl restart systemd-journald",
            "journalctl --sync; journalctl --rotate",
        ]
    )
    happenings, running = 0, True
    with box.start(f"{lines} | systemd-cat -t cat & {lines} | logger -t logger; wait") as writer:
        while running:
            running = writer.poll() is None
            box.run(next(happens))
            happenings += 1
            read(5_000)
            if happenings % 4 == 0:
                await source.close()
                source = opened(journal, positions, match=match)
            if happenings % 6 == 0:
                read(MIB)
                look_up_what_is_written()
                box.run("journalctl --vacuum-files=4")
    box.run("journalctl --sync")
    read(MIB)
    look_up_what_is_written()
    await source.close()

    assert happenings > 6
    assert len({cursor for cursor, _ in seen}) == len(seen)
    assert dict(seen) == written
    # A restart of journald may cut the stream that systemd-cat writes; datagrams wait for it.
    assert len(written) > LINES
    assert notes == []


def test_nothing_is_left_of_a_box(journal: Path) -> None:
    """Hundreds of them are made in a day."""
    with Box() as box:
        name = box.name
        assert box.run("systemctl is-system-running", check=False).strip() in ("running", "starting")
    box.close()

    assert not list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
    assert not list(Path("/var/tmp").glob(f"{name}*"))
    assert (
        subprocess.run(["pgrep", "-f", "--", f"--machine={name}"], stdout=subprocess.DEVNULL, check=False).returncode
        == 1
    )
