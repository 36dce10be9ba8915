"""
The daemon's end of a run that happens in the agent host.

In: a job, and whoever answers the host's questions. Out: records and events as they come, and the outcome.
Promise: returns with an outcome or raises HostDied; questions are answered one beside the other, so that a slow one
holds up nothing but itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agentd.agent.job import Job, Outcome
from agentd.agent.port import Asking, Record, ToolFailure
from agentd.agent.wire import FROM_HOST, BrokenWire, Wire, fields_of
from agentd.errors import AgentdError, StoreError
from agentd.fleet.messages import Control, ErrorKind
from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Purse, Quote

log = logging.getLogger("agentd.agent")

_MOST_QUESTIONS = 256
_MOST = 10**15
_MOST_CHARS = 200


class HostDied(AgentdError):
    """The agent host ended, or does not answer, before the run did."""


class Answering(Purse, Asking, Protocol):
    """Who answers what a run asks."""


class Call:
    """
    One run in the host. record, event: told what comes, as it comes, and how many bytes it took. spans: given those of
    its trace, as the host says.

    `control` may be called at any time before the end.
    """

    def __init__(
        self,
        wire: Wire,
        job: Job,
        answering: Answering,
        *,
        record: Callable[[Record, int], None],
        event: Callable[[Mapping[str, Any], int], None],
        spans: Callable[[Any], None] = lambda spans: None,
    ) -> None:
        self._wire = wire
        self._job = job
        self._answering = answering
        self._record = record
        self._event = event
        self._spans = spans
        self._answers: set[asyncio.Task[None]] = set()
        self._early: list[Control] | None = []

    def control(self, control: Control) -> None:
        if self._early is not None:
            self._early.append(control)
        else:
            self._wire.send("control", **control.to_json())

    async def run(self) -> Outcome:
        """Raises HostDied. Cancelling ends the run by closing its connection."""
        try:
            self._wire.send("run", job=self._job.model_dump(mode="json"))
            early, self._early = self._early or [], None
            for control in early:
                self.control(control)
            while (frame := await self._wire.read(FROM_HOST)) is not None:
                if frame["do"] == "outcome":
                    return Outcome.model_validate(frame["outcome"])
                await self._take(frame)
        except (BrokenWire, ValueError, KeyError, TypeError) as error:
            raise HostDied(f"the agent host does not speak as it should: {error}") from error
        finally:
            for task in self._answers:
                task.cancel()
            self._wire.close()
        raise HostDied("the agent host ended while the run was under way")

    async def _take(self, frame: Mapping[str, Any]) -> None:
        kind = frame["do"]
        if kind == "record":
            self._record(_record(frame), self._wire.read_bytes)
        elif kind == "event":
            self._event(_event(frame), self._wire.read_bytes)
        elif kind == "spans":
            self._spans(frame.get("spans"))
        elif kind == "ask":
            if len(self._answers) >= _MOST_QUESTIONS:
                raise BrokenWire(f"more than {_MOST_QUESTIONS} questions at once")
            task = asyncio.create_task(self._answer(_whole(frame, "id"), _text(frame, "what"), _fields(frame, "args")))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, number: int, what: str, args: Mapping[str, Any]) -> None:
        try:
            value = await self._answered(what, args)
        except BudgetSpent as refused:
            self._wire.send("answer", id=number, budget=refused.scope, message=str(refused))
        except BrokenWire as wrong:
            self._wire.send("answer", id=number, error=ErrorKind.INVALID_INPUT.value, message=str(wrong))
        except ToolFailure as failure:
            self._wire.send("answer", id=number, error=failure.kind.value, message=str(failure))
        except StoreError as error:
            # A store that cannot write cannot set money aside: then none is spent.
            message = f"the store cannot keep this now: {error}"
            self._wire.send("answer", id=number, error=ErrorKind.TOOL_ERROR.value, message=message)
        except Exception as error:
            log.exception("answer_failed", extra={"what": what})
            message = f"a defect in agentd: {type(error).__name__}"
            self._wire.send("answer", id=number, error=ErrorKind.TOOL_ERROR.value, message=message)
        else:
            self._wire.send("answer", id=number, value=value)

    async def _answered(self, what: str, args: Mapping[str, Any]) -> Any:
        if what == "reserve":
            await self._answering.reserve(_quote(args, _whole(args, "tokens"), _money(args)))
            return None
        if what == "settle":
            used = _fields(args, "usage")
            usage = Usage(_whole(used, "input"), _whole(used, "output"), _whole(used, "cached"))
            await self._answering.settle(_quote(args, 0, None), usage, _money(args))
            return None
        if what == "query":
            return await self._answering.query(_text(args, "what"), _fields(args, "args"))
        raise ToolFailure(f"nobody here answers {what[:40]!r}")


# What a host says is looked at before it is believed: it reads what the whole world writes.


def _record(frame: Mapping[str, Any]) -> Record:
    return Record(
        _whole(frame, "seq"), _number(frame.get("at_s"), "at_s"), _text(frame, "kind"), _fields(frame, "data")
    )


def _event(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    if not _text(frame, "event").isidentifier():
        raise BrokenWire("an event has no name")
    return fields_of(frame)


def _quote(args: Mapping[str, Any], tokens: int, usd: float | None) -> Quote:
    return Quote(_text(args, "id"), _text(args, "model"), tokens, usd)


def _money(args: Mapping[str, Any]) -> float | None:
    """USD; None when nobody knows."""
    return None if args.get("usd") is None else _number(args["usd"], "usd")


def _whole(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise BrokenWire(f"{name} is no whole number from 0 on")
    return value


def _number(value: Any, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise BrokenWire(f"{name} is no number from 0 on")
    return float(value)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MOST_CHARS:
        raise BrokenWire(f"{name} is no text of 1 to {_MOST_CHARS} characters")
    return value


def _fields(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise BrokenWire(f"{name} is no mapping")
    return value
