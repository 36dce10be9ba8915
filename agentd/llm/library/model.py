"""
A model behind a library: `pydantic_ai.direct.model_request_stream` and nothing else of it.

In: a `Request`. Out: `ModelEvent`s. One call is one HTTP request, sent by our client.
Promise: whatever the provider or its library does is an event or a `ModelFailure`; nothing waits beyond the request's
time; whoever lets go of the stream closes the connection with it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentd.llm.chat_answer import TooLong
from agentd.llm.deadline import Deadline
from agentd.llm.library.line import Line
from agentd.llm.port import FailureKind, ModelEvent, ModelFailure, Request
from agentd.llm.providers import PROVIDERS, key
from agentd.llm.settings import ModelSettings

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True)
class _Way:
    """
    opener: function of the file that makes the library's model. needs: packages, by the names they are imported by.

    called: the provider, as the library calls it: what it signs carries this name.
    """

    opener: str
    called: str
    needs: tuple[str, ...]


_WAYS = {
    "anthropic": _Way("clients.anthropic_model", "anthropic", ("pydantic_ai", "anthropic")),
    "gemini": _Way("clients.gemini_model", "google", ("pydantic_ai", "google.genai")),
    "bedrock": _Way("bedrock.bedrock_model", "bedrock", ("pydantic_ai", "boto3")),
}

_CACHES: dict[str, dict[str, Any]] = {
    # Marks in the blocks themselves: gateways know these longer than the one mark for the whole.
    "anthropic": {
        "anthropic_cache_tool_definitions": True,
        "anthropic_cache_instructions": True,
        "anthropic_cache_messages": True,
    },
    "bedrock": {"cache": True},
}
"""What makes those keep a conversation who keep what they are told to; the others decide by themselves."""


def open_library_model(name: str, settings: ModelSettings, http: httpx.AsyncClient) -> LibraryModel:
    """
    The model, ready to be asked; loads no library. http: a `PolicyClient`, the caller's to close.

    Raises ImportError when the extra of its provider is not installed.
    """
    way = _WAYS[settings.provider]
    for package in way.needs:
        if not _installed(package):
            raise ImportError(f"no module named {package}", name=package)
    return LibraryModel(name, settings, http, way)


@dataclass(slots=True)
class _Begun:
    """answered: a good status has come. received: some of the answer has."""

    answered: bool = False
    received: bool = False


class LibraryModel:
    """grammar: only where the config says so: what these providers make of a schema closes its open objects."""

    def __init__(self, name: str, settings: ModelSettings, http: httpx.AsyncClient, way: _Way) -> None:
        self.name = name
        self.native_tools = (
            PROVIDERS[settings.provider].native_tools if settings.protocol is None else settings.protocol == "native"
        )
        self.grammar = settings.grammar is True
        self.context_tokens = settings.window
        self._settings = settings
        self._http = http
        self._way = way
        self._who = f"model {name}"
        self._opening = asyncio.Lock()
        self._opened: tuple[str | None, Any] | None = None

    async def close(self) -> None:
        """The client is not ours to close."""

    async def stream(self, request: Request) -> AsyncGenerator[ModelEvent, None]:
        """
        Ask. Raises ModelFailure.

        An iterator that is left before its end must be closed (`aclose`, `contextlib.aclosing`): so is the connection.
        """
        secret = key(self._settings, who=self._who)
        line = Line(self._http, secret)
        begun = _Begun()
        try:
            with Deadline(request.timeout_s) as time:
                model = await time.wait(self._model(secret))
                async with aclosing(self._answer(model, request, time, line, begun)) as events:
                    async for event in events:
                        yield event
        except ModelFailure as failure:
            failure.received = failure.received or begun.received
            raise
        except TooLong as error:
            what = f"{self._who} answers without end: {error}"
            raise ModelFailure(what, FailureKind.GARBAGE, received=True) from error
        except Exception as error:
            from agentd.llm.library.trouble import failure_of

            raise failure_of(
                error, who=self._who, began=begun.answered, received=begun.received, keep_out=secret
            ) from error
        finally:
            await line.close()

    async def _answer(
        self, model: Any, request: Request, time: Deadline, line: Line, begun: _Begun
    ) -> AsyncGenerator[ModelEvent, None]:
        from pydantic_ai.direct import model_request_stream

        from agentd.llm.library.answer import LibraryAnswer
        from agentd.llm.library.question import question_of
        from agentd.llm.tokens import count_request, count_tokens

        question = question_of(request, provider=self._way.called)
        taken = [call.id for message in request.messages for call in message.tool_calls]
        answer = LibraryAnswer(taken, question.names.ours)
        asked = model_request_stream(
            model,
            question.messages,
            model_settings=self._their_settings(request),
            model_request_parameters=question.parameters,
            instrument=False,
        )
        async with AsyncExitStack() as stack:
            with line.here():
                stream = await time.wait(stack.enter_async_context(asked))
            begun.answered = True
            events = aiter(stream)
            while True:
                try:
                    with line.here():
                        event = await time.wait(anext(events))
                except StopAsyncIteration:
                    break
                delta = answer.take(event)
                if delta is not None:
                    begun.received = True
                    yield delta
            response = stream.get()
        self._check(response, answer.begun)
        yield answer.done(response, self.name, count_tokens, lambda: count_request(request))

    def _their_settings(self, request: Request) -> Any:
        temperature = self._settings.temperature if request.temperature is None else request.temperature
        # Nobody but us writes the system prompt; the library would explain notes in it that we never make.
        asked: dict[str, Any] = {"max_tokens": request.max_tokens, "framing_announcement": "never"}
        if self._settings.provider in _CACHES and (request.tools or len(request.messages) > 1):
            # Read again it costs a tenth, kept for it a quarter more: only a conversation that goes on is worth that.
            asked |= _CACHES[self._settings.provider]
        if self._settings.provider != "bedrock":
            # A packed stream is held back until there is enough to pack.
            asked["extra_headers"] = {"Accept-Encoding": "identity"}
        return asked if temperature is None else {**asked, "temperature": temperature}

    async def _model(self, secret: str | None) -> Any:
        """The library's model for the key as it is now."""
        async with self._opening:
            if self._opened is None or self._opened[0] != secret:
                self._opened = secret, await asyncio.to_thread(self._make, secret)
            return self._opened[1]

    def _make(self, secret: str | None) -> Any:
        place, _, opener = self._way.opener.rpartition(".")
        # The parts of it that every call needs are loaded here, too: a second that the loop does not stand still.
        for needed in ("question", "answer", "trouble"):
            importlib.import_module(f"agentd.llm.library.{needed}")
        importlib.import_module("pydantic_ai.direct")
        ways = importlib.import_module(f"agentd.llm.library.{place}")
        return getattr(ways, opener)(self._settings, secret, self._http, self._who)

    def _check(self, response: Any, begun: bool) -> None:
        """Raises ModelFailure when the answer broke off, or its end never came."""
        reason = (response.provider_details or {}).get("finish_reason")
        if response.finish_reason == "error":
            what = f"{self._who} broke off by itself: {str(reason)[:100]}"
            raise ModelFailure(what, FailureKind.CUT, received=begun)
        if response.finish_reason is None and reason is None:
            what = "broke off in mid-answer" if begun else "ended without an answer"
            raise ModelFailure(f"{self._who} {what}", FailureKind.CUT, received=begun)


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
