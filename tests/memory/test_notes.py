"""Long-term memory: what is noted is found again by words, and a query is words, never syntax."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.memory import notes
from agentd.memory.migrate import migrate, steps

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
FINDING = {
    "status": "problem",
    "summary": "The disk of web-1 is full.",
    "claims": [{"text": "/var has 0 bytes left", "evidence": ["e1"], "quotes": ["100% /var"]}],
    "next_steps": ["Rotate nginx's logs."],
}


def opened() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    migrate(connection, steps("history"), "test", before=lambda: None)
    return connection


@pytest.fixture
def c() -> Iterator[apsw.Connection]:
    connection = opened()
    yield connection
    connection.close()


def final(c: apsw.Connection, answer: str, *, run: str = "r1", watch: str = "shop", **more: Any) -> int:
    return notes.add_final(
        c, **{"at": NOW, "run": run, "watch": watch, "fingerprint": "9f2c", "answer": answer, "finding": None, **more}
    )


def result(c: apsw.Connection, output: Any, *, step: int = 1, tool: str = "http_get") -> int:
    return notes.add_tool_result(
        c, at=NOW, run="r1", watch="shop", fingerprint=None, step=step, tool=tool, output=output
    )


def found(c: apsw.Connection, words: str, **which: Any) -> list[int]:
    return [each.note.number for each in notes.search(c, words, **which)]


def test_notes_are_events_of_two_types(c: apsw.Connection) -> None:
    """What is exported has to be read by programs that know these two."""
    numbers = [
        result(c, {"status": 503}, step=2),
        result(c, "No space left on device"),
        final(c, "Disk full.", finding=FINDING),
    ]

    about = {"run": "r1", "watch": "shop", "at": "2026-01-05T12:00:00.000Z"}
    assert [note.event() for note in notes.after(c, 0)] == [
        {"type": "tool_result", "step": 2, "tool": "http_get", "output": {"status": 503}, "fingerprint": None, **about},
        {
            "type": "tool_result",
            "step": 1,
            "tool": "http_get",
            "output": "No space left on device",
            "fingerprint": None,
            **about,
        },
        {"type": "final", "answer": "Disk full.", "finding": FINDING, "fingerprint": "9f2c", **about},
    ]
    assert numbers == [1, 2, 3]
    assert notes.counts(c) == {"final": 1, "tool_result": 2}
    assert (notes.count(c), notes.count(c, type="final"), notes.count(c, watch="mail")) == (3, 1, 0)


def test_words_beginnings_and_phrases_are_found(c: apsw.Connection) -> None:
    """Half of what one remembers of an incident is how a word began."""
    disk = final(c, "", finding=FINDING)
    net = final(c, "Upstream timed out; the connection to 10.0.0.3 was refused. Größe: ÉCLAIR")
    json_output = result(c, {"deep": {"message": "quota exceeded", "code": 507}})

    assert found(c, "disk full") == [disk]
    assert found(c, "DISK") == [disk]
    assert found(c, "logs rotate") == [disk]
    assert found(c, "conn*") == [net]
    assert found(c, "grosse eclair") == []
    assert found(c, "große") == [net]
    assert found(c, "größe eclair") == [net]
    assert found(c, "10.0.0.3") == [net]
    assert found(c, "10.3") == []
    assert found(c, '"timed out"') == [net]
    assert found(c, '"out timed"') == []
    assert found(c, "quota 507") == [json_output]
    assert found(c, "disk refused") == []
    assert set(found(c, "disk refused", any_word=True)) == {disk, net}


def test_what_is_found_shows_the_place(c: apsw.Connection) -> None:
    """A list of answers of a page each helps nobody."""
    final(c, "x " * 500 + "the disk is full " + "y " * 500)

    (hit,) = notes.search(c, "disk")
    assert "the [disk] is full" in hit.snippet
    assert len(hit.snippet) < 200


def test_the_best_match_stands_first(c: apsw.Connection) -> None:
    """A word said in passing is not what a note is about."""
    passing = final(c, "all fine " * 50 + "disk " + "all fine " * 50)
    about = final(c, "disk disk disk")

    assert found(c, "disk") == [about, passing]


def test_parts_of_words_and_languages_without_spaces_are_found(c: apsw.Connection) -> None:
    """An index of words knows no middle of a word, and takes a Chinese sentence for one."""
    chinese = final(c, "磁盘已满 请清理日志")
    name = final(c, "unit web_frontend.service 100% failed")

    assert found(c, "已满") == [chinese]
    assert found(c, "ontend.serv") == [name]
    assert found(c, "00% fai") == [name]
    assert found(c, "_%_") == []
    (hit,) = notes.search(c, "已满")
    assert hit.snippet == "磁盘[已满] 请清理日志"


def test_a_search_is_narrowed_by_watch_alert_and_type(c: apsw.Connection) -> None:
    """`memory search --watch shop` must not show what is known of others."""
    shop, mail = final(c, "disk"), final(c, "disk", watch="mail", fingerprint="aa")
    said = result(c, "disk")

    assert found(c, "disk", watch="mail") == [mail]
    assert found(c, "disk", fingerprint="9f2c") == [shop]
    assert found(c, "disk", type="tool_result") == [said]
    assert [note.number for note in notes.last(c, watch="shop")] == [said, shop]
    assert [note.number for note in notes.finals_about(c, "aa")] == [mail]
    assert [note.number for note in notes.finals_of(c, "shop")] == [shop]


HOSTILE = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                '"',
                '""',
                "*",
                "(",
                ")",
                "NEAR(a b, 2)",
                "AND",
                "OR",
                "NOT",
                "text:",
                "{text x}:",
                "^",
                "-",
                "+",
                "disk",
                "'",
            ]
        ),
        max_size=8,
    ).map(" ".join),
)


@given(HOSTILE, st.booleans())
def test_no_query_is_syntax(query: str, any_word: bool) -> None:
    """The words come from log lines and models too; an error, or another question than was asked, helps no one."""
    c = opened()
    final(c, "disk text near and or not a b")
    try:
        for each in notes.search(c, query, any_word=any_word):
            assert each.note.number == 1
        notes.search(c, query + " disk", any_word=any_word)
    finally:
        c.close()


def test_what_strangers_wrote_is_cut_and_never_refused(c: apsw.Connection) -> None:
    """A tool that prints a gigabyte, or half a character, must not end the memory."""
    result(c, "begin " + "\ud800\0 " * 10**6 + "the real error")
    result(c, {"k": ["x" * 10**6] * 100})
    final(
        c, "a" * 10**6, finding={"summary": 7, "claims": "none", "next_steps": {"a": [None, 1.5]}, "extra": "x" * 10**6}
    )

    first, second, last = notes.after(c, 0)
    assert max(len(note.text) for note in (first, second, last)) <= notes.MAX_TEXT
    assert first.text.startswith("begin")
    assert first.text.endswith("the real error")
    assert len(json.dumps([note.event() for note in (first, second, last)])) < 200_000
    assert "1.5" in last.text


def test_a_note_that_goes_is_not_found_any_more(c: apsw.Connection) -> None:
    """An index that names rows which are gone is a damaged index."""
    for number in range(10):
        final(c, f"disk {number}")
    c.execute("DELETE FROM notes WHERE number <= 9")

    assert found(c, "disk") == [10]
    assert notes.get(c, 9) is None
    c.execute("INSERT INTO notes_words (notes_words, rank) VALUES ('integrity-check', 1)")
    assert c.execute("PRAGMA quick_check").fetchall() == [("ok",)]


def test_notes_come_in_pages(c: apsw.Connection) -> None:
    """An export of a year must not be held in memory."""
    for number in range(5):
        final(c, str(number), at=NOW + timedelta(seconds=number))

    first = notes.after(c, 0, limit=2)
    assert [note.number for note in first] == [1, 2]
    assert [note.number for note in notes.after(c, first[-1].number, limit=9)] == [3, 4, 5]
