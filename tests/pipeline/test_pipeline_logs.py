"""The log path: what a batch of lines led to is committed with how far it was read, or not at all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import INVALID_SPAN, NoOpTracer

from agentd.alert.lifecycle import BLIND_RULE, Policy, Step
from agentd.alert.occurrence import RESOLVE_AFTER
from agentd.alert.routing import Routing
from agentd.logs.port import Batch, Counters, Outcome
from agentd.logs.work import Taken
from agentd.memory import alerts as alert_rows
from agentd.memory import logs as log_rows
from agentd.memory import outbox
from agentd.memory.logs import LogMemory, TemplateName
from agentd.memory.store import Store
from agentd.pipeline import Pipeline
from agentd.pipeline.keeper import BREATH
from agentd.pipeline.logs import LogPath
from agentd.pipeline.watches import LogRule, LogWatch, calm_alert, open_watch
from agentd.records import (
    Alert,
    AlertStatus,
    CheckResult,
    Ended,
    EventType,
    Evidence,
    Observation,
    Occurrence,
    Place,
    Reason,
    Transition,
    Verdict,
)
from agentd.testing import FakeClock

POLICY = Policy(blind_after=timedelta(minutes=10))
DIGESTS = {"bruteforce": "d1", "silent": "d2"}


class NoProbe:
    """Of whatever the watch became; nobody asks it."""

    async def look(self, timeout_s: float) -> Observation:
        raise AssertionError

    async def close(self) -> None:
        return


class Script:
    """Both the source and the work on it: gives the batches it is told to, then says that it is caught up."""

    def __init__(self, clock: FakeClock) -> None:
        self.counters = Counters()
        self.source = self
        self.opened: list[LogMemory] = []
        self.batches: deque[Taken | Exception] = deque()
        self.blind: str | None = None
        self.awake_since: datetime | None = None
        self.looks = 0
        self.closed = 0
        self._clock = clock
        self._ring = asyncio.Event()

    def gives(self, *events: Occurrence | Ended, **more: Any) -> None:
        """One batch with these events. more: of Batch, `windows`, and what else a Taken has."""
        outcome = Outcome(list(events), more.pop("windows", {}))
        names = more.pop("names", [])
        self.batches.append(Taken(Batch(more=True, **more), outcome, names=names))
        self._ring.set()

    def take(self) -> Taken:
        self.looks += 1
        if self.batches:
            given = self.batches.popleft()
            if isinstance(given, Exception):
                raise given
            return given
        now = self._clock.now()
        return Taken(Batch(caught_up=now, blind=self.blind), Outcome(), now, self.awake_since)

    def next_change(self) -> datetime | None:
        return None

    def numbers(self, batch: Batch) -> dict[str, Any]:
        return {"lines": self.counters.lines}

    async def wait(self, timeout_s: float) -> None:
        self._ring.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ring.wait()

    async def close(self) -> None:
        self.closed += 1


@dataclass
class Bench:
    """A log path on an open store, and one watch that is followed."""

    clock: FakeClock
    store: Store
    pipeline: Pipeline
    path: LogPath
    script: Script
    watch: LogWatch
    results: list[CheckResult] = field(default_factory=list)

    async def told(self) -> list[str]:
        rows = await self.store.state.read(lambda c: outbox.rows(c, limit=1000))
        return [row.delivery.type.value for row in rows]

    async def memory(self) -> LogMemory:
        return await self.store.state.read(lambda c: log_rows.load(c, "ssh", DIGESTS))

    async def stored(self) -> list[Alert]:
        return await self.store.state.read(alert_rows.load_all)

    def seen(self, by: str = "192.0.2.1", *, ago_s: float = 0, count: int = 1) -> Occurrence:
        at = self.clock.now() - timedelta(seconds=ago_s)
        evidence = (Evidence(Place("/var/log/auth.log", 7), f"Failed password from {by}"),)
        return Occurrence("bruteforce", {"ip": by}, at, at, count, "5 lines", "5 within 10m", {}, evidence)

    async def refuse(self, refuses: bool) -> None:
        """From now on the store takes no change of positions, or takes them again."""

        def change(c: Any) -> None:
            c.execute("DROP TRIGGER IF EXISTS temp.refuse")
            if refuses:
                c.execute(
                    "CREATE TEMP TRIGGER refuse BEFORE INSERT ON log_positions "
                    "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
                )

        await self.store.state.alone(change)


@asynccontextmanager
async def bench(
    path: Path, clock: FakeClock, rules: tuple[str, ...] = ("bruteforce", "silent")
) -> AsyncIterator[Bench]:
    store = await Store.open(path, clock=clock)
    watching = lambda: store.pending > 0  # noqa: E731  # removed below by identity
    clock.busy.append(watching)
    results: list[CheckResult] = []
    pipeline = Pipeline(
        state=store.state,
        clock=clock,
        instance="web-1",
        tracer=NoOpTracer(),
        record=results.append,
        told=lambda: None,
    )
    pipeline.routing = Routing(group_by=("...",), interval=timedelta(0))
    await pipeline.load()
    script = Script(clock)

    def open_script(memory: LogMemory) -> Script:
        script.opened.append(memory)
        return script

    watch = LogWatch(
        "ssh",
        "log",
        calm_alert("web-1", "ssh", None, POLICY),
        calm_alert("web-1", "ssh", BLIND_RULE, POLICY),
        POLICY,
        ("ops",),
        {name: LogRule(POLICY, RESOLVE_AFTER) for name in rules},
        DIGESTS,
        open_script,  # type: ignore[arg-type]  # it is both
    )
    pipeline.watches["ssh"] = watch
    await pipeline.retire()
    thread = ThreadPoolExecutor(1)
    log_path = LogPath(pipeline, thread, store.history)
    run = asyncio.create_task(log_path.run(watch))
    try:
        await clock.settle()
        yield Bench(clock, store, pipeline, log_path, script, watch, results)
    finally:
        run.cancel()
        await asyncio.wait([run])
        clock.busy.remove(watching)
        thread.shutdown()
        await store.close()


Story = Callable[[Bench], Coroutine[Any, Any, None]]
Tell = Callable[[Story], None]


@pytest.fixture
def tell(tmp_path: Path) -> Tell:
    """Runs a story on a bench under a fake clock."""

    def run(story: Story) -> None:
        clock = FakeClock()

        async def whole() -> None:
            async with bench(tmp_path, clock) as made:
                await story(made)

        clock.run(whole())

    return run


def test_alert_message_window_and_position_are_there_together(tell: Tell) -> None:
    """A position without its alert loses the line; an alert without its position tells it twice."""

    async def story(b: Bench) -> None:
        b.script.gives(b.seen(), positions={"auth": "p1"}, windows={("bruteforce", "k"): "w1"})
        before = b.store.state.counts.commits

        await b.clock.settle()

        (alert,) = await b.stored()
        assert (alert.status, alert.rule, alert.by) == (AlertStatus.FIRING, "bruteforce", {"ip": "192.0.2.1"})
        assert await b.told() == ["alert.firing"]
        memory = await b.memory()
        assert (memory.positions, memory.windows) == ({"auth": "p1"}, {("bruteforce", "k"): "w1"})
        assert b.store.state.counts.commits == before + 1

    tell(story)


def test_lines_that_lead_to_nothing_are_stored_now_and_then(tell: Tell) -> None:
    """A commit for each of a million healthy lines would wear the disk out for nothing."""

    async def story(b: Bench) -> None:
        b.script.gives(positions={"auth": "p0"})
        await b.clock.settle()
        before = b.store.state.counts.commits
        for n in range(10):
            b.script.gives(positions={"auth": f"p{n}"})
        await b.clock.settle()
        assert b.store.state.counts.commits == before

        await b.clock.advance(11)

        assert (await b.memory()).positions == {"auth": "p9"}

    tell(story)


def test_where_a_stream_was_first_seen_is_stored_at_once(tell: Tell) -> None:
    """Or who is killed in the first seconds begins at the end again, and what came between is lost."""

    async def story(b: Bench) -> None:
        b.script.gives(positions={"auth": "p0"})
        await b.clock.settle()
        assert (await b.memory()).positions == {"auth": "p0"}

        b.script.gives(positions={"auth": "p1", "daemon": "p0"})
        await b.clock.settle()

        assert (await b.memory()).positions == {"auth": "p1", "daemon": "p0"}

    tell(story)


def test_a_full_disk_is_not_asked_at_each_look_for_the_first_position(tell: Tell) -> None:
    """Nothing hangs on it that is worth hammering a disk that has no room."""

    async def story(b: Bench) -> None:
        await b.refuse(True)
        b.script.gives(positions={"auth": "p0"})
        await b.clock.settle()
        before = b.store.state.counts.commits
        for n in range(100):
            b.script.gives(positions={"auth": f"p{n}"})
        await b.clock.settle()
        assert b.store.state.counts.commits == before
        await b.refuse(False)

        await b.clock.advance(11)

        assert (await b.memory()).positions == {"auth": "p99"}

    tell(story)


def test_while_the_store_refuses_nothing_is_read_on(tell: Tell) -> None:
    """A full disk must delay the alert, never swallow the line or send it twice."""

    async def story(b: Bench) -> None:
        await b.refuse(True)
        b.script.gives(b.seen(), positions={"auth": "p1"})
        b.script.gives(b.seen("192.0.2.2"), positions={"auth": "p2"})
        await b.clock.advance(60)
        assert (await b.told(), await b.stored(), b.pipeline.alerts) == ([], [], {})
        assert len(b.script.batches) == 1

        await b.refuse(False)
        await b.clock.advance(60)

        assert await b.told() == ["alert.firing", "alert.firing"]
        assert (await b.memory()).positions == {"auth": "p2"}

    tell(story)


def test_what_people_should_know_is_said_before_it_is_stored(tell: Tell, caplog: pytest.LogCaptureFixture) -> None:
    """Who is killed behind the commit does not come to it again; and a store that refuses is no reason to repeat it."""

    def said() -> list[str]:
        return [record.__dict__["note"] for record in caplog.records if record.message == "log_note"]

    async def story(b: Bench) -> None:
        await b.refuse(True)
        b.script.gives(b.seen(), positions={"auth": "p1"}, notes=["cut back"])
        await b.clock.settle()
        assert (await b.told(), said()) == ([], ["cut back"])

        await b.clock.advance(60)
        await b.refuse(False)
        await b.clock.advance(60)

        assert (await b.told(), said()) == (["alert.firing"], ["cut back"])

    tell(story)


def test_quiet_resolves_by_itself(tell: Tell) -> None:
    """A one-off event must not fire for ever."""

    async def story(b: Bench) -> None:
        b.script.gives(b.seen())
        await b.clock.advance(299)
        assert await b.told() == ["alert.firing"]

        await b.clock.advance(2)

        assert await b.told() == ["alert.firing", "alert.resolved"]

    tell(story)


def test_a_sleep_of_the_machine_is_no_quiet(tell: Tell) -> None:
    """An all-clear because the lid was closed for a night would be made up."""

    async def story(b: Bench) -> None:
        b.script.gives(b.seen())
        await b.clock.settle()

        b.clock.jump(timedelta(hours=8))
        b.script.awake_since = b.clock.now()
        looks = b.script.looks
        await b.clock.advance(290)
        assert await b.told() == ["alert.firing"]
        assert b.script.looks - looks < 100, "what is not due yet is not looked for all the time"
        await b.clock.advance(20)

        assert await b.told() == ["alert.firing", "alert.resolved"]

    tell(story)


def test_a_resolved_alert_of_one_value_of_many_leaves_nothing_behind(tell: Tell) -> None:
    """Or addresses made up by an attacker would fill store and memory."""

    async def story(b: Bench) -> None:
        for n in range(50):
            b.script.gives(b.seen(f"192.0.2.{n}"))
        await b.clock.settle()
        assert len(b.pipeline.alerts) == 50

        await b.clock.advance(301)

        assert b.pipeline.alerts == {}
        assert await b.stored() == []
        assert (await b.told()).count("alert.resolved") == 50

    tell(story)


def test_a_log_read_late_tells_every_incident_in_order(tell: Tell) -> None:
    """After a night off, what happened in it is told as it happened."""

    async def story(b: Bench) -> None:
        b.script.gives(b.seen(ago_s=7200), b.seen(ago_s=3600), b.seen(ago_s=3500))

        await b.clock.settle()

        assert await b.told() == ["alert.firing", "alert.resolved"] * 2
        rows = await b.store.state.read(lambda c: outbox.rows(c, limit=10))
        assert '"occurrences":2' in rows[3].delivery.data

    tell(story)


def test_a_firing_survives_a_restart_and_resolves_by_the_same_quiet(tmp_path: Path) -> None:
    """The daemon's own restarts are no quiet, and no reason to tell again."""
    clock = FakeClock()

    async def story() -> None:
        async with bench(tmp_path, clock) as b:
            b.script.gives(b.seen(), positions={"auth": "p1"})
            await clock.advance(100)
        async with bench(tmp_path, clock) as b:
            assert b.script.opened[0].positions == {"auth": "p1"}
            b.script.gives(b.seen())
            await clock.advance(250)
            assert await b.told() == ["alert.firing"]
            await clock.advance(60)
            assert await b.told() == ["alert.firing", "alert.resolved"]

    clock.run(story())


def test_what_was_read_is_stored_at_the_end(tmp_path: Path) -> None:
    """A clean stop reads nothing twice."""
    clock = FakeClock()

    async def story() -> None:
        async with bench(tmp_path, clock) as b:
            b.script.gives(positions={"auth": "p1"})
            await clock.settle()
        async with bench(tmp_path, clock) as b:
            assert b.script.opened[0].positions == {"auth": "p1"}

    clock.run(story())


def test_a_rule_may_end_its_alert_itself(tell: Tell) -> None:
    """Lines are back: people hear it now and not after the quiet."""

    async def story(b: Bench) -> None:
        now = b.clock.now()
        b.script.gives(Occurrence("silent", {}, now, now, 0, "no line", "none within 10m"))
        b.script.gives(Ended("silent", {}, now, "lines are back"))

        await b.clock.settle()

        assert await b.told() == ["alert.firing", "alert.resolved"]
        (alert,) = await b.stored()
        assert alert.reason is Reason.RECOVERED

    tell(story)


def test_a_source_that_cannot_be_looked_at_is_blind_and_then_an_alert(tell: Tell) -> None:
    """A log that we may not read looks as quiet as a healthy one."""

    async def story(b: Bench) -> None:
        b.script.blind = "/var/log/auth.log: permission denied"
        await b.clock.advance(60)
        assert b.watch.last is not None
        assert b.watch.last.judgement.verdict is Verdict.BLIND
        assert await b.told() == []
        await b.clock.advance(600)
        assert await b.told() == ["alert.firing"]

        b.script.blind = None
        await b.clock.advance(10)

        assert await b.told() == ["alert.firing", "alert.resolved"]

    tell(story)


def test_a_defect_of_ours_is_told_and_the_log_followed_from_what_is_stored(tell: Tell) -> None:
    """One odd line must not end the watch in silence."""

    async def story(b: Bench) -> None:
        b.script.gives(b.seen(), positions={"auth": "p1"})
        await b.clock.settle()
        b.script.batches.append(ZeroDivisionError("a defect"))
        await b.clock.advance(6)
        assert b.script.closed == 1

        await b.clock.advance(60)

        assert b.script.opened[-1].positions == {"auth": "p1"}
        assert len(b.script.opened) == 2

    tell(story)


def test_a_rule_that_is_removed_takes_its_alerts_along(tmp_path: Path) -> None:
    """Nobody will ever see its quiet: whoever was told of it hears that it is over."""
    clock = FakeClock()

    async def story() -> None:
        async with bench(tmp_path, clock) as b:
            b.script.gives(b.seen())
            await clock.settle()
        async with bench(tmp_path, clock, rules=("silent",)) as b:
            assert await b.told() == ["alert.firing", "alert.resolved"]
            assert b.pipeline.alerts == {}

    clock.run(story())


def test_a_log_watch_that_becomes_a_probe_takes_its_rules_alerts_along(tell: Tell) -> None:
    """A probe of the same name never sees the quiet of a rule; without this the alert fires for ever."""

    async def story(b: Bench) -> None:
        b.script.blind = "permission denied"
        await b.clock.advance(700)
        b.script.gives(b.seen(), b.seen("192.0.2.2"), blind="permission denied")
        await b.clock.settle()
        assert await b.told() == ["alert.firing"] * 3
        b.pipeline.watches["ssh"] = open_watch(
            "ssh", "tcp", NoProbe(), (), POLICY, instance="web-1", notify=("ops",), timeout_s=1
        )

        await b.pipeline.retire()

        assert (await b.told())[3:] == ["alert.resolved"] * 2
        rows = await b.store.state.read(lambda c: outbox.rows(c, limit=10))
        assert all("the rule was removed" in row.delivery.data for row in rows[3:])
        # That it cannot look is the new one's to tell, or to take back.
        assert {alert.rule for alert in b.pipeline.alerts.values()} == {None, BLIND_RULE}

    tell(story)


def test_a_probe_that_becomes_a_log_watch_takes_its_alert_along(tmp_path: Path) -> None:
    """Lines that come say nothing about whether the port answers."""
    clock = FakeClock()

    async def story() -> None:
        async with bench(tmp_path, clock) as b:
            b.script.blind = "permission denied"
            await clock.advance(10)
            probe = replace(b.watch.calm, status=AlertStatus.FIRING, reason=Reason.THRESHOLD, started_at=clock.now())
            news = Transition(
                AlertStatus.OK, AlertStatus.FIRING, Reason.THRESHOLD, "", clock.now(), probe, EventType.FIRING
            )
            await b.pipeline.commit([Step(probe, True, news)], b.watch.wish, INVALID_SPAN)

            await b.pipeline.retire()

            assert await b.told() == ["alert.firing", "alert.resolved"]
            assert b.pipeline.alerts == {}
            await clock.advance(6)
            await b.pipeline.retire()
            (left,) = b.pipeline.alerts.values()
            assert left.blind_since is not None, "the log's own keeps since when it is blind"

    clock.run(story())


def test_a_thousand_alerts_of_a_rule_that_is_gone_go_in_a_few_commits(tell: Tell) -> None:
    """A reload must not stand for a minute while each of them is written to the disk by itself."""

    async def story(b: Bench) -> None:
        b.script.gives(*(b.seen(f"192.0.2.{n}") for n in range(1000)))
        await b.clock.settle()
        b.watch.rules = {}
        before = b.store.state.counts.changes

        await b.pipeline.retire()

        assert b.pipeline.alerts == {}
        assert b.store.state.counts.changes - before <= 5

    tell(story)


def test_templates_are_stored_with_the_lines_that_showed_them(tell: Tell) -> None:
    """A template told as new must not be new again after a crash."""

    async def story(b: Bench) -> None:
        seen = TemplateName("t1", "user <*> logged in", b.clock.now())
        b.script.gives(positions={"auth": "p1"}, names=[seen])

        await b.clock.settle()

        memory = await b.memory()
        assert (memory.templates, memory.positions) == ((seen,), {"auth": "p1"})

    tell(story)


def test_one_result_a_minute_is_recorded(tell: Tell) -> None:
    """The strip of a log watch shows when it fired, as that of any other."""

    async def story(b: Bench) -> None:
        await b.clock.advance(130)
        b.script.gives(b.seen())
        await b.clock.advance(60)

        assert [result.verdict for result in b.results] == [Verdict.OK, Verdict.OK, Verdict.FAILING]

    tell(story)


def test_a_flood_of_alerts_leaves_the_loop_its_turns(tell: Tell) -> None:
    """Checks and their timeouts run on it: whoever floods a log must not make everything else look slow."""

    async def story(b: Bench) -> None:
        in_one_turn: list[int] = [0]
        links = b.pipeline._links

        def count(alert: Alert) -> Any:
            in_one_turn[-1] += 1
            return links(alert)

        async def take_turns() -> None:
            while True:
                in_one_turn.append(0)
                await asyncio.sleep(0)

        b.pipeline._links = count
        turns = asyncio.create_task(take_turns())
        b.script.gives(*(b.seen(f"192.0.2.{n}") for n in range(1000)), positions={"auth": "p1"})
        while (await b.memory()).positions != {"auth": "p1"}:
            await asyncio.sleep(0)
        turns.cancel()

        assert sum(in_one_turn) == 1000
        assert max(in_one_turn) <= BREATH

    tell(story)
