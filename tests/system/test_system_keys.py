"""Keys of the installed service: root makes them, the daemon, another user, reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from installed import Service, machine
from loopback import free_port
from systemd_box import Box, needs_box

pytestmark = needs_box


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with machine() as box:
        yield box


@pytest.fixture
async def service(box: Box) -> AsyncIterator[Service]:
    async with Service(box) as service:
        yield service


async def test_a_key_that_root_makes_is_known_at_once_and_revoked_at_once(service: Service) -> None:
    """A file that the daemon may not read would make its next start fail."""
    port = free_port()
    await service.configure([], api={"listen": ["unix:/run/agentd/api.sock", f"127.0.0.1:{port}"]})
    await service.start()

    async def asked(token: str) -> int:
        async with httpx.AsyncClient(timeout=30) as client:
            headers = {"Authorization": f"Bearer {token}"}
            return (await client.get(f"http://127.0.0.1:{port}/api/v1/runs", headers=headers)).status_code

    token = (await service.sh("agentd key new ops")).strip()
    assert await service.sh("stat -c '%a %U %G' /etc/agentd/keys.d /etc/agentd/keys.d/ops.yaml") == (
        "750 root agentd\n640 root agentd"
    )
    assert await asked(token) == 200
    await service.sh("systemctl restart agentd")
    assert await asked(token) == 200

    await service.sh("agentd key revoke ops")

    assert await asked(token) == 401


async def test_manual_pages_and_completions_are_where_debian_looks(service: Service) -> None:
    """What is installed elsewhere is found by nobody."""
    found = await service.sh("find /usr/local/share -name '*agentd*' -size +0 | sort")

    assert found.split("\n") == [
        "/usr/local/share/bash-completion/completions/agentd",
        "/usr/local/share/fish/vendor_completions.d/agentd.fish",
        "/usr/local/share/man/man5/agentd.yaml.5",
        "/usr/local/share/man/man8/agentd.8",
        "/usr/local/share/zsh/site-functions/_agentd",
    ]
