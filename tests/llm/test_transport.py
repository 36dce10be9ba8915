"""The policy between client and provider: rate, retries, breaker, deadline; over real HTTP, both client libraries."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import httpx
import httpx2
import pytest
from modelserver import ModelServer, Reply, failing

from agentd.llm.allowance import Allowance, NoRoom
from agentd.llm.door import FAILURES, OPEN_S, Door
from agentd.llm.policy import CALL, CAP_S, Call, Policy, Rates
from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.settings import ModelRate
from agentd.llm.transport import PolicyTransport, policy_transport2
from agentd.settings import RateLimit
from agentd.testing import FakeClock

T = TypeVar("T")
QUOTA = failing(429, "You exceeded your current quota", "insufficient_quota", "insufficient_quota")
OVERFLOW = failing(400, "maximum context length is 8192 tokens", "context_length_exceeded")


class Longest:
    def uniform(self, a: float, b: float) -> float:
        return b


class Unreachable(httpx.AsyncBaseTransport):
    """Packets go there and none comes back. asked: seconds that each connection was given."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.extensions["timeout"].get("connect") or 10.0)
        await asyncio.sleep(self.asked[-1])
        raise httpx.ConnectTimeout("no answer")


class Side:
    """One server, policies that share a clock and a line, and a client for each."""

    def __init__(self, clock: FakeClock, server: ModelServer, stack: contextlib.AsyncExitStack) -> None:
        self.clock = clock
        self.server = server
        self.line = Door()
        self.key = "first-key"
        self._stack = stack

    async def client(
        self,
        *,
        retries: int = 3,
        rates: Rates | None = None,
        line: Door | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> Client:
        policy = Policy(
            "model default",
            clock=self.clock,
            retries=retries,
            rates=rates,
            line=line or self.line,
            rng=Longest(),
            key=lambda: self.key,
        )
        inner = await self._stack.enter_async_context(inner or httpx.AsyncHTTPTransport(verify=False))
        http = httpx.AsyncClient(transport=PolicyTransport(policy, inner), timeout=None)
        return Client(self, policy, await self._stack.enter_async_context(http))


class Client:
    def __init__(self, side: Side, policy: Policy, http: httpx.AsyncClient) -> None:
        self.policy = policy
        self._side = side
        self._http = http

    def call(self, *, within_s: float = 120.0, tokens: int = 0, patient: bool = True) -> Call:
        return Call(self._side.clock.monotonic() + within_s, tokens, patient)

    async def post(self, call: Call | None = None, **more: Any) -> httpx.Response:
        url = f"{self._side.server.url}/chat/completions"
        extensions = {CALL: call or self.call(**more)}
        return await self._http.post(url, json={"model": "m", "stream": False}, extensions=extensions)


def story(clock: FakeClock, tell: Callable[[Side], Awaitable[T]]) -> T:
    async def told() -> T:
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(ModelServer())
            return await tell(Side(clock, server, stack))

    return clock.run(told())


async def after(clock: FakeClock, seconds: float, going: asyncio.Task[T]) -> T:
    """What comes of a task that needs exactly so much time."""
    if seconds:
        await clock.advance(seconds - 0.001)
        assert not going.done(), "it did not wait"
        await clock.advance(0.001)
    else:
        await clock.settle()
    assert going.done(), "it waits for longer"
    return going.result()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_a_passing_failure_is_tried_again(clock: FakeClock, status: int) -> None:
    """A provider stumbles daily; a run must not end for it."""

    async def tell(side: Side) -> None:
        side.server.answers(status, status)
        response = await after(clock, 1.5, asyncio.create_task((await side.client()).post()))

        assert response.status_code == 200
        assert len(side.server.requests) == 3

    story(clock, tell)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_will_never_do_is_not_tried_again(clock: FakeClock, status: int) -> None:
    """The same wrong question is as wrong the second time."""

    async def tell(side: Side) -> None:
        side.server.otherwise = status

        assert (await (await side.client()).post()).status_code == status
        assert len(side.server.requests) == 1

    story(clock, tell)


@pytest.mark.parametrize("status", [400, 413, 429, 500])
def test_a_context_overflow_is_never_an_outage(clock: FakeClock, status: int) -> None:
    """Some servers answer 500 to a question that is too long: asking it again four times helps nobody."""

    async def tell(side: Side) -> None:
        side.server.otherwise = Reply(status=status, body=OVERFLOW.body)

        assert (await (await side.client()).post()).status_code == status
        assert len(side.server.requests) == 1

    story(clock, tell)


def test_the_last_answer_is_handed_on_when_retries_are_used_up(clock: FakeClock) -> None:
    """The adapter tells people what the provider said, so it must see it."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(503, "come back later")
        response = await after(clock, 0.5 + 1 + 2, asyncio.create_task((await side.client()).post()))

        assert response.status_code == 503
        assert response.json()["error"]["message"] == "come back later"
        assert len(side.server.requests) == 4

    story(clock, tell)


def test_waits_between_attempts_double_to_their_cap(clock: FakeClock) -> None:
    """A provider that is down must not be hammered, nor forgotten for minutes."""

    async def tell(side: Side) -> None:
        side.server.otherwise = 409
        going = asyncio.create_task((await side.client(retries=6)).post())
        await after(clock, 0.5 + 1 + 2 + 4 + CAP_S + CAP_S, going)

        gaps = [b.at - a.at for a, b in zip(side.server.requests, side.server.requests[1:], strict=False)]
        assert gaps == pytest.approx([0.5, 1, 2, 4, CAP_S, CAP_S], abs=0.01)

    story(clock, tell)


def headers_of(clock: FakeClock) -> dict[str, dict[str, str]]:
    date = format_datetime(clock.now() + timedelta(seconds=7), usegmt=True)
    return {
        "seconds": {"retry-after": "7"},
        "milliseconds": {"retry-after-ms": "7000", "retry-after": "60"},
        "date": {"retry-after": date},
    }


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_the_provider_asks_for_is_kept(clock: FakeClock, form: str, status: int) -> None:
    """Who comes back earlier is limited for longer."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(status=status, headers=headers_of(clock)[form], body="later"))
        response = await after(clock, 7, asyncio.create_task((await side.client()).post()))

        assert response.status_code == 200

    story(clock, tell)


def test_a_wait_beyond_the_deadline_is_not_begun(clock: FakeClock) -> None:
    """Sleeping until the deadline and failing then would only keep a fallback from its turn."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(429, "slow down", retry_after="60")
        response = await (await side.client()).post(within_s=30)

        assert response.status_code == 429
        assert len(side.server.requests) == 1

    story(clock, tell)


def test_others_wait_too_when_the_provider_asked_for_it(clock: FakeClock) -> None:
    """Eight workers that each learn of the same limit by running into it raise it for all."""

    async def tell(side: Side) -> None:
        side.server.answers(failing(429, "slow down", retry_after="20"))
        client = await side.client()
        first = asyncio.create_task(client.post())
        await clock.settle()
        other = asyncio.create_task(client.post())

        await after(clock, 20, other)
        assert (await first).status_code == 200
        assert len(side.server.requests) == 3

    story(clock, tell)


def test_who_cannot_wait_as_long_as_was_asked_is_told_at_once(clock: FakeClock) -> None:
    """It may ask another model instead."""

    async def tell(side: Side) -> None:
        side.server.answers(failing(429, "slow down", retry_after="60"))
        client = await side.client()
        await client.post(within_s=30)

        with pytest.raises(ModelFailure) as caught:
            await client.post(within_s=30)
        assert caught.value.kind is FailureKind.RATE_LIMITED
        assert caught.value.retry_after_s == pytest.approx(60)
        assert len(side.server.requests) == 1

    story(clock, tell)


def test_a_server_that_says_not_to_retry_is_obeyed(clock: FakeClock) -> None:
    """OpenAI and Anthropic say so by a header of their own."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(500, "no", x_should_retry="false")
        await (await side.client()).post()

        assert len(side.server.requests) == 1

    story(clock, tell)


def test_a_refused_connection_is_tried_again(clock: FakeClock) -> None:
    """A local server that restarts is back in a second."""

    async def tell(side: Side) -> None:
        await side.server.stop()
        going = asyncio.create_task((await side.client()).post())
        await clock.advance(0.1)
        assert not going.done()
        await side.server.start()
        await clock.advance(3)

        assert going.result().status_code == 200

    story(clock, tell)


def test_a_connection_that_always_fails_ends_with_the_library_s_own_error(clock: FakeClock) -> None:
    """The adapter turns it into words, as it does with those that come in mid-stream."""

    async def tell(side: Side) -> None:
        await side.server.stop()
        going = asyncio.create_task((await side.client()).post())
        await clock.advance(4)

        with pytest.raises(httpx.ConnectError):
            await going

    story(clock, tell)


def test_a_server_that_refuses_connections_is_waited_for_no_longer_than_its_retries(clock: FakeClock) -> None:
    """The second question waited for half a minute at the door that the first had shut, and told nobody."""

    async def tell(side: Side) -> None:
        await side.server.stop()
        client = await side.client()
        for _ in range(2 * FAILURES):
            going = asyncio.create_task(client.post())
            with pytest.raises(httpx.ConnectError):
                await after(clock, 0.5 + 1 + 2, going)

    story(clock, tell)


def test_a_server_that_refused_is_asked_the_moment_it_listens(clock: FakeClock) -> None:
    """Somebody has just started it: "left alone for another four minutes" is no answer to them."""

    async def tell(side: Side) -> None:
        await side.server.stop()
        client = await side.client(retries=0)
        for _ in range(3 * FAILURES):
            with pytest.raises(httpx.ConnectError):
                await client.post()
        await side.server.start()

        assert (await client.post(patient=False)).status_code == 200

    story(clock, tell)


def test_a_refused_connection_is_not_tried_again_while_there_is_another_model(clock: FakeClock) -> None:
    """The other one answers in the time that the pause would take."""

    async def tell(side: Side) -> None:
        await side.server.stop()
        client = await side.client()
        for _ in range(2 * FAILURES):
            with pytest.raises(httpx.ConnectError):
                await after(clock, 0, asyncio.create_task(client.post(patient=False)))

    story(clock, tell)


def test_a_host_that_cannot_be_reached_is_tried_once(clock: FakeClock) -> None:
    """TCP has tried again all that time; three more of it keep a run for a minute."""

    async def tell(side: Side) -> None:
        nowhere = Unreachable()
        client = await side.client(inner=nowhere)
        with pytest.raises(httpx.ConnectTimeout):
            await after(clock, 10, asyncio.create_task(client.post()))
        with pytest.raises(ModelFailure, match="no connection in time"):
            await after(clock, 0, asyncio.create_task(client.post(patient=False)))

        assert len(nowhere.asked) == 1

    story(clock, tell)


def test_a_host_that_cannot_be_reached_gets_a_moment_while_there_is_another_model(clock: FakeClock) -> None:
    """Of a hundred hosts that do not answer within three seconds hardly one answers within ten."""

    async def tell(side: Side) -> None:
        client = await side.client(inner=Unreachable())
        with pytest.raises(httpx.ConnectTimeout):
            await after(clock, 3, asyncio.create_task(client.post(patient=False)))

    story(clock, tell)


@pytest.mark.parametrize("status", [429, 503, 529])
def test_an_overload_is_tried_once_more_while_there_is_another_model(clock: FakeClock, status: int) -> None:
    """A stumble is cheaper to bear than another model's price; a longer one is not."""

    async def tell(side: Side) -> None:
        side.server.otherwise = status
        response = await after(clock, 0.5, asyncio.create_task((await side.client()).post(patient=False)))

        assert response.status_code == status
        assert len(side.server.requests) == 2

    story(clock, tell)


@pytest.mark.parametrize(("asked", "waited", "requests"), [("7", 0, 1), ("1", 1, 2)])
def test_a_wait_that_is_asked_for_is_kept_only_if_short_while_there_is_another_model(
    clock: FakeClock, asked: str, waited: float, requests: int
) -> None:
    """The other is there to be asked just then; and it is not asked in vain again before the wait is over."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(429, "slow down", retry_after=asked)
        client = await side.client()
        await after(clock, waited, asyncio.create_task(client.post(patient=False)))
        assert len(side.server.requests) == requests
        if not waited:
            with pytest.raises(ModelFailure, match="left alone for another 7 s"):
                await client.post(patient=False)

    story(clock, tell)


def test_a_question_that_was_sent_and_broke_off_is_not_sent_again(clock: FakeClock) -> None:
    """The provider may be at work on it, and bills it: another one is another call, with money set aside for it."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(raw=b""))
        client = await side.client()
        call = client.call()
        going = asyncio.create_task(client.post(call))
        await clock.advance(10)

        with pytest.raises(httpx.TransportError):
            await going
        assert len(side.server.requests) == 1
        assert call.cut

    story(clock, tell)


def test_after_the_first_byte_nothing_is_tried_again(clock: FakeClock) -> None:
    """Half an answer was paid for and shown already: what to do about it is the loop's matter."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(stream=["x", "y"], cut_after=1))
        client = await side.client()

        with pytest.raises(httpx.RemoteProtocolError):
            await client.post()
        assert len(side.server.requests) == 1

    story(clock, tell)


def test_an_answer_s_body_is_not_waited_for(clock: FakeClock) -> None:
    """A policy that reads the body would turn every stream into a long silence."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(stream=["first", "second"], hang_after=1))
        client = await side.client()
        inner = client._http
        request = inner.build_request("POST", f"{side.server.url}/chat/completions", json={})
        response = await inner.send(request, stream=True)

        assert await anext(response.aiter_bytes()) == b"data: first\n\n"
        await response.aclose()

    story(clock, tell)


def test_an_endless_error_is_cut(clock: FakeClock) -> None:
    """The text of an error is for one line of a message; a hostile server may send it for ever."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(status=400, stream=[b"x" * 60_000] * 50))
        response = await (await side.client()).post()

        assert len(response.content) == 64 * 1024
        await side.server.until(lambda: side.server.answering == 0)

    story(clock, tell)


def test_a_packed_error_is_handed_on_unpacked(clock: FakeClock) -> None:
    """Its headers spoke of the packed form; whoever believed them would fail to read it."""

    async def tell(side: Side) -> None:
        packed = gzip.compress(b'{"error": {"message": "no such model"}}' * 50)
        side.server.answers(Reply(status=404, headers={"Content-Encoding": "gzip"}, body=packed))
        response = await (await side.client()).post()

        assert response.content.startswith(b'{"error": {"message": "no such model"}}')
        assert int(response.headers["content-length"]) == len(response.content)

    story(clock, tell)


def test_an_error_whose_body_never_ends_is_still_that_error(clock: FakeClock) -> None:
    """The status decides; five seconds for its explanation are enough."""

    async def tell(side: Side) -> None:
        side.server.answers(Reply(status=400, stream=["why", "and"], hang_after=1))
        response = await after(clock, 5, asyncio.create_task((await side.client()).post()))

        assert response.status_code == 400
        assert b"why" in response.content

    story(clock, tell)


def test_no_answer_by_the_deadline_is_a_timeout(clock: FakeClock) -> None:
    """A provider that accepts and says nothing must not hold a run for ever."""

    async def tell(side: Side) -> None:
        side.server.otherwise = Reply(hang=True)
        client = await side.client()
        call = client.call(within_s=30)
        going = asyncio.create_task(client.post(call))
        with pytest.raises(ModelFailure) as caught:
            await after(clock, 30, going)

        assert caught.value.kind is FailureKind.TIMEOUT
        assert call.failure is caught.value
        await side.server.until(lambda: side.server.open == 0)

    story(clock, tell)


@pytest.mark.parametrize("place", ["answer", "back-off", "rate"])
def test_cancelling_ends_every_wait_at_once(clock: FakeClock, place: str) -> None:
    """A person who presses Ctrl-C does not wait for a back-off."""

    async def tell(side: Side) -> None:
        rates = Rates(ModelRate(requests=RateLimit(1, 60)), clock)
        client = await side.client(rates=rates if place == "rate" else None)
        side.server.otherwise = {"answer": Reply(hang=True), "back-off": 503, "rate": 200}[place]  # type: ignore[assignment]
        if place == "rate":
            await client.post()
        going = asyncio.create_task(client.post())
        await clock.settle()
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await side.server.until(lambda: side.server.answering == 0)

    story(clock, tell)


def test_requests_wait_for_their_turn(clock: FakeClock) -> None:
    """Keeping to the rate costs seconds, running into it costs minutes."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(requests=RateLimit(2, 60)), clock))
        await client.post()
        await client.post()

        await after(clock, 30, asyncio.create_task(client.post()))

    story(clock, tell)


def test_tokens_wait_by_estimate(clock: FakeClock) -> None:
    """The rate that large questions break is that of tokens."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(tokens=RateLimit(6000, 60)), clock))
        await client.post(tokens=5000)

        await after(clock, 20, asyncio.create_task(client.post(tokens=3000)))

    story(clock, tell)


def test_an_overrun_is_charged_to_the_next_call(clock: FakeClock) -> None:
    """An answer's length is not known beforehand; over a minute the rate must hold all the same."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(tokens=RateLimit(6000, 60)), clock))
        call = client.call(tokens=1000)
        await client.post(call)
        client.policy.true_up(call, 8000)

        await after(clock, 30, asyncio.create_task(client.post(tokens=1000)))

    story(clock, tell)


def test_what_was_estimated_too_high_is_not_given_back(clock: FakeClock) -> None:
    """The provider counts by its own estimate, too, and gives nothing back."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(tokens=RateLimit(6000, 60)), clock))
        call = client.call(tokens=6000)
        await client.post(call)
        client.policy.true_up(call, 10)

        await after(clock, 10, asyncio.create_task(client.post(tokens=1000)))

    story(clock, tell)


def test_a_question_larger_than_the_bucket_goes_when_it_is_full(clock: FakeClock) -> None:
    """It can never fit; waiting for the impossible would be a hang, and sending it for nothing a lie."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(tokens=RateLimit(6000, 60)), clock))
        await client.post(tokens=9000)

        await after(clock, 40, asyncio.create_task(client.post(tokens=1000)))

    story(clock, tell)


def test_tokens_are_taken_once_however_often_a_call_is_tried(clock: FakeClock) -> None:
    """A refused question was not read."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(tokens=RateLimit(6000, 60)), clock))
        side.server.answers(503)
        await after(clock, 0.5, asyncio.create_task(client.post(tokens=3000)))

        assert (await client.post(tokens=3000)).status_code == 200

    story(clock, tell)


def test_a_rate_that_leaves_no_room_before_the_deadline_says_so_at_once(clock: FakeClock) -> None:
    """A fallback then has all the time."""

    async def tell(side: Side) -> None:
        client = await side.client(rates=Rates(ModelRate(requests=RateLimit(1, 60)), clock))
        await client.post()
        with pytest.raises(ModelFailure) as caught:
            await client.post(within_s=30)

        assert caught.value.kind is FailureKind.RATE_LIMITED
        assert caught.value.retry_after_s == pytest.approx(60)

    story(clock, tell)


def test_first_come_first_served(clock: FakeClock) -> None:
    """aiolimiter lets small amounts overtake a large one for ever."""

    async def told() -> None:
        allowance = Allowance(RateLimit(100, 100), clock)
        await allowance.take(100, within_s=0)
        order: list[int] = []

        async def take(amount: int) -> None:
            await allowance.take(amount, within_s=1000)
            order.append(amount)

        waiting = [asyncio.create_task(take(amount)) for amount in (90, 1, 2)]
        await clock.advance(93)
        await asyncio.gather(*waiting)

        assert order == [90, 1, 2]

    clock.run(told())


def test_who_gives_up_waiting_pays_nothing(clock: FakeClock) -> None:
    """Cancelled runs must not slow the others down."""

    async def told() -> None:
        allowance = Allowance(RateLimit(10, 10), clock)
        await allowance.take(10, within_s=0)
        waiting = asyncio.create_task(allowance.take(10, within_s=100))
        await clock.settle()
        waiting.cancel()
        await asyncio.wait({waiting})

        assert allowance.wait_s(1) == pytest.approx(1)
        with pytest.raises(NoRoom):
            await allowance.take(5, within_s=4.9)

    clock.run(told())


def test_a_provider_that_is_down_is_left_alone(clock: FakeClock) -> None:
    """Each run that finds out by itself waits out all its retries."""

    async def tell(side: Side) -> None:
        side.server.otherwise = 503
        client = await side.client(retries=0)
        for _ in range(FAILURES):
            await client.post()

        with pytest.raises(ModelFailure, match="asked again in 5 s; before that: model default answered 503") as caught:
            await client.post(patient=False)
        assert caught.value.kind is FailureKind.OVERLOADED or caught.value.kind is FailureKind.UNAVAILABLE
        assert len(side.server.requests) == FAILURES

        side.server.otherwise = 200
        await clock.advance(OPEN_S)
        assert (await client.post()).status_code == 200
        assert (await client.post()).status_code == 200

    story(clock, tell)


def test_who_has_nobody_else_to_ask_waits_for_the_provider(clock: FakeClock) -> None:
    """Failing at once helps only those who have a fallback."""

    async def tell(side: Side) -> None:
        side.server.otherwise = 503
        client = await side.client(retries=0)
        for _ in range(FAILURES):
            await client.post()
        side.server.otherwise = "well again"

        assert (await after(clock, OPEN_S, asyncio.create_task(client.post(patient=True)))).status_code == 200

    story(clock, tell)


def test_a_provider_that_stays_down_is_waited_for_once(clock: FakeClock) -> None:
    """5 s, 10 s, 20 s at the door, one after the other, are half a minute in which a run does nothing."""

    async def tell(side: Side) -> None:
        side.server.otherwise = 503
        client = await side.client()
        for _ in range(2):
            await after(clock, 0.5 + 1 + 2, asyncio.create_task(client.post()))
        # The fifth failure was the second question's first.
        trial = await after(clock, OPEN_S - 0.5 - 1 - 2, asyncio.create_task(client.post()))
        assert trial.status_code == 503
        with pytest.raises(ModelFailure, match="asked again in"):
            await after(clock, 0, asyncio.create_task(client.post()))

    story(clock, tell)


def test_a_hiccup_under_many_workers_fails_none_of_them(clock: FakeClock) -> None:
    """Eight calls that fail at once open the breaker; their retries must still get through."""

    async def tell(side: Side) -> None:
        side.server.answers(*[503] * 8)
        client = await side.client()
        going = [asyncio.create_task(client.post()) for _ in range(8)]
        await clock.advance(OPEN_S + 2)

        assert [(await each).status_code for each in going] == [200] * 8

    story(clock, tell)


@pytest.mark.parametrize("refusal", [failing(401, "invalid api key", "invalid_api_key"), QUOTA], ids=["key", "quota"])
def test_a_bad_key_shuts_the_provider_for_all_its_models(clock: FakeClock, refusal: Reply) -> None:
    """Asking on with a wrong key gets an address banned, and no money comes of asking."""

    async def tell(side: Side) -> None:
        side.server.otherwise = refusal
        one, other = await side.client(), await side.client()
        stranger = await side.client(line=Door())
        assert (await one.post()).status_code in (401, 429)

        for client in (one, other):
            with pytest.raises(ModelFailure) as caught:
                await client.post(patient=True)
            assert caught.value.kind in (FailureKind.BAD_KEY, FailureKind.QUOTA)
        assert len(side.server.requests) == 1

        side.server.otherwise = 200
        assert (await stranger.post()).status_code == 200
        await clock.advance(OPEN_S)
        assert (await other.post()).status_code == 200, "a key that was put right works again"

    story(clock, tell)


@pytest.mark.parametrize("status", [401, 403])
def test_another_key_is_asked_with_at_once(clock: FakeClock, status: int) -> None:
    """Whoever has just put the key right must not read what was wrong with the one before."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(status, "invalid api key", "invalid_api_key")
        client = await side.client()
        await client.post()
        with pytest.raises(ModelFailure, match="asked again in 5 s, or at once when its key is another"):
            await client.post()
        side.key = "second-key"
        side.server.otherwise = 200

        assert (await client.post()).status_code == 200
        assert len(side.server.requests) == 2

    story(clock, tell)


def test_many_refusals_of_one_key_are_one(clock: FakeClock) -> None:
    """Eight workers that learn of a wrong key together would shut it for five minutes, and not for five seconds."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(401, "invalid api key", "invalid_api_key")
        client = await side.client()
        await asyncio.gather(*(client.post() for _ in range(8)))
        side.server.otherwise = 200
        await clock.advance(OPEN_S)

        assert (await client.post()).status_code == 200

    story(clock, tell)


def test_the_wait_that_is_told_is_never_zero(clock: FakeClock) -> None:
    """ "Another 0 s" sends people back at once, to read the same again."""

    async def tell(side: Side) -> None:
        side.server.otherwise = failing(401, "invalid api key", "invalid_api_key")
        client = await side.client()
        await client.post()
        await clock.advance(OPEN_S - 0.2)
        with pytest.raises(ModelFailure, match="asked again in 1 s"):
            await client.post()

    story(clock, tell)


def test_an_outage_of_one_model_leaves_the_others(clock: FakeClock) -> None:
    """The smaller model of the same provider is the usual fallback."""

    async def tell(side: Side) -> None:
        side.server.otherwise = 529
        large, small = await side.client(retries=0), await side.client(retries=0)
        for _ in range(FAILURES):
            await large.post()
        side.server.otherwise = 200

        assert (await small.post()).status_code == 200

    story(clock, tell)


def test_a_model_that_is_down_does_not_use_up_its_provider_s_trial(clock: FakeClock) -> None:
    """Otherwise nobody would find out for minutes that the key was put right."""

    async def tell(side: Side) -> None:
        down, well = await side.client(retries=0), await side.client(retries=0)
        side.server.otherwise = 503
        for _ in range(FAILURES):
            await down.post()
        await clock.advance(OPEN_S)
        await down.post()  # its trial fails, and it is left alone for twice as long
        side.server.otherwise = failing(401, "invalid api key", "invalid_api_key")
        await well.post()
        side.server.otherwise = 200
        await clock.advance(OPEN_S)
        with pytest.raises(ModelFailure):
            await down.post(patient=False)

        assert (await well.post()).status_code == 200

    story(clock, tell)


def test_what_is_refused_uses_up_no_rate(clock: FakeClock) -> None:
    """Otherwise the rate is spent on calls that were never made."""

    async def tell(side: Side) -> None:
        client = await side.client(retries=0, rates=Rates(ModelRate(requests=RateLimit(7, 3600)), clock))
        side.server.otherwise = 503
        for _ in range(FAILURES):
            await client.post()
        for _ in range(20):
            with pytest.raises(ModelFailure):
                await client.post(patient=False)
        side.server.otherwise = 200
        await clock.advance(OPEN_S)

        assert (await client.post()).status_code == 200

    story(clock, tell)


def test_callers_in_a_hurry_do_not_shut_the_door(clock: FakeClock) -> None:
    """A second was too short for the answer: that is no outage."""

    async def tell(side: Side) -> None:
        side.server.otherwise = Reply(hang=True)
        client = await side.client()
        for _ in range(FAILURES + 1):
            going = asyncio.create_task(client.post(within_s=1))
            await clock.advance(1)
            with pytest.raises(ModelFailure):
                await going
        side.server.otherwise = 200

        assert (await client.post()).status_code == 200

    story(clock, tell)


def test_the_fork_of_the_library_gets_the_same_policy(clock: FakeClock) -> None:
    """Half of the providers' libraries have moved to it."""

    async def tell(side: Side) -> None:
        side.server.answers(failing(429, "slow down", retry_after="3"), failing(503, "one more"), failing(404, "gone"))
        policy = Policy("model default", clock=clock, rng=Longest())
        async with (
            httpx2.AsyncHTTPTransport(verify=False) as inner,
            httpx2.AsyncClient(transport=policy_transport2(policy, inner), timeout=None) as http,
        ):
            going = asyncio.create_task(http.post(f"{side.server.url}/chat/completions", json={}))
            response = await after(clock, 3 + 1, going)

            assert response.status_code == 404
            assert response.json()["error"]["message"] == "gone"

    story(clock, tell)


def test_a_body_that_comes_as_a_stream_is_sent_whole_each_time(clock: FakeClock) -> None:
    """A retry that sends nothing would be answered with an error that nobody understands."""

    async def tell(side: Side) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b'{"model": '
            yield b'"m"}'

        side.server.answers(503)
        client = await side.client()
        headers = {"Content-Length": "14"}
        going = asyncio.create_task(
            client._http.post(f"{side.server.url}/chat/completions", content=body(), headers=headers)
        )
        await after(clock, 0.5, going)

        assert [asked.body for asked in side.server.requests] == [b'{"model": "m"}'] * 2

    story(clock, tell)
