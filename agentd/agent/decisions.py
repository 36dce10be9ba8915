"""
What the supervisor does about failures.

In: a graph, its results, how often parts of it were tried again. Out: a `Decision`, with a reason for people.
Promise: pure; every way through ends, for each retry is counted and each run of failures has a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentd.agent.graph import TaskGraph
from agentd.fleet.messages import ErrorKind, Result

DecisionKind = Literal["continue", "retry", "reduce_concurrency", "replan", "degrade", "terminate"]

MOST_TRIES = 2
"""How often a part of one graph is run again."""
DEGRADE_AFTER = 3
"""Graphs in a row that gave nothing but failures, before the run goes on with what it has."""
TERMINATE_AFTER = 5
SOON_S = 0.5
"""Whoever asks for no longer wait than this is asked again at once."""

_LOGIC = frozenset({ErrorKind.TOOL_NOT_FOUND, ErrorKind.TOOL_ERROR, ErrorKind.INVALID_INPUT, ErrorKind.DENIED})


@dataclass(frozen=True, slots=True)
class Decision:
    """
    What to do next, and why.

    kind: `continue`: all went well; `retry`: run `graph.after(tasks, results)`; `reduce_concurrency`: the same with
    `max_parallel` calls at once; `replan`: the model sees the failures and makes another graph; `degrade`: no more
    tools, answer from what there is; `terminate`: end the run as failed. reason: one sentence for people.
    tasks: ids of those that are to run again, empty when none is. max_parallel: calls at once from now on, None: as
    before; rate limits halve it, and a graph that goes well at once doubles it again.
    """

    kind: DecisionKind
    reason: str
    tasks: tuple[str, ...] = ()
    max_parallel: int | None = None


def decide(
    graph: TaskGraph,
    results: Sequence[Result],
    tries: int = 0,
    *,
    max_parallel: int = 8,
    most_parallel: int | None = None,
    failed_before: int = 0,
) -> Decision:
    """
    What to do about these results.

    graph: what ran last, perhaps a part of what the results are of; only tasks of it are run again. tries: how often
    parts were run again already. max_parallel: calls at once until now; most_parallel: before anything was limited.
    failed_before: graphs in a row just before this one of which no task went well.
    """
    broken = [result for result in results if not result.ok]
    # A task that was not run since another failed says nothing by itself.
    roots = [result for result in broken if result.error is not ErrorKind.CANCELLED] or broken
    if not roots:
        more = min(2 * max_parallel, most_parallel or max_parallel)
        rises = not tries and more > max_parallel
        return Decision("continue", f"{_tasks(len(results))} went well", max_parallel=more if rises else None)
    latest = [result for result in roots if result.task in graph]
    fewer = max(1, max_parallel // 2)
    fleeting = _fleeting(latest, tries, fewer)
    if fleeting is not None:
        return fleeting
    lasting = _lasting(results, roots, broken, failed_before)
    limited = tries < MOST_TRIES and any(result.error is ErrorKind.RATE_LIMITED for result in latest)
    return replace(lasting, max_parallel=fewer) if limited else lasting


def _lasting(
    results: Sequence[Result], roots: Sequence[Result], broken: Sequence[Result], failed_before: int
) -> Decision:
    """Trying again does not help: the model has to."""
    kinds = ", ".join(sorted({str(result.error) for result in roots}))
    if len(broken) == len(results):
        in_a_row = failed_before + 1
        if in_a_row >= TERMINATE_AFTER:
            return Decision("terminate", f"{in_a_row} graphs in a row gave nothing but failures ({kinds})")
        if in_a_row >= DEGRADE_AFTER:
            why = f"{in_a_row} graphs in a row gave nothing but failures ({kinds}): going on with what there is"
            return Decision("degrade", why)
    logic = any(result.error in _LOGIC for result in roots)
    why = "the model has to find another way" if logic else "trying again did not help"
    return Decision("replan", f"{_tasks(len(roots))} of {len(results)} failed ({kinds}): {why}")


def _fleeting(roots: Sequence[Result], tries: int, fewer: int) -> Decision | None:
    """
    Timeouts and rate limits pass; they are run again first, even where other tasks failed for good.

    Not those who said when to come back: the executor has waited as long as it does, and nobody waits here.
    """
    if tries >= MOST_TRIES:
        return None
    limited = tuple(
        result.task
        for result in roots
        if result.error is ErrorKind.RATE_LIMITED and result.again and (result.retry_after_s or 0) <= SOON_S
    )
    # A second timeout, with twice the time, is no bad luck any more.
    late = tuple(
        result.task for result in roots if result.error is ErrorKind.TIMEOUT and result.again and result.attempt < 2
    )
    if limited:
        why = f"{_tasks(len(limited))} came too often: at most {fewer} at once from now on"
        return Decision("reduce_concurrency", why, _in_order(roots, limited + late), fewer)
    if late:
        return Decision("retry", f"{_tasks(len(late))} took too long: once more, with twice the time", late)
    return None


def _in_order(roots: Sequence[Result], ids: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(result.task for result in roots if result.task in ids)


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
