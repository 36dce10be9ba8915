"""
How requests go to a provider: at the rate it allows, again when it stumbles, not at all while it is down.

In: an HTTP request of either client library (`httpx` and its fork `httpx2` share every name used here), with its
`Call` among the extensions, and the function that transmits it. Out: the response as it came, its body unread when
it is a good one; or the library's own error; or ModelFailure when there was no use in trying.
Promise: every wait ends within the call's deadline, is refused at once when it could not, and ends when cancelled.
Only what was not sent, or answered with a status, is tried again: a question that was sent and broke off without an
answer may be worked on and billed, so that asking anew is for whoever holds the purse; so is all after a good status.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from agentd.clock import Clock
from agentd.llm.allowance import Allowance, NoRoom
from agentd.llm.failures import MAX_BODY_BYTES, RETRIED, classify, unreachable
from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.settings import ModelRate
from agentd.pacing import Breaker, Uniform, full_jitter, retry_after_s

CALL = "agentd.call"
"""Under this name the `Call` stands in `request.extensions`."""

BASE_S = 0.5
CAP_S = 8.0
FAILURES = 5
OPEN_S = 5.0
OPEN_CAP_S = 300.0
HOLD_CAP_S = 300.0
DEFAULT_S = 120.0
_ERROR_BODY_S = 5.0
_POLL_S = 1.0
_HUNG_S = 10.0

_RETRIED = frozenset({408, 409, 425, 429})
_NEVER_RETRIED = frozenset({FailureKind.BAD_KEY, FailureKind.QUOTA, FailureKind.CONTEXT_OVERFLOW, FailureKind.FILTERED})
_SHUTS = frozenset({FailureKind.BAD_KEY, FailureKind.QUOTA})


@dataclass(slots=True, eq=False)
class Call:
    """
    One call of one model, over all its attempts.

    deadline: monotonic seconds of the clock. tokens: of the question, estimated. patient: there is nobody else to ask,
    so it waits for a provider that is being left alone, if its deadline lets it.
    sent: a request has left. cut: it broke off before any status came. answered: a good status has come.
    failure: what the policy itself gave up with.
    """

    deadline: float
    tokens: int = 0
    patient: bool = False
    sent: bool = False
    cut: bool = False
    answered: bool = False
    paid: bool = False
    failure: ModelFailure | None = None


class Door:
    """A breaker, and why it is open. Shared by all who go through it."""

    def __init__(self) -> None:
        self.breaker = Breaker(failures=FAILURES, open_s=OPEN_S, cap_s=OPEN_CAP_S)
        self.why: ModelFailure | None = None

    def failed(self, failure: ModelFailure, now: float) -> None:
        self.why = failure
        self.breaker.fail(now)

    def shut(self, failure: ModelFailure, now: float) -> None:
        """At once: trying on is no use."""
        self.why = failure
        self.breaker.trip(now)

    def succeeded(self) -> None:
        self.why = None
        self.breaker.succeed()


class Rates:
    """What the provider allows, for all models that share it."""

    def __init__(self, rate: ModelRate, clock: Clock) -> None:
        self.requests = None if rate.requests is None else Allowance(rate.requests, clock)
        self.tokens = None if rate.tokens is None else Allowance(rate.tokens, clock)


class Policy:
    """
    The policy of one model. who: model and provider, for messages. retries: beyond the first attempt.

    line: the door of the provider and key, which a bad key shuts for all its models; a model's own outage shuts its
    own door, so that a smaller model of the same provider can stand in.
    """

    def __init__(
        self,
        who: str,
        *,
        clock: Clock,
        retries: int = 3,
        rates: Rates | None = None,
        line: Door | None = None,
        rng: Uniform | None = None,
    ) -> None:
        self.who = who
        self._clock = clock
        self._retries = retries
        self._rates = rates or Rates(ModelRate(), clock)
        self._line = line or Door()
        self._own = Door()
        self._rng: Uniform = rng or random
        self._held_until = 0.0

    async def send(self, request: Any, transmit: Callable[[Any], Awaitable[Any]], http: ModuleType) -> Any:
        """http: the library that request and response belong to. Raises its TransportError, or ModelFailure."""
        call: Call = request.extensions.get(CALL) or Call(self._clock.monotonic() + DEFAULT_S)
        await request.aread()
        attempt = 0
        while True:
            attempt += 1
            await self._turn(call, patient=call.patient or attempt > 1)
            error: Exception | None = None
            started = self._clock.monotonic()
            try:
                async with asyncio.timeout(self._left_s(call)):
                    call.sent = True
                    response = await transmit(request)
                    if response.status_code < 400:
                        call.answered = True
                        self._succeeded()
                        return response
            except TimeoutError as late:
                failure = ModelFailure(f"{self.who} took too long", FailureKind.TIMEOUT)
                if self._clock.monotonic() - started >= _HUNG_S:
                    self._failed(failure)
                else:
                    self._abandoned()  # the caller was in a hurry, which says nothing of the provider
                raise self._given_up(call, failure) from late
            except http.TransportError as broken:
                error = broken
                call.cut = _was_sent(broken, http)
                again = self._broke(broken, http) and not call.cut
                pause_s = None
            except BaseException:
                self._abandoned()
                raise
            else:
                response, body = await self._whole(response, request, call, http)
                headers = response.headers
                failure = classify(response.status_code, headers, body, who=self.who, now=self._clock.now())
                again = self._refused(response.status_code, failure) and headers.get("x-should-retry") != "false"
                pause_s = self._asked_s(headers, failure)
            if again and attempt <= self._retries and await self._pause(attempt, pause_s, call):
                continue
            if error is not None:
                raise error
            return response

    def true_up(self, call: Call, tokens: int) -> None:
        """The call took so many tokens, question and answer: what is beyond its estimate is charged to the next."""
        if call.paid and self._rates.tokens is not None:
            self._rates.tokens.charge(tokens - call.tokens)

    async def _turn(self, call: Call, *, patient: bool) -> None:
        """Wait until one more request may leave. Raises ModelFailure when that is not before the deadline."""
        # Looked at first: what is refused here must not use up the rate.
        await self._admission(call, patient, self._closed_door)
        try:
            if self._rates.tokens is not None and not call.paid:
                await self._rates.tokens.take(call.tokens, within_s=self._left_s(call))
            call.paid = True
            if self._rates.requests is not None:
                await self._rates.requests.take(1, within_s=self._left_s(call))
        except NoRoom as error:
            what = f"{self.who}: the rate set for it leaves no room for {error.wait_s:.0f} s"
            failure = ModelFailure(what, FailureKind.RATE_LIMITED, retry_after_s=error.wait_s)
            raise self._given_up(call, failure) from error
        while (held_s := self._held_until - self._clock.monotonic()) > 0:
            if held_s > self._left_s(call):
                what = f"{self.who}: the provider asked to be left alone for another {held_s:.0f} s"
                raise self._given_up(call, ModelFailure(what, FailureKind.RATE_LIMITED, retry_after_s=held_s))
            await asyncio.sleep(held_s)
        await self._admission(call, patient, self._shut_door)

    async def _admission(self, call: Call, patient: bool, shut: Callable[[], Door | None]) -> None:
        while (door := shut()) is not None:
            wait_s = max(0.0, (door.breaker.retry_at() or 0.0) - self._clock.monotonic())
            why = door.why
            if not patient or (why is not None and why.kind in _SHUTS) or wait_s > self._left_s(call):
                kind = FailureKind.UNAVAILABLE if why is None else why.kind
                what = f"{self.who}: left alone for another {wait_s:.0f} s after it failed" + (
                    f": {why}" if why else ""
                )
                raise self._given_up(call, ModelFailure(what, kind, retry_after_s=wait_s)) from why
            # Somebody else's trial may open the door long before its time.
            await asyncio.sleep(min(max(wait_s, 0.01), _POLL_S))

    def _closed_door(self) -> Door | None:
        now = self._clock.monotonic()
        return next((door for door in (self._line, self._own) if door.breaker.state(now) == "open"), None)

    def _shut_door(self) -> Door | None:
        """The door that lets nobody through; None: this one may go, and be it the trial."""
        now = self._clock.monotonic()
        if not self._line.breaker.admit(now):
            return self._line
        if not self._own.breaker.admit(now):
            self._line.breaker.abandon(now)
            return self._own
        return None

    def _succeeded(self) -> None:
        self._line.succeeded()
        self._own.succeeded()

    def _failed(self, failure: ModelFailure) -> None:
        now = self._clock.monotonic()
        self._line.breaker.abandon(now)
        self._own.failed(failure, now)

    def _abandoned(self) -> None:
        now = self._clock.monotonic()
        self._line.breaker.abandon(now)
        self._own.breaker.abandon(now)

    def _broke(self, error: Exception, http: ModuleType) -> bool:
        """The connection failed before a status came. Is it worth another try?"""
        if isinstance(error, http.UnsupportedProtocol | http.LocalProtocolError):
            self._abandoned()
            return False
        self._failed(unreachable(error, who=self.who))
        return True

    def _refused(self, status: int, failure: ModelFailure) -> bool:
        """A bad status came. Is it worth another try?"""
        now = self._clock.monotonic()
        if failure.kind in _SHUTS:
            # 403 may be about this model alone; the key itself is good then.
            door, other = (self._own, self._line) if status == 403 else (self._line, self._own)
            other.breaker.abandon(now)
            door.shut(failure, now)
            return False
        if status == 429 or failure.kind is FailureKind.RATE_LIMITED:
            self._abandoned()
        elif status >= 500 or status == 408:
            self._failed(failure)
        else:
            self._succeeded()
        return (status in _RETRIED or status >= 500 or failure.kind in RETRIED) and failure.kind not in _NEVER_RETRIED

    def _asked_s(self, headers: Mapping[str, str], failure: ModelFailure) -> float | None:
        """The pause that the provider asks for; it holds for every call of this model."""
        asked_s = asked_for_s(headers, self._clock)
        if asked_s is None:
            asked_s = failure.retry_after_s
        if asked_s is not None:
            self._held_until = max(self._held_until, self._clock.monotonic() + min(asked_s, HOLD_CAP_S))
        return asked_s

    async def _pause(self, attempt: int, asked_s: float | None, call: Call) -> bool:
        """Wait before the next attempt; False at once when the deadline comes first."""
        pause_s = full_jitter(attempt, base_s=BASE_S, cap_s=CAP_S, rng=self._rng) if asked_s is None else asked_s
        if pause_s >= self._left_s(call):
            return False
        await asyncio.sleep(pause_s)
        return True

    async def _whole(self, response: Any, request: Any, call: Call, http: ModuleType) -> tuple[Any, bytes]:
        """A bad response with the beginning of its body read, and that beginning; the connection is let go."""
        body = b""
        try:
            async with asyncio.timeout(min(_ERROR_BODY_S, self._left_s(call))):
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) >= MAX_BODY_BYTES:
                        break
        except (TimeoutError, http.HTTPError):
            pass  # the status has come and decides
        except BaseException:
            self._abandoned()
            raise
        finally:
            await response.aclose()
        body = body[:MAX_BODY_BYTES]
        # The body stands there decoded and perhaps cut: what described its form on the wire is wrong now.
        gone = {"content-encoding", "content-length", "transfer-encoding"}
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in gone]
        extensions = {name: value for name, value in response.extensions.items() if name != "network_stream"}
        return http.Response(
            response.status_code, headers=headers, content=body, request=request, extensions=extensions
        ), body

    def _left_s(self, call: Call) -> float:
        return max(0.0, call.deadline - self._clock.monotonic())

    def _given_up(self, call: Call, failure: ModelFailure) -> ModelFailure:
        # Libraries between here and the caller wrap what they do not know; the caller finds it here.
        call.failure = failure
        return failure


def _was_sent(error: Exception, http: ModuleType) -> bool:
    """Whether the other side may have the whole request."""
    before = http.ConnectError | http.ConnectTimeout | http.PoolTimeout | http.ProxyError
    return not isinstance(error, before | http.UnsupportedProtocol | http.LocalProtocolError)


def asked_for_s(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or a date) ask for; None when they say nothing."""
    in_ms = retry_after_s(headers.get("retry-after-ms"), clock.now(), cap_s=3_600_000)
    return retry_after_s(headers.get("retry-after"), clock.now()) if in_ms is None else in_ms / 1000
