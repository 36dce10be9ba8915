"""Hooks over the wire: where they may come in, how much is read, and what is answered."""

from __future__ import annotations

import pytest
from test_api import Doors, doors

from agentd.api.hook import MAX_BODY_BYTES
from agentd.api.service import Conflict, Forbidden, NotFound, TooMany

__all__ = ["doors"]

URL = "/api/v1/hooks/deploy"


async def test_a_hook_may_be_called_over_tcp_and_is_not_trusted_there(doors: Doors) -> None:
    """Senders are on other machines; what they may do is for their secret to say."""
    answer = await doors.tcp.post(URL, content=b"hello", headers={"Authorization": "Bearer x"})
    local = await doors.local.post(URL, content=b"hello")

    assert (answer.status_code, answer.json()) == (202, {"accepted": True, "started": ["shop"]})
    assert local.status_code == 202
    assert doors.service.asked == [
        ("hook", "deploy", "Bearer x", b"hello", False),
        ("hook", "deploy", None, b"hello", True),
    ]


async def test_a_message_taken_before_is_answered_as_done(doors: Doors) -> None:
    """2xx, or the sender would come again for days; but it says that nothing was started."""
    answer = await doors.tcp.post(URL, content=b"again")

    assert (answer.status_code, answer.json()["accepted"]) == (200, False)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("no hook"), 404),
        (Forbidden("no"), 403),
        (Conflict("replayed"), 409),
        (TooMany("slowly", retry_after_s=7), 429),
    ],
)
async def test_a_caller_is_told_why_not(doors: Doors, error: Exception, status: int) -> None:
    doors.service.fails = error

    answer = await doors.tcp.post(URL)

    assert (answer.status_code, answer.json()["detail"]) == (status, str(error))
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


async def test_a_body_may_be_a_quarter_of_a_megabyte(doors: Doors) -> None:
    """Alertmanager's groups are large; more is cut off while it comes in."""
    assert (await doors.tcp.post(URL, content=b"x" * MAX_BODY_BYTES)).status_code == 202
    assert (await doors.tcp.post(URL, content=b"x" * (MAX_BODY_BYTES + 1))).status_code == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_hook_is_only_posted_to(doors: Doors, method: str) -> None:
    assert (await doors.tcp.request(method, URL)).status_code == 405


@pytest.mark.parametrize("path", ["/api/v1/hooks", "/api/v1/hooks/", "/api/v1/hooks/../reload", "/api/v1/hooksx"])
async def test_there_is_no_way_round(doors: Doors, path: str) -> None:
    assert (await doors.tcp.post(path)).status_code in (401, 404, 405)
    assert doors.service.asked == []
