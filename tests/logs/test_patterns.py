"""
Patterns are read at load: what RE2 cannot take is said with what to write instead.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.errors import ConfigError
from agentd.logs.patterns import compile_pattern, compile_search, unanchored, widened


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        (r"error(?!.*test)", "`ignore:`"),
        (r"(?<!un)known", "`ignore:`"),
        (r"a(?=b)", "this.*that"),
        (r"(?<=user=)\S+", r"(?P<user>\S+)"),
        (r"(a)\1", "two groups"),
        (r"(?P<x>a)(?P=x)", "two groups"),
        (r"(?P<x>a)\k<x>", "two groups"),
        (r"a++b", "write +"),
        (r"a{2}+b", "write {2}"),
        (r"(?>ab|a)c", "write (?:…)"),
        (r"(?(1)a|b)", "(?:this|that)"),
        (r"(?1)a", "write the part out"),
        (r"a{2000}", "1000"),
        (r"((a{100}){100})", "1000"),
        (r"[\pL\pN]{900}[\pL\pN]{900}", "too large"),
        (r"end\Z", r"$ or \z"),
        (r"\h+x", r"[ \t]"),
        (r"\u00e9", r"\x{00e9}"),
        (r"(?x) a b", "without spaces"),
        (r"(?u)a", "leave the letter out"),
        (r"(?#note)a", "after #"),
        (r"(?'x'a)", "(?P<name>…)"),
        (r"(?P<user-id>a)", "letters, digits and _"),
        (r"(?P<x>a)|(?P<x>b)", "name"),
        (r"(?P<x>a)|(?<x>b)", "name"),
        (r"\C", "write ."),
        ("(", r"\("),
        (")", r"\)"),
        ("[", r"\["),
        ("*a", r"\*"),
        ("a**", "(?:…)"),
        ("[z-a]", "lower end"),
        ("\\", r"\\"),
        ("\ud800", "write the character"),
        ("x" * 10_000, "split"),
    ],
)
def test_what_cannot_be_taken_says_what_to_write_instead(text: str, cure: str) -> None:
    """Patterns are copied from tools that use other engines; the error must lead on."""
    with pytest.raises(ConfigError) as error:
        compile_pattern(text)

    assert cure in str(error.value)
    assert "; " in str(error.value)


@pytest.mark.parametrize("text", ["", ".*", "^", "$", "a*", "(?P<x>.*)", "x|", "(?s).*", r"\x{0}*", "^.*$"])
def test_a_pattern_for_every_line_is_refused(text: str) -> None:
    """It asks for nothing, and is mostly a slip of the pen."""
    with pytest.raises(ConfigError, match="leave it out"):
        compile_pattern(text)


@pytest.mark.parametrize("text", ["^$", ".+", "^.{0,80}$", r"\b", r"^\s*$", "(?m)^$"])
def test_a_pattern_for_some_lines_is_taken_though_it_matches_nothing_at_all(text: str) -> None:
    """Empty lines may be what somebody looks for."""
    compile_pattern(text)


def test_both_spellings_of_a_named_group_are_taken() -> None:
    """Python writes one, everybody else the other."""
    found = compile_pattern(r"(?P<user>\w+)@(?<host>\w+)(?::(?P<port>\d+))?").groups(b"to joe@web now")

    assert found == {"user": "joe", "host": "web"}


def test_a_group_gives_text_whatever_the_alphabet() -> None:
    """Names are not ASCII everywhere."""
    assert compile_pattern(r"user (?P<u>\w*\PM+)!").groups("x user J\u00f6rg!".encode()) == {"u": "J\u00f6rg"}


@pytest.mark.parametrize("text", [r"(a+)+$", r"(a|aa)+$", r"(.*a){12}$", r"(\w+\s?)*:$"])
def test_a_catastrophic_pattern_takes_no_time(text: str) -> None:
    """Backtracking engines need longer than the universe for these; one line must not stop a daemon."""
    pattern = compile_pattern(text)
    began = time.process_time()

    assert not pattern.finds(b"a" * 1_000_000 + b"!")

    assert time.process_time() - began < 20  # minutes and more, if it were not linear


WHOLE = ["ab", "ba", r"\Aa", r"a\z", "^a", "a$", r"(?-m)^b", r"(?-m:b$)", "(?i)AB", "(?s)a.b", "(?s-m:a.b$)", r"a\sb",
         r"\Qa.b\E$", r"\Qa.b", "[^a]b", r"[]\]]", "[[:alpha:]]b$", r"\x{61}b", "(?P<x>a)|b(?<y>a)", r"\ba\b", r"\Bb",
         "^$", r"(?-m)^$", "(?U)a+b", "(?i:A)b", "a(?-m)b$", r"\pLb$", r"[\pL]$"]  # fmt: skip


@pytest.mark.parametrize("pattern", WHOLE)
@given(entries=st.lists(st.text(alphabet="ab.A \t]\0\n\r\u00e9", max_size=6), min_size=1, max_size=5))
def test_the_wider_form_misses_no_entry(pattern: str, entries: list[str]) -> None:
    """The search of whole blocks may find too much, but never too little."""
    asked = compile_pattern(pattern)
    match = compile_search(widened(pattern), one_line=False, memory=8 << 20)
    assert match is not None
    text = b"".join(entry.encode() + b"\n" for entry in entries)

    begin = 0
    for entry in entries:
        end = begin + len(entry.encode())
        if asked.finds(text[begin:end]):
            assert 0 <= match(unanchored(), text, begin, len(text))[0][0] <= end
        begin = end + 1
