"""The sweep over thousands of firing alerts, every five seconds: what does not change costs next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from test_pipeline import DOWN, Bench, Tell, tell

from agentd.alert import routing
from agentd.alert.routing import Escalate, Route, Routing, Wish
from agentd.condition import Condition, compile_condition
from agentd.records import Alert, AlertStatus, Severity

__all__ = ["tell"]  # the fixture, by its name

LATER = (Escalate(timedelta(minutes=10), ("boss",)),)


def route(text: str, *notify: str) -> Route:
    return Route(compile_condition(text, ("watch", "rule", "severity", "instance", "labels")), notify)


def test_a_sweep_takes_a_step_only_of_what_changes(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """An escalation that is hours away kept every alert busy at every turn."""

    async def story(b: Bench) -> None:
        b.pipeline.routing = replace(b.pipeline.routing, escalate=LATER, notify=("ops",))
        watch = b.watch()
        await b.see(watch, DOWN)
        taken: list[str] = []
        sweep_one = b.pipeline._sweep_one

        async def counted(alert: Alert, *more: Any) -> None:
            taken.append(alert.watch)
            await sweep_one(alert, *more)

        monkeypatch.setattr(b.pipeline, "_sweep_one", counted)
        for _ in range(20):
            await b.pipeline.sweep()
            b.clock.tick(60)

        assert taken == ["shop"]
        held = b.held(watch.calm)
        assert held is not None
        assert (held.escalated, held.told) == (1, ("ops", "boss"))

    tell(story)


def test_a_sweep_lets_others_have_their_turn(tell: Tell) -> None:
    """Nothing holds up the loop for as long as thousands of alerts take."""

    async def story(b: Bench) -> None:
        fires = Alert("f", "web-1", "shop", Severity.WARNING, status=AlertStatus.FIRING, started_at=b.clock.now())
        b.pipeline.alerts = {str(n): replace(fires, fingerprint=str(n)) for n in range(1000)}
        sweep, turns = asyncio.create_task(b.pipeline.sweep()), 0
        while not sweep.done():
            await asyncio.sleep(0)
            turns += 1

        assert turns > 10

    tell(story)


def test_a_route_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty conditions for each of two thousand alerts took most of a second of every five."""
    asked = 0
    holds = Condition.holds

    def counted(condition: Condition, values: Mapping[str, Any]) -> bool:
        nonlocal asked
        asked += 1
        return holds(condition, values)

    monkeypatch.setattr(Condition, "holds", counted)
    monkeypatch.setattr(routing, "_MOST_KNOWN", 3)
    whole = Routing(routes=(route('labels.zone == "dmz"', "net"), route('severity == "critical"', "boss")))
    calm = Alert("f", "web-1", "shop", Severity.WARNING)
    dmz, worse = replace(calm, labels={"zone": "dmz"}), replace(calm, severity=Severity.CRITICAL)

    for _ in range(3):
        reached = [whole.of(each, Wish()).notify for each in (calm, dmz, worse)]
        assert reached == [(), ("net",), ("boss",)]
    assert asked == 2 + 1 + 2

    for number in range(100):
        assert whole.of(replace(dmz, by={"ip": str(number)}), Wish()).notify == ("net",)
    assert len(whole._known) <= 3
    assert whole == replace(whole), "what is remembered makes no other routing of it"
