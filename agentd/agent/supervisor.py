"""
The supervisor: it understands the goal, plans, has things done, reads what came of them, and decides.

In: a goal or a further prompt, what people say meanwhile. Out: an `Outcome`, with events and records on the way.
Promise: only it talks to a model, only it remembers. Whatever a model, a tool or a person does ends in an outcome:
what was found is kept when steps, time, money or the model run out; nothing is asked without end.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentd.agent.account import Account, sha256
from agentd.agent.acting import Acted, Executes, Hands, tasks_of
from agentd.agent.asking import Cure, Questions, cure_for, room_for
from agentd.agent.ends import (
    LONGEST_ERROR,
    MAX_STEPS_ANSWER,
    REPETITION_ANSWER,
    TIME_ANSWER,
    End,
    completed,
    failed,
    nobody_asked,
    outcome_of,
    stopped,
)
from agentd.agent.events import AgentEnd, AgentStart, Listeners, MessageEnd, MessageStart, TurnEnd, TurnStart
from agentd.agent.evidence import Exhibits
from agentd.agent.examples import with_examples
from agentd.agent.excerpt import size_of
from agentd.agent.finding import misfits
from agentd.agent.graph import GraphError
from agentd.agent.inbox import Inbox, Interrupted
from agentd.agent.job import AgentPlan, Job, Outcome
from agentd.agent.observe import Observed
from agentd.agent.plan import derived_plan, plan_from
from agentd.agent.prompts import Prompts
from agentd.agent.replies import replies
from agentd.agent.sight import Sight
from agentd.agent.spans import Spans
from agentd.agent.window import Window
from agentd.errors import AgentdError
from agentd.fleet.messages import Task, WorkerClass
from agentd.llm.actions import (
    SPECIAL_TOOLS,
    Actions,
    BadAction,
    Note,
    action_guide,
    action_schema,
    actions_of,
    finding_answer,
)
from agentd.llm.port import ChatMessage, Done, Model, ModelFailure, ToolSpec
from agentd.llm.spend import BudgetSpent
from agentd.llm.tokens import count_tokens, count_tools

log = logging.getLogger("agentd.agent")

_BAD_ANSWERS = 2
_BROKEN_ANSWERS = 2
_BYTES_A_TOKEN = 8
_CUTS = 5
_MOST_MISSING = 20
_LONGEST_LINE = 200
_MUCH_EVIDENCE = 128 * 1024


@dataclass(slots=True)
class _Patience:
    """What was borne in one step."""

    bad: int = 0
    broken: int = 0
    overflowed: bool = False
    squeezed: bool = False


class Supervisor:
    """
    One for each run; `work` once for each prompt, never two at once.

    model: None: there is none, and why_no_model says why. specs: of the tools that the run may use. kind_of: class of
    workers that suits a tool, by its name. missing: what of the tools is not there, a line each, words of ours alone.
    """

    def __init__(
        self,
        job: Job,
        *,
        model: Model | None,
        why_no_model: str,
        executor: Executes,
        specs: Sequence[ToolSpec],
        kind_of: Callable[[str], WorkerClass],
        prompts: Prompts,
        account: Account,
        listeners: Listeners,
        spans: Spans,
        inbox: Inbox,
        missing: Sequence[str] = (),
    ) -> None:
        self._job = job
        self._model = model
        self._native = model is not None and model.native_tools
        self._why_no_model = why_no_model
        self._specs = tuple(specs)
        self._shown = self._specs if self._native else with_examples(specs, job.permissions)
        self._kind_of = kind_of
        self._prompts = prompts
        self._account = account
        self._listeners = listeners
        self._spans = spans
        self._inbox = inbox
        self._exhibits = Exhibits(job.run, job.exhibits)
        self._hands = Hands(
            executor,
            account=account,
            listeners=listeners,
            spans=spans,
            inbox=inbox,
            fence=self._exhibits.fence,
            output_bytes=job.limits.output_bytes,
        )
        self._sight = Sight(self._exhibits, account, limit_bytes=job.limits.observation_bytes, apart=self._native)
        self._window: Window | None = None
        self._questions: Questions | None = None
        self._plan: AgentPlan | None = None
        self._begun = False
        self._turn_open = False
        self._done_before = 0
        self._held: Any = None
        self._missing = "\n".join(f"{line[:_LONGEST_LINE]}." for line in missing[:_MOST_MISSING])
        self.turn = 0

    @property
    def calls_under_way(self) -> tuple[str, ...]:
        """Ids of tasks."""
        return tuple(self._hands.under_way)

    @property
    def window_size(self) -> tuple[int, int]:
        """Messages and tokens of the window."""
        return (len(self._window.messages()), self._window.tokens) if self._window else (0, 0)

    async def work(self, text: str) -> Outcome:
        """Answer this prompt; the first one is the goal. Raises nothing but CancelledError, everything ended then."""
        self._listeners.tell(AgentStart(self._job.run, text))
        self._spans.begin(text)
        self._done_before = self._account.steps
        self._held = None
        self._sight.begin()
        try:
            end = await self._to_the_end(text)
        except Interrupted:
            end = self._interrupted()
        except asyncio.CancelledError:
            self._finish(End("cancelled", error="the run was cancelled"))
            raise
        except AgentdError as error:
            end = self._failed(str(error))
        except Exception as error:
            log.exception("run_failed", extra={"run": self._job.run})
            end = self._failed(f"a defect in agentd: {type(error).__name__}: {error}")
        if self._held is not None and end.state != "cancelled" and (end.finding is None or end.finding.analysis):
            # Better what was to be put right than nothing.
            end = completed(self._job, self._exhibits, self._held)
        return self._finish(end)

    async def _to_the_end(self, text: str) -> End:
        if self._inbox.stopped is not None:
            raise Interrupted
        if not self._begun:
            self._begun = True
            await self._prepare(text)
        else:
            self._account.record("event", type="prompt", text=text)
            if self._window is not None:
                self._window.add(ChatMessage("user", text), keep=True)
        if self._questions is None:
            return nobody_asked(self._job, self._exhibits, self._why_no_model)
        while self._steps_left > 0:
            if (end := await self._step(self._questions)) is not None:
                return end
        return self._stopped(MAX_STEPS_ANSWER)

    @property
    def _steps_left(self) -> int:
        return self._job.limits.max_steps - (self._account.steps - self._done_before)

    # Before the first question

    async def _prepare(self, text: str) -> None:
        job = self._job if text == self._job.goal else self._job.model_copy(update={"goal": text})
        self._account.record("job", **job.model_dump(mode="json"))
        seen = await self._runbook()
        if (model := self._model) is None:
            self._account.record("event", type="no_model", reason=self._why_no_model)
            return
        guide = "" if self._native else self._guide()
        tools = (*self._specs, *SPECIAL_TOOLS) if self._native else ()
        system = self._prompts.system(job, tools=self._specs, guide=guide)
        self._account.record(
            "prompt",
            sha256=sha256(system),
            text=system,
            native=self._native,
            grammar=model.grammar,
            context_tokens=model.context_tokens,
            scenario=self._prompts.scenario(job),
            model=model.name,
            tools=[
                {"name": spec.name, "description": spec.description, "input_schema": dict(spec.input_schema),
                 "kind": self._kind_of(spec.name)}
                for spec in self._specs
            ],
        )  # fmt: skip
        room = room_for(model, job.models.get(job.model or ""), system, count_tools(tools))
        self._window = Window(
            functools.partial(self._goal_within, job, seen), max_messages=job.limits.window_messages, max_tokens=room
        )
        self._questions = Questions(
            job,
            model,
            self._window,
            system_prompt=system,
            tools=tools,
            account=self._account,
            listeners=self._listeners,
            spans=self._spans,
            inbox=self._inbox,
        )

    def _goal_within(self, job: Job, seen: Observed | str, tokens: int) -> str:
        """What was asked and what is known of it, cut before it is delimited: a block without its beginning is none."""
        limit = _BYTES_A_TOKEN * tokens
        for _ in range(_CUTS):
            goal = self._prompts.goal(job, exhibits=self._exhibits, limit_bytes=limit // 2 if seen else limit)
            room = min(job.limits.observation_bytes, limit - size_of(goal) - len(self._missing))
            goal = f"{goal}\n\n{self._missing}" if self._missing else goal
            known = seen.within(room) if isinstance(seen, Observed) else seen
            text = f"{goal}\n\n{known}" if known else goal
            if (size := count_tokens(text)) <= tokens:
                break
            limit = min(limit, size_of(text)) * tokens // (size + size // 16)
        return text

    def _guide(self) -> str:
        # What the answer of a goal looks like, the prompt says: two ways to end are one too many for a small model.
        return action_guide(self._shown, None) if self._must_find else action_guide(self._shown)

    @property
    def _must_find(self) -> bool:
        """Whether nothing but a finding is an answer; a person may be answered in words."""
        return self._job.kind in ("goal", "investigate")

    def _grammar(self) -> Mapping[str, Any] | None:
        """
        What the next answer can be, for servers that hold the model to it.

        Not an answer before anything was looked at, and nothing but an answer at the end: what rules and hints ask
        of every model, a small one does only when it can do nothing else.
        """
        if self._native or self._model is None or not self._model.grammar:
            return None
        over = self._steps_left == 1 or self._sight.in_circles
        given = self._job.kind == "investigate" and self._exhibits.ids
        blind = self._must_find and not over and not given and not self._account.tool_calls
        answer = finding_answer(self._exhibits.ids) if self._must_find else None
        return action_schema(() if over else self._specs, answer, final=not blind)

    async def _runbook(self) -> Observed | str:
        """Gather the evidence that needs no model; or what to say instead."""
        job = self._job
        if not job.runbook:
            return ""
        tasks = [
            Task(
                f"r.{place}",
                step.tool,
                step.input,
                job.limits.tool_timeout_s,
                kind=self._kind_of(step.tool),
                run=job.run,
                traceparent=self._spans.traceparent,
            )
            for place, step in enumerate(job.runbook, 1)
        ]
        try:
            acted = await self._hands.carry_out(tasks, purpose="runbook")
        except GraphError as error:
            return f"The runbook could not be run: {error}"
        seen = Observed(acted.results, self._exhibits, acted.texts, {task.id: task.input for task in tasks})
        self._account.record("observation", purpose="runbook", text=seen.within(job.limits.observation_bytes))
        if self._inbox.stopped is not None:
            raise Interrupted
        return seen

    # One step: a good answer, and what it asks for

    async def _step(self, questions: Questions) -> End | None:
        patience = _Patience()
        assert self._window is not None
        while True:
            self._begin_turn()
            try:
                if self._window.needs_compaction or patience.squeezed:
                    patience.squeezed = False
                    self._decided("compact", await questions.make_room())
                self._take_steering(self._window)
                done = await questions.ask(self._grammar())
            except Interrupted:
                self._end_turn("interrupted", "somebody spoke while the model answered")
                if self._inbox.stopped is not None:
                    raise
                continue
            except (ModelFailure, BudgetSpent) as failure:
                if (end := self._mended(failure, patience)) is not None:
                    return end
                continue
            self._window.add(done.message)
            try:
                actions = self._actions(done, last_try=patience.bad >= _BAD_ANSWERS)
                if actions.final is not None:
                    self._fits(done.message, actions.final, patience)
                if actions.calls:
                    self._held = None
                    tasks = self._tasks(actions)
                    acted = await self._hands.carry_out(tasks, begins=functools.partial(self._planned, actions))
            except (BadAction, GraphError) as error:
                if (end := self._put_right(done, error, patience)) is not None:
                    return end
                continue
            self._account.steps += 1
            if actions.calls:
                return self._observed(done.message, tasks, acted, actions.notes)
            self._planned(actions)
            if actions.final is not None:
                return await self._final(done.message, actions.final)
            self._reply(done.message, {}, "Noted. Take the first step of it now.", actions.notes)
            self._end_turn("continue", "a plan was made")
            return None

    def _mended(self, failure: ModelFailure | BudgetSpent, patience: _Patience) -> End | None:
        """Make good what can be, or give up."""
        assert self._window is not None
        cure = cure_for(failure, again=patience.broken < _BROKEN_ANSWERS)
        if cure is Cure.ASK_AGAIN:
            patience.broken += 1
            self._decided("ask_again", str(failure))
            self._end_turn("ask_again", str(failure))
            return None
        if cure is Cure.COMPACT and not patience.overflowed:
            patience.overflowed = True
            # Our own count of tokens was wrong; the window is to believe it no more.
            self._window.shrink()
            patience.squeezed = True
            self._decided("compact", str(failure))
            self._end_turn("compact", str(failure))
            return None
        self._decided("terminate", str(failure))
        self._end_turn("terminate", str(failure))
        return (
            nobody_asked(self._job, self._exhibits, str(failure))
            if cure is Cure.WITHOUT
            else self._failed(str(failure))
        )

    def _actions(self, done: Done, *, last_try: bool) -> Actions:
        """What the answer asks for; on the last try also what is cut, or doubtful. Raises BadAction."""
        if done.stop_reason == "content_filter" and not done.message.tool_calls and not done.message.content.strip():
            raise BadAction("the provider's filter held the answer back; say it in other words")
        cut = done.stop_reason in ("length", "content_filter")
        try:
            return actions_of(done.message, self._native, self._shown, cut=cut, quoted=self._is_quoted)
        except BadAction as error:
            if last_try and error.otherwise is not None:
                self._decided("make_do", str(error))
                return error.otherwise
            if not cut:
                raise
            by = f"its {done.usage.output_tokens} tokens" if done.stop_reason == "length" else "the provider's filter"
            raise BadAction(
                f"the answer was cut by {by}, make it shorter: {error}", call_id=error.call_id, tool=error.tool
            ) from error

    def _fits(self, message: ChatMessage, final: Any, patience: _Patience) -> None:
        """Once for each prompt: what does not fit is said. Raises BadAction."""
        if self._held is not None or patience.bad or not (message.tool_calls or self._must_find):
            return
        if wrong := misfits(final):
            self._held = final
            raise BadAction(wrong)

    def _is_quoted(self, text: str) -> bool:
        return any(self._exhibits.said(id, text) for id in self._exhibits.ids)

    def _tasks(self, actions: Actions) -> list[Task]:
        limits = self._job.limits
        return tasks_of(
            actions.calls,
            self._account.steps + 1,
            timeout_s=limits.tool_timeout_s,
            longest_s=limits.time_s,
            kind_of=self._kind_of,
            run=self._job.run,
            traceparent=self._spans.traceparent,
        )

    def _put_right(self, done: Done, error: BadAction | GraphError, patience: _Patience) -> End | None:
        """Tell the model what was wrong with its answer, or give up."""
        patience.bad += 1
        message = str(error)[:LONGEST_ERROR]
        if patience.bad > _BAD_ANSWERS:
            self._account.steps += 1
            self._reply(done.message, {}, "not done")
            self._decided("terminate", message)
            self._end_turn("terminate", message)
            return self._failed(
                f"the model gave {patience.bad} answers in a row that cannot be read; the last: {message}"
            )
        self._reply(done.message, {}, f"Your answer cannot be used: {message}")
        self._decided("correct", message)
        self._end_turn("correct", message)
        return None

    def _planned(self, actions: Actions) -> None:
        if (plan := plan_from(actions.plan)) is None and self._plan is None:
            plan = derived_plan(self._job.goal, [call.tool for call in actions.calls])
        if plan is not None:
            self._plan = plan
            self._spans.planned(plan)
            self._account.record("plan", **plan.model_dump(mode="json"), own=actions.plan is not None)

    # What came of it

    def _observed(self, message: ChatMessage, tasks: Sequence[Task], acted: Acted, notes: Sequence[Note]) -> End | None:
        texts = self._sight.of(tasks, acted, last_step=self._steps_left == 1)
        self._reply(message, texts, "Noted.", notes)
        if self._inbox.stopped is not None:
            self._end_turn("interrupted", acted.reason)
            raise Interrupted
        if acted.decision == "terminate":
            self._end_turn("terminate", acted.reason)
            return self._failed(acted.reason)
        if self._sight.hopeless:
            self._decided("terminate", REPETITION_ANSWER)
            self._end_turn("terminate", REPETITION_ANSWER)
            return self._stopped(REPETITION_ANSWER)
        self._end_turn(acted.decision, acted.reason)
        return None

    def _reply(
        self, message: ChatMessage, texts: Mapping[str | None, str], rest: str, notes: Sequence[Note] = ()
    ) -> None:
        assert self._window is not None
        for reply in replies(message, texts, rest, notes):
            self._window.add(reply)

    async def _final(self, message: ChatMessage, final: Any) -> End | None:
        assert self._window is not None
        if message.tool_calls:
            self._reply(message, {}, "Noted.")
        if self._inbox.stopped is not None:
            raise Interrupted
        if self._inbox.steering:
            self._end_turn("interrupted", "somebody spoke while the model answered")
            return None
        self._end_turn("final")
        if self._exhibits.bytes < _MUCH_EVIDENCE:
            return completed(self._job, self._exhibits, final)
        # Quotes are looked up in all of it.
        return await asyncio.to_thread(completed, self._job, self._exhibits, final)

    # What people say

    def _take_steering(self, window: Window) -> None:
        while self._inbox.steering:
            text = self._inbox.steering.popleft()
            self._listeners.tell(MessageStart("user"))
            self._listeners.tell(MessageEnd("user", text))
            window.add(ChatMessage("user", text), keep=True)

    # Ends

    def _interrupted(self) -> End:
        if self._inbox.stopped == "time":
            return self._stopped(TIME_ANSWER)
        return End("cancelled", error=self._inbox.reason or "the run was cancelled")

    def _failed(self, reason: str) -> End:
        return failed(self._job, self._exhibits, reason)

    def _stopped(self, answer: str) -> End:
        return stopped(self._job, self._exhibits, answer)

    def _finish(self, end: End) -> Outcome:
        self._end_turn(end.state, end.error or "")
        account = self._account
        if end.finding is not None:
            account.record("finding", **end.finding.model_dump(mode="json"))
        outcome = outcome_of(end, account, self._plan)
        shown = outcome.model_dump(mode="json")
        account.record("outcome", **shown)
        self._spans.end(outcome)
        self._listeners.tell(AgentEnd(self._job.run, outcome.state, shown))
        return outcome

    # Turns

    def _begin_turn(self) -> None:
        self.turn += 1
        self._turn_open = True
        self._listeners.tell(TurnStart(self.turn))

    def _end_turn(self, decision: str, reason: str = "") -> None:
        if self._turn_open:
            self._turn_open = False
            self._listeners.tell(TurnEnd(self.turn, decision, reason))

    def _decided(self, decision: str, reason: str) -> None:
        self._account.record("decision", decision=decision, reason=reason[:LONGEST_ERROR])
