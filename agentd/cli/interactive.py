"""
`agentd interactive`: talk with an agent that remembers what was said.

In: lines. Out: what the agent does and answers, as it comes.
Promise: what is typed while it works steers it; on a pipe each line waits for the one before. The end of the input ends
the session when what was asked is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import click

from agentd.cli import FAILED
from agentd.cli.answer import answer_lines, call_line, prose, short, shown_seconds, shown_usd
from agentd.cli.client import NoDaemon, Refused
from agentd.cli.errand import UNDER_WAY, Errand, begin, models_here, tools_here
from agentd.cli.options import config_option
from agentd.cli.place import Place, find_place
from agentd.cli.progress import Progress
from agentd.cli.streaming import Stream
from agentd.cli.tables import clean
from agentd.cli.task import asked_from, quiet_logging, task_options, tell
from agentd.cli.typist import Typist
from agentd.errors import AgentdError

Json = Mapping[str, Any]

_BEGINS_S = 10.0
_AGAIN_S = 0.2
_NOT_UNDER_WAY = 409
_AT_ONCE = ("steer", "follow", "cancel", "help")

HELP = """\
Write what the agent is to do. While it works, what you write steers it.
/steer TEXT    say something now, what it does is interrupted
/follow TEXT   say what comes next, when this is done
/cancel        end what it does now (so does Ctrl-C); it keeps what it knows
/status        what it is doing, and what that took
/tools         what it may use
/models        the configured models; /model NAME takes another, with a new session
/new           forget all and begin anew
/quit          end it at once; Ctrl-D ends it when this is done"""


@click.command()
@task_options
@config_option
def interactive(
    model: str | None,
    tools: tuple[str, ...],
    max_steps: int | None,
    timeout: str | None,
    scenario: str | None,
    priority: str,
    standalone: bool,
    config_path: Path | None,
) -> None:
    """
    Talk with an agent, line by line; /help says which commands there are.

    It works at the daemon; where none runs, in this process. On a pipe each line waits for the one before, save /steer,
    /follow and /cancel. A session lasts as long as the budget of one run lets it.

    Exits with 0; with 1 when the last answer was none.
    """

    def asked(goal: str, name: str | None) -> Any:
        return asked_from(goal, name or model, tools, max_steps, timeout, scenario, priority, session=True)

    place = find_place(config_path)
    with quiet_logging():
        code = asyncio.run(_converse(place, asked, standalone))
    sys.exit(code)


async def _converse(place: Place, asked: Callable[[str, str | None], Any], standalone: bool) -> int:
    with Typist() as typist:
        talk = _Talk(place, asked, standalone, typist)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, talk.interrupt)
        try:
            if typist.is_terminal:
                typist.print("/help says what can be said; Ctrl-D ends it.")
            typist.go_on()
            heard = False
            while not talk.over and (line := await talk.next_line()) is not None:
                heard = heard or bool(line.strip())
                await talk.take(line.strip())
                typist.go_on()
            if not heard and not typist.is_terminal:
                click.echo("the input ended before anything was asked; write one line for each thing to do", err=True)
            await talk.end()
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return FAILED if talk.failed else 0


class _Talk:
    """
    A conversation: one session after another, mostly one alone.

    failed: the last prompt came to no answer.
    """

    def __init__(self, place: Place, asked: Callable[[str, str | None], Any], standalone: bool, typist: Typist) -> None:
        self._place = place
        self._asked = asked
        self._standalone = standalone
        self._typist = typist
        self._print = typist.print
        self._model: str | None = None
        self._errand: Errand | None = None
        self._stack = contextlib.AsyncExitStack()
        self._following: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving = False
        self._quit = asyncio.Event()
        self._progress = Progress(0.0)
        self._stream = Stream()
        self._tasks: set[asyncio.Task[None]] = set()
        self.over = False
        self.failed = False
        self._commands: Mapping[str, Callable[[str], Awaitable[None]]] = {
            "help": self._help,
            "steer": self._steer,
            "follow": self._follow,
            "cancel": self._cancel,
            "status": self._status,
            "tools": self._tools,
            "model": self._models,
            "models": self._models,
            "new": self._new,
            "quit": self._leave,
            "exit": self._leave,
        }

    async def next_line(self) -> str | None:
        """None: nothing more is typed, or Ctrl-C asked to leave."""
        line = asyncio.create_task(self._typist.lines.get())
        leaving = asyncio.create_task(self._quit.wait())
        try:
            await asyncio.wait([line, leaving], return_when=asyncio.FIRST_COMPLETED)
            return line.result() if line.done() else None
        finally:
            for task in (line, leaving):
                task.cancel()

    async def take(self, line: str) -> None:
        self._leaving = False
        try:
            if line.startswith("/"):
                name, _, text = line[1:].partition(" ")
                command = self._commands.get(name)
                if name not in _AT_ONCE:
                    await self._turn()
                if command is None:
                    self._print(f"there is no /{clean(name)}; /help says what there is")
                else:
                    await command(text.strip())
            elif line:
                await self._turn()
                if self._errand is not None and not self._idle.is_set():
                    self._print(click.style("  … steering it", dim=True))
                await self._say("steer", line)
        except AgentdError as error:
            self.failed = True
            self._idle.set()
            self._print(clean(f"agentd: {error}"))

    async def _turn(self) -> None:
        """On a pipe nothing is said before its turn."""
        if not self._typist.is_terminal:
            await self._idle.wait()

    def interrupt(self) -> None:
        """Ctrl-C."""
        if not self._idle.is_set():
            task = asyncio.create_task(self._cancel(""))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self._leaving:
            self._quit.set()
        else:
            self._leaving = True
            self._print("Ctrl-C once more, or Ctrl-D, leaves")

    async def end(self) -> None:
        """Let the session end, when what was asked is done."""
        following, ended = self._following, self.over
        self.over = True
        if self._errand is not None and not ended:
            with contextlib.suppress(Refused, NoDaemon):
                await self._until_heard("end", "")
        if following is not None:
            await asyncio.wait([following])
        await self._stack.aclose()

    # What is said

    async def _say(self, kind: Literal["steer", "follow_up"], text: str) -> None:
        self._idle.clear()
        if self._errand is not None and await self._until_heard(kind, text):
            return
        await self._close()
        self._idle.clear()
        asked = self._asked(text, self._model)
        began = begin(self._place, asked, standalone=self._standalone, tell=tell)
        errand = self._errand = await self._stack.enter_async_context(began)
        self._progress = Progress(0.0)
        self._following = asyncio.create_task(self._follow_events(errand), name="follow")

    async def _until_heard(self, kind: Literal["steer", "follow_up", "end"], text: str) -> bool:
        """Say it; a session that has not begun yet hears it a moment later. False: it has ended."""
        errand = self._errand
        assert errand is not None
        loop = asyncio.get_running_loop()
        until = loop.time() + _BEGINS_S
        while True:
            try:
                await errand.say(kind, text)
                return True
            except Refused as refused:
                if refused.status != _NOT_UNDER_WAY:
                    raise
                if loop.time() > until or (await errand.view())["status"] not in UNDER_WAY:
                    return False
            await asyncio.sleep(_AGAIN_S)

    async def _close(self) -> None:
        following, self._following, self._errand = self._following, None, None
        if following is not None:
            following.cancel()
            await asyncio.wait([following])
        await self._stack.aclose()

    # What comes back

    async def _follow_events(self, errand: Errand) -> None:
        try:
            async for event in errand.events():
                self._progress.take(event, asyncio.get_running_loop().time())
                self._show(event)
            view = await errand.view()
            if view["status"] != "completed":
                error = ((view.get("result") or {}).get("details") or {}).get("error") or ""
                self.failed = True
                self._print(clean(f"the session {view['status']}{': ' if error else ''}{error}"))
            elif not self.over:
                self._print("the session is over; what you write next begins a new one")
        except AgentdError as error:
            self.failed = True
            self._print(clean(f"agentd: {error}"))
        finally:
            if self._errand is errand:
                self._errand = None
            self._idle.set()

    def _show(self, event: Json) -> None:
        kind = event.get("event")
        if self._typist.is_terminal:
            for line in self._stream.take(event):
                self._print(line)
        if kind == "AgentStart":
            self._idle.clear()
        elif kind == "ToolExecutionStart":
            self._print(click.style(f"  {clean(event.get('id'))} {call_line(event)}", dim=True))
        elif kind == "ToolExecutionEnd":
            self._print(click.style(f"  {_ended(event)}", fg="red" if event.get("error") else None, dim=True))
        elif kind == "AgentEnd":
            self._answered(event.get("outcome") or {})
            self._idle.set()

    def _answered(self, outcome: Json) -> None:
        finding, answer = outcome.get("finding"), outcome.get("answer")
        # What has come word by word stands there already.
        came = finding is None and self._stream.has_shown(answer)
        lines = [] if came else list(answer_lines({"finding": finding, "answer": answer}))
        state = outcome.get("state")
        self.failed = state != "completed"
        if state == "cancelled":
            lines = ["cancelled; it keeps what it knows"]
        elif state != "completed":
            lines.append(f"{state}: {prose(outcome.get('error') or '')}")
        for line in lines:
            self._print(line)
        tokens = outcome.get("input_tokens", 0) + outcome.get("output_tokens", 0)
        self._print(click.style(f"  so far {tokens:,} tokens, {shown_usd(outcome.get('usd'))}", dim=True))

    # Commands

    async def _help(self, text: str) -> None:
        self._print(HELP)

    async def _steer(self, text: str) -> None:
        if not text:
            self._print("write /steer and what you want to say")
        else:
            if not self._idle.is_set():
                self._print(click.style("  … steering it", dim=True))
            await self._say("steer", text)

    async def _follow(self, text: str) -> None:
        if not text:
            self._print("write /follow and what comes next")
        else:
            await self._say("follow_up", text)

    async def _cancel(self, text: str) -> None:
        errand = self._errand
        if errand is None or self._idle.is_set():
            self._print("it is doing nothing")
            return
        try:
            await errand.say("cancel", "cancelled by a person")
        except Refused as refused:
            if refused.status != _NOT_UNDER_WAY:
                self._print(clean(f"it could not be cancelled: {refused}"))
            else:
                await errand.cancel()  # it waits for its turn still

    async def _status(self, text: str) -> None:
        errand = self._errand
        if errand is None:
            self._print("no session yet")
            return
        view = await errand.view()
        doing = "works" if not self._idle.is_set() else "waits for you"
        facts = [f"{errand.id} {doing} {errand.where}", f"{self._progress.tokens:,} tokens"]
        facts += [shown_usd(self._progress.usd)]
        self._print(clean(", ".join(facts)))
        if plan := view.get("plan"):
            self._print(f"plan: {short(plan.get('understanding'))}")
        for call in self._progress.calls.values():
            if call.state == "running":
                self._print(f"  {clean(call.id)} {clean(call.tool)} {short(call.input)}")

    async def _tools(self, text: str) -> None:
        for tool in tools_here(self._place):
            if tool["allowed"]:
                self._print(f"  {clean(tool['name']):<16} {short(tool['description'], 100)}")

    async def _models(self, text: str) -> None:
        known = models_here(self._place)
        if text:
            if text not in [each["name"] for each in known]:
                self._print(f"there is no model {short(text, 60)}; /models lists them")
                return
            self._model = text
            await self._new("")
            return
        for each in known:
            taken = each["name"] == self._model if self._model is not None else each["default"]
            self._print(f"{'*' if taken else ' '} {clean(each['name']):<16} {clean(each['model'])}")
        if not known:
            self._print("no models are configured")

    async def _new(self, text: str) -> None:
        if self._errand is not None:
            with contextlib.suppress(Refused):
                await self._errand.cancel()
            await self._close()
        self._idle.set()
        self._print(f"a new session begins with what you write{f', with {self._model}' if self._model else ''}")

    async def _leave(self, text: str) -> None:
        self.over = True
        if self._errand is not None:
            with contextlib.suppress(Refused, NoDaemon):
                await (self._errand.say("end") if self._idle.is_set() else self._errand.cancel())


def _ended(event: Json) -> str:
    head = f"{clean(event.get('id'))} {clean(event.get('tool'))} {shown_seconds(event.get('duration_s') or 0.0)}"
    if event.get("error"):
        return f"{head} {clean(event['error'])}: {short(event.get('message'), 160)}"
    return f"{head} ok"
