"""
What a server's refusal of one parameter teaches about it.

In: what was sent, what it said, what was thought of it. Out: how to ask it instead, or nothing to be learned.
Promise: pure. Two lessons may undo each other; whoever learns stops after a few.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from agentd.llm.chat_request import Habits

_GRAMMAR = re.compile(r"response_format|json_schema|grammar|guided|structured[ _]output|response format")
_TOOLS = re.compile(
    r"(?:not|n't) support (?:\w+ )?(?:tool|function)|tools? (?:is|are) not supported|enable-auto-tool-choice|"
    r"tools param requires|--jinja|unsupported parameter.{0,20}tools|function calling is not|"
    r"found that support tool"
)
_REFUSAL = re.compile(r"unsupported|unrecognized|not supported|not permitted|unknown|unexpected|extra|invalid|only ")
_MOST = re.compile(r"(?:at most|less than or equal to|<=|maximum(?: value)?(?: is| of)?:?|\[\s*\d+\s*,)\s*(\d{1,7})")


def learned(habits: Habits, sent: Collection[str], said: str, status: int, *, sure_of_grammar: bool) -> Habits | None:
    """
    Habits to ask with instead, None when the refusal is about something else.

    sent: keys of the refused body. said: the answer, at most some KiB. sure_of_grammar: it is configured, or it
    worked before: then only a refusal that names it counts.
    """
    said = said.lower()
    if status not in (400, 404, 422, 500, 501):
        return None
    if "response_format" in sent and _GRAMMAR.search(said):
        return replace(habits, grammar=False)
    if "tools" in sent and _TOOLS.search(said):
        return replace(habits, tools=False)
    if status == 404:
        return None
    if "stream_options" in sent and ("stream_options" in said or "include_usage" in said):
        return replace(habits, include_usage=False)
    if "temperature" in sent and "temperature" in said:
        return replace(habits, temperature=False)
    if (changed := _thinking(habits, said)) is not None or (changed := _tokens(habits, said)) is not None:
        return changed
    # llama.cpp and others fail at a schema without saying what they failed at.
    if "response_format" in sent and not sure_of_grammar and status in (400, 422, 500):
        return replace(habits, grammar=False)
    return None


def _thinking(habits: Habits, said: str) -> Habits | None:
    if "reasoning_content" not in said:
        return None
    if re.search(r"missing|must be|required|pass(?:ed)? back", said):
        return None if habits.thinking == "placeholder" else replace(habits, thinking="placeholder")
    return None if habits.thinking == "no" else replace(habits, thinking="no")


def _tokens(habits: Habits, said: str) -> Habits | None:
    field = habits.tokens_field
    if field not in said:
        return None
    other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
    if other in said and field == "max_tokens" and _REFUSAL.search(said):
        return replace(habits, tokens_field="max_completion_tokens")
    if found := _MOST.search(said):
        most = int(found[1])
        return replace(habits, most_tokens=most) if 0 < most < (habits.most_tokens or 1 << 30) else None
    if field == "max_completion_tokens" and _REFUSAL.search(said):
        return replace(habits, tokens_field="max_tokens")
    return None
