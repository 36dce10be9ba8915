"""
One model as the configuration names it, asked at most once a call: within its deadline, and paid for.

In: a request. Out: what the adapter gives, the last event with the model's name and its price in USD.
Promise: nothing is asked before the purse has set the most that it may cost aside, and what it took is settled before
the answer is handed on, also when nobody waits for it any more: cancelled or cut, it costs what was sent and came.
What cannot be settled stays spent.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from agentd.clock import Clock
from agentd.errors import AgentdError
from agentd.llm import prices
from agentd.llm.deadline import Deadline
from agentd.llm.destination import CURRENT
from agentd.llm.policy import Call, Policy
from agentd.llm.port import (
    Done,
    FailureKind,
    Model,
    ModelEvent,
    ModelFailure,
    Remark,
    Request,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from agentd.llm.settings import ModelSettings
from agentd.llm.spend import BudgetSpent, Purse, Quote
from agentd.llm.tokens import count_request, count_tokens

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Calls of one model that are under way at once; the others wait in the order they came."""
SETTLE_S = 0.05
"""What a cancelled call waits for its settlement, which goes on by itself after that."""

_SHORTEST_S = 0.001


@dataclass(slots=True)
class _Came:
    """What has come of an answer."""

    any: bool = False
    text: list[str] = field(default_factory=list)

    def add(self, event: ModelEvent) -> None:
        self.any = True
        if not isinstance(event, Done | Remark):
            self.text.append(event.text if isinstance(event, TextDelta | ThinkingDelta) else event.arguments)

    @property
    def tokens(self) -> int:
        return count_tokens("".join(self.text))


class PaidModel:
    """
    raw: the adapter. policy: what its HTTP client obeys. settlements: tasks that outlive a cancelled call; whoever
    closes the models waits for them.
    """

    def __init__(
        self,
        name: str,
        settings: ModelSettings,
        raw: Model,
        policy: Policy,
        *,
        purse: Purse,
        clock: Clock,
        settlements: set[asyncio.Task[None]],
    ) -> None:
        self.name = name
        self.settings = settings
        self.raw = raw
        self._policy = policy
        self._purse = purse
        self._clock = clock
        self._settlements = settlements
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def ask(self, request: Request, deadline: float, *, patient: bool) -> AsyncGenerator[ModelEvent, None]:
        """
        deadline: monotonic seconds. patient: there is no other model to ask; otherwise a status must come within half
        of the time, so that the other has some left. Raises ModelFailure; one with BudgetSpent as its cause was not
        asked.
        """
        now = self._clock.monotonic()
        deadline = min(deadline, now + self.settings.timeout.total_seconds())
        await self._slot(deadline)
        try:
            tokens = count_request(request)
            quote = await self._reserve(request, tokens)
            now = self._clock.monotonic()
            request = replace(request, timeout_s=max(_SHORTEST_S, deadline - now))
            call = Call(deadline if patient else now + (deadline - now) / 2, tokens, patient)
            async with aclosing(self._answer(request, deadline, call, quote)) as events:
                async for event in events:
                    yield event
        finally:
            self._slots.release()

    async def _answer(
        self, request: Request, deadline: float, call: Call, quote: Quote
    ) -> AsyncGenerator[ModelEvent, None]:
        came = _Came()
        done: Done | None = None
        try:
            # Adapters are async generators; the port asks for less.
            async with aclosing(cast(Any, self.raw.stream(request))) as events:
                with Deadline(deadline - self._clock.monotonic()) as time:
                    while done is None:
                        token = None if came.any else CURRENT.set(call)
                        try:
                            event = await time.wait(anext(events))
                        finally:
                            if token is not None:
                                CURRENT.reset(token)
                        came.add(event)
                        if isinstance(event, Done):
                            done = event
                        else:
                            yield event
        except BaseException as error:
            failure = self._failure(error, call, came)
            broken_off = failure is None or failure.kind is FailureKind.TIMEOUT
            used = Usage()
            if came.any or call.answered or call.cut or (broken_off and call.sent):
                used = Usage(call.tokens, came.tokens, estimated=True)
                self._policy.true_up(call, used.total)
            usd = self._usd(used) if used.total else 0.0
            await self._settle(quote, used, usd, within_s=SETTLE_S if failure is None else None)
            if failure is None or failure is error:
                raise
            raise failure from error
        usd = self._usd(done.usage)
        self._policy.true_up(call, done.usage.total)
        await self._settle(quote, done.usage, usd)
        yield replace(done, model=self.name, usd=usd)

    async def _reserve(self, request: Request, tokens: int) -> Quote:
        if not prices.loaded([self.settings]):
            await asyncio.to_thread(prices.load, [self.settings])
        usd = prices.quote(self.settings, tokens, request.max_tokens)
        quote = Quote(uuid.uuid4().hex, self.name, tokens + request.max_tokens, usd)
        try:
            await self._purse.reserve(quote)
        except BudgetSpent as error:
            raise ModelFailure(str(error), FailureKind.BUDGET) from error
        except AgentdError as error:
            what = f"nothing can be set aside for model {self.name}, so it is not asked: {error}"
            raise ModelFailure(what, FailureKind.BUDGET) from error
        return quote

    async def _settle(self, quote: Quote, usage: Usage, usd: float | None, within_s: float | None = None) -> None:
        async def settle() -> None:
            try:
                await self._purse.settle(quote, usage, usd)
            except Exception as error:
                # It counts as spent in full then. An answer that was paid for is not thrown away for that.
                log.warning("settle_failed", extra={"model": self.name, "error": f"{type(error).__name__}: {error}"})

        task = asyncio.create_task(settle())
        self._settlements.add(task)
        task.add_done_callback(self._settlements.discard)
        await asyncio.wait({task}, timeout=within_s)

    def _usd(self, usage: Usage) -> float | None:
        return prices.cost(self.settings, usage)

    def _failure(self, error: BaseException, call: Call, came: _Came) -> ModelFailure | None:
        """The failure that callers are told of; None: nobody waits for one."""
        if isinstance(error, asyncio.CancelledError | GeneratorExit) or not isinstance(error, Exception):
            return None
        if call.failure is not None and not came.any:
            # What the policy gave up with, whatever the adapter's library has made of it.
            return call.failure
        if isinstance(error, ModelFailure):
            if call.cut and error.kind is FailureKind.UNAVAILABLE:
                # It may have been at work. To ask it anew is another call, with money of its own.
                return ModelFailure(f"model {self.name} broke off before it answered: {error}", FailureKind.CUT)
            error.received = error.received or came.any
            return error
        if isinstance(error, TimeoutError):
            return ModelFailure(f"model {self.name} took too long", FailureKind.TIMEOUT, received=came.any)
        if isinstance(error, StopAsyncIteration):
            return ModelFailure(f"model {self.name} ended without an answer", FailureKind.CUT, received=came.any)
        log.error("model_adapter_failed", extra={"model": self.name, "error": type(error).__name__}, exc_info=error)
        what = f"what model {self.name} said could not be read ({type(error).__name__})"
        return ModelFailure(what, FailureKind.GARBAGE, received=came.any)

    async def _slot(self, deadline: float) -> None:
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic()):
                await self._slots.acquire()
        except TimeoutError as error:
            what = f"model {self.name}: {AT_ONCE} calls were under way all the time"
            raise ModelFailure(what, FailureKind.RATE_LIMITED) from error
