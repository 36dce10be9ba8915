"""The main path on a real store: what is committed together, what a refusal leaves behind, who hears of what."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

from agentd.alert.flapping import FlappingSettings
from agentd.alert.lifecycle import Policy
from agentd.alert.routing import Routing
from agentd.condition import Condition, compile_condition
from agentd.memory import alerts as alert_rows
from agentd.memory import groups, outbox
from agentd.memory.store import Store
from agentd.pipeline import SELF, Pipeline, ProbeWatch, open_watch
from agentd.records import Alert, AlertStatus, CheckResult, Observation, Reason, Severity, Transition, Verdict
from agentd.telemetry.redact import forget_secrets, register_secret
from agentd.testing import FakeClock

OK = Observation(values={"latency_ms": 3.5})
DOWN = Observation(error="connection refused")
BLIND = Observation(blind="no route to host")
AT_ONCE = Policy(needed=1, of=1, recover_after=1)
PATIENT = Policy(needed=3, of=3, recover_after=2)

Story = Callable[["Bench"], Coroutine[Any, Any, None]]


class Scripted:
    """A probe that says what it is told to; what it holds back it says when `gate` opens."""

    def __init__(self) -> None:
        self.says: Observation | BaseException = OK
        self.gate: asyncio.Event | None = None
        self.begun = asyncio.Event()

    async def look(self, timeout_s: float) -> Observation:
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.says, BaseException):
            raise self.says
        return Observation(dict(self.says.values), self.says.error, self.says.blind)

    async def close(self) -> None:
        pass


@dataclass
class Bench:
    """A pipeline on an open store, and what it did."""

    clock: FakeClock
    store: Store
    pipeline: Pipeline
    results: list[CheckResult] = field(default_factory=list)
    wakes: list[None] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    def watch(
        self,
        name: str = "shop",
        policy: Policy = AT_ONCE,
        notify: Sequence[str] = ("ops",),
        conditions: Sequence[Condition] = (),
    ) -> ProbeWatch:
        """A watch in the pipeline, in the place of one of that name."""
        watch = open_watch(name, "fake", Scripted(), conditions, policy, instance="web-1", notify=notify, timeout_s=10)
        self.pipeline.watches[name] = watch
        return watch

    async def see(self, watch: ProbeWatch, *seen: Observation | BaseException) -> None:
        """One check for each, a minute apart."""
        assert isinstance(watch.probe, Scripted)
        for says in seen:
            watch.probe.says = says
            await self.pipeline.check(watch)
            self.clock.tick(60)

    async def told(self) -> list[str]:
        """What stands in the outbox, in order: `webhook type`."""
        rows = await self.store.state.read(lambda c: outbox.rows(c, limit=1000))
        return [f"{row.delivery.webhook} {row.delivery.type.value}" for row in rows]

    async def stored(self, alert: Alert) -> Alert | None:
        return await self.store.state.read(lambda c: alert_rows.get(c, alert.fingerprint))

    def held(self, alert: Alert) -> Alert | None:
        return self.pipeline.alerts.get(alert.fingerprint)

    async def refuse(self, *tables: str) -> None:
        """From now on the store takes nothing into these tables (none: it takes everything again)."""
        refused = [f"INSERT ON {table}" for table in tables]
        refused += [f"DELETE ON {table}" for table in tables if table == "alerts"]

        def change(c: Any) -> None:
            for (name,) in c.execute("SELECT name FROM temp.sqlite_master WHERE type = 'trigger'").fetchall():
                c.execute(f"DROP TRIGGER temp.{name}")
            for number, what in enumerate(refused):
                action = f"CREATE TEMP TRIGGER refuse_{number} BEFORE {what}"
                c.execute(f"{action} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END")

        await self.store.state.alone(change)


@asynccontextmanager
async def bench(path: Path, clock: FakeClock) -> AsyncIterator[Bench]:
    store = await Store.open(path, clock=clock)
    watching = lambda: store.pending > 0  # noqa: E731  # removed below by identity
    clock.busy.append(watching)
    try:
        made = Bench(clock, store, None)  # type: ignore[arg-type]  # two lines below
        made.pipeline = Pipeline(
            state=store.state,
            clock=clock,
            instance="web-1",
            tracer=NoOpTracer(),
            record=made.results.append,
            told=lambda: made.wakes.append(None),
            changed=made.transitions.append,
        )
        made.pipeline.flapping = FlappingSettings(start=100, end=100)
        made.pipeline.routing = Routing(group_by=("...",), interval=timedelta(0))
        await made.pipeline.load()
        yield made
    finally:
        clock.busy.remove(watching)
        await store.close()


@pytest.fixture
def tell(tmp_path: Path) -> Callable[[Story], None]:
    """Runs a story on a bench under a fake clock."""

    def run(story: Story) -> None:
        clock = FakeClock()

        async def whole() -> None:
            async with bench(tmp_path, clock) as made:
                await story(made)

        clock.run(whole())

    return run


Tell = Callable[[Story], None]


def test_alert_and_messages_are_there_together(tell: Tell) -> None:
    """A firing that nobody is told of, or a message about nothing: either is a lie."""

    async def story(b: Bench) -> None:
        watch = b.watch(notify=("ops", "boss"))
        commits = b.store.state.counts.changes

        await b.see(watch, DOWN)

        alert = await b.stored(watch.calm)
        assert alert is not None
        assert alert.status is AlertStatus.FIRING
        assert alert.told == ("ops", "boss")
        assert await b.told() == ["ops alert.firing", "boss alert.firing"]
        assert b.store.state.counts.changes == commits + 1
        assert b.wakes == [None]

    tell(story)


@pytest.mark.parametrize("table", ["alerts", "outbox"])
def test_what_the_store_refuses_did_not_happen_and_is_tried_again(tell: Tell, table: str) -> None:
    """A full disk must delay the alert, never swallow it or send it twice."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        await b.refuse(table)

        await b.see(watch, DOWN, DOWN)

        assert b.held(watch.calm) is None
        assert await b.stored(watch.calm) is None
        assert await b.told() == []
        assert b.wakes == []
        assert b.transitions == []
        assert [result.verdict for result in b.results] == [Verdict.FAILING] * 2
        await b.refuse()
        await b.see(watch, DOWN, DOWN)
        assert await b.told() == ["ops alert.firing"]
        assert b.held(watch.calm) == await b.stored(watch.calm) or b.held(watch.calm) is not None

    tell(story)


@pytest.mark.parametrize("state", [OK, DOWN], ids=["healthy", "failing"])
def test_a_steady_check_writes_nothing(tell: Tell, state: Observation) -> None:
    """Ten thousand checks a minute must not wear the disk."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        await b.see(watch, state)
        commits = b.store.state.counts.commits

        await b.see(watch, *[state] * 50)

        assert b.store.state.counts.commits == commits

    tell(story)


@pytest.fixture
def password() -> Iterator[str]:
    register_secret("correct-horse-battery")
    yield "correct-horse-battery"
    forget_secrets()


@pytest.mark.parametrize(
    "seen",
    [
        Observation(error="refused: PASSWORD is wrong"),
        Observation(blind="cannot run PASSWORD"),
        Observation(values={"stdout": "x" * 70 + "PASSWORD", "body": {"env": ["PASSWORD"]}}),
    ],
    ids=["error", "blind", "values"],
)
def test_a_secret_that_the_target_echoes_stays_with_us(tell: Tell, password: str, seen: Observation) -> None:
    """A command that prints its environment must not bring a password into the store, the page and the webhooks."""

    def leaking(value: Any) -> Any:
        return json.loads(json.dumps(value).replace("PASSWORD", password))

    async def story(b: Bench) -> None:
        conditions = [compile_condition(text, ("stdout", "body")) for text in ('stdout == ""', "body.env.size() == 9")]
        watch = b.watch(policy=replace(AT_ONCE, blind_after=timedelta(0)), conditions=conditions)

        await b.see(watch, Observation(leaking(seen.values), leaking(seen.error), leaking(seen.blind)))

        rows = await b.store.state.read(lambda c: outbox.rows(c, limit=10))
        assert rows
        everything = [row.delivery.data for row in rows]
        everything += map(repr, (watch.last, b.results, b.pipeline.alerts, b.transitions))
        for text in everything:
            assert "correct-hor" not in text
        assert "***" in everything[0]

    tell(story)


def test_conditions_are_asked_about_what_was_really_seen(tell: Tell, password: str) -> None:
    """Stars in the place of a secret must turn no failure into another one, or into none."""

    async def story(b: Bench) -> None:
        watch = b.watch(conditions=[compile_condition("stdout.size() < 10", ("stdout",))])

        await b.see(watch, Observation({"stdout": "ok"}), Observation({"stdout": f"ok {password}"}))

        assert [result.verdict for result in b.results] == [Verdict.OK, Verdict.FAILING]
        assert b.results[1].summary == "stdout.size() < 10 does not hold (not shown: what it read holds a secret)"

    tell(story)


def test_a_restart_in_the_middle_of_a_streak_changes_nothing(tmp_path: Path) -> None:
    """Or a daemon that restarts often would never alert."""
    clock = FakeClock()

    async def story() -> None:
        async with bench(tmp_path, clock) as b:
            await b.see(b.watch(policy=PATIENT), DOWN, DOWN)
        async with bench(tmp_path, clock) as b:
            watch = b.watch(policy=PATIENT)
            await b.see(watch, DOWN)
            assert await b.told() == ["ops alert.firing"]
            await b.see(watch, OK)
        async with bench(tmp_path, clock) as b:
            await b.see(b.watch(policy=PATIENT), OK)
            assert await b.told() == ["ops alert.firing", "ops alert.resolved"]

    clock.run(story())


@pytest.mark.parametrize("cancels", [1, 3])
def test_a_check_cancelled_while_it_commits_leaves_memory_as_the_store(tell: Tell, cancels: int) -> None:
    """The store may have taken it: a second firing after the restart that follows would be a lie."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        assert isinstance(watch.probe, Scripted)
        watch.probe.says = DOWN
        gate = threading.Event()
        blocked = asyncio.create_task(b.store.state.alone(lambda c: gate.wait(10)))
        checking = asyncio.create_task(b.pipeline.check(watch))
        for _ in range(20):
            await asyncio.sleep(0)
        assert b.store.state.pending == 2, "the check waits for its commit"

        for _ in range(cancels):
            checking.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        gate.set()
        await blocked

        with pytest.raises(asyncio.CancelledError):
            await checking
        held, stored = b.held(watch.calm), await b.stored(watch.calm)
        assert held is not None
        assert stored is not None
        assert held.status is stored.status is AlertStatus.FIRING
        assert await b.told() == ["ops alert.firing"]

    tell(story)


def test_a_check_cancelled_while_it_looks_changes_nothing(tell: Tell) -> None:
    """Stop cancels what looks for too long; half a look is no verdict."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        assert isinstance(watch.probe, Scripted)
        watch.probe.gate = asyncio.Event()
        checking = asyncio.create_task(b.pipeline.check(watch))
        await watch.probe.begun.wait()

        checking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await checking
        assert b.results == []
        assert b.pipeline.alerts == {}

    tell(story)


def test_reminders_go_to_whom_the_config_names_now(tell: Tell) -> None:
    """Who was taken out of `notify` must not be called at night any more; who was put in must hear of it."""

    async def story(b: Bench) -> None:
        policy = Policy(needed=1, of=1, recover_after=1, remind_every=timedelta(hours=4))
        await b.see(b.watch(policy=policy, notify=("ops",)), DOWN)
        watch = b.watch(policy=policy, notify=("boss",))
        await b.pipeline.sweep()
        assert await b.told() == ["ops alert.firing", "boss alert.firing"]
        for _ in range(30):
            b.clock.tick(timedelta(hours=1))
            await b.pipeline.look()

        stood = {row.webhook: row.reminders for row in await b.store.state.read(groups.all_groups)}
        assert stood == {"boss": 3, "ops": 0}, "after 4, 12 and 28 hours"
        assert set(await b.told()) == {"ops alert.firing", "boss alert.firing", "boss alert.reminder"}
        await b.see(watch, OK)
        assert sorted((await b.told())[-2:]) == ["boss alert.resolved", "ops alert.resolved"]

    tell(story)


def test_the_end_goes_to_those_who_were_told(tell: Tell) -> None:
    """An incident that stays open for ever at a receiver that was taken out of `notify` is worse than a message."""

    async def story(b: Bench) -> None:
        await b.see(b.watch(notify=("ops", "boss")), DOWN)
        await b.see(b.watch(notify=("other",)), OK)

        assert sorted((await b.told())[2:]) == ["boss alert.resolved", "ops alert.resolved"]

    tell(story)


def test_lasting_blindness_is_told_and_taken_back(tell: Tell) -> None:
    """A checker that cannot look must not look like a healthy target."""

    async def story(b: Bench) -> None:
        watch = b.watch()

        await b.see(watch, OK, *[BLIND] * 12)

        assert await b.told() == ["ops alert.firing"]
        blind = b.held(watch.blind)
        assert blind is not None
        assert blind.summary == "cannot look: no route to host"
        held = b.held(watch.calm)
        assert held is not None
        assert held.status is AlertStatus.OK
        await b.see(watch, OK)
        assert await b.told() == ["ops alert.firing", "ops alert.resolved"]
        assert b.transitions[-1].reason is Reason.SIGHT_REGAINED

    tell(story)


def test_a_target_found_down_when_sight_returns_ends_blindness_and_fires(tell: Tell) -> None:
    """Two steps of two alerts from one check must both be told, once."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        await b.see(watch, *[BLIND] * 12)

        await b.see(watch, DOWN, DOWN)

        assert (await b.told())[1:] == ["ops alert.firing", "ops alert.resolved"]
        rules = {transition.alert.rule: transition.after for transition in b.transitions}
        assert rules == {"blind": AlertStatus.RESOLVED, None: AlertStatus.FIRING}

    tell(story)


@pytest.mark.parametrize(
    "defect", [RuntimeError("boom"), asyncio.CancelledError(), TimeoutError()], ids=["raises", "cancels", "times out"]
)
def test_a_defect_of_a_probe_is_blindness(tell: Tell, defect: BaseException) -> None:
    """Our own mistake must neither accuse the target nor silence the watch for ever."""

    async def story(b: Bench) -> None:
        watch = b.watch()

        await b.see(watch, defect, defect)

        assert [result.verdict for result in b.results] == [Verdict.BLIND] * 2
        assert "probe crashed" in b.results[0].summary

    tell(story)


def test_a_probe_that_hangs_is_blindness(tell: Tell) -> None:
    """Or one defect would end a watch without a word, since no watch runs beside itself."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        assert isinstance(watch.probe, Scripted)
        watch.probe.gate = asyncio.Event()
        checking = asyncio.create_task(b.pipeline.check(watch))

        await b.clock.advance(14)
        assert not checking.done()
        await b.clock.advance(2)

        assert (await checking).judgement.summary == "the fake probe hangs"

    tell(story)


def test_a_failure_seen_while_we_stood_still_is_blindness(tell: Tell) -> None:
    """A process that was stopped in mid-look times out by its own fault; the target may be well."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        moved_on = b.clock.monotonic()
        b.pipeline.stood_still = lambda since: moved_on >= since

        await b.see(watch, DOWN, DOWN)

        assert [result.verdict for result in b.results] == [Verdict.BLIND, Verdict.FAILING]
        assert "stood still" in b.results[0].summary

    tell(story)


def test_a_removed_watch_ends_its_alerts(tell: Tell) -> None:
    """Nobody may wait for the end of what nobody looks at any more."""

    async def story(b: Bench) -> None:
        firing, pending = b.watch("shop"), b.watch("till", PATIENT)
        await b.see(firing, DOWN)
        await b.see(pending, DOWN)
        b.pipeline.watches.clear()

        await b.pipeline.retire()

        assert await b.told() == ["ops alert.firing", "ops alert.resolved"]
        assert b.transitions[-1].reason is Reason.WATCH_REMOVED
        assert b.pipeline.alerts == {}
        assert await b.store.state.read(alert_rows.load_all) == []

    tell(story)


def test_what_cannot_be_retired_now_is_retired_later(tell: Tell) -> None:
    """A reload on a full disk must not leave an alert that fires for ever."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        await b.see(watch, DOWN)
        b.pipeline.watches.clear()
        await b.refuse("outbox")

        await b.pipeline.retire()

        held = b.held(watch.calm)
        assert held is not None
        assert held.status is AlertStatus.FIRING
        await b.refuse()
        await b.pipeline.retire()
        await b.pipeline.retire()
        assert await b.told() == ["ops alert.firing", "ops alert.resolved"]

    tell(story)


def test_a_firing_that_commits_while_its_watch_is_removed_is_ended_too(tell: Tell) -> None:
    """The reload that removes a watch at that very moment must not forget what was just told."""

    async def story(b: Bench) -> None:
        watch = b.watch()
        assert isinstance(watch.probe, Scripted)
        watch.probe.says = BLIND
        await b.pipeline.check(watch)  # there is an alert, which retire finds
        watch.probe.says = DOWN
        gate = threading.Event()
        blocked = asyncio.create_task(b.store.state.alone(lambda c: gate.wait(10)))
        checking = asyncio.create_task(b.pipeline.check(watch))
        for _ in range(20):
            await asyncio.sleep(0)
        assert b.store.state.pending == 2

        del b.pipeline.watches["shop"]
        retiring = asyncio.create_task(b.pipeline.retire())
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(blocked, checking, retiring)

        assert await b.told() == ["ops alert.firing", "ops alert.resolved"]
        assert b.pipeline.alerts == {}
        assert await b.store.state.read(alert_rows.load_all) == []

    tell(story)


def test_a_check_of_a_replaced_watch_is_dropped(tell: Tell) -> None:
    """What an old address answered says nothing about the new one."""

    async def story(b: Bench) -> None:
        old = b.watch()
        assert isinstance(old.probe, Scripted)
        old.probe.says, old.probe.gate = DOWN, asyncio.Event()
        checking = asyncio.create_task(b.pipeline.check(old))
        await old.probe.begun.wait()
        b.watch()

        old.probe.gate.set()
        await checking

        assert await b.told() == []
        assert b.pipeline.alerts == {}
        assert b.results == []

    tell(story)


def test_two_checks_never_interleave_on_one_alert(tell: Tell) -> None:
    """Both would decide from the same state, and one of two failures would be lost, or told twice."""

    async def story(b: Bench) -> None:
        watch = b.watch(policy=Policy(needed=5, of=5))
        assert isinstance(watch.probe, Scripted)
        watch.probe.says = DOWN

        await asyncio.gather(*(b.pipeline.check(watch) for _ in range(7)))

        assert await b.told() == ["ops alert.firing"]
        held = b.held(watch.calm)
        assert held is not None
        assert held.occurrences == 7

    tell(story)


def test_agentd_tells_about_itself(tell: Tell) -> None:
    """Once when something is wrong, once when it is well again, to whom `alerting.notify` names."""

    async def story(b: Bench) -> None:
        b.pipeline.routing = Routing(notify=("ops",), interval=timedelta(0))

        for failing in (None, "the disk is full", "the disk is full", None, None):
            await b.pipeline.report_self("disk_full", failing, Severity.CRITICAL)

        assert await b.told() == ["ops alert.firing", "ops alert.resolved"]
        firing = b.transitions[0].alert
        assert (firing.watch, firing.rule, firing.severity) == (SELF, "disk_full", Severity.CRITICAL)
        await b.pipeline.retire()
        assert len(b.pipeline.alerts) == 1, "no reload removes the daemon"

    tell(story)


def test_a_hostile_answer_does_not_stop_the_alert(tell: Tell) -> None:
    """Who can make us fail to write the message can keep us silent."""

    async def story(b: Bench) -> None:
        variables = {"body": "", "text": ""}
        watch = b.watch(conditions=[compile_condition(text, variables) for text in ('body.x == "UP"', 'text == ""')])
        body = {"x": ["\ud800", float("nan"), 10**400, {"k" * 10_000: b"\xff\x00"}] * 1000}

        await b.see(watch, Observation(values={"body": body, "text": "\ud800\x00</script>" * 10_000}))

        rows = await b.store.state.read(outbox.rows)
        assert len(rows) == 1
        assert json.loads(rows[0].delivery.data)["state"] == "firing"

    tell(story)


class Oracle:
    """What has to be told, said again in other words: counts by hand, knows nothing of alerts."""

    def __init__(self, needed: int, of: int, recover: int) -> None:
        self.needed, self.of, self.recover = needed, of, recover
        self.firing = False
        self.recent: list[bool] = []
        self.oks = 0
        self.told: list[str] = []

    def see(self, letter: str, refused: str) -> None:
        """refused: `alerts` when no change is taken, `outbox` when no message is."""
        if letter == "?":
            return
        bad = letter == "x"
        if self.firing:
            self._while_firing(bad, refused)
            return
        if refused == "alerts" and (bad or any(self.recent)):
            return
        recent = [*self.recent, bad][-self.of :]
        if not bad and self.needed == self.of:
            recent = []
        if sum(recent) < self.needed:
            self.recent = recent
        elif not refused:
            self.firing, self.recent, self.oks = True, [], 0
            self.told.append("alert.firing")

    def _while_firing(self, bad: bool, refused: str) -> None:
        if bad:
            self.oks = self.oks if refused == "alerts" else 0
        elif self.oks + 1 < self.recover:
            self.oks += refused != "alerts"
        elif not refused:
            self.firing = False
            self.told.append("alert.resolved")


_EVENTS = st.lists(
    st.tuples(st.sampled_from("xxxooo?"), st.sampled_from(["", "", "", "alerts", "outbox"]), st.integers(0, 9)),
    max_size=40,
)


@settings(max_examples=40, deadline=None)
@given(_EVENTS, st.integers(1, 3), st.integers(0, 2), st.integers(1, 3))
def test_whatever_happens_the_messages_are_those_of_the_oracle(
    events: list[tuple[str, str, int]], needed: int, more: int, recover: int
) -> None:
    """Refusals of the store and restarts in any order: nothing lost, nothing twice, nothing made up."""
    policy = Policy(needed, needed + more, recover, blind_after=timedelta(days=999), remind_every=None)
    oracle = Oracle(needed, needed + more, recover)
    seen = {"x": DOWN, "o": OK, "?": BLIND}
    clock = FakeClock()

    async def story(folder: Path) -> None:
        left = list(events)
        while True:
            async with bench(folder, clock) as b:
                watch = b.watch(policy=policy)
                while left:
                    letter, refused, restart = left.pop(0)
                    await b.refuse(*([refused] if refused else []))
                    await b.see(watch, seen[letter])
                    oracle.see(letter, refused)
                    if not restart:
                        break
                assert [line.split()[1] for line in await b.told()] == oracle.told
                assert oracle.told == (["alert.firing", "alert.resolved"] * len(oracle.told))[: len(oracle.told)]
                if not left:
                    return

    with tempfile.TemporaryDirectory() as folder:
        clock.run(story(Path(folder)))
