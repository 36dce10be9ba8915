"""
One YAML 1.2 file as plain Python data that remembers where everything stands.

In: a path. Out: a `Document` (dict, list, str, int, float, bool, None) with the line and column of every key and
value, or problems with a cure. Promise: whatever the bytes are, the answer is one or the other, in time and memory
linear in the file: nesting, aliases and size are bounded.

libyaml only cuts the text into events. What a plain scalar means is decided here by the YAML 1.2 core schema
(yaml.org/spec/1.2.2, 10.3.2): `on`, `off`, `yes`, `no` are text, `0o17` is a number and `017` is seventeen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from agentd.config import yaml_errors
from agentd.errors import Problem

MAX_FILE_BYTES = 32 * 1024 * 1024
MAX_DEPTH = 64
MAX_ALIASED_VALUES = 500_000
"""How many values aliases may add to those that are written out."""

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the top of a file down to a value."""

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_MAX_DIGITS = 100
_TAG = "tag:yaml.org,2002:"
_TAGGED: dict[str, type] = {"int": int, "bool": bool, "null": type(None)}


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something stands; line and column count from 1, line 0 is the file as a whole."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True)
class Document:
    """
    What one file says.

    marks: by id of a dict or list, for each of its keys or indexes: line and column of key and of value.
    Aliased values are one object, so their place is where they are written out.
    """

    file: str
    data: Any = None
    marks: dict[int, dict[Any, tuple[int, int, int, int]]] = field(default_factory=dict)
    start: tuple[int, int] = (0, 0)

    def place(self, path: KeyPath, *, key: bool = False) -> Place:
        """Where the value at `path` stands (or its key); the nearest thing above it when it is not there."""
        here, (line, column) = self.data, self.start
        for depth, step in enumerate(path):
            mark = self.marks.get(id(here), {}).get(step)
            if mark is None:
                break
            last = depth == len(path) - 1
            # What lacks something below it is best shown by its own key; a list item has none.
            line, column = mark[:2] if key or not last else mark[2:]
            here = here[step]
        return Place(self.file, line, column)


def read_document(path: Path) -> tuple[Document, list[Problem]]:
    """Read a file. Never raises for what is on disk; a document that could not be read has `data` None."""
    file = str(path)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        return Document(file), [_whole(file, "is a folder", "name the file in it, e.g. agentd.yaml")]
    except FileNotFoundError:
        return Document(file), [_whole(file, "does not exist", "`agentd init DIR` writes a first one")]
    except PermissionError:
        return Document(file), [
            _whole(file, "may not be read by this user", f"allow it (chmod, chgrp) or run as its owner: {file}")
        ]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Document(file), [_whole(file, f"cannot be read: {reason}")]
    if len(content) > MAX_FILE_BYTES:
        return Document(file), [
            _whole(file, f"is larger than {MAX_FILE_BYTES // 2**20} MiB", "split it with `include`")
        ]
    return parse_document(content, file)


def parse_document(content: bytes, file: str) -> tuple[Document, list[Problem]]:
    """Read what stands in a file; the same promise as `read_document`."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return Document(file), [_whole(file, "is UTF-16 text", "save it as UTF-8")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8-sig", errors="replace")
        return Document(file), [
            _at(file, before, f"byte 0x{content[error.start]:02x} is not UTF-8 text", "save the file as UTF-8")
        ]
    if bad := _UNPRINTABLE.search(text):
        what = "holds a NUL byte" if bad[0] == "\0" else f"holds the control character U+{ord(bad[0]):04X}"
        return Document(file), [_at(file, text[: bad.start()], what, 'delete it; a text may write it as "\\x.."')]
    return _Composer(text, file).compose()


def parse_value(text: str) -> Any:
    """
    Read one YAML 1.2 value from a line of text, such as `5`, `debug`, `[a, b]` or `{usd: 1}`.

    Raises ValueError with what and how to mend.
    """
    if bad := _UNPRINTABLE.search(text):
        raise ValueError(f"holds the character U+{ord(bad[0]):04X}; delete it")
    document, problems = _Composer(text, "").compose()
    if problems:
        problem = min(problems)
        raise ValueError(f"{problem.what}; {problem.cure}" if problem.cure else problem.what)
    return document.data


def plain_scalar(text: str) -> Any:
    """What an unquoted scalar means by the YAML 1.2 core schema. Raises ValueError for a number beyond reason."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "-+.0123456789":
        return text
    if len(text) > _MAX_DIGITS and (_INT.fullmatch(text) or _FLOAT.fullmatch(text) or _BASED.fullmatch(text)):
        raise ValueError(f"a number of {len(text)} digits; put it in quotes if it is text")
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _whole(file: str, what: str, cure: str = "") -> Problem:
    return Problem(file, 0, 0, "file", what, cure)


def _at(file: str, before: str, what: str, cure: str) -> Problem:
    line = before.count("\n") + 1
    return Problem(file, line, len(before) - (before.rfind("\n") + 1) + 1, "file", what, cure)


class _Stop(Exception):
    """The rest of the file cannot be read."""


class _Open:
    """A list or mapping that is still being read."""

    __slots__ = ("anchor", "container", "key", "key_mark", "marks", "size")

    def __init__(self, container: Any, anchor: str | None) -> None:
        self.container = container
        self.anchor = anchor
        self.marks: dict[Any, tuple[int, int, int, int]] = {}
        self.key: str | None = None
        self.key_mark: tuple[int, int] | None = None
        self.size = 1


class _Composer:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._aliased = 0
        self._document = Document(file)
        self._filled = False

    def compose(self) -> tuple[Document, list[Problem]]:
        try:
            self._run()
        except _Stop:
            self._document.data = None
        except yaml.YAMLError as error:
            line, column, what, cure = yaml_errors.explain(error, self._text)
            self._problem(line, column, what, cure)
            self._document.data = None
        return self._document, self._problems

    def _run(self) -> None:
        documents = 0
        for event in _events(self._text):
            kind = type(event)
            if kind is yaml.ScalarEvent:
                self._scalar(event)
            elif kind is yaml.MappingStartEvent:
                self._open({}, event, "map")
            elif kind is yaml.SequenceStartEvent:
                self._open([], event, "seq")
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                self._close()
            elif kind is yaml.AliasEvent:
                self._alias(event)
            elif kind is yaml.DocumentStartEvent:
                documents += 1
                if documents > 1:
                    mark = event.start_mark
                    self._fail(
                        mark, "a second document begins here", "remove the `---`, or use `include` for more files"
                    )

    def _problem(self, line: int, column: int, what: str, cure: str) -> None:
        self._problems.append(Problem(self._file, line, column, self._key(), what, cure))

    def _fail(self, mark: Any, what: str, cure: str) -> None:
        self._problem(mark.line + 1, mark.column + 1, what, cure)
        raise _Stop

    def _key(self) -> str:
        path: list[str | int] = []
        for frame in self._stack:
            innermost = frame is self._stack[-1]
            if type(frame.container) is list:
                path.append(len(frame.container) - (0 if innermost else 1))
            elif frame.key is not None and (frame.key_mark is not None or not innermost):
                path.append(frame.key)
        return dotted(tuple(path)) or "file"

    def _scalar(self, event: Any) -> None:
        mark = event.start_mark
        tag = event.tag
        value: Any = event.value
        if tag is not None and tag != "!":
            value = self._tagged(event)
        elif tag is None and event.implicit[0]:
            try:
                value = plain_scalar(value)
            except ValueError as error:
                what, _, cure = str(error).partition("; ")
                self._problem(mark.line + 1, mark.column + 1, what, cure)
        if self._stack:
            frame = self._stack[-1]
            if frame.key_mark is None and type(frame.container) is dict:
                self._begin_key(frame, value, event)
                return
        self._put(value, 1, mark)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)

    def _tagged(self, event: Any) -> Any:
        name = event.tag.removeprefix(_TAG)
        if name == "str":
            return event.value
        try:
            value = plain_scalar(event.value)
        except ValueError:
            value = event.value
        if event.tag.startswith(_TAG):
            if name == "float" and type(value) in (int, float):
                return float(value)
            if type(value) is _TAGGED.get(name):
                return value
        mark = event.start_mark
        self._problem(mark.line + 1, mark.column + 1, f"the tag {_show_tag(event.tag)} is not known here", "remove it")
        return event.value

    def _begin_key(self, frame: _Open, key: Any, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        first = frame.marks.get(event.value)
        frame.key = event.value
        frame.key_mark = (line, column)
        if type(key) is not str:
            shown = event.value or "nothing"
            self._problem(line, column, f"the key {shown} is not text", f'put it in quotes: "{event.value}"')
        elif key == "<<" and event.implicit[0]:
            cure = "use `defaults`, or alias the whole value: *name"
            self._problem(line, column, "merge keys (<<) are no part of YAML 1.2", cure)
        elif first is not None:
            cure = f"remove one of them; the first is in line {first[0]}, column {first[1]}"
            self._problem(line, column, f"the key `{key}` stands here a second time", cure)

    def _open(self, container: Any, event: Any, tag: str) -> None:
        mark = event.start_mark
        if event.tag is not None and event.tag not in ("!", _TAG + tag):
            self._problem(
                mark.line + 1, mark.column + 1, f"the tag {_show_tag(event.tag)} is not known here", "remove it"
            )
        if self._stack:
            frame = self._stack[-1]
            if frame.key_mark is None and type(frame.container) is dict:
                self._fail(mark, "a list or mapping stands where a key must be", "write the key as plain text")
            if len(self._stack) >= MAX_DEPTH:
                self._fail(mark, f"nested deeper than {MAX_DEPTH} levels", "flatten it")
        opened = _Open(container, event.anchor)
        self._document.marks[id(container)] = opened.marks
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        self._put(container, 0, mark)
        self._stack.append(opened)

    def _close(self) -> None:
        frame = self._stack.pop()
        if frame.anchor is not None:
            self._anchors[frame.anchor] = (frame.container, frame.size)
        if self._stack:
            self._stack[-1].size += frame.size

    def _alias(self, event: Any) -> None:
        mark = event.start_mark
        if event.anchor not in self._anchors:
            if any(frame.anchor == event.anchor for frame in self._stack):
                self._fail(mark, f"*{event.anchor} stands inside the value that it names", "remove it")
            self._fail(
                mark,
                f"*{event.anchor} names no anchor above it",
                f'write &{event.anchor} before the value that it repeats, or put text in quotes: "*{event.anchor}"',
            )
        value, size = self._anchors[event.anchor]
        self._aliased += size
        if self._aliased > MAX_ALIASED_VALUES:
            self._fail(mark, f"aliases unfold to more than {MAX_ALIASED_VALUES:,} values", "write less of it by alias")
        if self._stack:
            frame = self._stack[-1]
            if frame.key_mark is None and type(frame.container) is dict:
                self._fail(mark, "an alias stands where a key must be", "write the key out")
        self._put(value, size, mark)

    def _put(self, value: Any, size: int, mark: Any) -> None:
        line, column = mark.line + 1, mark.column + 1
        if not self._stack:
            self._document.data = value
            self._document.start = (line, column)
            return
        frame = self._stack[-1]
        frame.size += size
        container = frame.container
        if type(container) is list:
            frame.marks[len(container)] = (line, column, line, column)
            container.append(value)
        else:
            assert frame.key_mark is not None
            assert frame.key is not None
            frame.marks[frame.key] = (*frame.key_mark, line, column)
            container[frame.key] = value
            frame.key_mark = None


def dotted(path: KeyPath) -> str:
    """A path as problems show it: `watches[3].http.url`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def _show_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag


def _events(text: str) -> Iterator[Any]:
    """YAML events by libyaml, or by PyYAML's own slower parser where that was not built in."""
    if not yaml.__with_libyaml__:
        yield from yaml.parse(text, Loader=yaml.SafeLoader)
        return
    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stub leaves it out

    parser = CParser(text)
    while (event := parser.get_event()) is not None:
        yield event
