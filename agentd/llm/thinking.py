"""
Local models write their reasoning into the answer, between `<think>` and `</think>`: tell the two apart.

In: text as it arrives. Out: pieces, each of them thinking or answer.
Promise: only a tag at the very beginning counts, for later it may be quoted; nothing is held but a possible tag.
"""

from __future__ import annotations

_OPEN, _CLOSE = "<think>", "</think>"
_MOST_HELD = 1000


class ThinkTags:
    """One answer's text."""

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""

    def feed(self, text: str) -> list[tuple[bool, str]]:
        """(is it thinking, text), in order."""
        if self._state == "answer":
            return [(False, text)]
        text = self._held + text
        self._held = ""
        if self._state == "start":
            begun = text.lstrip()
            if begun.startswith(_OPEN):
                self._state, text = "thinking", begun[len(_OPEN) :]
            elif _OPEN.startswith(begun) and len(text) < _MOST_HELD:
                self._held = text
                return []
            else:
                self._state = "answer"
                return [(False, text)]
        found = []
        if self._state == "thinking":
            thought, closed, text = text.partition(_CLOSE)
            if not closed:
                keep = _beginning_of_close(thought)
                self._held = thought[len(thought) - keep :]
                thought = thought[: len(thought) - keep]
            if thought:
                found.append((True, thought))
            if not closed:
                return found
            self._state = "after"
        # The answer's first words, without the empty lines that part it from the thinking.
        if text := text.lstrip():
            self._state = "answer"
            found.append((False, text))
        return found

    def end(self) -> list[tuple[bool, str]]:
        """What was held, should a tag have come."""
        held, self._held = self._held, ""
        return [(self._state == "thinking", held)] if held else []


def split_late(text: str) -> tuple[str, str]:
    """
    (thinking, answer) of an answer that closes a tag which it never opened: some templates write the opening one into
    the question, and nobody could know until now.
    """
    thought, closed, answer = text.partition(_CLOSE)
    # An action in JSON may quote the tag.
    if not closed or _OPEN in thought or thought.lstrip().startswith(("{", "[", "`")):
        return "", text
    return thought.strip(), answer.lstrip()


def _beginning_of_close(text: str) -> int:
    """How many of the last characters may be the beginning of the closing tag."""
    return next((n for n in range(min(len(_CLOSE) - 1, len(text)), 0, -1) if text.endswith(_CLOSE[:n])), 0)
