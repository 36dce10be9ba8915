"""Pages that are kept for a moment."""

from __future__ import annotations

import asyncio

import pytest

from agentd.api.web.cache import FRESH_S, MOST_BYTES, MOST_PAGES, PageCache


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Maker:
    """Makes pages that are told apart by their number; `held`: not before somebody says so."""

    def __init__(self, size: int = 10) -> None:
        self.made = 0
        self.size = size
        self.go = asyncio.Event()
        self.go.set()
        self.fails = False

    async def __call__(self) -> bytes:
        self.made += 1
        number = self.made
        await self.go.wait()
        if self.fails:
            raise ValueError("no page")
        return str(number).encode().ljust(self.size)


async def test_a_page_is_made_once_while_it_is_fresh() -> None:
    clock, make = Clock(), Maker()
    cache: PageCache[bytes] = PageCache(len, clock)

    first = await cache.get("/", make)
    clock.now_s += FRESH_S / 2
    assert await cache.get("/", make) == first
    clock.now_s += FRESH_S
    assert await cache.get("/", make) != first
    assert make.made == 2


async def test_who_comes_while_it_is_made_waits_for_the_same_page() -> None:
    make = Maker()
    make.go.clear()
    cache: PageCache[bytes] = PageCache(len, Clock())

    asking = [asyncio.create_task(cache.get("/", make)) for _ in range(50)]
    await asyncio.sleep(0)
    make.go.set()

    assert len(set(await asyncio.gather(*asking))) == 1
    assert make.made == 1


async def test_who_goes_away_does_not_take_the_page_from_the_others() -> None:
    make = Maker()
    make.go.clear()
    cache: PageCache[bytes] = PageCache(len, Clock())
    gone = asyncio.create_task(cache.get("/", make))
    stays = asyncio.create_task(cache.get("/", make))
    await asyncio.sleep(0)

    gone.cancel()
    make.go.set()

    assert await stays
    assert gone.cancelled() or await asyncio.wait([gone])


async def test_after_a_change_nothing_from_before_is_given_out() -> None:
    """Not even what was under way: it may have read before the change."""
    clock, make = Clock(), Maker()
    cache: PageCache[bytes] = PageCache(len, clock)
    make.go.clear()
    old = asyncio.create_task(cache.get("/", make))
    await asyncio.sleep(0)

    cache.clear()
    make.go.set()
    first = await old
    new = await cache.get("/", make)

    assert new != first
    assert await cache.get("/", make) == new


async def test_it_is_bounded_in_pages_and_in_bytes() -> None:
    """Addresses are endless."""
    cache: PageCache[bytes] = PageCache(len, Clock())
    for number in range(3 * MOST_PAGES):
        await cache.get(number, Maker())
    assert len(cache) == MOST_PAGES

    for number in range(50):
        await cache.get(f"big {number}", Maker(MOST_BYTES // 8))
    assert cache.bytes <= MOST_BYTES

    await cache.get("huge", Maker(2 * MOST_BYTES))
    assert cache.bytes <= MOST_BYTES


async def test_what_is_old_is_let_go_of() -> None:
    clock = Clock()
    cache: PageCache[bytes] = PageCache(len, clock)
    for number in range(10):
        await cache.get(number, Maker())
    clock.now_s += 2 * FRESH_S

    await cache.get("new", Maker())

    assert len(cache) == 1
    assert cache.bytes == 10


async def test_an_error_is_told_to_all_and_not_kept() -> None:
    make = Maker()
    make.fails = True
    cache: PageCache[bytes] = PageCache(len, Clock())

    for _ in range(2):
        with pytest.raises(ValueError, match="no page"):
            await cache.get("/", make)
    make.fails = False

    assert await cache.get("/", make)
    assert make.made == 3
