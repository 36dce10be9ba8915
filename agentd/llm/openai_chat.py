"""
The built-in way to models: the OpenAI-compatible chat protocol over httpx, always streamed.

In: a `Request`. Out: `ModelEvent`s. One call is one HTTP request, but for what a server refuses by name (a grammar,
`stream_options`, a parameter): that is remembered and asked again without.
Promise: whatever the server does is an event or a `ModelFailure`; nothing waits beyond the request's time; whoever
lets go of the stream closes the connection with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from agentd.llm.chat_answer import BROKEN, ChatAnswer, TooLong
from agentd.llm.chat_request import Habits, ToolNames, body_of, encode
from agentd.llm.deadline import Deadline
from agentd.llm.failures import MAX_BODY_BYTES, classify, unreachable
from agentd.llm.port import FailureKind, ModelEvent, ModelFailure, Request
from agentd.llm.providers import PROVIDERS, chat_url, headers, key
from agentd.llm.refusals import learned
from agentd.llm.settings import ModelSettings
from agentd.llm.sse import DONE, EventReader, Garbled

if TYPE_CHECKING:
    import httpx

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_S = 10.0
_MOST_LESSONS = 4
_ERROR_BODY_S = 5.0
_AFTER_FINISH_S = 10.0
_AFTER_DONE_S = 0.25


class OpenAIChat:
    """
    One model behind the protocol.

    native_tools and grammar may turn false later: some servers tell only when asked. Read them before each request.
    """

    def __init__(self, name: str, settings: ModelSettings, http: httpx.AsyncClient) -> None:
        _stop_looking_for_sniffio()
        provider = PROVIDERS[settings.provider]
        self.name = name
        self.context_tokens = settings.window
        self._settings = settings
        self._http = http
        self._who = f"model {name}"
        self._sure_of_grammar = settings.grammar is True
        grammar = provider.grammar is not False if settings.grammar is None else settings.grammar
        self._habits = Habits(
            tokens_field=provider.tokens_field,
            include_usage=provider.include_usage,
            grammar=grammar,
            tools=provider.native_tools if settings.protocol is None else settings.protocol == "native",
            thinking="calls" if provider.thinking_back else "no",
        )

    @property
    def native_tools(self) -> bool:
        return self._habits.tools

    @property
    def grammar(self) -> bool:
        return self._habits.grammar

    async def close(self) -> None:
        """The client is not ours to close."""

    async def stream(self, request: Request) -> AsyncIterator[ModelEvent]:
        """
        Ask. Raises ModelFailure.

        An iterator that is left before its end must be closed (`aclose`, `contextlib.aclosing`): so is the connection.
        """
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        secret = key(self._settings, who=self._who)
        response, names = await self._ask(request, secret, deadline)
        taken_ids = [call.id for message in request.messages for call in message.tool_calls]
        answer = ChatAnswer(taken_ids, names.ours)
        try:
            async with contextlib.aclosing(self._chunks(response, answer, secret, deadline)) as chunks:
                async for chunk in chunks:
                    for event in answer.take(chunk):
                        yield event
            for event in answer.end():
                yield event
        except TooLong as error:
            raise ModelFailure(
                f"{self._who} answers without end: {error}", FailureKind.GARBAGE, received=True
            ) from error
        finally:
            await response.aclose()
        if answer.finish in BROKEN:
            raise self._broken(answer)
        from agentd.llm.tokens import count_request, count_tokens

        yield answer.done(self.name, count_tokens, lambda: count_request(request))

    async def _ask(self, request: Request, secret: str | None, deadline: float) -> tuple[httpx.Response, ToolNames]:
        """An answer of status 200, its body not yet read."""
        habits = self._habits
        temperature = self._settings.temperature if request.temperature is None else request.temperature
        for lesson in range(_MOST_LESSONS + 1):
            body, names = body_of(self._settings.model, request, habits, temperature)
            response = await self._send(encode(body), secret, deadline)
            if response.status_code == 200:
                self._keep(habits, body)
                return response, names
            said = await self._beginning(response, deadline)
            failure = classify(response.status_code, response.headers, said, who=self._who, keep_out=secret)
            if failure.kind not in (FailureKind.BAD_REQUEST, FailureKind.UNAVAILABLE) or lesson == _MOST_LESSONS:
                raise failure
            text = said[:8192].decode("utf-8", "replace")
            better = learned(habits, body, text, response.status_code, sure_of_grammar=self._sure_of_grammar)
            if better is None or (self._settings.grammar and not better.grammar):
                raise failure
            if not better.tools and habits.tools:
                # What was said so far speaks of native tools: the caller must word it anew.
                self._keep(better, body)
                raise ModelFailure(
                    f"{self._who} takes no tools; write `protocol: json` for it", FailureKind.BAD_REQUEST, status=400
                ) from failure
            habits = better
        raise AssertionError("unreachable: the last refusal is raised")

    def _keep(self, habits: Habits, body: dict[str, Any]) -> None:
        if "response_format" in body:
            self._sure_of_grammar = True
        if habits != self._habits:
            self._habits = habits
            log.info("model_habits_learned", extra={"model": self.name, "habits": repr(habits)})

    async def _send(self, content: bytes, secret: str | None, deadline: float) -> httpx.Response:
        import httpx

        try:
            sent = self._http.build_request(
                "POST",
                _address(chat_url(self._settings)),
                content=content,
                headers={
                    **headers(self._settings, secret),
                    "Accept": "text/event-stream, application/json",
                    # A packed stream is held back until there is enough to pack.
                    "Accept-Encoding": "identity",
                },
                timeout=httpx.Timeout(None, connect=CONNECT_S),
            )
            return await _within(deadline, self._http.send(sent, stream=True, follow_redirects=False))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise unreachable(error, who=self._who) from error

    async def _chunks(
        self, response: httpx.Response, answer: ChatAnswer, secret: str | None, deadline: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The JSON of the events until the answer's end. Raises ModelFailure when it ends otherwise."""
        import httpx

        loop = asyncio.get_running_loop()
        reader = EventReader()
        # Unpacked only if need be: the raw bytes are had with half the work.
        packed = "content-encoding" in response.headers
        body = response.aiter_bytes() if packed else aiter(response.stream)  # type: ignore[arg-type]  # of an async client
        ended = done = strange = False
        try:
            with Deadline(deadline - loop.time()) as time:
                while not ended:
                    until = None if answer.finish is None else min(deadline, loop.time() + _AFTER_FINISH_S)
                    step = anext(body)
                    try:
                        found = reader.feed(await (time.wait(step) if until is None else _within(until, step)))
                    except StopAsyncIteration:
                        ended = True
                        found = reader.end()
                    for value in found:
                        if value is DONE:
                            ended = done = True
                            break
                        if not isinstance(value, dict):
                            strange = True
                            continue
                        strange = strange or "choices" not in value
                        if (told := _error_of(value)) is not None:
                            raise classify(200, {}, encode(told), who=self._who, received=answer.begun, keep_out=secret)
                        yield value
            strange = strange or reader.strange
        except Garbled as error:
            raise ModelFailure(
                f"{self._who} answers with {error}; check `base_url`", FailureKind.GARBAGE, received=answer.begun
            ) from error
        except (httpx.HTTPError, TimeoutError) as error:
            # After the reason to finish only the count of tokens is to come, and that can be estimated.
            if answer.finish is None:
                raise unreachable(error, who=self._who, began=True, received=answer.begun) from error
        if done:
            # What is left is the end of the body; with that read, the connection serves again.
            with contextlib.suppress(httpx.HTTPError, TimeoutError, StopAsyncIteration):
                await _within(loop.time() + _AFTER_DONE_S, anext(body))
        if answer.finish is None and not (done and answer.begun):
            raise self._unfinished(answer, strange)

    async def _beginning(self, response: httpx.Response, deadline: float) -> bytes:
        """As much of an error's body as comes soon; the status decides also without it."""
        import httpx

        said = bytearray()
        until = min(deadline, asyncio.get_running_loop().time() + _ERROR_BODY_S)
        body = response.aiter_bytes()
        try:
            with contextlib.suppress(httpx.HTTPError, TimeoutError, StopAsyncIteration):
                while len(said) <= MAX_BODY_BYTES:
                    said += await _within(until, anext(body))
        finally:
            await response.aclose()
        return bytes(said)

    def _unfinished(self, answer: ChatAnswer, strange: bool) -> ModelFailure:
        if strange and not answer.heard:
            what = f"{self._who} answers with something else; check `base_url`"
            return ModelFailure(what, FailureKind.GARBAGE)
        what = "broke off in mid-answer" if answer.begun else "ended without an answer"
        return ModelFailure(f"{self._who} {what}", FailureKind.CUT, received=answer.begun)

    def _broken(self, answer: ChatAnswer) -> ModelFailure:
        overloaded = answer.finish == "insufficient_system_resource"
        kind = FailureKind.OVERLOADED if overloaded else FailureKind.CUT
        return ModelFailure(f"{self._who} broke off by itself: {answer.finish}", kind, received=answer.begun)


@lru_cache(maxsize=64)
def _address(url: str) -> httpx.URL:
    """Read once: it takes httpx longer than to send the request."""
    import httpx

    return httpx.URL(url)


def _error_of(value: dict[str, Any]) -> dict[str, Any] | None:
    """The event, if it tells an error instead of an answer."""
    if value.get("error"):
        return value
    if value.get("choices") is not None or not (value.get("message") or value.get("detail")):
        return None
    return value if value.get("object") == "error" or value.get("code") is not None or "detail" in value else None


def _stop_looking_for_sniffio() -> None:
    # httpcore tries to import it at every lock; where it is not installed, that is a walk through all folders of
    # modules, and a quarter of what a call costs.
    if "sniffio" not in sys.modules and importlib.util.find_spec("sniffio") is None:
        sys.modules["sniffio"] = None  # type: ignore[assignment]  # the documented way to make an import fail at once


async def _within(until: float, step: Awaitable[T]) -> T:
    async with asyncio.timeout_at(until):
        return await step
