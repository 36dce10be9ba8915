"""The surface while nobody has asked yet, and when somebody does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from agentd.api import app
from agentd.api.door import Door
from agentd.api.parts import Parts
from agentd.api.server import make_servers, open_socket
from agentd.api.service import Service
from agentd.config.service import ApiSettings


async def test_the_surface_is_made_with_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is four MiB; and what failed once, such as for want of files, must not fail for ever."""
    made: list[bool] = []
    real = app.make_app

    def make_app(parts: Parts, door: Door, *, local: bool) -> Any:
        made.append(local)
        if len(made) == 1:
            raise OSError(24, "too many open files")
        return real(parts, door, local=local)

    monkeypatch.setattr(app, "make_app", make_app)
    path = tmp_path / "api.sock"
    service = cast(Service, SimpleNamespace(state=lambda: "running", status=None, watches=None))
    door = Door(ApiSettings(), names=(), own_uid=os.geteuid())
    (server,) = make_servers(Parts(service), [open_socket(f"unix:{path}")], door)
    await server.start()
    try:
        assert made == []
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, base_url="http://agentd") as http:
            assert (await http.get("/health")).status_code == 500
            answers = await asyncio.gather(*(http.get("/health") for _ in range(5)))
    finally:
        await server.stop()

    assert [each.status_code for each in answers] == [200] * 5
    assert made == [True, True]
