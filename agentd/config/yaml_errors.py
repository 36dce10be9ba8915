"""
Say in plain words why a text is no YAML, and how to mend it.

In: what the YAML parser raised (libyaml and PyYAML word the same mistake differently), and the text.
Out: line, column (from 1), what is wrong, and a cure.
"""

from __future__ import annotations

from typing import Any

import yaml

QUOTE = "put the text in quotes"
INDENT = "keys of one mapping must begin in the same column; check the indentation of this line"


def explain(error: yaml.YAMLError, text: str) -> tuple[int, int, str, str]:
    """Where the mistake shows, what it is, and how to mend it."""
    mark = getattr(error, "problem_mark", None)
    start = getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or error).split("\n")[0]
    context = str(getattr(error, "context", None) or "")
    mark = mark or start
    if mark is None:
        return 0, 0, f"is no YAML: {problem}", ""
    lines = text.split("\n")
    here = lines[mark.line] if mark.line < len(lines) else ""
    what, cure = _words(problem, context, here, mark, start)
    if start is not None and ("end of stream" in problem or "flow" in context or "quoted" in context):
        # Where a quote or bracket was opened helps; where the file ended does not.
        mark = start
    return mark.line + 1, mark.column + 1, what, cure


def _words(problem: str, context: str, here: str, mark: Any, start: Any) -> tuple[str, str]:
    indentation = here[: len(here) - len(here.lstrip())]
    character = here[mark.column : mark.column + 1]
    if "\t" in indentation or "tab character" in problem:
        return "a tab stands in the indentation of this line", "YAML takes spaces only; replace the tab by spaces"
    if "cannot start any token" in problem:
        return f"text cannot begin with {character!r}", QUOTE
    if "quoted" in context and "end of" in problem:
        return "a quote is opened here and never closed", "add the closing quote"
    if "unknown escape" in problem:
        return "a backslash in double quotes begins an escape that YAML does not know", "use single quotes: '\\d'"
    if "flow sequence" in context:
        return "a list is opened here with [ and not closed as it must be", _closing("]", mark)
    if "flow mapping" in context:
        return "a mapping is opened here with { and not closed as it must be", _closing("}", mark)
    if "mapping values are not allowed" in problem:
        return "a `:` where no key can stand", f"{QUOTE} if it contains `: `, else {INDENT}"
    if "alias" in context or "anchor" in context:
        sign = "*" if "alias" in context else "&"
        return f"text cannot begin with {sign}", f'{QUOTE}: "{sign}…"'
    if "block collection" in context:
        return "this line does not belong to the list above it", "list items begin with `- `, all in the same column"
    if "block mapping" in context:
        return (
            "this does not continue the mapping above it",
            f"{INDENT}; text that contains quotes must be quoted as a whole",
        )
    if "node content" in problem:
        return (
            f"{character!r} closes something that was never opened" if character else "a value is missing here",
            QUOTE,
        )
    if "could not find expected ':'" in problem:
        return "this is not `key: value`", "add the `: `, or indent the line if it continues the text above it"
    if "tag" in context or "tag" in problem:
        return "text that begins with ! names a YAML tag", f"{QUOTE} if it is text"
    if "directive" in context or "directive" in problem or "document" in problem:
        return f"a line that begins with % or --- is not understood here ({problem})", "remove the line"
    return f"is no YAML: {problem}", INDENT


def _closing(bracket: str, mark: Any) -> str:
    return f"put a comma between its items and {bracket} after the last; it breaks off in line {mark.line + 1}"
