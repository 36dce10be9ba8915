"""
The agent, as others see it: it is asked, watched, steered, cancelled.

In: prompts, and what people say while it works. Out: an `Outcome` for each prompt; events for whoever subscribed.
Promise: one prompt at a time; cancelling ends it within a tenth of a second; what was asked to follow, follows. Secrets
in what people say go no further: neither records nor a model have them, and a replay begins as the run did.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from agentd.agent.account import Account
from agentd.agent.events import Listener, Listeners
from agentd.agent.inbox import Inbox
from agentd.agent.job import Job, Outcome
from agentd.agent.purse import paid_from
from agentd.agent.supervisor import Supervisor
from agentd.errors import AgentdError
from agentd.llm.spend import Purse
from agentd.telemetry.redact import redact

AgentStatus = Literal["idle", "running", "ended"]


class AgentBusy(AgentdError):
    """It works on a prompt already, or it has ended."""


@dataclass(frozen=True, slots=True)
class AgentState:
    """
    What it is doing. turn, steps, model_calls: so far, over all prompts. calls: ids of tasks under way.

    messages, tokens: of the window. waiting: follow-up messages. usd: None when a price is not known.
    """

    status: AgentStatus
    run: str
    turn: int
    steps: int
    calls: tuple[str, ...]
    messages: int
    tokens: int
    waiting: int
    model_calls: int
    usd: float | None


class Agent:
    """
    One agent with one memory. `open_agent` of `agentd.agent.run` puts one together.

    purse: of whom `PurseOfTheRun` asks while it works. stop_task: ends one task under way, by its id. timed: the job's
    time limit is kept by the loop's timers; a replay keeps it by its records.
    """

    def __init__(
        self,
        job: Job,
        supervisor: Supervisor,
        *,
        account: Account,
        listeners: Listeners,
        inbox: Inbox,
        purse: Purse | None = None,
        stop_task: Callable[[str], None] | None = None,
        timed: bool = True,
    ) -> None:
        self.job = job
        self._supervisor = supervisor
        self._account = account
        self._listeners = listeners
        self._inbox = inbox
        self._purse = purse
        self._stop_task = stop_task
        self._timed = timed
        self._timer: asyncio.TimerHandle | None = None
        self._status: AgentStatus = "idle"

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Returns what ends the subscription."""
        return self._listeners.subscribe(listener)

    @property
    def state(self) -> AgentState:
        messages, tokens = self._supervisor.window_size
        return AgentState(
            status=self._status,
            run=self.job.run,
            turn=self._supervisor.turn,
            steps=self._account.steps,
            calls=self._supervisor.calls_under_way,
            messages=messages,
            tokens=tokens,
            waiting=len(self._inbox.following),
            model_calls=self._account.model_calls,
            usd=self._account.usd,
        )

    @property
    def time_left_s(self) -> float:
        """Of the whole run."""
        return max(0.0, self.job.limits.time_s - self._account.elapsed_s)

    async def handle(self, input: str) -> Outcome:
        """Answer one input: `prompt` under the name that every agent has."""
        return await self.prompt(input)

    async def prompt(self, text: str | None = None) -> Outcome:
        """
        Work on this, None: on the job's goal; then on what was said to follow. Returns the last outcome.

        Raises AgentBusy.
        """
        if self._status != "idle":
            raise AgentBusy(f"the agent is {self._status}; steer it, or say what follows, while it runs")
        self._status = "running"
        text = redact(self.job.goal if text is None else text)
        if self._timed and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.time_left_s, self.out_of_time)
        try:
            with contextlib.nullcontext() if self._purse is None else paid_from(self._purse):
                outcome = await self._supervisor.work(text)
                while self._inbox.stopped is None and (following := self._next()) is not None:
                    outcome = await self._supervisor.work(redact(following))
            return outcome
        finally:
            if self._status == "running":
                self._status = "idle"
                self._inbox.reopen()

    def _next(self) -> str | None:
        # What was meant to steer work that had just ended is the next thing to do.
        for waiting in (self._inbox.steering, self._inbox.following):
            if waiting:
                return waiting.popleft()
        return None

    def steer(self, text: str) -> None:
        """
        Say something now: the model call or the tools under way are cancelled, and this comes next.

        Said to an idle agent it follows. Raises InboxFull.
        """
        text = redact(text)
        self._said("steer", text)
        if self._status == "running":
            self._inbox.steer(text)
        else:
            self._inbox.follow_up(text)

    def follow_up(self, text: str) -> None:
        """Say what comes after the current prompt, or with the next one. Raises InboxFull."""
        text = redact(text)
        self._said("follow_up", text)
        self._inbox.follow_up(text)

    def cancel(self, reason: str = "") -> None:
        """End the prompt under way, and forget what was to follow. Returns at once; `prompt` within 100 ms."""
        if self._status == "running":
            reason = redact(reason)
            self._said("cancel", reason)
            self._inbox.following.clear()
            self._inbox.stop("cancel", reason)

    def cancel_call(self, task: str) -> None:
        """End one call under way, by its task's id; the run goes on."""
        if self._stop_task is not None:
            self._stop_task(task)

    def out_of_time(self) -> None:
        """The run's time is over."""
        self._said("time", "")
        self._inbox.stop("time", "time limit reached")

    async def end(self) -> None:
        """No more prompts; waits a moment for what still cleans up behind itself."""
        self.cancel("the agent was ended")
        self._status = "ended"
        if self._timer is not None:
            self._timer.cancel()
        await self._inbox.close()

    def _said(self, what: str, text: str) -> None:
        self._account.record("steer", what=what, text=text)
