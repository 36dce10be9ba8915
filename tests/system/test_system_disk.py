"""The disk under the store fills up: what counts goes on, and says so."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stage import Stage

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small file system"),
]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "agentd-test", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def suppress_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


def fill(path: Path) -> None:
    """Take every byte that there is."""
    with path.open("ab", buffering=0) as file:
        for size in (2**20, 4096, 1):
            block = bytes(size)
            with suppress_full():
                while True:
                    file.write(block)


async def test_alerts_go_out_on_a_full_disk_and_it_is_an_alert_itself(tmp_path: Path) -> None:
    """The day the disk is full is the day on which things fail: the worst day for a monitor to stop."""
    with small_disk(tmp_path / "disk", "40m") as disk:
        async with Stage(tmp_path) as stage:
            target = await stage.target()
            stage.state_dir = disk / "state"
            stage.configure([{"name": "shop", "http": {"url": target.url}}])
            daemon = await stage.start(WATCHDOG_USEC="2000000")
            await target.looked_at()

            fill(disk / "rubbish")
            await daemon.logged("disk_full")
            pings = sum("WATCHDOG" in note for note in daemon.notes)
            target.status = 503
            firing = await stage.hook.message("alert.firing", watch="shop")
            target.status = 200
            resolved = await stage.hook.message("alert.resolved", watch="shop")
            assert firing["data"]["fingerprint"] == resolved["data"]["fingerprint"]
            own = await stage.hook.message("alert.firing", watch="agentd", within_s=40)
            assert own["data"]["rule"] == "disk_full"
            fill(disk / "rubbish")  # the ballast that was given up, too
            await target.looked_at(10)
            assert sum("WATCHDOG" in note for note in daemon.notes) >= pings + 2, "the watchdog is fed"
            assert (await stage.api("GET", "/health")).status_code == 200
            assert (await stage.api("GET", "/api/v1/status")).json()["store"]["full"] is True

            (disk / "rubbish").unlink()
            await daemon.logged("disk_has_room", within_s=30)
            over = await stage.hook.message("alert.resolved", watch="agentd", within_s=40)
            assert over["data"]["fingerprint"] == own["data"]["fingerprint"]
            target.status = 503
            await stage.hook.message("alert.firing", watch="shop", nth=2)
            assert await daemon.stop() == 0
        assert len({request.id for request in stage.hook.taken}) == len(stage.hook.taken), "each was sent once"
