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
from agentd.agent.wire import BrokenWire, Wire, fields_of
from agentd.errors import AgentdError, StoreError
from agentd.fleet.messages import Control, ErrorKind
from agentd.llm.port import Usage
from agentd.llm.spend import BudgetSpent, Purse, Quote

log = logging.getLogger("agentd.agent")

_MOST_QUESTIONS = 256


class HostDied(AgentdError):
    """The agent host ended, or does not answer, before the run did."""


class Answering(Purse, Asking, Protocol):
    """Who answers what a run asks."""


class Call:
    """
    One run in the host. record, event: told what comes, as it comes. spans: given those of its trace, as the host says.

    `control` may be called at any time before the end.
    """

    def __init__(
        self,
        wire: Wire,
        job: Job,
        answering: Answering,
        *,
        record: Callable[[Record], None],
        event: Callable[[Mapping[str, Any]], None],
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
            while (frame := await self._wire.read()) is not None:
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
            self._record(Record(frame["seq"], frame["at_s"], frame["kind"], frame["data"]))
        elif kind == "event":
            self._event(fields_of(frame))
        elif kind == "spans":
            self._spans(frame.get("spans"))
        elif kind == "ask":
            if len(self._answers) >= _MOST_QUESTIONS:
                raise BrokenWire(f"more than {_MOST_QUESTIONS} questions at once")
            task = asyncio.create_task(self._answer(frame["id"], frame["what"], frame["args"]))
            self._answers.add(task)
            task.add_done_callback(self._answers.discard)

    async def _answer(self, number: int, what: str, args: Mapping[str, Any]) -> None:
        try:
            value = await self._answered(what, args)
        except BudgetSpent as refused:
            self._wire.send("answer", id=number, budget=refused.scope, message=str(refused))
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
            await self._answering.reserve(Quote(args["id"], args["model"], args["tokens"], args["usd"]))
            return None
        if what == "settle":
            quote, used = Quote(args["id"], args["model"], 0, None), args["usage"]
            await self._answering.settle(quote, Usage(used["input"], used["output"], used["cached"]), args["usd"])
            return None
        if what == "query":
            return await self._answering.query(args["what"], args["args"])
        raise ToolFailure(f"nobody here answers {what[:40]!r}")
