"""
`agentd task`: ask an agent one thing, see it work, get its answer.

The daemon does it, with its budgets and its record; where there is none, this process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from agentd.api.tasks import MAX_GOAL_CHARS, TaskAsked, read_task
from agentd.cli import FAILED, FIRING
from agentd.cli.answer import answer_lines, cost_line, event_line, shown_seconds
from agentd.cli.errand import UNDER_WAY, Errand, begin, written
from agentd.cli.names import model_names
from agentd.cli.options import config_option
from agentd.cli.place import Place, find_place
from agentd.cli.progress import Progress
from agentd.cli.tables import clean, print_json
from agentd.settings import parse_duration, positive_duration

LEFT = 130

Json = Mapping[str, Any]


def task_options(command: Any) -> Any:
    """What may be said of a task beside its goal."""
    for option in reversed(
        (
            click.option("--model", shell_complete=model_names, help="Which of the configured models to ask."),
            click.option(
                "--tool", "tools", multiple=True, help="Only this tool, and others named so; of those that are allowed."
            ),
            click.option("--max-steps", type=click.IntRange(1, 1000), help="Steps at most."),
            click.option("--timeout", metavar="DURATION", help="Time at most, e.g. 2m."),
            click.option("--scenario", help="Which prompt template; default: as the goal says."),
            click.option(
                "--priority",
                type=click.Choice(["low", "normal", "high", "critical"]),
                default="normal",
                show_default=True,
                help="Which of those that wait begins first.",
            ),
            click.option("--standalone", is_flag=True, help="Do it in this process, even when a daemon runs."),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("goal", metavar="TASK")
@task_options
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "verbose", "json"]),
    default="text",
    show_default=True,
    help="The answer; what happens line by line, and the answer; or the task as JSON.",
)
@config_option
def task(
    goal: str,
    model: str | None,
    tools: tuple[str, ...],
    max_steps: int | None,
    timeout: str | None,
    scenario: str | None,
    priority: str,
    standalone: bool,
    output: str,
    config_path: Path | None,
) -> None:
    """
    Ask an agent to do TASK ("-": read it from stdin), and wait for its answer.

    The daemon does it; where none runs, this process does, with the same budgets. All options can only narrow what the
    configuration allows. Ctrl-C cancels the task, a second one leaves at once.

    Exits with 0 when it is done, 3 when it is done and what was found is a problem, 1 when it failed, was stopped or
    cancelled, 2 when the call or the configuration is wrong, 130 when a second Ctrl-C left it.
    """
    asked = asked_from(goal, model, tools, max_steps, timeout, scenario, priority)
    place = find_place(config_path)
    with quiet_logging():
        view = asyncio.run(_do(place, asked, standalone, output))
    if output == "json":
        print_json(view)
    sys.exit(exit_code(view))


def asked_from(
    goal: str,
    model: str | None,
    tools: tuple[str, ...],
    max_steps: int | None,
    timeout: str | None,
    scenario: str | None,
    priority: str,
    *,
    session: bool = False,
) -> TaskAsked:
    """Raises ConfigError, click.UsageError for what cannot be meant."""
    if goal == "-":
        goal = sys.stdin.buffer.read(4 * MAX_GOAL_CHARS + 1).decode(errors="replace")
    goal = written(goal).strip()
    if not goal:
        raise click.UsageError("the task is empty")
    constraints: dict[str, Any] = {"max_steps": max_steps}
    if timeout is not None:
        try:
            constraints["max_execution_time"] = positive_duration(parse_duration(timeout)).total_seconds()
        except ValueError as error:
            raise click.UsageError(f"--timeout: {error}") from error
    context = {"tools": [written(each) for each in tools] or None, "constraints": constraints}
    wanted = {"model": model, "scenario": scenario}
    named = {key: written(value) for key, value in wanted.items() if value is not None}
    return read_task({"task": goal, "context": context, "priority": priority, "session": session, **named})


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Warnings of a run stand in its record; in a person's terminal, errors alone."""
    from agentd.telemetry.logging import close_logging, open_logging

    open_logging("error", "console")
    try:
        yield
    finally:
        close_logging()


def exit_code(view: Json) -> int:
    """As `agentd task --help` says."""
    if view["status"] != "completed":
        return FAILED
    finding = ((view.get("result") or {}).get("details") or {}).get("finding") or {}
    return FIRING if finding.get("status") == "problem" else 0


async def _do(place: Place, asked: TaskAsked, standalone: bool, output: str) -> dict[str, Any]:
    async with begin(place, asked, standalone=standalone, tell=tell) as errand:
        watcher = _Watcher(errand, output)
        with _interrupts(watcher):
            await watcher.follow()
        view = await errand.view()
        if output != "json":
            print_answer(view)
        return view


def tell(line: str) -> None:
    """A word beside the answer."""
    click.echo(clean(line), err=True)


def print_answer(view: Json) -> None:
    """The answer on stdout; what a finding took with it, else beside it on stderr; what went wrong on stderr."""
    lines = list(answer_lines(view))
    for line in lines:
        click.echo(line)
    finding = ((view.get("result") or {}).get("details") or {}).get("finding")
    if finding is not None:
        click.echo("")
    if view["status"] != "completed":
        error = ((view.get("result") or {}).get("details") or {}).get("error") or ""
        what = "is still under way" if view["status"] in UNDER_WAY else view["status"]
        tell(f"{view['task_id']} {what}{': ' if error else ''}{error}")
    click.echo(click.style(cost_line(view), dim=True), err=finding is None)


class _Watcher:
    """Shows one errand until its end."""

    def __init__(self, errand: Errand, output: str) -> None:
        self.errand = errand
        self._lines = output == "verbose"
        self._began_s = time.monotonic()
        self._progress = Progress(self._began_s)
        self._cancelling: asyncio.Task[None] | None = None
        self._view: Any = None
        if output == "text" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from agentd.cli.live import LiveView

            self._view = LiveView(self._progress, self._plan)

    async def follow(self) -> None:
        tell(f"{self.errand.id} runs {self.errand.where}")
        if self._view is None:
            await self._listen()
            return
        with self._view:
            drawing = asyncio.create_task(self._view.draw())
            try:
                await self._listen()
            finally:
                drawing.cancel()
                await asyncio.wait([drawing])

    async def _listen(self) -> None:
        async for event in self.errand.events():
            now_s = time.monotonic()
            self._progress.take(event, now_s)
            if self._lines and (line := event_line(event)) is not None:
                click.echo(f"{shown_seconds(now_s - self._began_s):>7}  {line}")

    async def _plan(self) -> Any:
        # A picture is worth no failure: what is wrong comes up where the events are read.
        with contextlib.suppress(Exception):
            return (await self.errand.view())["plan"]
        return None

    def interrupt(self) -> None:
        """Ctrl-C: cancel; when that was done already, leave at once."""
        if self._cancelling is None:
            self._note("cancelling; Ctrl-C once more leaves at once")
            self._cancelling = asyncio.create_task(self._cancel())
            return
        if self._view is not None:
            self._view.stop()
        self.errand.abandon()
        tell(f"left; `agentd runs {self.errand.id}` shows what came of it")
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(LEFT)

    async def _cancel(self) -> None:
        try:
            await self.errand.cancel()
        except Exception as error:
            self._note(f"it could not be cancelled: {error}")

    def _note(self, text: str) -> None:
        if self._view is not None:
            self._view.note = text
        else:
            tell(text)


@contextlib.contextmanager
def _interrupts(watcher: _Watcher) -> Any:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, watcher.interrupt)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
