"""What pages cost, however they are asked for, and that nobody is given what was made for another."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from pagestage import CSRF, NEAR, READER, Seen, Stage

from agentd.api.caller import NOBODY
from agentd.api.web.frame import MOST_OF_STRANGERS, MOST_OF_UNKNOWN
from agentd.api.web.rendering import Renderer


class Held:
    """Holds every rendering until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        render = Renderer.render

        async def held(renderer: Renderer, *args: Any, **kwargs: Any) -> bytes:
            self.begun += 1
            await self.go.wait()
            return await render(renderer, *args, **kwargs)

        monkeypatch.setattr(Renderer, "render", held)


async def refused(tasks: set[asyncio.Task[httpx.Response]], many: int) -> set[asyncio.Task[httpx.Response]]:
    """The first so many to end."""
    done: set[asyncio.Task[httpx.Response]] = set()
    while len(done) < many:
        ended, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        done |= ended
    return done


async def test_the_public_page_is_made_once_whatever_is_asked_beside_it() -> None:
    """Whoever reaches the port would else have the daemon make a page for every number that can be thought of."""
    stage = Stage(NOBODY)
    for number in range(20):
        await stage.see(f"/status?x={number}&done=acked&n={number}&q={'y' * 2000}")

    assert stage.ports.publics == 1


async def test_what_a_page_does_not_read_makes_no_other_page() -> None:
    stage = Stage()
    first = await stage.see("/?q=shop&state=failing")
    second = await stage.see("/?x=1&state=failing&q=shop&y=2")

    assert stage.ports.overviews == 1
    assert first.html == second.html
    await stage.see("/?q=mail")
    assert stage.ports.overviews == 2


async def test_a_stranger_is_not_given_the_page_of_somebody_near() -> None:
    """That says which version runs here, and where else one may look."""
    stage = Stage()
    near = await stage.see("/status")
    stage.caller = NOBODY
    stranger = await stage.see("/status")

    assert "1.2.3" in near.text
    assert "1.2.3" not in stranger.text
    assert stage.ports.publics == 2


async def test_no_host_leads_to_the_page_of_another_address() -> None:
    """A Host header with a path in it makes an address of its own, under which others would find the wrong page."""
    stage = Stage()
    poisoned = await stage.client.get("/watches/mail", headers={"Host": "127.0.0.1/watches/shop#"})
    right = await stage.see("/watches/shop")

    assert re.search("<title>mail", poisoned.text)
    assert re.search("<title>shop", right.html)
    assert 'value="/watches/shop"' not in poisoned.text


async def test_pages_under_way_for_strangers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory and a thread, and who asks need not wait for it."""
    held, stage = Held(monkeypatch), Stage(NOBODY)
    asked = {asyncio.create_task(stage.get(f"/watches/{number}")) for number in range(MOST_OF_STRANGERS + 5)}

    for task in await refused(asked, 5):
        assert task.result().status_code == 503
        assert task.result().headers["Retry-After"] == "1"
        assert "come again" in Seen.of(task.result().text).text
    assert held.begun == MOST_OF_STRANGERS

    stage.caller = READER
    mine = asyncio.create_task(stage.get("/"))
    while held.begun == MOST_OF_STRANGERS:
        await asyncio.sleep(0)
    held.go.set()
    assert (await mine).status_code == 200
    assert (
        sorted(answer.status_code for answer in await asyncio.gather(*asked)) == [403] * MOST_OF_STRANGERS + [503] * 5
    )
    stage.caller = NOBODY
    assert (await stage.get("/watches/again")).status_code == 403


async def test_unknown_callers_leave_room_for_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    held, stage = Held(monkeypatch), Stage(NEAR)
    asked = {asyncio.create_task(stage.get(f"/?q={number}")) for number in range(MOST_OF_UNKNOWN + 1)}
    (over,) = await refused(asked, 1)

    stage.caller = READER
    mine = asyncio.create_task(stage.get("/"))
    while held.begun == MOST_OF_UNKNOWN:
        await asyncio.sleep(0)
    held.go.set()

    assert over.result().status_code == 503
    assert CSRF in (await mine).text
    assert sum(answer.status_code == 200 for answer in await asyncio.gather(*asked)) == MOST_OF_UNKNOWN
