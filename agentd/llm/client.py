"""
The models of the configuration, ready to be asked: each with its policy, its price and those who stand in for it.

In: their settings, the purse. Out: `Models`, by name; each a `Model`.
Promise: who asks one model gets its answer or that of the first of its fallbacks that can give one, and pays for each
that was asked. Once a word of an answer has come nobody else goes on with it, but the question after that begins with
another. Nothing is opened before it is asked for.
It brings httpx along, a tenth of a second: whoever may never ask a model imports it only when it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal

from agentd.clock import Clock
from agentd.errors import AgentdError, ConfigError
from agentd.llm import prices, providers
from agentd.llm.destination import Destination, identity
from agentd.llm.failures import FALLS_BACK
from agentd.llm.paid import PaidModel
from agentd.llm.port import Done, FailureKind, Model, ModelEvent, ModelFailure, Remark, Request
from agentd.llm.settings import ModelSettings
from agentd.llm.spend import Purse
from agentd.llm.tokens import count_request

log = logging.getLogger(__name__)

OpenModel = Callable[[str, ModelSettings, Any], Model]

_CLOSE_S = 5.0
_SHORTEST_ANSWER = 256
_CUTS = 2
"""Answers of a model that broke off one after the other; then another is asked, if there is one."""


@dataclass(frozen=True, slots=True)
class ListedModel:
    """
    One configured model, for people. key: whether one is there now, never the key itself. window: tokens of question
    and answer. protocol: how it calls tools.
    """

    name: str
    provider: str
    model: str
    key: Literal["present", "missing", "not needed"]
    price_known: bool
    window: int
    protocol: Literal["native", "json"]
    fallback: tuple[str, ...] = ()


def open_models(
    models: Mapping[str, ModelSettings],
    *,
    purse: Purse,
    clock: Clock,
    open_model: OpenModel = providers.open_model,
) -> Models:
    """open_model: makes the adapter of one model from its name, settings and an HTTP client (`PolicyClient`)."""
    return Models(models, purse=purse, clock=clock, open_model=open_model)


class Models:
    """The configured models. Bound to the loop that asks first."""

    def __init__(
        self, models: Mapping[str, ModelSettings], *, purse: Purse, clock: Clock, open_model: OpenModel
    ) -> None:
        self._settings = dict(models)
        self._purse = purse
        self._clock = clock
        self._open_model = open_model
        self._destinations: dict[tuple[Any, ...], Destination] = {}
        self._opened: dict[str, PaidModel] = {}
        self._settlements: set[asyncio.Task[None]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._settings)

    def get(self, name: str) -> Model:
        """Raises ConfigError: no model of this name, or it cannot be opened (an extra is missing)."""
        if name not in self._settings:
            there = ", ".join(self._settings) or "none is configured"
            raise ConfigError(f"there is no model {name!r}; write one of `models`: {there}")
        return _WithFallbacks(self.opened(name), self)

    def opened(self, name: str) -> PaidModel:
        """The model alone, without those who stand in for it. Raises ConfigError."""
        known = self._opened.get(name)
        if known is None:
            settings = self._settings[name]
            place = self._destinations.setdefault(identity(settings), Destination(self._clock))
            http = place.client(f"model {name}", settings)
            known = self._opened[name] = PaidModel(
                name,
                settings,
                self._open_model(name, settings, http),
                http.policy,
                purse=self._purse,
                clock=self._clock,
                settlements=self._settlements,
            )
        return known

    def chain(self, name: str) -> tuple[str, ...]:
        """The model and those who stand in for it, nearest first, each once."""
        found: dict[str, None] = {}
        waiting = deque([name])
        while waiting:
            each = waiting.popleft()
            if each in self._settings and each not in found:
                found[each] = None
                waiting.extend(self._settings[each].fallback)
        return tuple(found)

    @property
    def clock(self) -> Clock:
        return self._clock

    def listing(self) -> list[ListedModel]:
        """Every model of the config, none of them asked or opened. May block for half a second, for the prices."""
        prices.load(self._settings.values())
        return [_listed(name, settings) for name, settings in self._settings.items()]

    async def close(self) -> None:
        """Let connections go, and give settlements five seconds."""
        if self._settlements:
            await asyncio.wait(self._settlements, timeout=_CLOSE_S)
        opened, self._opened = self._opened, {}
        places, self._destinations = self._destinations, {}
        async with contextlib.AsyncExitStack() as stack:
            for place in places.values():
                stack.push_async_callback(place.close)
            for model in opened.values():
                stack.push_async_callback(model.raw.close)


class _WithFallbacks:
    """A model for those who ask: one of the chain answers."""

    def __init__(self, first: PaidModel, models: Models) -> None:
        self.name = first.name
        self._first = first
        self._models = models
        self._passed_over: set[str] = set()
        self._cuts: Counter[str] = Counter()

    @property
    def native_tools(self) -> bool:
        return self._first.raw.native_tools

    @property
    def grammar(self) -> bool:
        return self._first.raw.grammar

    @property
    def context_tokens(self) -> int:
        return self._first.raw.context_tokens

    async def stream(self, request: Request) -> AsyncGenerator[ModelEvent, None]:
        """
        Half of the time is kept for the next model while there is one; a remark says that it is asked. Raises
        ModelFailure.

        Nobody goes on with an answer that broke off; but whoever asks again then is answered by the next model first.
        """
        clock = self._models.clock
        deadline = clock.monotonic() + request.timeout_s
        failures: list[ModelFailure] = []
        others = deque(sorted(self._models.chain(self.name), key=self._passed_over.__contains__))
        following = self._next(others, request)
        while following is not None:
            model, asked = following
            began = False
            try:
                async with aclosing(model.ask(asked, deadline, patient=not others)) as events:
                    async for event in events:
                        began = True
                        if isinstance(event, Done):
                            self._passed_over.clear()
                            self._cuts.pop(model.name, None)
                        yield event
                return
            except ModelFailure as failure:
                if began or failure.received:
                    self._broke_off(model.name, failure.kind)
                    raise
                if failure.kind not in FALLS_BACK:
                    raise
                failures.append(failure)
            if asked.tools and not model.raw.native_tools and (in_words := for_stand_in(asked, model)) is not None:
                # It takes no tools, as it has just told us, but may well act in words.
                failures.pop()
                following = model, in_words
            elif (following := self._next(others, request)) is not None:
                why = {"kind": failures[-1].kind.value, "error": str(failures[-1])}
                log.warning("model_fell_back", extra={"model": model.name, "to": following[0].name, **why})
                yield Remark(f"{failures[-1]}; asking {following[0].name}")
        raise _all_of(failures)

    def _broke_off(self, name: str, kind: FailureKind) -> None:
        """An answer broke off: the next question begins with another model, at once or when this goes on like that."""
        if kind in (FailureKind.CUT, FailureKind.GARBAGE):
            self._cuts[name] += 1
            if self._cuts[name] < _CUTS:
                return
        elif kind not in FALLS_BACK:
            return
        self._passed_over.add(name)
        if self._passed_over.issuperset(self._models.chain(self.name)):
            self._passed_over.clear()

    def _next(self, others: deque[str], request: Request) -> tuple[PaidModel, Request] | None:
        while others:
            name = others.popleft()
            if name == self.name:
                return self._first, request
            try:
                model = self._models.opened(name)
            except AgentdError as error:
                log.warning("fallback_unusable", extra={"model": name, "error": str(error)})
                continue
            asked = for_stand_in(request, model)
            if asked is not None:
                return model, asked
            log.info("fallback_too_small", extra={"model": name})
        return None

    async def close(self) -> None:
        """Nothing of its own: connections are shared, and `Models.close` lets them go."""


def for_stand_in(request: Request, model: PaidModel) -> Request | None:
    """
    The request as another model than the one it was made for can take it; None when its window is too small.

    Who has no native tools is told how to write actions; the loop reads those in any answer.
    """
    if request.tools and not model.raw.native_tools:
        from agentd.llm.actions import SPECIAL_TOOLS, action_guide, action_schema

        special = {tool.name for tool in SPECIAL_TOOLS}
        tools = [tool for tool in request.tools if tool.name not in special]
        request = replace(
            request,
            system_prompt=f"{request.system_prompt}\n\n{action_guide(tools)}",
            tools=(),
            answer_schema=action_schema(tools) if model.raw.grammar else None,
        )
    room = model.raw.context_tokens - count_request(request)
    if room < _SHORTEST_ANSWER:
        return None
    return replace(request, max_tokens=min(request.max_tokens, model.settings.max_tokens, room))


def _all_of(failures: Sequence[ModelFailure]) -> ModelFailure:
    """One failure for all: of the kind of the first, which is the model that was meant."""
    first = failures[0]
    if len(failures) == 1:
        return first
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    whole = ModelFailure(
        "; ".join(map(str, failures)), first.kind, status=first.status, retry_after_s=min(waits, default=None)
    )
    whole.__cause__ = failures[-1]
    return whole


def _listed(name: str, settings: ModelSettings) -> ListedModel:
    try:
        key: Literal["present", "missing", "not needed"] = (
            "not needed" if providers.key(settings, who=name) is None else "present"
        )
    except ModelFailure:
        key = "missing"
    native = providers.PROVIDERS[settings.provider].native_tools
    return ListedModel(
        name,
        settings.provider,
        settings.model,
        key,
        prices.known(settings),
        settings.window,
        settings.protocol or ("native" if native else "json"),
        settings.fallback,
    )
