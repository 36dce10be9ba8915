"""
A task on a terminal, as it goes: plan, calls with their states and times, what the model says, what it costs.

In: `Progress`. Out: a picture on stderr that is drawn anew some times a second and gone at the end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from agentd.cli.answer import prose, short, shown_seconds, shown_usd
from agentd.cli.progress import Progress, ToolProgress
from agentd.cli.tables import clean

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

EVERY_S = 0.125
_PLAN_EVERY_S = 1.0
_CALLS_SHOWN = 12
_LINES_SHOWN = 6
_MARKS = {"running": ("…", "cyan"), "ok": ("✓", "green"), "failed": ("✗", "red")}
_PLAIN_MARKS = {"…": ".", "✓": "+", "✗": "x"}


class LiveView:
    """
    Use as a context; `draw` until cancelled, beside whoever feeds `progress`.

    plan: asks for the plan, None while there is none. note: a line above all else.
    """

    def __init__(self, progress: Progress, plan: Callable[[], Awaitable[Any]]) -> None:
        self._progress = progress
        self._plan = plan
        self._asked_s = 0.0
        self._live: Live | None = None
        self.note = ""

    def __enter__(self) -> LiveView:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False)
        # Drawn by our own loop: a thread would read what is being changed.
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the picture away, and give the cursor back. Twice is once."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    async def draw(self) -> None:
        while True:
            await self._look_for_plan()
            if self._live is not None:
                self._live.update(picture(self._progress, time.monotonic(), self.note), refresh=True)
            await asyncio.sleep(EVERY_S)

    async def _look_for_plan(self) -> None:
        now_s = time.monotonic()
        if self._progress.plan is None and self._progress.calls and now_s - self._asked_s >= _PLAN_EVERY_S:
            self._asked_s = now_s
            self._progress.plan = await self._plan()


def picture(progress: Progress, now_s: float, note: str = "") -> Group:
    """All of it, for rich."""
    from rich.console import Group
    from rich.text import Text

    parts = [_line(note, "yellow")] if note else []
    took = shown_seconds(max(0.0, now_s - progress.began_s))
    facts = [f"turn {progress.turn}" if progress.turn else "waits", took, f"{progress.tokens:,} tokens"]
    facts += [shown_usd(progress.usd), *([clean(progress.model)] if progress.model else [])]
    parts.append(_line(" · ".join(facts), "bold"))
    if (plan := progress.plan) is not None:
        parts.append(_line(f"plan: {short(plan.get('understanding'))}", ""))
        if plan.get("approach"):
            parts.append(_line(f"      {short(plan['approach'])}", "dim"))
    calls = list(progress.calls.values())
    if len(calls) > _CALLS_SHOWN:
        parts.append(_line(f"  {len(calls) - _CALLS_SHOWN} calls before", "dim"))
    parts += [_call(call, now_s) for call in calls[-_CALLS_SHOWN:]]
    parts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in _said(progress)]
    return Group(*parts)


def _call(call: ToolProgress, now_s: float) -> Text:
    from rich.text import Text

    mark, colour = _MARKS[call.state]
    took = now_s - call.began_s if call.took_s is None else call.took_s
    after = f"  after {', '.join(map(clean, call.depends_on))}" if call.depends_on else ""
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"  {_drawn(mark)} ", style=colour)
    line.append(f"{clean(call.id):<6} {clean(call.tool)} ")
    line.append(f"{shown_seconds(max(0.0, took))}", style=colour)
    line.append(f"{after}  {short(call.note or call.input, 160)}", style="dim")
    return line


def _said(progress: Progress) -> list[str]:
    """The last of what the model says; an action that it writes is no text for people."""
    text = progress.text.strip()
    if text[:1] in ("{", "[") or text.startswith("```"):
        return [f"  writes an action: {len(text)} characters"]
    if text:
        return [f"  {line}" for line in prose(text).split("\n")[-_LINES_SHOWN:]]
    if progress.acting:
        return [f"  writes an action: {progress.acting} characters"]
    if progress.thinking:
        return [f"  thinks: {progress.thinking} characters"]
    return [f"  {clean(progress.remark)}"] if progress.remark else []


def _line(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(clean(text), style=style, no_wrap=True, overflow="ellipsis")


def _drawn(mark: str) -> str:
    try:
        # While rich stands in for it, stderr has no encoding.
        mark.encode(getattr(sys.__stderr__, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return _PLAIN_MARKS[mark]
    return mark
