"""What nobody could look at is no silence: sources without a past say until when that was."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from rule_script import Store, at, engine, fed, field_hit, hit, only, rule, sighting, told

from agentd.clock import Clock
from agentd.logs.opening import open_log
from agentd.logs.port import Occurrence
from agentd.logs.settings import LogSource, Rule
from agentd.logs.work import LogWork
from agentd.memory.logs import LogMemory
from agentd.testing import FakeClock

FLATLINE = rule("flatline", within="60s", resolve_after="40s")
BY_KEY = rule("flatline", within="60s", resolve_after="40s", by=["k"])
FEW = rule("cardinality", within="60s", resolve_after="40s", field="v", fewer_than=1)


@pytest.mark.parametrize("silent", [FLATLINE, BY_KEY, FEW], ids=lambda each: f"{each.type} by {each.by}")
def test_silence_begins_when_somebody_can_look_again(silent: Rule) -> None:
    """An hour's stop of ours is no hour without a line, and nobody is to be woken for it."""
    store, before = Store(), engine(silent)
    before.feed([field_hit(10, k="a", v="x")])
    before.advance(at(20))
    store.commit(before.take())

    after = engine(silent, stored=store.rows)
    after.unseen_before(at(3600))
    after.advance(at(3659))
    assert told(after.take()) == []
    after.advance(at(3661))

    assert [each[0] for each in told(after.take())] == [3660]


@pytest.mark.parametrize("silent", [FLATLINE, BY_KEY], ids=lambda each: f"by {each.by}")
@pytest.mark.parametrize("gone", [3600.0, 200_000.0])
def test_a_silence_that_was_told_goes_on_until_lines_come(silent: Rule, gone: float) -> None:
    """That we stopped ends nobody's outage: an all-clear then would be made up."""
    store, before = Store(), engine(silent)
    before.feed([field_hit(0, k="a")])
    before.advance(at(61))
    store.commit(before.take())

    after = engine(silent, stored=store.rows)
    after.unseen_before(at(gone))
    after.advance(at(gone + 1))
    assert only(after.take()).count == 0

    assert fed(after, [field_hit(gone + 2, k="a")])[-1][:2] == ("ended", gone + 2)


def test_a_clock_set_back_puts_no_silence_off() -> None:
    """The moment until which nobody looked then lies ahead, maybe for hours."""
    made = engine(FLATLINE)
    made.unseen_before(at(7200))
    made.feed([hit(0)])
    made.advance(at(10))
    made.advance(at(71))

    assert isinstance(only(made.take()), Occurrence)


def test_windows_in_which_nobody_looked_are_not_what_is_usual() -> None:
    """Or the first minutes after a night's stop would look like a burst."""
    spike = rule("spike", within="60s", times=3)
    lines = [hit(float(second)) for second in range(900)]
    store, before = Store(), engine(spike)
    before.feed(lines)
    assert told(store.commit(before.take())) == []

    after = engine(spike, stored=store.rows)
    after.unseen_before(at(9000))

    assert fed(after, [hit(float(second)) for second in range(9000, 9300)]) == []


def test_a_few_seconds_without_sight_leave_what_is_usual() -> None:
    """A reload must not make a rule deaf that has learned for hours."""
    spike = rule("spike", within="60s", times=3)
    store, before = Store(), engine(spike)
    before.feed([hit(float(second)) for second in range(900)])
    assert told(store.commit(before.take())) == []

    after = engine(spike, stored=store.rows)
    after.unseen_before(at(905))

    assert fed(after, [hit(905 + part / 20) for part in range(1200)]) != []


async def test_a_rule_that_is_added_knows_nothing_of_the_time_before_it(tmp_path: Path) -> None:
    """A reload with a new rule, or a changed one, on a watch of last year must not fire at once."""
    clock = FakeClock()
    (tmp_path / "a.log").write_text("one\n")
    started = clock.now() - timedelta(days=300)
    rules = [FLATLINE, rule("new_value", name="new", match="(?P<v>.+)", field="v", learn="60s")]
    source = LogSource(files=(str(tmp_path / "*.log"),), start_at="start")

    work = open_log("w", source, rules, clock=clock, timezone="UTC", memory=LogMemory(started))
    try:
        assert work.take().outcome.events == []
        with (tmp_path / "a.log").open("a") as file:
            file.write("two\n")
        clock.tick(1)
        assert work.take().outcome.events == []
        clock.tick(61)
        assert [event.rule for event in work.take().outcome.events] == [FLATLINE.name]
    finally:
        await work.source.close()


def test_a_novel_rule_that_is_added_has_the_templates_that_are_known() -> None:
    """A changed pattern must not make it deaf for another hour."""
    made = engine(rule("novel", learn="1h"), started=7200, templates_since=at(0))

    made.novel([sighting(7201)])

    assert [each[0] for each in told(made.take())] == [7201]


def opened(clock: Clock, *lines: str, memory: LogMemory) -> LogWork:
    script = "".join(f"echo {line}; " for line in lines) + "sleep 600"
    source = LogSource(command=("sh", "-c", script))
    return open_log("w", source, [FLATLINE], clock=clock, timezone="UTC", memory=memory)


async def test_a_command_is_not_silent_while_we_were_down() -> None:
    """The whole of it, from the child that is started to the rule."""
    clock = FakeClock()
    memory = LogMemory(started=clock.now())
    work = opened(clock, "one", memory=memory)
    windows: dict[tuple[str, str], str] = {}
    while not work.source.counters.lines:
        windows |= {key: text for key, text in work.take().outcome.windows.items() if text is not None}
    clock.tick(1)
    windows |= {key: text for key, text in work.take().outcome.windows.items() if text is not None}
    await work.source.close()
    clock.tick(3600)

    work = opened(clock, memory=LogMemory(memory.started, {}, windows))
    try:
        assert work.take().outcome.events == []
        clock.tick(59)
        assert work.take().outcome.events == []
        clock.tick(2)
        assert len(work.take().outcome.events) == 1
    finally:
        await work.source.close()
