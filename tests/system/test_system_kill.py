"""kill -9 at any moment, and receivers that take a message only now and then: nothing lost, nothing new twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest
from around import Hook, Target
from oracle import FIRING, Incident, complaints
from receiver import Answer, Request
from stage import Daemon, Stage

KILLS = int(os.environ.get("AGENTD_TEST_KILLS", "50"))
WATCHES = 6
SEED = int(os.environ.get("AGENTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


class World:
    """Services that go down and up as soon as that must have been noticed; `calm` keeps them up."""

    def __init__(self, stage: Stage, target: Target, chance: random.Random) -> None:
        self.incidents = {f"w{number}": Incident(f"w{number}", 2, 1 + number % 2) for number in range(WATCHES)}
        self.calm = False
        self._chance = chance
        self._patience = dict.fromkeys(self.incidents, 0)
        target.answer = self.answer

    def answer(self, path: str) -> int:
        incident = self.incidents[path.strip("/")]
        incident.answered()
        # The state changes between two checks: this answer is still that of the state before or already the next.
        if incident.noticed and not (self.calm and not incident.down):
            self._patience[incident.name] -= 1
            if self._patience[incident.name] < 0:
                incident.turn()
                incident.answered()
                self._patience[incident.name] = self._chance.randrange(4)
        return self._chance.choice([500, 503, 0]) if incident.down else 200

    def life_ended(self) -> None:
        for incident in self.incidents.values():
            incident.life_ended()

    @property
    def settled(self) -> bool:
        return all(incident.noticed and not incident.down for incident in self.incidents.values())


def moody(chance: random.Random) -> Answer | int:
    mood = chance.random()
    if mood < 0.5:
        return 204
    if mood < 0.65:
        return Answer(503)
    if mood < 0.8:
        return Answer(reset=True)
    if mood < 0.9:
        return Answer(200, delay_s=chance.uniform(0.02, 0.4))
    return chance.choice([404, 429, 500, 302])


async def one_life(stage: Stage, chance: random.Random, hooks: list[Hook]) -> Daemon:
    """Start, and kill: while it starts, some time later, or just when a receiver has a message in its hands."""
    daemon = await stage.spawn()
    how = chance.random()
    if how < 0.15:
        await passing(daemon, chance.uniform(0.0, 0.6))
    else:
        await daemon.ready()
        for hook in hooks:
            if chance.random() < 0.5:
                await stage.api("POST", f"/api/v1/webhooks/{hook.name}/enable")  # no back-off: more is sent
        if how < 0.6:
            await passing(daemon, chance.uniform(0.0, 1.2))
        else:
            seen = sum(len(hook.requests) for hook in hooks)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.2):
                    await stage.news.until(lambda: sum(len(hook.requests) for hook in hooks) > seen, "a message comes")
            await passing(daemon, chance.choice([0.0, 0.0, 0.002, 0.01]))
    await daemon.kill()
    return daemon


async def passing(daemon: Daemon, seconds: float) -> None:
    """Let it live so long; it must not end by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await daemon.process.wait()
            pytest.fail(daemon.tail())


@pytest.mark.slow
@pytest.mark.timeout(180 + 4 * KILLS)
async def test_nothing_is_lost_however_often_it_is_killed(tmp_path: Path) -> None:
    """The promise that the outbox is there for. Again with the same moments: AGENTD_TEST_SEED."""
    print(f"AGENTD_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    async with Stage(tmp_path) as stage:
        other, target = await stage.add_hook("other"), await stage.target()
        hooks = [stage.hook, other]
        world = World(stage, target, chance)
        stage.configure(
            [
                {
                    "name": name,
                    "http": {"url": target.url + name},
                    "expect": ["status == 200"],
                    "fail_after": incident.fail_after,
                    "recover_after": incident.recover_after,
                }
                for name, incident in world.incidents.items()
            ],
            defaults={"every": "100ms"},
            alerting={"notify": ["hook", "other"]},
        )

        def mood(request: Request) -> Answer | int:
            return moody(chance)

        for hook in hooks:
            hook.otherwise = mood
        away: Hook | None = None
        for number in range(KILLS):
            if number % 5 == 0:  # for some lives one of them cannot even be reached
                if away is not None:
                    await away.start()
                away = chance.choice([*hooks, None])
                if away is not None:
                    await away.stop()
            await one_life(stage, chance, hooks)
            world.life_ended()

        if away is not None:
            await away.start()
        for hook in hooks:
            hook.otherwise = 200
        world.calm = True
        daemon = await stage.start()
        await stage.news.until(lambda: world.settled, "all is well, and must have been noticed")
        for hook in hooks:
            await stage.api("POST", f"/api/v1/webhooks/{hook.name}/enable")
        due = sum(len(incident.told) for incident in world.incidents.values())
        with contextlib.suppress(pytest.fail.Exception):  # the oracle says it better
            for hook in hooks:
                await stage.news.until(lambda: len(set(hook.ids)) >= due, "all arrived", within_s=15)  # noqa: B023
        assert await daemon.stop() == 0

        committed = {
            (each["watch"], f"alert.{each['event'].removeprefix('alert_')}", each["trace_id"])
            for life in stage.daemons
            for event in ("alert_firing", "alert_resolved")
            for each in life.logs(event)
        }
        for hook in hooks:
            wrong = list(complaints(hook.requests, hook.taken, world.incidents, committed))
            assert not wrong, f"{hook.name}:\n" + "\n".join(wrong)
            stage.hook.verify(hook.taken[-1], hook.secret)
        assert await stage.outbox() == []
        assert {alert["state"] for alert in await stage.alerts()} <= {"ok", "resolved"}
        fired = sum(incident.told.count(FIRING) for incident in world.incidents.values())
        again = sum(len(hook.requests) - len(set(hook.ids)) for hook in hooks)
        print(f"{fired} incidents, {sum(len(hook.requests) for hook in hooks)} requests, {again} of them repeated")
        assert fired >= WATCHES, "the story was too calm to show anything"
        assert again > 0
