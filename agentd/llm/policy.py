"""
How requests go to a provider: at the rate it allows, again when it stumbles, not at all while it is down.

In: an HTTP request of either client library (`httpx` and its fork `httpx2` share every name used here), with its
`Call` among the extensions, and the function that transmits it. Out: the response as it came, its body unread when
it is a good one; or the library's own error; or ModelFailure when there was no use in trying.
Promise: every wait ends within the call's deadline, is refused at once when it could not, and ends when cancelled.
Only what was not sent, or answered with a status, is tried again: a question that was sent and broke off without an
answer may be worked on and billed, so that asking anew is for whoever holds the purse; so is all after a good status.
While there is another model to ask, a provider that is down or wants to be waited for costs no more than a moment. When
there is none, one that is down costs the pauses between its retries, or six seconds at its door.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from agentd.clock import Clock
from agentd.llm.allowance import Allowance, NoRoom
from agentd.llm.door import OPEN_S, SHUTS, Door
from agentd.llm.failures import MAX_BODY_BYTES, RETRIED, classify, unreachable
from agentd.llm.port import FailureKind, ModelFailure
from agentd.llm.settings import ModelRate
from agentd.pacing import Uniform, full_jitter, retry_after_s

log = logging.getLogger(__name__)

CALL = "agentd.call"
"""Under this name the `Call` stands in `request.extensions`."""

BASE_S = 0.5
CAP_S = 8.0
PATIENCE_S = OPEN_S + 1.0
"""Who has nobody else to ask waits so long at a shut door: the first time that it is shut, and the trial after that."""
SHORT_S = 1.0
"""A pause that is borne while there is another model to ask."""
SHORT_CONNECT_S = 3.0
"""What a connection may take while there is another model to ask: TCP has tried it twice by then."""
HOLD_CAP_S = 300.0
DEFAULT_S = 120.0
_ERROR_BODY_S = 5.0
_POLL_S = 1.0
_HUNG_S = 10.0
_SLOW_S = 1.0

_RETRIED = frozenset({408, 409, 425, 429})
_NEVER_RETRIED = frozenset({FailureKind.BAD_KEY, FailureKind.QUOTA, FailureKind.CONTEXT_OVERFLOW, FailureKind.FILTERED})


@dataclass(slots=True, eq=False)
class Call:
    """
    One call of one model, over all its attempts.

    deadline: monotonic seconds of the clock. tokens: of the question, estimated. patient: there is nobody else to ask,
    so that it is worth while to wait for a provider that is down.
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


class Rates:
    """What the provider allows, for all models that share it."""

    def __init__(self, rate: ModelRate, clock: Clock) -> None:
        self.requests = None if rate.requests is None else Allowance(rate.requests, clock)
        self.tokens = None if rate.tokens is None else Allowance(rate.tokens, clock)


class Policy:
    """
    The policy of one model. who: model and provider, for messages. retries: beyond the first attempt. key: gives the
    key as it is now.

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
        key: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.who = who
        self._clock = clock
        self._retries = retries
        self._rates = rates or Rates(ModelRate(), clock)
        self._line = line or Door()
        self._own = Door()
        self._rng: Uniform = rng or random
        self._key_now = key
        self._held_until = 0.0

    async def send(self, request: Any, transmit: Callable[[Any], Awaitable[Any]], http: ModuleType) -> Any:
        """http: the library that request and response belong to. Raises its TransportError, or ModelFailure."""
        call: Call = request.extensions.get(CALL) or Call(self._clock.monotonic() + DEFAULT_S, patient=True)
        await request.aread()
        key = self._key_now()
        self._line.shown(key)
        self._own.shown(key)
        retries = self._retries
        if not call.patient:
            retries = min(retries, 1)
            _hurry(request)
        attempt = 0
        while True:
            attempt += 1
            if await self._turn(call, again=attempt > 1):
                retries = 0  # it was left alone until now: what comes of this one trial is the answer
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
                again = self._broke(broken, http, self._clock.monotonic() - started) and call.patient
                pause_s = None
            except BaseException:
                self._abandoned()
                raise
            else:
                response, body = await self._whole(response, request, call, http)
                headers = response.headers
                failure = classify(response.status_code, headers, body, who=self.who, now=self._clock.now())
                again = self._refused(response.status_code, failure, key) and headers.get("x-should-retry") != "false"
                pause_s = self._asked_s(headers, failure)
            if again and attempt <= retries and await self._pause(attempt, pause_s, call):
                continue
            if error is not None:
                raise error
            return response

    def true_up(self, call: Call, tokens: int) -> None:
        """The call took so many tokens, question and answer: what is beyond its estimate is charged to the next."""
        if call.paid and self._rates.tokens is not None:
            self._rates.tokens.charge(tokens - call.tokens)

    async def _turn(self, call: Call, *, again: bool) -> bool:
        """
        Wait until one more request may leave; True: it is the trial of a provider that is being left alone.

        again: it has failed in this call before. Raises ModelFailure when its turn does not come in time.
        """
        # Looked at first: what is refused here must not use up the rate.
        await self._admission(call, again, self._closed_door)
        try:
            if self._rates.tokens is not None and not call.paid:
                await self._rates.tokens.take(call.tokens, within_s=self._left_s(call))
            call.paid = True
            if self._rates.requests is not None:
                await self._rates.requests.take(1, within_s=self._left_s(call))
        except NoRoom as error:
            what = f"{self.who}: the rate set for it leaves no room for {math.ceil(error.wait_s)} s"
            failure = ModelFailure(what, FailureKind.RATE_LIMITED, retry_after_s=error.wait_s)
            raise self._given_up(call, failure) from error
        while (held_s := self._held_until - self._clock.monotonic()) > 0:
            if held_s > self._bearable_s(call):
                what = f"{self.who}: the provider asked to be left alone for another {math.ceil(held_s)} s"
                raise self._given_up(call, ModelFailure(what, FailureKind.RATE_LIMITED, retry_after_s=held_s))
            await asyncio.sleep(held_s)
        if not await self._admission(call, again, self._shut_door):
            return False
        now = self._clock.monotonic()
        return any(door.breaker.state(now) != "closed" for door in (self._line, self._own))

    async def _admission(self, call: Call, again: bool, shut: Callable[[], Door | None]) -> bool:
        """
        Wait until no door is shut. False: one is, and does not count.

        Whoever was let in keeps the retries that it has: their number is bounded, and a door that many shut together
        would else be waited for by each of them.
        """
        until = self._clock.monotonic() + min(PATIENCE_S, self._left_s(call))
        while (door := shut()) is not None:
            if again and not door.needs_mending:
                return False
            now = self._clock.monotonic()
            wait_s = door.wait_s(now)
            if not call.patient or door.needs_mending or now + wait_s > until:
                raise self._given_up(call, door.refusal(self.who, now)) from door.why
            # Somebody else's trial may open the door long before its time.
            await asyncio.sleep(min(max(wait_s, 0.01), _POLL_S))
        return True

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

    def _broke(self, error: Exception, http: ModuleType, took_s: float) -> bool:
        """The connection failed before a status came. Is it worth another try?"""
        if isinstance(error, http.UnsupportedProtocol | http.LocalProtocolError):
            self._abandoned()
            return False
        failure = unreachable(error, who=self.who)
        if _was_sent(error, http):
            self._failed(failure)
            return False
        if took_s < _SLOW_S:
            # Refused at once: that costs neither side anything, and the server is back the moment it listens.
            self._abandoned()
            return True
        # One more try is as long a wait, and so is the next question's.
        now = self._clock.monotonic()
        self._line.breaker.abandon(now)
        self._own.shut(failure, now)
        return False

    def _refused(self, status: int, failure: ModelFailure, key: str | None) -> bool:
        """A bad status came. Is it worth another try?"""
        now = self._clock.monotonic()
        if failure.kind in SHUTS:
            # 403 may be about this model alone; the key itself is good then.
            door, other = (self._own, self._line) if status == 403 else (self._line, self._own)
            other.breaker.abandon(now)
            door.shut(failure, now, key)
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
        """Wait before the next attempt; False at once when that is too long."""
        pause_s = full_jitter(attempt, base_s=BASE_S, cap_s=CAP_S, rng=self._rng) if asked_s is None else asked_s
        if pause_s > self._bearable_s(call) or pause_s >= self._left_s(call):
            return False
        log.info("model_is_tried_again", extra={"model": self.who, "attempt": attempt + 1, "wait_s": round(pause_s, 3)})
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

    def _bearable_s(self, call: Call) -> float:
        """How long this call waits for what the provider asks for."""
        return self._left_s(call) if call.patient else min(SHORT_S, self._left_s(call))

    def _given_up(self, call: Call, failure: ModelFailure) -> ModelFailure:
        # Libraries between here and the caller wrap what they do not know; the caller finds it here.
        call.failure = failure
        return failure


def _hurry(request: Any) -> None:
    given = request.extensions.get("timeout") or {}
    connect_s = given.get("connect")
    within_s = SHORT_CONNECT_S if connect_s is None else min(connect_s, SHORT_CONNECT_S)
    request.extensions["timeout"] = {**given, "connect": within_s}


def _was_sent(error: Exception, http: ModuleType) -> bool:
    """Whether the other side may have the whole request."""
    before = http.ConnectError | http.ConnectTimeout | http.PoolTimeout | http.ProxyError
    return not isinstance(error, before | http.UnsupportedProtocol | http.LocalProtocolError)


def asked_for_s(headers: Mapping[str, str], clock: Clock) -> float | None:
    """Seconds that `retry-after-ms` or `retry-after` (seconds or a date) ask for; None when they say nothing."""
    in_ms = retry_after_s(headers.get("retry-after-ms"), clock.now(), cap_s=3_600_000)
    return retry_after_s(headers.get("retry-after"), clock.now()) if in_ms is None else in_ms / 1000
