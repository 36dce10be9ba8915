"""
What an agent found and did, laid out for people.

In: views and events, in which text is hostile: a model, a log or a web page wrote it. Out: lines without control
characters, plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentd.cli.tables import clean, clean_lines, counted, written

Json = Mapping[str, Any]

_SHOWN = 300
_TAB = 4


def prose(text: object) -> str:
    """Text of several lines: tabs become spaces, other control characters are made visible."""
    return clean_lines(str(text).replace("\r\n", "\n").expandtabs(_TAB))


def short(text: object, most: int = _SHOWN) -> str:
    """The text on one line, not too long."""
    one = clean(text)
    return one if len(one) <= most else one[: most - 1] + "…"


def answer_lines(view: Json) -> Iterator[str]:
    """The answer of a task or run: in words, or its finding with what it rests on. view: of the one or the other."""
    details = (view.get("result") or {}).get("details") or view
    finding, answer = details.get("finding"), details.get("answer") or ""
    if finding is not None:
        yield from finding_lines(finding)
        if answer and answer not in (finding.get("summary") or ""):
            yield from ("", prose(answer))
    elif answer:
        yield prose(answer)


def finding_lines(finding: Json) -> Iterator[str]:
    """Summary, claims with their evidence, next steps."""
    status, severity = str(finding.get("status", "unclear")), finding.get("severity")
    head = status if status == "ok" or not severity else f"{status} ({severity})"
    head = f"unverified: {head}" if finding.get("unverified") else head
    yield f"{clean(head)}: {prose(finding.get('summary', ''))}"
    marks = []
    if (analysis := finding.get("analysis")) is not None:
        marks.append(f"analysis {analysis}")
    if finding.get("unverified"):
        marks.append("a quote or an id is not in what it cites, and was struck out")
    if (confidence := finding.get("confidence")) is not None:
        marks.append(f"confidence {confidence:.0%}")
    for mark in marks:
        yield f"  {clean(mark)}"
    if claims := finding.get("claims"):
        sources = finding.get("sources") or {}
        yield ""
        for claim in claims:
            yield from _claim(claim, sources)
    if steps := finding.get("next_steps"):
        yield ""
        yield "next"
        for number, step in enumerate(steps, 1):
            yield _indented(f"{number}. ", prose(step))


def _claim(claim: Json, sources: Json) -> Iterator[str]:
    text = str(claim.get("text", ""))
    # Where nobody analysed it, a claim begins with its source's title.
    named = {id: title for id, title in sources.items() if not text.startswith(str(title))}
    evidence = ", ".join(clean(f"{each} {named.get(each, '')}").strip() for each in claim.get("evidence", ()))
    cites = f" [{evidence}]" if evidence else ""
    unverified = " (unverified)" if claim.get("unverified") else ""
    yield _indented("- ", f"{prose(text)}{cites}{unverified}")
    for quote in claim.get("quotes", ()):
        yield _indented("    | ", prose(quote))


def _indented(head: str, text: str) -> str:
    rest = " " * len(head) if not head.strip().startswith("|") else head
    first, *others = text.split("\n")
    return "\n".join([f"  {head}{first}", *(f"  {rest}{line}" for line in others)])


def cost_line(view: Json) -> str:
    """What a task took, in one line."""
    result, metrics = view.get("result") or {}, view.get("metrics") or {}
    parts = [counted(metrics.get("steps", 0), "step"), counted(metrics.get("tool_calls", 0), "tool call")]
    tokens = metrics.get("input_tokens", 0) + metrics.get("output_tokens", 0)
    parts += [f"{tokens:,} tokens", shown_usd(metrics.get("usd"))]
    if (took_s := result.get("execution_time")) is not None:
        parts.append(shown_seconds(took_s))
    parts += [f"model {clean(name)}" for name in metrics.get("models", ())]
    return ", ".join(parts)


def shown_usd(usd: float | None) -> str:
    """Unknown is unknown, never zero; and what is little is not nothing."""
    if usd is None:
        return "unknown cost"
    return f"${usd:.4f}" if usd == 0 or usd >= 0.001 else f"${usd:.6f}"


def shown_seconds(seconds: float) -> str:
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 60 else f"{whole // 60}m{whole % 60}s"


def event_line(event: Json) -> str | None:
    """One event of an agent as one line; None: it says nothing to people, or is part of one that comes."""
    shown = _SHOWN_BY_KIND.get(str(event.get("event")))
    return None if shown is None else shown(event)


def _message_start(event: Json) -> str | None:
    return "asks the model" if event.get("role") == "assistant" else None


def _message_update(event: Json) -> str | None:
    return short(event.get("delta")) if event.get("kind") == "remark" else None


def _message(event: Json) -> str:
    if event.get("role") != "assistant":
        return f"is told: {short(event.get('content'))}"
    usage = event.get("usage") or {}
    parts = [clean(event.get("model"))] if event.get("model") else []
    if usage:
        parts.append(f"{usage.get('input_tokens', 0):,} tokens read, {usage.get('output_tokens', 0):,} written")
        parts.append(shown_usd(event.get("usd")))
    said = short(event.get("content"))
    return f"the model answers ({', '.join(parts)})" + (f": {said}" if said else "")


def _turn_end(event: Json) -> str:
    decision = clean(event.get("decision"))
    why = short(event.get("reason"))
    return f"step {event.get('turn')}: {_DECISIONS.get(decision, decision)}" + (f": {why}" if why else "")


def _tool_start(event: Json) -> str:
    after = ", ".join(clean(each) for each in event.get("depends_on", ()))
    return f"{clean(event.get('id'))} calls {call_line(event)}" + (f", after {after}" if after else "")


def call_line(call: Json) -> str:
    """A tool with its input."""
    return f"{clean(call.get('tool'))} {short(written(call.get('input') or {}))}"


def _tool_end(event: Json) -> str:
    head, took = f"{clean(event.get('id'))} {clean(event.get('tool'))}", shown_seconds(event.get("duration_s") or 0.0)
    if event.get("error"):
        return f"{head} failed in {took}, {clean(event['error']).replace('_', ' ')}: {short(event.get('message'))}"
    return f"{head} gave in {took}: {output_text(event.get('output'))}"


def output_text(output: Any) -> str:
    """What a tool gave, on one line: text as it is, values as JSON."""
    return short(output if isinstance(output, str) else written(output))


def _agent_end(event: Json) -> str:
    outcome = event.get("outcome") or {}
    said = (outcome.get("finding") or {}).get("summary") or outcome.get("answer") or outcome.get("error") or ""
    return f"{clean(event.get('state'))}: {short(said)}"


_DECISIONS = {
    "continue": "goes on",
    "retry": "tries again what failed",
    "reduce_concurrency": "goes on with less at once",
    "replan": "thinks anew",
    "degrade": "goes on with what it has",
    "terminate": "ends",
}
_SHOWN_BY_KIND: Mapping[str, Callable[[Json], str | None]] = {
    "AgentStart": lambda event: f"begins {clean(event.get('run'))}: {short(event.get('goal'))}",
    "AgentEnd": _agent_end,
    "TurnStart": lambda event: f"step {event.get('turn')}",
    "TurnEnd": _turn_end,
    "MessageStart": _message_start,
    "MessageUpdate": _message_update,
    "MessageEnd": _message,
    "ToolExecutionStart": _tool_start,
    "ToolExecutionUpdate": lambda event: (
        f"{clean(event.get('id'))} {clean(event.get('tool'))}: {short(event.get('partial'))}"
    ),
    "ToolExecutionEnd": _tool_end,
}
