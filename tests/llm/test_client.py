"""The models of the configuration as agents see them: fallbacks, spend, deadlines; over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import httpx
import httpx2
import pytest
from modelserver import ModelServer, Reply, failing

from agentd.errors import ConfigError, StoreError
from agentd.llm.actions import actions_of
from agentd.llm.client import ListedModel, Models, open_models
from agentd.llm.destination import proxy_for
from agentd.llm.port import (
    ChatMessage,
    Done,
    FailureKind,
    Model,
    ModelEvent,
    ModelFailure,
    Remark,
    Request,
    TextDelta,
    ToolSpec,
    Usage,
    collect,
    complete,
)
from agentd.llm.settings import ModelSettings
from agentd.llm.spend import BudgetSpent, OpenPurse, Quote
from agentd.llm.tokens import count_request
from agentd.testing import FakeClock

T = TypeVar("T")
PRICE = {"input": 1.0, "output": 10.0}
READ = ToolSpec("read_file", "Reads a file.", {"type": "object", "properties": {"path": {"type": "string"}}})


@dataclass
class Book:
    """A purse that keeps a record. refuses: names of models that no money is left for."""

    reserved: list[Quote] = field(default_factory=list)
    settled: list[tuple[Quote, Usage, float | None]] = field(default_factory=list)
    refuses: tuple[str, ...] = ()
    broken: Exception | None = None

    async def reserve(self, quote: Quote) -> None:
        if quote.model in self.refuses:
            raise BudgetSpent("today's $5 are spent", "daemon_per_day")
        if self.broken:
            raise self.broken
        self.reserved.append(quote)

    async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
        await asyncio.sleep(0)
        self.settled.append((quote, usage, usd))

    @property
    def models(self) -> list[str]:
        return [quote.model for quote in self.reserved]


class House:
    """Two servers, `default` with the fallback `spare`, and their purse."""

    def __init__(self, clock: FakeClock, stack: contextlib.AsyncExitStack) -> None:
        self.clock = clock
        self.purse = Book()
        self.main = ModelServer()
        self.other = ModelServer()
        self._stack = stack

    def settings(self, server: ModelServer, **more: Any) -> ModelSettings:
        given = {"provider": "openai-compatible", "model": "m", "base_url": server.url, "price": PRICE, "retries": 0}
        return ModelSettings.model_validate({**given, **more})

    def models(self, **more: ModelSettings) -> Models:
        both = {"default": self.settings(self.main, fallback=["spare"]), "spare": self.settings(self.other)}
        models = open_models({**both, **more}, purse=self.purse, clock=self.clock)
        self._stack.push_async_callback(models.close)
        return models


def story(clock: FakeClock, tell: Callable[[House], Awaitable[T]]) -> T:
    async def told() -> T:
        async with contextlib.AsyncExitStack() as stack:
            house = House(clock, stack)
            await stack.enter_async_context(house.main)
            await stack.enter_async_context(house.other)
            return await tell(house)

    return clock.run(told())


async def ask(model: Model, text: str = "Why?", **settings: Any) -> Done:
    return await complete(model, "You look at logs.", [ChatMessage("user", text)], **settings)


def question(**more: Any) -> Request:
    return Request("You look at logs.", [ChatMessage("user", "Why?")], **more)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_an_answer_says_who_gave_it_and_what_it_cost(clock: FakeClock) -> None:
    """Cost is shown by model; without the name nobody knows which one to change."""

    async def tell(house: House) -> None:
        house.main.answers(Reply("All is well.", usage={"prompt_tokens": 1000, "completion_tokens": 200}))
        done = await ask(house.models().get("default"))

        assert done.message.content == "All is well."
        assert done.model == "default"
        assert done.usd == pytest.approx(0.001 + 0.002)

    story(clock, tell)


def test_words_are_handed_on_as_they_come(clock: FakeClock) -> None:
    """Whoever watches a run sees it think; a client that collects first shows nothing for a minute."""

    async def tell(house: House) -> None:
        house.main.answers(Reply("Looking at the disk", pieces=5, hang_after=3))
        async with aclosing(cast(Any, house.models().get("default").stream(question()))) as events:
            first = await anext(events)

        assert isinstance(first, TextDelta)
        assert "Looking at the disk".startswith(first.text)

    story(clock, tell)


def test_the_most_it_may_cost_is_set_aside_before_the_call(clock: FakeClock) -> None:
    """A budget that is looked at afterwards is a report."""

    async def tell(house: House) -> None:
        seen: list[int] = []
        house.main.otherwise = lambda asked: seen.append(len(house.purse.reserved)) or "ok"  # type: ignore[func-returns-value]
        await ask(house.models().get("default"), max_tokens=500)

        [quote] = house.purse.reserved
        tokens = count_request(question())
        assert seen == [1]
        assert quote.model == "default"
        assert quote.tokens == tokens + 500
        assert quote.usd == pytest.approx((tokens * 1 + 500 * 10) / 1e6)

    story(clock, tell)


def test_what_it_took_is_settled_before_the_answer_is_handed_on(clock: FakeClock) -> None:
    """Readers leave with the last event: what comes after it may never run."""

    async def tell(house: House) -> None:
        house.main.answers(Reply("ok", usage={"prompt_tokens": 1000, "completion_tokens": 200}))
        events = house.models().get("default").stream(question())
        async for event in events:
            if isinstance(event, Done):
                [(quote, usage, usd)] = house.purse.settled
                assert quote == house.purse.reserved[0]
                assert (usage.input_tokens, usage.output_tokens) == (1000, 200)
                assert usd == pytest.approx(0.003)

    story(clock, tell)


def test_no_money_no_call(clock: FakeClock) -> None:
    """ "Stopped by the budget" means that nothing was sent."""

    async def tell(house: House) -> None:
        house.purse.refuses = ("default",)
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.kind is FailureKind.BUDGET
        assert isinstance(caught.value.__cause__, BudgetSpent)
        assert caught.value.__cause__.scope == "daemon_per_day"
        assert not house.main.requests
        assert not house.other.requests

    story(clock, tell)


def test_a_store_that_cannot_write_lets_nothing_be_spent(clock: FakeClock) -> None:
    """What is not written down is spent again after a restart."""

    async def tell(house: House) -> None:
        house.purse.broken = StoreError("the disk is full")
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.kind is FailureKind.BUDGET
        assert not house.main.requests

    story(clock, tell)


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(503, id="outage"),
        pytest.param(529, id="overload"),
        pytest.param(failing(429, "slow down"), id="rate"),
        pytest.param(failing(401, "wrong key", "invalid_api_key"), id="key"),
        pytest.param(failing(429, "no money", "insufficient_quota"), id="quota"),
    ],
)
def test_another_model_stands_in(clock: FakeClock, failure: Any) -> None:
    """One provider's bad day must not end every investigation of that day."""

    async def tell(house: House) -> None:
        house.main.otherwise = failure
        house.other.otherwise = "I stand in."
        done = await ask(house.models().get("default"))

        assert (done.message.content, done.model) == ("I stand in.", "spare")
        assert house.purse.models == ["default", "spare"]
        [(_, nothing, zero), (_, usage, usd)] = house.purse.settled
        assert (nothing.total, zero) == (0, 0.0)
        assert usage.total > 0
        assert usd == done.usd

    story(clock, tell)


def test_a_provider_that_cannot_be_reached_is_stood_in_for(clock: FakeClock) -> None:
    """Nothing listens there any more: the commonest outage of a model of one's own."""

    async def tell(house: House) -> None:
        models = house.models()
        await house.main.stop()

        assert (await ask(models.get("default"))).model == "spare"

    story(clock, tell)


def test_who_asks_is_told_that_another_is_asked(clock: FakeClock) -> None:
    """A terminal that says nothing for a while looks like a program that hangs."""

    async def tell(house: House) -> None:
        models = house.models()
        await house.main.stop()
        events = [event async for event in models.get("default").stream(question())]

        assert events[0] == Remark("model default cannot be reached: connection refused; asking spare")
        assert isinstance(events[-1], Done)
        assert events[-1].message.content == "ok"

    story(clock, tell)


def test_every_question_to_a_dead_server_is_stood_in_for_at_once(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A run asks twenty times: what each of them waited for the dead one, the living one could have answered in."""

    async def tell(house: House) -> None:
        models = house.models(default=house.settings(house.main, fallback=["spare"], retries=3))
        await house.main.stop()
        for _ in range(20):
            going = asyncio.create_task(ask(models.get("default")))
            await clock.settle()
            assert going.done()
            assert going.result().model == "spare"

        assert any("cannot be reached" in getattr(record, "error", "") for record in caplog.records)

    story(clock, tell)


def test_a_key_that_was_put_right_is_asked_with_at_once(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next question after the repair is a person's, who wants to see whether it was one."""

    async def tell(house: House) -> None:
        monkeypatch.setenv("MODEL_KEY", "one-that-ran-out")
        models = house.models(default=house.settings(house.main, api_key="${env:MODEL_KEY}"))
        house.main.otherwise = failing(401, "wrong key", "invalid_api_key")
        for _ in range(2):
            with pytest.raises(ModelFailure):
                await ask(models.get("default"))
        assert len(house.main.requests) == 1
        monkeypatch.setenv("MODEL_KEY", "the-new-one")
        house.main.otherwise = "All is well."

        assert (await ask(models.get("default"))).message.content == "All is well."

    story(clock, tell)


def test_a_server_that_does_not_speak_http_is_told_as_that(clock: FakeClock) -> None:
    """It is a wrong `base_url` and no outage: whoever reads it must know where to look."""

    async def tell(house: House) -> None:
        house.other.otherwise = Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        with pytest.raises(ModelFailure, match="base_url") as caught:
            await ask(house.models().get("spare"))

        assert caught.value.kind is FailureKind.GARBAGE
        assert len(house.other.requests) == 1

    story(clock, tell)


def test_a_provider_whose_tls_fails_is_stood_in_for(clock: FakeClock) -> None:
    """A certificate that ran out over night is an outage like others, and says what it is."""

    async def tell(house: House) -> None:
        async def answer_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer_plainly, "127.0.0.1", 0) as server:
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            models = house.models(default=house.settings(house.main, base_url=url, fallback=["spare"]))
            house.other.answers("I stand in.", 503)

            assert (await ask(models.get("default"))).model == "spare"
            with pytest.raises(ModelFailure, match="TLS"):
                await ask(models.get("default"))

    story(clock, tell)


def test_a_provider_that_says_nothing_leaves_time_for_another(clock: FakeClock) -> None:
    """It would use up the whole deadline, and its stand-in would be asked for nothing."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply(hang=True)
        going = asyncio.create_task(ask(house.models().get("default"), timeout_s=60))
        await clock.advance(29)
        assert not going.done()
        await clock.advance(1)

        assert (await going).model == "spare"

    story(clock, tell)


def test_who_was_not_answered_in_time_pays_for_the_question(clock: FakeClock) -> None:
    """The provider read it, and bills it, whether or not we waited."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply(hang=True)
        models = house.models(default=house.settings(house.main))
        going = asyncio.create_task(ask(models.get("default"), timeout_s=60))
        await clock.advance(60)
        with pytest.raises(ModelFailure) as caught:
            await going

        assert caught.value.kind is FailureKind.TIMEOUT
        [(_, usage, usd)] = house.purse.settled
        assert usage == Usage(count_request(question()), 0, estimated=True)
        assert usd is not None
        assert usd > 0

    story(clock, tell)


def test_a_question_that_was_sent_and_broke_off_is_paid_for_each_time(clock: FakeClock) -> None:
    """A proxy gave up in front of a model at work: to count that as nothing is to spend beside the budget."""

    async def tell(house: House) -> None:
        house.main.answers(Reply(raw=b""), Reply(raw=b""))
        models = house.models(default=house.settings(house.main, retries=3))
        for _ in range(2):
            with pytest.raises(ModelFailure, match="broke off before it answered") as caught:
                await ask(models.get("default"))
            assert caught.value.kind is FailureKind.CUT, "the loop asks again"

        assert len(house.main.requests) == 2
        assert [usage for _, usage, _ in house.purse.settled] == [
            Usage(count_request(question()), 0, estimated=True)
        ] * 2
        assert all(usd for *_, usd in house.purse.settled)

    story(clock, tell)


def test_what_broke_off_is_stood_in_for(clock: FakeClock) -> None:
    """Nothing of an answer was shown, so that another model can give the whole of it."""

    async def tell(house: House) -> None:
        house.main.answers(Reply(raw=b""))

        assert (await ask(house.models().get("default"))).model == "spare"

    story(clock, tell)


def test_a_model_s_own_timeout_holds_within_a_longer_request(clock: FakeClock) -> None:
    """The config says how long one model may take."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply(hang=True)
        models = house.models(default=house.settings(house.main, timeout="10s"))
        going = asyncio.create_task(ask(models.get("default"), timeout_s=600))
        await clock.advance(10)
        with pytest.raises(ModelFailure):
            await going

    story(clock, tell)


def test_a_stream_that_stalls_ends_at_the_deadline(clock: FakeClock) -> None:
    """A stream that trickles or stalls passes every timeout of a single read."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("a long answer", pieces=6, hang_after=3)
        going = asyncio.create_task(ask(house.models().get("default"), timeout_s=60))
        await clock.advance(60)
        with pytest.raises(ModelFailure) as caught:
            await going

        assert caught.value.kind is FailureKind.TIMEOUT
        assert caught.value.received
        assert not house.other.requests
        await house.main.until(lambda: house.main.open == 0)

    story(clock, tell)


def test_an_answer_that_broke_off_is_not_gone_on_with_by_another(clock: FakeClock) -> None:
    """Half a sentence of one model and half of another is no answer; the loop decides what to do."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("The disk is full because", pieces=6, cut_after=4)
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.received
        assert not house.other.requests
        [(_, usage, usd)] = house.purse.settled
        assert usage.estimated
        assert usage.input_tokens == count_request(question())
        assert usage.output_tokens > 0
        assert usd is not None
        assert usd > 0

    story(clock, tell)


OVERLOADED = Reply(stream=[{"choices": [{"index": 0, "delta": {"content": "The"}}]},
                           {"error": {"type": "overloaded_error", "message": "Overloaded"}}])  # fmt: skip
CUT = Reply("The disk is full because", pieces=6, cut_after=4)


async def asked_until_answered(house: House, model: Model) -> list[FailureKind | str]:
    """What came of each question, until one was answered, and who answered."""
    came: list[FailureKind | str] = []
    for _ in range(5):
        try:
            came.append((await ask(model)).model)
            return came
        except ModelFailure as failure:
            came.append(failure.kind)
    return came


@pytest.mark.parametrize(
    ("failure", "kinds"), [(OVERLOADED, [FailureKind.OVERLOADED]), (CUT, [FailureKind.CUT, FailureKind.CUT])]
)
def test_the_question_after_one_that_broke_off_begins_with_another(
    clock: FakeClock, failure: Reply, kinds: list[FailureKind]
) -> None:
    """Who asks again would else ask the model that breaks off each time, and pay for it; a cut alone is bad luck."""

    async def tell(house: House) -> None:
        house.main.otherwise = failure
        model = house.models().get("default")

        assert await asked_until_answered(house, model) == [*kinds, "spare"]
        # It has its chance again, but no patience any more.
        assert await asked_until_answered(house, model) == [kinds[0], "spare"]

        house.main.otherwise = "All is well."
        assert await asked_until_answered(house, model) == ["default"]

    story(clock, tell)


def test_when_all_break_off_the_first_is_asked_again(clock: FakeClock) -> None:
    """A chain of which nobody is left is no reason to ask nobody."""

    async def tell(house: House) -> None:
        house.main.answers(OVERLOADED)
        house.other.answers(OVERLOADED)

        came = await asked_until_answered(house, house.models().get("default"))

        assert came == [FailureKind.OVERLOADED, FailureKind.OVERLOADED, "default"]

    story(clock, tell)


def test_who_was_passed_over_is_asked_when_no_other_can_answer(clock: FakeClock) -> None:
    """An overload passes sooner than a wrong key."""

    async def tell(house: House) -> None:
        house.main.answers(OVERLOADED)
        house.other.otherwise = failing(401)

        came = await asked_until_answered(house, house.models().get("default"))

        assert came == [FailureKind.OVERLOADED, "default"]

    story(clock, tell)


@pytest.mark.parametrize("failure", [failing(400, "maximum context length", "context_length_exceeded")])
def test_an_overflow_is_for_the_loop_to_mend(clock: FakeClock, failure: Reply) -> None:
    """It compacts the conversation; another model would only be asked too much as well."""

    async def tell(house: House) -> None:
        house.main.otherwise = failure
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.kind is FailureKind.CONTEXT_OVERFLOW
        assert not house.other.requests

    story(clock, tell)


def test_cancelling_closes_the_connection_at_once_and_pays_for_what_came(clock: FakeClock) -> None:
    """A cancelled run must neither go on being billed nor be forgotten by the budget."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("a long answer that goes on", pieces=6, hang_after=4)
        going = asyncio.create_task(ask(house.models().get("default")))
        await house.main.until(lambda: house.main.answering == 1)
        await clock.settle()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

        await house.main.until(lambda: house.main.open == 0)
        [(_, usage, _)] = house.purse.settled
        assert usage.input_tokens == count_request(question())
        assert usage.output_tokens > 0

    story(clock, tell)


def test_a_reader_that_leaves_pays_for_what_came(clock: FakeClock) -> None:
    """Closing the iterator is how steering interrupts an answer."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("a long answer that goes on", pieces=6, hang_after=4)
        events = cast(Any, house.models().get("default").stream(question()))
        await anext(events)
        await events.aclose()

        [(_, usage, _)] = house.purse.settled
        assert usage.output_tokens > 0
        await house.main.until(lambda: house.main.open == 0)

    story(clock, tell)


def test_cancelled_before_anything_was_sent_costs_nothing(clock: FakeClock) -> None:
    """It waited for its turn under the rate."""

    async def tell(house: House) -> None:
        slow = house.settings(house.main, rate={"requests": "1/m"})
        models = house.models(default=slow)
        await ask(models.get("default"))
        going = asyncio.create_task(ask(models.get("default")))
        await clock.settle()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going

        assert house.purse.settled[1][1:] == (Usage(), 0.0)

    story(clock, tell)


def test_a_settlement_that_hangs_does_not_hold_up_a_cancelled_call(clock: FakeClock) -> None:
    """Cancel is to return at once; the settlement goes on, and closing waits for it."""

    class Slow(Book):
        async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
            await asyncio.sleep(1)
            await super().settle(quote, usage, usd)

    async def tell(house: House) -> None:
        house.purse = Slow()
        house.main.otherwise = Reply(hang=True)
        models = house.models()
        going = asyncio.create_task(ask(models.get("default")))
        await house.main.wait_for(1)
        going.cancel()
        await clock.advance(0.1)
        assert going.cancelled()

        closing = asyncio.create_task(models.close())
        await clock.advance(0.5)
        assert not closing.done()
        await clock.advance(0.5)
        await closing
        assert len(house.purse.settled) == 1

    story(clock, tell)


def test_an_answer_is_not_lost_when_it_cannot_be_settled(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """It was paid for; unsettled it counts as spent in full, which no budget minds."""

    class Broken(Book):
        async def settle(self, quote: Quote, usage: Usage, usd: float | None) -> None:
            raise StoreError("the disk is full")

    async def tell(house: House) -> None:
        house.purse = Broken()

        assert (await ask(house.models().get("default"))).message.content == "ok"
        assert "settle_failed" in caplog.text

    story(clock, tell)


def test_fallbacks_of_fallbacks_come_after_one_s_own_and_circles_end(clock: FakeClock) -> None:
    """People write `a: [b]` and `b: [a]`, and mean it well."""

    async def tell(house: House) -> None:
        models = house.models(
            default=house.settings(house.main, fallback=["b", "c"]),
            b=house.settings(house.main, fallback=["default", "d", "b"]),
            c=house.settings(house.main, fallback=["nobody"]),
            d=house.settings(house.main),
        )
        house.main.otherwise = 503
        with pytest.raises(ModelFailure) as caught:
            await ask(models.get("default"))

        assert house.purse.models == ["default", "b", "c", "d"]
        assert all(f"model {name}" in str(caught.value) for name in house.purse.models)

    story(clock, tell)


def test_when_all_fail_the_kind_is_that_of_the_model_that_was_meant(clock: FakeClock) -> None:
    """People look for the cause where they configured it."""

    async def tell(house: House) -> None:
        house.main.otherwise = failing(401, "wrong key", "invalid_api_key")
        house.other.otherwise = 503
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.kind is FailureKind.BAD_KEY

    story(clock, tell)


def test_the_budget_is_asked_before_each_fallback(clock: FakeClock) -> None:
    """A stand-in is a call like any other."""

    async def tell(house: House) -> None:
        house.main.otherwise = 503
        house.purse.refuses = ("spare",)
        with pytest.raises(ModelFailure) as caught:
            await ask(house.models().get("default"))

        assert caught.value.kind is FailureKind.BUDGET
        assert not house.other.requests

    story(clock, tell)


def test_a_stand_in_without_native_tools_is_told_how_to_act(clock: FakeClock) -> None:
    """The usual pair is a large model with tools and a small one without: offered no way to act, it could only talk."""

    async def tell(house: House) -> None:
        house.main.otherwise = 503
        house.other.otherwise = '{"type": "ToolCall", "tool": "read_file", "input": {"path": "/var/log/syslog"}}'
        models = house.models(spare=house.settings(house.other, protocol="json"))
        done = await collect(models.get("default"), question(tools=[READ]))

        [asked] = house.other.requests
        assert asked.tools == []
        assert "read_file" in asked.messages[0]["content"]
        [use] = actions_of(done.message, True).calls
        assert (use.tool, use.input) == ("read_file", {"path": "/var/log/syslog"})

    story(clock, tell)


def test_a_server_that_takes_no_tools_is_told_how_to_act_in_words(clock: FakeClock) -> None:
    """Small servers say so only when asked; the run that asks first must not fail for it."""

    async def tell(house: House) -> None:
        house.main.answers(failing(400, '"auto" tool choice requires --enable-auto-tool-choice'))
        house.main.otherwise = '{"type": "Final", "answer": "It is all well."}'
        model = house.models().get("default")
        assert model.native_tools
        done = await collect(model, question(tools=[READ]))

        assert done.model == "default"
        assert actions_of(done.message, True).final == "It is all well."
        assert not model.native_tools
        assert house.purse.models == ["default", "default"]

    story(clock, tell)


def test_a_stand_in_whose_window_is_too_small_is_passed_over(clock: FakeClock) -> None:
    """It would fail with an overflow, and the loop would throw half of the conversation away for it."""

    async def tell(house: House) -> None:
        house.main.otherwise = 503
        models = house.models(spare=house.settings(house.other, context_tokens=1000))
        with pytest.raises(ModelFailure) as caught:
            await ask(models.get("default"), "long " * 3000)

        assert caught.value.kind is not FailureKind.CONTEXT_OVERFLOW
        assert not house.other.requests

    story(clock, tell)


def test_a_stand_in_is_asked_for_no_longer_answer_than_it_can_give(clock: FakeClock) -> None:
    """Servers refuse a question whose answer would not fit the window."""

    async def tell(house: House) -> None:
        house.main.otherwise = 503
        models = house.models(spare=house.settings(house.other, context_tokens=2000, max_tokens=1500))
        await ask(models.get("default"), max_tokens=4000)

        assert house.other.requests[0].json["max_tokens"] == 1500

    story(clock, tell)


def test_models_of_one_key_share_connections_and_rate(clock: FakeClock) -> None:
    """What the provider allows, it allows to the key."""

    async def tell(house: House) -> None:
        one = house.settings(house.main, rate={"requests": "1/m"})
        models = house.models(default=one, spare=one.model_copy(update={"model": "other"}))
        await ask(models.get("default"))
        going = asyncio.create_task(ask(models.get("spare")))
        await clock.advance(59)
        assert not going.done()
        await clock.advance(1)
        await going

        assert house.main.connections == 1

    story(clock, tell)


def test_a_key_apart_is_a_rate_apart(clock: FakeClock) -> None:
    """One key that is used up must not stop the others."""

    async def tell(house: House) -> None:
        rate = {"requests": "1/m"}
        models = house.models(
            default=house.settings(house.main, rate=rate, api_key="one-key"),
            spare=house.settings(house.main, rate=rate, api_key="other-key"),
        )
        await ask(models.get("default"))

        assert (await ask(models.get("spare"))).model == "spare"

    story(clock, tell)


def test_tokens_that_an_answer_took_are_charged_to_the_next_call(clock: FakeClock) -> None:
    """The rate in tokens is what long answers break."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("ok", usage={"prompt_tokens": 1000, "completion_tokens": 11_000})
        models = house.models(default=house.settings(house.main, rate={"tokens": "6000/m"}))
        await ask(models.get("default"))
        going = asyncio.create_task(ask(models.get("default"), timeout_s=120))
        await clock.advance(59)
        assert not going.done()
        await clock.advance(5)

        assert (await going).message.content == "ok"

    story(clock, tell)


class Odd:
    """An adapter that says a word, and then does as told."""

    name, native_tools, grammar, context_tokens = "default", True, False, 32768

    def __init__(self, http: Any, end: Callable[[Any], Awaitable[None]], word: str = "") -> None:
        self._http = http
        self._end = end
        self._word = word
        self.asked: list[Request] = []

    async def stream(self, request: Request) -> AsyncIterator[ModelEvent]:
        self.asked.append(request)
        if self._word:
            yield TextDelta(self._word)
        await self._end(self._http)

    async def close(self) -> None: ...


def odd_story(
    clock: FakeClock, end: Callable[[Any], Awaitable[None]], word: str = "", **more: Any
) -> tuple[ModelFailure, Book, Odd]:
    """What comes of asking it."""

    async def told() -> tuple[ModelFailure, Book, Odd]:
        given = {"provider": "openai-compatible", "model": "m", "base_url": "http://127.0.0.1:9/v1", **more}
        purse, made = Book(), []

        def open_odd(name: str, settings: ModelSettings, http: Any) -> Model:
            made.append(Odd(http, end, word))
            return made[-1]

        settings = {"default": ModelSettings.model_validate(given)}
        models = open_models(settings, purse=purse, clock=clock, open_model=open_odd)
        going = asyncio.create_task(ask(models.get("default"), timeout_s=600))
        await clock.advance(30)
        with pytest.raises(ModelFailure) as caught:
            await going
        await models.close()
        return caught.value, purse, made[0]

    return clock.run(told())


def test_an_adapter_that_fails_in_its_own_way_is_a_failure_like_others(clock: FakeClock) -> None:
    """Libraries raise what they please; the loop knows one kind of failure."""

    async def fail(_: Any) -> None:
        raise KeyError("choices")

    failure, purse, _ = odd_story(clock, fail, "half")

    assert failure.kind is FailureKind.GARBAGE
    assert failure.received
    assert "choices" not in str(failure)
    assert len(purse.settled) == 1


def test_an_adapter_that_ends_without_an_answer_was_cut(clock: FakeClock) -> None:
    """Silence is no answer, and no end of the program either."""

    async def end(_: Any) -> None:
        return None

    assert odd_story(clock, end)[0].kind is FailureKind.CUT


def test_what_the_policy_gave_up_with_is_told_whatever_a_library_makes_of_it(clock: FakeClock) -> None:
    """Wrapped in "connection error" a rate that is used up would look like an outage."""

    async def wrap(http: Any) -> None:
        with contextlib.suppress(httpx.ConnectError):
            await http.get("http://127.0.0.1:9/v1/models")
        try:
            await http.get("http://127.0.0.1:9/v1/models")
        except Exception as error:
            raise RuntimeError("Connection error.") from error

    failure, purse, _ = odd_story(clock, wrap, rate={"requests": "1/h"})

    assert failure.kind is FailureKind.RATE_LIMITED
    assert purse.settled[0][1:] == (Usage(), 0.0)


def test_a_library_on_the_fork_is_paced_and_timed_like_others(clock: FakeClock) -> None:
    """Its client is another one; the call, its rate and its deadline are the same."""

    async def ask_twice(http: Any) -> None:
        twin = http.over_httpx2()
        with contextlib.suppress(httpx2.ConnectError):
            await twin.get("http://127.0.0.1:9/v1/models")
        await http.get("http://127.0.0.1:9/v1/models")

    failure, _, _ = odd_story(clock, ask_twice, rate={"requests": "1/h"})

    assert failure.kind is FailureKind.RATE_LIMITED


def test_an_adapter_is_told_the_time_that_is_left(clock: FakeClock) -> None:
    """Its own deadline is then never later than ours."""

    async def hang(_: Any) -> None:
        await asyncio.Event().wait()

    failure, _, odd = odd_story(clock, hang, timeout="10s")

    assert failure.kind is FailureKind.TIMEOUT
    assert odd.asked[0].timeout_s == pytest.approx(10)


def test_a_model_that_nobody_configured_is_named(clock: FakeClock) -> None:
    """A slip in a watch's `model` must say what there is."""

    async def tell(house: House) -> None:
        with pytest.raises(ConfigError, match=r"'defualt'.*default, spare"):
            house.models().get("defualt")

    story(clock, tell)


def test_many_calls_wait_in_turn(clock: FakeClock) -> None:
    """A thousand goals at once must not be a thousand connections."""

    async def tell(house: House) -> None:
        house.main.otherwise = Reply("ok", delay_s=1)
        model = house.models().get("default")
        going = [asyncio.create_task(ask(model)) for _ in range(200)]
        await clock.advance(5)

        assert {(await each).model for each in going} == {"default"}
        assert house.main.most_at_once == 64

    story(clock, tell)


def listed(models: Mapping[str, ModelSettings]) -> list[ListedModel]:
    return open_models(models, purse=OpenPurse(), clock=FakeClock()).listing()


def test_the_list_shows_what_is_there_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """`agentd models` is what people paste into tickets."""
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given: dict[str, dict[str, Any]] = {
        "mine": {"provider": "openai", "model": "gpt-5-mini", "api_key": "${env:MY_KEY}", "fallback": ["local"]},
        "bare": {"provider": "openai", "model": "gpt-nonsense"},
        "local": {
            "provider": "local", "model": "qwen3-8b", "base_url": "http://127.0.0.1:8000/v1", "protocol": "json",
            "context_tokens": 8192,
        },
    }  # fmt: skip
    found = listed({name: ModelSettings.model_validate(each) for name, each in given.items()})

    assert found == [
        ListedModel("mine", "openai", "gpt-5-mini", "present", True, 32768, "native", ("local",)),
        ListedModel("bare", "openai", "gpt-nonsense", "missing", False, 32768, "native"),
        ListedModel("local", "openai-compatible", "qwen3-8b", "not needed", False, 8192, "json"),
    ]
    assert "sk-very-secret" not in repr(found)


@pytest.mark.parametrize(
    ("scheme", "host", "proxy"),
    [
        ("https", "api.openai.com", "http://proxy.example:3128"),
        ("https", "models.internal.example", None),
        ("http", "127.0.0.1", None),
        ("http", "localhost", None),
        ("http", "::1", None),
    ],
)
def test_the_environment_s_proxy_is_for_hosts_beyond_this_machine(
    monkeypatch: pytest.MonkeyPatch, scheme: str, host: str, proxy: str | None
) -> None:
    """Many servers reach the outside by a proxy alone, and none reaches its own model through it."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", ".internal.example")

    assert proxy_for(scheme, host) == proxy
