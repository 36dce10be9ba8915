"""What a run does is told to whoever follows it, early or late, and costs no more than is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentd.daemon.runs import telling as module
from agentd.daemon.runs.telling import Lately, Telling


def told(count: int, size: int = 10) -> Telling:
    telling = Telling()
    for number in range(count):
        telling.tell({"event": "Update", "number": number}, size)
    return telling


async def heard(telling: Telling | None, after: int = 0) -> list[int]:
    assert telling is not None
    return [event["seq"] async for event in telling.follow(after)]


async def test_who_follows_hears_what_was_and_what_comes() -> None:
    """Each event once, whenever one came."""
    telling = told(2)
    early = asyncio.create_task(heard(telling))
    back = asyncio.create_task(heard(telling, after=1))
    await asyncio.sleep(0)
    telling.tell({"event": "Update"}, 10)
    telling.end()

    assert await early == [1, 2, 3]
    assert await back == [2, 3]


async def test_a_run_that_is_over_is_told_of_once_more() -> None:
    """A short one is over before anybody could ask; and a stream may break off just before its end."""
    lately = Lately()
    lately.add("a", told(3))

    assert await heard(lately.get("a")) == [1, 2, 3]
    assert await heard(lately.get("a"), after=2) == [3]
    assert lately.get("b") is None


async def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that does tasks all day keeps no more than in its first hour."""
    monkeypatch.setattr(module, "_MOST_OVER_BYTES", 100)
    lately = Lately()
    for name in "abc":
        lately.add(name, told(4))
    lately.add("c", told(4))

    assert [name for name in "abc" if lately.get(name)] == ["b", "c"]
    lately.add("large", told(50))
    assert [name for name in ("b", "c", "large") if lately.get(name)] == ["large"]
    assert await heard(lately.get("large")) == list(range(41, 51))


async def test_a_run_that_said_nothing_takes_the_place_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that were cancelled before they began come by the hundred."""
    monkeypatch.setattr(module, "_MOST_OVER", 1)
    lately = Lately()
    lately.add("a", told(1))
    lately.add("b", Telling())

    assert await heard(lately.get("a")) == [1]


async def test_who_does_not_read_misses_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes to the end all the same."""
    monkeypatch.setattr(module, "_MOST_UNREAD", 2)
    telling = Telling()
    following: Any = telling.follow(0)
    first = asyncio.create_task(anext(following))
    await asyncio.sleep(0)
    for number in range(5):
        telling.tell({"event": "Update", "number": number}, 10)
    telling.end()

    assert (await first)["seq"] == 1
    assert [event["seq"] async for event in following] == [2]


async def test_so_many_may_follow_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that opens again and again must not slow the run down."""
    monkeypatch.setattr(module, "_MOST_LISTENERS", 1)
    telling = told(1)
    following: Any = telling.follow(0)
    assert (await anext(following))["seq"] == 1

    assert await heard(telling) == []

    await following.aclose()
    telling.end()
    assert await heard(telling) == [1]
