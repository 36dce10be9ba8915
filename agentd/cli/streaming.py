"""
What a model says, shown while it comes.

In: events of an agent, one by one. Out: lines, each whole: at its end, or where it grows longer than a terminal is
wide.
Promise: pure and bounded; an action that the model writes is no text for people, and is not shown.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import click

from agentd.cli.answer import prose, short

Json = Mapping[str, Any]

_MOST_CHARS = 64 * 1024
_LEAST_WIDTH = 20


class Stream:
    """width: columns of a line; None: of the terminal, as it is then."""

    def __init__(self, width: int | None = None) -> None:
        self._width = width
        self._text = ""
        self._shown = 0
        self._hidden: bool | None = None

    def take(self, event: Json) -> Iterator[str]:
        """The lines that the next event makes whole."""
        kind = event.get("event")
        if kind == "MessageStart" and event.get("role") == "assistant":
            self._text, self._shown, self._hidden = "", 0, None
            yield click.style("  … thinking", dim=True)
        elif kind == "MessageUpdate" and event.get("kind") == "text" and len(self._text) < _MOST_CHARS:
            self._text += str(event.get("delta") or "")
            yield from self._whole_lines()
        elif kind == "MessageUpdate" and event.get("kind") == "remark":
            yield click.style(f"  … {short(event.get('delta'))}", dim=True)
        elif kind == "MessageEnd" and event.get("role") == "assistant" and not self._is_hidden():
            rest, self._shown = self._text[self._shown :].strip(), len(self._text)
            if rest:
                yield prose(rest)

    def has_shown(self, answer: object) -> bool:
        """Whether the last message was this, and has been shown."""
        said = self._text.strip()
        return bool(said) and not self._is_hidden() and said == str(answer or "").strip()

    def _is_hidden(self) -> bool:
        if self._hidden is None and (begin := self._text.lstrip()):
            if len(begin) < 3 and "```".startswith(begin):
                return True  # it may become one
            self._hidden = begin[0] in "{[<" or begin.startswith("```")
        return self._hidden is not False

    def _whole_lines(self) -> Iterator[str]:
        if self._is_hidden():
            return
        width = max(_LEAST_WIDTH, self._width or shutil.get_terminal_size().columns)
        while True:
            line, end, _ = self._text[self._shown :].partition("\n")
            if end:
                self._shown += len(line) + 1
                if line.strip() or self._shown > len(line) + 1:
                    yield prose(line)
                continue
            # Where it would wrap anyway: a paragraph may be one long line.
            cut = line.rfind(" ", 0, width)
            if len(line) < width or cut <= 0:
                return
            self._shown += cut + 1
            yield prose(line[:cut])
