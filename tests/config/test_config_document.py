"""What a YAML file says, where it says it, and what is told when it cannot be read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentd.config.document import Place, parse_document, parse_value, plain_scalar, read_document
from agentd.errors import Problem


@pytest.fixture(params=["libyaml", "pure"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers must behave alike: not every platform's PyYAML has libyaml."""
    if request.param == "pure":
        monkeypatch.setattr(yaml, "__with_libyaml__", False)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML without libyaml")


def read(text: str | bytes) -> Any:
    content = text if isinstance(text, bytes) else text.encode()
    document, problems = parse_document(content, "a.yaml")
    assert not problems
    return document.data


def problem(text: str | bytes) -> Problem:
    content = text if isinstance(text, bytes) else text.encode()
    _, problems = parse_document(content, "a.yaml")
    assert len(problems) == 1
    return problems[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            (word, word)
            for word in ("on", "off", "yes", "no", "Yes", "ON", "y", "12:30:45", "2026-01-01", "1_000", "0b1")
        ],
        *[("true", True), ("False", False), ("null", None), ("~", None), ("", None)],
        *[("017", 17), ("0o17", 15), ("0x1F", 31), ("-3", -3), ("+3", 3)],
        *[
            ("1.5", 1.5),
            ("1e3", 1000.0),
            (".5", 0.5),
            ("-.inf", -math.inf),
            ("5m", "5m"),
            ("-", "-"),
            ("1.2.3", "1.2.3"),
        ],
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    """YAML 1.1's surprises (a country called `no`, a port 22:22) must not come back."""
    found = plain_scalar(text)

    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text() -> None:
    assert read("""a: "5"\nb: 'true'\nc: !!str 7\nd: |\n  12\n""") == {"a": "5", "b": "true", "c": "7", "d": "12\n"}


def test_places_of_keys_and_values_are_known() -> None:
    """Every problem names line and column, counted as editors do."""
    document, _ = parse_document(b"# first\na:\n  - b: 1\n    cc: {d: x}\n", "a.yaml")

    assert document.place(("a", 0, "cc", "d")) == Place("a.yaml", 4, 13)
    assert document.place(("a", 0, "cc"), key=True) == Place("a.yaml", 4, 5)
    assert document.place(("a", 0)) == Place("a.yaml", 3, 5)
    assert document.place(("a", 0, "missing")) == Place("a.yaml", 3, 5)
    assert document.place(("a", 0, "cc", "missing")) == Place("a.yaml", 4, 5)


def test_anchors_and_aliases_work() -> None:
    document, problems = parse_document(b"a: &x {k: [1]}\nb: *x\nc: &y text\nd: [*y, *y]\n", "a.yaml")

    assert not problems
    assert document.data == {"a": {"k": [1]}, "b": {"k": [1]}, "c": "text", "d": ["text", "text"]}
    assert document.place(("b", "k", 0)) == Place("a.yaml", 1, 12)


def test_a_billion_laughs_is_an_error() -> None:
    """Ten lines must not fill the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]

    assert "aliases unfold to more than" in problem("\n".join(lines)).what


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\n\tb: 2", 2, 1, "tab"),
        ("a:\n\tb: 2", 2, 1, "tab"),
        ("a: 'x\nb: 1\n", 1, 4, "quote"),
        ("a: [1, 2\n", 1, 4, "list is opened here with ["),
        ("a: {b: 1\n", 1, 4, "mapping is opened here with {"),
        ("a: b: c", 1, 5, "`:`"),
        ("a: @x", 1, 4, "'@'"),
        ("a: *.log", 1, 5, "cannot begin with *"),
        ("a:\n  b: 1\n c: 2", 3, 2, "does not continue the mapping"),
        ("- a\nb: 1", 2, 1, "list above"),
        ("a: 1\na: 2", 2, 1, "second time"),
        ("1: a", 1, 1, "not text"),
        ("true: a", 1, 1, "not text"),
        ("null: a", 1, 1, "not text"),
        ("? [a]\n: b", 1, 3, "where a key must be"),
        ("a: &x 1\nb:\n  <<: *x", 3, 3, "merge keys"),
        ("a: 1\n---\nb: 2", 2, 1, "second document"),
        ("a: *x", 1, 4, "names no anchor"),
        ("a: &x [*x]", 1, 8, "inside the value that it names"),
        ("a: !!binary aGk=", 1, 4, "tag"),
        ("a: !thing {}", 1, 4, "tag"),
        (b"a: 1\nb: \xff", 2, 4, "not UTF-8"),
        ("a: 1\nb: \0", 2, 4, "NUL"),
        ("a: \x07", 1, 4, "U+0007"),
        ("[" * 100, 1, 65, "nested deeper"),
        ("a: " + "9" * 200, 1, 4, "digits"),
    ],
)
def test_what_cannot_be_read_is_told_with_place_and_cure(text: str | bytes, line: int, column: int, words: str) -> None:
    """A person must find the spot and know what to do, without knowing what a token is."""
    found = problem(text)

    assert words in found.what
    assert (found.line, found.column) == (line, column)
    assert found.cure


def test_a_duplicate_key_names_both_places() -> None:
    assert "line 1, column 1" in problem("a: 1\nb: 2\na: 3").cure


def test_several_mistakes_of_content_are_all_told() -> None:
    _, problems = parse_document(b"a: 1\na: 2\n3: x\nb: !!set {}\n", "a.yaml")

    assert [each.line for each in problems] == [2, 3, 4]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    """Some editors write one."""
    assert read(b"\xef\xbb\xbfa: 1") == {"a": 1}


def test_utf_16_is_named_as_what_it_is() -> None:
    assert "UTF-16" in problem("a: 1".encode("utf-16")).what


def test_files_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path, "folder"),
        (tmp_path / "none", "does not exist"),
        (tmp_path / "a\0b", "cannot be read"),
    ):
        document, problems = read_document(path)

        assert document.data is None
        assert words in problems[0].what


def test_permission_denied_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon runs as its own user; the file may belong to root alone."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)

    assert "may not be read" in read_document(tmp_path / "a.yaml")[1][0].what


@pytest.mark.parametrize(
    ("text", "value"), [("debug", "debug"), ("5", 5), ("[a, 1]", ["a", 1]), ("{usd: 1}", {"usd": 1}), ("", None)]
)
def test_a_single_value_is_read_as_in_a_file(text: str, value: Any) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize("text", ["[a", "*x", "a\0", "{a: 1, a: 2}"])
def test_a_single_value_that_cannot_be_read_says_why(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_value(text)
