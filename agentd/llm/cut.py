"""
What is left of an answer that was broken off: at its limit of tokens, or by a provider's filter.

In: its text. Out: the answer as far as it came, marked as cut; None when the text holds none.
Promise: pure, linear, bounded. Half a finding is worth more than none, but only when nothing better is to be had.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentd.llm.action_words import Kind, kind_in
from agentd.llm.loosejson import MAX_DEPTH
from agentd.llm.reading import BadAction, Reading

CUT_MARK = " […the answer was cut off here]"

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+("?)|[{}\[\],]', re.DOTALL)
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_CLOSES = {"{": "}", "[": "]"}
_TRIES = 4


def cut_answer(text: str, *, native: bool) -> Any | None:
    """
    The answer in `text`: a Final action or a finding whose JSON was cut; or native words.

    What is an object is marked in its `summary` or `answer`, what is text at its end.
    """
    text = text.strip().removeprefix("```json").removeprefix("```").strip()
    data = _closed(text) if text.startswith("{") else None
    if isinstance(data, dict):
        kind, explicit = kind_in(data)
        if kind is Kind.FINAL:
            reading = Reading()
            try:
                reading.take(data)
            except BadAction:
                return None
            return _marked(reading.finals[0][0])
        if explicit:
            # Half a call is none.
            return None
    return _marked(text) if native and text else None


def _marked(answer: Any) -> Any:
    if isinstance(answer, str):
        return answer + CUT_MARK
    if isinstance(answer, Mapping):
        for key in ("summary", "answer"):
            if isinstance(answer.get(key), str):
                return {**answer, key: answer[key] + CUT_MARK}
        return {**answer, "summary": CUT_MARK.strip()}
    return answer


def _closed(text: str) -> Any | None:
    """The object that `text` begins with what is open in it closed, without what is half at its end."""
    open_: list[str] = []
    places: list[tuple[int, str]] = []
    half = False
    for token in _TOKEN.finditer(text):
        mark = token[0][0]
        if mark == '"':
            half = not token[1]
            continue
        if mark in _CLOSES:
            open_.append(_CLOSES[mark])
            if len(open_) > MAX_DEPTH:
                return None
            places.append((token.end(), "".join(reversed(open_))))
        elif mark == ",":
            places.append((token.start(), "".join(reversed(open_))))
        elif not open_ or open_.pop() != mark:
            return None
        elif not open_:
            text = text[: token.end()]
            break
        del places[: -2 * _TRIES]
    end = _HALF_ESCAPE.sub("", text) + '"' if half else text
    for whole in (end + "".join(reversed(open_)), *(text[:at] + closing for at, closing in reversed(places))):
        try:
            return json.loads(whole, strict=False)
        except (ValueError, RecursionError):
            continue
    return None
