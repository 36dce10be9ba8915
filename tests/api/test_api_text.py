"""Odd text on its way in and out: what is no text is refused, and nothing that is stored breaks an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_api import SELF, Doors, doors

__all__ = ["doors"]

LONE = "team=\ud800"
SILENCE = {"matchers": ["team=web"], "for_s": 60}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("silences", SILENCE | {"matchers": [LONE]}),
        ("silences", SILENCE | {"reason": LONE}),
        ("silences", SILENCE | {"by": LONE}),
        ("alerts/ack", {"alerts": [LONE]}),
        ("alerts/ack", {"alerts": ["shop"], "comment": LONE}),
        ("watches/shop/pause", {"reason": LONE}),
        ("watches/shop/resume", {"by": LONE}),
        ("outbox/retry", {"webhook": LONE}),
        ("reload", {"more": [{LONE: {"deep": 1}}]}),
    ],
)
async def test_a_lone_surrogate_is_refused(doors: Doors, path: str, body: dict[str, Any]) -> None:
    """It is half a character: stored, it would come back with every answer until the silence ends."""
    for content in (json.dumps(body), json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")):
        answer = await doors.local.post(f"/api/v1/{path}", content=content)

        assert answer.status_code == 400
        assert "not JSON" in answer.json()["detail"]
    assert doors.service.asked == []


async def test_a_pair_of_surrogates_is_a_character(doors: Doors) -> None:
    """JSON may spell an emoji by two escapes (RFC 8259, 7)."""
    content = b'{"alerts": ["shop"], "comment": "\\ud83d\\ude00"}'

    assert (await doors.local.post("/api/v1/alerts/ack", content=content)).status_code == 200
    assert doors.service.asked == [("ack", ("shop",), SELF, "\U0001f600", False)]


async def test_what_people_wrote_is_one_line_without_control_characters(doors: Doors) -> None:
    """It is shown to others, with each alert."""
    said = "on\nit\x1b[2J\u202e \x00ü"
    for path, body in (
        ("alerts/ack", {"alerts": ["shop"], "comment": said, "by": said}),
        ("silences", SILENCE | {"reason": said, "by": said}),
        ("watches/shop/pause", {"reason": said, "by": said}),
    ):
        assert (await doors.local.post(f"/api/v1/{path}", json=body)).status_code == 200

    shown = "on it [2J   ü"
    (_, _, by, comment, _), (_, silence, author), (_, _, who, _, reason) = doors.service.asked
    assert {by, comment, silence.reason, author, who, reason} == {shown}


@pytest.mark.parametrize("rows", [1, 1000])
async def test_no_stored_text_breaks_an_answer(doors: Doors, rows: int) -> None:
    """A target or a log line may hold anything; whoever asks in the middle of it must be answered."""
    doors.service.text, doors.service.rows = "f\udcfcr\ud800", rows
    for path in ("status", "watches", "alerts"):
        answer = await doors.tcp.get(f"/api/v1/{path}")

        assert answer.status_code == 200
        assert "f?r?" in json.dumps(answer.json())


async def test_what_json_has_no_number_for_is_null(doors: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that a target made infinite must not take the whole list along."""
    for count in (1, 1000):
        rows = [{"name": "shop", "values": {"a": float("inf"), "b": [float("nan"), 1.5]}}] * count

        async def watches(rows: list[dict[str, Any]] = rows) -> list[dict[str, Any]]:
            return rows

        monkeypatch.setattr(doors.service, "watches", watches)
        answer = await doors.tcp.get("/api/v1/watches")

        assert answer.status_code == 200
        assert json.loads(answer.text)["watches"] == [{"name": "shop", "values": {"a": None, "b": [None, 1.5]}}] * count


@pytest.mark.parametrize("path", ["/api/v1/outbox/%ED%A0%80", "/api/v1/outbox?webhook=%ED%A0%80", "/api/v1/outbox/%FF"])
async def test_odd_bytes_in_a_path_or_a_query_are_text_by_then(doors: Doors, path: str) -> None:
    assert (await doors.local.get(path)).status_code == 200
    for part in doors.service.asked[0]:
        assert str(part).encode()
