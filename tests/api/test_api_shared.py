"""Work that is shared by all who wait for it."""

from __future__ import annotations

import asyncio

import pytest

from agentd.api.shared import Shared


async def test_who_asks_while_it_is_made_gets_what_is_made_next() -> None:
    """What was begun before somebody asked may say how things were before."""
    made: list[asyncio.Future[int]] = []

    async def make() -> int:
        made.append(asyncio.get_running_loop().create_future())
        return await made[-1]

    shared = Shared(make)
    first = asyncio.create_task(shared.newest())
    await asyncio.sleep(0)
    others = [asyncio.create_task(shared.newest()) for _ in range(5)]
    await asyncio.sleep(0)
    made[0].set_result(1)
    assert await first == 1
    await asyncio.sleep(0)
    made[1].set_result(2)

    assert await asyncio.gather(*others) == [2] * 5
    assert len(made) == 2
    assert shared._made is None


async def test_a_failure_is_told_to_each_and_shared_by_nobody() -> None:
    """The next one who waits tries it again; nobody is given what was left of an earlier time."""
    tries = 0

    async def make() -> int:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("not now")
        return tries

    shared = Shared(make)
    found = await asyncio.gather(*(shared.newest() for _ in range(3)), return_exceptions=True)

    assert [type(each) for each in found] == [OSError, OSError, int]


async def test_one_who_goes_away_takes_nobody_along() -> None:
    """A scraper that times out must not cost the others their numbers."""
    go = asyncio.Event()

    async def make() -> int:
        await go.wait()
        return 7

    shared = Shared(make)
    gone, stays = asyncio.create_task(shared.newest()), asyncio.create_task(shared.newest())
    await asyncio.sleep(0)
    gone.cancel()
    go.set()

    assert await stays == 7
    with pytest.raises(asyncio.CancelledError):
        await gone
