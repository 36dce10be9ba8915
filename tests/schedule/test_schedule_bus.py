"""The event bus: what is started by what, how often, and what goes round in circles no more."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from agentd.schedule.bus import DEEPEST, MOST_FOR_ONE, Bus, Event, Line, Offer

AT = datetime(2026, 11, 21, tzinfo=UTC)


def event(name: str = "hook:x", payload: str = "null", chain: tuple[str, ...] = (), depth: int = 0) -> Event:
    return Event(name, AT, payload, chain, depth)


def take(line: Line) -> tuple[str, Event] | None:
    who = line.next()
    return None if who is None else (who, line.take(who))


# Deciding.


def test_an_event_starts_who_waits_for_it() -> None:
    line = Line()

    assert line.offer("a", event()) is Offer.STARTS
    assert take(line) == ("a", event())
    assert take(line) is None


def test_events_during_a_run_lead_to_one_run_more() -> None:
    """Twenty deploys while a check runs are one reason to look again, and none of them is forgotten in the count."""
    line = Line()
    line.offer("a", event())
    take(line)

    offers = [line.offer("a", event(payload=str(n))) for n in range(3)]

    assert offers == [Offer.STARTS, Offer.COALESCED, Offer.COALESCED]
    assert take(line) is None, "never beside itself"
    line.done("a")
    taken = take(line)
    assert taken is not None
    assert (taken[1].count, taken[1].data, [each.data for each in taken[1].earlier]) == (3, 2, [0, 1])
    line.done("a")
    assert take(line) is None


def test_an_event_that_a_watch_caused_does_not_start_it() -> None:
    """Two watches that start each other would never rest again."""
    line = Line()

    assert line.offer("a", event("alert:b", chain=("a", "b"), depth=2)) is Offer.CIRCULAR
    assert line.offer("c", event("alert:b", chain=("a", "b"), depth=2)) is Offer.STARTS


def test_all_that_led_to_a_joint_run_counts_as_its_cause() -> None:
    """Or a watch would come round by way of an event that was merged into another."""
    line = Line()
    line.offer("c", event("alert:a", chain=("a",), depth=1))
    line.offer("c", event("alert:b", chain=("b",), depth=1))

    taken = take(line)

    assert taken is not None
    assert (set(taken[1].chain), taken[1].depth) == ({"a", "b"}, 1)


def test_a_chain_has_an_end() -> None:
    """Fifty watches in a row, each started by the one before, are a mistake and not a plan."""
    line = Line()

    assert line.offer("z", event(depth=DEEPEST - 1)) is Offer.STARTS
    assert line.offer("z", event(depth=DEEPEST)) is Offer.TOO_DEEP


def test_one_watch_keeps_only_its_newest_events() -> None:
    line = Line()
    for n in range(100):
        line.offer("a", event(payload=str(n)))

    taken = take(line)

    assert taken is not None
    assert (taken[1].count, taken[1].data, len(taken[1].earlier)) == (100, 99, MOST_FOR_ONE - 1)
    assert len(line) == 0


def test_a_full_line_gives_up_the_oldest_of_the_same_watch() -> None:
    """A flood for one watch must not push out the events of others."""
    line = Line(most=6)
    line.offer("quiet", event(payload="1"))
    for n in range(10):
        line.offer("loud", event(payload=str(n)))

    assert len(line) == 6
    assert take(line) == ("quiet", event(payload="1"))
    taken = take(line)
    assert taken is not None
    assert (taken[1].count, [each.data for each in taken[1].earlier], taken[1].data) == (10, [5, 6, 7, 8], 9)


def test_a_full_line_has_room_for_a_watch_that_waits_for_nothing_yet() -> None:
    line = Line(most=4)
    for n in range(4):
        line.offer("loud", event(payload=str(n)))

    assert line.offer("late", event()) is Offer.STARTS
    assert len(line) == 4


def test_a_line_full_of_different_watches_refuses() -> None:
    """There is nothing to merge: the bound holds all the same."""
    line = Line(most=3)
    for who in "abc":
        assert line.offer(who, event()) is Offer.STARTS

    assert line.offer("d", event()) is Offer.FULL
    assert line.offer("a", event()) is Offer.COALESCED
    assert len(line) == 3


def test_payloads_are_bounded_by_their_size() -> None:
    """A thousand bodies of a quarter of a megabyte would be the end of a small machine."""
    line = Line(most_bytes=1000)
    for n in range(10):
        line.offer("a", event(payload=json.dumps("x" * 398 + str(n))))

    taken = take(line)

    assert taken is not None
    assert (taken[1].count, len(taken[1].earlier)) == (10, 1)


def test_what_nobody_wants_any_more_is_forgotten() -> None:
    line = Line()
    line.offer("a", event())
    line.forget("a")

    assert take(line) is None
    assert len(line) == 0


# Running.


class Diary:
    """Subscribers that write down what they got; `gate` holds them back."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def of(self, who: str, then: Callable[[], object] = lambda: None) -> Callable[[Event], Awaitable[None]]:
        async def run(event: Event) -> None:
            self.got.append((who, event.name, event.count))
            then()
            await self.gate.wait()

        return run


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def publish(bus: Bus, name: str, *, of: str | None = None) -> list[str]:
    return bus.publish(name, AT, lambda: '"x"', of=of)


async def test_every_subscriber_of_an_event_runs_once() -> None:
    bus, diary = Bus(), Diary()
    bus.subscribe("a", ["hook:x", "hook:y"], diary.of("a"))
    bus.subscribe("b", ["hook:x"], diary.of("b"))

    assert publish(bus, "hook:x") == ["a", "b"]
    assert publish(bus, "hook:z") == []
    await settle()

    assert diary.got == [("a", "hook:x", 1), ("b", "hook:x", 1)]


async def test_events_of_one_moment_are_one_run() -> None:
    """The alert of a log rule is two events; who waits for both looks once."""
    bus, diary = Bus(), Diary()
    bus.subscribe("a", ["alert:ssh", "log:ssh/force"], diary.of("a"))

    publish(bus, "alert:ssh", of="ssh")
    publish(bus, "log:ssh/force", of="ssh")
    await settle()

    assert diary.got == [("a", "log:ssh/force", 2)]


async def test_events_during_a_run_wait_for_its_end() -> None:
    bus, diary = Bus(), Diary()
    diary.gate.clear()
    bus.subscribe("a", ["hook:x"], diary.of("a"))
    publish(bus, "hook:x")
    await settle()
    for _ in range(5):
        assert publish(bus, "hook:x") == ["a"]
    await settle()
    assert len(diary.got) == 1

    diary.gate.set()
    await settle()

    assert diary.got == [("a", "hook:x", 1), ("a", "hook:x", 5)]
    assert (bus.stats.started, bus.stats.coalesced) == (2, 4)


async def test_events_wait_for_a_run_that_is_on_for_another_reason() -> None:
    """It may have looked before the event; and one look after it is enough for all that came meanwhile."""
    bus, diary, over = Bus(), Diary(), asyncio.Event()

    async def on_schedule() -> None:
        await over.wait()

    running = asyncio.create_task(on_schedule())
    busy = lambda: None if running.done() else running  # noqa: E731  # it is what the scheduler answers
    bus.subscribe("a", ["hook:x"], diary.of("a"), busy=busy)
    for _ in range(3):
        publish(bus, "hook:x")
        await settle()
    assert diary.got == []

    over.set()
    await settle()

    assert diary.got == [("a", "hook:x", 3)]


async def test_two_watches_that_start_each_other_come_to_rest(caplog: pytest.LogCaptureFixture) -> None:
    """The run of b is led to by a's alert: what becomes of b in it starts no a; and that is said once."""
    bus, diary = Bus(), Diary()
    bus.subscribe("b", ["alert:a"], diary.of("b", lambda: publish(bus, "alert:b", of="b")))
    bus.subscribe("a", ["alert:b"], diary.of("a", lambda: publish(bus, "alert:a", of="a")))

    for _ in range(3):
        publish(bus, "alert:a", of="a")
        await settle()

    assert diary.got == [("b", "alert:a", 1)] * 3
    assert bus.stats.circular == 3
    assert [record.message for record in caplog.records].count("event_refused") == 1


async def test_a_circle_over_many_and_over_tasks_of_a_run_is_seen() -> None:
    """A check runs in a task of its own; what leads to it must not be lost on the way."""
    bus, diary = Bus(), Diary()
    tasks = []

    def in_a_task(who: str) -> Callable[[], object]:
        async def change() -> None:
            publish(bus, f"alert:{who}", of=who)

        return lambda: tasks.append(asyncio.create_task(change()))

    for before, who in ("ab", "bc", "ca"):
        bus.subscribe(who, [f"alert:{before}"], diary.of(who, in_a_task(who)))

    publish(bus, "alert:a", of="a")
    await settle()

    assert [who for who, _, _ in diary.got] == ["b", "c"]
    assert bus.stats.circular == 1


async def test_a_watch_that_waits_for_its_own_alert_is_not_started() -> None:
    bus, diary = Bus(), Diary()
    bus.subscribe("a", ["alert:a"], diary.of("a"))

    assert publish(bus, "alert:a", of="a") == []


async def test_a_run_by_schedule_is_the_first_cause_again() -> None:
    """What an earlier run led to must not shut a watch out for ever."""
    bus, diary = Bus(), Diary()
    bus.subscribe("b", ["alert:a"], diary.of("b", lambda: publish(bus, "alert:b", of="b")))
    bus.subscribe("a", ["alert:b"], diary.of("a"))
    publish(bus, "alert:a", of="a")
    await settle()

    assert publish(bus, "alert:b", of="b") == ["a"]


async def test_a_long_row_of_watches_ends() -> None:
    bus, diary = Bus(), Diary()

    def joined(who: str, before: str) -> None:
        bus.subscribe(who, [f"alert:{before}"], diary.of(who, lambda: publish(bus, f"alert:{who}", of=who)))

    for n in range(1, 20):
        joined(f"w{n}", f"w{n - 1}")

    publish(bus, "alert:w0", of="w0")
    await settle()

    assert len(diary.got) == DEEPEST - 1
    assert bus.stats.too_deep == 1


async def test_a_subscriber_that_raises_harms_nobody() -> None:
    bus, diary = Bus(), Diary()

    async def broken(event: Event) -> None:
        raise ValueError("no")

    bus.subscribe("broken", ["hook:x"], broken)
    bus.subscribe("a", ["hook:x"], diary.of("a"))
    for _ in range(2):
        publish(bus, "hook:x")
        await settle()

    assert len(diary.got) == 2
    assert bus.stats.failed == 2


async def test_what_may_not_start_is_not_started() -> None:
    """A paused watch does not run, and the answer to a hook does not say that it does."""
    paused = {"a"}
    bus, diary = Bus(lambda who: who not in paused), Diary()
    for who in "ab":
        bus.subscribe(who, ["hook:x"], diary.of(who))

    assert publish(bus, "hook:x") == ["b"]


async def test_a_payload_nobody_waits_for_is_not_made() -> None:
    """Ten thousand alerts of a storm are not written down as JSON for nobody."""
    bus = Bus()

    def payload() -> str:
        raise AssertionError("made")

    assert bus.publish("alert:x", AT, payload, of="x") == []


async def test_after_unsubscribing_nothing_starts() -> None:
    bus, diary = Bus(), Diary()
    bus.subscribe("a", ["hook:x"], diary.of("a"))
    publish(bus, "hook:x")
    bus.unsubscribe("a")
    await settle()

    assert diary.got == []
    assert (bus.names, bus.subscribers) == ([], [])


async def test_stopping_leaves_no_task_behind() -> None:
    bus, diary = Bus(), Diary()
    diary.gate.clear()
    bus.subscribe("a", ["hook:x"], diary.of("a"))
    publish(bus, "hook:x")
    await settle()
    publish(bus, "hook:x")

    await bus.stop()
    await bus.stop()

    assert len(diary.got) == 1
    assert publish(bus, "hook:x") == []
    gc.collect()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("on:")] == []
