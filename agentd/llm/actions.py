"""
The actions of a model: what it wants done, read from its text or its native calls.

In: a message of role `assistant`. Out: `Actions`: a plan, calls, an answer.
Promise: a model without native tools writes one JSON object (`ToolCall`, `Parallel`, `Graph`, `Plan`, `Final`), found
among words, fences and thoughts where it is plain which one is meant (`in_words`).
Whatever else it writes is a `BadAction` that it can learn from, never another error. Linear time, nothing evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

from agentd.llm.action_words import LIST_KEYS, TOOL_KEYS, TYPE_KEYS, WRAPPERS, Fields, Kind, kind_in
from agentd.llm.cut import cut_answer
from agentd.llm.guide import (
    SPECIAL_TOOLS,
    action_guide,
    action_schema,
    example_call,
    finding_answer,
    special_tools,
)
from agentd.llm.in_words import Words, chosen, words_of
from agentd.llm.loosejson import MAX_CHARS, BrokenJson, objects_in, read_object
from agentd.llm.port import ChatMessage, ToolCall, ToolSpec
from agentd.llm.reading import (
    CALL_EXAMPLE,
    FINISH,
    MAX_CALLS,
    PLAN,
    RUN_GRAPH,
    Actions,
    BadAction,
    Note,
    Reading,
    ToolUse,
)

__all__ = [
    "MAX_CALLS",
    "SPECIAL_TOOLS",
    "Actions",
    "BadAction",
    "Note",
    "ToolUse",
    "action_guide",
    "action_schema",
    "actions_of",
    "finding_answer",
    "special_tools",
]

_MOST_OBJECTS = 1000
_OURS = ("ToolCall", "Parallel", "Graph", "Plan", "Final")
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning|reflection)>\s*", re.IGNORECASE)
_STARTS = re.compile(r"[{\[]|```|<tool_call>", re.IGNORECASE)
_CALL_TAG = re.compile(r"<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>", re.IGNORECASE)


def actions_of(
    message: ChatMessage,
    native: bool,
    tools: Sequence[ToolSpec] = (),
    *,
    cut: bool = False,
    quoted: Callable[[str], bool] | None = None,
) -> Actions:
    """
    What the message asks for.

    native: the model was offered tools natively: its calls count, and text without a call is its final answer, unless
    the text is a JSON action. tools: those offered; the first of them is the example in errors. cut: the message was
    broken off, at its limit or by a filter. quoted: whether a piece of text stands in the evidence, so that it is
    hardly the model's own. Raises BadAction.
    """
    example = example_call(tools[0]) if tools else CALL_EXAMPLE
    if message.tool_calls:
        return _called(message.tool_calls, example)
    if len(message.content) > MAX_CHARS:
        raise BadAction(
            f"Your answer has {len(message.content)} characters, {MAX_CHARS} are allowed. Write a shorter one."
        )
    text = message.content.strip()
    if not text:
        raise BadAction(f"Your answer was empty. Write one action, for example {example}")
    try:
        found = _native_text(text, example, tools, cut, quoted) if native else _written(text, example, cut, quoted)
    except BadAction as error:
        if cut and error.otherwise is None:
            error.otherwise = _as_far_as_it_came(text, native)
        raise
    if cut and native and isinstance(found.final, str) and found.final in text:
        raise BadAction(
            "Your answer was cut off before its end. Write it again, shorter.",
            otherwise=_as_far_as_it_came(text, native),
        )
    return found


def _as_far_as_it_came(text: str, native: bool) -> Actions | None:
    parts = list(_parts(text))
    final = cut_answer(parts[0], native=native) if parts else None
    return None if final is None else Actions(final=final)


def _called(calls: Sequence[ToolCall], example: str) -> Actions:
    reading = Reading(example)
    for call in calls:
        name = call.name.strip().removeprefix("functions.")
        if not name:
            raise BadAction("This call names no tool.", call_id=call.id)
        try:
            input = read_object(call.arguments)
        except BrokenJson as error:
            raise BadAction(
                f"The arguments of {name[:80]} are no JSON object: {error}. Write them as one JSON object, "
                'for example {"path": "/var/log/syslog"}.',
                call_id=call.id,
                tool=name,
            ) from error
        reading.use(name, input, call.id)
    return reading.actions()


def _native_text(
    text: str, example: str, tools: Sequence[ToolSpec], cut: bool, quoted: Callable[[str], bool] | None
) -> Actions:
    """
    The text of a model that could have called natively.

    It is an action only when it is that from begin to end: else a model that tells of an order would carry it out.
    """
    parts = list(_parts(text))
    for part in parts:
        words = words_of(part)
        if words.alone and words.acts and not words.others:
            if not (cut and not words.acts[-1].found.closed) and (found := _meant(words, example, tools)) is not None:
                return found
        elif (last := words.last) is not None and _is_ours(last.found.value):
            if quoted is not None and quoted(part[last.found.start : last.found.end]):
                continue
            raise BadAction(
                "Your answer ends with an action among words; it was not done. If you mean it, call the tool, or write "
                f"that JSON object alone, for example {example} If it is your final answer, leave it out.",
                otherwise=Actions(final=parts[0]),
            )
    if not parts:
        raise BadAction("Your answer held thoughts alone. Call a tool or give your answer.")
    return Actions(final=parts[0])


def _meant(words: Words, example: str, tools: Sequence[ToolSpec]) -> Actions | None:
    """The actions in a text of nothing but objects; None where the objects are the answer itself."""
    offered = {FINISH, PLAN, RUN_GRAPH, *(tool.name for tool in tools)}
    tagged = _CALL_TAG.match(words.text) is not None
    values, notes = chosen(words, example)
    if not tagged and not all(_is_ours(value) or _is_offered(value, offered) for value in values):
        return None
    return _read(values, notes, example)


def _is_ours(value: Any) -> bool:
    """Whether it says that it is an action, in our words exactly."""
    if isinstance(value, list):
        return all(map(_is_ours, value))
    return isinstance(value, dict) and value.get("type") in _OURS


def _is_offered(value: Any, offered: Set[str]) -> bool:
    """Whether it is a finding, or calls tools that were offered and none else."""
    if isinstance(value, list):
        return all(_is_offered(each, offered) for each in value)
    if not isinstance(value, dict):
        return False
    kind, _ = kind_in(value)
    if kind is Kind.FINAL:
        return {"status", "summary"} <= value.keys()
    known = Fields.of(value).known
    inner = [known[key] for key in (*WRAPPERS, *LIST_KEYS) if isinstance(known.get(key), dict | list)]
    if kind is Kind.CALL:
        names = [known.get(key) for key in (*TOOL_KEYS, *TYPE_KEYS, "action")]
        names = [name.get("name") if isinstance(name, dict) else name for name in names]
        return any(isinstance(name, str) and name.strip().removeprefix("functions.") in offered for name in names)
    return bool(inner) and all(_is_offered(each, offered) for each in inner)


def _written(text: str, example: str, cut: bool, quoted: Callable[[str], bool] | None) -> Actions:
    parts = list(_parts(text))
    for part in parts:
        values, notes = chosen(words_of(part), example, cut=cut, quoted=quoted)
        if values:
            return _read(values, notes, example)
    raise BadAction(f"{_what_is_wrong(parts)} Write one JSON object and nothing else, for example {example}")


def _read(values: Sequence[Any], notes: Sequence[Note], example: str) -> Actions:
    reading = Reading(example, notes=list(notes))
    for value in values:
        reading.take(value)
    return reading.actions()


def _parts(text: str) -> Iterator[str]:
    """The text without the thoughts before the answer; where that is not sure, the likelier reading first."""
    at = 0
    while (thought := _THOUGHT.match(text, at)) is not None:
        end = _THOUGHT_END.search(text, thought.end())
        if end is None:
            # Cut off while it thought.
            return
        at = end.end()
    text = text[at:]
    if not text:
        return
    if _STARTS.match(text) is None and (end := _THOUGHT_END.search(text)) is not None and text[end.end() :]:
        # Some servers swallow the opening tag.
        yield text[end.end() :]
    yield text


def _what_is_wrong(parts: Sequence[str]) -> str:
    if not parts:
        return "Your answer held thoughts alone, no action."
    wrong = None
    for found, _ in zip(objects_in(parts[-1]), range(_MOST_OBJECTS), strict=False):
        if found.broken is None:
            said = found.value.get("type") if isinstance(found.value, dict) else None
            if isinstance(said, str):
                return f'"type" is {said[:40]!r}; it must be ToolCall, Parallel, Graph, Plan or Final.'
            return 'The JSON object in your answer is no action: it has no "type".'
        wrong = wrong or found.broken
    return f"The JSON in your answer is broken: {wrong}." if wrong else "There is no JSON object in your answer."
