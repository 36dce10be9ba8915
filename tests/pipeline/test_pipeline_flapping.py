"""What people hear of an alert that flaps: once that it does, once that it is over, and neither while it is muted."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from test_pipeline import AT_ONCE, DOWN, OK, PATIENT, Bench, Tell, tell

from agentd.alert.flapping import FlappingSettings, has_fired
from agentd.alert.muting import Muting
from agentd.alert.silence import Silence, parse_matchers
from agentd.clock import from_us
from agentd.memory import outbox
from agentd.records import Alert, EventType

__all__ = ["tell"]  # the fixture, by its name

NEVER, ALWAYS = from_us(0), from_us(2**52)


def flaps(b: Bench) -> Muting:
    """From now on alerts flap as they do by themselves, and are muted by what is returned."""
    muting = Muting()

    def mutes(alerts: Mapping[str, Alert], now: datetime, only: Collection[str] | None) -> Mapping[str, str]:
        return muting.reasons(alerts, now, only)

    b.pipeline.flapping = FlappingSettings()
    b.pipeline.mutes = mutes
    return muting


def silence() -> Silence:
    return Silence("4f2a", parse_matchers(["watch=shop"], everything=True), NEVER, ALWAYS, "anna", "new disks")


async def flapping(b: Bench) -> list[bool]:
    rows = await b.store.state.read(lambda c: outbox.rows(c, limit=1000))
    return [says(row)["flapping"] for row in rows if row.delivery.type is EventType.FLAPPING]


def says(row: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(row.delivery.data)
    return found


def test_nobody_hears_of_flapping_under_a_silence(tell: Tell) -> None:
    """Disks are changed and it comes and goes: that is what the silence is for."""

    async def story(b: Bench) -> None:
        flaps(b).take_silences([silence()])
        watch = b.watch(policy=AT_ONCE)

        await b.see(watch, *(DOWN, OK) * 10)

        held = b.held(watch.calm)
        assert held is not None
        assert held.flapping
        await b.see(watch, *(OK,) * 30)
        held = b.held(watch.calm)
        assert held is not None
        assert not held.flapping
        assert await b.told() == []

    tell(story)


def test_what_still_flaps_when_the_silence_ends_is_told_then(tell: Tell) -> None:
    """As what still fires is."""

    async def story(b: Bench) -> None:
        muting = flaps(b)
        muting.take_silences([silence()])
        watch = b.watch(policy=AT_ONCE)
        await b.see(watch, *(DOWN, OK) * 10)

        await b.pipeline.sweep()
        assert await flapping(b) == []
        muting.take_silences([])
        await b.pipeline.sweep()
        await b.pipeline.sweep()

        assert await flapping(b) == [True]
        await b.see(watch, *(OK,) * 30)
        assert await flapping(b) == [True, False]

    tell(story)


def test_who_heard_that_it_flaps_hears_that_it_is_steady_though_it_is_silenced_since(tell: Tell) -> None:
    """Where flapping is an incident of its own, it would stay open for good."""

    async def story(b: Bench) -> None:
        muting = flaps(b)
        watch = b.watch(policy=AT_ONCE)
        await b.see(watch, *(DOWN, OK) * 10)
        muting.take_silences([silence()])

        await b.see(watch, *(OK,) * 30)

        assert await flapping(b) == [True, False]

    tell(story)


def test_what_is_steady_again_is_not_said_to_be_muted_by_flapping(tell: Tell) -> None:
    """It is what the message takes back."""

    async def story(b: Bench) -> None:
        flaps(b)
        watch = b.watch(policy=AT_ONCE)
        for last in (OK, DOWN):
            await b.see(watch, *(OK, DOWN) * 10)
            await b.pipeline.sweep()
            await b.see(watch, *(last,) * 30)

            rows = await b.store.state.read(lambda c: outbox.rows(c, limit=1000))
            steady = [says(row) for row in rows if row.delivery.type is EventType.FLAPPING][-1]
            assert (steady["flapping"], steady["muted_by"]) == (False, None)
            held = b.held(watch.calm)
            assert held is not None
            assert held.muted_by is None

    tell(story)


def test_what_never_fires_flaps_for_nobody(tell: Tell) -> None:
    """`fail_after` is there so that single failures are no news, ten of them neither."""

    async def story(b: Bench) -> None:
        flaps(b)
        watch = b.watch(policy=PATIENT)

        await b.see(watch, *(DOWN, OK) * 20)
        assert await b.told() == []

        await b.see(watch, *(DOWN,) * 3)
        assert await b.told() != [], "and the outage after it is not lost in the noise"
        await b.see(watch, *(DOWN,) * 30)
        await b.pipeline.look()
        assert "ops alert.firing" in await b.told()

    tell(story)


def test_an_alert_that_fires_and_flaps_at_once_knows_who_was_told(tell: Tell) -> None:
    """Or the next sweep would tell them again."""

    async def story(b: Bench) -> None:
        flaps(b)
        b.pipeline.flapping = FlappingSettings(start=4, end=1)
        watch = b.watch(policy=AT_ONCE)

        await b.see(watch, DOWN)

        held = b.held(watch.calm)
        assert held is not None
        assert (held.flapping, held.muted_by, held.told) == (True, "flapping", ("ops",))

    tell(story)


def test_a_firing_is_found_among_the_outcomes() -> None:
    assert not has_fired("", 1, 1)
    assert not has_fired("0110110", 3, 3)
    assert has_fired("0110111", 3, 3)
    assert has_fired("0110110", 3, 4)
    assert not has_fired("0100100", 2, 3)
