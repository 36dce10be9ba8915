"""
One template file: YAML with the text of a prompt and the words by which its scenario is known.

    about: one line for people
    prompt: |
      Text for the model; {{instance}}, {{watch}}, {{labels.team}} stand for values of the run.
    words: [refactor, 重构]        # of goals that are meant for this scenario
    hints: [clean up]              # such words too, that say less

In: a file's bytes. Out: a `Template`, or BadTemplate that says what is wrong and how to mend.
Promise: no more than text is read (no tags, no objects), and a value that is filled in is never read for placeholders.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agentd.agent.evidence import one_line, visible
from agentd.errors import AgentdError

MOST_BYTES = 64 * 1024
MOST_PROMPT_CHARS = 16_000
_MOST_WORDS = 200
_WORD_CHARS = 60
_VALUE_CHARS = 200
_DEEPEST = 4
_KEYS = ("about", "prompt", "words", "hints")
PLACES = ("instance", "watch", "kind", "severity", "fingerprint", "now", "timezone", "run")
"""What a placeholder may name, and `labels.` with the name of a label."""
_PLACE = re.compile(r"\{\{\s*([A-Za-z0-9_.-]{1,100})\s*\}\}")


class BadTemplate(AgentdError):
    """The file cannot be used; what stands in its place is used instead."""


@dataclass(frozen=True, slots=True)
class Template:
    prompt: str
    words: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    about: str = ""

    @property
    def strangers(self) -> tuple[str, ...]:
        """Placeholders that name nothing known; they stay as they are."""
        found = dict.fromkeys(_PLACE.findall(self.prompt))
        return tuple(name for name in found if name not in PLACES and not name.startswith("labels."))

    def filled(self, values: Mapping[str, str]) -> str:
        """The prompt with its values. values: by name, labels as `labels.NAME`; a label that is not there is empty."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in values:
                return one_line(values[name], _VALUE_CHARS)
            return "" if name.startswith("labels.") else match[0]

        return _PLACE.sub(value, self.prompt).strip()


def read_template(data: bytes) -> Template:
    """The template in a file. Raises BadTemplate: what is wrong; how to mend it."""
    if len(data) > MOST_BYTES:
        raise BadTemplate(f"it has {len(data)} bytes; a template has at most {MOST_BYTES}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadTemplate(f"byte {error.start} is no UTF-8; save the file as UTF-8") from None
    found = _read_yaml(text)
    if isinstance(found, str):
        found = {"prompt": found}
    if not isinstance(found, dict):
        raise BadTemplate("it holds no `prompt:`; write `prompt: |` and the text below it, indented")
    for key in found:
        if key not in _KEYS:
            raise BadTemplate(f"`{str(key)[:40]}` is no key of a template; there are {', '.join(_KEYS)}")
    prompt = found.get("prompt", "")
    if not isinstance(prompt, str):
        raise BadTemplate("`prompt` is no text; write `prompt: |` and the text below it, indented")
    if len(prompt) > MOST_PROMPT_CHARS:
        raise BadTemplate(
            f"its prompt has {len(prompt)} characters; at most {MOST_PROMPT_CHARS}, since every step pays"
        )
    about = found.get("about", "")
    return Template(
        visible(prompt).strip(),
        _words(found, "words"),
        _words(found, "hints"),
        one_line(about, _VALUE_CHARS) if isinstance(about, str) else "",
    )


def _words(found: Mapping[str, object], key: str) -> tuple[str, ...]:
    words = found.get(key) or []
    if isinstance(words, str):
        words = [words]
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise BadTemplate(f"`{key}` is no list of words; write e.g. {key}: [refactor, 重构]")
    if len(words) > _MOST_WORDS:
        raise BadTemplate(f"`{key}` has {len(words)} words; at most {_MOST_WORDS}")
    return tuple(word.strip().lower()[:_WORD_CHARS] for word in words if word.strip())


def _read_yaml(text: str) -> object:
    """Texts, lists and mappings alone: `on` and `3` are texts too."""
    import yaml

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    depth = 0
    try:
        # What nests too deeply must not come to the composer, which goes down by recursion.
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise BadTemplate("it nests too deeply; a template has texts and lists of words")
            if isinstance(event, yaml.AliasEvent):
                raise BadTemplate("it uses an alias (*name); write the text out")
        return yaml.load(text, Loader=loader)  # noqa: S506  the base loader makes nothing but text
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise BadTemplate(f"{where}{error.problem or 'no YAML'}; check indentation and quotes there") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadTemplate(f"no YAML: {one_line(str(error), 200)}") from None
