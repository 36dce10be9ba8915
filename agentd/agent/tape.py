"""
The records of a run, played: a model, an executor and a clock that say what was recorded.

In: records, in their order. Out: answers, results and what people said, each at the place where it came then.
Promise: reads nothing else. What today's code asks beyond the records is refused in words that say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agentd.agent.account import message_from
from agentd.agent.executor import Watcher
from agentd.agent.graph import TaskGraph
from agentd.agent.inbox import Inbox
from agentd.agent.port import Record
from agentd.agent.session import Agent
from agentd.clock import EPOCH
from agentd.fleet.messages import ErrorKind, Result, Task
from agentd.llm.port import Done, FailureKind, ModelEvent, ModelFailure, Request, TextDelta, ToolCallDelta, Usage
from agentd.llm.spend import BudgetSpent

_RESULT_FIELDS = frozenset(Result.__dataclass_fields__)


class TapeClock:
    """Stands where the tape stands."""

    def __init__(self, begun: datetime) -> None:
        self._begun = begun
        self.at_s = 0.0

    def now(self) -> datetime:
        return self._begun + timedelta(seconds=self.at_s)

    def monotonic(self) -> float:
        return self.at_s


class Tape:
    """agent, inbox: whom what people said is told, set before it plays."""

    agent: Agent
    inbox: Inbox

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = sorted(records, key=lambda record: record.seq)
        self._place = 0
        self.clock = TapeClock(_begin_of(self.first("job")))

    def first(self, kind: str) -> dict[str, Any] | None:
        return next((dict(record.data) for record in self.records if record.kind == kind), None)

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((dict(record.data) for record in reversed(self.records) if record.kind == kind), None)

    def next_answer(self) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
        """The next question's record, and what people said before it ended."""
        said: list[Mapping[str, Any]] = []
        for place in range(self._place, len(self.records)):
            record = self.records[place]
            if record.kind == "steer":
                said.append(record.data)
            elif record.kind == "model":
                self._go_past(place)
                return record.data, said
        return None, []

    def next_result(self, ids: set[str]) -> Record | None:
        """The next of: a start or result of these tasks, something said. None: the model is asked next, or the end."""
        for place in range(self._place, len(self.records)):
            record = self.records[place]
            if record.kind in ("model", "outcome"):
                return None
            if record.kind == "steer" or (record.kind in ("task", "result") and record.data.get("task") in ids):
                self._go_past(place)
                return record
        return None

    def said_next(self) -> Mapping[str, Any] | None:
        """What somebody said before anything else happened."""
        if self._place == len(self.records) or self.records[self._place].kind != "steer":
            return None
        self._go_past(self._place)
        return self.records[self._place - 1].data

    def before_the_question(self) -> None:
        """Say what was said before the next question was asked, and so was in it."""
        ahead = range(self._place, len(self.records))
        question = next((place for place in ahead if self.records[place].kind == "model"), None)
        if question is None:
            return
        asked = self.records[question].data.get("asked", 0)
        for place in range(self._place, question):
            record = self.records[place]
            if record.seq > asked or (record.kind == "steer" and record.data.get("what") in ("cancel", "time")):
                # Whoever ends it has the question ended, which has a record as well.
                return
            if record.kind == "steer":
                self._go_past(place)
                self.say(record.data)

    def prompt(self, number: int) -> str | None:
        """What it was asked beside the goal, for the nth time (from 0): the tape goes there. None: no more."""
        places = [
            place
            for place, record in enumerate(self.records)
            if record.kind == "event" and record.data.get("type") == "prompt"
        ]
        if number >= len(places):
            return None
        self._go_past(max(places[number], self._place - 1))
        return str(self.records[places[number]].data.get("text"))

    def say(self, said: Mapping[str, Any]) -> None:
        """As it was said then."""
        what, text = said.get("what"), str(said.get("text") or "")
        if what == "steer":
            self.agent.steer(text)
        elif what == "follow_up":
            self.agent.follow_up(text)
        elif what == "cancel":
            self.agent.cancel(text)
        elif what == "time":
            self.agent.out_of_time()

    def _go_past(self, place: int) -> None:
        self._place = place + 1
        self.clock.at_s = max(self.clock.at_s, self.records[place].at_s)


class RecordedModel:
    """Answers as was answered then. seen: the record of the prompt, which says what the model can."""

    def __init__(self, tape: Tape, seen: Mapping[str, Any]) -> None:
        self._tape = tape
        self.name = str(seen.get("model", ""))
        self.native_tools = bool(seen.get("native"))
        self.grammar = bool(seen.get("grammar"))
        self.context_tokens = int(seen.get("context_tokens", 32768))

    async def stream(self, request: Request) -> AsyncIterator[ModelEvent]:
        answer, said = self._tape.next_answer()
        if answer is None:
            raise ModelFailure("the record ends here: the model was not asked any more then", FailureKind.BAD_REQUEST)
        for each in said:
            self._tape.say(each)
        if (error := answer.get("error")) is not None:
            if error.get("kind") == "interrupted" and said:
                # Whoever spoke just now has this cancelled.
                await asyncio.get_running_loop().create_future()
            raise _failure(error)
        message = message_from(answer["answer"])
        if message.content:
            yield TextDelta(message.content)
        for index, call in enumerate(message.tool_calls):
            yield ToolCallDelta(index, call.id, call.name, call.arguments)
        yield Done(
            message,
            Usage(**answer.get("usage", {})),
            answer.get("stop_reason", "stop"),
            answer.get("answered_by", ""),
            answer.get("served_by", ""),
            answer.get("usd"),
        )

    async def close(self) -> None:
        return None


class RecordedExecutor:
    """Gives the results that were had then, in the order in which they came."""

    recorded = True

    def __init__(self, tape: Tape, max_parallel: int) -> None:
        self._tape = tape
        self.max_parallel = max_parallel

    async def run(self, graph: TaskGraph, watcher: Watcher) -> list[Result]:
        waiting = {task.id: task for task in graph}
        results: dict[str, Result] = {}
        while waiting and (record := self._tape.next_result(set(waiting))) is not None:
            if record.kind == "steer":
                self._tape.say(record.data)
                continue
            task = waiting[record.data["task"]]
            if record.kind == "task":
                watcher.started(task)
                continue
            del waiting[task.id]
            results[task.id] = _result(task, record.data)
            watcher.ended(task, results[task.id])
        # Said before the results were decided about, or the decision would stand here.
        while not waiting and (said := self._tape.said_next()) is not None:
            self._tape.say(said)
        for task in waiting.values():
            results[task.id] = _not_recorded(task)
        return [results[task.id] for task in graph]

    def cancel(self, task: str | None = None) -> None:
        """What was stopped then has its result in the records."""


def _result(task: Task, data: Mapping[str, Any]) -> Result:
    if data.get("tool") != task.tool:
        return _not_recorded(task)
    return Result.from_json({name: value for name, value in data.items() if name in _RESULT_FIELDS})


def _not_recorded(task: Task) -> Result:
    message = "the record has no result of this call: it was not made then"
    return Result(task.id, task.tool, None, ErrorKind.CANCELLED, message, task.attempt)


def _failure(error: Mapping[str, Any]) -> ModelFailure | BudgetSpent:
    message, kind = str(error.get("message", "")), str(error.get("kind"))
    if kind == "budget" and error.get("scope"):
        return BudgetSpent(message, str(error["scope"]))
    known = kind in FailureKind.__members__.values()
    return ModelFailure(
        message,
        FailureKind(kind) if known else FailureKind.CUT,
        status=error.get("status"),
        received=bool(error.get("received")),
    )


def _begin_of(job: Mapping[str, Any] | None) -> datetime:
    try:
        moment = datetime.fromisoformat(str((job or {}).get("now")))
    except ValueError:
        return EPOCH
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
