"""
The actions of a model: what it wants done, read from its text or its native calls.

In: a message of role `assistant`. Out: `Actions`: a plan, calls, an answer.
Promise: a model without native tools writes one JSON object (`ToolCall`, `Parallel`, `Graph`, `Plan`, `Final`), found
among words, fences and thoughts; the first complete object that is an action counts, what comes after it does not.
Whatever else it writes is a `BadAction` that it can learn from, never another error. Linear time, nothing evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from agentd.llm.action_words import WRAPPERS, Fields, kind_in
from agentd.llm.guide import (
    SPECIAL_TOOLS,
    action_guide,
    action_schema,
    example_call,
    finding_answer,
    special_tools,
)
from agentd.llm.loosejson import MAX_CHARS, BrokenJson, Found, objects_in, read_object
from agentd.llm.port import ChatMessage, ToolCall, ToolSpec
from agentd.llm.reading import CALL_EXAMPLE, MAX_CALLS, Actions, BadAction, Note, Reading, ToolUse

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
_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|thought|reasoning|reflection)>\s*", re.IGNORECASE)
_STARTS = re.compile(r"[{\[]|```|<tool_call>", re.IGNORECASE)
_ENDS = re.compile(r"(?:\s+|```|</tool_call>)*", re.IGNORECASE)
_ATTEMPT = re.compile(r"""["']type["']\s*:\s*["'](?:tool_?call|parallel|graph|plan|final)""", re.IGNORECASE)
_ATTEMPT_CHARS = 2000


def actions_of(message: ChatMessage, native: bool, tools: Sequence[ToolSpec] = ()) -> Actions:
    """
    What the message asks for.

    native: the model was offered tools natively: its calls count, and text without a call is its final answer, unless
    the text is a JSON action. tools: the first of them is the example in errors. Raises BadAction.
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
    return _native_text(text, example) if native else _written(text, example)


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


def _native_text(text: str, example: str) -> Actions:
    """The text of a model that could have called natively: an action only when it is that from begin to end."""
    parts = list(_parts(text))
    for part in parts:
        if _STARTS.match(part):
            if (found := _first_action(part, example)) is not None:
                return found
        elif (last := _last_word(part)) is not None:
            # Words, and then an action that says what it is.
            reading = Reading(example)
            reading.take(last.value)
            return reading.actions()
    if not parts:
        raise BadAction("Your answer held thoughts alone. Call a tool or give your answer.")
    return Actions(final=parts[0])


def _written(text: str, example: str) -> Actions:
    parts = list(_parts(text))
    for part in parts:
        if (found := _first_action(part, example)) is not None:
            return found
    raise BadAction(f"{_what_is_wrong(parts)} Write one JSON object and nothing else, for example {example}")


def _first_action(text: str, example: str) -> Actions | None:
    """The first object that says that it is an action, else the first that can be nothing else. Raises BadAction."""
    guess: Found | None = None
    for found, _ in zip(objects_in(text), range(_MOST_OBJECTS), strict=False):
        if found.broken is not None:
            # What follows may be part of it, such as words of somebody else in a string whose quotes went wrong.
            if found.broken.inside and _ATTEMPT.search(text, found.start, found.start + _ATTEMPT_CHARS):
                raise BadAction(
                    f"The JSON of your action is broken: {found.broken}. Write it again, whole, for example {example}"
                ) from found.broken
            continue
        kind, explicit = _kind(found)
        if explicit:
            guess = found
            break
        guess = guess or (found if kind else None)
    if guess is None:
        return None
    reading = Reading(example)
    reading.take(guess.value)
    return reading.actions()


def _kind(found: Found) -> tuple[bool, bool]:
    """Whether it is an action, and whether it says so."""
    value = found.value
    if isinstance(value, list):
        kinds = [kind_in(each) if isinstance(each, dict) else (None, False) for each in value]
        whole = all(kind is not None for kind, _ in kinds)
        return whole, whole and all(explicit for _, explicit in kinds)
    kind, explicit = kind_in(value)
    if kind is not None:
        return True, explicit
    known = Fields.of(value).known
    inner = next((known[key] for key in WRAPPERS if isinstance(known.get(key), dict)), None)
    kind, explicit = kind_in(inner) if inner is not None else (None, False)
    return kind is not None, explicit


def _last_word(text: str) -> Found | None:
    """The object that ends the text and says that it is an action."""
    last: Found | None = None
    for found, _ in zip(objects_in(text), range(_MOST_OBJECTS), strict=False):
        last = found
    if last is None or last.broken is not None or not _kind(last)[1]:
        return None
    after = _ENDS.match(text, last.end)
    return last if after is not None and after.end() == len(text) else None


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
